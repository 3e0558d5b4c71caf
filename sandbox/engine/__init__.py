"""The engine: creates, plays and resumes runs."""
