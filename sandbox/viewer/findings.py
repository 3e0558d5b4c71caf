"""The findings that head the page of a run: key figures and sentences on the main scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sqlalchemy import select

from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.figures import capitalized
from sandbox.reading.metrics import merged_values, outcomes
from sandbox.reading.statistics import Interval, clustered_sums, student
from sandbox.reading.trends import Gap, Trends, trends
from sandbox.viewer.filters import decimal, integer, signed
from sandbox.viewer.report.trend_tables import ends, rounds_title
from storage import tables
from storage.reader import Reader


class Finding(NamedTuple):
    """A key figure of a run, with a sentence that says it in words.

    Attributes:
        title: what it is.
        value: the figure.
        detail: its change with the 95 % interval, or what it was computed from.
        sentence: the same in words; empty where the figure speaks for itself.
    """

    title: str
    value: str
    detail: str
    sentence: str = ""


def findings(reader: Reader) -> list[Finding]:
    """First and last rounds, the gap of starting labels, and the gain, on the main scale."""
    declared = declaration_of(reader)
    first = first_measure(declared)
    if first is None or declared.main is None:
        return []
    found = list(_of_trends(trends(reader, first), first))
    gain = declared.gain(declared.main)
    return found if gain is None else [*found, *_of_gain(reader, gain)]


def first_measure(declared: Declaration) -> Measure | None:
    """The score of the first stage on the main scale; None where there is none."""
    stages = () if declared.main is None else declared.stages_of(declared.main)
    if declared.main is None or not stages:
        return None
    return declared.measure(f"{stages[0]}_{declared.main.name}")


def _of_trends(found: Trends, measure: Measure) -> Iterator[Finding]:
    everybody = found.groups[0]
    if not found.window or not everybody.agents:
        return
    first = rounds_title(0, found.window)
    last = rounds_title(found.rounds - found.window, found.rounds)
    verb = _verb(everybody.change, "rose", "fell")
    low = " (lower is better)" if found.better == "low" else ""
    yield Finding(
        f"{measure.title}{low}, {first} \u2192 {last}",
        f"{decimal(everybody.first)} \u2192 {decimal(everybody.last)}",
        _with_ends(everybody.change),
        f"{capitalized(measure.title)} {verb} from {decimal(everybody.first)} in {first} to "
        f"{decimal(everybody.last)} in {last}: {_with_ends(everybody.change)}, over "
        f"{integer(everybody.agents)} authors.",
    )
    if found.gap is not None:
        yield _of_gap(found, found.gap, measure)


def _of_gap(found: Trends, gap: Gap, measure: Measure) -> Finding:
    by_name = {group.group: group for group in found.groups}
    parts = [f"{name} {signed(by_name[name].change.difference)}" for name in gap.groups]
    values = [decimal(gap.first.difference), decimal(gap.last.difference)]
    verb = _verb(gap.change, "widened", "narrowed")
    names = " \u2212 ".join(gap.groups)
    return Finding(
        f"gap {names}, {measure.title}",
        " \u2192 ".join(values),
        _with_ends(gap.change),
        f"By starting label: {' and '.join(parts)}; the gap {verb} "
        f"from {' to '.join(values)}: {_with_ends(gap.change)}.",
    )


def _of_gain(reader: Reader, gain: Measure) -> Iterator[Finding]:
    """The mean gain of all exchanges, clustered by author where there are authors."""
    s = tables.agent_sums
    query = select(s.c.n, s.c.total).where(
        s.c.run_id == reader.run.id, s.c.measure_id == measure_ids(reader)[gain.name]
    )
    sums = np.array([(float(n), float(total)) for n, total in reader.rows(query)])
    if len(sums):
        mean = clustered_sums(*sums.T)
    else:
        mean = student(merged_values(outcomes(reader), gain.name))
    if mean.difference is None:
        return
    authors = f", {integer(mean.clusters)} authors" if mean.clusters else ""
    first, last = (str(stage).replace("_", " ") for stage in (gain.base, gain.stage))
    yield Finding(
        f"{gain.scale.title}, {last} \u2212 {first}",
        signed(mean.difference),
        f"{ends(mean)}, " * bool(ends(mean)) + f"{integer(_count(mean))} exchanges{authors}",
    )


def _count(mean: Interval) -> int:
    return mean.n if isinstance(mean.n, int) else sum(mean.n)


def _with_ends(change: Interval) -> str:
    interval = f" ({ends(change)})" if ends(change) else ""
    return f"{signed(change.difference)}{interval}"


def _verb(change: Interval, more: str, less: str) -> str:
    """What happened, where the interval excludes 0."""
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return "did not clearly change,"
    return more if change.low > 0 else less
