"""Measure the speed of one copy of a model with calls like those of a run.

Each step sends many calls at once and measures the seconds until all are answered. The number that
a step is for is the one with which `sandbox.study.engine_model` takes as long: so the same model
that measures also predicts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from random import Random
from typing import Any, NamedTuple

from agents.forms import CallName, FreeText, Rating, Shape
from sandbox.backends import backend_of, started
from sandbox.backends.base import (
    Backend,
    BackendDown,
    Call,
    CallFailed,
    LanguageModelSettings,
    ModelSettings,
    Unavailable,
)
from sandbox.environment import told_by
from sandbox.interrupts import run_coroutine
from sandbox.study.engine_model import Engine, Needs
from sandbox.study.rates import EngineRates
from sandbox.study.sample import NoSample
from storage.errors import InputError

Say = Callable[[str], None]
"""Takes a line about each step."""

_SHORT, _LONG = 40, 300  # words of a prompt; the longer one is about as long as those of a run
_REPLY = 96  # tokens of a reply
_FIRST = 16  # calls of a step, until it is known how many take long enough
_WAITING = 4  # times as many calls as run, at once: as in a run, most of them wait
_OTHER_STEPS = 6  # besides one for each number of running calls
_GAIN = 1.03  # the least gain in tokens per second by twice the calls, or wider is not tried
_WORDS = (
    *("a", "friend", "asks", "what", "to", "say", "when", "plans", "change", "and", "the", "rain"),
    *("keeps", "everyone", "at", "home", "until", "late", "in", "day", "so", "we", "talk", "about"),
    *("bread", "tea", "trains", "music", "garden", "behind", "old", "school", "near", "river"),
)


_PROSE: tuple[Shape[Any], ...] = (FreeText(),)
_RATED: tuple[Shape[Any], ...] = (Rating(),)


class Measured(NamedTuple):
    """One call as it was answered.

    Attributes:
        uncached: tokens of its prompt that were not in the prefix cache.
        cached: those that were.
        written: tokens of its reply.
        constrained: those of them that were constrained.
    """

    uncached: int
    cached: int
    written: int
    constrained: int = 0


class Step(NamedTuple):
    """The calls of a step, how many were in flight, and the seconds until all were answered."""

    calls: list[Measured]
    width: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Reply tokens per second."""
        return sum(one.written for one in self.calls) / self.seconds


class _Load:
    """The calls of a step as a `sandbox.study.engine_model.Load`."""

    servers = 1
    kv_tokens = float("inf")

    def __init__(self, step: Step, rates: EngineRates) -> None:
        self.max_batch = min(step.width, rates.max_running)
        self._step = step
        self._rates = rates

    def speed(self, running: int) -> float:
        return 1 / self._rates.step(running)

    def needs(self, call: int) -> Needs:
        one = self._step.calls[call]
        prefill = self._rates.prefill(one.uncached, one.cached, one.constrained)
        return Needs(0, prefill, max(0, one.written - 1))

    def seconds(self) -> float:
        """The time that the step takes with these rates."""
        engine = Engine(self, self._step.width, float)
        for call in range(len(self._step.calls)):
            engine.submit(call)
        for _ in self._step.calls:
            engine.next()
        return engine.now


