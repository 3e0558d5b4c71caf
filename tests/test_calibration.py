"""Rates are found again in steps that take as long as the model says; runs take what adds up."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import small
from program import program

from sandbox import api
from sandbox.config import Schedule
from sandbox.engine.run import prepare
from sandbox.study.calibrate import Measured, Step, _Load, _prefill, _solved, _with_step
from sandbox.study.rates import EngineRates, interpolated, read_rates
from sandbox.study.sample import play_sample
from sandbox.study.simulate import SampledCall, SampledEpisode, simulate
from storage.errors import InputError

RATES = EngineRates(
    model="m",
    backend="vllm",
    measured="2026-01-01",
    gpus=2,
    seconds_per_call=0.002,
    seconds_per_prompt_token=1e-5,
    seconds_per_cached_token=1e-6,
    seconds_per_constrained_token=5e-5,
    steps=((1, 0.01), (4, 0.013), (16, 0.02)),
    max_running=16,
)
BLANK = RATES.model_copy(
    update={
        "seconds_per_call": 0.0,
        "seconds_per_prompt_token": 0.0,
        "seconds_per_cached_token": 0.0,
        "seconds_per_constrained_token": 0.0,
        "steps": ((1, 1.0),),
    }
)


def _step(calls: list[Measured], width: int) -> Step:
    """A step that takes as long as `RATES` say."""
    step = Step(calls, width, 1.0)
    return step._replace(seconds=_Load(step, RATES).seconds())


def test_rates_are_found_again() -> None:
    short, long = ([Measured(tokens, 0, 1)] * 50 for tokens in (60, 600))
    found = _prefill(BLANK, _step(short, 16), _step(long, 16))
    assert found.seconds_per_prompt_token == pytest.approx(1e-5)
    assert found.seconds_per_call == pytest.approx(0.002)
    found = _solved(found, _step([Measured(0, 600, 1)] * 40, 16), "seconds_per_cached_token")
    assert found.seconds_per_cached_token == pytest.approx(1e-6, rel=1e-3)
    found = found.model_copy(update={"steps": ()})
    for width in (1, 4, 16):  # replies of several lengths, so that fewer run in the end
        calls = [Measured(60, 0, 20 + 7 * (number % 5)) for number in range(3 * width)]
        found = _with_step(found, _step(calls, width))
    assert [running for running, _ in found.steps] == [1, 4, 16]
    assert [s for _, s in found.steps] == pytest.approx([s for _, s in RATES.steps], rel=1e-4)
    rated = _step([Measured(60, 0, 30, 30)] * 40, 16)
    found = _solved(found, rated, "seconds_per_constrained_token")
    assert found.seconds_per_constrained_token == pytest.approx(5e-5, rel=1e-3)
    mixed = _step([Measured(60, 0, 30, 30), Measured(500, 20, 90)] * 40, 64)
    assert _solved(found, mixed, "seconds_per_call").seconds_per_call == pytest.approx(0.002, 1e-3)


@pytest.mark.parametrize(
    ("running", "seconds"), [(1, 0.01), (2, 0.011), (4, 0.013), (10, 0.0165), (28, 0.027)]
)
def test_a_step_is_interpolated(running: int, seconds: float) -> None:
    assert interpolated(RATES.steps, running) == pytest.approx(seconds)


def _grid(raters: int) -> SampledEpisode:
    """An episode as the grid plays it: observed drafts, ratings, and an observed revision."""
    prose = {"uncached": 100, "cached": 20, "written": 50, "constrained": 0}
    rating = {"uncached": 80, "cached": 60, "written": 20, "constrained": 20}
    return SampledEpisode(
        0,
        (
            SampledCall(0, False, **prose),
            *[SampledCall(1, False, **rating)] * raters,
            SampledCall(1, True, **rating),
            SampledCall(2, False, **prose),
            SampledCall(3, True, **rating),
        ),
    )


def test_one_episode_takes_its_longest_chain() -> None:
    """Alone, each level waits for the one before; what runs together shares the engine."""
    blueprint = prepare(small("world.size=2", "world.raters=1", "rounds=1"))
    found = simulate(
        [_grid(1)],
        blueprint.world,
        blueprint.agents,
        1,
        Schedule(order="sequential"),
        RATES.model_copy(update={"steps": ((1, 0.01),)}),
        1,
        0,
    )
    prose = RATES.prefill(100, 20, 0) + 49 * 0.01
    rating = RATES.prefill(80, 60, 20)
    alone = prose + 2 * rating + 19 * 0.01 + prose + rating + 19 * 0.01
    assert found.calls == 4 * 5
    assert found.seconds == pytest.approx(4 * alone, rel=0.02)


def test_twice_the_engines_take_half_the_time_of_a_large_society() -> None:
    blueprint = prepare(small("world.size=12", "rounds=2"))

    def seconds(copies: int, order: str = "out_of_order") -> float:
        schedule = Schedule.model_validate({"order": order})
        return simulate(
            [_grid(4)], blueprint.world, blueprint.agents, 2, schedule, RATES, copies, 0
        ).seconds

    assert seconds(1) / seconds(2) == pytest.approx(2, rel=0.1)
    assert seconds(8, "lock_step") > seconds(8)


def test_a_long_run_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    blueprint = prepare(small("world.size=6", "rounds=8"))
    arguments: Any = ([_grid(2)], blueprint.world, blueprint.agents, 8, Schedule(), RATES, 1, 0)
    whole = simulate(*arguments)
    monkeypatch.setattr("sandbox.study.simulate.MOST_CALLS", 36 * 6 * 4)
    fewer = simulate(*arguments)
    assert fewer.calls == whole.calls
    assert fewer.seconds == pytest.approx(whole.seconds, rel=0.02)


def test_the_levels_of_sampled_calls_are_those_of_the_protocol(tmp_path: Path) -> None:
    blueprint = prepare(small("rounds=2"))
    sample = play_sample(blueprint, tmp_path / "sample.db", 12, _backends(blueprint.config))
    assert {episode.round for episode in sample.episodes} == {0, 1}
    raters = {len(meeting.peers) for meeting in blueprint.world.meet(blueprint.agents, 0)}
    for episode in sample.episodes:
        levels = Counter((one.level, one.observing) for one in episode.calls)
        assert levels[0, False] == levels[2, False] == 1  # draft, revision
        assert levels[1, False] in raters
        assert levels[1, True] == levels[3, True] == 2  # two scales
        assert all(one.uncached > 0 and one.written > 0 for one in episode.calls)


def _backends(config: Any) -> Any:
    from sandbox.backends import backends_of

    return backends_of(config.models.roles())


def test_an_estimate_is_simulated_on_calibrated_engines(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text(RATES.model_dump_json(), encoding="utf-8")
    assert read_rates(file) == RATES
    config = json.loads(small("world.size=6", "rounds=3").as_json())
    one, four = (api.estimate(config, episodes=8, rates=file, gpus=gpus).time for gpus in (None, 8))
    assert one.basis == four.basis == "simulation"
    assert one.seconds is not None and four.seconds is not None and one.gpu_hours is not None
    assert four.seconds.estimate < one.seconds.estimate
    hours = one.seconds.estimate * RATES.gpus / 3600
    assert math.isclose(one.gpu_hours.estimate, hours, abs_tol=0.001)
    assert one.busy is not None and four.busy is not None and 0 < four.busy <= one.busy <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": []}, "steps: "),
        ({"steps": [[4, 0.1], [1, 0.1]]}, "steps: Value error, pairs of running calls"),
        ({"max_running": 0}, "max_running: "),
        ({"speed": 3}, "speed: "),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(json.loads(RATES.model_dump_json()) | change), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_rates(file)
    assert str(refused.value).startswith(f"--rates {file}: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("estimate", "--rates", "none.json"), "--rates none.json: No such file"),
        (("estimate", "--rates", "rates.json", "--gpus", "3"), "--gpus: found 3; expected a multi"),
        (("calibrate", "--out", "new.json"), "calibrate: found scripted replies"),
        (("calibrate", "--out", "new.json", "--role", "critic"), "--role: found 'critic'"),
        (("calibrate", "--out", "rates.json"), "out: rates.json exists"),
        (
            ("estimate", "--rates", "rates.json", "--tokens-in-per-second", "1",
             "--tokens-out-per-second", "1"),
            "--rates: found it beside",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "rates.json").write_text(RATES.model_dump_json(), encoding="utf-8")
    done = program(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words}") and done.stderr.count("\n") == 1


def test_a_model_that_is_away_is_one_line(tmp_path: Path) -> None:
    away = "models.social={backend: openai, base_url: 'http://127.0.0.1:9', model: m}"
    done = program(tmp_path, "calibrate", "--set", away)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("calibrate: no call could be answered: openai: http://127.0.0.1:9/v1")
    assert not (tmp_path / "rates.json").exists()
