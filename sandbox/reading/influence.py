"""Influence of raters, and clusters of scores.

Uptake of advice is lexical: of the words that are new in a revision, the share that occurs in the
rater's reason (the simplest measure of uptake in Demszky et al., arXiv 2106.03873). It compares
words, not meanings: a paraphrase is not counted, and a word in the reasons of two raters counts for
both. PageRank (Page et al., 1999) then ranks raters: advice taken by agents whose own advice is
taken weighs more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.scale import Declaration, Scale
from storage.exchanges import Exchange

if TYPE_CHECKING:
    import networkx as nx

_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter words are mostly grammar


class Influence(NamedTuple):
    """The influence of one rater.

    Attributes:
        agent: the rater's number.
        ratings: the number of its ratings that could be parsed.
        mean: their mean; None where there are none.
        gain: the mean gain on the main scale of the exchanges that it rated; None where unknown.
        taken: the mean uptake of its advice (0 to 1); None where it cannot be computed.
        centrality: PageRank in the graph from authors to raters, weighted by uptake.
    """

    agent: int
    ratings: int
    mean: float | None
    gain: float | None
    taken: float | None
    centrality: float


def influences(exchanges: Iterable[Exchange], declared: Declaration) -> list[Influence]:
    """The influence of every rater in the given exchanges, the most central first.

    Args:
        exchanges: of one run.
        declared: its declaration.
    """
    import networkx as nx  # here, since it takes long to import

    ratings: dict[int, list[float]] = defaultdict(list)
    gains: dict[int, list[float]] = defaultdict(list)
    uptakes: dict[int, list[float]] = defaultdict(list)
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for exchange in exchanges:
        gain = _gain(exchange, declared)
        new = new_words(*_rated_and_last(exchange, declared))
        for given in exchange.ratings:
            ratings[given.rater] += [] if given.rating is None else [given.rating]
            gains[given.rater] += [] if gain is None else [gain]
            if new is None or given.reason is None:
                continue
            share = uptake(new, given.reason)
            uptakes[given.rater].append(share)
            _add_edge(graph, exchange.author, given.rater, share)
    centralities = nx.pagerank(graph) if graph.number_of_edges() else {}
    unsorted = [
        Influence(
            agent=rater,
            ratings=len(given),
            mean=_mean(given),
            gain=_mean(gains[rater]),
            taken=_mean(uptakes[rater]),
            centrality=centralities.get(rater, 0.0),
        )
        for rater, given in ratings.items()
    ]
    return sorted(unsorted, key=lambda influence: (-influence.centrality, influence.agent))


def _gain(exchange: Exchange, declared: Declaration) -> float | None:
    gain = None if declared.main is None else declared.gain(declared.main)
    if gain is None or gain.base is None:
        return None
    before = exchange.score(gain.base, gain.scale.name)
    after = exchange.score(gain.stage, gain.scale.name)
    return None if before is None or after is None else gain.scale.gain(before, after)


def _rated_and_last(exchange: Exchange, declared: Declaration) -> tuple[str | None, str | None]:
    """The text that peers rated, and the last answer."""
    rated = declared.stages_of(declared.peers) if declared.peers is not None else ()
    if not rated or not declared.answers:
        return None, None
    return exchange.texts.get(rated[0]), exchange.texts.get(declared.answers[-1])


def new_words(before: str | None, after: str | None) -> set[str] | None:
    """The words that only the later text has; None where either text is missing."""
    if before is None or after is None:
        return None
    return words(after) - words(before)


def words(text: str) -> set[str]:
    """The words of four letters or more, in lower case."""
    return set(_WORD.findall(text.lower()))


def uptake(new: set[str], reason: str) -> float:
    """The share of new words that a reason contains, 0 to 1."""
    return len(new & words(reason)) / len(new) if new else 0.0


def _add_edge(graph: nx.DiGraph[Any], author: int | None, rater: int, share: float) -> None:
    before = graph.get_edge_data(author, rater, {"weight": 0.0})["weight"]
    graph.add_edge(author, rater, weight=before + share)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


class Bands(NamedTuple):
    """Bands of scores, by which agents are clustered: low, middle and high.

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
    """Connected agents of the same band, the largest cluster first; single agents are left out."""
    import networkx as nx  # here, since it takes long to import

    band_of = {agent: bands.band(score) for agent, score in scores.items()}
    graph: nx.Graph[Any] = nx.Graph()
    same_band = ((a, b) for a, b in near if a in band_of and band_of[a] == band_of.get(b))
    graph.add_edges_from(same_band)
    components = [tuple(sorted(agents)) for agents in nx.connected_components(graph)]
    components.sort(key=lambda agents: (-len(agents), agents))
    return [Cluster(band_of[agents[0]], agents) for agents in components]
