"""Reports: a run as one page or one Markdown file, for a colleague or an appendix."""
