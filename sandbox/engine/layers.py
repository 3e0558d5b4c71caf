"""The layers (middleware) between an episode and a backend. All have one signature, `Answer`.

A layer takes the function below it and returns one with the same signature. `layered` has the
order. An additional layer (a policy, a tracer, human approval) is a function such as::

    def policy(answer: Answer) -> Answer:
        async def checked(call: Call) -> Result:
            result = await answer(call)
            if result.reply is not None and "secret" in result.reply.text:
                return result._replace(reply=None, error="refused by the policy")
            return result

        return checked

It is passed to `resume(..., layers=[policy])`. Its result is journalled, so a replay does not call
it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from agents.forms import prompt_hash
from agents.plugins import exception_line
from agents.stops import NO_STOPS
from sandbox.backends.base import (
    Backend,
    BackendDown,
    Call,
    CallFailed,
    Reply,
    Resting,
    Unavailable,
)
from sandbox.backends.retries import pause
from sandbox.concurrency import Gate
from sandbox.engine.health import Health, Refusals, Trouble
from sandbox.engine.journal import Journal
from sandbox.engine.limits import Limiter
from sandbox.progress import Counts, Wait
from storage.errors import InputError
from storage.reader import Journalled


class Result(NamedTuple):
    """The result of a call, before the reply is parsed.

    Attributes:
        reply: the reply; None where the call failed.
        error: why it failed.
        started: when the call was sent, in milliseconds on the run's clock.
        took: latency, in milliseconds.
        call_id: the row of a call that is journalled already; None otherwise.
        status: how the reply of a replayed call was read; None for a new one.
    """

    reply: Reply | None
    error: str | None
    started: int
    took: int
    call_id: int | None = None
    status: str | None = None


Answer = Callable[[Call], Awaitable[Result]]
"""Answers a call: the signature that all layers share."""

Layer = Callable[[Answer], Answer]
"""Wraps an `Answer`."""


def layered(
    health: Health,
    journal: Journal,
    delete: Callable[[int], None],
    gate: Gate,
    limiter: Limiter,
    jitter: Random,
    layers: Sequence[Layer] = (),
) -> Answer:
    """Wrap the backend of a role in all layers, outermost first.

    The budget is checked after a call has passed the gate, since it may be spent by then.

    Args:
        health: the backend with its settings; roles that share these share it.
        journal: the calls of earlier sessions.
        delete: deletes a call from the journal, by its row.
        gate: limits the calls in flight.
        limiter: ends the session.
        jitter: randomises the pauses between retries.
        layers: additional layers, outermost first; they see only calls that are not replayed.
    """
    counts = limiter.counts
    return replay(
        journal,
        delete,
        counts,
        wrapped(
            layers,
            limit_in_flight(
                gate,
                counts,
                budget(
                    limiter,
                    retry(health, limiter, jitter, journal.asked_again or 0),
                ),
            ),
        ),
    )


def wrapped(layers: Sequence[Layer], answer: Answer) -> Answer:
    """Wrap an `Answer` in layers, outermost first."""
    for layer in reversed(layers):
        answer = layer(answer)
    return answer


def replay(
    journal: Journal, delete: Callable[[int], None], counts: Counts, answer: Answer
) -> Answer:
    """Answer a call from the journal if it is there.

    Raises InputError if the journal has the call with another prompt, unless changes are accepted:
    then the old call is deleted and requested again.
    """

    async def replayed(call: Call) -> Result:
        known = journal.find(call.name)
        if known is None:
            return await answer(call)
        if known.prompt_hash != prompt_hash(call.system, call.user):
            if not journal.accept_changes:
                raise InputError(
                    f"call {call.name}: found another prompt in the journal; expected the prompt "
                    f"template {call.name.form}, the personas and the memories that the run was "
                    "started with (--accept-changes requests the call again)"
                )
            delete(known.call_id)
            return await answer(call)
        counts.replayed += 1
        call_id = None if journal.copy else known.call_id
        return Result(_reply(known), known.error, known.started, known.took, call_id, known.status)

    return replayed


def _reply(known: Journalled) -> Reply | None:
    if known.reply is None:
        return None
    return Reply(
        known.reply,
        known.cut,
        known.tokens_in,
        known.tokens_out,
        known.cached_tokens,
        known.thinking,
        known.expected,
        known.raw,
    )


def limit_in_flight(gate: Gate, counts: Counts, answer: Answer) -> Answer:
    """Limit the calls in flight; the waiting call with the lowest priority goes first.

    Calls with the same priority are ordered by episode, for the prefix cache.
    """

    async def admitted(call: Call) -> Result:
        await gate.enter((call.priority, call.name.episode))
        counts.in_flight += 1
        try:
            return await answer(call)
        finally:
            counts.in_flight -= 1
            gate.leave()

    return admitted


def budget(limiter: Limiter, answer: Answer) -> Answer:
    """Count a call, or raise Stopped if the session is stopped or its budget is spent."""

    def counted(call: Call) -> Awaitable[Result]:
        limiter.check()
        limiter.sent += 1
        return answer(call)

    return counted


async def _backend_reply(backend: Backend, call: Call, timeout: float | None) -> Reply:
    """The reply of a backend, whose code may be a user's own and raise or return anything.

    Raises:
        Unavailable: there is none for now, or within `timeout` seconds.
        CallFailed: it raised an exception that backends do not raise, or returned no reply.
    """
    try:
        if timeout is None:
            reply: Any = await backend.answer(call)
        else:
            async with asyncio.timeout(timeout):
                reply = await backend.answer(call)
    except (Unavailable, CallFailed, BackendDown, InputError):
        raise
    except TimeoutError:
        within = "" if timeout is None else f" within {timeout:g} seconds"
        raise Unavailable(f"no reply{within}") from None
    except Exception as error:
        raise CallFailed(f"the backend raised {exception_line(error)}") from error
    if not isinstance(reply, Reply):
        raise CallFailed(f"the backend returned {type(reply).__name__}; expected Reply")
    if not isinstance(reply.text, str):
        raise CallFailed(f"the backend returned a text of {type(reply.text).__name__}")
    return _stopped(reply, call)


def _stopped(reply: Reply, call: Call) -> Reply:
    """A reply that ends before a stop string; what is before it was not truncated."""
    if call.stop is NO_STOPS:
        return reply
    ended = call.stop.end(reply.text)
    return reply._replace(text=ended.text, cut=reply.cut and not ended.stopped)


def retry(health: Health, limiter: Limiter, jitter: Random, asked_again: int = 0) -> Answer:
    """Send a call to the backend; send it again, with the same seed, until it is answered.

    A call that the backend cannot answer, though it answers others, becomes a failed call; see
    `sandbox.engine.health`.

    Raises BackendDown if the backend is silent for longer than its `patience`, or refuses one
    call after the other; and Stopped during a pause.
    """
    backend, clock, waits = health.backend, limiter.clock, limiter.counts.waits
    timeout = None if getattr(backend, "keeps_timeout", False) else health.settings.timeout
    refusals = Refusals(backend.model, asked_again)

    async def sent(call: Call) -> Result:
        started, trouble = clock.milliseconds(), Trouble(health.answers)

        def failed(reason: str) -> Result:
            return Result(None, reason, started, clock.milliseconds() - started)

        while True:
            try:
                reply = await _backend_reply(backend, call, timeout)
            except Unavailable as error:
                if await health.failed(call, trouble, error):
                    return failed(f"{error}, {_times(trouble)}, while others were answered")
                problem, seconds = str(error), _pause(error, trouble, health, jitter)
            except CallFailed as failure:
                refusals.refused(str(failure))
                return failed(str(failure) or "failed")
            else:
                health.answered(trouble.failures)
                refusals.answered()
                return Result(reply, None, started, clock.milliseconds() - started)
            waits[call.name] = Wait(problem, time.time(), seconds)
            try:
                await limiter.pause(seconds)
            finally:
                del waits[call.name]
            await health.before_retry(call)

    return sent


def _times(trouble: Trouble) -> str:
    return "once" if trouble.failures == 1 else f"{trouble.failures} times"


def _pause(error: Unavailable, trouble: Trouble, health: Health, jitter: Random) -> float:
    """The seconds until a call is sent again; a last time when the patience ends."""
    if isinstance(error, Resting):
        return error.after + jitter.uniform(0, _SPREAD)
    answers_others = trouble.seen == health.answers
    attempt = min(trouble.failures, _ALIVE) if error.busy or answers_others else trouble.failures
    return max(error.after, min(pause(attempt, jitter), health.seconds_left()))


_SPREAD = 0.25
"""Calls that wait for a resting address are sent again within this many seconds of its rest."""

_ALIVE = 3
"""The pause of a call doubles until this attempt while its backend answers others, or is busy; the
limits of the server's address do the rest."""
