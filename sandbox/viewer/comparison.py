"""The page of a comparison: the curves of runs, and their differences."""

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


def shared_measures(readers: Sequence[Reader]) -> dict[str, Measure]:
    """The measures that at least one run has, by name; the main scale's final one first."""
    declarations = [declaration_of(reader) for reader in readers]
    mains = [declared.final(declared.main) for declared in declarations if declared.main]
    every = [one for declared in declarations for one in declared.measures]
    found: dict[str, Measure] = {}
    for measure in (*mains, *every):
        if measure is not None:
            found.setdefault(measure.name, measure)
    return found


def curves(readers: Mapping[str, Reader], measure: Measure) -> Figure:
    """A measure by round, of each run."""
    rows = [
        row
        for key, reader in readers.items()
        for row in curve_rows(outcomes(reader), {key: measure.name}, "run")
    ]
    draw = charts.gains if measure.kind == "gain" else charts.versus
    return Figure(
        "versus",
        f"{measure.title.capitalize()} by round",
        "Means of a round's episodes with their 95 % interval.",
        rows,
        partial(draw, scale=measure.scale),
    )


def differences(addresses: Sequence[Address], scope: str) -> dict[str, Any]:
    """The fields of a `Comparison`, with a figure of the differences of the first two groups.

    Raises:
        InputError: see `sandbox.study.compare.compare`.
    """
    found = compare([str(address) for address in addresses])
    titles = {name: _title(name) for name in found.groups[0].measures}
    rows = [
        {"measure": title, **by_scope[scope].as_dict()}
        for comparison in found.comparisons[:1]
        for name, title in titles.items()
        for by_scope in [comparison.measures[name]]
        if by_scope is not None and by_scope[scope].difference is not None
    ]
    about = "The second less the first, with the 95 % interval of each measure by itself."
    return {
        "groups": found.groups,
        "differing_keys": found.differing_keys,
        "comparisons": found.comparisons,
        "notes": found.notes,
        "scope": scope,
        "measures": titles,
        "figure": Figure("differences", "Differences", about, rows, charts.differences),
    }


def _title(measure: str) -> str:
    return _SHARES.get(measure, measure.replace("_", " "))
