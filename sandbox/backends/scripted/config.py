"""The settings of the scripted backend."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from agents.section import Section
from sandbox.backends.base import ModelSettings

Mishap = Literal["empty", "cut", "fraction", "refusal", "chatter", "injection", "error"]
"""A kind of fault in a reply, on demand."""


class Latency(Section):
    """Simulated latency of a server that answers `capacity` calls concurrently."""

    first_token: float = Field(ge=0, description="seconds until the first token")
    per_token: float = Field(ge=0, description="seconds per token of the reply")
    capacity: int = Field(ge=1, description="calls that are answered concurrently")


class ScriptedConfig(ModelSettings):
    """Settings of the scripted backend."""

    transport: ClassVar[tuple[str, ...]] = ("latency",)

    backend: Literal["scripted"]
    misbehave: float = Field(default=0.0, ge=0, le=1, description="share of calls with a mishap")
    mishaps: tuple[Mishap, ...] = Field(
        default=("empty", "cut", "fraction", "refusal", "chatter", "injection", "error"),
        description="the kinds of mishap that occur",
    )
    latency: Latency | None = None
