"""Figures of a run, as the viewer and reports show them: rows, and how the numbers came about.

A figure's rows are plain and can be taken away as CSV; what draws
them is in `sandbox.reading.charts`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from textwrap import wrap
from typing import Any, NamedTuple

from sqlalchemy import func, select

from agents.scale import Declaration, Measure, Scale
from sandbox.reading import charts, pictures
from sandbox.reading.agents import persona_name, ratings_given
from sandbox.reading.charts import Rows, Spec
from sandbox.reading.declaration import declaration_of
from sandbox.reading.metrics import AGREEMENT, Outcomes, Spread, outcomes, ratings_in
from sandbox.reading.statistics import t_quantile
from sandbox.text import escape_controls, short
from storage import tables
from storage.reader import Reader

Row = dict[str, Any]

_LETTERS = 60  # of a text in a picture
_PIXELS = 7  # of a letter of a subtitle


class Figure(NamedTuple):
    """A figure.

    Attributes:
        name: in addresses and file names.
        title: what it shows.
        about: what the marks are, and how the numbers came about.
        rows: what is drawn.
        draw: makes the Vega-Lite spec of rows.
    """

    name: str
    title: str
    about: str
    rows: list[Row]
    draw: Callable[[Rows], Spec]

    @property
    def spec(self) -> Spec:
        """The Vega-Lite spec, in the colours of the style sheet; see `charts.themed`."""
        return self.draw(self.rows)

    @property
    def columns(self) -> list[str]:
        """The names of what rows hold."""
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def svg(
        self, dark: bool = False, width: int = pictures.WIDTH, subtitle: str | None = None
    ) -> str:
        """The figure as a picture.

        Args:
            dark: in the colours of the dark theme.
            width: pixels.
            subtitle: what stands below the title; without it the picture has no title either.
        """
        spec = self.draw([_short(row) for row in self.rows])
        if subtitle is not None:
            lines = wrap(escape_controls(subtitle), width // _PIXELS)
            spec = charts.headed(spec, self.title, lines)
        return pictures.svg(spec, self.name, dark, width)


def _short(row: Row) -> Row:
    """A row whose texts are short and have no character that an SVG cannot contain."""
    return {
        key: short(value, _LETTERS) if isinstance(value, str) else value
        for key, value in row.items()
    }


def interval(spread: Spread) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean, as of independent values, by Student's t."""
    if spread.mean is None or spread.error is None:
        return None, None
    reach = t_quantile(0.975, spread.n - 1) * spread.error
    return spread.mean - reach, spread.mean + reach


_BAND = "the band is the 95 % interval of a round's mean (Student's t over its ratings)"

_SUBJECTS = {"stage": "", "agent": " of each agent", "pair": " of each pair of agents"}


class Series(NamedTuple):
    """Ratings that a figure shows in one colour.

    Attributes:
        who: who gave them: the observer or the peers.
        stage: the title of the stage that was rated.
        measure: what they are ratings of.
        colour: the same for a stage in every figure.
    """

    who: str
    stage: str
    measure: Measure
    colour: str


def series_of(declared: Declaration, scale: Scale) -> list[Series]:
    """The ratings that are given on a scale: of each stage, then by peers on the same range."""
    titles = {stage.name: stage.title for stage in declared.stages}
    colours = charts.stage_colours([stage.name for stage in declared.stages])
    found = []
    for measure in declared.measures:
        if measure.kind == "score" and measure.scale == scale:
            found.append(Series("observer", titles[measure.stage], measure, colours[measure.stage]))
        same = declared.same_as(measure)
        if measure.kind == "peers" and scale in (measure.scale, same.scale if same else None):
            found.append(Series("peers", titles[measure.stage], measure, charts.PEERS))
    return found


def drawn_scales(declared: Declaration) -> list[Scale]:
    """The scales that have figures of their own: the observer's, and the peers' if it is needed.

    Peers' ratings are drawn with those of the observer where both scales have the same meaning and
    the same range.
    """
    peers = [one for one in declared.measures if one.kind == "peers"]
    return [*declared.observed, *(one.scale for one in peers if declared.same_as(one) is None)]


def by_round(found: Outcomes, declared: Declaration, scale: Scale) -> Figure:
    """Means of one scale by round: a series for each stage, and for the peers."""
    series = series_of(declared, scale)
    names = {("peers" if one.who == "peers" else one.stage): one for one in series}
    return Figure(
        f"{scale.name}-by-round",
        f"{sentence(scale.title)} by round",
        f"Mean of {_raters(series, scale)}; {_BAND}.",
        list(curve_rows(found, {name: one.measure.name for name, one in names.items()})),
        partial(
            charts.curves,
            scale=scale,
            colours={name: one.colour for name, one in names.items()},
        ),
    )


