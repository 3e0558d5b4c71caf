"""Tables of a report: what happened, scores, missing ratings, agreement, influence, costs.

A table is plain text that both formats lay out; a number that nobody measured is a dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select

from agents.forms import Status
from sandbox.datasets.survey import Survey
from sandbox.reading.declaration import measure_ids
from sandbox.reading.figures import PEERS, SCALES, interval
from sandbox.reading.influence import Influence
from sandbox.reading.metrics import EPISODE, FormCalls, Outcomes, Spread
from sandbox.reading.runs import Overview
from sandbox.reading.statistics import clustered
from sandbox.viewer.filters import decimal, signed, whole
from storage import tables
from storage.reader import Reader

LISTED = 15
"""How many raters a report lists."""

_STAGES = ("draft", "revision")
_MEASURES = [*(f"{stage}_{scale}" for scale in SCALES for stage in _STAGES)]
_LOST = [status.value for status in Status if status is not Status.OK]


class Cell(NamedTuple):
    """What stands in a table: a text, and what is told beside it in small."""

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
    """A mean with its 95 % interval (None where it cannot be told), of `n` values."""

    mean: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Estimate:
        """Of how often there was which outcome, as of independent values; see `interval`."""
        spread = Spread.of(counts)
        return cls(spread.mean, *interval(spread), spread.n)


class Scope(NamedTuple):
    """Which exchanges a column is about: its name, and by measure the mean and the outcomes."""

    name: str
    means: Mapping[str, Estimate]
    counts: Mapping[str, Mapping[str, int]]


def scopes(reader: Reader, found: Outcomes) -> list[Scope]:
    """The first round, the last one and all of them; of a run with one round just that.

    An interval over all rounds is cluster-robust by author: see `reading.statistics.clustered`.
    """
    rounds = sorted(found)
    if not rounds:
        return []
    ends = [_round(f"round {number}", found[number]) for number in {rounds[0]: 0, rounds[-1]: 0}]
    if len(ends) == 1:
        return ends
    counts: dict[str, Counter[str]] = {}
    for measures in found.values():
        for name, some in measures.items():
            counts.setdefault(name, Counter()).update(some)
    return [*ends, Scope("all rounds", over_all(reader), counts)]


def _round(name: str, measures: Mapping[str, Mapping[str, int]]) -> Scope:
    wanted = [*_MEASURES, *(f"{scale}_gain" for scale in SCALES)]
    return Scope(name, {one: Estimate.of(measures.get(one, {})) for one in wanted}, measures)


def over_all(reader: Reader) -> dict[str, Estimate]:
    """Means over all complete exchanges, by measure; 40 bytes an exchange while it counts."""
    e, s = tables.episodes, tables.scores
    found = {}
    for name, number in measure_ids(reader).items():
        query = select(e.c.id, e.c.author, s.c.value).where(
            s.c.measure_id == number, s.c.episode_id == e.c.id
        )
        columns = np.dtype([("author", "i8"), ("value", "f8")])
        rows = np.fromiter((_value(*row) for row in reader.rows(query)), columns)
        found[name] = _clustered(rows["value"], rows["author"])
    return found


def _value(number: int, author: int | None, value: float) -> tuple[int, float]:
    return -number - 1 if author is None else author, value  # nobody's exchanges are independent


def _clustered(values: Any, authors: Any) -> Estimate:
    made = clustered(values, authors)
    return Estimate(made["difference"], made["low"], made["high"], made["n"])


def scores(found: Sequence[Scope]) -> Table:
    """What the observer gave drafts and revisions, and by how much revisions are higher."""
    rows = []
    for scale in SCALES:
        for what, name in _of(scale).items():
            cells = [_mean(scope.means[name], name.endswith("_gain")) for scope in found]
            if any(scope.means[name].n for scope in found):
                rows.append([Cell(what), *cells])
    return Table(
        "means",
        "Means",
        "Of the observer's ratings from 1 to 7, with 95 % intervals, and of how many.",
        ["Rating", *(scope.name for scope in found)],
        rows,
    )


def _of(scale: str) -> dict[str, str]:
    name = scale.capitalize()
    return {
        f"{name} of drafts": f"draft_{scale}",
        f"{name} of revisions": f"revision_{scale}",
        f"Rise in {scale}": f"{scale}_gain",
    }


def _mean(one: Estimate, is_rise: bool) -> Cell:
    shown = signed if is_rise else decimal
    ends = "" if one.low is None else f"{shown(one.low)}\xa0to\xa0{shown(one.high)}, "
    return Cell(shown(one.mean), f"{ends}n\xa0{whole(one.n)}")


def changes(found: Sequence[Scope]) -> Table:
    """The share of revisions that are rated better than their draft, equal or worse."""
    rows = []
    for scale in SCALES:
        counted = [_signs(scope.counts.get(f"{scale}_gain", {})) for scope in found]
        if any(map(sum, counted)):
            for place, how in enumerate(("better", "equal", "worse")):
                cells = [_share(signs[place], sum(signs)) for signs in counted]
                rows.append([Cell(f"{scale.capitalize()}: {how}"), *cells])
    return Table(
        "changes",
        "Revisions against drafts",
        "The share of revisions that the observer rated higher than their draft, the same, lower.",
        ["Revision", *(scope.name for scope in found)],
        rows,
    )


def _signs(gains: Mapping[str, int]) -> tuple[int, int, int]:
    """How many are above, at and below 0."""
    read = [(float(gain), n) for gain, n in gains.items()]
    above, below = (sum(n for gain, n in read if sign * gain > 0) for sign in (1, -1))
    return above, sum(n for gain, n in read if gain == 0), below


def _share(some: int, of: int) -> Cell:
    return Cell(percent(some / of if of else None), f"{whole(some)}\xa0of\xa0{whole(of)}")


def percent(share: float | None, digits: int = 0) -> str:
    """A share for people; a dash where there is none."""
    return "\u2013" if share is None else f"{decimal(100 * share, digits)} %"


def summary(found: Sequence[Scope]) -> list[str]:
    """The scores in sentences; nothing where nobody scored."""
    if not found:
        return []
    lines, last = [], found[-1]
    drafts, revisions, rise = (last.means[name] for name in _of("alignment").values())
    if rise.n:
        told = f" (95 % interval {_span(rise)})" if rise.low is not None else ""
        over = "Over all rounds" if len(found) > 1 else f"In {last.name}"
        better, equal, worse = _signs(last.counts["alignment_gain"])
        lines.append(
            f"{over} the observer gave drafts {decimal(drafts.mean)} in alignment and revisions "
            f"{decimal(revisions.mean)}; where both can be read, the rise is {signed(rise.mean)}"
            f"{told}. {percent(better / rise.n)} of revisions were rated better than their draft, "
            f"{percent(equal / rise.n)} the same and {percent(worse / rise.n)} worse."
        )
    first = [scope.means["draft_alignment"].mean for scope in found[:2]]
    if len(found) > 1 and None not in first:
        lines.append(
            f"From the first round to the last, drafts went from {decimal(first[0])} to "
            f"{decimal(first[1])}."
        )
    return lines


def _span(one: Estimate) -> str:
    return f"{signed(one.low)} to {signed(one.high)}"


def missing(found: Outcomes) -> Table:
    """Ratings that were asked for, those that can be read, and what became of the others."""
    counts: dict[str, Counter[str]] = {"Peers": Counter(), "Observer": Counter()}
    for measures in found.values():
        counts["Peers"].update(measures.get(PEERS, {}))
        for name in _MEASURES:
            counts["Observer"].update(measures.get(name, {}))
    rows = [[Cell(who), *_asked(some)] for who, some in counts.items() if some]
    about = "In complete exchanges. None of the missing ones is a number anywhere."
    return Table("ratings", "Ratings", about, ["Whose", "asked for", "read", *_LOST], rows)


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
        cached: the share of prompts that came from a prefix cache; None where no backend told.
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
    told = [Cell(whole(n), what) for what, n in numbers.items()]
    share = Cell(percent(cached), "of prompts from the prefix cache")
    return told if cached is None else [*told, share]


def prefix_share(reader: Reader) -> float | None:
    """The share of all prompts whose backend told that a prefix cache held; None where none did."""
    c = tables.call_sums
    sums = (func.sum(column) for column in (c.c.told, c.c.cached_tokens, c.c.tokens_told))
    told, cached, tokens = reader.first(select(*sums).where(c.c.run_id == reader.run.id))
    return int(cached) / max(1, int(tokens)) if told else None


def agreement(survey: Survey) -> Table:
    """How far raters of the same draft agree, and whether longer answers are rated higher."""
    rows = [
        [Cell(one.who.capitalize()), Cell(decimal(one.alpha)), Cell(whole(one.drafts))]
        for one in survey.agreements()
        if one.drafts
    ]
    return Table(
        "agreement-of-raters",
        "Agreement of raters",
        "Krippendorff's alpha for ordinal data: 1 where they agree, 0 as chance would have it.",
        ["Who rates alignment", "alpha", "drafts"],
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
        ["Rater", "starts as", "centrality", "taken up", "rise", "gives", "ratings"],
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
