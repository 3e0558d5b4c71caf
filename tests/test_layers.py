"""Each layer of a call separately, and custom layers in a whole run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Make, small

from agents.forms import CallName, FreeText, prompt_hash
from sandbox.backends.base import (
    BackendDown,
    Call,
    CallFailed,
    ModelSettings,
    Reply,
    Resting,
    Unavailable,
)
from sandbox.concurrency import Gate
from sandbox.engine import layers
from sandbox.engine.health import PROBE, Health
from sandbox.engine.layers import Answer, Result
from sandbox.engine.limits import Budget, Limiter, Stopped
from sandbox.engine.run import create, prepare, resume
from sandbox.progress import Clock, Counts
from sandbox.reading.calls import calls
from sandbox.study.verify import verify
from storage.database import open_for_reading
from storage.errors import InputError
from storage.reader import Reader


def call(episode: int = 0, priority: int = 0) -> Call:
    return Call(CallName(0, episode, "draft", 1), 5, "system", "user", FreeText(), 9, 1.0, priority)


RESULT = Result(Reply("hello"), None, 3, 4)


class Below:
    """The layer below: records the calls that reach it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        return RESULT


class FakeJournal:
    """A journal with at most one call."""

    def __init__(self, digest: bytes | None, reply: str | None = "known") -> None:
        self.copy = False
        self.accept_changes = False
        self._known = None
        if digest is not None:
            self._known = SimpleNamespace(
                call_id=7,
                prompt_hash=digest,
                reply=reply,
                cut=True,
                status="ok" if reply else "failed",
                error=None if reply else "broken",
                tokens_in=1,
                tokens_out=2,
                cached_tokens=3,
                thinking="hm",
                expected=4.5,
                raw="{}",
                started=10,
                took=20,
            )

    def find(self, name: CallName) -> Any:
        return self._known


def _replay(journal: Any) -> tuple[Result, Below, Counts, list[int]]:
    below, counts, deleted = Below(), Counts(), list[int]()
    answer = layers.replay(journal, deleted.append, counts, below)
    result = asyncio.run(_await(answer(call())))
    return result, below, counts, deleted


async def _await(work: Awaitable[Result]) -> Result:
    return await work


SAME = prompt_hash("system", "user")


def test_a_replayed_call_has_all_journalled_values() -> None:
    result, below, counts, _ = _replay(FakeJournal(SAME))
    assert result == Result(Reply("known", True, 1, 2, 3, "hm", 4.5, "{}"), None, 10, 20, 7, "ok")
    assert (counts.replayed, below.calls) == (1, [])


def test_a_failed_call_is_replayed_as_failed() -> None:
    result, *_ = _replay(FakeJournal(SAME, reply=None))
    assert (result.reply, result.error, result.call_id) == (None, "broken", 7)


def test_a_call_replayed_into_another_database_is_written_again() -> None:
    journal = FakeJournal(SAME)
    journal.copy = True
    assert _replay(journal)[0].call_id is None


def test_an_unknown_call_is_passed_on() -> None:
    result, below, counts, _ = _replay(FakeJournal(None))
    assert (result, len(below.calls), counts.replayed) == (RESULT, 1, 0)


def test_another_prompt_is_refused_or_deletes_the_old_call() -> None:
    journal = FakeJournal(b"another")
    with pytest.raises(InputError, match=r"call 0/0/draft/1/0.0: found another prompt"):
        _replay(journal)
    journal.accept_changes = True
    result, below, counts, deleted = _replay(journal)
    assert (result, len(below.calls), counts.replayed, deleted) == (RESULT, 1, 0, [7])


def test_calls_in_flight_are_limited_and_counted() -> None:
    counts, order, most = Counts(), list[int](), list[int]()

    async def below(call: Call) -> Result:
        order.append(call.name.episode)
        most.append(counts.in_flight)
        await asyncio.sleep(0)
        if call.name.episode == 3:
            raise BackendDown("gone")
        return RESULT

    async def main() -> list[Any]:
        answer = layers.limit_in_flight(Gate(1), counts, below)
        calls = [call(9, 0), call(5, 2), call(3, 1), call(4, 2)]
        return await asyncio.gather(*map(answer, calls), return_exceptions=True)

    results = asyncio.run(main())
    assert order == [9, 3, 4, 5], "by priority, then by episode"
    assert most == [1, 1, 1, 1]
    assert isinstance(results[2], BackendDown)
    assert counts.in_flight == 0


def test_a_budget_counts_calls_and_stops() -> None:
    limiter, below = Limiter(Budget(calls=2), Clock()), Below()
    answer = layers.budget(limiter, below)
    for _ in range(2):
        assert asyncio.run(_await(answer(call()))) == RESULT
    with pytest.raises(Stopped, match="the limit of 2 calls is reached"):
        answer(call())
    assert (len(below.calls), limiter.sent) == (2, 2)
    assert limiter.stopping == "the limit of 2 calls is reached"


def test_a_stop_takes_precedence_over_a_budget() -> None:
    limiter = Limiter(Budget(calls=0), Clock())
    limiter.stop("interrupted")
    with pytest.raises(Stopped, match="interrupted"):
        layers.budget(limiter, Below())(call())