def _raters(series: Sequence[Series], scale: Scale) -> str:
    """Whose ratings a figure shows, in words."""
    words = []
    if any(one.who == "observer" for one in series):
        words.append(f"the observer's ratings{_SUBJECTS[scale.subject]}")
    words += [f"the peers' ratings of the {one.stage}" for one in series if one.who == "peers"]
    return " and of ".join(words)


def sentence(title: str) -> str:
    """A title with a capital letter at its beginning."""
    return title[:1].upper() + title[1:]


def curve_rows(found: Outcomes, series: Mapping[str, str], column: str = "series") -> Iterator[Row]:
    """Means by round, with their 95 % intervals: a row for each series that has values.

    Args:
        found: of a run.
        series: the measure of each series, by its name.
        column: where the name of the series stands.
    """
    for round, measures in found.items():
        for name, measure in series.items():
            spread = Spread.of(measures.get(measure, {}))
            if spread.n:
                low, high = interval(spread)
                ends = {"low": low, "high": high, "n": spread.n}
                yield {"round": round, column: name, "mean": spread.mean, **ends}


def plane(found: Outcomes, declared: Declaration) -> Figure | None:
    """The first two scales of the observer against each other, by round, with the Pareto front.

    Returns:
        None where the observer has fewer than two scales.
    """
    finals = [one for one in map(declared.final, declared.observed) if one is not None][:2]
    if len(finals) < 2:
        return None
    x, y = (one.scale for one in finals)
    points = []
    for round, measures in found.items():
        means = [Spread.of(measures.get(one.name, {})).mean for one in finals]
        if None not in means:
            points.append({"round": round, x.name: means[0], y.name: means[1]})
    rows = [{**point, "front": _is_front(point, points, (x, y))} for point in points]
    titles = {stage.name: stage.title for stage in declared.stages}
    stages = " and the ".join(dict.fromkeys(titles[one.stage] for one in finals))
    return Figure(
        "plane",
        f"{sentence(x.title)} and {y.title}",
        f"Means of a round's ratings of the {stages}, joined in the order of rounds; ringed: the "
        "Pareto front, rounds that no other round beats on both scales.",
        rows,
        partial(charts.plane, x=x, y=y),
    )


def _is_front(point: Row, points: Sequence[Row], scales: Sequence[Scale]) -> bool:
    gains = (
        [scale.gain(point[scale.name], other[scale.name]) for scale in scales] for other in points
    )
    return not any(min(gain) >= 0 and max(gain) > 0 for gain in gains)


def distribution(found: Outcomes, declared: Declaration, scale: Scale) -> Figure:
    """How often each rating was given, by rater and stage."""
    series = sorted(series_of(declared, scale), key=lambda one: one.who != "peers")
    names = {f"{one.who}, {one.stage}": one for one in series}
    counts = {name: _ratings(found, one.measure) for name, one in names.items()}
    if scale.integer:
        shown: Sequence[float] = range(int(scale.low), int(scale.high) + 1)
    else:
        shown = sorted(set().union(*counts.values()))
    rows = [
        {"rating": rating, "who": name, "count": count[rating]}
        for name, count in counts.items()
        for rating in shown
    ]
    return Figure(
        f"{scale.name}-ratings",
        "Peers' ratings" if scale.rater == "peers" else f"Ratings of {scale.title}",
        "How often each rating was given, over all rounds, as a share of the ratings of the same "
        "rater and stage.",
        rows,
        partial(
            charts.distribution,
            scale=scale,
            colours={name: one.colour for name, one in names.items()},
        ),
    )


def _ratings(found: Outcomes, measure: Measure) -> Counter[float]:
    """How often each rating was given, over all rounds."""
    counts: Counter[float] = Counter()
    for measures in found.values():
        counts.update(ratings_in(measures.get(measure.name, {})))
    return counts


def missing(found: Outcomes, declared: Declaration) -> Figure:
    """Ratings that could not be parsed, by round and by the status of the reply."""
    rows = []
    for round, measures in found.items():
        lost: Counter[str] = Counter()
        for measure in declared.measures:
            counts: Mapping[str, int] = measures.get(measure.name, {})
            lost.update({key: n for key, n in counts.items() if key in charts.OUTCOMES})
        rows += [{"round": round, "outcome": key, "count": n} for key, n in sorted(lost.items())]
    return Figure(
        "missing",
        "Missing ratings",
        "Ratings that could not be parsed, by the status of the reply. No figure replaces them by "
        "a number.",
        rows,
        charts.missing,
    )


