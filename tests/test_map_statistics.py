"""Whether neighbours are alike, and whether clusters exceed chance: against shuffled scores."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from scipy.stats import binomtest
from stored import Run
from stored import make as make_stored
from viewing import serving

from sandbox.reading.map import advice, neighbours_by_round
from sandbox.reading.neighbours import label_assortativity, largest_clusters, score_assortativity

SIDE = 10
NEAR = [
    pair
    for y in range(SIDE)
    for x in range(SIDE)
    for pair in ((SIDE * y + x, SIDE * y + x + 1), (SIDE * y + x, SIDE * y + x + SIDE))
    if pair[1] < SIDE * SIDE and (pair[1] - pair[0] > 1 or x < SIDE - 1)
]

PLANTED: dict[str, Callable[[int, int], bool]] = {
    "checkerboard": lambda x, y: (x + y) % 2 == 0,
    "halves": lambda x, y: x < SIDE // 2,
}


def field(planted: Callable[[int, int], bool]) -> dict[int, float]:
    """Scores of 6 and 2, with a few exceptions."""
    random = np.random.default_rng(4)
    return {
        SIDE * y + x: 6.0 if planted(x, y) != (random.random() < 0.05) else 2.0
        for y in range(SIDE)
        for x in range(SIDE)
    }


@pytest.mark.parametrize("name", PLANTED)
def test_planted_patterns_are_found(name: str) -> None:
    scores = field(PLANTED[name])
    found = score_assortativity(NEAR, scores)
    assert found is not None and found.p < 0.01
    assert (found.agents, found.links, found.shuffles) == (100, 180, 999)
    assert found.value > found.high if name == "halves" else found.value < found.low
    labels = {agent: "good" if score > 4 else "bad" for agent, score in scores.items()}
    same = label_assortativity(NEAR, labels)
    assert same is not None and same.p < 0.01 and same.value == pytest.approx(found.value)


def test_p_values_are_uniform_without_a_pattern() -> None:
    random = np.random.default_rng(11)
    ps = []
    for _ in range(200):
        scores = dict(enumerate(random.integers(1, 8, SIDE * SIDE).astype(float)))
        found = score_assortativity(NEAR, scores, shuffles=199)
        assert found is not None
        ps.append(found.p)
    for level in (0.05, 0.5):
        share = binomtest(sum(p < level for p in ps), len(ps), level)
        assert share.pvalue > 0.01, (level, share)


def test_values_are_those_of_networkx() -> None:
    random = np.random.default_rng(2)
    graph = nx.gnm_random_graph(40, 90, seed=3)
    scores = {agent: float(random.integers(1, 8)) for agent in graph}
    labels = {agent: "abc"[random.integers(3)] for agent in graph}
    nx.set_node_attributes(graph, scores, "score")
    nx.set_node_attributes(graph, labels, "label")
    one, two = score_assortativity(graph.edges, scores), label_assortativity(graph.edges, labels)
    assert one is not None and two is not None
    assert one.value == pytest.approx(nx.numeric_assortativity_coefficient(graph, "score"))
    assert two.value == pytest.approx(nx.attribute_assortativity_coefficient(graph, "label"))


def test_what_is_undefined() -> None:
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert score_assortativity(ring, {0: 3}) is None
    assert score_assortativity(ring, dict.fromkeys(range(4), 4)) is None
    assert label_assortativity(ring, dict.fromkeys(range(4), "good")) is None
    assert label_assortativity([], {0: "good", 1: "bad"}) is None
    assert largest_clusters([], {0: "high"}) == []
    doubled = score_assortativity([*ring, (1, 0), (2, 2)], {0: 1, 1: 7, 2: 1, 3: 7})
    assert doubled is not None and doubled.links == 4 and doubled.value == pytest.approx(-1)


def test_a_giant_component_is_no_finding_but_a_planted_cluster_is() -> None:
    random = np.random.default_rng(5)
    mostly = {agent: "high" if random.random() < 0.8 else "low" for agent in range(100)}
    found = {one.band: one for one in largest_clusters(NEAR, mostly)}
    assert found["high"].size > 60 and found["high"].p > 0.05
    assert found["high"].size <= found["high"].threshold
    planted = {agent: "high" if agent % SIDE < 3 else "low" for agent in range(100)}
    found = {one.band: one for one in largest_clusters(NEAR, planted)}
    assert found["high"].size == 30 > found["high"].threshold and found["high"].p == 0.001
    assert found["high"].low <= found["high"].high <= found["high"].threshold


def test_largest_clusters_are_those_of_networkx() -> None:
    random = np.random.default_rng(6)
    bands = {agent: ("low", "middle", "high")[random.integers(3)] for agent in range(100)}
    graph = nx.Graph(pair for pair in NEAR if bands[pair[0]] == bands[pair[1]])
    graph.add_nodes_from(bands)
    sizes = dict.fromkeys(("low", "middle", "high"), 0)
    for part in nx.connected_components(graph):
        band = bands[next(iter(part))]
        sizes[band] = max(sizes[band], len(part))
    assert {one.band: one.size for one in largest_clusters(NEAR, bands, 9)} == sizes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("map") / "run.db"
    return make_stored(path, "world.size=4", "rounds=3", "question_count=8", name="run")


def test_every_round_of_a_run(run: Run) -> None:
    rows = neighbours_by_round(run.reader)
    assert [row.round for row in rows] == [0, 1, 2]
    shown = advice(run.reader, 1)
    assert shown.scores is not None and shown.scores.value == rows[1].assortativity
    assert shown.scores.p == rows[1].p and shown.labels is not None
    thresholds = {one.band: one.threshold for one in shown.largest}
    assert all(one.size > thresholds[one.band] for one in shown.clusters)
    with serving(run) as site:
        assert site.ask("/r/run/figures/neighbours-alike.csv").rows[1]["links"] == "24"
        assert "Neighbours alike by round" in site.page("/r/run/neighbours")
        page = site.page("/r/run/advice/1")
        assert "chance" in page and "Phipson" in page


def test_a_round_of_the_map_as_files(run: Run) -> None:
    with serving(run) as site:
        rows = site.ask("/r/run/map/1.csv").rows
        scored = run.sql(
            "SELECT author, rating FROM episodes e JOIN observations o ON o.episode_id = e.id "
            "WHERE round = 1 AND stage = 'revision' AND scale = 'alignment'"
        )
        assert {int(row["agent"]): int(row["revision_alignment"]) for row in rows} == dict(scored)
        drawn = site.ask("/r/run/map/1.svg?by=label").text
        assert drawn.startswith("<svg") and ">good<" in drawn
        assert "undefined" not in drawn
        assert site.ask("/r/run/map/1.png?by=memories").body.startswith(b"\x89PNG")
        assert site.ask("/r/run/map/1.svg?by=nonsense").status == 400
        counts = site.ask("/r/run/frames/2.json?count=memories").lines[0]
        stored = run.sql("SELECT agent, count(*) FROM memories WHERE round <= 2 GROUP BY agent")
        assert {node["agent"]: node["memories"] for node in counts["nodes"]} == dict(stored)


def test_an_agent_beside_the_map(run: Run) -> None:
    with serving(run) as site:
        card = site.page("/r/run/card/5/1")
        episode = run.sql("SELECT id FROM episodes WHERE author = 5 AND round = 1")[0][0]
        assert f"Open exchange {episode}" in card and "Revision" in card
        assert site.ask("/r/run/card/99/1").status == 404
        assert 'data-agent="5"' in site.page("/r/run", agent=5)
