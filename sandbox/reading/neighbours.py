"""Whether neighbours are alike, and whether clusters are larger than chance: permutation tests.

The statistic of neighbours is assortativity (Newman, "Mixing patterns in networks", Physical Review
E 67, 2003): of scores, Pearson's correlation over the two ends of every link; of labels, the
attribute coefficient. The null hypothesis is that place does not matter: the values are shuffled
over the agents, and the links stay. A p value counts the observed arrangement as one of the
shuffles, (1 + as extreme) / (1 + shuffles), so that it is never 0 (Phipson & Smyth, "Permutation
p-values should never be zero", 2010).

The largest cluster of each band of scores is compared with the largest one after each shuffle, so
that a giant component, which exists wherever most agents are in one band, is no finding. A cluster
counts if it exceeds what shuffling gives in the *largest* one, which keeps the error rate over all
clusters of a band (Nichols & Holmes, "Nonparametric permutation tests", 2002); over the bands it is
Bonferroni's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SHUFFLES = 999
"""How often values are shuffled over the agents."""

_SEED = 20_03
_AT_ONCE = 4_000_000  # numbers in memory


class Null(NamedTuple):
    """A statistic, and what shuffling gives.

    Attributes:
        value: the statistic of the data.
        low, high: the 95 % band of the shuffles.
        p: the share of arrangements that are at least as extreme, 1 / (1 + shuffles) to 1.
        agents, links: the number of agents that have a value, and of links between two of them.
        shuffles: how often the values were shuffled.
    """

    value: float
    low: float
    high: float
    p: float
    agents: int
    links: int
    shuffles: int


class Field(NamedTuple):
    """Values of agents, and the links between them.

    Attributes:
        agents: the numbers of the agents that have a value, ascending.
        links: the positions in `agents` of the two ends of each link, shape (links, 2).
    """

    agents: Sequence[int]
    links: Indices

    @classmethod
    def of(cls, near: Iterable[tuple[int, int]], having: Iterable[int]) -> Field:
        """The links between agents that have a value, each once and none to itself.

        Args:
            near: pairs of neighbours, by number.
            having: the numbers of the agents that have a value.
        """
        agents = sorted(having)
        at = {agent: position for position, agent in enumerate(agents)}
        pairs = {
            (min(at[a], at[b]), max(at[a], at[b]))
            for a, b in near
            if a != b and a in at and b in at
        }
        return cls(agents, np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2))

    def shuffled(self, values: npt.NDArray[Any], shuffles: int) -> Iterable[npt.NDArray[Any]]:
        """Yield the values, then `shuffles` random orders of them, in blocks of rows."""
        random = np.random.default_rng(_SEED)
        yield values[None]
        size = max(1, _AT_ONCE // max(1, len(values) + len(self.links)))
        for start in range(0, shuffles, size):
            rows = np.tile(values, (min(size, shuffles - start), 1))
            yield random.permuted(rows, axis=1)


_tested: OrderedDict[bytes, Any] = OrderedDict()
_KEPT = 2000  # results


def _once(test: Callable[..., Any], field: Field, values: npt.NDArray[Any], *more: int) -> Any:
    """The result of a test, kept for the same values: rounds that are over are tested once."""
    key = blake2b(field.links.tobytes() + values.tobytes(), digest_size=16)
    key.update(repr((test.__name__, *more)).encode())
    digest = key.digest()
    if digest not in _tested:
        _tested[digest] = test(field, values, *more)
        if len(_tested) > _KEPT:
            _tested.popitem(last=False)
    return _tested[digest]


def _null(field: Field, statistics: Numbers) -> Null | None:
    """The two-sided test of a statistic; the first one is that of the data."""
    value, null = float(statistics[0]), statistics[1:]
    if not np.isfinite(value):
        return None
    null = null[np.isfinite(null)]
    low, high = np.quantile(null, (0.025, 0.975))
    tolerance = 1e-9  # equal up to rounding
    above = 1 + int((null >= value - tolerance).sum())
    below = 1 + int((null <= value + tolerance).sum())
    p = min(1.0, 2 * min(above, below) / (len(null) + 1))
    return Null(value, float(low), float(high), p, len(field.agents), len(field.links), len(null))


def score_assortativity(
    near: Iterable[tuple[int, int]], scores: Mapping[int, float], shuffles: int = SHUFFLES
) -> Null | None:
    """Whether neighbours have similar scores: 1 equal, about 0 by chance, -1 opposite.

    Args:
        near: pairs of neighbours, by number.
        scores: by agent; links of agents without one are left out.
        shuffles: how often scores are shuffled over these agents.

    Returns:
        None where it is undefined: no links, or all scores equal.
    """
    field = Field.of(near, scores)
    if not len(field.links):
        return None
    values = np.array([scores[agent] for agent in field.agents], dtype=np.float64)
    found: Null | None = _once(_test_scores, field, values, shuffles)
    return found


def _test_scores(field: Field, values: Numbers, shuffles: int) -> Null | None:
    blocks = field.shuffled(values, shuffles)
    return _null(field, np.concatenate([_numeric(field.links, x) for x in blocks]))


def _numeric(links: Indices, x: Numbers) -> Numbers:
    """Pearson's correlation over both directions of every link, of each row of x."""
    one, two = x[:, links[:, 0]], x[:, links[:, 1]]
    mean = (one.mean(axis=1) + two.mean(axis=1)) / 2
    variance = ((one**2).mean(axis=1) + (two**2).mean(axis=1)) / 2 - mean**2
    covariance = (one * two).mean(axis=1) - mean**2
    defined = variance > 1e-12
    return np.where(defined, covariance / np.where(defined, variance, 1), np.nan)


