"""Showing a run in a terminal."""
