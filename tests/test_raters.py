"""Statistics of raters: agreement, leniency with corrected p values, the observer and peers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import krippendorff
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, ttest_1samp
from stored import SPOILT, Run
from stored import make as make_run
from viewing import Site, serving

from sandbox.reading.agreement import (
    BOTH,
    PEERS,
    TextSums,
    agreements,
    alpha,
    observer_less_peers,
)
from sandbox.reading.raters import (
    FEWEST_TEXTS,
    RATER_ORDERS,
    RatingsGiven,
    _ratings_given,
    adjusted_p,
    raters,
    sorted_raters,
)
from sandbox.reading.statistics import benjamini_hochberg, clustered

# Agreement

_ = None
HAND_CALCULATED = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)
"""The data of sections C and D of Krippendorff 2011: four observers, twelve units."""


def sums_of(table: Any) -> Counter[TextSums]:
    """The sums of the units of a table of observers and units with at least two values."""
    units = (
        [value for value in unit if value is not None and not math.isnan(value)]
        for unit in zip(*table, strict=True)
    )
    return Counter(TextSums.of(unit) for unit in units if len(unit) > 1)


def test_alpha_is_that_of_the_hand_calculated_example() -> None:
    found = alpha(sums_of(HAND_CALCULATED))
    assert found.texts == 11
    assert found.alpha == pytest.approx(0.849, abs=0.0005)
    assert found.low is not None and found.high is not None
    assert found.low < 0.849 < found.high <= 1
    assert alpha(sums_of(HAND_CALCULATED)) == found  # the same every time


def sample(random: np.random.Generator, texts: int, noise: float) -> NDArray[np.float64]:
    """Ratings from 1 to 7 by five raters, some missing."""
    quality = random.normal(4, 1, texts)
    table = np.clip(np.round(quality + random.normal(0, noise, (5, texts))), 1, 7)
    table[random.random(table.shape) < 0.2] = np.nan
    return table


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_alpha_is_that_of_the_library(noise: float) -> None:
    table = sample(np.random.default_rng(7), 300, noise)
    expected = krippendorff.alpha(table, level_of_measurement="interval")
    assert alpha(sums_of(table), interval=False).alpha == pytest.approx(expected)


def test_the_interval_of_alpha_covers() -> None:
    """About 95 % of the intervals contain the alpha of very many texts."""
    random = np.random.default_rng(3)
    truth = alpha(sums_of(sample(random, 60_000, 1.0)), interval=False).alpha
    assert truth is not None
    inside = 0
    for _run in range(200):
        found = alpha(sums_of(sample(random, 80, 1.0)))
        assert found.low is not None and found.high is not None
        inside += found.low <= truth <= found.high
    assert 180 <= inside <= 199


def test_alpha_of_nothing_is_not_defined() -> None:
    assert alpha({}).alpha is None
    assert alpha({TextSums.of((2, 5)): 1}).alpha is None
    equal = alpha({TextSums.of((4, 4, 4)): 30, TextSums.of((4, 4)): 5})
    assert (equal.texts, equal.alpha, equal.low) == (35, None, None)
    assert alpha({TextSums.of((1, 1)): 5, TextSums.of((7, 7)): 5}).alpha == 1


# Leniency


def test_p_values_are_adjusted_as_by_scipy() -> None:
    random = np.random.default_rng(5)
    for size in (0, 1, 2, 50):
        p = random.random(size) ** 2
        expected = false_discovery_control(p) if size else p
        assert benjamini_hochberg(p) == pytest.approx(expected)


def given(deviations: NDArray[np.float64]) -> RatingsGiven:
    n = len(deviations)
    return _ratings_given(n, 0, 4 * n, n, deviations.sum(), (deviations**2).sum())


def test_a_p_value_is_that_of_students_t() -> None:
    deviations = np.random.default_rng(1).normal(0.3, 1, 25)
    found = given(deviations)
    assert found.p == pytest.approx(ttest_1samp(deviations, 0).pvalue)
    assert found.distance == pytest.approx(np.sqrt((deviations**2).mean()))
    assert given(deviations[: FEWEST_TEXTS - 1]).p is None
    assert given(np.full(30, 0.5)).p is None  # without spread there is no test


def society(
    random: np.random.Generator, bias: NDArray[np.float64], texts: int
) -> dict[int, float | None]:
    """p values of raters, each of whom rates `texts` texts together with three others."""
    size = len(bias)
    deviations: list[list[float]] = [[] for _ in range(size)]
    for _text in range(texts * size // 4):
        who = random.choice(size, 4, replace=False)
        rated = random.normal(4, 1) + bias[who] + random.normal(0, 1, 4)
        rated = np.clip(np.round(rated), 1, 7)
        for place, rater in enumerate(who):
            deviations[rater].append(rated[place] - np.delete(rated, place).mean())
    return {rater: given(np.array(some)).p for rater, some in enumerate(deviations)}


@pytest.mark.parametrize("texts", [8, 20])
def test_raters_without_bias_are_hardly_ever_found(texts: int) -> None:
    """Without any bias every discovery is false: at most 5 % of societies have one, in the mean."""
    random = np.random.default_rng(11)
    false = [
        any(p <= 0.05 for p in adjusted_p(society(random, np.zeros(40), texts)).values())
        for _ in range(120)
    ]
    assert np.mean(false) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(false))


def test_biased_raters_are_found_and_false_discoveries_are_few() -> None:
    """Ten lenient and ten severe raters among sixty: their biases cancel for the others."""
    random = np.random.default_rng(2)
    bias = np.concatenate((np.full(10, 1.0), np.full(10, -1.0), np.zeros(40)))
    false, power = [], []
    for _ in range(40):
        adjusted = adjusted_p(society(random, bias, 40))
        found = [rater for rater, p in adjusted.items() if p <= 0.05]
        false.append(sum(bias[rater] == 0 for rater in found) / max(1, len(found)))
        power.append(sum(bias[rater] != 0 for rater in found) / 20)
    assert np.mean(false) <= 0.05 and np.mean(power) > 0.95


# Of a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("raters")
    return make_run(folder / "small.db", "world.size=6", "rounds=4", *SPOILT)


@pytest.fixture(scope="module")
def site(run: Run) -> Iterator[Site]:
    with serving(run) as site:
        yield site


def table(run: Run, where: str = "", observed: bool = False) -> NDArray[np.float64]:
    """Raters (the last one is the observer) by exchange."""
    rows = run.sql(
        "SELECT r.episode_id, r.rater, r.rating FROM ratings r JOIN episodes e "
        f"ON e.id = r.episode_id WHERE r.rating IS NOT NULL {where}"
    )
    seen = run.sql(
        "SELECT o.episode_id, 36, o.rating FROM observations o JOIN episodes e ON e.id = "
        "o.episode_id WHERE o.stage = 'draft' AND o.scale = 'alignment' AND o.rating IS NOT NULL "
        + where
    )
    peers = {row[0] for row in rows}
    last = max(row[0] for row in rows) + 1
    found = np.full((37, last), np.nan)
    for episode, rater, rating in rows:
        found[rater, episode] = rating
    if observed:
        for episode, rater, rating in seen:
            found[rater, episode] = rating
        unseen = np.isnan(found[36])
        found[:, unseen] = np.nan
        found[:, [one for one in range(last) if one not in peers]] = np.nan
    return found


def test_agreement_of_a_run_is_that_of_its_ratings(run: Run) -> None:
    found = agreements(run.reader)
    for who, observed in ((PEERS, False), (BOTH, True)):
        expected = krippendorff.alpha(
            table(run, observed=observed), level_of_measurement="interval"
        )
        assert found.overall[who].alpha == pytest.approx(expected)
        for round in range(4):
            some = table(run, f"AND e.round = {round}", observed)
            expected = krippendorff.alpha(some, level_of_measurement="interval")
            one = found.by_round[who][round]
            assert one.alpha == pytest.approx(expected)
            assert one.texts == int((np.sum(~np.isnan(some), axis=0) > 1).sum())


def test_the_observer_is_compared_with_peers_by_label(run: Run) -> None:
    rows = run.sql(
        "SELECT a.label, e.author, o.rating - avg(r.rating) AS apart FROM episodes e "
        "JOIN agents a ON a.number = e.author "
        "JOIN observations o ON o.episode_id = e.id AND o.stage = 'draft' "
        "AND o.scale = 'alignment' AND o.rating IS NOT NULL "
        "JOIN ratings r ON r.episode_id = e.id AND r.rating IS NOT NULL "
        "GROUP BY e.id, a.label, e.author, o.rating"
    )
    found = observer_less_peers(run.reader)
    assert set(found) == {"good", "bad"}
    for label, one in found.items():
        some = [row for row in rows if row["label"] == label]
        expected = clustered(
            np.array([row["apart"] for row in some]), np.array([row["author"] for row in some])
        )
        assert one.n == expected.n and one.clusters == expected.clusters
        for end in ("difference", "low", "high"):
            assert getattr(one, end) == pytest.approx(getattr(expected, end))


def test_the_table_of_raters(run: Run, site: Site) -> None:
    rows = raters(run.reader)
    assert [row.agent for row in rows] == [row.agent for row in sorted_raters(rows, "-deviation")]
    ratings = table(run)
    for row in rows:
        mine = ratings[row.agent]
        others = np.delete(ratings, row.agent, axis=0)
        both = ~np.isnan(mine) & (~np.isnan(others)).any(axis=0)
        apart = mine[both] - np.nanmean(others[:, both], axis=0)
        assert row.n == both.sum() and row.deviation == pytest.approx(apart.mean())
        assert row.distance == pytest.approx(np.sqrt((apart**2).mean()))
        if row.p is not None:
            assert row.p == pytest.approx(ttest_1samp(apart, 0).pvalue)
    tested = [row for row in rows if row.p is not None]
    expected = false_discovery_control([row.p for row in tested])
    assert [row.adjusted for row in tested] == pytest.approx(expected.tolist())
    page = site.page("/r/small/ratings")
    differing = sum(row.differs for row in rows)
    assert f"{differing} of {len(tested)} raters differ from their co-raters" in page
    for order in RATER_ORDERS:
        file = site.ask(f"/r/small/raters.csv?order={order}")
        shown = [int(row["agent"]) for row in file.rows]
        assert shown == [row.agent for row in sorted_raters(rows, order)]
    assert len(site.ask("/r/small/raters.jsonl").lines) == len(rows)
    assert site.ask("/r/small/ratings?order=luck").status == 400
    assert "alpha of peers and the observer:" in site.page("/r/small/ratings/agreement")
