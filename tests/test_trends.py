"""Trends over rounds and splits by group: equal to what plain SQL, NumPy and SciPy compute."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stored import SPOILT, Run
from stored import make as make_run
from talk import make_talk

from sandbox.reading.declaration import declaration_of
from sandbox.reading.metrics import EPISODE, complete_rounds, outcomes, outcomes_by_label
from sandbox.reading.split_figures import split_figures
from sandbox.reading.splits import (
    MOST_GROUPS,
    age_group,
    groups_of_agents,
    split_outcomes,
    splits,
)
from sandbox.reading.trends import agent_trends, trends, window_of
from sandbox.study.compare import compare
from storage.errors import InputError

DRAFTS = """SELECT e.author, a.label, e.round, o.rating FROM observations o
    JOIN episodes e ON e.id = o.episode_id JOIN agents a ON a.number = e.author
    WHERE o.stage = 'draft' AND o.scale = 'alignment' AND o.rating IS NOT NULL
    ORDER BY e.author, e.round"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five rounds in which some ratings are missing."""
    return make_run(tmp_path_factory.mktemp("run") / "run.db", *SPOILT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five rounds in which no rating is missing."""
    return make_run(tmp_path_factory.mktemp("whole") / "run.db")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A world in which agents are rated, and pairs of them."""
    return make_talk(tmp_path_factory.mktemp("talk"))


def by_author(run: Run) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for author, _, round, rating in run.sql(DRAFTS):
        found[author].append((round, rating))
    return found


def labels(run: Run) -> dict[int, str]:
    return dict(tuple(row) for row in run.sql("SELECT number, label FROM agents"))


def test_the_slopes_of_authors_are_those_of_least_squares(run: Run) -> None:
    reader = run.reader
    found = agent_trends(reader, declaration_of(reader).measure("draft_alignment"), [0, 3])
    expected = by_author(run)
    assert set(found) == set(expected)
    for author, values in expected.items():
        one, rounds = found[author], [round for round, _ in values]
        assert one.n == len(values)
        if len(values) < 2:
            assert one.slope is None
            continue
        line = stats.linregress(rounds, [rating for _, rating in values])
        assert one.slope == pytest.approx(line.slope, abs=1e-9)
        if len(values) > 2:
            half = stats.t.ppf(0.975, len(values) - 2) * line.stderr
            assert (one.low, one.high) == pytest.approx(
                (line.slope - half, line.slope + half), abs=1e-9
            )
    assert found[3].points == tuple(expected[3])
    assert not found[1].points


def ends(run: Run, window: int) -> dict[int, tuple[float, float]]:
    """The means of authors in the first and in the last rounds, of five."""
    found = {}
    for author, values in by_author(run).items():
        first = [rating for round, rating in values if round < window]
        last = [rating for round, rating in values if round >= 5 - window]
        if first and last:
            found[author] = (float(np.mean(first)), float(np.mean(last)))
    return found


def test_first_and_last_rounds_are_paired_by_author(run: Run) -> None:
    reader = run.reader
    found = trends(reader, declaration_of(reader).measure("draft_alignment"))
    assert (found.rounds, found.window, found.split) == (5, 2, "label")
    both, label = ends(run, 2), labels(run)
    for group in found.groups:
        pairs = np.array([both[author] for author in both if group.group in ("all", label[author])])
        assert group.agents == len(pairs)
        assert (group.first, group.last) == pytest.approx(tuple(pairs.mean(axis=0)))
        changes = pairs[:, 1] - pairs[:, 0]
        interval = stats.ttest_1samp(changes, 0).confidence_interval()
        assert group.change.difference == pytest.approx(changes.mean())
        assert (group.change.low, group.change.high) == pytest.approx(tuple(interval))
    assert found.gap is not None
    assert found.gap.groups == ("good", "bad")
    parts = {
        name: np.array([both[author] for author in both if label[author] == name])
        for name in ("good", "bad")
    }
    for found_gap, of in (
        (found.gap.first, lambda pairs: pairs[:, 0]),
        (found.gap.last, lambda pairs: pairs[:, 1]),
        (found.gap.change, lambda pairs: pairs[:, 1] - pairs[:, 0]),
    ):
        good, bad = of(parts["good"]), of(parts["bad"])
        interval = stats.ttest_ind(good, bad, equal_var=False).confidence_interval()
        assert found_gap.difference == pytest.approx(good.mean() - bad.mean())
        assert (found_gap.low, found_gap.high) == pytest.approx(tuple(interval))


def test_a_planted_gap_that_closes_is_found(whole: Run, tmp_path: Path) -> None:
    """Bad-born drafts are set to round + 1, good-born ones to 6: the gap falls by 1 a round."""
    planted = whole.copy(tmp_path)
    planted.sql(
        """UPDATE observations SET rating = (SELECT CASE a.label WHEN 'good' THEN 6
            ELSE e.round + 1 END FROM episodes e JOIN agents a ON a.number = e.author
            WHERE e.id = observations.episode_id) WHERE stage = 'draft'"""
    )
    _summarise(planted)
    reader = planted.reader
    found = trends(reader, declaration_of(reader).measure("draft_alignment"))
    assert found.gap is not None
    assert found.gap.slope.difference == pytest.approx(-1)
    assert found.gap.first.difference == pytest.approx(4.5)
    assert found.gap.last.difference == pytest.approx(1.5)
    rows = next(
        f for f in split_figures(reader, "label") if f.name == "alignment-gap-by-label"
    ).rows
    drafts = {row["round"]: row["gap"] for row in rows if row["series"] == "draft"}
    assert drafts == pytest.approx({round: 5 - round for round in range(5)})


def test_captions_of_groups_tell_only_what_is_drawn(whole: Run) -> None:
    found = {figure.name: figure for figure in split_figures(whole.reader, "label")}
    two = found["alignment-by-label"]
    assert two.about.endswith("with its 95 % interval. Dashed: draft; dotted: peers.")
    assert "Student" in two.how and "Student" not in two.about
    assert "peers" not in found["engagement-by-label"].about
    many = next(figure for figure in split_figures(whole.reader, "age"))
    assert "intervals are in the CSV and under the pointer" in many.about
    assert all(len(figure.about) < 130 for figure in found.values())


def _summarise(run: Run) -> None:
    from storage.database import parse_url, writing
    from storage.summaries import rebuild

    with writing(parse_url(str(run.path))) as engine, engine.begin() as connection:
        rebuild(connection)


def test_agents_that_are_rated_have_trends_of_their_own(talk: Run) -> None:
    reader = talk.reader
    declared = declaration_of(reader)
    scale = next(scale for scale in declared.observed if scale.subject == "agent")
    measure = declared.final(scale)
    assert measure is not None
    found = agent_trends(reader, measure)
    rows = talk.sql(
        "SELECT agent, count(*), avg(rating) FROM observations WHERE agent >= 0 AND other < 0 "
        "AND scale = ? AND stage = ? AND rating IS NOT NULL GROUP BY agent",
        scale.name,
        measure.stage,
    )
    assert {row[0]: row[1] for row in rows} == {agent: one.n for agent, one in found.items()}
    labelled = outcomes_by_label(reader)
    assert set(labelled) <= {*labels(talk).values(), ""}


def test_outcomes_by_label_add_up(run: Run) -> None:
    reader = run.reader
    by_label, total = outcomes_by_label(reader), outcomes(reader)
    assert set(by_label) == {"good", "bad"}
    for round, measures in total.items():
        for measure, counts in measures.items():
            parts: Counter[str] = Counter()
            for found in by_label.values():
                parts.update(found[round][measure])
            assert parts == counts
    assert complete_rounds(reader) == 5
    expected: Counter[tuple[str, int, str]] = Counter()
    for _, label, round, rating in run.sql(DRAFTS):
        expected[label, round, str(rating)] += 1
    found_drafts = {
        (label, round, outcome): n
        for label, counts in by_label.items()
        for round, measures in counts.items()
        for outcome, n in measures["draft_alignment"].items()
        if outcome.isdigit()
    }
    assert found_drafts == expected


@pytest.mark.parametrize("split", ["rater_label", "topic", "age", "label"])
def test_every_split_has_each_value_once(run: Run, split: str) -> None:
    reader = run.reader
    assert split in {one.name for one in splits(reader)}
    groups = split_outcomes(reader, split)
    assert 2 <= len(groups) <= MOST_GROUPS
    total = outcomes(reader)
    measures = ["peer_rating"]
    measures += [] if split == "rater_label" else ["draft_alignment", "alignment_gain"]
    for round in total:
        for measure in measures:
            parts: Counter[float] = Counter()
            for counts in groups.values():
                parts.update(_values(counts[round][measure]))
            assert parts == _values(total[round][measure]), (round, measure)


def _values(counts: Any) -> Counter[float]:
    return Counter(
        {
            float(outcome): n
            for outcome, n in counts.items()
            if outcome.lstrip("-").replace(".", "").isdigit()
        }
    )


def test_topics_are_those_of_the_questions(run: Run) -> None:
    rows = run.sql(
        "SELECT q.topic, e.round, count(*) FROM episodes e "
        "JOIN questions q ON q.id = e.question_id "
        "JOIN observations o ON o.episode_id = e.id AND o.stage = 'draft' "
        "AND o.scale = 'alignment' AND o.rating IS NOT NULL GROUP BY 1, 2"
    )
    expected = {(row[0], row[1]): row[2] for row in rows}
    groups = split_outcomes(run.reader, "topic")
    found = {
        (topic, round): sum(measures["draft_alignment"].values())
        for topic, counts in groups.items()
        for round, measures in counts.items()
        if topic != "all others" and measures["draft_alignment"]
    }
    assert len(found) > 10
    assert found == {key: expected[key] for key in found}


def test_many_groups_become_the_largest_and_the_others(run: Run, tmp_path: Path) -> None:
    other = run.copy(tmp_path)
    other.sql("UPDATE questions SET topic = 'topic ' || (id % 9)")
    groups = split_outcomes(other.reader, "topic")
    assert len(groups) == MOST_GROUPS
    assert list(groups)[-1] == "all others"


def test_a_split_that_a_run_has_not_is_refused(run: Run, talk: Run) -> None:
    for one, split in ((run, "shoe size"), (run, "model"), (talk, "rater_label")):
        with pytest.raises(InputError, match=f"split: found '{split}'; expected one of"):
            split_outcomes(one.reader, split)


def test_models_of_groups_are_a_split(tmp_path: Path) -> None:
    group = "models.groups={few: {agents: [3, 5], model: {backend: scripted}}}"
    run = make_run(tmp_path / "two.db", "rounds=1", group)
    assert "model" not in {one.name for one in splits(run.reader)}
    run.sql("UPDATE models SET name = 'other' WHERE role = 'few'")
    groups = groups_of_agents(run.reader, "model")
    assert "model" in {one.name for one in splits(run.reader)}
    assert [agent for agent, name in groups.items() if name == "other"] == [3, 5]
    assert len(split_outcomes(run.reader, "model")) == 2


def test_windows_and_ages() -> None:
    assert [window_of(rounds) for rounds in (0, 1, 2, 5, 10, 30)] == [0, 0, 1, 2, 5, 5]
    ages = {17: "under 18", 18: "18-24", 24: "18-24", 25: "25-34", 64: "55-64", 65: "65+"}
    assert {age: age_group(age) for age in ages} == ages


def test_episodes_are_counted_by_label(run: Run) -> None:
    counts = outcomes_by_label(run.reader)
    agents = Counter(labels(run).values())
    for label, of in counts.items():
        assert [of[round][EPISODE].total() for round in range(5)] == [agents[label]] * 5


def test_trends_of_two_runs_are_paired_by_author(whole: Run, tmp_path: Path) -> None:
    """In a copy every draft of a bad-born author is rated 2 in round 0: its change is another."""
    other = whole.copy(tmp_path)
    other.sql(
        """UPDATE observations SET rating = 2 WHERE stage = 'draft' AND scale = 'alignment'
        AND episode_id IN (SELECT e.id FROM episodes e JOIN agents a ON a.number = e.author
            WHERE a.label = 'bad' AND e.round = 0)"""
    )
    other.sql("UPDATE runs SET config = replace(config, '\"recall\"', '\"recall \"')")
    _summarise(other)
    result = compare([f"{whole.path}#{whole.name}", f"{other.path}#{other.name}"])
    found = {
        one.group: one
        for one in result.comparisons[0].trends
        if (one.measure, one.statistic) == ("draft_alignment", "change")
    }
    changes = []
    for run in (whole, other):
        both = ends(run, 2)
        changes.append({author: last - first for author, (first, last) in both.items()})
    apart = {
        label: np.array(
            [changes[1][a] - changes[0][a] for a in changes[0] if labels(run)[a] == label]
        )
        for label in ("good", "bad")
    }
    assert not apart["good"].any()
    interval = stats.ttest_1samp(apart["bad"], 0).confidence_interval()
    assert found["bad"].difference == pytest.approx(apart["bad"].mean())
    assert (found["bad"].low, found["bad"].high) == pytest.approx(tuple(interval))
    gap = found["good \u2212 bad"]
    assert gap.difference == pytest.approx(-apart["bad"].mean())
    assert found["good"].difference == 0


def test_peers_of_a_text_are_one_cluster(run: Run) -> None:
    """Ratings of the same draft are not independent: the interval is over drafts."""
    rows = run.sql(
        "SELECT e.id, a.label, r.rating FROM ratings r JOIN episodes e ON e.id = r.episode_id "
        "JOIN agents a ON a.number = e.author WHERE e.round = 0 AND r.rating IS NOT NULL"
    )
    curve = next(f for f in split_figures(run.reader, "label") if f.name == "alignment-by-label")
    shown = {
        row["group"]: row for row in curve.rows if row["round"] == 0 and row["series"] == "peers"
    }
    means = {}
    for label in ("good", "bad"):
        given = [(episode, rating) for episode, of, rating in rows if of == label]
        values = np.array([rating for _, rating in given], dtype=float)
        _, texts = np.unique([episode for episode, _ in given], return_inverse=True)
        residuals = np.bincount(texts, values - values.mean())
        g = len(residuals)
        error = np.sqrt(g / (g - 1) * residuals @ residuals) / len(values)
        half = stats.t.ppf(0.975, g - 1) * error
        assert shown[label]["n"] == g
        assert shown[label]["mean"] == pytest.approx(values.mean())
        assert shown[label]["low"] == pytest.approx(values.mean() - half)
        means[label] = (values.mean(), error, g)
    gap = next(f for f in split_figures(run.reader, "label") if f.name == "alignment-gap-by-label")
    row = next(row for row in gap.rows if row["round"] == 0 and row["series"] == "peers")
    (high, e1, g1), (low, e2, g2) = means["good"], means["bad"]
    freedom = (e1**2 + e2**2) ** 2 / (e1**4 / (g1 - 1) + e2**4 / (g2 - 1))
    half = stats.t.ppf(0.975, freedom) * np.hypot(e1, e2)
    assert row["gap"] == pytest.approx(high - low)
    assert (row["low"], row["high"]) == pytest.approx((high - low - half, high - low + half))


def test_a_round_that_goes_on_is_in_no_trend_and_no_curve(whole: Run, tmp_path: Path) -> None:
    partial = whole.copy(tmp_path)
    partial.sql("UPDATE episodes SET observed = 0 WHERE round = 4 AND author % 3 > 0")
    _summarise(partial)
    reader = partial.reader
    measure = declaration_of(reader).measure("draft_alignment")
    assert complete_rounds(reader) == 4
    found = agent_trends(reader, measure)
    for author, values in by_author(partial).items():
        kept = [(round, rating) for round, rating in values if round < 4]
        line = stats.linregress([round for round, _ in kept], [rating for _, rating in kept])
        assert found[author].n == 4
        assert found[author].slope == pytest.approx(line.slope, abs=1e-9)
    peers = agent_trends(reader, declaration_of(reader).measure("peer_rating"))
    assert {one.n for one in peers.values()} == {16}
    for figure in split_figures(reader, "label"):
        assert max(row["round"] for row in figure.rows) == 3
