"""The grid world: positions, meetings, and the feedback to authors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import dist
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from pydantic import ValidationError

from agents.agent import Agent
from agents.persona import Persona
from sandbox.config import PRESETS
from sandbox.sources import read_pairs, read_personas
from worlds.base import Rated, SettingError
from worlds.grid import Settings, World

PERSONAS = read_personas(PRESETS.parent / "data" / "personas.jsonl")
PAIRS = read_pairs(PRESETS.parent / "data" / "prior.jsonl")


def _world(seed: int = 1, **settings: Any) -> tuple[World, list[Agent]]:
    world = World(Settings(kind="grid", **settings), seed)
    return world, world.populate(PERSONAS)


def _labels(agents: Sequence[Agent]) -> str:
    return "".join(agent.label[0] for agent in agents)


def test_demographics() -> None:
    assert _labels(_world(size=3, demographics="all_good")[1]) == "g" * 9
    assert _labels(_world(size=3, demographics="all_bad")[1]) == "b" * 9
    mixed = _labels(_world(size=6, demographics="mixed_half_half")[1])
    assert Counter(mixed) == {"g": 18, "b": 18}
    assert mixed != _labels(_world(seed=2, size=6, demographics="mixed_half_half")[1])
    # good where row <= column, in order, until half are good
    assert _labels(_world(size=4, demographics="half_half")[1]) == "ggggbgggbbgbbbbb"


def test_neighbours_lie_within_the_radius() -> None:
    world, agents = _world(size=7)
    around = world.neighbourhood(agents)
    for agent in agents:
        near = {
            other.number
            for other in agents
            if 0 < dist((agent.x, agent.y), (other.x, other.y)) <= 3
        }
        assert set(map(int, around.of(agent.number))) == near


def test_raters_are_neighbours_drawn_anew_every_round() -> None:
    world, agents = _world(size=6, raters=4)
    around = world.neighbourhood(agents)
    rounds = [world.meet(agents, round) for round in range(3)]
    for meetings in rounds:
        assert [meeting.author for meeting in meetings] == list(range(36))
        for meeting in meetings:
            assert len(set(meeting.peers)) == 4
            assert set(meeting.peers) <= set(map(int, around.of(meeting.author)))
    assert [m.peers for m in rounds[0]] != [m.peers for m in rounds[1]]
    assert rounds[2] == world.meet(agents, 2)
    assert [m.question for m in rounds[1]] == list(range(36, 72))


@pytest.mark.parametrize(
    ("raters", "dropout", "local"), [(4, 0.5, {2}), (16, 0.8, {2, 3}), (4, 1.0, {1}), (4, 0.0, {4})]
)
def test_global_reach_with_dropout(raters: int, dropout: float, local: set[int]) -> None:
    world, agents = _world(size=10, radius=3, raters=raters, reach="global", dropout=dropout)
    around = world.neighbourhood(agents)
    for meeting in world.meet(agents, 0):
        near = set(map(int, around.of(meeting.author)))
        assert len(set(meeting.peers)) == raters
        assert meeting.author not in meeting.peers
        assert len(near & set(meeting.peers)) in local


@pytest.mark.parametrize(
    "settings",
    [
        {"topology": "complete", "raters": 4, "dropout": 0.5},
        {"topology": "complete", "raters": 16, "dropout": 0.8},
        {"size": 5, "raters": 16, "dropout": 0.8},
        {"size": 5, "raters": 24, "dropout": 1.0},
        {"size": 2, "radius": 9, "raters": 3, "dropout": 0.5},
        {"topology": "small_world", "size": 5, "raters": 20, "dropout": 0.2},
    ],
)
def test_global_reach_always_has_all_raters(settings: dict[str, Any]) -> None:
    """Neighbours that were dropped come back where there are too few agents outside."""
    world, agents = _world(reach="global", **settings)
    for meeting in world.meet(agents, 0) + world.meet(agents, 1):
        assert len(set(meeting.peers)) == len(meeting.peers) == settings["raters"]
        assert meeting.author not in meeting.peers


def test_more_raters_than_other_agents_are_refused_with_global_reach() -> None:
    with pytest.raises(SettingError, match="found 25; expected at most 24") as error:
        _world(size=5, raters=25, reach="global")
    assert error.value.key == "raters"
    assert _world(size=5, raters=25)[1]  # locally, as many as there are


@pytest.mark.parametrize("size", ["3x5", [3, 5]])
def test_societies_that_are_no_square(size: Any) -> None:
    world, agents = _world(size=size, demographics="half_half")
    assert [(agent.x, agent.y) for agent in agents] == [(x, y) for y in range(3) for x in range(5)]
    assert world.settings.size == "3x5"
    assert world.settings.reach_radius == 1
    around = world.neighbourhood(agents)
    assert sorted(map(int, around.of(0))) == [1, 5]
    assert sorted(map(int, around.of(7))) == [2, 6, 8, 12]
    assert [agent.label for agent in agents].count("good") == 7
    assert {len(meeting.peers) for meeting in world.meet(agents, 0)} == {2, 3, 4}


@pytest.mark.parametrize("size", ["7x1", "1x7", "2x9", "9x2", "5x4"])
def test_half_of_any_shape_is_good(size: str) -> None:
    agents = _world(size=size, demographics="half_half")[1]
    assert [agent.label for agent in agents].count("good") == len(agents) // 2
    assert len(_world(size=size, topology="complete")[1]) == len(agents)


@pytest.mark.parametrize("size", ["3x", "x5", "0x5", "3x5x2", [3, 5, 2], [0, 5], 0, 2.5, True, ""])
def test_sizes_that_cannot_be(size: Any) -> None:
    with pytest.raises(ValidationError):
        _world(size=size)


@pytest.mark.parametrize("topology", ["small_world", "scale_free", "complete"])
def test_generated_topologies(topology: str) -> None:
    world, agents = _world(size=5, topology=topology, raters=3)
    again = _world(size=5, topology=topology, raters=3)[1]
    assert [(a.x, a.y, a.links) for a in agents] == [(a.x, a.y, a.links) for a in again]
    assert len({(agent.x, agent.y) for agent in agents}) == 25
    around = world.neighbourhood(agents)
    for agent in agents:
        near = set(map(int, around.of(agent.number)))
        expected = (
            set(agent.links or ()) if topology != "complete" else set(range(25)) - {agent.number}
        )
        assert near == expected
    assert all(set(m.peers) <= set(map(int, around.of(m.author))) for m in world.meet(agents, 0))


def test_radius_counts_links_in_a_network() -> None:
    world, agents = _world(size=5, topology="small_world", radius=2)
    links = nx.Graph([(a.number, other) for a in agents for other in a.links or ()])
    around = world.neighbourhood(agents)
    for agent in agents:
        within = nx.single_source_shortest_path_length(links, agent.number, cutoff=2)
        assert set(map(int, around.of(agent.number))) == set(within) - {agent.number}


@pytest.mark.parametrize("suffix", [".graphml", ".txt"])
def test_a_graph_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"graph{suffix}"
    graph = nx.karate_club_graph()
    (nx.write_graphml if suffix == ".graphml" else nx.write_edgelist)(graph, path)
    world, agents = _world(topology=str(path))
    assert len(agents) == 34
    assert sum(len(agent.links or ()) for agent in agents) == 2 * graph.number_of_edges()
    assert len(world.meet(agents, 0)) == 34


def test_what_follows_two_names_is_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "weighted.csv"
    path.write_bytes(b"\xef\xbb\xbfada,bo,0.5\n# a comment\nbo,cy,2\nbo,ada,1\n\n")
    agents = _world(topology=str(path))[1]
    assert [(agent.node, agent.links) for agent in agents] == [
        ("ada", (1,)), ("bo", (0, 2)), ("cy", (1,)),
    ]  # fmt: skip
    path.write_text("ada,bo\ncy\n")
    with pytest.raises(SettingError, match="csv:2: found one name, cy"):
        _world(topology=str(path))
    with pytest.raises(SettingError, match=r"graph.dot; expected one of grid"):
        _world(topology=str(tmp_path / "graph.dot"))


def test_positions_of_a_graph_file_are_kept(tmp_path: Path) -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: 0.5, 1: 1.5, 2: 2.5}, "x")
    nx.set_node_attributes(graph, {0: 1.0, 1: 1.0, 2: 4.0}, "y")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    agents = _world(topology=str(tmp_path / "g.graphml"))[1]
    assert [(agent.x, agent.y) for agent in agents] == [(0.5, 1.0), (1.5, 1.0), (2.5, 4.0)]


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"size": 1}, "size", "society of one"),
        ({"size": 3, "radius": 0.5}, "radius", "reaches nobody"),
        ({"topology": "no/such.graphml"}, "topology", "no such file"),
        ({"topology": "small_world", "size": 2, "degree": 40}, "degree", "40 for 4 agents"),
    ],
)
def test_worlds_that_cannot_be(settings: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        _world(**settings)
    assert error.value.key == key


def test_bad_graph_files(tmp_path: Path) -> None:
    (tmp_path / "bad.graphml").write_text("not xml")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    lonely = nx.Graph([(1, 2)])
    lonely.add_node(3)
    nx.write_graphml(lonely, tmp_path / "lonely.graphml")
    for name in ("bad.graphml", "empty.txt", "binary.txt", "lonely.graphml"):
        with pytest.raises(SettingError, match=name):
            _world(topology=str(tmp_path / name))


def test_prior_memories_match_the_label_and_differ() -> None:
    world, agents = _world(size=3, demographics="half_half")
    drawn = [list(world.inherit(agent, PAIRS, 50)) for agent in agents]
    for agent, pairs in zip(agents, drawn, strict=True):
        assert len({pair.question for pair in pairs}) == 50
        assert {pair.label for pair in pairs} == {agent.label}
    assert len({frozenset(pair.question for pair in pairs) for pairs in drawn}) == 9
    with pytest.raises(SettingError, match=r"found 121; expected at most 120, .* good") as error:
        world.inherit(agents[0], PAIRS, 121)
    assert error.value.key == "prior_pairs"


def test_personas_are_all_used_before_one_returns() -> None:
    agents = _world(size=6)[1]
    assert len({agent.persona for agent in agents}) == 36
    few = World(Settings(size=3), 1).populate([p.model_copy() for p in PERSONAS[:4]])
    assert max(Counter(agent.persona.name for agent in few).values()) == 3


def test_feedback_is_sorted_with_its_rater_and_nulls_do_not_count() -> None:
    ratings = [
        Rated(4, 6, "kind"),
        Rated(2, None, None),
        Rated(7, 2, "harsh"),
        Rated(1, 4, None),
        Rated(3, 4, "fair"),
    ]
    world, _ = _world(size=3)
    assert world.feedback(ratings) == {"average": 4.0, "comments": ["kind", "fair", "harsh"]}
    score_only, _ = _world(size=3, score_only=True)
    assert score_only.feedback(ratings) == {"average": 4.0, "comments": []}
    nothing = world.feedback([Rated(2, None, None)])
    assert nothing == {"average": None, "comments": []}


def test_introductions_tell_who_and_which_label() -> None:
    persona = Persona(
        name="Ada", age=40, place="Leeds", occupation="tailor", values=("thrift",), voice="You hum."
    )
    assert persona.introduction("good") != persona.introduction("bad")
    for word in ("Ada", "40", "Leeds", "tailor", "thrift", "You hum."):
        assert word in persona.introduction("good")
