"""The scripted backend: a small generative model of a society, without a language model."""

from sandbox.backends.scripted.backend import ScriptedBackend, text_for
from sandbox.backends.scripted.config import Latency, Mishap, ScriptedConfig
from sandbox.backends.scripted.mishaps import mishap

Config = ScriptedConfig
Backend = ScriptedBackend

__all__ = [
    "Backend",
    "Config",
    "Latency",
    "Mishap",
    "ScriptedBackend",
    "ScriptedConfig",
    "mishap",
    "text_for",
]