class _Asker:
    """Sends the calls of the steps.

    Args:
        backend: started.
        seconds: that a step should take at least.
        temperature: of all calls.
        steps: how many steps there will be at most.
        say: told about each step when it begins.
    """

    def __init__(
        self, backend: Backend, seconds: float, temperature: float, steps: int, say: Say
    ) -> None:
        self._backend = backend
        self._seconds = seconds
        self._temperature = temperature
        self._steps = steps
        self._say = say
        self._step = 0
        self._sent = 0

    def _begin(self, what: str) -> None:
        self._step += 1
        least = f"at least {self._seconds:g} s"
        self._say(f"step {self._step} of at most {self._steps} ({least}): {what}")

    async def step(
        self, width: int, words: int, max_tokens: int, shapes: Sequence[Shape[Any]] = _PROSE
    ) -> Step:
        """Send so many calls with new prompts, of the shapes in turn, that it takes long enough."""
        kinds = " and ".join(dict.fromkeys(type(shape).__name__ for shape in shapes))
        self._begin(f"{width} calls at once, {words} words each, {max_tokens} tokens of {kinds}")
        count = max(_FIRST, 2 * width)
        while True:
            first = self._sent
            self._sent += count
            step = await self._answered(range(first, self._sent), width, words, max_tokens, shapes)
            if step.seconds >= self._seconds:
                return step
            count = round(count * min(8.0, max(1.5, 1.2 * self._seconds / step.seconds)))

    async def again(self, words: int) -> Step:
        """Read one prompt into the cache, then ask with it many times."""
        self._begin(f"one prompt of {words} words, many times")
        first = self._sent
        self._sent += 1
        await self._answered([first], 1, words, 1, _PROSE)
        count = _FIRST
        while True:
            step = await self._answered([first] * count, count, words, 1, _PROSE)
            if step.seconds >= self._seconds or count > 5000:
                return step
            count *= 2

    async def _answered(
        self,
        seeds: Sequence[int],
        width: int,
        words: int,
        max_tokens: int,
        shapes: Sequence[Shape[Any]],
    ) -> Step:
        gate = asyncio.Semaphore(width)
        calls = [
            Call(
                CallName(0, index, "calibrate", None),
                seed,
                "You write letters to a friend.",
                _prompt(seed, words),
                shapes[index % len(shapes)],
                max_tokens,
                self._temperature,
            )
            for index, seed in enumerate(seeds)
        ]

        async def ask(call: Call) -> Measured:
            async with gate:
                reply = await self._backend.answer(call)
            if reply.tokens_in is None or reply.tokens_out is None:
                raise InputError("calibrate: the backend reports no token counts; expected them")
            cached, written = reply.cached_tokens or 0, reply.tokens_out
            constrained = 0 if call.shape.regex is None else written
            return Measured(reply.tokens_in - cached, cached, written, constrained)

        began = time.perf_counter()
        answered = await asyncio.gather(*map(ask, calls))
        return Step(answered, width, time.perf_counter() - began)


def _prompt(seed: int, words: int) -> str:
    draw = Random(seed)
    text = " ".join([f"{seed}", *draw.choices(_WORDS, k=words)])
    return f"{text}\n\nWrite a long answer to the letter above."


class Effort(NamedTuple):
    """How much to measure.

    Attributes:
        seconds: the least time of a step; there are some fifteen steps.
        max_running: the largest number of calls to try at once.
        gpus: GPUs of the measured copy of the model; None: as its settings and its engine tell.
    """

    seconds: float = 5.0
    max_running: int = 256
    gpus: int | None = None


_EFFORT = Effort()


def calibrate(settings: ModelSettings, effort: Effort = _EFFORT, say: Say = print) -> EngineRates:
    """Measure the speed of one copy of a model.

    Args:
        settings: of the model.
        effort: how much to measure.
        say: called with a line for each step.

    Raises:
        InputError: replies are scripted, or have no token counts.
        NoSample: the model cannot be reached, or refuses every call.
    """
    if settings.backend == "scripted":
        raise InputError(
            "calibrate: found scripted replies, whose time says nothing; expected a model"
        )
    backend = backend_of(settings.model_copy(update={"replicas": 1}))
    try:
        return run_coroutine(_calibrate(backend, settings, effort, say))
    except (BackendDown, CallFailed, Unavailable) as error:
        raise NoSample(f"calibrate: no call could be answered: {error}") from None


async def _calibrate(
    backend: Backend, settings: ModelSettings, effort: Effort, say: Say
) -> EngineRates:
    async with started([backend]):
        told = await told_by(backend)
        most = min(effort.max_running, _most_running(told) or effort.max_running)
        steps = _OTHER_STEPS + sum(1 for _ in _widths(most))
        asker = _Asker(backend, effort.seconds, settings.temperature, steps, say)
        return await _measured(asker, _blank(settings, backend, effort.gpus, most, told), say)


