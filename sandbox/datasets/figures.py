"""SVG figures of an export: ratings, margins, lengths, agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sandbox.datasets.format_writer import FormatResult
from sandbox.datasets.survey import USERS, Survey
from sandbox.reading import charts
from sandbox.reading.charts import Rows, Scale, Spec
from sandbox.reading.figures import Figure

FOLDER = "figures"
PEERS = "peers"
FILES = tuple(f"{FOLDER}/{name}.svg" for name in ("ratings", "margins", "lengths", "agreement"))

Row = dict[str, Any]


def write_figures(
    folder: Path, survey: Survey, results: Sequence[FormatResult], origin: str
) -> dict[str, str]:
    """Write the figures that have data.

    Args:
        folder: the folder of the export.
        survey: the statistics of the exchanges.
        results: one for each format.
        origin: the subtitle of the figures, which names their data.

    Returns:
        The caption of each figure, by its path within the folder.
    """
    written = {}
    for figure in _figures(survey, results):
        if figure.rows:
            path = f"{FOLDER}/{figure.name}.svg"
            (folder / FOLDER).mkdir(exist_ok=True)
            (folder / path).write_text(figure.svg(subtitle=origin), encoding="utf-8")
            written[path] = figure.about
    return written


def _figures(survey: Survey, results: Sequence[FormatResult]) -> Iterator[Figure]:
    yield _figure(
        "ratings",
        "number of ratings by value and rater",
        list(_ratings(survey)),
        partial(_distributions, survey=survey),
    )
    main = survey.main
    if main is None:
        return
    yield _figure(
        "margins",
        "differences between the ratings of two answers (positive: better)",
        list(_margins(survey, results, main)),
        partial(charts.margins, scale=main),
    )
    yield _figure(
        "lengths",
        f"answer length (quartiles) by rating of {main.title}",
        list(_lengths(*survey.lengths(), main)),
        partial(charts.lengths, scale=main, title=f"observer's rating of {main.title}"),
    )
    peers = survey.peers
    if peers is not None:
        yield _figure(
            "agreement",
            f"number of {survey.peer_stage}s by mean peer rating and observer rating of "
            f"{survey.peers_rate.replace('_', ' ')}",
            [
                {"peers": mean, "observer": observer, "drafts": count}
                for (mean, observer), count in sorted(survey.observed.items())
            ],
            partial(charts.agreement, scale=peers),
        )


def _figure(name: str, about: str, rows: list[Row], draw: Callable[[Rows], Spec]) -> Figure:
    """A figure whose title is its caption."""
    return Figure(name, f"{about[0].upper()}{about[1:]}", about, rows, draw)


def _ratings(survey: Survey) -> Iterator[Row]:
    for (who, scale), counts in sorted(survey.ratings.items(), key=_peers_first):
        for rating, count in sorted(counts.items()):
            yield {"who": who, "scale": scale, "rating": rating, "count": count}


def _peers_first(item: tuple[tuple[str, str], object]) -> tuple[bool, str]:
    who = item[0][0]
    return who != PEERS, who


def _distributions(rows: Rows, survey: Survey) -> Spec:
    """Histograms of ratings, one panel for each scale."""
    by_stage = charts.stage_colours(survey.stages)
    seen = {
        f"{who}, {stage}": colour
        for who in ("observer", USERS)
        for stage, colour in by_stage.items()
    }
    colours = {PEERS: charts.PEERS, USERS: charts.PEERS, **seen}
    scales = dict(survey.scales)
    if survey.peers is not None:
        scales.setdefault(survey.peers_rate, survey.peers)
    by_scale = {name: [row for row in rows if row["scale"] == name] for name in scales}
    return charts.panels(
        {
            scale.title: charts.distribution(by_scale[name], scale, colours)
            for name, scale in scales.items()
            if by_scale[name]
        }
    )


def _margins(survey: Survey, results: Sequence[FormatResult], main: Scale) -> Iterator[Row]:
    """Histograms of gains, and of margins within rows, on scales with the range of the main one."""
    for change in survey.changes:
        if (change.scale.low, change.scale.high) == (main.low, main.high):
            pairs = f"{change.last} over {change.first}: {change.scale.name}"
            for margin, count in sorted(change.margins.items()):
                yield {"pairs": pairs, "margin": margin, "count": count}
    for result in results:
        rated_on = result.settings.scale
        if rated_on is None or (rated_on.low, rated_on.high) != (main.low, main.high):
            continue
        margins = result.figures["margin"]
        margins = margins[np.isfinite(margins)]
        values, counts = np.unique(
            np.round(margins) if main.integer else margins, return_counts=True
        )
        for margin, count in zip(values.tolist(), counts.tolist(), strict=True):
            yield {"pairs": f"rows of {result.format.name}", "margin": margin, "count": count}


def _lengths(
    lengths: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], scale: Scale
) -> Iterator[Row]:
    """Quartiles of lengths by bin of the histogram of ratings."""
    bars = charts.rating_bars(scale)
    distinct, places = np.unique(scores, return_inverse=True)
    labels = np.array([bars.label(score) for score in distinct.tolist()])[places]
    for label in bars.labels:
        in_bin = lengths[labels == label]
        if len(in_bin):
            low, middle, high = np.percentile(in_bin, (25, 50, 75)).tolist()
            quartiles = {"low": low, "middle": middle, "high": high}
            yield {"rating": label, **quartiles, "answers": len(in_bin)}
