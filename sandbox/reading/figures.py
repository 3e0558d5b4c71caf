"""Figures of a run, as the viewer and reports show them: rows, and how they were computed.

A figure's rows are plain and can be downloaded as CSV; `sandbox.reading.charts` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from agents.scale import Declaration, Measure, Scale
from sandbox.reading import agents, charts, pictures
from sandbox.reading.agreement import SAMPLES, Agreements, agreements, observer_less_peers
from sandbox.reading.bounds import Bounds, bounds
from sandbox.reading.charts import Rows, Spec
from sandbox.reading.declaration import declaration_of
from sandbox.reading.map import neighbours_by_round
from sandbox.reading.metrics import (
    AGREEMENT,
    Outcomes,
    Spread,
    complete_rounds,
    mean_of,
    outcomes,
    ratings_in,
    settled,
)
from sandbox.reading.neighbours import SHUFFLES
from sandbox.reading.pictures import WIDTH, Caption, png
from sandbox.reading.raters import raters
from sandbox.reading.spread import IdeaSpread
from sandbox.reading.statistics import Share, clustered_sums
from sandbox.text import escape_controls, quoted, short
from storage import tables
from storage.reader import Reader

Row = dict[str, Any]

_MAX_CHARACTERS = 60  # of a text in an SVG
_CHARACTER_WIDTH = 7  # pixels, of a subtitle


class Figure(NamedTuple):
    """A figure.

    Attributes:
        name: used in URLs and file names.
        title: the title.
        about: what the marks mean, in one line.
        rows: the data.
        draw: builds the Vega-Lite spec from rows.
        how: how the numbers were computed.
    """

    name: str
    title: str
    about: str
    rows: list[Row]
    draw: Callable[[Rows], Spec]
    how: str = ""

    @property
    def spec(self) -> Spec:
        """The Vega-Lite spec, with colours named as in the style sheet; see `charts.themed`."""
        return self.draw(self.rows)

    @property
    def columns(self) -> list[str]:
        """The column names, in the order of their first occurrence."""
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def svg(self, dark: bool = False, width: int = WIDTH, subtitle: str | None = None) -> str:
        """Render the figure as SVG.

        Args:
            dark: in the colours of the dark theme.
            width: pixels.
            subtitle: the text below the title; None: neither title nor subtitle.
        """
        spec = self._printed
        if subtitle is not None:
            lines = wrap(escape_controls(subtitle), width // _CHARACTER_WIDTH)
            spec = charts.with_title(spec, self.title, lines)
        return pictures.svg(spec, self.name, dark, width)

    def file(
        self, kind: str, source: str, dark: bool = False, paper: bool = False, width: int = WIDTH
    ) -> bytes:
        """The figure as a file that says what it shows and where it comes from.

        Args:
            kind: `svg`, `png` or `pdf`.
            source: its runs; see `source_of`.
            dark: in the colours of the dark theme.
            paper: 85 mm wide with text of 8 points, in the light theme; `dark` and `width` do not
                apply.
            width: pixels.
        """
        drawn = pictures.paper_svg(self._printed, self.name) if paper else self.svg(dark, width)
        caption = Caption(self.title, f"{self.about} {self.how}".strip(), source)
        if kind == "pdf":
            return pictures.pdf(drawn, caption)
        return png(drawn) if kind == "png" else pictures.described(drawn, caption).encode()

    @property
    def _printed(self) -> Spec:
        """The spec with texts that fit and that SVG allows."""
        return self.draw([_shortened(row) for row in self.rows])


def source_of(readers: Iterable[Reader]) -> str:
    """The runs that a figure shows: names, digests of finished runs, and versions."""
    return "; ".join(
        f"Run {run.name}, "
        f"{f'digest {run.digest}' if run.digest else 'not finished'}, "
        f"Sandbox society {run.code_version}"
        for run in (reader.run for reader in readers)
    )


def _shortened(row: Row) -> Row:
    """Shorten the texts of a row, without characters that SVG forbids."""
    return {
        key: short(value, _MAX_CHARACTERS) if isinstance(value, str) else value
        for key, value in row.items()
    }


MEAN_METHOD = (
    "The interval is that of a round\u2019s mean by Student\u2019s t over its ratings; "
    "ratings of peers are clustered by the rated text."
)

_SUBJECTS = {"stage": "", "agent": " of each agent", "pair": " of each pair of agents"}


class Series(NamedTuple):
    """Ratings that a figure shows in one colour.

    Attributes:
        who: `observer`, `user` (the author of the episode) or `peers`.
        stage: the title of the rated stage.
        measure: the measure that has the ratings.
        colour: of the line or bars; a stage has the same colour in every figure.
    """

    who: str
    stage: str
    measure: Measure
    colour: str


def series_of(declared: Declaration, scale: Scale) -> list[Series]:
    """The series of a scale: those of its rater by stage, and the peers' if on the same range."""
    titles = {stage.name: stage.title for stage in declared.stages}
    colours = charts.stage_colours([stage.name for stage in declared.stages])
    series = []
    for measure in declared.measures:
        if measure.kind == "score" and measure.scale == scale:
            series.append(Series(scale.who, titles[measure.stage], measure, colours[measure.stage]))
        same = declared.same_as(measure)
        if measure.kind == "peers" and scale in (measure.scale, same.scale if same else None):
            series.append(Series("peers", titles[measure.stage], measure, charts.PEERS))
    return series


