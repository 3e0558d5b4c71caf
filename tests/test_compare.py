"""Comparing runs: the right pairs, the right intervals, and what is missing stays missing."""

from __future__ import annotations

import math
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from conftest import Make
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sandbox import api
from sandbox.engine.run import resume
from sandbox.reading.metrics import scores_by_round
from sandbox.reading.statistics import clustered, holm, student, t_quantile, welch
from sandbox.study.compare import compare
from sandbox.study.fork import fork
from sandbox.study.results import Difference, GroupComparison
from sandbox.terminal.studies import comparison_view
from storage.database import open_for_reading, parse_run
from storage.errors import InputError
from storage.exchanges import exchanges
from storage.reader import Reader

ROUGH = ("models.social.misbehave=0.2", "models.observer.misbehave=0.2")


def _reader(path: Path) -> Reader:
    return Reader.find(open_for_reading(parse_run(str(path)).url), None, str(path))


@pytest.mark.parametrize(
    ("p", "freedom", "expected"),
    [
        (0.975, 1, 12.7062047362),
        (0.975, 2, 4.3026527297),
        (0.975, 3, 3.1824463053),
        (0.975, 5, 2.5705818356),
        (0.975, 10, 2.2281388520),
        (0.975, 30, 2.0422724563),
        (0.975, 120, 1.9799304051),
        (0.95, 4, 2.1318467863),
        (0.995, 1, 63.6567411629),
        (0.9995, 7, 5.4078825209),
        (0.975, 1e7, 1.9599642),
        (0.5, 4, 0.0),
    ],
)
def test_the_quantiles_of_student_are_those_of_the_tables(
    p: float, freedom: float, expected: float
) -> None:
    assert t_quantile(p, freedom) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@given(st.floats(0.5, 0.999), st.floats(1, 200))
def test_the_probability_below_a_quantile_is_the_one_asked_for(p: float, freedom: float) -> None:
    found = t_quantile(p, freedom)
    steps = np.linspace(0, found, 20_001)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    density = math.exp(log_scale) / math.sqrt(math.pi * freedom)
    below = density * (1 + steps**2 / freedom) ** (-(freedom + 1) / 2)
    assert 0.5 + np.trapezoid(below, steps) == pytest.approx(p, abs=1e-5)


def of_all_rounds(comparison: GroupComparison, measure: str) -> Difference:
    by_scope = comparison.measures[measure]
    assert by_scope is not None
    return by_scope["all"]


def test_intervals_by_hand() -> None:
    one = student(np.array([1.0, 2.0, 3.0]))
    reach = 4.3026527297 / math.sqrt(3)
    assert (one.n, one.difference) == (3, 2)
    assert (one.low, one.high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))
    both = welch(np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 9.0]))
    error, freedom = math.sqrt(1 / 3 + 4 / 3), (5 / 3) ** 2 / (1 / 18 + 16 / 18)
    assert (both.n, both.difference) == ([3, 3], 5)
    assert both.high - 5 == pytest.approx(error * t_quantile(0.975, freedom))
    alone = clustered(np.array([1.0, 2.0, 3.0]), np.arange(3))
    assert {**one.as_dict(), "clusters": 3} == pytest.approx(alone.as_dict())
    assert one.p == pytest.approx(0.0741799, abs=1e-6) and one.excludes_zero is False
    assert student(np.array([1.0, 1.0])).p == 0 and student(np.zeros(2)).p == 1
    twice = clustered(np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]), np.array([0, 0, 1, 1, 2, 2]))
    assert (twice.n, twice.clusters) == (6, 3)
    assert (twice.low, twice.high) == pytest.approx((one.low, one.high))


