"""Topologies: neighbourhoods of agents and their positions on the map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent
from agents.chance import seed_of
from worlds.base import SettingError
from worlds.text_files import FileFault

if TYPE_CHECKING:  # imported where a graph is needed, since that takes long
    import networkx as nx

    from worlds.graph_files import GraphFile

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


def sites(
    topology: str,
    shape: tuple[int, int],
    degree: int,
    rewire: float,
    seed: int,
    notes: list[str] | None = None,
) -> list[Site]:
    """Compute the position and the links of each agent.

    Args:
        topology: one of `GENERATED`, or the path of a graph; see `worlds.graph_files`.
        shape: rows and columns; a generated society has an agent for each cell. Ignored for a file.
        degree: links per agent in a small world; about the mean degree in a scale-free graph.
        rewire: rewiring probability of a link in a small world.
        seed: the run's seed.
        notes: a line about the file that was read is appended to it.

    Raises:
        SettingError: the graph cannot be generated or read.
    """
    rows, columns = shape
    count = rows * columns
    if topology == "grid":
        return [Site(cell % columns, cell // columns, None) for cell in range(count)]
    if topology == "complete":
        return [Site(x, y, None) for x, y in _circle(count)]
    if topology in GENERATED:
        graph = _generated(topology, count, degree, rewire, seed_of(seed, "topology") % 2**32)
    else:
        graph, note = _read(Path(topology))
        if notes is not None:
            notes.append(note)
    return _place_nodes(graph, seed)


def _generated(topology: str, count: int, degree: int, rewire: float, seed: int) -> nx.Graph[Any]:
    import networkx as nx

    graph: nx.Graph[Any]
    try:
        if topology == "small_world":
            graph = nx.connected_watts_strogatz_graph(count, degree, rewire, seed=seed)
        else:
            graph = nx.barabasi_albert_graph(count, max(1, degree // 2), seed=seed)
    except nx.NetworkXError as error:
        raise SettingError("degree", f"found {degree} for {count} agents: {error}") from None
    return graph


def _read(path: Path) -> GraphFile:
    from worlds.graph_files import EXPECTED, is_graph_file, read_graph

    if not is_graph_file(path):
        names = ", ".join(GENERATED)
        raise SettingError("topology", f"found {path}; expected one of {names}, {EXPECTED}")
    try:
        return read_graph(path)
    except FileNotFoundError:
        raise SettingError("topology", f"{path}: no such file; expected {EXPECTED}") from None
    except OSError as error:
        reason = error.strerror or error
        raise SettingError("topology", f"{path}: {reason}; expected {EXPECTED}") from None
    except FileFault as fault:
        raise SettingError("topology", str(fault)) from None


def _place_nodes(graph: nx.Graph[Any], seed: int) -> list[Site]:
    order = {node: number for number, node in enumerate(graph)}
    positions = _positions(graph, seed)
    return [
        Site(*positions[node], tuple(sorted(order[other] for other in graph[node])), str(node))
        for node in graph
    ]


def _positions(graph: nx.Graph[Any], seed: int) -> dict[Any, tuple[float, float]]:
    import networkx as nx

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
        shape: rows and columns of a grid.
        radius: Euclidean distance on a grid, number of links on a graph; ignored if the graph is
            complete.
    """

    def __init__(
        self, agents: Sequence[Agent], topology: str, shape: tuple[int, int], radius: float
    ) -> None:
        self._agents = agents
        self._topology = topology
        self._rows, self._columns = shape
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
        rows = self._offsets[0] + agent // self._columns
        columns = self._offsets[1] + agent % self._columns
        inside = (rows >= 0) & (rows < self._rows) & (columns >= 0) & (columns < self._columns)
        found: NDArray[np.int64] = (rows * self._columns + columns)[inside]
        return found

    def _linked(self, agent: int) -> list[int]:
        import networkx as nx

        lengths = nx.single_source_shortest_path_length(
            self._graph, agent, cutoff=int(self._radius)
        )
        return sorted(lengths.keys() - {agent})

    @cached_property
    def _graph(self) -> nx.Graph[int]:
        """The graph of the agents' links."""
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(self._agents)))
        graph.add_edges_from(
            (number, link)
            for number, agent in enumerate(self._agents)
            for link in agent.links or ()
        )
        return graph
