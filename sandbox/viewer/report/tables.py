"""Tables of a report: totals, scores, missing ratings, agreement, influence, costs.

Tables are plain text, which the HTML and Markdown templates lay out; None is an en dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from agents.forms import READ, Status
from agents.scale import Declaration, Measure, Scale
from sandbox.datasets.survey import Survey
from sandbox.reading.declaration import measure_ids
from sandbox.reading.figures import capitalized
from sandbox.reading.influence import Influence
from sandbox.reading.metrics import EPISODE, FormCalls, Outcomes
from sandbox.reading.raters import FALSE_DISCOVERIES, FEWEST_TEXTS, RaterRow
from sandbox.reading.runs import Overview
from sandbox.reading.sessions import Environment, Session
from sandbox.reading.statistics import clustered, student
from sandbox.text import duration
from sandbox.viewer.filters import decimal, integer, p_value, signed
from storage import tables
from storage.reader import Reader

LISTED = 15
"""The number of raters that a report lists."""

_MISSING = [status.value for status in Status if status not in READ]


class Cell(NamedTuple):
    """A table cell: a text, and a detail in small print."""

    text: str
    detail: str = ""


class Table(NamedTuple):
    """A table.

    Attributes:
        name: the HTML id.
        title: the heading.
        about: one sentence on how to read it.
        columns: the column headers.
        rows: the cells of each row, one for each column.
        text_columns: the number of columns, from the left, that contain text; the others contain
            numbers.
    """

    name: str
    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1


class Estimate(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        mean: None if there are no values.
        low, high: the bounds of the interval; None if it is not defined.
        n: the number of values.
        above, below: the number of values above and below 0.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    above: int
    below: int

    @classmethod
    def of(cls, values: NDArray[np.float64], authors: NDArray[np.int64] | None) -> Estimate:
        """Estimate the mean of a measure.

        Args:
            values: the values, without NaN.
            authors: the cluster of each value; None: the values are independent.
        """
        estimate = student(values) if authors is None else clustered(values, authors)
        signs = np.sign(np.round(values, 6))  # means of ratings have rounding errors of 1e-16
        return cls(
            mean=estimate.difference,
            low=estimate.low,
            high=estimate.high,
            n=len(values),
            above=int((signs > 0).sum()),
            below=int((signs < 0).sum()),
        )

    @property
    def equal(self) -> int:
        """The number of values equal to 0."""
        return self.n - self.above - self.below


class Scope(NamedTuple):
    """A set of rounds: its name, and the estimate of each measure by the measure's name."""

    name: str
    means: Mapping[str, Estimate]


def scopes(reader: Reader, counts: Outcomes, declared: Declaration) -> list[Scope]:
    """Estimates for the first round, the last round and all rounds; only one scope for one round.

    Needs 24 bytes per exchange and measure. Intervals over all rounds are clustered by author: see
    `reading.statistics.clustered`.
    """
    rounds, ids = sorted(counts), measure_ids(reader)
    if not rounds:
        return []
    values = {measure.name: _values(reader, ids[measure.name]) for measure in declared.measures}
    ends = [
        Scope(
            f"round {number}",
            {
                name: Estimate.of(rows["value"][rows["round"] == number], None)
                for name, rows in values.items()
            },
        )
        for number in dict.fromkeys((rounds[0], rounds[-1]))
    ]
    if len(ends) == 1:
        return ends
    overall = {name: Estimate.of(rows["value"], rows["author"]) for name, rows in values.items()}
    return [*ends, Scope("all rounds", overall)]


_ROW = np.dtype([("round", "i8"), ("author", "i8"), ("value", "f8")])


def _values(reader: Reader, measure: int) -> NDArray[Any]:
    """Round, author and value of each complete exchange in which a measure is defined."""
    e, s = tables.episodes, tables.scores
    query = (
        select(e.c.id, e.c.round, e.c.author, s.c.value)
        .join(e, e.c.id == s.c.episode_id)
        .where(s.c.measure_id == measure)
    )
    rows = (  # every exchange without an author is a cluster of its own
        (round, -number - 1 if author is None else author, value)
        for number, round, author, value in reader.rows(query)
    )
    return np.fromiter(rows, _ROW)


