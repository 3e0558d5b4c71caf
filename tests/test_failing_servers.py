"""Whole runs against servers that fail: what they end with, and what they say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, scripted_backends, small

from sandbox.backends import scripted
from sandbox.backends.base import Call, CallFailed, Reply, Unavailable
from sandbox.engine.run import create, prepare, resume
from sandbox.engine.stopping import ParetoRule
from sandbox.progress import LONG_WAIT, Counts, Wait, parse_waiting, waiting_json
from sandbox.reading.runs import Outcome


@pytest.mark.long
def test_a_disturbed_run_has_the_digest_of_an_undisturbed_one(tmp_path: Path) -> None:
    """Dropped connections, statuses 429 and 500, and a server that is away for a while."""
    script = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--rounds=1", "--away=4"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the digests are equal" in done.stdout


class Poisoned(scripted.ScriptedBackend):
    """Cannot answer the drafts of agent 3."""

    async def answer(self, call: Call) -> Reply:
        if call.name.form == "draft" and call.name.agent == 3:
            raise Unavailable("list index out of range")
        return await super().answer(call)


class Refusing(scripted.ScriptedBackend):
    """Refuses every call after some."""

    after = 0
    asked = 0

    async def answer(self, call: Call) -> Reply:
        self.asked += 1
        if self.asked > self.after:
            raise CallFailed(f"field seed {call.seed} is not known")
        return await super().answer(call)


def _played(
    tmp_path: Path, kind: type[scripted.ScriptedBackend], *settings: str
) -> tuple[Outcome, Mapping[str, Any]]:
    config = small(*settings)
    address = create(prepare(config), str(tmp_path / "run.db"))
    outcome = resume(address, backends=scripted_backends(config, kind))
    return outcome, outcome.as_dict()


@pytest.mark.parametrize("order", ["out_of_order", "sequential"])
def test_a_prompt_that_cannot_be_answered_is_a_failed_call(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.engine.layers.pause", lambda attempt, jitter: 0.001)
    outcome, _ = _played(tmp_path, Poisoned, f"schedule.order={order}", "attempts=1")
    assert outcome.status == "done"
    assert (outcome.calls_failed, outcome.episodes_failed) == (3, 3), "a draft in each round"


@pytest.mark.parametrize(("after", "refused"), [(0, 12), (60, 36)])
def test_a_run_in_which_all_calls_are_refused_stops(
    tmp_path: Path, after: int, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "after", after)
    outcome, _ = _played(tmp_path, Refusing, "attempts=2", "world.size=8")
    assert outcome.status == "failed"
    assert outcome.message is not None
    assert f"refused {refused} calls in a row" in outcome.message
    assert "is not known" in outcome.message


def test_a_form_whose_replies_are_mostly_missing_is_warned_about(tmp_path: Path) -> None:
    spoilt = ("models.observer.misbehave=0.9", "models.observer.mishaps=[refusal]")
    outcome, data = _played(tmp_path, scripted.ScriptedBackend, *spoilt)
    assert outcome.status == "done"
    assert {warning.split(" are ")[0].split()[-1] for warning in outcome.warnings} == {
        "observe_alignment",
        "observe_engagement",
    }
    assert "such as: " in data["warnings"][0]


def test_a_usual_run_has_no_warning(tmp_path: Path) -> None:
    assert _played(tmp_path, scripted.ScriptedBackend)[0].warnings == []


def test_calls_that_wait_for_the_same_reason_are_one_line() -> None:
    counts = Counts()
    for number in range(3):
        counts.waits[number] = Wait("http://a answered 429: slow down", 1000.0 + number, LONG_WAIT)
    counts.waits["short"] = Wait("dropped", 1000.0, 0.5)
    (row,) = counts.waiting()
    assert (row.problem, row.until, row.calls) == ("http://a answered 429: slow down", 1005.0, 3)
    assert row.words().startswith("waiting: http://a answered 429: slow down; until ")
    assert row.words().endswith("(3 calls)")
    assert parse_waiting(waiting_json(counts.waiting())) == [row]
    assert waiting_json([]) is None


def test_a_round_without_ratings_on_a_scale_is_not_one_to_judge_by() -> None:
    declaration = small().build_world().declaration
    finals = [final for scale in declaration.observed if (final := declaration.final(scale))]
    rule = ParetoRule(1, finals)
    for round in range(5):
        for final in finals[: 1 if round else None]:
            rule.score(round, final.stage, final.scale.name, 5.0)
        rule.mark_complete(round)
    assert rule.stopped_after is None
    for final in finals:
        rule.score(5, final.stage, final.scale.name, 5.0)
    rule.mark_complete(5)
    assert rule.stopped_after == 6
