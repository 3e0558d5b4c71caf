"""The stopping rule: when a run ends before its last round."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from agents.scale import Declaration, Measure
from sandbox.config import ParetoStop
from worlds.base import SettingError, World


class ParetoRule:
    """Stop once the product of the mean ratings on several scales no longer rises.

    After Liu et al. (arXiv 2305.16960), who multiply alignment and engagement: at Pareto optimality
    neither gains without the other losing. The means are those of the last rated stage in a round,
    over the ratings that could be parsed; a round in which one of the scales has no rating is
    neither a rise nor the lack of one. The ratings of round r decide whether round r + 2 is
    played: so a round can start while the observer still rates the previous one, and every
    schedule stops at the same round.

    Args:
        patience: number of rounds without a rise after which the run ends.
        finals: the measures whose means are multiplied.

    Attributes:
        names: the scales of these measures.
        stopped_after: the last round that is played; None while that is open.
    """

    LAG = 2

    def __init__(self, patience: int, finals: Sequence[Measure]) -> None:
        self._patience = patience
        self._finals = {(final.stage, final.scale.name) for final in finals}
        self.names = tuple(final.scale.name for final in finals)
        self._scores: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(lambda: [0, 0])
        )
        self._best = 0.0
        self._rounds_without_rise = 0
        self._next = 0
        self._complete: set[int] = set()
        self.stopped_after: int | None = None

    def score(self, round: int, stage: str, scale: str, total: float, count: int = 1) -> None:
        """Add ratings of a stage: their sum and number. Other scales and stages are ignored."""
        if (stage, scale) in self._finals:
            sums = self._scores[round][scale]
            sums[0] += total
            sums[1] += count

    def mark_complete(self, round: int) -> None:
        """Mark a round as complete: all its ratings have been added."""
        self._complete.add(round)
        while self._next in self._complete and self.stopped_after is None:
            self._evaluate(self._next)
            self._next += 1

    def _evaluate(self, round: int) -> None:
        scores: Mapping[str, list[float]] = self._scores.pop(round, {})
        if any(name not in scores or not scores[name][1] for name in self.names):
            return
        product = math.prod(total / count for total, count in scores.values())
        if product > self._best:
            self._best = product
            self._rounds_without_rise = 0
        else:
            self._rounds_without_rise += 1
        if self._rounds_without_rise >= self._patience:
            self.stopped_after = round + self.LAG - 1

    @property
    def horizon(self) -> int:
        """The first round that must not be planned yet, or not at all."""
        return self._next + self.LAG if self.stopped_after is None else self.stopped_after + 1


def pareto_rule(config: ParetoStop, world: World) -> ParetoRule:
    """Make the rule for the scales that the config names, or else those of the world.

    Scales that a config adds to its world count only if `stop.scales` names them.

    Raises:
        SettingError: there is no such scale, or its mean cannot be part of a product.
    """
    declaration = world.declaration
    names = config.scales or world.pareto
    if not names:
        raise SettingError("stop.scales", "found none; expected names of scales to multiply")
    return ParetoRule(config.patience, [_final(declaration, name) for name in names])


def _final(declaration: Declaration, name: str) -> Measure:
    scale = next((scale for scale in declaration.observed if scale.name == name), None)
    final = None if scale is None else declaration.final(scale)
    if final is None:
        known = ", ".join(scale.name for scale in declaration.observed) or "none"
        raise SettingError("stop.scales", f"found {name}; expected scales of the observer: {known}")
    if final.scale.low <= 0 or final.scale.better == "low":
        raise SettingError(
            "stop.scales",
            f"found {name}, from {final.scale.range}, better {final.scale.better}; expected scales "
            "above 0 whose high end is better, since their means are multiplied",
        )
    return final
