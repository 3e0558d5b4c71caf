"""The evidence benchmark: its statistics, questions, prompts without memory, phases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.evidence_claims import Claim, minus, over_seeds, pooled, table
from benchmarks.evidence_models import (
    Pair,
    Questions,
    assignments,
    difference,
    model_claims,
    nested,
)
from benchmarks.evidence_phases import Phases
from benchmarks.evidence_society import Played, Societies, society_claims, write_forms
from sandbox.reading.statistics import Interval


def interval(difference: float, half: float, n: int = 10) -> Interval:
    return Interval(n=n, difference=difference, low=difference - half, high=difference + half)


def claim(estimate: Interval, beyond: Interval | None = None) -> Claim:
    return Claim(
        claim="it is so",
        source="a paper",
        measure="points",
        estimate=estimate,
        control="nothing",
        of_control=None if beyond is None else interval(0.0, 0.1),
        beyond=beyond,
    )


@pytest.mark.parametrize(
    ("estimate", "beyond", "holds"),
    [
        (interval(1.0, 0.5), None, "yes"),
        (interval(0.1, 0.5), None, "undecided"),
        (interval(-1.0, 0.5), None, "no"),
        (interval(1.0, 0.5), interval(0.9, 0.5), "yes"),
        (interval(1.0, 0.5), interval(0.1, 0.5), "undecided"),
        (interval(1.0, 0.5), interval(-0.9, 0.5), "no"),
        (over_seeds([1.0]), None, "undecided"),
        (over_seeds([]), None, "undecided"),
    ],
)
def test_a_claim_holds_only_if_every_interval_is_above_zero(
    estimate: Interval, beyond: Interval | None, holds: str
) -> None:
    assert claim(estimate, beyond).holds == holds
    assert claim(estimate, beyond).as_dict()["holds"] == holds


def test_the_table_has_a_line_for_each_claim() -> None:
    lines = table([claim(interval(1.0, 0.5)), claim(over_seeds([]))]).splitlines()
    assert len(lines) == 4
    assert "+1.00 (+0.50 to +1.50)" in lines[2]
    assert lines[2].endswith("| 10 | yes |")


def test_values_are_paired_by_seed() -> None:
    found = minus([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (found.n, found.difference, found.low, found.high) == (3, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="zip"):
        minus([1.0], [])


def test_pooling_takes_the_wider_of_questions_and_seeds() -> None:
    alike = pooled([interval(0.5, 0.2), interval(0.5, 0.2), interval(0.5, 0.2)])
    assert (alike.n, alike.difference) == (30, 0.5)
    assert (alike.low, alike.high) == pytest.approx((0.3, 0.7))
    apart = pooled([interval(0.0, 0.2), interval(0.5, 0.2), interval(1.0, 0.2)])
    assert apart.low is not None and apart.low == pytest.approx(
        0.5 - 4.3027 * 0.5 / 3**0.5, abs=1e-3
    )
    one = pooled([interval(0.5, 0.2)])
    assert (one.low, one.high) == pytest.approx((0.3, 0.7))
    assert pooled([]).difference is None


def evaluation(model: str, against: str, middle: float) -> dict[str, object]:
    paired = {"n": 70, "difference": middle, "low": middle - 0.1, "high": middle + 0.1}
    one = {
        "observer": "scripted",
        "scale": "alignment",
        "model": model,
        "against": against,
        "paired": paired,
        "at_equal_length": {**paired, "difference": None, "low": None, "high": None},
    }
    return {"differences": [{**one, "scale": "engagement"}, one]}


def test_a_difference_is_read_in_either_order() -> None:
    pair = Pair("better", "", "filtered", "control")
    for found in (
        evaluation("filtered", "control", 0.5),
        evaluation("control", "filtered", -0.5),
    ):
        read = difference(found, pair, "scripted")
        assert read is not None
        assert (read.difference, read.low, read.high) == pytest.approx((0.5, 0.4, 0.6))
    assert difference(evaluation("filtered", "base", 0.5), pair, "scripted") is None
    assert difference(evaluation("filtered", "control", 0.5), pair, "reward") is None
    (claimed,) = model_claims([evaluation("control", "filtered", -0.5)] * 3, "scripted")
    assert claimed.holds == "yes"


def test_held_out_questions_are_not_near_to_those_trained_on(tmp_path: Path) -> None:
    texts = [f"How do I mend a {thing} before {day}?" for thing in "abcdefgh" for day in "xyz"]
    texts += [*texts[:5], "Who was first?", "Why is the sea salty at all?"]
    parts = Questions.split(texts, tmp_path, 10, 100)
    train, held_out = (
        [json.loads(line)["question"] for line in path.read_text().splitlines()]
        for path in (parts.train, parts.held_out)
    )
    assert len(train) == 10
    assert not set(train) & set(held_out)
    assert len(set(held_out)) == len(held_out) > 0


def test_settings_become_flags() -> None:
    assert list(assignments({"a.b": 1, "c": None, "d": "x", "e": True})) == [
        *("--set", "a.b=1"),
        *("--set", "c=null"),
        *("--set", 'd="x"'),
        *("--set", "e=true"),
    ]
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_controls_prompts_lack_memories_and_consequences(tmp_path: Path) -> None:
    write_forms(tmp_path)
    memory = json.loads((tmp_path / "no_memory.yaml").read_text())
    assert set(memory) == {"draft", "rate"}
    for form in memory.values():
        assert "past" not in form["user"]
        assert "{{ question }}" in form["user"]
    revise = json.loads((tmp_path / "no_consequences.yaml").read_text())["revise"]["user"]
    assert "consequences" not in revise and "{{ brief }}" in revise


def test_figures_of_a_run() -> None:
    played = Played([4.0, 5.0, 6.0], [5.0, 6.0, 7.0], None, None)
    assert (played.gain, played.level) == (1.0, 6.0)
    assert played.slope == pytest.approx(1.0)


@pytest.mark.long
def test_societies_are_played_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = Path(__file__).parent.parent / "worlds/data/questions.jsonl"
    societies = Societies(tmp_path / "societies", 2, 3, 2, 2, questions)
    first = society_claims(societies)
    assert first[0].claim == "a revision is better than its draft"
    assert all(one.estimate.n == 2 for one in first)
    monkeypatch.setattr("sandbox.api.run", None)
    assert society_claims(societies) == first


def test_a_finished_phase_is_not_run_again(tmp_path: Path) -> None:
    phases = Phases(tmp_path)
    phases.run("help", "run_sim.py", "--help")
    (cost,) = phases.costs().values()
    assert cost.cpu_seconds > 0 and cost.peak_mib > 1
    phases.run("help", "run_sim.py", "--help")
    assert phases.costs() == {"help": cost}
    with pytest.raises(SystemExit, match=r"bad: .*\n.*run_sim\.py resume"):
        phases.run("bad", "run_sim.py", "resume", tmp_path / "none.db")
    assert set(phases.costs()) == {"help"}
