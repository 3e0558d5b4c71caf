"""Looking at a run, once for the terminal, JSON, the pages and reports."""
