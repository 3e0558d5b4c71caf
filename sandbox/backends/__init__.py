"""Backends: what answers calls. A config names one for each role by its `backend` key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from sandbox.backends.base import Backend
from sandbox.backends.openai import OpenAIBackend, OpenAIConfig
from sandbox.backends.scripted import ScriptedBackend, ScriptedConfig
from sandbox.backends.vllm import VllmBackend
from sandbox.backends.vllm_config import VllmConfig

ModelConfig = Annotated[ScriptedConfig | VllmConfig | OpenAIConfig, Field(discriminator="backend")]
"""The settings of any backend, told apart by the key `backend`."""


def backend_of(config: ScriptedConfig | VllmConfig | OpenAIConfig) -> Backend:
    """The backend for a model's settings, not started yet."""
    match config:
        case VllmConfig():
            return VllmBackend(config)
        case OpenAIConfig():
            return OpenAIBackend(config)
        case ScriptedConfig():
            return ScriptedBackend(config)


def backends_of(
    models: Iterable[tuple[str, ScriptedConfig | VllmConfig | OpenAIConfig]],
) -> dict[str, Backend]:
    """The backend of each role; roles whose settings agree share one."""
    made: dict[str, Backend] = {}
    settings_of: dict[str, ScriptedConfig | VllmConfig | OpenAIConfig] = {}
    for role, settings in models:
        same = next((other for other, known in settings_of.items() if known == settings), None)
        made[role] = backend_of(settings) if same is None else made[same]
        settings_of[role] = settings
    return made
