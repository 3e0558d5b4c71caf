"""Tables of a report: what happened, scores, missing ratings, agreement, influence, costs.

A table is plain text that both formats lay out; a missing number is a dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from agents.forms import Status
from agents.scale import Declaration, Measure, Scale
from sandbox.datasets.survey import Survey
from sandbox.reading.declaration import measure_ids
from sandbox.reading.figures import capitalized
from sandbox.reading.influence import Influence
from sandbox.reading.metrics import EPISODE, FormCalls, Outcomes
from sandbox.reading.runs import Overview
from sandbox.reading.statistics import clustered, student
from sandbox.viewer.filters import decimal, signed, whole
from storage import tables
from storage.reader import Reader

LISTED = 15
"""How many raters a report lists."""

_LOST = [status.value for status in Status if status is not Status.OK]


class Cell(NamedTuple):
    """A cell of a table: a text, and a detail in small print."""

    text: str
    detail: str = ""


class Table(NamedTuple):
    """A table.

    Attributes:
        name: in addresses.
        title: what it shows.
        about: one sentence on how to read it.
        columns: their names; the first one names the rows, the others hold numbers.
        rows: as many cells as there are columns.
        words: how many columns, from the left, hold words.
    """

    name: str
    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1


class Estimate(NamedTuple):
    """A mean with its 95 % interval, and the number of exchanges that it is of.

    Attributes:
        mean: None without a value.
        low, high: the ends of the interval; None where it is not defined.
        n: the number of values.
        above, below: how many values are above and below 0.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    above: int
    below: int

    @classmethod
    def of(cls, values: NDArray[np.float64], authors: NDArray[np.int64] | None) -> Estimate:
        """The mean of a measure.

        Args:
            values: without NaN.
            authors: the clusters of the values; None: the values are independent.
        """
        found = student(values) if authors is None else clustered(values, authors)
        signs = np.sign(np.round(values, 6))  # means of several ratings can be off by 1e-16
        return cls(
            mean=found.difference,
            low=found.low,
            high=found.high,
            n=len(values),
            above=int((signs > 0).sum()),
            below=int((signs < 0).sum()),
        )

    @property
    def equal(self) -> int:
        """How many values are 0."""
        return self.n - self.above - self.below


class Scope(NamedTuple):
    """A column of a table: its name, and the estimate of each measure by the measure's name."""

    name: str
    means: Mapping[str, Estimate]


def scopes(reader: Reader, found: Outcomes, declared: Declaration) -> list[Scope]:
    """The first round, the last one and all of them; of a run with one round just that.

    Takes 24 bytes an exchange and measure while it reads. An interval over all rounds is
    cluster-robust by author: see `reading.statistics.clustered`.
    """
    rounds, ids = sorted(found), measure_ids(reader)
    if not rounds:
        return []
    rows = {one.name: _values(reader, ids[one.name]) for one in declared.measures}
    ends = [
        Scope(
            f"round {number}",
            {
                name: Estimate.of(some["value"][some["round"] == number], None)
                for name, some in rows.items()
            },
        )
        for number in dict.fromkeys((rounds[0], rounds[-1]))
    ]
    if len(ends) == 1:
        return ends
    overall = {name: Estimate.of(some["value"], some["author"]) for name, some in rows.items()}
    return [*ends, Scope("all rounds", overall)]


_ROW = np.dtype([("round", "i8"), ("author", "i8"), ("value", "f8")])


def _values(reader: Reader, measure: int) -> NDArray[Any]:
    """Round, author and value of each complete exchange that has a measure."""
    e, s = tables.episodes, tables.scores
    query = (
        select(e.c.id, e.c.round, e.c.author, s.c.value)
        .join(e, e.c.id == s.c.episode_id)
        .where(s.c.measure_id == measure)
    )
    rows = (  # the exchanges of nobody are independent
        (round, -number - 1 if author is None else author, value)
        for number, round, author, value in reader.rows(query)
    )
    return np.fromiter(rows, _ROW)


def means(found: Sequence[Scope], declared: Declaration) -> Table:
    """Means of every scale: of each stage that is rated, and of the gain."""
    rows = [
        [_named(one, declared), *(_mean(scope.means[one.name], one.kind) for scope in found)]
        for one in declared.measures
        if any(scope.means[one.name].n for scope in found)
    ]
    return Table(
        "means",
        "Means",
        "With 95 % intervals, and of how many exchanges.",
        ["Rating", *(scope.name for scope in found)],
        rows,
    )


