"""The list of runs: what it shows of each, filters, sort orders, and groups of the same config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from sandbox.reading import runs
from sandbox.reading.metrics import means_by_round
from sandbox.reading.run_groups import RunSettings, common_name, run_settings, yaml_value
from sandbox.reading.runs import Overview
from sandbox.viewer.addresses import Query
from sandbox.viewer.catalog import Entry, RunCatalog, file_state
from storage.errors import InputError, StorageFault, damage_reported
from storage.reader import Reader


class ListedRun(NamedTuple):
    """A row of the list.

    Attributes:
        key: its name in URLs.
        file: the name of its database file.
        problem: why it cannot be read; None if it can.
        here: its key figures; None if it cannot be read.
        settings: its config; None if it cannot be read.
        trend: the means of the main scale's last stage by round.
    """

    key: str
    file: str
    problem: str | None = None
    here: Overview | None = None
    settings: RunSettings | None = None
    trend: Sequence[float] = ()

    @property
    def words(self) -> str:
        """The text that the filter of the list looks through, in lower case."""
        if self.here is None or self.settings is None:
            return f"{self.key} {self.problem}".lower()
        config = (f"{key}={yaml_value(value)}" for key, value in self.settings.config.items())
        return " ".join((self.key, self.here.world, *self.here.models, *config)).lower()


class RunReader:
    """Reads the rows of the list; that of a finished run again only if its file has changed.

    Args:
        catalog: the runs.
    """

    def __init__(self, catalog: RunCatalog) -> None:
        self._catalog = catalog
        self._finished: dict[Entry, tuple[object, ListedRun]] = {}

    def listed(self) -> list[ListedRun]:
        """All runs of the catalog, in its order."""
        return [self._listed(entry) for entry in self._catalog.entries()]

    def _listed(self, entry: Entry) -> ListedRun:
        state = file_state(entry.address.url)
        cached = self._finished.get(entry)
        if cached is not None and cached[0] == state:
            return cached[1]
        row = self._read(entry)
        if row.here is not None and row.here.finished and state is not None:
            self._finished[entry] = state, row
        return row

    def _read(self, entry: Entry) -> ListedRun:
        row = ListedRun(entry.key, Path(str(entry.address.url.database)).name)
        try:
            with damage_reported(str(entry.address)):
                reader = self._catalog.reader(entry)
                here = runs.overview(reader, entry.address)
                trend = _trend(here, reader)
                return row._replace(here=here, settings=run_settings(reader), trend=trend)
        except (InputError, StorageFault) as error:
            return row._replace(problem=str(error))


def _trend(here: Overview, reader: Reader) -> list[float]:
    if here.main_score is None:
        return []
    return list(means_by_round(reader, here.main_score.measure).values())


def change_marker(listed: Sequence[ListedRun]) -> str:
    """A value that changes whenever any of these runs does."""
    return runs.marker(*((row.key, row.here.mark if row.here else row.problem) for row in listed))


Value = str | float | None


def _last_score(here: Overview) -> float | None:
    return None if here.main_score is None else here.main_score.last


def _change(here: Overview) -> float | None:
    difference = None if here.main_score is None else here.main_score.difference
    return None if difference is None else difference.difference


SORTS: dict[str, tuple[str, Callable[[Overview], Value]]] = {
    "run": ("Run", lambda here: here.run),
    "status": ("Status", lambda here: here.status),
    "episodes": ("Episodes", lambda here: here.episodes),
    "world": ("World", lambda here: here.world),
    "agents": ("Agents", lambda here: here.agents),
    "rounds": ("Rounds", lambda here: here.rounds),
    "seed": ("Seed", lambda here: here.seed),
    "models": ("Models", lambda here: ", ".join(here.models)),
    "score": ("Main scale", _last_score),
    "gain": ("Change", _change),
    "failed": ("No reply", lambda here: here.calls_failed),
    "unparsed": ("Unparseable", lambda here: here.unparsed),
    "time": ("Run time", lambda here: here.seconds),
    "started": ("Started (UTC)", lambda here: here.created),
}
"""By parameter of the URL: the title of the column, and the value that it is sorted by."""

TEXTS = ("run", "status", "world", "models")
"""Columns with text, which a first click sorts ascending; of others the highest come first."""


class Column(NamedTuple):
    """A column header.

    Attributes:
        title: its text.
        number: whether the column has numbers.
        href: the URL that sorts by it, or the other way round.
        sort: ``ascending``, ``descending`` or None: how the list is sorted by it now.
    """

    title: str
    number: bool
    href: str
    sort: str | None


class SeedScores(NamedTuple):
    """A scale, and the mean and the standard deviation over the seeds of a group."""

    scale: str
    mean: float
    deviation: float


class ListedGroup(NamedTuple):
    """Runs with the same config but for seed and name.

    Attributes:
        name: what the names of its runs have in common.
        rows: its runs.
        folded: whether its rows are hidden.
        fold_href: the URL that hides or shows its rows.
    """

    name: str
    rows: Sequence[ListedRun]
    folded: bool
    fold_href: str

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, in ascending order."""
        return sorted({row.here.seed for row in self.rows if row.here})

    @property
    def last_scores(self) -> SeedScores | None:
        """The main scale in the last round over the seeds; None for fewer than two seeds."""
        scores = [(row.here.seed, row.here.main_score) for row in self.rows if row.here]
        found = {seed: one for seed, one in scores if one is not None and one.last is not None}
        if len(found) < 2:
            return None
        lasts = [one.last for one in found.values() if one.last is not None]
        return SeedScores(next(iter(found.values())).scale.title, fmean(lasts), stdev(lasts))


