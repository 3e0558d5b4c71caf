"""The expected value of a rating, from the probabilities of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

LABELS_SHOWN = 20
"""Number of alternatives requested for each token: enough for all forms of all labels."""


def expected_rating(
    tokens: Sequence[tuple[str, Mapping[str, float]]], labels: Sequence[str]
) -> float | None:
    """Return the mean of the labels, weighted by probability (G-Eval, arXiv 2303.16634).

    Args:
        tokens: the tokens of a reply, in order: the text of each, and the log-probability of each
            alternative by its text.
        labels: the ratings of the scale, as text.

    Returns:
        The mean at the first token that contains a label, with the probabilities of the labels
        normalised to sum to one; None if no token does, or if labels have more than one
        character, since one token does not distinguish 10 from 1.
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
