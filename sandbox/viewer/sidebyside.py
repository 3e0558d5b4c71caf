"""Runs side by side: their curves, their differences, and one exchange in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import select

from sandbox.reading import charts
from sandbox.reading.figures import RANGES, Figure, curve_rows
from sandbox.reading.metrics import PEERS, outcomes
from sandbox.study.compare import MEASURES, compare
from storage import tables
from storage.database import Address
from storage.reader import Reader

Row = dict[str, Any]

CURVES = (
    *("revision_alignment", "draft_alignment", "alignment_gain"),
    *("revision_engagement", "draft_engagement", "engagement_gain"),
    PEERS,
)
"""What curves can be compared by."""

NAMES = {measure: measure.replace("_", " ") for measure in (*MEASURES, PEERS)} | {
    "missing_ratings": "missing ratings, share",
    "failed": "failed, share",
}
"""Measures as people read them."""

_SHOWN = 12  # exchanges that differ most


def curves(readers: Mapping[str, Reader], measure: str) -> Figure:
    """A measure by round, of each run."""
    rows = [
        row
        for key, reader in readers.items()
        for row in curve_rows(outcomes(reader), {key: measure}, "run")
    ]
    scale = RANGES["engagement" if "engagement" in measure else "alignment"]
    return Figure(
        "versus",
        f"{NAMES[measure].capitalize()} by round",
        "Means of a round's episodes with their 95 % interval.",
        rows,
        partial(charts.gains if measure.endswith("_gain") else charts.versus, scale=scale),
    )


def differences(addresses: Sequence[Address], scope: str) -> Row:
    """What `compare` finds, with a figure of the differences of the first two groups.

    Raises:
        InputError: see `sandbox.study.compare.compare`.
    """
    found = compare([str(address) for address in addresses])
    rows = [
        {"measure": NAMES[measure], **one}
        for comparison in found["comparisons"][:1]
        for measure in MEASURES
        for one in [comparison["measures"][measure][scope]]
        if one["difference"] is not None
    ]
    about = "The second less the first, with the 95 % interval of each measure by itself."
    return {
        **found,
        "scope": scope,
        "measures": {measure: NAMES[measure] for measure in MEASURES},
        "figure": Figure("differences", "Differences", about, rows, charts.differences),
    }


def furthest(one: Reader, two: Reader) -> list[Row]:
    """The exchanges about one question, by one author in one round, that ended most differently."""
    if one.run.per_round != two.run.per_round:
        return []
    sides = [_revisions(reader) for reader in (one, two)]
    apart = [
        (abs(sides[1][number][0] - score), number)
        for number, (score, asked) in sides[0].items()
        if number in sides[1] and sides[1][number][1:] == (asked,)
    ]
    rows = sorted((pair for pair in apart if pair[0]), key=lambda pair: (-pair[0], pair[1]))
    questions = _questions(one, [number for _, number in rows[:_SHOWN]])
    return [
        {
            "episode": number,
            "round": number // one.run.per_round,
            "question": questions[number],
            "before": sides[0][number][0],
            "after": sides[1][number][0],
        }
        for _, number in rows[:_SHOWN]
    ]


def _revisions(reader: Reader) -> dict[int, tuple[int, str | None]]:
    """The revision's alignment and the question's source, by the number of the episode."""
    e, q = tables.episodes, tables.questions
    query = (
        select(e.c.id, e.c.revision_alignment, q.c.source)
        .join(q, q.c.id == e.c.question_id)
        .where(e.c.run_id == reader.run.id, e.c.revision_alignment.is_not(None))
    )
    return {row[0] - reader.base: (row[1], row[2]) for row in reader.rows(query)}


def _questions(reader: Reader, numbers: Sequence[int]) -> dict[int, str]:
    e, q, t = tables.episodes, tables.questions, tables.texts
    query = (
        select(e.c.id, t.c.text)
        .join(q, q.c.id == e.c.question_id)
        .join(t, t.c.id == q.c.text_id)
        .where(e.c.id.in_([reader.base + number for number in numbers]))
    )
    return {row.id - reader.base: row.text for row in reader.rows(query)}
