"""Estimates: the range contains what the run then takes, and no files are left behind."""

from __future__ import annotations

import os
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Make, scripted_backends, small
from rich.console import Console
from test_run import Stopping

from sandbox.backends.base import Call, CallFailed, Reply
from sandbox.backends.scripted import ScriptedBackend, ScriptedConfig
from sandbox.engine.run import prepare
from sandbox.study.estimate import estimate, given_rates
from sandbox.study.results import Estimate, TimeEstimate
from sandbox.study.sample import NoSample
from sandbox.terminal.studies import estimate_view
from storage.errors import InputError

FIGURES = ("calls", "tokens_in", "tokens_out", "database_bytes")


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [("rounds=5",), ("rounds=4", "question_count=null", "models.social.misbehave=0.1")],
)
def test_the_range_holds_what_the_run_takes(make: Make, settings: tuple[str, ...]) -> None:
    held = dict.fromkeys(FIGURES, 0)
    seeds = range(7)
    for seed in seeds:
        both = (*settings, f"seed={seed}")
        found = estimate(prepare(small(*both)))
        address, outcome = make(*both, name=f"s{seed}")
        true = {name: getattr(outcome, name) for name in FIGURES[:3]}
        true["database_bytes"] = os.path.getsize(str(address.url.database))
        for name in FIGURES:
            figure = getattr(found, name)
            assert figure.low <= figure.estimate <= figure.high
            assert figure.estimate == pytest.approx(true[name], rel=0.15)
            held[name] += figure.low <= true[name] <= figure.high
    assert all(count >= 0.6 * len(seeds) for count in held.values()), held
    assert sum(held.values()) >= 0.75 * len(seeds) * len(FIGURES), held


@pytest.mark.parametrize(
    ("settings", "episodes", "played", "first"),
    [
        ((), 32, 32, 10),
        (("rounds=1",), 32, 16, 16),
        (("rounds=20",), 8, 8, 2),
        ((), 1000, 48, 16),
        (("world.size=2", "world.radius=1", "world.raters=2"), 32, 12, 4),
    ],
)
def test_a_sample_is_no_larger_than_the_run(
    settings: tuple[str, ...], episodes: int, played: int, first: int
) -> None:
    found = estimate(prepare(small(*settings)), episodes)
    assert found.sample.episodes == played
    assert found.sample.of_first_round == first
    if played == found.episodes:
        assert found.calls.estimate == found.sample.calls


def _without_seconds(found: Estimate) -> dict[str, Any]:
    data = found.as_dict()
    del data["sample"]["seconds"]
    return data


def test_the_same_config_has_the_same_estimate() -> None:
    one, two = (estimate(prepare(small())) for _ in range(2))
    assert _without_seconds(one) == _without_seconds(two)


def test_time_follows_from_rates() -> None:
    unknown = TimeEstimate(seconds=None, gpu_hours=None, floor_seconds=None, basis=None)
    assert estimate(prepare(small())).time == unknown
    found = estimate(prepare(small()), rates=given_rates(1000, 100, 4))
    seconds = found.tokens_in.estimate / 1000 + found.tokens_out.estimate / 100
    assert found.time.seconds is not None and found.time.gpu_hours is not None
    assert found.time.basis == "rates"
    assert found.time.seconds.estimate == pytest.approx(seconds / 4, abs=0.1)
    assert found.time.gpu_hours.estimate == pytest.approx(seconds / 3600, abs=0.001)
    assert found.time.seconds.low < seconds / 4 < found.time.seconds.high


def test_time_of_a_real_backend_is_measured() -> None:
    latency = {"first_token": 0.02, "per_token": 0, "capacity": 1000}
    scripted = ScriptedConfig.model_validate({"backend": "scripted", "latency": latency})
    server = "models.social={backend: openai, base_url: http://127.0.0.1:9, model: stand-in}"
    backends = {"social": ScriptedBackend(scripted)}
    found = estimate(prepare(small(server, "rounds=6")), gpus=2, backends=backends)
    assert found.time.basis == "sample"
    assert found.time.seconds is not None and found.time.gpu_hours is not None
    # Three calls of 0.02 s that wait for each other in each of 6 rounds; a busy machine adds to it.
    assert found.time.floor_seconds is not None
    assert round(6 * 3 * 0.02, 1) <= found.time.floor_seconds
    hours = found.time.seconds.estimate * 2 / 3600
    assert found.time.gpu_hours.estimate == pytest.approx(hours, abs=0.001)


def test_notes_tell_what_the_sample_saw() -> None:
    calm = " ".join(estimate(prepare(small("stop.patience=2"))).notes)
    assert "all 320 replies of the sample were usable" in calm
    assert "the stop rule may end the run early" in calm
    assert "scripted" in calm
    mishaps = estimate(prepare(small("models.social.misbehave=0.3"))).notes
    assert "were usable" not in " ".join(mishaps)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    estimate(prepare(small()))
    Stopping.calls, Stopping.limit = 0, 40
    with pytest.raises(NoSample, match="no sample could be played: the engine is gone"):
        estimate(prepare(small()), backends=scripted_backends(small(), Stopping))
    assert list(tmp_path.iterdir()) == []


def test_bad_input() -> None:
    with pytest.raises(InputError, match="--episodes: found 7; expected at least 8"):
        estimate(prepare(small()), 7)
    for rates, words in (
        ((1.0, None, None), "--tokens-out-per-second: missing"),
        ((None, 1.0, None), "--tokens-in-per-second: missing"),
        ((0.0, 1.0, None), "--tokens-in-per-second: found 0"),
        ((None, None, 0), "--gpus: found 0"),
    ):
        with pytest.raises(InputError, match=words):
            given_rates(*rates)
    assert given_rates(None, None, 3) is None


def test_the_picture_has_every_figure() -> None:
    page = StringIO()
    found = estimate(prepare(small()), rates=given_rates(100, 10, 1))
    Console(file=page, width=100).print(estimate_view(found))
    text = page.getvalue()
    for words in ("calls", "tokens in", "tokens out", "database bytes", "gpu hours", "480"):
        assert words in text


class Refusing(ScriptedBackend):
    """Refuses every call, or answers with a reply that cannot be read."""

    said: ClassVar[str | None] = None

    async def answer(self, call: Call) -> Reply:
        if self.said is None:
            raise CallFailed("System role not supported")
        return Reply(self.said)


def test_unparseable_replies_are_told_first() -> None:
    config = small("attempts=1")
    Refusing.said = ""
    found = estimate(prepare(config), backends=scripted_backends(config, Refusing))
    assert (found.sample.failed, found.sample.unparsed) == (0, 32)
    problem = "32 of 32 calls of the sample (draft) had a reply that is empty: ''"
    assert found.problems == [problem]
    assert found.calls.low == found.calls.estimate == found.calls.high
    assert found.tokens_out.estimate == 0
    page = StringIO()
    Console(file=page, width=100).print(estimate_view(found))
    assert page.getvalue().startswith(f"warning: {problem[:40]}")


def test_a_sample_whose_calls_are_all_refused_ends_with_the_reason() -> None:
    config = small()
    Refusing.said = None
    words = "refused 12 calls in a row, and answered none: System role not supported$"
    with pytest.raises(NoSample, match=words):
        estimate(prepare(config), backends=scripted_backends(config, Refusing))
