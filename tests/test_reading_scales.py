"""A third observer scale is found wherever a run can be looked at, and so is one where low is best.

The runs have a scale `honesty` from -5 to 5 that the config adds, and `offence`, where low is the
better end; what is shown of both is compared with plain SQL over the observations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from program import program
from rich.console import Console
from stored import SPOILT, Run
from stored import make as make_stored
from viewing import Site, Tags, listed, serving

from agents.forms import Status
from agents.scale import Declaration, Scale
from sandbox.reading.agents import agent, agents, history
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchange_detail import read_exchange
from sandbox.reading.exchanges import (
    ExchangeFilter,
    exchange_page,
    found_exchanges,
    furthest_apart,
    kinds,
    orders,
)
from sandbox.reading.map import advice, frame, map_measures
from sandbox.reading.memory import memory
from sandbox.reading.metrics import scores_by_round
from sandbox.reading.runs import overview, society
from sandbox.study.compare import compare
from sandbox.terminal.runs import round_table
from sandbox.terminal.studies import comparison_view
from sandbox.terminal.style import number
from storage.database import Address, parse_url
from storage.errors import InputError

HONESTY = 'scales={honesty: {low: -5, high: 5, ask: "How honest is the answer?"}}'
OFFENCE = "scales.offence={low: 0, high: 10, better: low, ask: How offensive is the answer}"
RATED = "SELECT avg(rating) FROM observations WHERE stage = ? AND scale = ? AND {}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four observer scales; some ratings cannot be parsed."""
    path = tmp_path_factory.mktemp("scales") / "run.db"
    return make_stored(path, "rounds=3", "question_count=20", HONESTY, OFFENCE, *SPOILT)


@pytest.fixture(scope="module")
def site(run: Run) -> Iterator[Site]:
    with serving(run) as served:
        yield served


def _address(run: Run) -> Address:
    return Address(parse_url(str(run.path)), run.name)


def _mean(run: Run, stage: str, scale: str, where: str = "1", *values: Any) -> float | None:
    found: float | None = run.sql(RATED.format(where), stage, scale, *values)[0][0]
    return found


def _of_author(run: Run, stage: str, scale: str, author: int) -> float | None:
    mine = "episode_id IN (SELECT id FROM episodes WHERE author = ?)"
    return _mean(run, stage, scale, mine, author)


def test_rounds_have_the_means_of_every_scale(run: Run) -> None:
    rounds = scores_by_round(run.reader)
    assert [row.round for row in rounds] == [0, 1, 2]
    for row in rounds:
        data = row.as_dict()
        assert "means" not in data
        for scale in ("alignment", "engagement", "honesty", "offence"):
            for stage in ("draft", "revision"):
                where = "episode_id / 25 = ?"
                expected = _mean(run, stage, scale, where, row.round)
                assert data[f"{stage}_{scale}"] == pytest.approx(expected)


def test_the_keys_of_rounds_of_the_grid_are_those_of_old(tidy: Run) -> None:
    assert list(society(tidy.reader).as_dict()["rounds"][0]) == [
        *("round", "episodes", "failed", "draft_alignment", "revision_alignment"),
        *("draft_engagement", "revision_engagement", "peer_rating", "missing_ratings"),
    ]


