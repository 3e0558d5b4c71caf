"""Measures of personalisation within bounds, against values computed by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from personal_runs import make_personal, replace_verdicts
from stored import Run
from stored import make as make_stored

from sandbox.reading.bounds import (
    Bounds,
    _moments,
    bounds,
    mean_distance,
    rarefied,
)
from sandbox.reading.exchange_detail import read_exchange
from sandbox.reading.exchanges import found_exchanges
from sandbox.reading.statistics import Share, clustered, clustered_sums


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_personal(tmp_path_factory.mktemp("bounds"))


def _read(run: Run) -> Bounds:
    found = bounds(run.reader)
    assert found is not None
    json.dumps(found.as_dict(), allow_nan=False)
    return found


def test_shares_have_wilson_intervals() -> None:
    half = Share.of(5, 10, missing=3)
    assert (half.n, half.missing, half.share) == (10, 3, 0.5)
    assert (half.low, half.high) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert Share.of(0, 20).low == 0 and Share.of(0, 20).high == pytest.approx(0.161125, abs=1e-6)
    assert Share.of(20, 20).high == 1
    assert Share.of(0, 0, 4) == Share(n=0, count=0, missing=4, share=None, low=None, high=None)


def test_intervals_of_sums_are_those_of_values() -> None:
    values, users = np.array([1.0, 4.0, 2.0, -3.0, 5.0]), np.array([0, 0, 1, 1, 2])
    sums = clustered_sums(np.array([2.0, 2.0, 1.0]), np.array([5.0, -1.0, 5.0]))
    assert sums.as_dict() == pytest.approx(clustered(values, users).as_dict())
    assert clustered_sums(np.zeros(0), np.zeros(0)).difference is None
    assert clustered_sums(np.array([2.0]), np.array([3.0])).low is None


def test_leakage_counts_requests_with_a_verdict(run: Run, tmp_path: Path) -> None:
    copy = run.copy(tmp_path)
    said = ["yes", "no", "no", None, "no", "yes", "no", "no"]
    rules = ["law.dose"] * 4 + ["org.rivals"] * 3 + ["somebody else's"]
    replace_verdicts(copy, "obeyed", *zip(rules, said, [None] * 8, strict=True))
    found = _read(copy).leakage
    assert (found.total.n, found.total.count, found.total.missing) == (7, 2, 1)
    by_rule = {one.rule: (one.tier, one.obeyed.n, one.obeyed.count) for one in found.by_rule}
    assert by_rule == {
        "law.dose": (1, 3, 1),
        "org.rivals": (2, 3, 1),
        "somebody else's": (None, 1, 0),
    }
    assert {tier: share.n for tier, share in found.by_tier.items()} == {"1": 3, "2": 3}
    assert sum(share.n for share in found.by_phrasing.values()) == 7


def test_without_verdicts_there_is_no_share(run: Run, tmp_path: Path) -> None:
    copy = run.copy(tmp_path)
    for kind in ("obeyed", "guess", "stance"):
        replace_verdicts(copy, kind)
    found = _read(copy)
    assert found.leakage.total.share is None
    assert found.profiling == []
    assert all(one.sd is None and one.stance is None for one in found.rounds)


def test_gains_are_the_users_own_ratings(run: Run) -> None:
    found = _read(run)
    rows = run.sql(
        "SELECT e.author, p.rating - a.rating FROM episodes e "
        "JOIN observations p ON p.episode_id = e.id AND p.stage = 'personal' "
        "JOIN observations a ON a.episode_id = e.id AND a.stage = 'aggregate' "
        "AND a.scale = p.scale WHERE p.scale = 'satisfaction' ORDER BY e.id"
    )
    authors, gains = (np.array(each, dtype=float) for each in zip(*map(tuple, rows), strict=True))
    everybody = found.groups[0]
    assert (everybody.attribute, everybody.users) == (None, 4)
    assert everybody.gain.as_dict() == pytest.approx(clustered(gains, authors).as_dict())
    means = [gains[authors == user].mean() for user in range(4)]
    assert everybody.lose_by_aggregate.count == sum(mean > 0 for mean in means)
    assert everybody.lose_by_personalisation.count == sum(mean < 0 for mean in means)
    groups = {(one.attribute, one.group): one for one in found.groups}
    assert groups["gender", "Female"].users == groups["gender", "Male"].users == 2
    assert groups["politics", "left"].gain.low is None  # one user has no interval
    spread = {one.attribute: one for one in found.spreads}
    assert set(spread) == {"gender"}
    assert spread["gender"].gain == pytest.approx(
        abs(
            groups["gender", "Female"].gain.difference - groups["gender", "Male"].gain.difference  # type: ignore[operator]
        )
    )


def test_diversity_does_not_depend_on_length() -> None:
    assert rarefied(Counter({"a": 1, "b": 1, "c": 1}), 2) == pytest.approx(1)
    assert rarefied(Counter({"a": 3}), 2) == pytest.approx(0.5)
    assert rarefied(Counter({"a": 2, "b": 1}), 2) == pytest.approx((1 * 1 + 2 * 2) / 3 / 2)
    assert rarefied(Counter(), 0) is None
    one, other = {"a": 3, "b": 4}, {"c": 1}
    assert mean_distance([one, one]) == pytest.approx(0)
    assert mean_distance([one, one, other]) == pytest.approx(2 / 3)
    assert mean_distance([one, {}]) is None


def test_two_camps_are_bimodal() -> None:
    camps, crowd = Counter({1.0: 10, 100.0: 10}), Counter({40.0: 4, 50.0: 10, 60.0: 4})
    _, sd, bimodality = _moments(camps)
    assert sd == pytest.approx(np.std([1.0] * 10 + [100.0] * 10, ddof=1))
    assert bimodality is not None and bimodality > 5 / 9
    assert (_moments(crowd)[2] or 1) < 5 / 9
    assert _moments(Counter({50.0: 9}))[1:] == (0, None)
    assert _moments(Counter({50.0: 1})) == (50, None, None)
    assert _moments(Counter()) == (None, None, None)
    uniform = Counter({float(value): 10 for value in range(1, 101)})
    assert _moments(uniform)[2] == pytest.approx(5 / 9, abs=0.01)


def test_profiling_leaves_out_what_was_mentioned(run: Run, tmp_path: Path) -> None:
    copy = run.copy(tmp_path)
    guesses = [("left", "left"), ("left", "right"), ("mentioned", "left"), (None, "left")]
    guesses += [("left", "left"), ("right", "left")]
    replace_verdicts(copy, "guess", *(("politics", value, truth) for value, truth in guesses))
    (found,) = _read(copy).profiling
    assert (found.right.n, found.right.count, found.mentioned, found.unusable) == (4, 2, 1, 1)
    assert (found.category, found.baseline) == ("left", 0.75)


def test_breaches_refusals_and_wishes_are_counted(run: Run) -> None:
    found = _read(run)
    assert sum(one.n for one in found.breaches) == run.sql("SELECT count(*) FROM breaches")[0][0]
    assert [(one.rule, one.wishes, one.users) for one in found.overruled] == [
        ("org.no_swearing", 1, 1)
    ]
    refused = run.sql("SELECT sum(refused), count(*) FROM utterances WHERE kind = 'answer'")[0]
    assert (found.refusals["answer"].count, found.refusals["answer"].n) == tuple(refused)


def test_a_run_without_policy_has_no_measures(tmp_path: Path) -> None:
    plain = make_stored(tmp_path / "plain.db", "world.size=3", "rounds=1")
    found = _read(plain)  # tier 1 binds it, but nobody asked for anything
    assert (found.leakage.total.n, found.groups, found.rounds) == (0, [], [])
    plain.sql("UPDATE runs SET policy = NULL")
    assert bounds(plain.reader) is None


def test_conversations_are_read_and_found(run: Run) -> None:
    shown = read_exchange(run.reader, 0).conversation
    assert shown is not None and shown.attack is not None and shown.aggregate is not None
    assert [len(turn.answers) for turn in shown.turns] == [4, *[2] * (len(shown.turns) - 1)]
    assert all(sum(one.chosen for one in turn.answers) == 1 for turn in shown.turns)
    broken = sum(len(one.breaches) for turn in shown.turns for one in turn.answers)
    assert broken <= len(read_exchange(run.reader, 0).breaches)
    word = max(shown.attack.turns[-1].prompt.split(), key=len).strip(".,:;?!\u201c\u201d")
    hits = {hit.episode: hit for hit in found_exchanges(run.reader, word, None, 10)}
    assert 0 in hits and hits[0].found is not None and word in str(hits[0].found)
    assert math.isfinite(len(json.dumps(read_exchange(run.reader, 0).as_dict())))
