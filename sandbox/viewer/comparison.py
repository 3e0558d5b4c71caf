"""Data of the comparison page: curves by round, and differences between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from agents.scale import Measure
from sandbox.reading import charts
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import Figure, curve_rows
from sandbox.reading.metrics import outcomes
from sandbox.study.compare import FAILED, MISSING, compare
from storage.database import Address
from storage.reader import Reader

_SHARES = {MISSING: "missing ratings, share", FAILED: "failed, share"}


def all_measures(readers: Sequence[Reader]) -> dict[str, Measure]:
    """The measures of all runs by name, beginning with the final measure of the main scale."""
    declarations = [declaration_of(reader) for reader in readers]
    mains = [declared.final(declared.main) for declared in declarations if declared.main]
    every = [one for declared in declarations for one in declared.measures]
    by_name: dict[str, Measure] = {}
    for measure in (*mains, *every):
        if measure is not None:
            by_name.setdefault(measure.name, measure)
    return by_name


def curves(readers: Mapping[str, Reader], measure: Measure) -> Figure:
    """The means of a measure by round, one curve for each run."""
    rows = [
        row
        for key, reader in readers.items()
        for row in curve_rows(outcomes(reader), {key: measure.name}, "run")
    ]
    draw = charts.gains if measure.kind == "gain" else charts.versus
    return Figure(
        "versus",
        f"{measure.title.capitalize()} by round",
        "Mean over the episodes of a round, with 95 % interval.",
        rows,
        partial(draw, scale=measure.scale),
    )


def differences(addresses: Sequence[Address], scope: str) -> dict[str, Any]:
    """The fields of a `Comparison`, with a figure of the differences of the first two groups.

    Raises:
        InputError: see `sandbox.study.compare.compare`.
    """
    result = compare(addresses)
    titles = {name: _title(name) for name in result.groups[0].measures}
    rows = [
        {"measure": title, **by_scope[scope].as_dict()}
        for comparison in result.comparisons[:1]
        for name, title in titles.items()
        for by_scope in [comparison.measures[name]]
        if by_scope is not None and by_scope[scope].difference is not None
    ]
    names = [", ".join(group.runs) for group in result.groups[:2]]
    about = (
        f"{' minus '.join(reversed(names))}, with 95 % intervals, not corrected for multiple "
        "comparisons."
    )
    return {
        "groups": result.groups,
        "differing_keys": result.differing_keys,
        "comparisons": result.comparisons,
        "notes": result.notes,
        "scope": scope,
        "measures": titles,
        "figure": Figure("differences", "Differences", about, rows, charts.differences),
    }


def _title(measure: str) -> str:
    return _SHARES.get(measure, measure.replace("_", " "))
