"""Backends: what answers calls. A config names one for each role by its `backend` key."""

from __future__ import annotations

from sandbox.backends.base import Backend
from sandbox.backends.scripted import ScriptedBackend, ScriptedConfig

ModelConfig = ScriptedConfig
"""The settings of any backend, told apart by the key `backend`."""


def backend_of(config: ModelConfig) -> Backend:
    """The backend for a model's settings, not started yet."""
    return ScriptedBackend(config)


def backends_of(social: ModelConfig, observer: ModelConfig) -> tuple[Backend, Backend]:
    """The backends of both roles: one and the same where their settings agree."""
    first = backend_of(social)
    return first, first if observer == social else backend_of(observer)
