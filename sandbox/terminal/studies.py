"""Studies in the terminal: comparisons of runs, and estimates of what a run takes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sandbox.study.results import (
    SCOPES,
    Comparison,
    Difference,
    Estimate,
    GroupComparison,
    GroupSummary,
    Range,
)
from sandbox.terminal.style import plain, table

_SCOPE_TITLES = {"all": "all rounds", "last": "last round"}
_LEGEND = (
    "means over all rounds | over the last round; -: no value; gains: last rated stage minus "
    "first, positive where better; missing ratings (of peers) and failed: shares"
)


def comparison_view(comparison: Comparison) -> RenderableType:
    """Groups of runs, the config keys that differ, and the differences between groups."""
    parts: list[RenderableType] = []
    for index, group in enumerate(comparison.groups):
        seeds = ", ".join(map(str, group.seeds))
        episodes = f"{group.episodes:,} episodes, {group.failed_episodes:,} failed"
        names = ", ".join(group.runs)
        parts.append(plain(f"group {index}, n = {group.n}: {names} (seeds {seeds}; {episodes})"))
    for key, values in comparison.differing_keys.items():
        by_group = ", ".join("-" if value is None else str(value) for value in values)
        parts.append(plain(f"  {key}: {by_group}"))
    parts += [Text(), _mean_table(comparison.groups), Text(_LEGEND, style="dim")]
    for differences in comparison.comparisons:
        parts += [Text(), *_differences(differences)]
    return Group(*parts, *(plain(f"note: {note}", "yellow") for note in comparison.notes))


def _mean_table(groups: Sequence[GroupSummary]) -> Table:
    columns = [f"group {index}" for index in range(len(groups))]
    means = table("mean of", *columns, right=columns)
    for measure in groups[0].measures:
        means.add_row(_title(measure), *(_mean_cell(group, measure) for group in groups))
    return means


def _mean_cell(group: GroupSummary, measure: str) -> str:
    by_scope = group.measures[measure]
    if by_scope is None:
        return "-"
    return " | ".join(_decimal(by_scope[scope].mean) for scope in SCOPES)


def _title(measure: str) -> str:
    return measure.replace("_", " ")


def _decimal(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _differences(comparison: GroupComparison) -> list[RenderableType]:
    first, other = comparison.groups
    rounds = f", from round {comparison.first_round}" if comparison.first_round else ""
    title = f"group {other} minus group {first}{rounds}, with 95 % confidence intervals"
    parts: list[RenderableType] = [plain(title, "bold"), plain(comparison.method, "dim")]
    for scope in SCOPES:
        columns = ("difference", "95 % interval", "n", "left out")
        differences = table(_SCOPE_TITLES[scope], *columns, right=columns)
        for measure, by_scope in comparison.measures.items():
            if by_scope is not None:
                differences.add_row(_title(measure), *_difference_cells(by_scope[scope]))
        parts += [Text(), differences]
    return parts


def _difference_cells(difference: Difference) -> tuple[str, str, str, str]:
    counts = difference.n if isinstance(difference.n, list) else [difference.n]
    n = " and ".join(f"{count:,}" for count in counts)
    if difference.clusters is not None:
        n += f" ({difference.clusters:,} authors)"
    interval = "-"
    if difference.low is not None and difference.high is not None:
        interval = f"{_decimal(difference.low, '+')} to {_decimal(difference.high, '+')}"
    return _decimal(difference.difference, "+"), interval, n, f"{difference.left_out:,}"


def estimate_view(estimate: Estimate) -> RenderableType:
    """What a run is expected to take."""
    head = f"{estimate.run}: {estimate.agents:,} agents, {estimate.rounds:,} rounds"
    sample = f"sample: {estimate.sample.episodes:,} of {estimate.episodes:,} episodes"
    rows = table("whole run", "estimate", "90 % range", right=("estimate", "90 % range"))
    rows.add_row("calls", *_range_cells(estimate.calls, 0))
    rows.add_row("tokens in", *_range_cells(estimate.tokens_in, 0))
    rows.add_row("tokens out", *_range_cells(estimate.tokens_out, 0))
    rows.add_row("database bytes", *_range_cells(estimate.database_bytes, 0))
    time = estimate.time
    if time.seconds is not None:
        rows.add_row("seconds", *_range_cells(time.seconds, 0))
    if time.gpu_hours is not None:
        rows.add_row("gpu hours", *_range_cells(time.gpu_hours, 2))
    if time.floor_seconds is not None:
        rows.add_row("seconds, at least", f"{time.floor_seconds:,.0f}", "")
    notes = (plain(f"note: {note}", "yellow") for note in estimate.notes)
    problems = [plain(f"warning: {problem}", "red") for problem in estimate.problems]
    if estimate.sample.failed and estimate.sample.failed == estimate.sample.calls:
        problems.append(plain("no call got a reply: the figures say nothing about a run", "red"))
    shown = (plain(head, "bold"), plain(sample), Text(), rows, Text())
    return Group(*problems, *shown, *notes)


def _range_cells(figure: Range, digits: int) -> tuple[str, str]:
    ends = f"{figure.low:,.{digits}f} to {figure.high:,.{digits}f}"
    return f"{figure.estimate:,.{digits}f}", ends
