"""The scripted backend: rules and seeded random draws instead of a language model."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext

from agents.forms import Rating
from sandbox.backends.base import Call, CallFailed, Reply
from sandbox.backends.scripted.config import Latency, ScriptedConfig
from sandbox.backends.scripted.judging import judge
from sandbox.backends.scripted.mishaps import damaged_reply, mishap
from sandbox.backends.scripted.personal import converse
from sandbox.backends.scripted.reading import sections
from sandbox.backends.scripted.scenes import play
from sandbox.backends.scripted.writing import draft, revise


def _rating(call: Call, shape: Rating) -> str:
    number, reason = judge(sections(call.user), call.system, shape, random.Random(call.seed))
    return f"Rating: {number}\nReason: {reason}"


def _free_text(call: Call) -> str:
    shown = sections(call.user)
    write = draft if shown.answer is None else revise
    return write(shown, random.Random(call.seed))


def text_for(call: Call) -> str:
    """Return the text of the reply to a call; it depends on its seed, messages and shape only.

    Raises:
        CallFailed: the shape of the reply is not supported.
    """
    said = converse(call.system, call.user, call.shape, random.Random(call.seed))
    if said is not None:
        return said
    if isinstance(call.shape, Rating):
        return _rating(call, call.shape)
    if call.shape.regex is None:
        return _free_text(call)
    played = play(call.user, call.shape, random.Random(call.seed))
    if played is not None:
        return played
    kind = type(call.shape).__name__
    raise CallFailed(f"the scripted backend does not know replies of the shape {kind}")


def _tokens(characters: int) -> int:
    """Estimate a number of tokens: four characters each, and at least one."""
    return max(1, -(-characters // 4))


class ScriptedBackend:
    """Answers calls by rules and seeded random draws; its texts consist of stored phrases."""

    def __init__(self, config: ScriptedConfig) -> None:
        self._config = config
        self._slots = self._new_slots()

    def _new_slots(self) -> asyncio.Semaphore | None:
        latency = self._config.latency
        return asyncio.Semaphore(latency.capacity) if latency else None

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        return "scripted"

    async def start(self) -> None:
        """Start the backend; there is nothing to load."""
        self._slots = self._new_slots()

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: a mishap is an error, or the shape of the reply is not supported.
        """
        if self._config.latency is None:
            return self._reply(call)
        async with self._slots or nullcontext():
            reply = self._reply(call)
            await asyncio.sleep(_latency_seconds(self._config.latency, reply))
            return reply

    def _reply(self, call: Call) -> Reply:
        text = text_for(call)
        kind = mishap(call, self._config)
        reply = Reply(text) if kind is None else damaged_reply(kind, text, call)
        if len(reply.text) > 4 * call.max_tokens:
            reply = Reply(reply.text[: 4 * call.max_tokens], cut=True)
        return reply._replace(
            tokens_in=_tokens(len(call.system) + len(call.user)),
            tokens_out=_tokens(len(reply.text)),
        )

    async def close(self) -> None:
        """Close the backend; there is nothing to release."""


def _latency_seconds(latency: Latency, reply: Reply) -> float:
    return latency.first_token + latency.per_token * (reply.tokens_out or 1)
