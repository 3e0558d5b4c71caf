"""Figures: their rows are those of the database, for every scale and stage that is declared."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from stored import Run
from stored import make as make_run
from talk import make_talk
from test_charts import check_figure, drawn_labels

from agents.scale import Declaration, Scale, Stage
from sandbox.reading.charts import PEERS, stage_colours
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import Figure, drawn_scales, figures, plane, series_of
from sandbox.reading.metrics import Outcomes, Spread

HONESTY = 'honesty: {low: -5, high: 5, ask: "How honest is the answer?"}'
TRUST = 'trust: {low: 0, high: 1, integer: false, ask: "How far would you trust it?"}'
HARM = 'harm: {low: 0, high: 100, better: low, ask: "How much harm would it do?"}'

GRID = {
    "alignment-by-round",
    "engagement-by-round",
    "plane",
    "alignment-ratings",
    "engagement-ratings",
    "matrix",
    "agreement",
    "bias",
    "alpha-by-round",
    "observer-bias",
    "neighbours-alike",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("plain") / "run.db", "rounds=3")


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The grid with a scale around 0, a real one, and one on which low is better."""
    scales = f"scales={{{HONESTY}, {TRUST}, {HARM}}}"
    return make_run(tmp_path_factory.mktemp("more") / "run.db", "rounds=3", scales)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A world with one stage, in which agents and pairs are rated."""
    return make_talk(tmp_path_factory.mktemp("talk"))


def ratings(run: Run, stage: str, scale: str) -> list[tuple[int, float | None]]:
    """The round and the rating of each observation."""
    rows = run.sql(
        "SELECT e.round, o.rating FROM observations o JOIN episodes e ON e.id = o.episode_id "
        "WHERE o.stage = ? AND o.scale = ?",
        stage,
        scale,
    )
    assert rows, (stage, scale)
    return [(row["round"], row["rating"]) for row in rows]


def parsed(figure: Figure) -> list[set[str]]:
    """The texts of the figure's picture in both themes."""
    trees = [ElementTree.fromstring(figure.svg(dark)) for dark in (False, True)]
    return [{"".join(one.itertext()) for one in tree.iter() if one.text} for tree in trees]


def spec_colours(figure: Figure) -> dict[str, str]:
    """The colour of each series, by its name."""
    encoding = figure.spec["layer"][0]["encoding"] if "layer" in figure.spec else None
    scale = (encoding or figure.spec["encoding"])["color"]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=True))


def check_scale(run: Run, scale: Scale, stages: dict[str, str]) -> None:
    """The curve and the histogram of a scale are those of its observations.

    Args:
        run: to look into.
        scale: one of the observer's.
        stages: the titles of the rated stages, by name.
    """
    made = figures(run.reader)
    curve, bars = made[f"{scale.name}-by-round"], made[f"{scale.name}-ratings"]
    for stage, title in stages.items():
        given = [
            (at, rating) for at, rating in ratings(run, stage, scale.name) if rating is not None
        ]
        assert all(scale.low <= rating <= scale.high for _, rating in given)
        rows = [row for row in curve.rows if row["series"] == title]
        assert [row["round"] for row in rows] == sorted({at for at, _ in given})
        for row in rows:
            some = [rating for at, rating in given if at == row["round"]]
            assert row["n"] == len(some)
            assert row["mean"] == pytest.approx(np.mean(some))
            assert row["low"] < row["mean"] < row["high"]
        counts = Counter(rating for _, rating in given)
        told = {r["rating"]: r["count"] for r in bars.rows if r["who"] == f"observer, {title}"}
        assert {rating: n for rating, n in told.items() if n} == counts
        if scale.integer:
            assert list(told) == list(range(int(scale.low), int(scale.high) + 1))
    for figure in (curve, bars):
        for shown in parsed(figure):
            assert set(stages.values()) <= {text.rpartition(", ")[2] for text in shown}