class RunList(NamedTuple):
    """What the page of all runs shows.

    Attributes:
        groups: the runs; without grouping in one group without a name.
        columns: the headers.
        grouped: whether the runs are grouped by config.
        ends: by measure, the lowest and the highest mean of a round of all rows: the ends of the
            axis of the small curves.
    """

    groups: Sequence[ListedGroup]
    columns: Sequence[Column]
    grouped: bool
    ends: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, listed: Sequence[ListedRun], query: Query) -> RunList:
        """Filter, sort and group the runs as a query says: filter, sort, group, fold.

        Raises:
            InputError: there is no such order or grouping.
        """
        words = (query.text("filter") or "").lower().split()
        rows = [row for row in listed if all(word in row.words for word in words)]
        sort = query.choice("sort", [sign + name for name in SORTS for sign in ("", "-")])
        sort = sort or "-started"
        rows = _sorted(rows, sort)
        grouped = query.choice("group", ("config",)) is not None
        groups = _groups(rows, query) if grouped else [ListedGroup("", rows, False, "")]
        return cls(groups, [_column(name, sort, query) for name in SORTS], grouped, _ends(rows))

    @property
    def total(self) -> int:
        """The number of runs that are shown, also in folded groups."""
        return sum(len(group.rows) for group in self.groups)

    def points(self, row: ListedRun) -> str:
        """The small curve of a run: SVG points in a box of 60 by 16."""
        if row.here is None or row.here.main_score is None or len(row.trend) < 2:
            return ""
        low, high = self.ends[row.here.main_score.measure]
        width, height = 58 / (len(row.trend) - 1), 14 / ((high - low) or 1)
        if row.here.main_score.better == "low":
            low, height = high, -height
        return " ".join(
            f"{1 + index * width:.1f},{15 - (value - low) * height:.1f}"
            for index, value in enumerate(row.trend)
        )


def _ends(rows: Sequence[ListedRun]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.here is not None and row.here.main_score is not None:
            values.setdefault(row.here.main_score.measure, []).extend(row.trend)
    return {measure: (min(found), max(found)) for measure, found in values.items() if found}


def _sorted(rows: Sequence[ListedRun], sort: str) -> list[ListedRun]:
    """Rows by a column; those without a value come last in both directions."""
    value = SORTS[sort.removeprefix("-")][1]
    known = [(value(row.here), row) for row in rows if row.here is not None]
    with_value = [(found, row) for found, row in known if found is not None]
    with_value.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    first = [row for _, row in with_value]
    return [*first, *(row for row in rows if row not in first)]


def _column(name: str, sort: str, query: Query) -> Column:
    down = sort == f"-{name}"
    now = "descending" if down else "ascending" if sort == name else None
    following = name if down else f"-{name}" if sort == name else _first(name)
    return Column(SORTS[name][0], name not in TEXTS, query.changed(sort=following), now)


def _first(name: str) -> str:
    """The order of a first click on a column."""
    return name if name in TEXTS else f"-{name}"


def _groups(rows: Sequence[ListedRun], query: Query) -> list[ListedGroup]:
    folded = set((query.text("fold") or "").split(","))
    by_config: dict[str, list[ListedRun]] = {}
    for row in rows:
        by_config.setdefault(row.settings.key if row.settings else row.key, []).append(row)
    groups = []
    for config, members in by_config.items():
        mark = runs.marker(config)[:8]
        fold = ",".join(sorted((folded ^ {mark}) - {""}))
        href = query.changed(fold=fold or None)
        name = common_name([row.key for row in members])
        groups.append(ListedGroup(name, members, mark in folded, href))
    return groups