def _named(measure: Measure, declared: Declaration) -> Cell:
    title = capitalized(measure.scale.title)
    if measure.kind == "gain":
        return Cell(f"Gain in {measure.scale.title}")
    return Cell(f"{title}, {stage_title(declared, measure.stage)}", range_of(measure.scale))


def stage_title(declared: Declaration, name: str) -> str:
    """The title of a stage, by its name."""
    return next(stage.title for stage in declared.stages if stage.name == name)


def range_of(scale: Scale) -> str:
    """The range of a scale, and its better end where that is the low one."""
    shown = scale.range.replace("-", "\u2212")
    return shown if scale.better == "high" else f"{shown}, lower is better"


def _mean(one: Estimate, kind: str) -> Cell:
    shown = signed if kind == "gain" else decimal
    ends = "" if one.low is None else f"{shown(one.low)}\xa0to\xa0{shown(one.high)}, "
    return Cell(shown(one.mean), f"{ends}n\xa0{whole(one.n)}")


def changes(found: Sequence[Scope], declared: Declaration) -> Table:
    """The share of exchanges whose last rated stage is better than the first, equal or worse."""
    gains = [one for one in declared.measures if one.kind == "gain"]
    rows = [
        [
            Cell(f"{capitalized(one.scale.title)}: {how}"),
            *(_share(count(scope.means[one.name]), scope.means[one.name].n) for scope in found),
        ]
        for one in gains
        if any(scope.means[one.name].n for scope in found)
        for how, count in _DIRECTIONS.items()
    ]
    pairs = dict.fromkeys((one.stage, one.base or "") for one in gains)
    what = " or ".join(
        f"the {stage_title(declared, last)} better than the {stage_title(declared, first)}"
        for last, first in pairs
    )
    return Table(
        "changes",
        "Better, equal or worse",
        f"The share of exchanges in which the observer rated {what}, equal or worse.",
        ["Rating", *(scope.name for scope in found)],
        rows,
    )


_DIRECTIONS: Mapping[str, Callable[[Estimate], int]] = {
    "better": lambda one: one.above,
    "equal": lambda one: one.equal,
    "worse": lambda one: one.below,
}


def _share(some: int, of: int) -> Cell:
    return Cell(percent(some / of if of else None), f"{whole(some)}\xa0of\xa0{whole(of)}")


def percent(share: float | None, digits: int = 0) -> str:
    """A share for people; a dash where there is none."""
    return "\u2013" if share is None else f"{decimal(100 * share, digits)} %"


def summary(found: Sequence[Scope], declared: Declaration) -> list[str]:
    """The main scale in sentences; nothing where it was not rated."""
    main = declared.main
    if not found or main is None:
        return []
    last = found[-1]
    over = "Over all rounds" if len(found) > 1 else f"In {last.name}"
    rated = [one for one in declared.measures if one.kind == "score" and one.scale == main]
    known = [one for one in rated if last.means[one.name].n]
    if not known:
        return []
    each = [
        f"{decimal(last.means[one.name].mean)} for the {stage_title(declared, one.stage)}"
        for one in known
    ]
    lines = [
        f"{over} the observer's mean rating of {main.title} ({range_of(main)}) is "
        f"{' and '.join(each)}."
    ]
    gain = declared.gain(main)
    if gain is not None and last.means[gain.name].n:
        lines.append(_gained(last.means[gain.name]))
    first = known[0]
    ends = [scope.means[first.name].mean for scope in found[:2]]
    if len(found) > 1 and None not in ends:
        lines.append(
            f"From the first round to the last, the mean of the "
            f"{stage_title(declared, first.stage)} went from {decimal(ends[0])} to "
            f"{decimal(ends[1])}."
        )
    return lines


def _gained(gain: Estimate) -> str:
    ends = "" if gain.low is None else f" (95 % interval {signed(gain.low)} to {signed(gain.high)})"
    return (
        f"Where both could be rated, the mean gain is {signed(gain.mean)}{ends}: "
        f"{percent(gain.above / gain.n)} of exchanges ended better than they began, "
        f"{percent(gain.equal / gain.n)} the same and {percent(gain.below / gain.n)} worse."
    )