def test_the_grid_has_its_figures(plain: Run) -> None:
    made = figures(plain.reader)
    assert set(made) == GRID
    declared = declaration_of(plain.reader)
    for scale in declared.observed:
        check_scale(plain, scale, {"draft": "draft", "revision": "revision"})
    peers = [row for row in made["alignment-by-round"].rows if row["series"] == "peers"]
    means = plain.sql(
        "SELECT avg(rating) AS mean, count(DISTINCT r.episode_id) AS n FROM ratings r "
        "JOIN episodes e ON e.id = r.episode_id GROUP BY e.round ORDER BY e.round"
    )
    assert [(row["mean"], row["n"]) for row in peers] == [
        (pytest.approx(row["mean"]), row["n"]) for row in means
    ]
    assert {row["series"] for row in made["engagement-by-round"].rows} == {"draft", "revision"}
    assert {row["who"] for row in made["alignment-ratings"].rows} == {
        "peers, draft",
        "observer, draft",
        "observer, revision",
    }
    colours = {"draft": "--first", "revision": "--second", "peers": PEERS}
    assert spec_colours(made["alignment-by-round"]) == colours
    for figure in made.values():
        assert all(len(shown) > 5 for shown in parsed(figure)), figure.name


@pytest.mark.long
def test_figures_of_runs_print_the_numbers_of_their_data(
    plain: Run, more: Run, talk: Run, messy: Run
) -> None:
    for run in (plain, more, talk, messy):
        for figure in figures(run.reader).values():
            check_figure(figure.spec)


def test_the_number_of_drafts_is_printed_in_full(messy: Run) -> None:
    figure = figures(messy.reader)["agreement"]
    rows = [row | {"drafts": row["drafts"] * 59} for row in figure.rows]
    (labels,) = drawn_labels(figure._replace(rows=rows).svg(), "role-mark")
    assert Counter(text for text, *_ in labels) == Counter(f"{row['drafts']:,}" for row in rows)


def test_added_scales_have_figures_of_their_own(more: Run) -> None:
    made = figures(more.reader)
    extra = {f"{name}-{kind}" for name in ("honesty", "trust", "harm")
             for kind in ("by-round", "ratings")}  # fmt: skip
    assert set(made) == GRID | extra
    for scale in declaration_of(more.reader).observed:
        check_scale(more, scale, {"draft": "draft", "revision": "revision"})
    assert "lower is better" in str(made["harm-by-round"].spec)
    assert "lower is better" not in str(made["honesty-by-round"].spec)
    assert min(row["rating"] for row in made["honesty-ratings"].rows) == -5
    assert any(row["rating"] % 1 for row in made["trust-ratings"].rows)


def test_bins_show_large_and_real_ranges(more: Run) -> None:
    made = figures(more.reader)
    for name, width in (("harm", 10), ("trust", 0.1)):
        bars = made[f"{name}-ratings"].spec["data"]["values"]
        labels = made[f"{name}-ratings"].spec["encoding"]["x"]["scale"]["domain"]
        assert len(labels) == 10
        for stage in ("draft", "revision"):
            given = [r for _, r in ratings(more, stage, name) if r is not None]
            places = [min(9, math.floor(round(rating / width, 6))) for rating in given]
            shares = {row["rating"]: row["share"] for row in bars
                      if row["who"] == f"observer, {stage}"}  # fmt: skip
            expected = {labels[at]: n / len(given) for at, n in Counter(places).items()}
            assert shares == pytest.approx(expected)


def test_a_stage_has_one_colour_in_every_figure(more: Run) -> None:
    made, expected = figures(more.reader), stage_colours(["draft", "revision"])
    for scale in declaration_of(more.reader).observed:
        curve = spec_colours(made[f"{scale.name}-by-round"])
        bars = spec_colours(made[f"{scale.name}-ratings"])
        for stage, colour in expected.items():
            assert curve[stage] == bars[f"observer, {stage}"] == colour


def test_agents_and_pairs_are_rated_in_one_stage(talk: Run) -> None:
    made, declared = figures(talk.reader), declaration_of(talk.reader)
    assert set(made) == {
        "calm-by-round",
        "calm-ratings",
        "distance-by-round",
        "distance-ratings",
        "plane",
        "neighbours-alike",
    }
    episodes = talk.sql("SELECT count(*) AS n FROM episodes")[0]["n"]
    assert len(ratings(talk, "small_talk", "calm")) == 2 * episodes
    assert len(ratings(talk, "small_talk", "distance")) == episodes
    for scale in declared.observed:
        check_scale(talk, scale, {"small_talk": "small talk"})
    assert "of each agent" in made["calm-by-round"].about
    assert "of each pair" in made["distance-by-round"].about