def drawn_scales(declared: Declaration) -> list[Scale]:
    """The scales that have their own figures: the observer's, and the peers' where needed.

    Peers' ratings are drawn in the figures of an observer scale with the same meaning and range.
    """
    peers = [measure for measure in declared.measures if measure.kind == "peers"]
    separate = [measure.scale for measure in peers if declared.same_as(measure) is None]
    return [*declared.observed, *separate]


def by_round(counts: Outcomes, declared: Declaration, scale: Scale) -> Figure:
    """Means on one scale by round, with a series for each stage and for the peers."""
    series = series_of(declared, scale)
    by_name = {("peers" if line.who == "peers" else line.stage): line for line in series}
    return Figure(
        f"{scale.name}-by-round",
        f"{capitalized(scale.title)} by round",
        f"Mean of {_raters(series, scale)}, with its 95 % interval.",
        list(curve_rows(counts, {name: line.measure for name, line in by_name.items()})),
        partial(
            charts.curves,
            scale=scale,
            colours={name: line.colour for name, line in by_name.items()},
        ),
        MEAN_METHOD,
    )


def _raters(series: Sequence[Series], scale: Scale) -> str:
    """A phrase for the ratings that a figure shows."""
    words = []
    if any(line.who != "peers" for line in series):
        words.append(f"{scale.whose} ratings{_SUBJECTS[scale.subject]}")
    words += [f"the peers' ratings of the {line.stage}" for line in series if line.who == "peers"]
    return " and of ".join(words)


def capitalized(title: str) -> str:
    """Capitalize the first letter of a title."""
    return title[:1].upper() + title[1:]


def curve_rows(
    counts: Outcomes, series: Mapping[str, Measure], column: str = "series"
) -> Iterator[Row]:
    """Means by round, with their 95 % intervals: a row for each series that has values.

    `n` is the number of values; of peers' ratings the number of texts, see `metrics.mean_of`.

    Args:
        counts: the outcomes of a run.
        series: the measure by the name of the series.
        column: the column for the name of the series.
    """
    for round, measures in counts.items():
        for name, measure in series.items():
            mean = mean_of(measures, measure)
            if mean.difference is not None:
                ends = {"low": mean.low, "high": mean.high, "n": mean.clusters or mean.n}
                yield {"round": round, column: name, "mean": mean.difference, **ends}


def plane(counts: Outcomes, declared: Declaration) -> Figure | None:
    """The first two observer scales against each other, by round, with the Pareto front.

    Returns:
        None where the observer has fewer than two scales.
    """
    measures = [declared.final(scale) for scale in declared.observed]
    finals = [measure for measure in measures if measure is not None][:2]
    if len(finals) < 2:
        return None
    x, y = (measure.scale for measure in finals)
    points = []
    for round, by_measure in counts.items():
        means = [Spread.of(by_measure.get(measure.name, {})).mean for measure in finals]
        if None not in means:
            points.append({"round": round, x.name: means[0], y.name: means[1]})
    rows = [{**point, "front": _is_front(point, points, (x, y))} for point in points]
    titles = {stage.name: stage.title for stage in declared.stages}
    stages = " and the ".join(dict.fromkeys(titles[measure.stage] for measure in finals))
    return Figure(
        "plane",
        f"{capitalized(x.title)} and {y.title}",
        f"Each point is a round: its mean ratings of the {stages}. Ringed: the Pareto front.",
        rows,
        partial(charts.plane, x=x, y=y),
        "The line connects rounds in their order; of many rounds earlier steps are fainter. The "
        "Pareto front are the rounds that no other round beats on both scales. Both axes are "
        "fitted to the means.",
    )


