"""Reports: a run as a standalone HTML page or a Markdown file with figures."""