def means(found: Sequence[Scope], declared: Declaration) -> Table:
    """Means of every measure: the scores of each stage, the peers' ratings and the gains."""
    rows = [
        [
            _row_header(measure, declared),
            *(_mean(scope.means[measure.name], measure.kind) for scope in found),
        ]
        for measure in declared.measures
        if any(scope.means[measure.name].n for scope in found)
    ]
    return Table(
        "means",
        "Means",
        "Mean, 95 % interval, and number of exchanges (n).",
        ["Measure", *(scope.name for scope in found)],
        rows,
    )


def _row_header(measure: Measure, declared: Declaration) -> Cell:
    title = capitalized(measure.scale.title)
    if measure.kind == "gain":
        return Cell(f"Gain in {measure.scale.title}")
    return Cell(f"{title}, {stage_title(declared, measure.stage)}", range_of(measure.scale))


def stage_title(declared: Declaration, name: str) -> str:
    """The title of the stage with this name."""
    return next(stage.title for stage in declared.stages if stage.name == name)


def range_of(scale: Scale) -> str:
    """The range of a scale, with a note if lower is better."""
    shown = scale.range.replace("-", "\u2212")
    return shown if scale.better == "high" else f"{shown}, lower is better"


def _mean(estimate: Estimate, kind: str) -> Cell:
    number = signed if kind == "gain" else decimal
    low, high, n = number(estimate.low), number(estimate.high), integer(estimate.n)
    interval = "" if estimate.low is None else f"{low}\xa0to\xa0{high}, "
    return Cell(number(estimate.mean), f"{interval}n\xa0{n}")


def changes(found: Sequence[Scope], declared: Declaration) -> Table:
    """The shares of exchanges that improved, were unchanged or got worse, by scale."""
    gains = [measure for measure in declared.measures if measure.kind == "gain"]
    rows = [
        [
            Cell(f"{capitalized(gain.scale.title)}: {direction}"),
            *(_share(count(scope.means[gain.name]), scope.means[gain.name].n) for scope in found),
        ]
        for gain in gains
        if any(scope.means[gain.name].n for scope in found)
        for direction, count in _DIRECTIONS.items()
    ]
    raters = dict.fromkeys(_RATERS[gain.scale.rater] for gain in gains)
    pairs = dict.fromkeys((gain.stage, gain.base or "") for gain in gains)
    comparison = " or ".join(
        f"the {stage_title(declared, last)} better than the {stage_title(declared, first)}"
        for last, first in pairs
    )
    return Table(
        "changes",
        "Better, equal or worse",
        f"The share of exchanges in which {' or '.join(raters) or 'the observer'} rated "
        f"{comparison}, equal or worse.",
        ["Measure", *(scope.name for scope in found)],
        rows,
    )


_RATERS = {"observer": "the observer", "author": "the user", "peers": "the peers"}

_DIRECTIONS: Mapping[str, Callable[[Estimate], int]] = {
    "better": lambda estimate: estimate.above,
    "equal": lambda estimate: estimate.equal,
    "worse": lambda estimate: estimate.below,
}


def _share(part: int, total: int) -> Cell:
    share = part / total if total else None
    return Cell(percent(share), f"{integer(part)}\xa0of\xa0{integer(total)}")


def percent(share: float | None, digits: int = 0) -> str:
    """Format a share as a percentage; an en dash for None."""
    return "\u2013" if share is None else f"{decimal(100 * share, digits)} %"


def summary(found: Sequence[Scope], declared: Declaration) -> list[str]:
    """Sentences on the main scale; empty if it was not rated."""
    main = declared.main
    if not found or main is None:
        return []
    last = found[-1]
    over = "Over all rounds" if len(found) > 1 else f"In {last.name}"
    scores = [
        measure
        for measure in declared.measures
        if measure.kind == "score" and measure.scale == main and last.means[measure.name].n
    ]
    if not scores:
        return []
    each = [
        f"{decimal(last.means[score.name].mean)} for the {stage_title(declared, score.stage)}"
        for score in scores
    ]
    sentences = [
        f"{over} {main.whose} mean rating of {main.title} ({range_of(main)}) is "
        f"{' and '.join(each)}."
    ]
    gain = declared.gain(main)
    if gain is not None and last.means[gain.name].n:
        sentences.append(_gain_sentence(last.means[gain.name]))
    return sentences


