"""The expected value of a rating, from the probabilities of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

LABELS_SHOWN = 20
"""Alternatives of a token that are asked for: all labels, in whatever form a tokenizer has them."""


def expected_rating(
    tokens: Sequence[tuple[str, Mapping[str, float]]], low: int, high: int
) -> float | None:
    """The mean of the labels, each weighed by its probability (G-Eval, arXiv 2303.16634).

    Args:
        tokens: of a reply, in order: the text of each, and the log-probability of each alternative
            to it, by its text.
        low: the lowest label of the scale.
        high: the highest.

    Returns:
        The mean at the first token that holds a label, the probabilities of the labels scaled to
        sum to one; None where no token does.
    """
    labels = [str(label) for label in range(low, high + 1)]
    for text, alternatives in tokens:
        if text.strip()[:1] not in labels or not text.strip():
            continue
        weights = dict.fromkeys(labels, 0.0)
        for other, logprob in alternatives.items():
            if other.strip()[:1] in weights:
                weights[other.strip()[:1]] += exp(logprob)
        total = sum(weights.values())
        mean = sum(int(label) * weight for label, weight in weights.items())
        return mean / total if total else None
    return None
