"""The speed of one copy of a model, as `calibrate` measures it and `estimate --rates` reads it."""

from __future__ import annotations

import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from agents.section import Section
from storage.errors import InputError


class EngineRates(Section):
    """The speed of one copy of a model.

    An engine with continuous batching either reads prompts or writes: a step writes one token of
    each running call. So a call occupies the engine for the time of its prompt, and all running
    calls write at one rate.

    Attributes:
        model: its name.
        backend: the kind of backend that was measured.
        measured: the date, ISO 8601.
        gpus: GPUs of one copy; 0: it runs on a CPU.
        seconds_per_call: what each call takes in addition to its tokens.
        seconds_per_prompt_token: of tokens that are not in the prefix cache.
        seconds_per_cached_token: of those that are.
        seconds_per_constrained_token: what constrained decoding adds to a token of a reply.
        steps: number of running calls, and seconds of a step, in ascending order; between them
            and after the last one a step is interpolated linearly.
        max_running: the largest number of running calls; others wait.
        kv_tokens: capacity of the cache in tokens; null: not known, and so no limit.
        environment: what the backend tells of itself.
    """

    model: str
    backend: str
    measured: str
    gpus: int = Field(ge=0)
    seconds_per_call: float = Field(ge=0)
    seconds_per_prompt_token: float = Field(ge=0)
    seconds_per_cached_token: float = Field(ge=0)
    seconds_per_constrained_token: float = Field(ge=0)
    steps: tuple[tuple[int, float], ...] = Field(min_length=1)
    max_running: int = Field(ge=1)
    kv_tokens: int | None = Field(default=None, ge=1)
    environment: dict[str, Any] = Field(default_factory=dict)

    @field_validator("steps")
    @classmethod
    def _ascending(cls, value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        running = [number for number, _ in value]
        if running != sorted(set(running)) or running[0] < 1 or min(s for _, s in value) <= 0:
            raise ValueError("pairs of running calls, in ascending order, and seconds above 0")
        return value

    def step(self, running: int) -> float:
        """Seconds of a step that writes one token of each of `running` calls."""
        return interpolated(self.steps, running)

    def prefill(self, uncached: int, cached: int, constrained: int) -> float:
        """Seconds that a call occupies its engine in addition to the steps of its reply.

        Args:
            uncached: the tokens of its prompt that are not in the cache.
            cached: those that are.
            constrained: tokens of its reply that are constrained.
        """
        return (
            self.seconds_per_call
            + uncached * self.seconds_per_prompt_token
            + cached * self.seconds_per_cached_token
            + constrained * self.seconds_per_constrained_token
        )


def interpolated(steps: tuple[tuple[int, float], ...], running: int) -> float:
    """Interpolate a step linearly; beyond the ends it is the nearest line, or the only value."""
    if len(steps) == 1:
        return steps[0][1]
    at = min(max(1, bisect_left(steps, (running, 0.0))), len(steps) - 1)
    (low, short), (high, long) = steps[at - 1], steps[at]
    slope = max(0.0, (long - short) / (high - low))
    return max(short + slope * (running - low), min(short, long) / 2)


def read_rates(file: str | Path) -> EngineRates:
    """Read what `calibrate` wrote.

    Raises:
        InputError: it cannot be read, or is of another kind.
    """
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"--rates {file}: {reason}; expected a file that calibrate wrote"
        ) from None
    try:
        return EngineRates.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"--rates {file}: {key}: {first['msg']}; expected a file that calibrate wrote"
        ) from None
