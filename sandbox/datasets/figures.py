"""Figures of an export: ratings, margins, lengths, agreement; as SVG, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sandbox.datasets.choices import HIGHEST
from sandbox.datasets.gathering import Gathered
from sandbox.datasets.survey import SCALES, Survey

if TYPE_CHECKING:
    import altair as alt

FOLDER = "figures"
FILES = tuple(f"{FOLDER}/{name}.svg" for name in ("ratings", "margins", "lengths", "agreement"))

_WIDTH, _HEIGHT = 260, 170
_COLOURS = ("#9aa5b1", "#2f73b5", "#c1683c", "#4a8f5b", "#8c50a0")
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"

Rows = Sequence[Mapping[str, Any]]


def write_figures(
    folder: Path, survey: Survey, gathered: Sequence[Gathered], origin: str
) -> dict[str, str]:
    """Draw what there is to draw; returns what each file shows, by its name.

    Args:
        folder: the export's.
        survey: what the exchanges are like.
        gathered: what became of each format.
        origin: what the figures are of, in a few words that stand in each.
    """
    import altair as alt

    told = {}
    for name, about, chart in _figures(alt, survey, gathered):
        (folder / FOLDER).mkdir(exist_ok=True)
        drawn = StringIO()
        title = alt.Title(f"{about[0].upper()}{about[1:]}", subtitle=origin)
        _styled(chart.properties(title=title)).save(drawn, format="svg")
        text = re.sub(r"gradient_\d+", "gradient", drawn.getvalue())  # counted by the process
        (folder / FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")
        told[f"{FOLDER}/{name}.svg"] = about
    return told


def _figures(
    alt: Any, survey: Survey, gathered: Sequence[Gathered]
) -> Iterator[tuple[str, str, alt.TopLevelMixin]]:
    ratings = list(_ratings(survey))
    if ratings:
        yield "ratings", "how often each rating was given, by who gave it", _bars(alt, ratings)
    margins = list(_margins(survey, gathered))
    if margins:
        about = "by how much the better answer is rated above the other one"
        yield "margins", about, _margin_bars(alt, margins)
    lengths = list(_lengths(*survey.lengths()))
    if lengths:
        about = "length by rating: quartiles of the answers with each rating of alignment"
        yield "lengths", about, _ranges(alt, lengths)
    agreed = list(_agreed(survey.observed))
    if agreed:
        about = "drafts by the mean of the peers' ratings and the observer's rating of alignment"
        yield "agreement", about, _heat(alt, agreed)


def _ratings(survey: Survey) -> Iterator[dict[str, Any]]:
    for (who, scale), counts in sorted(survey.ratings.items()):
        total = counts.sum()
        for rating, count in enumerate(counts.tolist(), 1):
            yield {"who": who, "scale": scale, "rating": rating, "share": count / total}


def _margins(survey: Survey, gathered: Sequence[Gathered]) -> Iterator[dict[str, Any]]:
    """Revisions against drafts on both scales, and the rows that hold more than one answer."""
    for scale in SCALES:
        change = survey.change(scale)
        for margin in range(1 - HIGHEST, HIGHEST):
            count = int(np.trace(change.counts, offset=margin))
            if change.pairs:
                share = count / change.pairs
                yield {"of": f"revision - draft: {scale}", "margin": margin, "share": share}
    for one in gathered:
        margins = one.figures["margin"]
        margins = margins[np.isfinite(margins)]
        values, counts = np.unique(np.round(margins), return_counts=True)
        for margin, count in zip(values.tolist(), counts.tolist(), strict=True):
            of = f"rows of {one.format.name}"
            yield {"of": of, "margin": int(margin), "share": count / len(margins)}


def _lengths(
    lengths: npt.NDArray[np.int64], scores: npt.NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    for rating in range(1, HIGHEST + 1):
        of = lengths[scores == rating]
        if len(of):
            low, middle, high = np.percentile(of, (25, 50, 75)).tolist()
            yield {"rating": rating, "low": low, "middle": middle, "high": high, "n": len(of)}


def _agreed(observed: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    for row, counts in enumerate(observed.tolist(), 1):
        for column, count in enumerate(counts, 1):
            if count:
                yield {"peers": row, "observer": column, "drafts": count}


def _beside(alt: Any, of: str) -> dict[str, Any]:
    """Shares as bars side by side, a colour each, and below which colour is whose."""
    colours = alt.Scale(range=list(_COLOURS))
    below = alt.Legend(orient="bottom", columns=3, labelLimit=400)
    return {
        "y": alt.Y("share:Q", title="share", axis=alt.Axis(format="%", tickCount=5)),
        "xOffset": of,
        "color": alt.Color(of, title=None, scale=colours, legend=below),
    }


def _bars(alt: Any, rows: Rows) -> Any:
    panels = [
        alt.Chart(alt.Data(values=[row for row in rows if row["scale"] == scale]))
        .mark_bar()
        .encode(
            x=alt.X("rating:O", title="rating", axis=alt.Axis(labelAngle=0)),
            **_beside(alt, "who:N"),
        )
        .properties(title=scale, width=_WIDTH, height=_HEIGHT)
        for scale in SCALES
        if any(row["scale"] == scale for row in rows)
    ]
    return alt.hconcat(*panels)


def _margin_bars(alt: Any, rows: Rows) -> Any:
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar()
        .encode(
            x=alt.X("margin:O", title="margin", axis=alt.Axis(labelAngle=0)),
            **_beside(alt, "of:N"),
        )
        .properties(width=2 * _WIDTH, height=_HEIGHT)
    )


def _ranges(alt: Any, rows: Rows) -> Any:
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("rating:O", title="observer's rating of alignment", axis=alt.Axis(labelAngle=0))
    )
    length = alt.Y("low:Q", title="characters", scale=alt.Scale(zero=False))
    bars = base.mark_bar(color=_COLOURS[0], width=16).encode(y=length, y2="high:Q")
    middles = base.mark_tick(color=_COLOURS[1], thickness=3, width=22).encode(y="middle:Q")
    counts = base.mark_text(dy=-8, fontSize=10, color="#555").encode(
        y="high:Q", text=alt.Text("n:Q", format=",")
    )
    return (bars + middles + counts).properties(width=2 * _WIDTH, height=_HEIGHT)


def _heat(alt: Any, rows: Rows) -> Any:
    domain = list(range(1, HIGHEST + 1))
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(
            "observer:O", title="observer", scale=alt.Scale(domain=domain),
            axis=alt.Axis(labelAngle=0),
        ),
        y=alt.Y("peers:O", title="peers (mean)", scale=alt.Scale(domain=domain[::-1])),
    )  # fmt: skip
    most = max(row["drafts"] for row in rows)
    cells = base.mark_rect().encode(
        color=alt.Color("drafts:Q", title="drafts", scale=alt.Scale(range=["#eef3f8", "#2f73b5"]))
    )
    ink = alt.condition(f"datum.drafts > {most / 2}", alt.value("white"), alt.value("#333"))
    numbers = base.mark_text(fontSize=10).encode(text=alt.Text("drafts:Q", format=","), color=ink)
    return (cells + numbers).properties(width=_WIDTH + 60, height=_WIDTH)


def _styled(chart: Any) -> Any:
    return (
        chart.configure(background="white", font=_FONT, padding=12)
        .configure_view(stroke=None)
        .configure_axis(
            domainColor="#888", tickColor="#888", gridColor="#e6e6e6",
            labelColor="#333", titleColor="#333", titleFontWeight="normal",
        )
        .configure_title(fontSize=13, subtitleColor="#666", anchor="start", offset=12)
    )  # fmt: skip