def _is_front(point: Row, points: Sequence[Row], scales: Sequence[Scale]) -> bool:
    gains = (
        [scale.gain(point[scale.name], other[scale.name]) for scale in scales] for other in points
    )
    return not any(min(gain) >= 0 and max(gain) > 0 for gain in gains)


def distribution(counts: Outcomes, declared: Declaration, scale: Scale) -> Figure:
    """How often each rating was given, by rater and stage."""
    series = sorted(series_of(declared, scale), key=lambda bars: bars.who != "peers")
    by_name = {f"{bars.who}, {bars.stage}": bars for bars in series}
    ratings_by_name = {name: _rating_counts(counts, bars.measure) for name, bars in by_name.items()}
    if scale.integer:
        shown: Sequence[float] = range(int(scale.low), int(scale.high) + 1)
    else:
        shown = sorted(set().union(*ratings_by_name.values()))
    rows = [
        {"rating": rating, "who": name, "count": count[rating]}
        for name, count in ratings_by_name.items()
        for rating in shown
    ]
    return Figure(
        f"{scale.name}-ratings",
        "Peers' ratings" if scale.rater == "peers" else f"Ratings of {scale.title}",
        "How often each rating was given, of the ratings of the same rater and stage.",
        rows,
        partial(
            charts.distribution,
            scale=scale,
            colours={name: bars.colour for name, bars in by_name.items()},
        ),
    )


def _rating_counts(counts: Outcomes, measure: Measure) -> Counter[float]:
    """How often each rating was given, over all rounds."""
    total: Counter[float] = Counter()
    for by_measure in counts.values():
        total.update(ratings_in(by_measure.get(measure.name, {})))
    return total


def missing(counts: Outcomes, declared: Declaration) -> Figure:
    """Ratings that could not be parsed, by round and by the status of the reply."""
    rows = []
    for round, measures in counts.items():
        statuses: Counter[str] = Counter()
        for measure in declared.measures:
            of_measure: Mapping[str, int] = measures.get(measure.name, {})
            statuses.update({key: n for key, n in of_measure.items() if key in charts.OUTCOMES})
        rows += [
            {"round": round, "outcome": key, "count": n} for key, n in sorted(statuses.items())
        ]
    return Figure(
        "missing",
        "Missing ratings",
        "Ratings that could not be parsed, by the status of the reply; no other figure has them.",
        rows,
        charts.missing,
    )


def matrix(reader: Reader, scale: Scale) -> Figure:
    """Mean ratings on the peers' scale, by the starting label of rater and author."""
    r, a = tables.rater_sums, tables.agents
    query = (
        select(a.c.label, r.c.label, r.c.ratings - r.c.missing, r.c.total)
        .join(a, (a.c.run_id == r.c.run_id) & (a.c.number == r.c.rater))
        .where(r.c.run_id == reader.run.id, r.c.ratings > r.c.missing)
        .order_by(a.c.label, r.c.label)
    )
    cells: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for rater, author, n, total in reader.rows(query):
        cells.setdefault((rater, author), []).append((int(n), float(total)))
    rows = [
        {
            "rater_label": rater,
            "author_label": author,
            "mean": mean.difference,
            "low": mean.low,
            "high": mean.high,
            "n": mean.n,
            "raters": mean.clusters,
        }
        for (rater, author), given in cells.items()
        for mean in [clustered_sums(*np.array(given).T)]
    ]
    return Figure(
        "matrix",
        "Mean peer rating by starting label",
        "Rows: the rater; columns: the author. With the 95 % interval and the number of ratings.",
        rows,
        partial(charts.matrix, scale=scale),
        "The interval is clustered by rater: Student's t over the sums of each rater.",
    )


def bias(reader: Reader) -> Figure:
    """How much higher each agent rates than the other raters of the same texts."""
    rows = [row.as_dict() for row in raters(reader) if row.deviation is not None]
    return Figure(
        "bias",
        "Rater leniency",
        "How much higher an agent rates than the others of the same text, with its 95 % interval.",
        rows,
        charts.bias,
        "Mean of an agent's rating minus the mean of the others' ratings of the same text; "
        "the interval is Student's t over these texts. Of many agents the 15 highest and the 15 "
        "lowest are drawn.",
    )


def alphas(found: Agreements) -> Figure:
    """Krippendorff's alpha by round."""
    rows = [
        {
            "round": round,
            "raters": who,
            "alpha": one.alpha,
            "low": one.low,
            "high": one.high,
            "n": one.texts,
        }
        for who, rounds in found.by_round.items()
        for round, one in rounds.items()
        if one.alpha is not None
    ]
    return Figure(
        "alpha-by-round",
        "Agreement of raters by round",
        "Krippendorff's alpha with its 95 % interval. 1: perfect agreement, 0: chance level.",
        rows,
        charts.alphas,
        "Alpha of interval data over pairs of ratings of the same text (Krippendorff 2011), of "
        "texts with at least two ratings. The band is a percentile bootstrap over the texts of the "
        f"round, with {SAMPLES:,} samples and a fixed seed; it treats texts as independent.",
    )


