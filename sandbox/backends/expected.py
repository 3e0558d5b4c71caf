"""The expected value of a rating, from the probabilities of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

LABELS_SHOWN = 20
"""Alternatives of a token that are asked for: all labels, in whatever form a tokenizer has them."""


def expected_rating(
    tokens: Sequence[tuple[str, Mapping[str, float]]], labels: Sequence[str]
) -> float | None:
    """The mean of the labels, each weighed by its probability (G-Eval, arXiv 2303.16634).

    Args:
        tokens: of a reply, in order: the text of each, and the log-probability of each alternative
            to it, by its text.
        labels: the ratings of the scale, as text.

    Returns:
        The mean at the first token that contains a label, the probabilities of the labels scaled to
        sum to one; None where no token does, or where labels are longer than one character: the
        probability of 10 cannot be told from that of 1 at one token.
    """
    if any(len(label) > 1 for label in labels):
        return None
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