def test_what_cannot_be_computed_is_none() -> None:
    empty, single = np.zeros(0), np.array([1.5])
    nothing = {"difference": None, "low": None, "high": None}
    assert student(empty).as_dict() == {"n": 0, **nothing}
    assert student(single).as_dict() == {"n": 1, **nothing, "difference": 1.5}
    unequal = welch(single, np.array([1.0, 2.0])).as_dict()
    assert unequal == {"n": [1, 2], **nothing, "difference": 0.0}
    assert clustered(empty, empty).as_dict() == {"n": 0, "clusters": 0, **nothing}
    assert clustered(np.array([1.0, 2.0]), np.zeros(2)).low is None


def test_the_cluster_interval_covers_what_it_should() -> None:
    draw = np.random.default_rng(3)
    authors = np.repeat(np.arange(20), 10)
    covered = {"clustered": 0, "student": 0}
    for _ in range(400):
        values = draw.normal(size=20)[authors] + draw.normal(size=200)
        for name, found in (
            ("clustered", clustered(values, authors)),
            ("student", student(values)),
        ):
            covered[name] += found.low <= 0 <= found.high
    assert 0.92 <= covered["clustered"] / 400 <= 0.98
    assert covered["student"] / 400 < 0.75


def test_p_values_are_corrected_by_the_method_of_holm() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.6]) == [1.0, 1.0]


def test_two_runs_are_paired_by_episode(make: Make, tmp_path: Path) -> None:
    make(*ROUGH, name="four")
    make(*ROUGH, "world.raters=1", name="one")
    data = compare([str(tmp_path / "four.db"), str(tmp_path / "one.db")])
    assert [group.runs for group in data.groups] == [["four"], ["one"]]
    assert data.differing_keys == {"world.raters": [4, 1]}
    (found,) = data.comparisons
    assert (found.pairing, found.first_round) == ("episode", 0)
    assert "cluster-robust by author" in found.method
    readers = _reader(tmp_path / "four.db"), _reader(tmp_path / "one.db")
    for measure, (stage, scale) in {
        "draft_engagement": ("draft", "engagement"),
        "revision_alignment": ("revision", "alignment"),
    }.items():
        pairs = [
            (one.score(stage, scale), two.score(stage, scale))
            for one, two in zip(*map(exchanges, readers), strict=True)
        ]
        read = [two - one for one, two in pairs if one is not None and two is not None]
        figure = of_all_rounds(found, measure)
        assert figure.n == len(read) < len(pairs) == len(read) + figure.left_out
        assert figure.difference == pytest.approx(np.mean(read))
        assert figure.low < figure.difference < figure.high
    by_scope = found.measures["peer_rating"]
    assert by_scope is not None
    ratings = by_scope["last"]
    assert isinstance(ratings.n, int)
    assert ratings.n + ratings.left_out == 16


def test_means_are_those_of_the_run(make: Make, tmp_path: Path) -> None:
    make(*ROUGH, name="a")
    make(*ROUGH, "seed=8", name="b")
    (group,) = compare([str(tmp_path / "a.db"), str(tmp_path / "b.db")]).groups
    assert (group.n, group.seeds, group.episodes) == (2, [7, 8], 96)
    last = [scores_by_round(_reader(tmp_path / f"{name}.db"))[-1] for name in "ab"]
    for measure in ("draft_alignment", "revision_engagement"):
        expected = np.mean([scores.means[measure] for scores in last])
        assert group.measures[measure]["last"].mean == pytest.approx(expected)
    both = [list(exchanges(_reader(tmp_path / f"{name}.db"))) for name in "ab"]
    failed = [one.failed_at is not None for some in both for one in some]
    assert group.failed_episodes == sum(failed) > 0
    assert group.measures["failed"]["all"].mean == pytest.approx(np.mean(failed))
    unscored = sum(one.score("revision", "alignment") is None for some in both for one in some)
    assert group.measures["revision_alignment"]["all"].missing == unscored
    gained = [
        np.mean([
            after - before
            for one in some
            if (before := one.score("draft", "alignment")) is not None
            and (after := one.score("revision", "alignment")) is not None
        ])
        for some in both
    ]  # fmt: skip
    assert group.measures["alignment_gain"]["all"].mean == pytest.approx(np.mean(gained))


