"""Datasets in the terminal: what an export wrote, and what its rules removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sandbox.terminal.style import SCRIPTED, plain, table

Data = dict[str, Any]


def export_view(report: Data, explain: bool) -> RenderableType:
    """Rows and measures of an export; with `explain` also what each rule removed."""
    kinds = table("format", "kind", "left by rules", "written", right=("left by rules", "written"))
    for one in report["formats"]:
        for kind, count in one["found"].items():
            kinds.add_row(one["format"], kind, f"{count:,}", f"{one['written'][kind]:,}")
    parts: list[RenderableType] = [Text(SCRIPTED, style="yellow")] if report["scripted"] else []
    parts += [kinds, Text(), _measures(report["measures"])]
    for one in report["formats"] if explain else ():
        parts += [Text(), *_removals(one)]
    parts += [plain(f"note: {note}", "yellow") for note in report["notes"]]
    for one in report["formats"]:
        parts += [plain(f"note: {one['format']}: {note}", "yellow") for note in one["notes"]]
    files = ", ".join(f"{name} ({count:,} rows)" for name, count in report["files"].items())
    place = "not written" if report["out"] is None else report["out"]
    return Group(*parts, Text(), plain(f"{place}: {files}"))


def _measures(measures: Mapping[str, Data]) -> Table:
    made = table("measure", "")
    for name, one in measures.items():
        made.add_row(name, plain(one["text"]))
    return made


def _removals(one: Data) -> Iterator[RenderableType]:
    """The candidates left after each rule of a format, with an example that it removed."""
    counts, left = one["counts"], one["candidates"]
    made = table(f"{one['format']}: rule", counts, "left", "such as", right=(counts, "left"))
    made.add_row("candidates", "", f"{left:,}", "")
    for rule, count in one["removed"].items():
        left -= count
        example = next(iter(one["examples"][rule]), "")
        made.add_row(rule, f"-{count:,}", f"{left:,}", plain(example, "dim"))
    yield made
    rows = sum(one["written"].values())
    if rows != left:
        yield Text(f"{left:,} {counts} in {rows:,} rows", style="dim")