def observer_bias(reader: Reader) -> Figure:
    """The observer's rating minus the peers' mean, by the author's starting label."""
    rows = [
        {
            "label": label,
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "authors": one.clusters,
        }
        for label, one in observer_less_peers(reader).items()
    ]
    return Figure(
        "observer-bias",
        "Observer minus peers, by the author's starting label",
        "Mean difference of their ratings of the same text, with its 95 % interval.",
        rows,
        charts.observer_bias,
        "The observer's rating minus the mean of the peers'. The interval is clustered by author.",
    )


def rater_agreement(reader: Reader) -> list[Figure]:
    """The figures of agreement, without empty ones; they read all ratings of the run."""
    drawn = [alphas(agreements(reader)), observer_bias(reader)]
    return [figure for figure in drawn if figure.rows]


def agreement(counts: Outcomes, declared: Declaration) -> Figure | None:
    """Texts by the mean of the peers' ratings and by the observer's rating.

    Returns:
        None where no observer scale has the meaning and range of the peers' scale.
    """
    peers = next((measure for measure in declared.measures if measure.kind == "peers"), None)
    observer = None if peers is None else declared.same_as(peers)
    if observer is None:
        return None
    pairs: Counter[str] = Counter()
    for by_measure in counts.values():
        pairs.update(by_measure.get(AGREEMENT, {}))
    rows = [
        {"peers": int(given), "observer": int(observed), "drafts": n}
        for key, n in sorted(pairs.items())
        for given, observed in [key.split("/")]
    ]
    stage = next(stage.title for stage in declared.stages if stage.name == observer.stage)
    return Figure(
        "agreement",
        "Peer and observer ratings",
        f"The number of {stage}s by the rounded mean of the peers' ratings and by the observer's "
        f"rating of {observer.scale.title}; framed: both agree.",
        rows,
        partial(charts.agreement, scale=observer.scale),
    )


def scores(counts: Outcomes, declared: Declaration) -> list[Figure]:
    """The figures of scores by round."""
    curves = [by_round(counts, declared, scale) for scale in drawn_scales(declared)]
    pareto = plane(counts, declared)
    return curves if pareto is None else [*curves, pareto]


def ratings(reader: Reader, counts: Outcomes, declared: Declaration) -> list[Figure]:
    """The figures of ratings and raters, without empty ones."""
    drawn = [distribution(counts, declared, scale) for scale in drawn_scales(declared)]
    if declared.peers is not None:
        agreed = agreement(counts, declared)
        drawn += [
            matrix(reader, declared.peers),
            *([] if agreed is None else [agreed]),
            bias(reader),
        ]
    drawn.append(missing(counts, declared))
    return [figure for figure in drawn if any(row.get("count", 1) for row in figure.rows)]


def of_bounds(measured: Bounds) -> list[Figure]:
    """The figures of personalisation within bounds, without empty ones."""
    drawn = [
        _leakage("rule", {one.rule: one.obeyed for one in measured.leakage.by_rule}, measured),
        _leakage(
            "phrasing",
            {name.replace("_", " "): one for name, one in measured.leakage.by_phrasing.items()},
            measured,
        ),
        _group_gains(measured),
        _indices(
            "diversity-by-round",
            "Diversity of the chosen answers",
            "Share of distinct pairs of words, in samples as large as the round with the fewest; "
            "and the mean of 1 \u2212 cosine over pairs of answers as counts of word pairs. A "
            "fall is homogenisation. The policy\u2019s refusals are left out.",
            {
                "distinct pairs of words": [one.distinct2 for one in measured.rounds],
                "distance of answers": [one.distance for one in measured.rounds],
            },
            [(one.round, one.answers) for one in measured.rounds],
        ),
        _indices(
            "stances-by-round",
            "Spread of stances",
            "Standard deviation of the users\u2019 stances (1 to 100) as a share of 49.5, the "
            "most that two camps of one size give; and the bimodality coefficient, above 5/9 where "
            "there may be two camps. A rise is polarisation.",
            {
                "standard deviation, of 49.5": [
                    None if one.sd is None else min(1.0, one.sd / _MOST_SD)
                    for one in measured.rounds
                ],
                "bimodality coefficient": [one.bimodality for one in measured.rounds],
            },
            [(one.round, one.stances) for one in measured.rounds],
        ),
    ]
    return [figure for figure in drawn if figure.rows]