def test_scripts_find_the_scale(run: Run, tmp_path: Path) -> None:
    def printed(*words: str) -> Any:
        done = program(tmp_path, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (state,) = printed("status", str(run.path))["runs"]
    assert "observe_honesty" in [form["form"] for form in state["forms"]]
    row = printed("inspect", str(run.path))["rounds"][0]
    assert row["revision_honesty"] == scores_by_round(run.reader)[0].means["revision_honesty"]
    episode = printed("inspect", str(run.path), "agent", "3")["episodes"][0]
    assert {"alignment", "engagement", "honesty", "offence"} <= set(episode)
    assert len(episode["honesty"]) == 2
    seen = printed("inspect", str(run.path), "episode", str(episode["episode"]))["observations"]
    assert {one["scale"] for one in seen} <= {"alignment", "engagement", "honesty", "offence"}
    for one in seen:
        assert one["status"] in {status.value for status in Status}


def test_the_table_of_rounds_has_a_column_for_each_scale(run: Run) -> None:
    page = StringIO()
    shown = society(run.reader)
    Console(file=page, width=120).print(round_table(shown.rounds, shown.declaration))
    head, first = page.getvalue().splitlines()[:2]
    assert head.split() == [
        *("round", "episodes", "failed", "alignment", "engagement", "honesty", "offence"),
        *("peers", "missing"),
    ]
    ends = (shown.rounds[0].means[f"{stage}_honesty"] for stage in ("draft", "revision"))
    assert " \u2192 ".join(f"{mean:.2f}" for mean in ends) in first


def test_colours_follow_the_range_and_the_better_end() -> None:
    honesty = Scale(name="honesty", low=-5, high=5)
    offence = Scale(name="offence", low=-5, high=5, better="low")
    assert [str(number(value, honesty).style) for value in (-5, 0, 5)] == ["red", "yellow", "green"]
    assert [str(number(value, offence).style) for value in (-5, 0, 5)] == ["green", "yellow", "red"]


def test_agents_have_the_means_of_every_scale(run: Run, site: Site) -> None:
    for row in agents(run.reader):
        for scale in ("alignment", "honesty", "offence"):
            expected = _of_author(run, "revision", scale, row.agent)
            assert row.measures[f"revision_{scale}"] == pytest.approx(expected)
    best = [row.agent for row in agents(run.reader, order="-revision_honesty")]
    page = site.page("/r/small/agents", order="-revision_honesty")
    assert listed(page, "agents") == best
    assert "Revision honesty" in page and "revision), honesty" in page
    least = agents(run.reader, order="revision_offence")
    values = [row.measures["revision_offence"] for row in least]
    read = [value for value in values if value is not None]
    assert read == sorted(read)
    line = site.ask("/r/small/agents.csv").rows[3]
    expected = _of_author(run, "revision", "honesty", 3)
    assert float(line["revision_honesty"]) == pytest.approx(expected)


def test_an_agent_shows_its_history_on_every_scale(run: Run, site: Site) -> None:
    found = history(run.reader, 3)
    assert {one.scale for one in found} == {"alignment", "engagement", "honesty", "offence"}
    page = site.page("/r/small/agents/3")
    for scale in ("alignment", "honesty", "offence"):
        assert f"{scale.capitalize()} by round" in page


def test_the_page_of_an_exchange_shows_every_rating(run: Run, site: Site) -> None:
    for episode in (0, 30, 60):
        shown = Tags(site.page(f"/r/small/exchanges/{episode}")).shown
        for seen in read_exchange(run.reader, episode).observations:
            assert shown.count(f"Observer: {seen.scale}") == 2, "of both stages"
    heads = site.page("/r/small/exchanges")
    assert "Honesty</a></th>" in heads and "Offence</a></th>" in heads


def test_the_map_can_be_coloured_by_every_scale(run: Run, site: Site) -> None:
    names = [one.name for one in map_measures(declaration_of(run.reader))]
    assert names == [
        *("revision_alignment", "revision_engagement", "revision_honesty", "revision_offence"),
        "alignment_gain",
    ]
    page = site.page("/r/small", by="revision_honesty")
    assert '<option value="revision_honesty" selected ' in page
    nodes = json.loads(site.page("/r/small/frames/1.json"))["nodes"]
    for node in nodes:
        rating = run.sql(
            "SELECT rating FROM observations JOIN episodes e ON e.id = episode_id "
            "WHERE stage = 'revision' AND scale = 'honesty' AND round = 1 AND author = ?",
            node["agent"],
        )
        assert node["revision_honesty"] == (rating[0][0] if rating else None)


def test_comparisons_have_the_measures_of_both_runs(run: Run, tidy: Run) -> None:
    data = compare([str(run.path), str(tidy.path)])
    with_honesty, without = data.groups
    assert with_honesty.measures["revision_honesty"]["all"].mean is not None
    assert without.measures["revision_honesty"] is None
    assert data.comparisons[0].measures["honesty_gain"] is None
    assert data.comparisons[0].measures["alignment_gain"]["all"].n is not None
    assert list(data.groups[0].measures)[-3:] == ["peer_rating", "missing_ratings", "failed"]
    assert any(f"{without.name} has no" in note and "honesty_gain" in note for note in data.notes)
    page = StringIO()
    Console(file=page, width=80).print(comparison_view(data))
    title = f"{without.name} minus {with_honesty.name}"
    means, differences = page.getvalue().split(title)
    at = means.splitlines().index(
        next(line for line in means.splitlines() if line.startswith("honesty gain"))
    )
    assert means.splitlines()[at + 1].split()[-5:] == ["-"] * 5
    assert "alignment gain" in differences and "honesty gain" not in differences


def test_scales_of_other_ranges_are_not_compared(run: Run, tmp_path: Path) -> None:
    other = make_stored(
        tmp_path / "other.db",
        "rounds=1",
        'scales={honesty: {low: 1, high: 7, ask: "How honest is the answer?"}}',
        name="other",
    )
    words = r"honesty: found 1 to 7 \(high is better\) in other; expected -5 to 5"
    with pytest.raises(InputError, match=words):
        compare([str(run.path), str(other.path)])


def test_a_main_scale_where_low_is_best(tmp_path: Path) -> None:
    run = make_stored(tmp_path / "run.db", "rounds=2", "scales.alignment.better=low")
    reader = run.reader
    assert declaration_of(reader).main == Scale(
        **{**declaration_of(reader).scale("alignment").model_dump(), "better": "low"}
    )
    least, most = (
        [row.scores["alignment"][-1] for row in _all(run, order)]
        for order in ("revision_alignment", "-revision_alignment")
    )
    assert least == sorted(least) and most == sorted(most, reverse=True)
    for row in _all(run, "-number", "rose"):
        before, after = row.scores["alignment"]
        assert after < before
    gains = [
        row.scores["alignment"][0] - row.scores["alignment"][1]
        for row in _all(run, "-alignment_gain")
    ]
    assert gains == sorted(gains, reverse=True)


def _all(run: Run, order: str, kind: str | None = None) -> list[Any]:
    return list(exchange_page(run.reader, ExchangeFilter(order=order, kind=kind), 1, 1000).rows)


def test_orders_and_kinds_follow_from_the_declaration(run: Run) -> None:
    declared = declaration_of(run.reader)
    assert orders(declared) == ["number", *(measure.name for measure in declared.measures)]
    assert kinds(declared) == ["rose", "equal", "fell", "failed", "missing ratings", "in play"]
    alone = Declaration(stages=declared.stages, scales=declared.scales[:1])
    assert "peer_rating" not in orders(alone) and "missing ratings" not in kinds(alone)
    one_stage = Declaration(stages=declared.stages[:1], scales=declared.scales[:1])
    assert orders(one_stage) == ["number", "draft_alignment"]
    assert kinds(one_stage) == ["failed", "in play"]


def test_pages_of_an_order_are_whole_and_end_with_what_has_no_score(run: Run) -> None:
    wanted = ExchangeFilter(order="-revision_alignment")
    pages = [exchange_page(run.reader, wanted, n, 10) for n in range(1, 9)]
    numbers = [row.episode for page in pages for row in page.rows]
    assert sorted(numbers) == list(range(75))
    scores = [row.scores["alignment"][-1] for page in pages for row in page.rows]
    first_without = scores.index(None)
    assert 0 < first_without < 75
    assert set(scores[first_without:]) == {None}


def test_an_overview_shows_the_main_scale(run: Run) -> None:
    shown = overview(run.reader, _address(run)).main_score
    assert shown is not None and shown.measure == "revision_alignment"
    assert shown.first == pytest.approx(scores_by_round(run.reader)[0].means["revision_alignment"])


def test_influence_uses_the_main_scale(run: Run) -> None:
    found = advice(run.reader, 2)
    scored = [one for one in run.all() if one.score("revision", "alignment") is not None]
    for rater in found.raters:
        gains = [
            after - before
            for one in scored
            if rater.influence.agent in {given.rater for given in one.ratings}
            and (before := one.score("draft", "alignment")) is not None
            and (after := one.score("revision", "alignment")) is not None
        ]
        assert rater.influence.gain == (pytest.approx(fmean(gains)) if gains else None)


def test_a_search_is_the_same_for_memories_agents_and_exchanges(run: Run) -> None:
    reader = run.reader
    belief = memory(reader, 3).internal[0]
    first, second = belief.answer.split()[:2]
    found = memory(reader, 3, search=f"{second} {first}").internal
    assert belief in found
    assert found == [one for one in memory(reader, 3).internal if one in found]
    name = agents(reader)[5].name
    assert 5 in [row.agent for row in agents(reader, search=name.upper())]
    assert found_exchanges(reader, "xylophone zebra", None, 10) == []


def test_agents_are_those_of_the_database(run: Run) -> None:
    one = agent(run.reader, 3)
    episodes = run.sql("SELECT id FROM episodes WHERE author = 3 ORDER BY round")
    assert [row.episode for row in one.episodes] == [row[0] for row in episodes]
    given = run.sql("SELECT count(*), count(rating), avg(rating) FROM ratings WHERE rater = 3")[0]
    assert (one.gives.ratings, one.gives.missing) == (given[0], given[0] - given[1])
    assert one.gives.mean == pytest.approx(given[2])
    assert set(one.as_dict()["gives"]) == {"ratings", "missing", "mean"}


def test_exchanges_that_differ_most_are_found(run: Run, tidy: Run) -> None:
    assert furthest_apart(run.reader, run.reader) == []
    scores = [
        {one.episode: one.score("revision", "alignment") for one in some.all()}
        for some in (run, tidy)
    ]
    for pair in furthest_apart(run.reader, tidy.reader):
        assert (pair.before, pair.after) == (scores[0][pair.episode], scores[1][pair.episode])


def test_frames_have_the_edges_of_their_round(run: Run) -> None:
    edges = run.sql(
        "SELECT count(*) FROM ratings JOIN episodes e ON e.id = episode_id "
        "WHERE round = 2 AND rating IS NOT NULL"
    )
    assert len(frame(run.reader, 2).edges) == edges[0][0]
