"""Means, differences of means, and their 95 % confidence intervals by Student's t.

A figure that cannot be computed (from no value, or from a single one) is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.reading.records import PAGES_ONLY, Record

Values = NDArray[np.float64]

CONFIDENCE = 0.95

NORMAL_QUANTILE = 1.959963984540054
"""Of the standard normal distribution, for `CONFIDENCE` on both sides."""


@dataclass(frozen=True, kw_only=True)
class Interval(Record):
    """A mean or a difference of means, with its confidence interval.

    Attributes:
        n: the number of differences; of a difference between two samples the sizes of both.
        clusters: the number of clusters; None (and no key in JSON) where values are independent.
        difference: the estimate.
        low, high: the ends of the interval.
        p: two-sided, of the hypothesis that the estimate is 0; None where there is no interval.
    """

    n: int | list[int]
    clusters: int | None = None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None = field(default=None, metadata=PAGES_ONLY)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and 0 is not in it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        data = super().as_dict()
        if self.clusters is None:
            del data["clusters"]
        return data


def mean(values: Values) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan


def number(value: float) -> float | None:
    """A value for JSON: None in place of NaN."""
    return None if math.isnan(value) else value


def student(differences: Values) -> Interval:
    """The mean of independent differences with its confidence interval by Student's t.

    Args:
        differences: without NaN.
    """
    n = len(differences)
    error = math.sqrt(differences.var(ddof=1) / n) if n > 1 else math.nan
    return _interval(n, mean(differences), error, n - 1)


def welch(first: Values, second: Values) -> Interval:
    """The difference of two means, `second` minus `first`, with its interval by Welch's t.

    Args:
        first: values of one sample, without NaN.
        second: values of the other sample, without NaN.
    """
    n = [len(first), len(second)]
    difference = mean(second) - mean(first)
    if min(n) < 2:
        return _interval(n, difference, math.nan, 0)
    return welch_of(n, difference, [float(values.var(ddof=1)) for values in (first, second)])


def welch_of(n: list[int], difference: float, of_values: Sequence[float]) -> Interval:
    """The same as `welch`, from numbers that are already known.

    Args:
        n: the sizes of both samples, each at least 2.
        difference: of their means, second minus first.
        of_values: the variance of the values of each sample.
    """
    # By hand: `scipy.stats` takes a second to import and warns about nearly equal values.
    variances = [variance / count for variance, count in zip(of_values, n, strict=True)]
    satterthwaite = sum(
        variance**2 / (count - 1) for variance, count in zip(variances, n, strict=True)
    )
    freedom = sum(variances) ** 2 / satterthwaite if satterthwaite else float(sum(n) - 2)
    return _interval(n, difference, math.sqrt(sum(variances)), freedom)


def clustered(differences: Values, clusters: NDArray[Any]) -> Interval:
    """The mean of clustered differences with a cluster-robust confidence interval.

    The standard error is sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n for G
    clusters; Student's t has G - 1 degrees of freedom.

    Args:
        differences: without NaN.
        clusters: the cluster of each difference, of the same length.
    """
    n, center = len(differences), mean(differences)
    _, indices = np.unique(clusters, return_inverse=True)
    sums = np.bincount(indices, differences - center) if n else np.zeros(0)
    return _of_residuals(n, center, sums.astype(np.float64))


def clustered_sums(counts: Values, totals: Values) -> Interval:
    """The same as `clustered`, from the number of values and their sum in each cluster.

    Args:
        counts: above 0.
        totals: of the same length.
    """
    n = int(counts.sum())
    center = float(totals.sum()) / n if n else math.nan
    return _of_residuals(n, center, totals - counts * center)


def _of_residuals(n: int, center: float, sums: Values) -> Interval:
    """The interval of a mean from the sum of residuals of each cluster."""
    g = len(sums)
    error = math.sqrt(g / (g - 1) * float(sums @ sums)) / n if g > 1 else math.nan
    return _interval(n, center, error, g - 1, clusters=g)


def difference_of(first: Interval, second: Interval) -> Interval:
    """The difference of two independent means, `first` minus `second`, by Welch's t.

    Args:
        first: a mean of values, or of clusters of them.
        second: the same of another group.
    """
    sizes = [one.clusters or one.n for one in (second, first)]
    n = [size for size in sizes if isinstance(size, int)]
    if first.difference is None or second.difference is None:
        return _interval(n, math.nan, math.nan, 0)
    difference = first.difference - second.difference
    if first.low is None or second.low is None:
        return _interval(n, difference, math.nan, 0)
    errors = [
        (one.difference - one.low) / t_quantile(0.5 + CONFIDENCE / 2, size - 1)
        for one, size in zip((second, first), n, strict=True)
        if one.difference is not None and one.low is not None
    ]
    variance = sum(error**2 for error in errors)
    satterthwaite = sum(error**4 / (size - 1) for error, size in zip(errors, n, strict=True))
    freedom = variance**2 / satterthwaite if satterthwaite else float(sum(n) - 2)
    return _interval(n, difference, math.sqrt(variance), freedom)


@dataclass(frozen=True, kw_only=True)
class Share(Record):
    """A share of cases, with its 95 % interval by Wilson's score, for independent cases.

    Attributes:
        n: the number of cases whose outcome is known.
        count: how many of them have it.
        missing: the number of cases whose outcome is not known; they are in no number.
        share: `count` of `n`; None without cases.
        low, high: the ends of the interval; None without cases.
    """

    n: int
    count: int
    missing: int = 0
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, count: int, n: int, missing: int = 0) -> Share:
        """The share of `count` in `n`."""
        if not n:
            return cls(n=0, count=0, missing=missing, share=None, low=None, high=None)
        share, z2 = count / n, NORMAL_QUANTILE**2
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = math.sqrt(share * (1 - share) * z2 / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
        low = 0.0 if count == 0 else middle - half  # without the error of rounding
        high = 1.0 if count == n else middle + half
        return cls(n=n, count=count, missing=missing, share=share, low=low, high=high)


def _interval(
    n: int | list[int],
    difference: float,
    error: float,
    freedom: float,
    clusters: int | None = None,
) -> Interval:
    known = not math.isnan(error)
    half = error * t_quantile(0.5 + CONFIDENCE / 2, freedom) if known else math.nan
    return Interval(
        n=n,
        clusters=clusters,
        difference=number(difference),
        low=number(difference - half),
        high=number(difference + half),
        p=_p_value(difference, error, freedom) if known else None,
    )


def t_test(t: float, freedom: float) -> float:
    """The two-sided p value of Student's t.

    Args:
        t: the statistic.
        freedom: degrees of freedom, at least 1.
    """
    from scipy.special import stdtr  # imported here because it takes long

    return 2 * float(stdtr(freedom, -abs(t)))


def _p_value(difference: float, error: float, freedom: float) -> float:
    """Two-sided p of Student's t test that the true difference is 0."""
    if not error:
        return 1.0 if not difference else 0.0
    return t_test(difference / error, freedom)


def benjamini_hochberg(p: Values) -> Values:
    """Adjust p values for the false discovery rate (Benjamini and Hochberg 1995).

    The share of false ones among those whose adjusted value is at most q is at most q in the mean,
    for independent or positively dependent tests.

    Args:
        p: the p values, without NaN, in any order.
    """
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * len(p) / ranks))
    return adjusted


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p values of a family of tests, by Holm's step-down method, in the given order.

    It bounds the probability of any false positive in the family, whatever the dependence between
    its tests (Holm, "A simple sequentially rejective multiple test procedure", 1979).
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def t_quantile(p: float, freedom: float) -> float:
    """The quantile of Student's t distribution.

    Args:
        p: a probability, 0.5 <= p < 1.
        freedom: degrees of freedom, at least 1; not necessarily an integer.
    """
    from scipy.special import stdtrit  # imported here because it takes long

    return float(stdtrit(freedom, p))
