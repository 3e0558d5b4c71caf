"""When a run is over before its last round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from agents.scale import Declaration, Measure
from sandbox.config import ParetoStop
from worlds.base import SettingError, World


class ParetoRule:
    """Stop once the product of the means of some scales no longer rises.

    After Liu et al. (arXiv 2305.16960), who multiply alignment and engagement: at Pareto optimality
    neither gains without the other losing. The means are those of the last rated stage in a round,
    over the ratings that could be parsed. The ratings of round r decide whether round r + 2 is
    played: so a round can start while the observer still rates the one before, and every order of
    work stops at the same round.

    Args:
        patience: how many rounds without a rise end the run.
        finals: the measures whose means are multiplied.
    """

    LAG = 2

    def __init__(self, patience: int, finals: Sequence[Measure]) -> None:
        self._patience = patience
        self._finals = {(one.stage, one.scale.name) for one in finals}
        self.names = tuple(one.scale.name for one in finals)
        self._scores: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(lambda: [0, 0])
        )
        self._best = 0.0
        self._without_gain = 0
        self._next = 0
        self._over: set[int] = set()
        self.stopped_after: int | None = None

    def score(self, round: int, stage: str, scale: str, total: float, count: int = 1) -> None:
        """Count ratings of a stage: their sum and how many they are. Other scales are ignored."""
        if (stage, scale) in self._finals:
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
        scores: Mapping[str, list[float]] = self._scores.pop(round, {})
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


def pareto_rule(config: ParetoStop, world: World) -> ParetoRule:
    """The rule over the scales that the config or else the world names.

    Scales that a config adds to its world enter it only where `stop.scales` names them.

    Raises:
        SettingError: there are no such scales, or a product of their means says nothing.
    """
    declaration = world.declaration
    names = config.scales or world.pareto
    if not names:
        raise SettingError("stop.scales", "found none; expected names of scales to be multiplied")
    return ParetoRule(config.patience, [_final(declaration, name) for name in names])


def _final(declaration: Declaration, name: str) -> Measure:
    scale = next((one for one in declaration.observed if one.name == name), None)
    final = None if scale is None else declaration.final(scale)
    if final is None:
        there = ", ".join(one.name for one in declaration.observed) or "none"
        raise SettingError("stop.scales", f"found {name}; expected scales of the observer: {there}")
    if final.scale.low <= 0 or final.scale.better == "low":
        raise SettingError(
            "stop.scales",
            f"found {name}, from {final.scale.range}, better {final.scale.better}; expected scales "
            "above 0 whose high end is better, since their means are multiplied",
        )
    return final