def _gain_sentence(gain: Estimate) -> str:
    low, high = signed(gain.low), signed(gain.high)
    interval = "" if gain.low is None else f" (95 % interval {low} to {high})"
    return (
        f"Over exchanges with both ratings the mean gain is {signed(gain.mean)}{interval}: "
        f"{percent(gain.above / gain.n)} improved, {percent(gain.equal / gain.n)} were unchanged "
        f"and {percent(gain.below / gain.n)} got worse."
    )


def missing(counts: Outcomes, declared: Declaration) -> Table:
    """The number of ratings requested and parsed, and the others by status."""
    by_rater: dict[str, Counter[str]] = {
        rater: Counter() for rater in ("Peers", "User", "Observer")
    }
    for measures in counts.values():
        for measure in declared.measures:
            if measure.kind != "gain":
                by_rater[measure.scale.who.capitalize()].update(measures.get(measure.name, {}))
    rows = [
        [Cell(rater), *_by_status(statuses)] for rater, statuses in by_rater.items() if statuses
    ]
    about = "Complete exchanges only; missing ratings are never imputed."
    return Table("ratings", "Ratings", about, ["Rater", "requested", "parsed", *_MISSING], rows)


def _by_status(statuses: Counter[str]) -> list[Cell]:
    missing = [statuses[status] for status in _MISSING]
    total = statuses.total()
    return [Cell(integer(n)) for n in (total, total - sum(missing), *missing)]


def totals(
    here: Overview, counts: Outcomes, costs: Sequence[FormCalls], cached: float | None
) -> list[Cell]:
    """Totals of exchanges, calls and tokens: each a number and its description.

    Args:
        here: the overview of the run.
        counts: the outcomes of its exchanges.
        costs: its calls.
        cached: the share of prompt tokens from the prefix cache; None if no backend reports it.
    """
    episodes: Counter[str] = sum((measures[EPISODE] for measures in counts.values()), Counter())
    numbers = {
        f"of {integer(here.episodes_total)} exchanges are complete": episodes.total(),
        "failed exchanges": episodes["failed"],
        "calls": here.calls,
        "calls without a reply": here.calls_failed,
        "calls with an unparseable reply": here.unparsed,
        **({"calls whose reply was read leniently": here.lenient} if here.lenient else {}),
        **(
            {"truncated replies kept to a whole sentence": here.shortened} if here.shortened else {}
        ),
        "prompt tokens": sum(one.tokens_in for one in costs),
        "reply tokens": sum(one.tokens_out for one in costs),
    }
    cells = [Cell(integer(n), description) for description, n in numbers.items()]
    share = Cell(percent(cached), "of prompt tokens from the prefix cache")
    return cells if cached is None else [*cells, share]


def prefix_share(reader: Reader) -> float | None:
    """The share of prompt tokens from a prefix cache; None if no backend reports it."""
    c = tables.call_sums
    sums = (func.sum(column) for column in (c.c.told, c.c.cached_tokens, c.c.tokens_told))
    reported, cached, tokens = reader.first(select(*sums).where(c.c.run_id == reader.run.id))
    return int(cached) / max(1, int(tokens)) if reported else None


def agreement(survey: Survey) -> Table:
    """Inter-rater agreement."""
    rows = [
        [
            Cell(who.capitalize()),
            Cell(
                decimal(one.alpha),
                "" if one.low is None else f"{decimal(one.low)}\xa0to\xa0{decimal(one.high)}",
            ),
            Cell(integer(one.texts)),
        ]
        for who, one in survey.agreements().items()
        if one.texts
    ]
    return Table(
        "agreement-of-raters",
        "Agreement of raters",
        "Krippendorff's alpha of interval data, with its 95 % bootstrap interval: 1 is perfect "
        "agreement, 0 is chance level.",
        ["Raters", "alpha", "rated texts"],
        rows,
    )


def rater_summary(rows: Sequence[RaterRow]) -> str:
    """One sentence on how many raters differ from their co-raters."""
    tested = [row for row in rows if row.adjusted is not None]
    if not tested:
        return f"No rater can be compared: none has {FEWEST_TEXTS} texts that others rated too."
    differing = [row for row in tested if row.differs]
    higher = sum((row.deviation or 0) > 0 for row in differing)
    sides = f": {integer(higher)} rate higher, {integer(len(differing) - higher)} lower"
    return (
        f"{integer(len(differing))} of {integer(len(tested))} raters differ from their co-raters "
        f"(Benjamini-Hochberg, {percent(FALSE_DISCOVERIES)}){sides if differing else ''}."
    )