def test_groups_are_paired_by_seed_or_not_at_all(make: Make, tmp_path: Path) -> None:
    for raters in (4, 1):
        for seed in (1, 2, 3):
            make(f"world.raters={raters}", f"seed={seed}", "rounds=1", name=f"r{raters}s{seed}")
    make("world.raters=1", "seed=4", "rounds=1", name="r1s4")

    def compared(*names: str) -> tuple[str, Difference]:
        (found,) = compare([str(tmp_path / f"{name}.db") for name in names]).comparisons
        return found.pairing, of_all_rounds(found, "revision_alignment")

    pairing, paired = compared("r4s1", "r4s2", "r4s3", "r1s3", "r1s2", "r1s1")
    means = {
        name: scores_by_round(_reader(tmp_path / f"{name}.db"))[0].means["revision_alignment"] or 0
        for name in ("r4s1", "r4s2", "r4s3", "r1s1", "r1s2", "r1s3", "r1s4")
    }
    by_hand = student(np.array([means[f"r1s{seed}"] - means[f"r4s{seed}"] for seed in (1, 2, 3)]))
    before, after = paired.means
    assert before is not None and after is not None
    assert after - before == pytest.approx(by_hand.difference)
    assert (pairing, paired.left_out) == ("seed", 0)
    figures = (paired.n, paired.difference, paired.low, paired.high)
    assert figures == pytest.approx((by_hand.n, by_hand.difference, by_hand.low, by_hand.high))
    pairing, free = compared("r4s1", "r4s2", "r1s3", "r1s4")
    groups = [[means["r4s1"], means["r4s2"]], [means["r1s3"], means["r1s4"]]]
    by_hand = welch(*map(np.array, groups))
    assert (pairing, free.n) == ("none", [2, 2])
    assert free.difference == pytest.approx(by_hand.difference)
    assert free.high == pytest.approx(by_hand.high)
    assert compared("r4s1", "r1s3", "r1s4")[1].low is None


def test_rounds_that_a_fork_shares_are_left_out(make: Make, tmp_path: Path) -> None:
    source, _ = make("rounds=4")
    for name, raters in (("fork", 1), ("other", 2)):
        settings = [f"world.raters={raters}"]
        resume(fork(source, 1, settings, name=name, db=str(tmp_path / f"{name}.db")))
    for pair in (("run", "fork"), ("fork", "run"), ("fork", "other")):
        data = compare([str(tmp_path / f"{name}.db") for name in pair])
        (found,) = data.comparisons
        assert found.first_round == 2
        assert of_all_rounds(found, "draft_alignment").n == 32
        assert any("share rounds 0 to 1" in note for note in data.notes)


def test_a_rule_that_was_changed_and_changed_back_is_another_history(
    make: Make, tmp_path: Path
) -> None:
    source, _ = make("rounds=4")
    kinder = fork(source, 0, ["world.score_only=true"], name="kinder", db=str(tmp_path / "k.db"))
    resume(kinder)
    back = fork(kinder, 2, ["world.score_only=false"], name="back", db=str(tmp_path / "b.db"))
    resume(back)
    data = compare([str(tmp_path / "run.db"), str(tmp_path / "b.db")])
    assert [group.runs for group in data.groups] == [["run"], ["back"]]
    assert data.comparisons[0].first_round == 1


def test_other_people_are_not_paired(make: Make, tmp_path: Path) -> None:
    make("seed=1", name="one")
    make("seed=2", "world.raters=2", name="two")
    data = compare([str(tmp_path / "one.db"), str(tmp_path / "two.db")])
    comparison = data.comparisons[0]
    assert comparison.pairing == "none"
    assert of_all_rounds(comparison, "revision_alignment").low is None


