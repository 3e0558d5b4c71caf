"""Views of runs for the terminal."""
