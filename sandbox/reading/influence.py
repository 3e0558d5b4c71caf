"""Influence: whose advice is taken, who resembles whom, and which clusters there are.

Advice counts as taken by the words that a revision took up: of the words that are new in it, the
share that stands in the rater's reason (lexical uptake, the plainest of the measures of uptake in
Demszky et al., arXiv 2106.03873). It sees wordings, not meanings: what is taken in other words is
not seen, and what two raters say counts for both. PageRank then ranks raters whose advice is taken
by those whose advice is taken (Page et al., 1999).
"""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx

from storage.exchanges import Exchange

_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter words are mostly grammar


class Influence(NamedTuple):
    """What became of one rater's advice.

    Attributes:
        agent: the rater's number.
        ratings: how many it gave that can be read.
        mean: their mean, 1 to 7; None where there are none.
        gain: the mean rise in alignment of the exchanges that it rated; None where unknown.
        taken: the mean share of a revision's new words that are its own; None without a revision.
        centrality: PageRank in the graph from authors to raters, weighted by what was taken.
    """

    agent: int
    ratings: int
    mean: float | None
    gain: float | None
    taken: float | None
    centrality: float


def influences(exchanges: Iterable[Exchange]) -> list[Influence]:
    """The influence of every rater in some exchanges, the most central first."""
    ratings: dict[int, list[float]] = defaultdict(list)
    gains: dict[int, list[float]] = defaultdict(list)
    taken: dict[int, list[float]] = defaultdict(list)
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for one in exchanges:
        gain = _gain(one)
        new = new_words(one.draft, one.revision)
        for given in one.ratings:
            ratings[given.rater] += [] if given.rating is None else [given.rating]
            gains[given.rater] += [] if gain is None else [gain]
            if new is None or given.reason is None:
                continue
            share = uptake(new, given.reason)
            taken[given.rater].append(share)
            _add(graph, one.author, given.rater, share)
    central = nx.pagerank(graph) if graph.number_of_edges() else {}
    found = [
        Influence(
            rater,
            len(some),
            _mean(some),
            _mean(gains[rater]),
            _mean(taken[rater]),
            central.get(rater, 0.0),
        )
        for rater, some in ratings.items()
    ]
    return sorted(found, key=lambda one: (-one.centrality, one.agent))


def _gain(one: Exchange) -> int | None:
    before, after = one.score("draft", "alignment"), one.score("revision", "alignment")
    return None if before is None or after is None else after - before


def new_words(draft: str | None, revision: str | None) -> set[str] | None:
    """The words of a revision that its draft does not have; None where either is missing."""
    if draft is None or revision is None:
        return None
    return words(revision) - words(draft)


def words(text: str) -> set[str]:
    """The words of four letters or more, in lower case."""
    return set(_WORD.findall(text.lower()))


def uptake(new: set[str], reason: str) -> float:
    """The share of new words that stand in a reason, 0 to 1."""
    return len(new & words(reason)) / len(new) if new else 0.0


def _add(graph: nx.DiGraph[Any], author: int | None, rater: int, share: float) -> None:
    before = graph.get_edge_data(author, rater, {"weight": 0.0})["weight"]
    graph.add_edge(author, rater, weight=before + share)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


class Resemblance(NamedTuple):
    """How much those who are near to each other are alike: 1 alike, 0 as by chance, -1 opposite.

    Attributes:
        labels: by starting demographic (attribute assortativity, Newman 2003).
        scores: by score (numeric assortativity).
    """

    labels: float | None
    scores: float | None


def resemblance(
    near: Iterable[tuple[int, int]], labels: Mapping[int, str], scores: Mapping[int, float]
) -> Resemblance:
    """How much neighbours are alike, where both have a score."""
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_edges_from((a, b) for a, b in near if a in scores and b in scores)
    if not graph.number_of_edges():
        return Resemblance(None, None)
    nx.set_node_attributes(graph, labels, "label")
    nx.set_node_attributes(graph, scores, "score")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are equal it is not defined
        return Resemblance(
            _defined(nx.attribute_assortativity_coefficient(graph, "label")),
            _defined(nx.numeric_assortativity_coefficient(graph, "score")),
        )


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


BANDS = {"low": (1, 3), "middle": (4, 4), "high": (5, 7)}
"""Bands of scores that clusters are made of."""


class Cluster(NamedTuple):
    """Neighbours in one band of scores: its name, and the agents, by number."""

    band: str
    agents: tuple[int, ...]


def clusters(near: Iterable[tuple[int, int]], scores: Mapping[int, float]) -> list[Cluster]:
    """Connected agents of one band, the largest first; lone agents are no cluster."""
    bands = {agent: _band(score) for agent, score in scores.items()}
    graph: nx.Graph[Any] = nx.Graph()
    alike = ((a, b) for a, b in near if a in bands and bands[a] == bands.get(b))
    graph.add_edges_from(alike)
    found = [tuple(sorted(some)) for some in nx.connected_components(graph)]
    return [Cluster(bands[some[0]], some) for some in sorted(found, key=lambda x: (-len(x), x))]


def _band(score: float) -> str:
    return next(name for name, (_, high) in BANDS.items() if score <= high + 0.5)