class Flaky:
    """Raises the given errors in order, hangs where one is None, and then replies."""

    model = "flaky"

    def __init__(self, *problems: Exception | None) -> None:
        self.problems = list(problems)
        self.calls: list[Call] = []

    async def start(self) -> None:
        """Nothing to start."""

    async def answer(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.problems:
            problem = self.problems.pop(0)
            if problem is None:
                await asyncio.sleep(3600)
            else:
                raise problem
        return Reply("hello")

    async def close(self) -> None:
        """Nothing to close."""


def _retry(backend: Flaky, limiter: Limiter | None = None, **settings: Any) -> Result:
    limiter = limiter or Limiter(Budget(), Clock())
    health = Health(backend, ModelSettings(backend="flaky", **settings))
    answer = layers.retry(health, limiter, random.Random(1))
    return asyncio.run(_await(answer(call())))


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between retries."""
    monkeypatch.setattr(layers, "pause", lambda attempt, jitter: 0.001)


@pytest.mark.usefixtures("short_pauses")
def test_a_retry_sends_the_same_call() -> None:
    backend = Flaky(Unavailable("busy"), Unavailable("busy"), None)  # the second is a probe
    result = _retry(backend, timeout=0.01)
    assert (result.reply, result.error) == (Reply("hello"), None)
    assert [one for one in backend.calls if one.name.form != PROBE] == [call()] * 3
    assert result.took >= 10


@pytest.mark.usefixtures("short_pauses")
def test_a_silent_backend_is_waited_for_until_the_patience_ends() -> None:
    backend = Flaky(*[Unavailable("away")] * 99_999)
    with pytest.raises(BackendDown, match=r"away; no call was answered for 0 s \(patience: 0 s\)"):
        _retry(backend, retries=2, patience=0.3)
    assert backend.calls.count(call()) > 9
    assert _retry(Flaky(*[Unavailable("away")] * 30), retries=2).reply == Reply("hello")


def test_no_patience_stops_at_the_first_failure() -> None:
    backend = Flaky(Unavailable("away"))
    with pytest.raises(BackendDown, match="away"):
        _retry(backend, patience=0)
    assert [one for one in backend.calls if one.name.form != PROBE] == [call()]


class RestsAtOnce(Flaky):
    """Answers only probes, and rests after each failure, as an address that failed before."""

    free_at = 0.0

    async def answer(self, call: Call) -> Reply:
        if (rest := self.free_at - time.monotonic()) > 0:
            raise Resting("resting", rest)
        if call.name.form == PROBE:
            return Reply("yes")
        self.free_at = time.monotonic() + 0.05
        raise Unavailable("list index out of range")


@pytest.mark.usefixtures("short_pauses")
def test_calls_that_cannot_be_answered_do_not_hide_that_others_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "_SPREAD", 0.001)
    settings = ModelSettings(backend="flaky", retries=2, patience=20)
    health = Health(RestsAtOnce(), settings)
    answer = layers.retry(health, Limiter(Budget(), Clock()), random.Random(1))

    async def both() -> list[Result]:
        return await asyncio.gather(answer(call(0)), answer(call(1)))

    for result in asyncio.run(both()):
        assert result.reply is None
        assert result.error is not None
        assert result.error.startswith("list index out of range, ")
        assert result.error.endswith("times, while others were answered")


def test_a_refused_call_is_not_retried() -> None:
    backend = Flaky(CallFailed("too long"))
    result = _retry(backend)
    assert (result.reply, result.error, len(backend.calls)) == (None, "too long", 1)


def test_a_pause_ends_when_the_run_is_stopped() -> None:
    limiter = Limiter(Budget(), Clock())

    async def main() -> None:
        settings = ModelSettings(backend="flaky")
        backend = Flaky(Unavailable("busy", after=600))
        answer = layers.retry(Health(backend, settings), limiter, random.Random(1))
        asyncio.get_running_loop().call_later(0.01, limiter.stop, "interrupted")
        await asyncio.wait_for(answer(call()), 5)

    with pytest.raises(Stopped, match="interrupted"):
        asyncio.run(main())


def test_the_first_layer_is_the_outermost() -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[Answer], Answer]:
        def layer(answer: Answer) -> Answer:
            async def inner(call: Call) -> Result:
                order.append(name)
                return await answer(call)

            return inner

        return layer

    asyncio.run(_await(layers.wrapped([named("a"), named("b")], Below())(call())))
    assert order == ["a", "b"]


def policy(answer: Answer) -> Answer:
    """Refuse the drafts of agent 3."""

    async def checked(call: Call) -> Result:
        result = await answer(call)
        if call.name.form == "draft" and call.name.agent == 3:
            return result._replace(reply=None, error="refused by the policy")
        return result

    return checked


def test_a_policy_is_a_layer(make: Make, tmp_path: Path) -> None:
    _, plain = make()
    address = create(prepare(small("attempts=1")), str(tmp_path / "policy.db"))
    outcome = resume(address, layers=[policy])
    reader = Reader.find(open_for_reading(address.url), address.name, str(address))
    failed = [call for call in calls(reader, failures=True) if call.error]
    assert {call.error for call in failed} == {"refused by the policy"}
    assert outcome.calls_failed == len(failed) == 3, "a draft in each round"
    assert outcome.episodes_failed == 3
    assert outcome.digest != plain.digest
    verdict = verify(address)
    assert verdict.agrees, "decisions of the policy are journalled and replayed"


def test_a_tracing_layer_changes_nothing(make: Make, tmp_path: Path) -> None:
    _, plain = make()
    seen: list[CallName] = []

    def tracer(answer: Answer) -> Answer:
        async def traced(call: Call) -> Result:
            seen.append(call.name)
            return await answer(call)

        return traced

    address = create(prepare(small()), str(tmp_path / "traced.db"))
    assert resume(address, budget=Budget(calls=100), layers=[tracer]).calls == 100
    outcome = resume(address, layers=[tracer])
    assert outcome.digest == plain.digest
    assert len(set(seen)) == plain.calls