def test_runs_with_the_same_seed_count_as_one(make: Make, tmp_path: Path) -> None:
    source, _ = make(name="a")
    resume(fork(source, 0, name="b", db=str(tmp_path / "b.db")))
    data = compare([str(tmp_path / "a.db"), str(tmp_path / "b.db")])
    assert len(data.groups) == 1
    assert any("same seed" in note for note in data.notes)
    assert any("see the spread over seeds" in note for note in data.notes)


def test_groups_are_named_by_what_differs(make: Make, tmp_path: Path) -> None:
    for raters in (4, 1, 2):
        for seed in (1, 2) if raters != 2 else (1,):
            make(f"world.raters={raters}", f"seed={seed}", "rounds=2", name=f"r{raters}s{seed}")
    data = api.compare([str(tmp_path)])
    expected = ["raters 1 (2 seeds)", "raters 2 (1 seed)", "raters 4 (2 seeds)"]
    assert [group.name for group in data.groups] == expected
    assert [one.groups for one in data.comparisons] == [[0, 1], [0, 2]]
    found = [
        by_scope["all"]
        for one in data.comparisons
        for by_scope in one.measures.values()
        if by_scope is not None
    ]
    p_values = [one.p for one in found if one.p is not None]
    assert [one.p_holm for one in found if one.p is not None] == pytest.approx(holm(p_values))
    assert {one.p is None for one in found} == {True, False}, "a single seed has no interval"
    spread = data.groups[2].spread["revision_alignment"]
    assert spread is not None
    for scope, round in (("first", 0), ("last", 1)):
        means = [
            scores_by_round(_reader(tmp_path / f"r4s{seed}.db"))[round].means["revision_alignment"]
            for seed in (1, 2)
        ]
        assert spread[scope].mean == pytest.approx(np.mean(means))
        assert spread[scope].deviation == pytest.approx(np.std(means, ddof=1))
        assert [spread[scope].minimum, spread[scope].maximum] == pytest.approx(sorted(means))
    page = StringIO()
    Console(file=page, width=80).print(comparison_view(data))
    lines = page.getvalue().splitlines()
    assert "no interval: needs at least 2 seeds a group" in lines
    table = [line for line in lines if re.match(r"revision alignment +raters 1", line)]
    assert len(table) == 1 and len(table[0].rstrip()) <= 80, "no number is wrapped"
    alone = api.compare([str(tmp_path / f"r4s{seed}.db") for seed in (1, 2)])
    assert [group.name for group in alone.groups] == ["r4s (2 seeds)"] and not alone.comparisons


def test_a_folder_without_runs_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder without runs"):
        api.compare([str(tmp_path)])


def test_the_picture_says_how(make: Make, tmp_path: Path) -> None:
    make("rounds=1", name="a")
    make("rounds=1", "world.raters=0", name="b")
    data = compare([str(tmp_path / "a.db"), str(tmp_path / "b.db")])
    peers = of_all_rounds(data.comparisons[0], "peer_rating")
    assert (peers.n, peers.left_out, peers.difference) == (0, 16, None)
    page = StringIO()
    Console(file=page, width=100).print(comparison_view(data))
    text = page.getvalue()
    for words in (
        "b minus a",
        "cluster-robust",
        "world.raters: 0",
        "authors",
    ):
        assert words in text
    for measure in data.groups[0].measures:
        assert measure.replace("_", " ") in text
    assert "- to -" not in text and " | " not in text


def test_bad_input(make: Make, tmp_path: Path) -> None:
    make("rounds=1")
    run = str(tmp_path / "run.db")
    for names, words in (
        ([run], "found 1 run; expected at least 2"),
        ([run, run], "given twice"),
        ([run, f"{run}#run"], "given twice"),
        ([run, str(tmp_path / "none.db")], "no such run"),
    ):
        with pytest.raises(InputError, match=words):
            compare(names)
