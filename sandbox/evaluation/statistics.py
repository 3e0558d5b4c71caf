"""Statistics of evaluations that `sandbox.reading.statistics` does not have."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from sandbox.evaluation.results import LengthControlled
from sandbox.reading import agreement
from sandbox.reading.agreement import TextSums
from sandbox.reading.statistics import CONFIDENCE, number, t_quantile

Values = NDArray[np.float64]


def length_controlled(differences: Values, characters: Values) -> LengthControlled:
    """The difference at equal length: the intercept of an ordinary regression over questions.

    The standard error is heteroscedasticity-consistent (HC3, MacKinnon and White 1985), with
    Student's t of n - 2 degrees of freedom.

    Args:
        differences: the paired difference of each question, without NaN.
        characters: the difference of the mean lengths of the two models' answers to it.
    """
    n = len(differences)
    extrapolated = bool(n) and not (characters.min() <= 0 <= characters.max())
    if n < 3 or np.ptp(characters) == 0:
        return LengthControlled(
            n=n, difference=None, low=None, high=None, per_100_characters=None, extrapolated=False
        )
    design = np.column_stack((np.ones(n), characters / 100.0))
    inverse = np.linalg.inv(design.T @ design)
    intercept, slope = inverse @ design.T @ differences
    residuals = differences - design @ np.array([intercept, slope])
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    error = math.nan
    if leverage.max() < 1 - 1e-9:
        weighted = design * (residuals / (1 - leverage))[:, None]
        error = math.sqrt((inverse @ (weighted.T @ weighted) @ inverse)[0, 0])
    half = error * t_quantile(0.5 + CONFIDENCE / 2, n - 2)
    return LengthControlled(
        n=n,
        difference=None if math.isnan(half) else float(intercept),
        low=number(float(intercept) - half),
        high=number(float(intercept) + half),
        per_100_characters=float(slope),
        extrapolated=extrapolated,
    )


def spearman(first: Values, second: Values) -> float | None:
    """The rank correlation, with mean ranks for ties; None below 3 values or for a constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Values) -> Values:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Values = (last - (counts - 1) / 2).astype(np.float64)
    ranks: Values = means[places]
    return ranks


def alpha(first: Values, second: Values) -> float | None:
    """Krippendorff's alpha of two observers, of interval data; None where values do not vary.

    Args:
        first: the scores of one observer.
        second: those of the other, of the same answers.
    """
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return agreement.alpha(Counter(map(TextSums.of, pairs)), interval=False).alpha
