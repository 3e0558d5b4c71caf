"""The viewer: read-only pages over runs, live while they go on."""
