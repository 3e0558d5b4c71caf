"""Studies in the terminal: comparisons of runs, and estimates of what a run takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sandbox.reading.run_groups import yaml_value
from sandbox.study.rates import EngineRates
from sandbox.study.results import (
    SCOPES,
    SPREAD_SCOPES,
    Comparison,
    Difference,
    Estimate,
    GroupComparison,
    GroupSummary,
    Range,
)
from sandbox.terminal.style import dash, plain, short, table
from sandbox.text import command

_SCOPE_TITLES = {"all": "all rounds", "last": "last round"}
_LEGEND = (
    "n: seeds; mean, sd: of the seeds' means over all rounds; first, last: in the first and the "
    "last round; -: no value; gains: last rated stage minus first, positive where better; missing "
    "ratings (of peers) and failed: shares"
)
_GROUP_WIDTH = 26


def comparison_view(comparison: Comparison) -> RenderableType:
    """Groups of runs, the config keys that differ, and the differences between groups."""
    parts: list[RenderableType] = []
    for index, group in enumerate(comparison.groups):
        parts.append(plain(group.name, "bold"))
        episodes = f"{group.episodes:,} episodes, {group.failed_episodes:,} failed"
        names = ", ".join(group.runs)
        seeds = ", ".join(map(str, dict.fromkeys(group.seeds)))
        parts.append(plain(f"  {names} (seeds: {seeds}; {episodes})"))
        parts += [
            plain(f"  {key}: {yaml_value(values[index])}")
            for key, values in comparison.differing_keys.items()
        ]
    parts += [Text(), _mean_table(comparison.groups), Text(_LEGEND, style="dim")]
    for differences in comparison.comparisons:
        parts += [Text(), *_differences(differences, comparison.groups)]
    return Group(*parts, *(plain(f"note: {note}", "yellow") for note in comparison.notes))


def _mean_table(groups: Sequence[GroupSummary]) -> Table:
    """A row for each measure and group, so that any number of groups fits."""
    columns = ("n", "mean", "sd", "first", "last")
    means = table("mean of", "group", *columns, right=columns)
    for measure in groups[0].measures:
        for index, group in enumerate(groups):
            title = "" if index else _title(measure)
            means.add_row(title, short(group.name, _GROUP_WIDTH), *_mean_cells(group, measure))
    return means


def _mean_cells(group: GroupSummary, measure: str) -> tuple[str, ...]:
    by_scope = group.spread[measure]
    if by_scope is None:
        return ("-",) * 5
    whole, first, last = (by_scope[scope] for scope in SPREAD_SCOPES)
    means = (whole.mean, whole.deviation, first.mean, last.mean)
    return str(whole.n), *map(_decimal, means)


def _title(measure: str) -> str:
    return measure.replace("_", " ")


def _decimal(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _p_value(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _decimal(value)


def _differences(
    comparison: GroupComparison, groups: Sequence[GroupSummary]
) -> list[RenderableType]:
    first, other = (groups[index].name for index in comparison.groups)
    rounds = f", from round {comparison.first_round} on" if comparison.first_round else ""
    title = f"{other} minus {first}{rounds}"
    parts: list[RenderableType] = [plain(title, "bold"), plain(comparison.method, "dim")]
    found = [by_scope for by_scope in comparison.measures.values() if by_scope is not None]
    if all(by_scope[scope].low is None for by_scope in found for scope in SCOPES):
        parts.append(Text("no interval: needs at least 2 seeds a group", style="yellow"))
    for scope in SCOPES:
        parts += [Text(), _difference_table(comparison, scope)]
    parts.append(Text("Holm p: of no difference, corrected for all that is compared", "dim"))
    return parts + ([Text(), *_trends(comparison)] if comparison.trends else [])


def _trends(comparison: GroupComparison) -> list[RenderableType]:
    columns = ("baseline", "other", "diff.", "95 % from", "to")
    rows = table("trend of", "authors", "", *columns, right=columns)
    for one in comparison.trends:
        digits = 3 if one.statistic == "slope" else 2
        sign = "" if one.statistic == "last" and "\u2212" not in one.group else "+"
        rows.add_row(
            _title(one.measure),
            one.group.replace("\u2212", "-"),
            one.statistic,
            *(_rounded(value, digits, sign) for value in one.means),
            *(_rounded(value, digits, "+") for value in (one.difference, one.low, one.high)),
        )
    legend = (
        "last: mean over authors in the last rounds; change: since the first rounds; slope: per "
        "round; of the same authors; not corrected"
    )
    return [rows, Text(legend, "dim")]


def _rounded(value: float | None, digits: int, sign: str) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def _difference_table(comparison: GroupComparison, scope: str) -> Table:
    sizes = {"episode": ("n", "authors"), "seed": ("seeds",), "none": ("seeds", "of baseline")}
    columns = ("diff.", "95 % from", "to", "Holm p", *sizes[comparison.pairing], "left out")
    rows = table(_SCOPE_TITLES[scope], *columns, right=columns)
    for measure, by_scope in comparison.measures.items():
        if by_scope is not None:
            rows.add_row(_title(measure), *_difference_cells(by_scope[scope]))
    return rows


def _difference_cells(difference: Difference) -> tuple[str, ...]:
    ends = (difference.difference, difference.low, difference.high)
    counts = difference.n[::-1] if isinstance(difference.n, list) else [difference.n]
    counts += [] if difference.clusters is None else [difference.clusters]
    return (
        *(_decimal(value, "+") for value in ends),
        _p_value(difference.p_holm),
        *(f"{count:,}" for count in counts),
        f"{difference.left_out:,}",
    )


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
    if time.busy is not None:
        rows.add_row("engines busy", f"{time.busy:.0%}", "")
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


def rates_view(rates: EngineRates, file: Path) -> RenderableType:
    """The measured speed of a model."""
    rows = table("one copy", "tokens a second", right=("tokens a second",))
    for what, seconds in (
        ("prompts", rates.seconds_per_prompt_token),
        ("prompts in the prefix cache", rates.seconds_per_cached_token),
    ):
        rows.add_row(what, f"{1 / seconds:,.0f}" if seconds else dash())
    for running, seconds in rates.steps:
        rows.add_row(f"replies, {running:,} calls at once", f"{running / seconds:,.0f}")
    use = command("estimate", "CONFIG", f"--rates {file} --gpus N")
    written = plain(f"written to {file}; estimate a run with: {use}")
    return Group(plain(rates.model, "bold"), rows, written)
