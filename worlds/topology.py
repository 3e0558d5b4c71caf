"""Topologies: neighbourhoods of agents and their positions on the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent
from agents.chance import seed_of
from worlds.base import SettingError

GENERATED = ("grid", "small_world", "scale_free", "complete")
_SPRING_LIMIT = 500  # larger graphs get a spiral layout; a spring layout would take minutes


class Site(NamedTuple):
    """The position of one agent.

    Attributes:
        x, y: coordinates on the map.
        links: numbers of the linked agents; None where positions define the neighbourhood.
        node: the name of the node in a graph file.
    """

    x: float
    y: float
    links: tuple[int, ...] | None
    node: str | None = None


def sites(topology: str, size: int, degree: int, rewire: float, seed: int) -> list[Site]:
    """Compute the position and the links of each agent.

    Args:
        topology: one of `GENERATED`, or the path of a GraphML file or an edge list.
        size: side length; a generated society has ``size * size`` agents. Ignored for a file.
        degree: links per agent in a small world; about the mean degree in a scale-free graph.
        rewire: rewiring probability of a link in a small world.
        seed: the run's seed.

    Raises:
        SettingError: the graph cannot be generated or read.
    """
    count = size * size
    if topology == "grid":
        return [Site(cell % size, cell // size, None) for cell in range(count)]
    if topology == "complete":
        return [Site(x, y, None) for x, y in _circle(count)]
    graph = _graph(topology, count, degree, rewire, seed_of(seed, "topology") % 2**32)
    return _place_nodes(graph, seed)


def _graph(topology: str, count: int, degree: int, rewire: float, seed: int) -> nx.Graph[Any]:
    graph: nx.Graph[Any]
    try:
        if topology == "small_world":
            graph = nx.connected_watts_strogatz_graph(count, degree, rewire, seed=seed)
        elif topology == "scale_free":
            graph = nx.barabasi_albert_graph(count, max(1, degree // 2), seed=seed)
        else:
            graph = _read(Path(topology))
    except nx.NetworkXError as error:
        raise SettingError("degree", f"found {degree} for {count} agents: {error}") from None
    return graph


def _read(path: Path) -> nx.Graph[Any]:
    """Read a graph; directions, weights and multiple edges are ignored."""
    try:
        graph: nx.Graph[Any] = nx.Graph(_READERS[path.suffix.lower()](path))
    except KeyError:
        names = ", ".join(GENERATED)
        raise SettingError("topology", f"found {path}; expected one of {names}, {_FILES}") from None
    except FileNotFoundError:
        raise SettingError("topology", f"{path}: no such file; expected {_FILES}") from None
    except Exception as error:  # parsers can raise any exception
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError("topology", f"{path}: {line}; expected {_FILES}") from None
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    if len(graph) < 2:
        raise SettingError("topology", f"{path}: found {len(graph)} nodes; expected at least 2")
    isolated = next((node for node in graph if not graph.degree(node)), None)
    if isolated is not None:
        raise SettingError("topology", f"{path}: node {isolated} has no neighbour; expected one")
    return graph


def _read_edges(path: Path) -> nx.Graph[Any]:
    """Read an edge list: two names per line; further columns and ``#`` comments are ignored."""
    graph: nx.Graph[Any] = nx.Graph()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        names = line.partition("#")[0].replace(",", " ").split()
        if len(names) == 1:
            raise ValueError(f"line {number}: found one name, {names[0]}")
        if names:
            graph.add_edge(names[0], names[1])
    return graph


_READERS: dict[str, Callable[[Path], Any]] = {
    ".graphml": nx.read_graphml,
    ".edges": _read_edges,
    ".edgelist": _read_edges,
    ".csv": _read_edges,
    ".txt": _read_edges,
}
_FILES = "a GraphML file (.graphml) or an edge list, two names per line (.edges, .txt, .csv)"


def _place_nodes(graph: nx.Graph[Any], seed: int) -> list[Site]:
    order = {node: number for number, node in enumerate(graph)}
    positions = _positions(graph, seed)
    return [
        Site(*positions[node], tuple(sorted(order[other] for other in graph[node])), str(node))
        for node in graph
    ]


def _positions(graph: nx.Graph[Any], seed: int) -> dict[Any, tuple[float, float]]:
    given: dict[Any, tuple[Any, Any]] = {
        node: (data.get("x"), data.get("y")) for node, data in graph.nodes(data=True)
    }
    if all(isinstance(x, int | float) and isinstance(y, int | float) for x, y in given.values()):
        return {node: (float(x), float(y)) for node, (x, y) in given.items()}
    if len(graph) <= _SPRING_LIMIT:
        layout = nx.spring_layout(graph, seed=seed_of(seed, "layout") % 2**32)
    else:
        by_degree: nx.Graph[Any] = nx.Graph()
        by_degree.add_nodes_from(sorted(graph, key=lambda node: -graph.degree(node)))
        layout = nx.spiral_layout(by_degree)
    return {node: (round(float(x), 4), round(float(y), 4)) for node, (x, y) in layout.items()}


def _circle(count: int) -> list[tuple[float, float]]:
    angles = 2 * np.pi * np.arange(count) / count
    return [(round(float(np.cos(a)), 4), round(float(np.sin(a)), 4)) for a in angles]


class Neighbourhood:
    """Finds the neighbours of an agent.

    Args:
        agents: the society.
        topology: as in `sites`.
        size: side length of a grid.
        radius: Euclidean distance on a grid, number of links on a graph; ignored if the graph is
            complete.
    """

    def __init__(self, agents: Sequence[Agent], topology: str, size: int, radius: float) -> None:
        self._agents = agents
        self._topology = topology
        self._size = size
        self._radius = radius
        reach = int(radius)
        offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        squared = (offsets**2).sum(axis=0)
        self._offsets = offsets[:, (squared > 0) & (squared <= radius * radius)]

    def of(self, agent: int) -> Sequence[int] | NDArray[np.int64]:
        """The sorted numbers of an agent's neighbours, without the agent itself."""
        if self._topology == "grid":
            return self._on_grid(agent)
        if self._topology == "complete":
            return np.delete(np.arange(len(self._agents)), agent)
        return self._linked(agent)

    def _on_grid(self, agent: int) -> NDArray[np.int64]:
        rows = self._offsets[0] + agent // self._size
        columns = self._offsets[1] + agent % self._size
        inside = (rows >= 0) & (rows < self._size) & (columns >= 0) & (columns < self._size)
        found: NDArray[np.int64] = (rows * self._size + columns)[inside]
        return found

    def _linked(self, agent: int) -> list[int]:
        lengths = nx.single_source_shortest_path_length(
            self._graph, agent, cutoff=int(self._radius)
        )
        return sorted(lengths.keys() - {agent})

    @cached_property
    def _graph(self) -> nx.Graph[int]:
        """The graph of the agents' links."""
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(self._agents)))
        graph.add_edges_from(
            (number, link)
            for number, agent in enumerate(self._agents)
            for link in agent.links or ()
        )
        return graph