def label_assortativity(
    near: Iterable[tuple[int, int]], labels: Mapping[int, str], shuffles: int = SHUFFLES
) -> Null | None:
    """Whether neighbours have the same label: 1 always, about 0 by chance, below 0 seldom.

    Args:
        near: pairs of neighbours, by number.
        labels: by agent.
        shuffles: how often labels are shuffled over the agents.

    Returns:
        None where it is undefined: no links, or only one label.
    """
    field = Field.of(near, labels)
    kinds = sorted(set(labels.values()))
    if not len(field.links) or len(kinds) < 2:
        return None
    values = np.array([kinds.index(labels[agent]) for agent in field.agents], dtype=np.int64)
    found: Null | None = _once(_test_labels, field, values, len(kinds), shuffles)
    return found


def _test_labels(field: Field, values: Indices, kinds: int, shuffles: int) -> Null | None:
    blocks = field.shuffled(values, shuffles)
    return _null(field, np.concatenate([_attribute(field.links, x, kinds) for x in blocks]))


def _attribute(links: Indices, x: Indices, kinds: int) -> Numbers:
    """Newman's attribute assortativity, of each row of x."""
    one, two = x[:, links[:, 0]], x[:, links[:, 1]]
    same = (one == two).mean(axis=1)
    ends = [((one == kind).mean(axis=1) + (two == kind).mean(axis=1)) / 2 for kind in range(kinds)]
    chance = np.sum(np.square(ends), axis=0)
    defined = chance < 1 - 1e-12
    return np.where(defined, (same - chance) / np.where(defined, 1 - chance, 1), np.nan)


class LargestCluster(NamedTuple):
    """The largest cluster of a band, and what shuffling gives.

    Attributes:
        band: the name of the band.
        size: the number of agents in it; 1 where no two neighbours are in the band.
        low, high: the 95 % band of the size of the largest one after each shuffle.
        threshold: a larger cluster exceeds chance; see the module.
        p: the share of arrangements whose largest one is at least as large (one-sided).
        shuffles: how often the scores were shuffled.
    """

    band: str
    size: int
    low: int
    high: int
    threshold: int
    p: float
    shuffles: int


def largest_clusters(
    near: Iterable[tuple[int, int]], bands: Mapping[int, str], shuffles: int = SHUFFLES
) -> list[LargestCluster]:
    """Compare the largest cluster of each band with the largest one after shuffling.

    Args:
        near: pairs of neighbours, by number.
        bands: the name of the band of each agent that has a score.
        shuffles: how often bands are shuffled over these agents.
    """
    field = Field.of(near, bands)
    names = sorted(set(bands.values()))
    if not len(field.links):
        return []
    values = np.array([names.index(bands[agent]) for agent in field.agents], dtype=np.int64)
    sizes: Indices = _once(_largest_sizes, field, values, len(names), shuffles)
    return [_cluster(name, sizes[:, k], len(names)) for k, name in enumerate(names)]


def _largest_sizes(field: Field, values: Indices, bands: int, shuffles: int) -> Indices:
    blocks = field.shuffled(values, shuffles)
    return np.concatenate([_largest(field.links, x, bands) for x in blocks])


def _cluster(band: str, sizes: Indices, bands: int) -> LargestCluster:
    size, null = int(sizes[0]), sizes[1:]
    low, high = np.quantile(null, (0.025, 0.975), method="closest_observation")
    threshold = np.quantile(null, 1 - 0.05 / bands, method="higher")
    p = (1 + int((null >= size).sum())) / (len(null) + 1)
    return LargestCluster(band, size, int(low), int(high), int(threshold), p, len(null))


def _largest(links: Indices, x: Indices, bands: int) -> Indices:
    """The size of the largest connected component of each band, shape (rows of x, bands)."""
    rows, agents = x.shape
    row, link = np.nonzero(x[:, links[:, 0]] == x[:, links[:, 1]])
    ends = links[link] + (row * agents)[:, None]
    total = rows * agents
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), (total, total))
    _, component = connected_components(graph, directed=False)
    _, first, sizes = np.unique(component, return_index=True, return_counts=True)
    largest = np.zeros((rows, bands), dtype=np.int64)
    np.maximum.at(largest, (first // agents, x.reshape(-1)[first]), sizes)
    return largest
