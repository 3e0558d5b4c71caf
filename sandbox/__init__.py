"""The clock: configs, scheduling, calls, backends, and the command line."""

__version__ = "0.1.0"