_MOST_SD = 49.5  # of stances from 1 to 100


def _leakage(by: str, parts: Mapping[str, Share], measured: Bounds) -> Figure:
    rows = [
        {by: name, **share.as_dict()}
        for name, share in {**parts, "all requests": measured.leakage.total}.items()
        if share.n and parts
    ]
    return Figure(
        f"leakage-by-{by}",
        f"Leakage by {by}",
        "Share of red-team requests that were obeyed, by the judge\u2019s verdict, with its 95 % "
        "interval (Wilson); requests without a verdict are left out.",
        rows,
        partial(charts.shares, field=by),
    )


_FEWEST_USERS = 5
"""Groups with fewer users are not drawn: their intervals would be wider than the figure."""


def _group_gains(measured: Bounds) -> Figure:
    rows = [
        {
            "group": "all users" if one.attribute is None else f"{one.attribute}: {one.group}",
            "gain": one.gain.difference,
            "low": one.gain.low,
            "high": one.gain.high,
            "users": one.users,
            "n": one.gain.n,
        }
        for one in measured.groups
        if one.users >= _FEWEST_USERS
    ]
    return Figure(
        "gain-by-group",
        "Gain of personalisation by group",
        "The user\u2019s own blind rating of the personal answer minus that of the answer of one "
        "policy for all: mean with its 95 % interval, clustered by user; groups of at least "
        f"{_FEWEST_USERS} users.",
        [{**row, "group": str(row["group"]).replace("_", " ")} for row in rows],
        charts.group_gains,
    )


def _indices(
    name: str,
    title: str,
    about: str,
    found: Mapping[str, Sequence[float | None]],
    rounds: Sequence[tuple[int, int]],
) -> Figure:
    rows = [
        {"round": round, "index": index, "value": value, "n": n}
        for index, values in found.items()
        for (round, n), value in zip(rounds, values, strict=True)
        if value is not None
    ]
    return Figure(name, title, about, rows, charts.indices)


def histories(reader: Reader, number: int) -> list[Figure]:
    """An agent's scores by round: a figure for each scale of stages that has any."""
    declared, history = declaration_of(reader), agents.history(reader, number)
    return [
        Figure(
            f"agent-{number}-{scale.name}",
            f"{capitalized(scale.title)} by round",
            f"{capitalized(scale.who)} ratings of agent {number}, by stage.",
            [score.as_dict() for score in history if score.scale == scale.name],
            partial(
                charts.history,
                scale=scale,
                colours=charts.stage_colours(declared.stages_of(scale)),
            ),
        )
        for scale in declared.observed
        if any(score.scale == scale.name for score in history)
    ]


def neighbours_alike(reader: Reader) -> Figure:
    """Whether neighbours have similar scores on the main scale, by round, and what chance gives."""
    main = declaration_of(reader).main
    return Figure(
        "neighbours-alike",
        "Neighbours alike by round",
        f"Assortativity of {main.title if main else 'scores'} between neighbours (Newman, 2003). "
        f"Grey: the 95 % band of {SHUFFLES} shuffles of the scores over the agents; filled: p < "
        "0.05, two-sided, each round by itself.",
        [row.as_dict() for row in neighbours_by_round(reader)],
        charts.alike,
    )


def of_spread(found: IdeaSpread) -> list[Figure]:
    """The figures of the spread of an idea."""
    rows = [{**row.as_dict(), "share": row.share} for row in found.rounds]
    shown = rows if found.uses else []
    return [
        Figure(
            "spread-exchanges",
            "Exchanges that say it",
            f"Exchanges whose author says {quoted(found.query)} in an answer of its own, by "
            "round and the author\u2019s starting label.",
            shown,
            charts.uses,
        ),
        Figure(
            "spread-agents",
            "Agents that have said it",
            "Share of the agents of each starting label that have said it up to a round.",
            shown,
            charts.reached,
        ),
    ]


def figures(reader: Reader) -> dict[str, Figure]:
    """All figures of a run that are not empty and need no choice of a split, by name."""
    counts, declared = outcomes(reader), declaration_of(reader)
    drawn = scores(settled(counts, complete_rounds(reader)), declared)
    drawn += ratings(reader, counts, declared)
    drawn += rater_agreement(reader)
    measured = bounds(reader)
    drawn += [] if measured is None else of_bounds(measured)
    drawn.append(neighbours_alike(reader))
    return {figure.name: figure for figure in drawn if figure.rows}