def _blank(
    settings: ModelSettings,
    backend: Backend,
    gpus: int | None,
    max_running: int,
    told: dict[str, Any],
) -> EngineRates:
    if gpus is None:
        gpus = settings.gpus() if "gpus" in told else int(settings.backend == "openai")
    return EngineRates(
        model=settings.model if isinstance(settings, LanguageModelSettings) else backend.model,
        backend=settings.backend,
        measured=date.today().isoformat(),
        gpus=gpus,
        seconds_per_call=0,
        seconds_per_prompt_token=0,
        seconds_per_cached_token=0,
        seconds_per_constrained_token=0,
        steps=((1, 1.0),),
        max_running=max_running,
        kv_tokens=told.get("kv cache tokens"),
        environment=told,
    )


def _most_running(told: dict[str, Any]) -> int | None:
    found = told.get("engine arguments", {}).get("max_num_seqs")
    return found if isinstance(found, int) else None


async def _measured(asker: _Asker, rates: EngineRates, say: Say) -> EngineRates:
    """Measure one number after the other; each step builds on the numbers before it.

    The last step is a mix of calls as a run sends them, many of which wait: what it takes beyond
    what the numbers say goes to `seconds_per_call`.
    """
    most = rates.max_running
    await asker.step(min(most, 8), _SHORT, 8)  # what is loaded or compiled at first
    short, long = [await asker.step(most, words, 1) for words in (_SHORT, _LONG)]
    rates = _prefill(rates, short, long)
    say(f"prompts: {1 / max(rates.seconds_per_prompt_token, 1e-9):,.0f} tokens a second")
    again = await asker.again(_LONG)
    rates = _solved(rates, again, "seconds_per_cached_token")
    rates = rates.model_copy(update={"steps": ()})
    best = 0.0
    for width in _widths(most):
        step = await asker.step(width, _LONG, _REPLY)
        rates = _with_step(rates, step)
        say(f"{width} calls at once: {step.tokens_per_second:,.0f} reply tokens a second")
        if step.tokens_per_second < _GAIN * best:
            break
        best = step.tokens_per_second
    rated = await asker.step(width, _LONG, _REPLY, _RATED)
    rates = _solved(rates, rated, "seconds_per_constrained_token")
    say(f"ratings: {rated.tokens_per_second:,.0f} reply tokens a second")
    mixed = await asker.step(_WAITING * most, _LONG, _REPLY, _PROSE + _RATED)
    return _solved(rates, mixed, "seconds_per_call")


def _widths(most: int) -> Iterator[int]:
    width = 1
    while width < most:
        yield width
        width *= 2
    yield most


def _prefill(rates: EngineRates, short: Step, long: Step) -> EngineRates:
    """Seconds of a call and of a prompt token, from prompts of two lengths."""
    (few, less), (many, more) = (
        (
            sum(one.uncached for one in step.calls) / len(step.calls),
            step.seconds / len(step.calls),
        )
        for step in (short, long)
    )
    a_token = max(0.0, (more - less) / max(1.0, many - few))
    return rates.model_copy(
        update={
            "seconds_per_prompt_token": a_token,
            "seconds_per_call": max(0.0, less - few * a_token),
        }
    )


def _with_step(rates: EngineRates, step: Step) -> EngineRates:
    """Add the step of a number of running calls."""

    def tried(seconds: float) -> EngineRates:
        return rates.model_copy(update={"steps": (*rates.steps, (step.width, seconds))})

    return _found(tried, step)


def _solved(rates: EngineRates, step: Step, name: str) -> EngineRates:
    """Set a number so that the model takes as long for a step as the engine took."""
    return _found(lambda seconds: rates.model_copy(update={name: seconds}), step, low=0.0)


def _found(tried: Callable[[float], EngineRates], step: Step, low: float = 1e-7) -> EngineRates:
    """The rates with the largest number that does not take longer than a step took (bisection)."""
    high = 10.0
    for _ in range(50):
        middle = (low + high) / 2
        if _Load(step, tried(middle)).seconds() > step.seconds:
            high = middle
        else:
            low = middle
    return tried(low)
