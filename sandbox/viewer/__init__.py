"""The viewer: read-only web pages of runs, updated live while a run is in progress."""