def matrix(reader: Reader, scale: Scale) -> Figure:
    """Mean ratings on the peers' scale, by the starting demographics of rater and author."""
    r, a = tables.rater_sums, tables.agents
    read = func.sum(r.c.ratings - r.c.missing)
    query = (
        select(a.c.label, r.c.label, func.sum(r.c.total), read)
        .join(a, (a.c.run_id == r.c.run_id) & (a.c.number == r.c.rater))
        .where(r.c.run_id == reader.run.id)
        .group_by(a.c.label, r.c.label)
        .order_by(a.c.label, r.c.label)
    )
    rows = [
        {"rater_label": rater, "author_label": author, "mean": total / int(n), "n": int(n)}
        for rater, author, total, n in reader.rows(query)
        if n
    ]
    return Figure(
        "matrix",
        "Raters against authors",
        "Mean of the peers' ratings, by starting demographic.",
        rows,
        partial(charts.matrix, scale=scale),
    )


def biases(reader: Reader) -> list[Row]:
    """How much higher each agent rates than others rate the same texts, the highest first."""
    a = tables.agents
    query = select(a.c.number, a.c.label, a.c.persona).where(a.c.run_id == reader.run.id)
    agents = {number: (label, persona) for number, label, persona in reader.rows(query)}
    rows = [
        {
            "agent": number,
            "name": persona_name(agents[number][1]),
            "label": agents[number][0],
            "deviation": given.deviation,
            "low": given.low,
            "high": given.high,
            "n": given.compared,
            "ratings": given.ratings,
            "missing": given.missing,
            "mean": given.mean,
        }
        for number, given in ratings_given(reader).items()
        if number in agents
    ]
    return sorted(rows, key=_by_deviation)


def _by_deviation(row: Row) -> tuple[float, int]:
    return -(row["deviation"] if row["deviation"] is not None else -math.inf), row["agent"]


def bias(reader: Reader) -> Figure:
    """Who rates higher than others, and who lower."""
    rows = [row for row in biases(reader) if row["deviation"] is not None]
    return Figure(
        "bias",
        "Who rates high, who low",
        "Mean of an agent's rating less the mean of the others' ratings of the same text, "
        "with its 95 % interval; of many agents the 15 highest and the 15 lowest.",
        rows,
        charts.bias,
    )


def agreement(found: Outcomes, declared: Declaration) -> Figure | None:
    """Texts by the mean of the peers' ratings and by the observer's rating.

    Returns:
        None where no scale of the observer has the meaning and the range of the peers' scale.
    """
    peers = next((one for one in declared.measures if one.kind == "peers"), None)
    observer = None if peers is None else declared.same_as(peers)
    if observer is None:
        return None
    counts: Counter[str] = Counter()
    for measures in found.values():
        counts.update(measures.get(AGREEMENT, {}))
    rows = [
        {"peers": int(given), "observer": int(observed), "drafts": n}
        for key, n in sorted(counts.items())
        for given, observed in [key.split("/")]
    ]
    stage = next(one.title for one in declared.stages if one.name == observer.stage)
    return Figure(
        "agreement",
        "Peers and the observer",
        f"How often a {stage} got which mean of the peers' ratings, rounded, and which rating of "
        f"{observer.scale.title} by the observer; framed: where they agree.",
        rows,
        partial(charts.agreement, scale=observer.scale),
    )


def scores(found: Outcomes, declared: Declaration) -> list[Figure]:
    """The figures of a society, by round."""
    made = [by_round(found, declared, scale) for scale in drawn_scales(declared)]
    against = plane(found, declared)
    return made if against is None else [*made, against]


def ratings(reader: Reader, found: Outcomes, declared: Declaration) -> list[Figure]:
    """The figures of the ratings that were given; those with nothing to show are left out."""
    made = [distribution(found, declared, scale) for scale in drawn_scales(declared)]
    if declared.peers is not None:
        agreed = agreement(found, declared)
        made += [
            matrix(reader, declared.peers),
            *([] if agreed is None else [agreed]),
            bias(reader),
        ]
    made.append(missing(found, declared))
    return [one for one in made if any(row.get("count", 1) for row in one.rows)]


def figures(reader: Reader) -> dict[str, Figure]:
    """All figures of a run that have something to show, by name."""
    found, declared = outcomes(reader), declaration_of(reader)
    made = [*scores(found, declared), *ratings(reader, found, declared)]
    return {one.name: one for one in made if one.rows}