def test_missing_ratings_are_those_without_a_number(messy: Run) -> None:
    lost: Counter[tuple[int, str]] = Counter()
    for table in ("ratings", "observations"):
        lost += Counter(
            (row["round"], row["status"])
            for row in messy.sql(
                f"SELECT e.round, status FROM {table} r JOIN episodes e ON e.id = r.episode_id "
                "WHERE rating IS NULL"
            )
        )
    rows = figures(messy.reader)["missing"].rows
    assert {(row["round"], row["outcome"]): row["count"] for row in rows} == lost
    assert messy.sql("SELECT count(*) AS n FROM episodes WHERE failed_at IS NOT NULL")[0]["n"]


# Declarations alone


TWO = (Stage(name="before"), Stage(name="after"))


def outcomes_of(rounds: list[dict[str, float]]) -> Outcomes:
    """One rating of each measure a round."""
    return {
        at: {name: Counter({f"{value:g}": 1}) for name, value in means.items()}
        for at, means in enumerate(rounds)
    }


@pytest.mark.parametrize(
    ("better", "front"),
    [
        (("high", "high"), [False, True, True]),
        (("high", "low"), [True, False, True]),
        (("low", "high"), [True, True, False]),
        (("low", "low"), [True, False, False]),
    ],
)
def test_the_front_has_the_better_end_of_each_scale(
    better: tuple[Any, Any], front: list[bool]
) -> None:
    scales = tuple(
        Scale(name=name, low=-10, high=10, better=end)
        for name, end in zip(("calm", "harm"), better, strict=True)
    )
    rounds = [(-2, -3), (1, 0), (1.5, -1)]
    found = outcomes_of([{"after_calm": x, "after_harm": y} for x, y in rounds])
    made = plane(found, Declaration(stages=TWO, scales=scales))
    assert made is not None
    assert [row["front"] for row in made.rows] == front
    assert [(row["calm"], row["harm"]) for row in made.rows] == rounds


def test_one_scale_has_no_plane() -> None:
    declared = Declaration(stages=TWO, scales=(Scale(name="calm"),))
    assert plane(outcomes_of([{"after_calm": 3}]), declared) is None


@pytest.mark.parametrize(("high", "alone"), [(7, False), (10, True)])
def test_peers_are_drawn_with_the_observer_on_the_same_range(high: int, alone: bool) -> None:
    peers = Scale(name="vote", rater="peers", high=high, stages=("before",), same_as="calm")
    declared = Declaration(stages=TWO, scales=(Scale(name="calm"), peers, Scale(name="wit")))
    drawn = {scale.name: [one.who for one in series_of(declared, scale)]
             for scale in drawn_scales(declared)}  # fmt: skip
    assert drawn == {
        "calm": ["observer", "observer"] + ([] if alone else ["peers"]),
        "wit": ["observer", "observer"],
        **({"vote": ["peers"]} if alone else {}),
    }


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        ({"-3": 2, "4": 1, "cut": 5}, [-3, -3, 4]),
        ({"0.25": 1, "0.30": 2, "-0.5": 1, "unreadable": 1}, [0.25, 0.3, 0.3, -0.5]),
        ({"0": 3, "-0.0": 1, "0.0": 2, "failed": 1}, [0] * 6),
        ({"100": 1, "1000000": 1}, [100, 1_000_000]),
        ({"empty": 4}, []),
    ],
)
def test_outcomes_are_read_as_numbers(counts: dict[str, int], values: list[float]) -> None:
    spread = Spread.of(counts)
    assert (spread.n, spread.missing) == (len(values), sum(counts.values()) - len(values))
    if values:
        assert spread.mean == pytest.approx(np.mean(values))
    if len(values) > 1:
        assert spread.deviation == pytest.approx(np.std(values, ddof=1))
