"""Playing a run: create it, work on it, resume it."""