def leniency(rows: Sequence[RaterRow]) -> Table:
    """The most and the least lenient raters.

    Args:
        rows: all raters, the most lenient first.
    """
    known = [row for row in rows if row.deviation is not None]
    few = len(known) <= 2 * LISTED
    shown = known if few else [*known[:LISTED], *known[-LISTED:]]
    which = "" if few else f" The {LISTED} highest and the {LISTED} lowest of {len(known):,}."
    return Table(
        "leniency",
        "Raters",
        f"{rater_summary(rows)} Leniency: mean of a rater's rating minus the mean of the others' "
        f"of the same text. Distance: root mean square of these differences.{which}",
        [
            "Rater",
            "starting label",
            "texts",
            "mean given",
            "leniency",
            "adjusted p",
            "distance",
            "missing",
        ],
        [
            [
                Cell(f"{row.name} #{row.agent}"),
                Cell(row.label),
                Cell(integer(row.n)),
                Cell(decimal(row.mean)),
                Cell(signed(row.deviation), _signed_ends(row)),
                Cell(p_value(row.adjusted)),
                Cell(decimal(row.distance)),
                Cell(integer(row.missing)),
            ]
            for row in shown
        ],
        2,
    )


def _signed_ends(row: RaterRow) -> str:
    return "" if row.low is None else f"{signed(row.low)}\xa0to\xa0{signed(row.high)}"


def influence(raters: Iterable[Influence], agents: Mapping[int, RaterRow]) -> Table:
    """The raters with the highest centrality."""
    rows = [[*_rater(rater, agents[rater.agent])] for rater in raters if rater.agent in agents]
    return Table(
        "influence",
        "Most influential raters",
        f"Over the whole run, by PageRank; the first {LISTED} of {integer(len(rows))} raters."
        if len(rows) > LISTED
        else "Over the whole run, by PageRank.",
        [
            "Rater",
            "starting label",
            "PageRank",
            "advice adopted",
            "authors' gain",
            "mean rating given",
            "ratings",
        ],
        rows[:LISTED],
        2,
    )


def _rater(rater: Influence, agent: RaterRow) -> list[Cell]:
    numbers = (
        decimal(rater.centrality, 3),
        percent(rater.taken, 1),
        signed(rater.gain),
        decimal(rater.mean),
        integer(rater.ratings),
    )
    return [Cell(f"{agent.name} #{rater.agent}"), Cell(agent.label), *map(Cell, numbers)]


def history(sessions: Sequence[Session]) -> Table:
    """How often a run was stopped and resumed, and which settings changed; no value is shown."""
    rows = [
        [
            Cell(str(one.number)),
            Cell(f"{one.started[:16].replace('T', ' ')} UTC"),
            Cell(one.status),
            Cell(", ".join(one.changes) or "none"),
            Cell("unknown" if one.seconds is None else duration(one.seconds)),
            Cell(integer(one.calls)),
        ]
        for one in sessions
    ]
    about = "A session is one process that worked on the run; calls are those that it added."
    columns = ["Session", "started", "end", "changed settings", "lasted", "calls"]
    return Table("sessions", "Sessions", about, columns, rows, 4)


def environment(played_with: Environment) -> Table:
    """What some sessions of a run were played with."""
    rows = [[Cell(what), Cell(value)] for what, value in played_with.words]
    return Table(
        f"environment-{played_with.sessions[0]}", played_with.title, "", ["what", "value"], rows, 2
    )


def costs(calls: Sequence[FormCalls]) -> Table:
    """The number of calls and tokens of each prompt template."""
    names = ("calls", "no reply", "unparseable", "tokens in", "from prefix cache", "tokens out")
    rows = [
        [
            Cell(form.form),
            *map(Cell, map(integer, (form.calls, form.failed, form.unparsed, form.tokens_in))),
            Cell(percent(form.prefix_share)),
            Cell(integer(form.tokens_out)),
        ]
        for form in calls
    ]
    about = "Every attempt is a call; tokens are counted by the backend."
    return Table("calls", "Calls by prompt template", about, ["Prompt template", *names], rows)
