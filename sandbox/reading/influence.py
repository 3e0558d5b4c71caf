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

from agents.scale import Declaration, Scale
from storage.exchanges import Exchange

_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter words are mostly grammar


class Influence(NamedTuple):
    """The influence of one rater.

    Attributes:
        agent: the rater's number.
        ratings: the number of its ratings that could be parsed.
        mean: their mean; None where there are none.
        gain: the mean gain on the main scale of the exchanges that it rated; None where unknown.
        taken: the mean share of the new words of the last answer that its reason contains; None
            where there is no such answer.
        centrality: PageRank in the graph from authors to raters, weighted by that share.
    """

    agent: int
    ratings: int
    mean: float | None
    gain: float | None
    taken: float | None
    centrality: float


def influences(exchanges: Iterable[Exchange], declared: Declaration) -> list[Influence]:
    """The influence of every rater in some exchanges, the most central first.

    Args:
        exchanges: of one run.
        declared: its declaration.
    """
    ratings: dict[int, list[float]] = defaultdict(list)
    gains: dict[int, list[float]] = defaultdict(list)
    taken: dict[int, list[float]] = defaultdict(list)
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for one in exchanges:
        gain = _gain(one, declared)
        new = new_words(*_rated_and_last(one, declared))
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


def _gain(one: Exchange, declared: Declaration) -> float | None:
    gain = None if declared.main is None else declared.gain(declared.main)
    if gain is None or gain.base is None:
        return None
    before, after = one.score(gain.base, gain.scale.name), one.score(gain.stage, gain.scale.name)
    return None if before is None or after is None else gain.scale.gain(before, after)


def _rated_and_last(one: Exchange, declared: Declaration) -> tuple[str | None, str | None]:
    """The text that peers rated, and the last answer."""
    rated = declared.stages_of(declared.peers) if declared.peers is not None else ()
    if not rated or not declared.answers:
        return None, None
    return one.texts.get(rated[0]), one.texts.get(declared.answers[-1])


def new_words(before: str | None, after: str | None) -> set[str] | None:
    """The words of a text that the one before does not have; None where either is missing."""
    if before is None or after is None:
        return None
    return words(after) - words(before)


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


class Bands(NamedTuple):
    """Bands of scores that clusters are made of: low, middle and high.

    The middle band is a sixth of the range, around its middle: on a scale from 1 to 7 it is 4.

    Attributes:
        low: scores up to this are low.
        middle: scores above `low` and up to this are middle; the others are high.
    """

    low: float
    middle: float

    @classmethod
    def of(cls, scale: Scale) -> Bands:
        """The bands of a scale."""
        centre, reach = (scale.low + scale.high) / 2, (scale.high - scale.low) / 12
        return cls(centre - reach, centre + reach)

    def band(self, score: float) -> str:
        """The name of the band of a score."""
        if score <= self.low:
            return "low"
        return "middle" if score <= self.middle else "high"


class Cluster(NamedTuple):
    """Neighbours in one band of scores: its name, and the agents, by number."""

    band: str
    agents: tuple[int, ...]


def clusters(
    near: Iterable[tuple[int, int]], scores: Mapping[int, float], bands: Bands
) -> list[Cluster]:
    """Connected agents of one band, the largest first; lone agents are no cluster."""
    band_of = {agent: bands.band(score) for agent, score in scores.items()}
    graph: nx.Graph[Any] = nx.Graph()
    alike = ((a, b) for a, b in near if a in band_of and band_of[a] == band_of.get(b))
    graph.add_edges_from(alike)
    found = [tuple(sorted(some)) for some in nx.connected_components(graph)]
    return [Cluster(band_of[some[0]], some) for some in sorted(found, key=lambda x: (-len(x), x))]
