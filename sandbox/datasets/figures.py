"""Figures of an export: ratings, margins, lengths, agreement; as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sandbox.datasets.choices import HIGHEST
from sandbox.datasets.gathering import Gathered
from sandbox.datasets.survey import SCALES, Survey
from sandbox.reading import charts
from sandbox.reading.charts import Rows, Spec
from sandbox.reading.figures import COLOURS, RANGES, Figure

FOLDER = "figures"
FILES = tuple(f"{FOLDER}/{name}.svg" for name in ("ratings", "margins", "lengths", "agreement"))

Row = dict[str, Any]


def write_figures(
    folder: Path, survey: Survey, gathered: Sequence[Gathered], origin: str
) -> dict[str, str]:
    """Write the figures that have something to show.

    Args:
        folder: the export's.
        survey: what the exchanges are like.
        gathered: what became of each format.
        origin: what the figures are of, in a few words that stand in each.

    Returns:
        What each file shows, by its path within the folder.
    """
    written = {}
    for figure in _figures(survey, gathered):
        if figure.rows:
            path = f"{FOLDER}/{figure.name}.svg"
            (folder / FOLDER).mkdir(exist_ok=True)
            (folder / path).write_text(figure.svg(subtitle=origin), encoding="utf-8")
            written[path] = figure.about
    return written


def _figures(survey: Survey, gathered: Sequence[Gathered]) -> Iterator[Figure]:
    yield _figure(
        "ratings",
        "how often each rating was given, by who gave it",
        list(_ratings(survey)),
        _distributions,
    )
    yield _figure(
        "margins",
        "by how much the better answer is rated above the other one",
        list(_margins(survey, gathered)),
        partial(charts.margins, scale=RANGES["alignment"]),
    )
    yield _figure(
        "lengths",
        "length by rating: quartiles of the answers with each rating of alignment",
        list(_lengths(*survey.lengths(), RANGES["alignment"])),
        partial(
            charts.lengths,
            scale=RANGES["alignment"],
            title="observer's rating of alignment",
        ),
    )
    yield _figure(
        "agreement",
        "drafts by the mean of the peers' ratings and the observer's rating of alignment",
        list(_agreed(survey.observed)),
        partial(charts.agreement, scale=RANGES["alignment"]),
    )


def _figure(name: str, about: str, rows: list[Row], draw: Callable[[Rows], Spec]) -> Figure:
    """A figure whose title is what it shows."""
    return Figure(name, f"{about[0].upper()}{about[1:]}", about, rows, draw)


def _ratings(survey: Survey) -> Iterator[Row]:
    for (who, scale), counts in sorted(survey.ratings.items(), key=_peers_first):
        for rating, count in enumerate(counts.tolist(), 1):
            yield {"who": who, "scale": scale, "rating": rating, "count": count}


def _peers_first(item: tuple[tuple[str, str], object]) -> tuple[bool, str]:
    who = item[0][0]
    return who != "peers", who


def _distributions(rows: Rows) -> Spec:
    """Each scale's ratings in a panel of its own."""
    colours = {str(row["who"]): _colour(str(row["who"])) for row in rows}
    by_scale = {name: [row for row in rows if row["scale"] == name] for name in RANGES}
    return charts.panels(
        {
            RANGES[name].title: charts.distribution(some, RANGES[name], colours)
            for name, some in by_scale.items()
            if some
        }
    )


def _colour(who: str) -> str:
    """The colour of `peers`, or of the stage in `observer, STAGE`."""
    return COLOURS[who.removeprefix("observer, ")]


def _margins(survey: Survey, gathered: Sequence[Gathered]) -> Iterator[Row]:
    """Revisions against drafts on each scale, and the rows that contain more than one answer."""
    for scale in SCALES:
        change = survey.change(scale)
        for margin in range(1 - HIGHEST, HIGHEST):
            count = int(np.trace(change.counts, offset=margin))
            if count:
                yield {"pairs": f"revision over draft: {scale}", "margin": margin, "count": count}
    for one in gathered:
        margins = one.figures["margin"]
        margins = margins[np.isfinite(margins)]
        values, counts = np.unique(np.round(margins), return_counts=True)
        for margin, count in zip(values.tolist(), counts.tolist(), strict=True):
            yield {"pairs": f"rows of {one.format.name}", "margin": margin, "count": count}


def _lengths(
    lengths: npt.NDArray[np.int64], scores: npt.NDArray[np.int64], scale: charts.Scale
) -> Iterator[Row]:
    """Quartiles of lengths by the bar of the rating's histogram."""
    bars = charts.rating_bars(scale)
    distinct, places = np.unique(scores, return_inverse=True)
    labels = np.array([bars.label(score) for score in distinct.tolist()])[places]
    for label in bars.labels:
        some = lengths[labels == label]
        if len(some):
            low, middle, high = np.percentile(some, (25, 50, 75)).tolist()
            quartiles = {"low": low, "middle": middle, "high": high}
            yield {"rating": label, **quartiles, "answers": len(some)}


def _agreed(observed: npt.NDArray[np.int64]) -> Iterator[Row]:
    for peers, counts in enumerate(observed.tolist(), 1):
        for observer, count in enumerate(counts, 1):
            if count:
                yield {"peers": peers, "observer": observer, "drafts": count}
