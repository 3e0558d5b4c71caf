"""Renders the comparison of runs: its page, its tables, and its figures as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from agents.scale import Declaration, Measure
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import Figure
from sandbox.reading.runs import overview
from sandbox.reading.text_diff import Piece, changes
from sandbox.study.results import SCOPES, Comparison
from sandbox.viewer import comparison
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.comparison import ComparedRun, RunGroup
from sandbox.viewer.figure_files import TYPES
from sandbox.viewer.queries import MOST_RUNS
from storage.errors import InputError, StorageFault, damage_reported
from storage.exchanges import Exchange, exchange


class Side(NamedTuple):
    """An exchange in one of two runs; None where it is not played."""

    key: str
    declared: Declaration
    exchange: Exchange | None

    @property
    def last_text(self) -> str | None:
        """The text of the last stage."""
        if self.exchange is None or not self.declared.stages:
            return None
        return self.exchange.texts.get(self.declared.stages[-1].name)


class Choices(NamedTuple):
    """What a comparison shows: its runs, the baseline, the measure of the curves, and the rounds.

    The attributes other than `keys` are None where the URL does not name them.
    """

    keys: Sequence[str]
    baseline: str | None
    by: str | None
    scope: str | None

    @classmethod
    def of(cls, keys: Sequence[str], query: Query) -> Choices:
        """Parse the query of a comparison.

        Raises:
            InputError: the baseline is none of the runs, or there is no such scope.
        """
        baseline = query.choice("baseline", keys) if keys else None
        return cls(keys, baseline, query.text("by"), query.choice("scope", SCOPES))

    @property
    def rest(self) -> dict[str, str | None]:
        """The query parameters other than the runs."""
        return {"baseline": self.baseline, "by": self.by, "scope": self.scope}

    def without(self, key: str) -> Choices:
        """The same without one of the runs."""
        baseline = None if self.baseline == key else self.baseline
        return self._replace(keys=[one for one in self.keys if one != key], baseline=baseline)


class ComparisonPages:
    """Renders comparisons of the runs of a catalog.

    Args:
        catalog: the runs.
        links: builds the URLs of links.
        fill: fills a template.
    """

    def __init__(self, catalog: RunCatalog, links: Links, fill: Callable[..., str]) -> None:
        self._catalog = catalog
        self._links = links
        self._fill = fill

    def page(self, keys: list[str], query: Query) -> str:
        """The comparison of those runs that exist, or a form to choose them."""
        there = {entry.key for entry in self._catalog.entries()}
        missing = [key for key in keys if key not in there]
        keys = [key for key in keys if key in there]
        if query.text("baseline") in missing:
            query = Query({**query.values, "baseline": ""})
        chosen = Choices.of(keys, query)
        groups = self._groups(chosen)
        measures, measure = _measures(groups, chosen)
        number = query.number("episode")
        sides = [] if number is None else [self._side(key, number) for key in keys[:2]]
        enough = len(keys) > 1 and measure is not None
        return self._fill(
            "compare.html",
            keys=keys,
            missing=missing,
            chosen=chosen,
            groups=groups,
            baseline=groups[0].runs[0].key if groups else None,
            without={key: self._href(chosen.without(key)) for key in keys},
            suggested=self._suggested(keys, groups) if len(keys) < MOST_RUNS else {},
            measure=measure,
            measures=measures,
            figure=comparison.curves(groups, measure) if enough and measure else None,
            figure_links=self._file_links(chosen, "versus"),
            differences_href=self._href(chosen, "differences", pair=query.number("pair")),
            number=number,
            sides=sides,
            pieces=_pieces(sides),
        )

    def differences(self, keys: list[str], query: Query) -> str:
        """The tables of a comparison, an HTML fragment that its page loads afterwards."""
        chosen = Choices.of(keys, query)
        groups = self._groups(chosen)
        found, scope = self._compared(groups), chosen.scope or SCOPES[0]
        pairs = comparison.paired_runs(groups)
        index = min(query.number("pair") or 0, max(0, len(pairs) - 1))
        figures = comparison.difference_figures(groups, found, scope)
        return self._fill(
            "differences.html",
            chosen=chosen,
            groups=groups,
            found=found,
            compared=[
                (groups[one.groups[1]], one, figure, self._file_links(chosen, figure.name))
                for one, figure in zip(found.comparisons, figures, strict=True)
            ],
            scope=scope,
            spreads=comparison.spread_rows(groups, found),
            spread_href=self._href(chosen, "figures/spread.csv"),
            pair=pairs[index] if pairs else None,
            pairs=[(one, self._href(chosen, pair=place)) for place, one in enumerate(pairs)],
            furthest=comparison.largest_differences(pairs[index]) if pairs else [],
        )

    def figures(self, keys: list[str], query: Query) -> dict[str, Figure]:
        """The figures of a comparison by name, to be saved as files.

        Raises:
            InputError: the runs cannot be compared.
        """
        chosen = Choices.of(keys, query)
        groups = self._groups(chosen)
        _, measure = _measures(groups, chosen)
        found = self._compared(groups)
        figures = [
            *([] if measure is None else [comparison.curves(groups, measure)]),
            *comparison.difference_figures(groups, found, chosen.scope or SCOPES[0]),
        ]
        return {figure.name: figure for figure in figures}

    def spread(self, keys: list[str], query: Query) -> list[dict[str, Any]]:
        """The spread over the seeds of each group, as rows of a file."""
        groups = self._groups(Choices.of(keys, query))
        by_group = comparison.spread_rows(groups, self._compared(groups))
        return [row for rows in by_group.values() for row in rows]

    def _groups(self, chosen: Choices) -> list[RunGroup]:
        """The groups of the runs; that of the baseline comes first."""
        ordered = sorted(chosen.keys, key=lambda key: key != chosen.baseline)
        return comparison.run_groups({key: self._catalog.open(key) for key in ordered})

    def _compared(self, groups: Sequence[RunGroup]) -> Comparison:
        runs = {run.key: run.reader for group in groups for run in group.runs}
        addresses = {key: self._catalog.entry(key).address for key in runs}
        marks = {key: overview(reader, addresses[key]).mark for key, reader in runs.items()}
        return comparison.compared(groups, addresses, marks)

    def _suggested(self, keys: Sequence[str], groups: Sequence[RunGroup]) -> dict[str, list[str]]:
        """Further runs to compare, by why they are comparable."""
        others = []
        for entry in self._catalog.entries():
            if entry.problem is None and entry.key not in keys:
                with suppress(InputError, StorageFault), damage_reported(str(entry.address)):
                    others.append(ComparedRun.of(entry.key, self._catalog.reader(entry)))
        return comparison.suggestions(groups, others)

    def _side(self, key: str, number: int) -> Side:
        reader = self._catalog.open(key)
        return Side(key, declaration_of(reader), exchange(reader, number))

    def _href(self, chosen: Choices, part: str = "", **query: object) -> str:
        return self._links.compare(*chosen.keys, part=part, **chosen.rest, **query)

    def _file_links(self, chosen: Choices, name: str) -> list[tuple[str, str]]:
        files = [(kind.upper(), self._href(chosen, f"figures/{name}.{kind}")) for kind in TYPES]
        paper = self._href(chosen, f"figures/{name}.pdf", size="paper")
        return [*files, ("PDF for a paper", paper)]


def _measures(
    groups: Sequence[RunGroup], chosen: Choices
) -> tuple[Mapping[str, Measure], Measure | None]:
    """The measures of the runs, and the one whose curves are shown; None without measures.

    Raises:
        InputError: there is no such measure.
    """
    measures = comparison.all_measures([run.reader for group in groups for run in group.runs])
    if chosen.by is not None and measures and chosen.by not in measures:
        raise InputError(f"by: found {chosen.by[:40]}; expected {', '.join(measures)}")
    return measures, measures.get(chosen.by or next(iter(measures), ""))


def _pieces(sides: Sequence[Side]) -> list[Piece] | None:
    """The words that differ between the last texts of both sides."""
    return changes(*(side.last_text for side in sides)) if len(sides) == 2 else None
