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

from agents.scale import Scale
from sandbox.reading import charts, pictures
from sandbox.reading.agents import persona_name, ratings_given
from sandbox.reading.charts import Rows, Spec
from sandbox.reading.metrics import AGREEMENT, Outcomes, Spread, outcomes
from sandbox.reading.statistics import t_quantile
from sandbox.text import short, visible
from storage import tables
from storage.reader import Reader

Row = dict[str, Any]

SCALES = ("alignment", "engagement")
PEERS = "peer_rating"

RANGES = {name: Scale(name=name, low=1, high=7) for name in SCALES}
"""The scales by name."""

STAGES = ("draft", "revision")

COLOURS = charts.stage_colours(STAGES) | {"peers": charts.PEERS}
"""The colour of each stage, and of peers."""

_LETTERS = 60  # of a text in a picture
_PIXELS = 7  # of a letter of a subtitle
_SERIES = {stage: f"{stage}_{{scale}}" for stage in STAGES}


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
            lines = wrap(visible(subtitle), width // _PIXELS)
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


_BAND = "the band is the 95 % interval of a round's mean (Student's t over its episodes)"


def by_round(found: Outcomes, scale: str) -> Figure:
    """Means of one scale by round: drafts, revisions, and of alignment the peers' ratings."""
    series = {name: of.format(scale=scale) for name, of in _SERIES.items()}
    if scale == "alignment":
        series["peers"] = PEERS
    rows = list(curve_rows(found, series))
    peers = "; peers rate drafts" if scale == "alignment" else ""
    return Figure(
        f"{scale}-by-round",
        f"{scale.capitalize()} by round",
        f"Mean of what the observer gave{peers}; {_BAND}.",
        rows,
        partial(charts.curves, scale=RANGES[scale], colours=COLOURS),
    )


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


def plane(found: Outcomes) -> Figure:
    """Alignment against engagement of revisions, by round, with the Pareto front."""
    points = []
    for round, measures in found.items():
        place = [Spread.of(measures.get(f"revision_{scale}", {})).mean for scale in SCALES]
        if None not in place:
            points.append({"round": round, **dict(zip(SCALES, place, strict=True))})
    rows = [{**point, "front": _is_front(point, points)} for point in points]
    return Figure(
        "plane",
        "Alignment and engagement",
        "Means of a round's revisions, joined in the order of rounds; ringed: the Pareto front, "
        "rounds that no other round beats on both scales.",
        rows,
        partial(charts.plane, x=RANGES["alignment"], y=RANGES["engagement"]),
    )


def _is_front(point: Row, points: Sequence[Row]) -> bool:
    gains = ([_gain(RANGES[scale], point, other) for scale in SCALES] for other in points)
    return not any(min(gain) >= 0 and max(gain) > 0 for gain in gains)


def _gain(scale: charts.Scale, before: Row, after: Row) -> float:
    change = float(after[scale.name] - before[scale.name])
    return change if scale.better == "high" else -change


def distribution(found: Outcomes, scale: str) -> Figure:
    """How often each rating was given, by whom and of what."""
    series = {f"observer, {name}": of.format(scale=scale) for name, of in _SERIES.items()}
    colours = {f"observer, {name}": COLOURS[name] for name in _SERIES}
    if scale == "alignment":
        series = {"peers, draft": PEERS, **series}
        colours = {"peers, draft": COLOURS["peers"], **colours}
    counts: dict[str, Counter[str]] = {who: Counter() for who in series}
    for measures in found.values():
        for who, measure in series.items():
            counts[who].update(measures.get(measure, {}))
    rows = [
        {"rating": rating, "who": who, "count": some[str(rating)]}
        for who, some in counts.items()
        for rating in range(int(RANGES[scale].low), int(RANGES[scale].high) + 1)
    ]
    return Figure(
        f"{scale}-ratings",
        f"Ratings of {scale}",
        "How often each rating was given, over all rounds, as a share of the ratings of the same "
        "rater and stage.",
        rows,
        partial(charts.distribution, scale=RANGES[scale], colours=colours),
    )


def missing(found: Outcomes) -> Figure:
    """Ratings that cannot be read, by round and by what became of the reply."""
    rows = []
    for round, measures in found.items():
        lost: Counter[str] = Counter()
        for some in measures.values():
            lost.update({key: n for key, n in some.items() if key in charts.OUTCOMES})
        rows += [{"round": round, "outcome": key, "count": n} for key, n in sorted(lost.items())]
    return Figure(
        "missing",
        "Ratings that are missing",
        "Of peers and the observer, by what became of the reply. None of them is a number in any "
        "figure.",
        rows,
        charts.missing,
    )


def matrix(reader: Reader) -> Figure:
    """Mean ratings, by the starting demographics of rater and author."""
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
        {"rater_label": rater, "author_label": author, "mean": int(total) / int(n), "n": int(n)}
        for rater, author, total, n in reader.rows(query)
        if n
    ]
    return Figure(
        "matrix",
        "Raters against authors",
        "Mean of the peers' ratings, by starting demographic.",
        rows,
        partial(charts.matrix, scale=RANGES["alignment"]),
    )


def biases(reader: Reader) -> list[Row]:
    """How much higher each agent rates than others rate the same drafts, the highest first."""
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
        "An agent's rating less the mean of the others' ratings of the same draft, in the mean, "
        "with its 95 % interval; of many agents the 15 highest and the 15 lowest.",
        rows,
        charts.bias,
    )


def agreement(found: Outcomes) -> Figure:
    """Drafts by the mean of the peers' ratings and by the observer's."""
    drafts: Counter[str] = Counter()
    for measures in found.values():
        drafts.update(measures.get(AGREEMENT, {}))
    rows = [
        {"peers": int(peers), "observer": int(observer), "drafts": n}
        for key, n in sorted(drafts.items())
        for peers, observer in [key.split("/")]
    ]
    return Figure(
        "agreement",
        "Peers and the observer",
        "Drafts by the mean of the peers' ratings, rounded (halves up), and by the observer's "
        "rating of alignment; framed: where they agree.",
        rows,
        partial(charts.agreement, scale=RANGES["alignment"]),
    )


def scores(found: Outcomes) -> list[Figure]:
    """The figures of a society, by round."""
    return [by_round(found, "alignment"), by_round(found, "engagement"), plane(found)]


def ratings(reader: Reader, found: Outcomes) -> list[Figure]:
    """The figures of the ratings that were given; those with nothing to show are left out."""
    made = [
        distribution(found, "alignment"),
        distribution(found, "engagement"),
        matrix(reader),
        agreement(found),
        bias(reader),
        missing(found),
    ]
    return [one for one in made if any(row.get("count", 1) for row in one.rows)]


def figures(reader: Reader) -> dict[str, Figure]:
    """All figures of a run that have something to show, by name."""
    found = outcomes(reader)
    made = [*scores(found), *ratings(reader, found)]
    return {one.name: one for one in made if one.rows}
