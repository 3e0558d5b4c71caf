"""Worlds: environments that define who meets whom and how an episode is played. No I/O."""