def missing(found: Outcomes, declared: Declaration) -> Table:
    """Ratings that were asked for, those that could be parsed, and the status of the others."""
    counts: dict[str, Counter[str]] = {"Peers": Counter(), "Observer": Counter()}
    for measures in found.values():
        for one in declared.measures:
            if one.kind != "gain":
                who = "Peers" if one.kind == "peers" else "Observer"
                counts[who].update(measures.get(one.name, {}))
    rows = [[Cell(who), *_asked(some)] for who, some in counts.items() if some]
    about = "In complete exchanges. No number stands for a rating that is missing."
    return Table("ratings", "Ratings", about, ["Rater", "asked for", "parsed", *_LOST], rows)


def _asked(some: Counter[str]) -> list[Cell]:
    lost = [some[status] for status in _LOST]
    return [Cell(whole(n)) for n in (some.total(), some.total() - sum(lost), *lost)]


def happened(
    here: Overview, found: Outcomes, costs: Sequence[FormCalls], cached: float | None
) -> list[Cell]:
    """What was played and what it took: a number, and what it counts.

    Args:
        here: the run at a glance.
        found: its outcomes.
        costs: its calls.
        cached: the share of prompts from the prefix cache; None where no backend reports it.
    """
    episodes: Counter[str] = sum((some[EPISODE] for some in found.values()), Counter())
    numbers = {
        f"of {whole(here.episodes_total)} exchanges are complete": episodes.total(),
        "of them failed": episodes["failed"],
        "calls": here.calls,
        "of them without a reply": here.calls_failed,
        "with a reply that cannot be used": here.unparsed,
        "tokens of prompts": sum(one.tokens_in for one in costs),
        "tokens of replies": sum(one.tokens_out for one in costs),
    }
    cells = [Cell(whole(n), what) for what, n in numbers.items()]
    share = Cell(percent(cached), "of prompts from the prefix cache")
    return cells if cached is None else [*cells, share]


def prefix_share(reader: Reader) -> float | None:
    """The share of all prompts whose backend told that a prefix cache held; None where none did."""
    c = tables.call_sums
    sums = (func.sum(column) for column in (c.c.told, c.c.cached_tokens, c.c.tokens_told))
    told, cached, tokens = reader.first(select(*sums).where(c.c.run_id == reader.run.id))
    return int(cached) / max(1, int(tokens)) if told else None


def agreement(survey: Survey) -> Table:
    """How far raters of the same text agree."""
    rows = [
        [Cell(one.who.capitalize()), Cell(decimal(one.alpha)), Cell(whole(one.drafts))]
        for one in survey.agreements()
        if one.drafts
    ]
    return Table(
        "agreement-of-raters",
        "Agreement of raters",
        "Krippendorff's alpha for ordinal data: 1 where they agree, 0 as by chance.",
        ["Raters", "alpha", "rated texts"],
        rows,
    )


def influence(raters: Iterable[Influence], people: Mapping[int, Mapping[str, Any]]) -> Table:
    """Whose advice is taken: the most central raters."""
    rows = [[*_rater(one, people[one.agent])] for one in raters if one.agent in people]
    return Table(
        "influence",
        "Whose advice is taken",
        f"Over the whole run; the {LISTED} most central of {whole(len(rows))} raters."
        if len(rows) > LISTED
        else "Over the whole run, the most central first.",
        ["Rater", "starts as", "centrality", "taken up", "gain", "gives", "ratings"],
        rows[:LISTED],
        2,
    )


def _rater(one: Influence, person: Mapping[str, Any]) -> list[Cell]:
    numbers = (
        decimal(one.centrality, 3),
        percent(one.taken, 1),
        signed(one.gain),
        decimal(one.mean),
        whole(one.ratings),
    )
    return [Cell(f"{person['name']} #{one.agent}"), Cell(person["label"]), *map(Cell, numbers)]


def costs(calls: Sequence[FormCalls]) -> Table:
    """What each form has cost."""
    names = ("calls", "without a reply", "unusable", "tokens in", "from the cache", "tokens out")
    rows = [
        [
            Cell(one.form),
            *map(Cell, map(whole, (one.calls, one.failed, one.unparsed, one.tokens_in))),
            Cell(percent(one.prefix_share)),
            Cell(whole(one.tokens_out)),
        ]
        for one in calls
    ]
    about = "Every attempt is a call; tokens are as the backend counts them."
    return Table("calls", "Calls by form", about, ["Form", *names], rows)
