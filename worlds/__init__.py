"""Worlds: who meets whom, about what, and how a meeting is played. One world is one file."""
