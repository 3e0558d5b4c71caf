"""Studies in the terminal: comparisons of runs, and estimates of what a run takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sandbox.terminal.style import plain, table

Data = dict[str, Any]


def comparison_view(data: Data) -> RenderableType:
    """Groups of runs, what differs between their configs, and by how much they differ."""
    parts: list[RenderableType] = []
    for place, group in enumerate(data["groups"]):
        seeds = ", ".join(map(str, group["seeds"]))
        counted = f"{group['episodes']:,} episodes, {group['failed_episodes']:,} failed"
        names = ", ".join(group["runs"])
        parts.append(plain(f"group {place}, n = {group['n']}: {names} (seeds {seeds}; {counted})"))
    for key, values in data["differing_keys"].items():
        parts.append(plain(f"  {key}: {', '.join('-' if v is None else str(v) for v in values)}"))
    parts += [Text(), _means(data["groups"]), Text(_UNITS, style="dim")]
    for one in data["comparisons"]:
        parts += [Text(), *_differences(one)]
    return Group(*parts, *(plain(f"note: {note}", "yellow") for note in data["notes"]))


_UNITS = (
    "means over all rounds | the last round; gains: last stage less first, positive where it is "
    "better; missing ratings and failed are shares"
)


def _means(groups: Sequence[Data]) -> Table:
    columns = [f"group {place}" for place in range(len(groups))]
    made = table("mean of", *columns, right=columns)
    for measure in groups[0]["measures"]:
        cells = []
        for group in groups:
            figures = group["measures"][measure]
            cells.append(" | ".join(_figure(figures[scope]["mean"]) for scope in ("all", "last")))
        made.add_row(measure.replace("_", " "), *cells)
    return made


def _figure(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _differences(one: Data) -> list[RenderableType]:
    first, other = one["groups"]
    rounds = f", rounds from {one['first_round']} on" if one["first_round"] else ""
    title = f"group {other} minus group {first}{rounds}, with 95 % confidence intervals"
    parts: list[RenderableType] = [plain(title, "bold"), plain(one["method"], "dim")]
    for scope, words in (("all", "all rounds"), ("last", "last round")):
        columns = ("difference", "95 % interval", "n", "left out")
        made = table(words, *columns, right=columns)
        for measure, scopes in one["measures"].items():
            made.add_row(measure.replace("_", " "), *_difference(scopes[scope]))
        parts += [Text(), made]
    return parts


def _difference(found: Data) -> tuple[str, ...]:
    counts = found["n"] if isinstance(found["n"], list) else [found["n"]]
    ends = f"{_figure(found['low'], '+')} to {_figure(found['high'], '+')}"
    n = " and ".join(f"{count:,}" for count in counts)
    if "clusters" in found:
        n += f" of {found['clusters']:,} authors"
    return _figure(found["difference"], "+"), ends, n, f"{found['left_out']:,}"


def estimate_view(data: Data) -> RenderableType:
    """What a run is going to take."""
    sample = data["sample"]
    head = f"{data['run']}: {data['agents']:,} agents, {data['rounds']:,} rounds"
    of = f"{sample['episodes']:,} of {data['episodes']:,} episodes"
    made = table("whole run", "estimate", "90 % range", right=("estimate", "90 % range"))
    for key in ("calls", "tokens_in", "tokens_out", "database_bytes"):
        made.add_row(key.replace("_", " "), *_ranged(data[key], 0))
    time = data["time"]
    for key, digits in (("seconds", 0), ("gpu_hours", 2)):
        if time[key] is not None:
            made.add_row(key.replace("_", " "), *_ranged(time[key], digits))
    if time["floor_seconds"] is not None:
        made.add_row("seconds, at least", f"{time['floor_seconds']:,.0f}", "")
    notes = (plain(f"note: {note}", "yellow") for note in data["notes"])
    return Group(plain(head, "bold"), plain(f"sample: {of}"), Text(), made, Text(), *notes)


def _ranged(figure: Data, digits: int) -> tuple[str, str]:
    ends = f"{figure['low']:,.{digits}f} to {figure['high']:,.{digits}f}"
    return f"{figure['estimate']:,.{digits}f}", ends
