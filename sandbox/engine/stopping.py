"""When a run is over before its last round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sandbox.config import ParetoStop


class ParetoRule:
    """Stop once mean alignment times mean engagement no longer rises.

    After Liu et al. (arXiv 2305.16960): at Pareto optimality neither scale gains without the other
    losing. The means are those of the revisions of a round, over the scores that could be read. The
    scores of round r decide whether round r + 2 is played: so a round can start while the
    observer still scores the one before, and every order of work stops at the same round.
    """

    LAG = 2

    def __init__(self, config: ParetoStop) -> None:
        self._patience = config.patience
        self._scores: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(
            lambda: defaultdict(lambda: [0, 0])
        )
        self._best = 0.0
        self._without_gain = 0
        self._next = 0
        self._over: set[int] = set()
        self.stopped_after: int | None = None

    def score(self, round: int, scale: str, total: int, count: int = 1) -> None:
        """Count scores of a revision: their sum and how many they are."""
        sums = self._scores[round][scale]
        sums[0] += total
        sums[1] += count

    def round_over(self, round: int) -> None:
        """Tell that all scores of a round are in."""
        self._over.add(round)
        while self._next in self._over and self.stopped_after is None:
            self._judge(self._next)
            self._next += 1

    def _judge(self, round: int) -> None:
        product = 1.0
        scores: Mapping[str, list[int]] = self._scores.pop(round, {})
        for total, count in scores.values():
            product *= total / count
        if scores and product > self._best:
            self._best = product
            self._without_gain = 0
        else:
            self._without_gain += 1
        if self._without_gain >= self._patience:
            self.stopped_after = round + self.LAG - 1

    @property
    def horizon(self) -> int:
        """Rounds from this one on may not be planned yet, or not at all."""
        return self._next + self.LAG if self.stopped_after is None else self.stopped_after + 1
