"""Means, differences of means, and their 95 % confidence intervals by Student's t.

A figure that cannot be computed (no value, or only one) is None.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Data = dict[str, Any]
Values = NDArray[np.float64]

CONFIDENCE = 0.95


def mean(values: Values) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan


def number(value: float) -> float | None:
    """A value for JSON: None in place of NaN."""
    return None if math.isnan(value) else value


def student(differences: Values) -> Data:
    """The mean of independent differences with its confidence interval by Student's t.

    Args:
        differences: without NaN.

    Returns:
        `n` (the number of differences), `difference`, `low` and `high`.
    """
    n = len(differences)
    error = math.sqrt(differences.var(ddof=1) / n) if n > 1 else math.nan
    return {"n": n} | _interval(mean(differences), error, n - 1)


def welch(first: Values, second: Values) -> Data:
    """The difference of two means, `second` minus `first`, with its interval by Welch's t.

    Args:
        first: values of one sample, without NaN.
        second: values of the other sample, without NaN.

    Returns:
        `n` (the sizes of both samples), `difference`, `low` and `high`.
    """
    n = [len(first), len(second)]
    difference = mean(second) - mean(first)
    if min(n) < 2:
        return {"n": n} | _interval(difference, math.nan, 0)
    # By hand: `scipy.stats` takes a second to import and warns about nearly equal values.
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    satterthwaite = sum(part**2 / (count - 1) for part, count in zip(parts, n, strict=True))
    freedom = sum(parts) ** 2 / satterthwaite if satterthwaite else float(sum(n) - 2)
    return {"n": n} | _interval(difference, math.sqrt(sum(parts)), freedom)


def clustered(differences: Values, clusters: NDArray[Any]) -> Data:
    """The mean of clustered differences with a cluster-robust confidence interval.

    The standard error is sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n for G
    clusters; Student's t has G - 1 degrees of freedom.

    Args:
        differences: without NaN.
        clusters: the cluster of each difference, of the same length.

    Returns:
        `n` (the number of differences), `clusters` (G), `difference`, `low` and `high`.
    """
    n, center = len(differences), mean(differences)
    _, places = np.unique(clusters, return_inverse=True)
    sums = np.bincount(places, differences - center) if n else np.zeros(0)
    g = len(sums)
    error = math.sqrt(g / (g - 1) * float(sums @ sums)) / n if g > 1 else math.nan
    return {"n": n, "clusters": g} | _interval(center, error, g - 1)


def _interval(difference: float, error: float, freedom: float) -> Data:
    half = math.nan if math.isnan(error) else error * t_quantile(0.5 + CONFIDENCE / 2, freedom)
    return {
        "difference": number(difference),
        "low": number(difference - half),
        "high": number(difference + half),
    }


def t_quantile(p: float, freedom: float) -> float:
    """The quantile of Student's t distribution.

    Args:
        p: a probability, 0.5 <= p < 1.
        freedom: degrees of freedom, at least 1; not necessarily an integer.
    """
    from scipy.special import stdtrit  # imported here because it takes long

    return float(stdtrit(freedom, p))
