"""Charts of any range: what they show, and that Vega-Lite takes them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import pytest
import vl_convert
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from sandbox.reading import charts
from sandbox.reading.charts import parts, ranges
from sandbox.reading.figures import Figure
from sandbox.reading.pictures import png, svg

Row = dict[str, Any]


class Rated(NamedTuple):
    name: str
    title: str
    low: float
    high: float
    integer: bool = True
    better: Literal["high", "low"] = "high"


SEVEN = Rated("quality", "quality", 1, 7)
BOTH_SIDES = Rated("warmth", "warmth", -5, 5)
TEN = Rated("honesty", "honesty", 0, 10, better="low")
HUNDRED = Rated("effort", "effort", 0, 100)
REAL = Rated("risk", "risk", 0.0, 1.0, integer=False, better="low")
DEBT = Rated("debt", "debt", -10, 0)
SCALES = (SEVEN, BOTH_SIDES, TEN, HUNDRED, REAL, DEBT)
COLOURS = {**charts.stage_colours(["first", "last"]), "peers": charts.PEERS}

every_scale = pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)


def points(scale: Rated, count: int = 12) -> list[float]:
    """Ratings all over a range, both ends among them."""
    width = scale.high - scale.low
    spread = [scale.low + width * i / (count - 1) for i in range(count)]
    return [round(value) if scale.integer else value for value in spread]


def by_round(scale: Rated, series: str, names: list[str], low: float, high: float) -> list[Row]:
    middle, reach = (low + high) / 2, (high - low) / 2
    return [
        {
            "round": round,
            series: name,
            "mean": middle + reach * (round - 4) / 6,
            "low": middle + reach * (round - 4) / 6 - reach / 20,
            "high": middle + reach * (round - 4) / 6 + reach / 20,
            "n": 9,
        }
        for name in names
        for round in range(1, 8)
    ]


def curves(scale: Rated) -> charts.Spec:
    rows = by_round(scale, "series", ["first", "last", "peers"], scale.low, scale.high)
    return charts.curves(rows, scale, COLOURS)


def of_groups(scale: Rated, low: float, high: float) -> list[dict[str, object]]:
    """Rows of two groups, of which the first has two seeds."""
    whole = by_round(scale, "group", ["a", "b"], low, high)
    seeds = [
        {**row, "seed": seed, "low": None, "high": None}
        for row in whole
        if row["group"] == "a"
        for seed in (7, 8)
    ]
    return [*({**row, "seed": None} for row in whole), *seeds]


def versus(scale: Rated) -> charts.Spec:
    return charts.versus(of_groups(scale, scale.low, scale.high), scale)


def gains(scale: Rated) -> charts.Spec:
    width = scale.high - scale.low
    return charts.gains(of_groups(scale, 0, width / 3), scale)


def plane(scale: Rated) -> charts.Spec:
    rows = [
        {"round": i, scale.name: x, "other": 1 + i / 4, "front": i > 8}
        for i, x in enumerate(points(scale), 1)
    ]
    return charts.plane(rows, scale, SEVEN._replace(name="other"))


def history(scale: Rated) -> charts.Spec:
    rows = [
        {"round": i, "stage": stage, "score": score}
        for i, score in enumerate(points(scale), 1)
        for stage in ("first", "last")
    ]
    return charts.history(rows, scale, charts.stage_colours(["first", "last"]))


def distribution(scale: Rated) -> charts.Spec:
    rows = [
        {"rating": value, "who": who, "count": i}
        for who in ("peers", "first")
        for i, value in enumerate(points(scale), 1)
    ]
    return charts.distribution(rows, scale, COLOURS)


def margins(scale: Rated) -> charts.Spec:
    width = scale.high - scale.low
    gains = [-width, -width / 2, 0, width / 2, width]
    rows = [
        {"margin": round(gain) if scale.integer else gain, "pairs": kind, "count": 3}
        for gain in gains
        for kind in ("stages", "rows")
    ]
    return charts.margins(rows, scale)


def lengths(scale: Rated) -> charts.Spec:
    bars = charts.rating_bars(scale)
    rows = [
        {"rating": label, "low": 10 + i, "middle": 20 + i, "high": 40 + i, "answers": 5}
        for i, label in enumerate(bars.labels)
    ]
    return charts.lengths(rows, scale, "rating")


def matrix(scale: Rated) -> charts.Spec:
    rows = [
        {"rater_label": rater, "author_label": author, "mean": mean, "n": 4}
        for rater, author, mean in zip("aabb", "abab", points(scale, 4), strict=True)
    ]
    return charts.matrix(rows, scale)


def agreement(scale: Rated) -> charts.Spec:
    rows = [{"peers": one, "observer": one, "drafts": 3} for one in points(scale)]
    return charts.agreement(rows, scale)


def society(scale: Rated) -> charts.Spec:
    nodes = [
        {"agent": i, "label": "l", "x": i % 4, "y": i // 4, "value": value,
         "text": "" if value is None else f"{value:,.12g}"}
        for i, value in enumerate([*points(scale), None])
    ]  # fmt: skip
    ratings, gains = {scale.name: scale}, {"change": scale}
    spec = charts.society(ratings, gains, {"label": ["l"]}, shape="graph", peers=scale)
    spec["datasets"]["edges"] = [{"x": 0, "y": 0, "x2": 1, "y2": 1, "at_x": 0.6, "at_y": 0.6,
                                  "rating": scale.high, "way": "in", "angle": 45}]  # fmt: skip
    return charts.with_nodes(spec, nodes, scale.name)


def grid(scale: Rated) -> charts.Spec:
    nodes = [
        {"agent": i, "label": "ab"[i % 2], "x": i % 4, "y": i // 4, "value": value,
         "text": "" if value is None else f"{value:,.12g}"}
        for i, value in enumerate([*points(scale), None])
    ]  # fmt: skip
    spec = charts.society({}, {"change": scale}, {"label": ["a", "b"]}, ["memories"], peers=scale)
    spec["datasets"]["outlines"] = [{"x": 0, "y": 0}]
    return charts.with_nodes(spec, nodes, "change")


DRAW: dict[str, Callable[[Rated], charts.Spec]] = {
    one.__name__: one
    for one in (
        curves,
        versus,
        gains,
        plane,
        history,
        distribution,
        margins,
        lengths,
        matrix,
        agreement,
        society,
        grid,
    )
}


@every_scale
@pytest.mark.parametrize("name", DRAW)
def test_every_chart_is_drawn_on_every_scale(
    name: str, scale: Rated, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = charts.themed(DRAW[name](scale))
    json.dumps(spec, allow_nan=False)
    vl_convert.vegalite_to_vega(spec, vl_version=charts.VERSION)
    tree = ElementTree.fromstring(svg(DRAW[name](scale), name))
    texts = {one.text for one in tree.iter() if one.tag.endswith("text")}
    assert len(texts) > 2 and not any("NaN" in (text or "") for text in texts)
    assert "WARN" not in capfd.readouterr().err


def walk(part: Any) -> Iterator[Row]:
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for some in part:
            yield from walk(some)


def test_no_chart_knows_a_scale_or_a_range() -> None:
    folder = ROOT / "sandbox" / "reading" / "charts"
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"alignment|engagement|1, 2, 3|\b1\W+7\b", text), path


@every_scale
def test_charts_of_no_rows_are_drawn(scale: Rated) -> None:
    for spec in (
        charts.curves([], scale, COLOURS),
        charts.versus([], scale),
        charts.gains([], scale),
        charts.distribution([], scale, COLOURS),
        charts.margins([], scale),
        charts.matrix([], scale),
        charts.agreement([], scale),
        charts.history([], scale, COLOURS),
        charts.lengths([], scale, "rating"),
        charts.plane([], scale, SEVEN),
        charts.society({}, {}, {}),
        charts.uses([]),
        charts.reached([]),
        charts.alike([]),
    ):
        assert svg(spec, "empty").startswith("<svg")


# Bars


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (SEVEN, [str(n) for n in range(1, 8)]),
        (TEN, [str(n) for n in range(11)]),
        (BOTH_SIDES, [*(f"\u2212{n}" for n in range(5, 0, -1)), *map(str, range(6))]),
        (HUNDRED, [*(f"{n} to {n + 9}" for n in range(0, 90, 10)), "90 to 100"]),
        (Rated("x", "x", 1, 100), ["1 to 9", *(f"{n} to {n + 9}" for n in range(10, 90, 10)),
                                   "90 to 100"]),
        (REAL, ["0 to 0.1", *(f"0.{n} to 0.{n + 1}" for n in range(1, 9)), "0.9 to 1"]),
        (Rated("x", "x", 0, 21), ["0 to 4", "5 to 9", "10 to 14", "15 to 19", "20 to 21"]),
    ],
)  # fmt: skip
def test_bars_of_ratings(scale: Rated, labels: list[str]) -> None:
    assert list(charts.rating_bars(scale).labels) == labels


def test_bars_of_gains_are_symmetrical_about_none() -> None:
    hundred = ranges.gain_bars(HUNDRED)
    above = ("1 to 19", "20 to 39", "40 to 59", "60 to 79", "80 to 100")
    assert hundred.labels[5:] == ("0", *above)
    assert hundred.labels[0] == "\u2212100 to \u221280"
    assert hundred.label(-1) == "\u221219 to \u22121"
    assert hundred.label(-20) == "\u221239 to \u221220"
    real = ranges.gain_bars(REAL)
    assert real.label(0.3 - 0.1) == "0.2 to 0.4"
    assert real.label(0.1 - 0.3) == "\u22120.4 to \u22120.2"
    assert real.label(0) == "0"
    assert real.label(1e-6) == "0 to 0.2"
    assert ranges.gain_bars(SEVEN).labels[0] == "\u22126"
    assert len(ranges.gain_bars(TEN).labels) == 21


ends = st.tuples(
    st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), st.floats(0.01, 1e6).map(lambda x: round(x, 2))
)


@given(ends, st.booleans(), st.data())
def test_bars_cover_a_range_once(
    some: tuple[float, float], integer: bool, data: st.DataObject
) -> None:
    low, width = some
    high = low + width
    if integer:
        low, high = float(round(low)), float(round(low) + math.ceil(width))
    scale = Rated("x", "x", low, high, integer)
    value = data.draw(st.integers(int(low), int(high)) if integer else st.floats(low, high))
    for bars, reach in ((ranges.rating_bars(scale), 0), (ranges.gain_bars(scale), 1)):
        assert 1 <= len(bars.labels) == len(bars.starts) <= 25
        assert all(one < two for one, two in pairwise(bars.starts))
        assert bars.starts[0] == pytest.approx(low - reach * high if reach else low)
        assert bars.label(value) in bars.labels
    assert len(set(ranges.rating_bars(scale).labels)) == len(ranges.rating_bars(scale).labels)


def test_a_histogram_counts_every_rating_in_its_bin() -> None:
    rows = [{"rating": value, "who": "peers", "count": 1} for value in range(101)]
    spec = charts.distribution(rows, HUNDRED, COLOURS)
    counts = {row["rating"]: row["count"] for row in spec["data"]["values"]}
    assert counts == {**{f"{n} to {n + 9}": 10 for n in range(0, 90, 10)}, "90 to 100": 11}
    assert sum(row["share"] for row in spec["data"]["values"]) == pytest.approx(1)
    assert spec["encoding"]["x"]["scale"]["domain"] == list(counts)


def test_agreement_is_framed_where_both_are_in_one_bin() -> None:
    rows = [
        {"peers": 41.5, "observer": 48, "drafts": 2},
        {"peers": 44, "observer": 40, "drafts": 3},
    ]
    spec = charts.agreement(rows, HUNDRED)
    (cell,) = spec["data"]["values"]
    assert cell == {"peers": "40 to 49", "observer": "40 to 49", "drafts": 5}


# Labels: what is printed is what is in the data

Labels = list[tuple[str, float, float]]
"""Texts of a picture with their places, x and y, within their group."""

AWKWARD = (1, 9, 99, 295, 999, 1000, 1234, 99_999, 123_456, 1_234_567)


def drawn_labels(drawn: str, role: str) -> list[Labels]:
    """The labels of each group of a role: `role-mark`, `role-axis-label`, `role-legend-label`."""
    groups = []
    for group in ElementTree.fromstring(drawn).iter():
        if {"mark-text", role} <= set((group.get("class") or "").split()):
            texts = [one for one in group if one.tag.endswith("text")]
            groups.append([("".join(one.itertext()), *_place(one)) for one in texts])
    return groups


def _place(text: ElementTree.Element) -> tuple[float, float]:
    x, y = re.findall(r"translate\(([-\d.e]+),([-\d.e]+)\)", text.get("transform") or "")[0]
    return float(x), float(y)


def number_in(label: str) -> float:
    """The number that a label prints."""
    plain = label.replace(",", "").replace("\u2212", "-")
    return float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)


def check_labels(printed: list[str], values: list[Any]) -> None:
    """Whole numbers are printed in full; other numbers with two decimals or three digits."""
    assert len(printed) == len(values)
    for label, value in zip(printed, values, strict=True):
        if isinstance(value, str):
            assert label == value
        elif not isinstance(value, float):
            assert number_in(label) == value, label
        else:
            assert number_in(label) == pytest.approx(value, rel=0.005, abs=0.00501), label


def text_layers(spec: Row) -> list[Row]:
    """The layers that print data, each with its own rows."""
    layers = [{"data": spec.get("data"), **layer} for layer in spec.get("layer", [spec])]
    return [layer for layer in layers if layer["mark"]["type"] == "text"]


def check_figure(spec: charts.Spec) -> None:
    """Compare the printed labels, tooltips and axes of a chart with its data."""
    drawn = svg(spec, "checked")
    groups = drawn_labels(drawn, "role-mark")
    layers = text_layers(spec)
    assert len(groups) == len(layers)
    for group, layer in zip(groups, layers, strict=True):
        field = layer["encoding"]["text"]["field"]
        if "name" in layer["data"]:  # the map prints texts of its own
            told = [row for row in spec["datasets"][layer["data"]["name"]] if row[field]]
            check_labels([text for text, *_ in group if text], [row["value"] for row in told])
            continue
        shown = {str(row[field]): row[field] for row in layer["data"]["values"]}
        if "transform" in layer:
            assert {text for text, *_ in group} <= set(shown)
        else:
            check_labels([text for text, *_ in group],
                         [row[field] for row in layer["data"]["values"]])  # fmt: skip
    for role in ("role-axis-label", "role-legend-label"):
        for group in drawn_labels(drawn, role):
            check_ticks(group)
    for part in walk(spec):
        if isinstance(part.get("tooltip"), list):
            check_tooltip(part["tooltip"], spec)


def check_ticks(group: Labels) -> None:
    """No two labels are equal, and numbers are as far apart as their places."""
    assert len({text for text, *_ in group}) == len(group), group
    try:
        told = [(number_in(text), x, y) for text, x, y in group]
    except ValueError:  # names and bins
        return
    for axis in (1, 2):
        places = [one[axis] for one in told]
        if len(told) > 2 and max(places) - min(places) > 30:
            (low, start), (high, end) = ((one[0], one[axis]) for one in (told[0], told[-1]))
            for number, *place in told:
                expected = start + (number - low) / (high - low) * (end - start)
                assert place[axis - 1] == pytest.approx(expected, abs=2), group


def check_tooltip(channels: list[Row], spec: charts.Spec) -> None:
    """A number in a tooltip is that of the row; each format is tried on a text of its own."""
    rows = spec["data"]["values"] if "data" in spec else spec["datasets"]["nodes"]
    for channel in channels:
        values = [row[channel["field"]] for row in rows
                  if isinstance(row.get(channel["field"]), int | float)
                  and not isinstance(row[channel["field"]], bool)]  # fmt: skip
        if values:
            texts = {"mark": "text", "encoding": {"text": channel}}
            data = {"values": [{channel["field"]: value} for value in values]}
            drawn = vl_convert.vegalite_to_svg({"data": data, **texts}, vl_version=charts.VERSION)
            (printed,) = drawn_labels(drawn, "role-mark")
            check_labels([text for text, *_ in printed], values)


@every_scale
@pytest.mark.parametrize("name", DRAW)
def test_printed_numbers_are_those_of_the_data(name: str, scale: Rated) -> None:
    check_figure(DRAW[name](scale))


@pytest.mark.parametrize("scale", [SEVEN, BOTH_SIDES, HUNDRED], ids=lambda scale: scale.name)
def test_counts_are_printed_in_full_and_fit_their_cells(scale: Rated) -> None:
    bars = charts.rating_bars(scale).starts
    counts = [AWKWARD[i % len(AWKWARD)] for i in range(len(bars))]
    rows = [{"peers": at, "observer": at, "drafts": n}
            for at, n in zip(bars, counts, strict=True)]  # fmt: skip
    spec = charts.agreement(rows, scale)
    check_figure(spec)
    drawn = svg(spec, "agreement")
    (labels,) = drawn_labels(drawn, "role-mark")
    assert [text for text, *_ in labels] == [f"{count:,}" for count in counts]
    (size,) = {
        float(size) for size in re.findall(r'font-size="([\d.]+)px" font-weight="600"', drawn)
    }
    assert max(counts) < 1e6 or len(f"{max(counts):,}") * size * 0.6 < 540 / len(bars)
    answers = [{"rating": label, "low": 10.25, "middle": 20.5, "high": 40.75, "answers": n}
               for label, n in zip(
                   charts.rating_bars(scale).labels, counts, strict=True)]  # fmt: skip
    check_figure(charts.lengths(answers, scale, "rating"))
    given = [{"rating": at, "who": who, "count": n} for who in ("first", "peers")
             for at, n in zip(bars, counts, strict=True)]  # fmt: skip
    check_figure(charts.distribution(given, scale, COLOURS))


def test_charts_of_comparisons_print_the_numbers_of_their_data() -> None:
    rows = [{"measure": f"m{i}", "difference": i / 7, "low": i / 7 - 0.5, "high": i / 7 + 0.5}
            for i in range(-3, 4)]  # fmt: skip
    check_figure(charts.differences(rows))
    memories = [{"rank": i, "question": f"Question {i}?", "distance": i / 13, "chosen": i < 3}
                for i in range(1, 12)]  # fmt: skip
    check_figure(charts.recall(memories, 0.31))
    agents = [{"agent": i, "name": "A", "label": "l", "deviation": i / 9, "low": i / 9 - 1,
               "high": i / 9 + 1, "n": AWKWARD[i]} for i in range(10)]  # fmt: skip
    check_figure(charts.bias(agents))


def test_means_on_a_narrow_scale_are_told_apart() -> None:
    narrow = Rated("x", "x", 0.5, 0.54, integer=False)
    means = (0.5101, 0.5104, 0.5107, 0.511)
    rows = [{"rater_label": rater, "author_label": author, "mean": mean, "n": 4}
            for rater, author, mean in zip("aabb", "abab", means, strict=True)]  # fmt: skip
    labels, _ = drawn_labels(svg(charts.matrix(rows, narrow), "matrix"), "role-mark")
    assert len({text for text, *_ in labels}) == 4
    assert ranges.mean_format(SEVEN) == ranges.mean_format(HUNDRED) == ",.2f"


def test_legends_of_wide_ranges_keep_every_digit() -> None:
    wide = Rated("x", "x", -999_999.75, 1_000_000, integer=False)
    for legend in (ranges.rating_legend(wide), ranges.gain_legend(wide)):
        nodes = [{"agent": 1, "label": "l", "x": 0, "y": 0, "value": 3}]
        gain = "labelExpr" in legend
        spec = charts.society({} if gain else {"x": wide}, {"x": wide} if gain else {}, {})
        spec = charts.with_nodes(spec, nodes, "x")
        (labels,) = drawn_labels(svg(spec, "map"), "role-legend-label")
        assert sorted(number_in(text) for text, *_ in labels) == sorted(legend["values"])


# Colours and axes


def test_the_better_end_has_the_upper_end_of_the_ramp() -> None:
    for scale in SCALES:
        colour = ranges.rating_colours(scale)
        assert colour["domain"] == [scale.low, scale.high] and len(colour["range"]) == 7
        better = scale.high if scale.better == "high" else scale.low
        place = colour["domain"].index(better)
        assert (colour["range"][0], colour["range"][-1])[place] == "--ramp-7"


@pytest.mark.parametrize("scale", [HUNDRED, REAL], ids=lambda scale: scale.name)
def test_text_can_be_read_at_both_ends_of_the_ramp(scale: Rated) -> None:
    """The darkest cell has white text, the lightest has black: as drawn."""
    drawn = svg(matrix(scale), "matrix")
    palette = parts.palette()
    better, worse = (scale.high, scale.low) if scale.better == "high" else (scale.low, scale.high)
    inks = {float(text): fill for fill, text in re.findall(
        r'<text[^>]*fill="(#\w{6})"[^>]*>([\d.]+)</text>', drawn)}  # fmt: skip
    assert inks[float(better)] == palette["--on-7"]
    assert inks[float(worse)] == palette["--on-1"]


@every_scale
def test_axes_of_gains_are_symmetrical(scale: Rated) -> None:
    low, high = gains(scale)["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low == -high and 0 < high <= scale.high - scale.low


@every_scale
def test_curves_stay_within_the_range(scale: Rated) -> None:
    low, high = curves(scale)["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert scale.low <= low < high <= scale.high
    title = curves(scale)["layer"][0]["encoding"]["y"]["title"]
    assert ("lower is better" in title) == (scale.better == "low")


def test_ticks_of_short_scales_are_their_values() -> None:
    assert ranges.ticks(BOTH_SIDES)["values"] == list(range(-5, 6))
    assert "values" not in ranges.ticks(HUNDRED) and "values" not in ranges.ticks(REAL)
    assert ranges.rating_legend(BOTH_SIDES)["values"] == [-5, 0, 5]
    assert ranges.gain_legend(HUNDRED)["values"] == [-50, 0, 50]


def test_a_map_has_the_colours_of_every_measure() -> None:
    labels = {"label": ["bad", "good"]}
    spec = charts.society(
        {"honesty": TEN, "effort": HUNDRED}, {"change": HUNDRED}, labels, ["memories"]
    )
    fills = spec["usermeta"]["fills"]
    names = ["honesty", "effort", "change", "label", "memories"]
    assert list(fills) == list(spec["usermeta"]["inks"]) == names
    assert fills["honesty"]["scale"]["domain"] == [0, 10]
    assert fills["change"]["scale"]["domain"] == [-50, 50]
    assert fills["label"]["scale"]["domain"] == ["bad", "good"]
    assert fills["label"]["scale"]["range"] == ["--label-2", "--label-1"]
    fill = spec["layer"][spec["usermeta"]["agents"]]["encoding"]["fill"]
    assert fill == fills["honesty"]


def test_the_front_steps_away_from_the_better_end() -> None:
    rows = [{"round": 1, "quality": 2.0, "risk": 0.5, "front": True}]
    steps = [
        charts.plane(rows, *pair)["layer"][1]["mark"]["interpolate"]
        for pair in ((SEVEN, REAL), (REAL, SEVEN))
    ]
    assert steps == ["step-before", "step-after"]


# Pictures


def figure() -> Figure:
    rows = [{"rating": n, "who": "peers\x00\u202e<b>", "count": n} for n in range(1, 8)]
    colours = {"peers": charts.PEERS}
    return Figure("ratings", "Ratings", "how", rows, partial(_draw, colours=colours))


def _draw(rows: charts.Rows, colours: dict[str, str]) -> charts.Spec:
    names = {str(row["who"]): "--peers" for row in rows}
    panel = charts.distribution(rows, SEVEN, names)
    return charts.panels({"one": panel, "two": panel})


def test_a_picture_states_its_title_and_origin() -> None:
    drawn = figure().svg(subtitle="my run (composed without a language model)")
    texts = [one.text or "" for one in ElementTree.fromstring(drawn).iter()]
    assert {"Ratings", "my run (composed without a language model)", "one", "two"} <= set(texts)
    assert any("<b>" in text for text in texts)
    assert "Ratings" not in [one.text for one in ElementTree.fromstring(figure().svg()).iter()]
    assert png(drawn).startswith(b"\x89PNG")


def test_a_long_origin_is_wrapped_and_not_cut() -> None:
    origin = " + ".join(f"run-{n}" for n in range(40)) + " (composed without a language model)"
    tree = ElementTree.fromstring(figure().svg(subtitle=origin))
    lines = [one.text or "" for one in tree.iter() if "run-" in (one.text or "")]
    text = " ".join(one.text or "" for one in tree.iter())
    assert "(composed without a language model)" in text
    assert len(lines) > 2 and max(map(len, lines)) < 90


PROGRAM = """
import sys
sys.path.insert(0, "tests")
from sandbox.reading.pictures import svg
from test_charts import HUNDRED, DRAW, figure
before = [svg(DRAW[name](HUNDRED), name) for name in sys.argv[1:]]
sys.stdout.buffer.write((svg(DRAW["plane"](HUNDRED), "plane") + figure().svg()).encode())
"""


@pytest.mark.long
def test_pictures_have_the_same_bytes_in_every_process() -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *before], cwd=ROOT, capture_output=True, check=True
        ).stdout
        for before in ((), ("matrix", "plane", "curves"))
    )
    assert first == second and first.startswith(b"<svg")


def test_panels_fit_the_width() -> None:
    for width in (420, 600):
        drawn = figure().svg(width=width)
        found = re.search(r'<svg[^>]* width="([\d.]+)"', drawn)
        assert found is not None and 0.8 * width < float(found[1]) < 1.1 * width


LONG = [
    f"{place} of the harbour, where the name of a group has {'many ' * 12}words" for place in "ab"
]


def split_rows(groups: list[str], rounds: int = 3) -> list[Row]:
    return [
        {"round": round, "group": group, "series": series, "mean": 4, "low": 3, "high": 5, "n": 9}
        for round in range(rounds)
        for group in groups
        for series in ("draft", "revision", "peers")
    ]


def legend(drawn: str) -> list[tuple[str, float]]:
    """The labels of the legends, and where each ends in pixels, about."""
    found = []

    def walk(item: ElementTree.Element, left: float, inside: bool) -> None:
        moved = re.match(r"translate\(([-\d.]+)", item.get("transform", ""))
        left += float(moved[1]) if moved else 0
        inside = inside or "role-legend-label" in item.get("class", "")
        if inside and item.text and item.tag.endswith("text"):
            found.append((item.text, left + 5.5 * len(item.text)))
        for part in item:
            walk(part, left, inside)

    walk(ElementTree.fromstring(drawn), 0.0, False)
    return found


@pytest.mark.parametrize("width", [361, 400, 600])
@pytest.mark.parametrize("groups", [[f"community {n}" for n in range(8)], LONG], ids=["8", "long"])
def test_legends_are_drawn_whole_in_any_width(groups: list[str], width: int) -> None:
    for spec in (
        charts.group_curves(split_rows(groups), SEVEN, ["draft", "revision"]),
        charts.versus([{**row, "seed": None} for row in split_rows(groups)], SEVEN),
    ):
        drawn = legend(svg(spec, "x", width=width))
        named = [text for text, _ in drawn if text not in ("draft", "revision", "peers")]
        assert len(named) == len(groups)
        assert all(
            name.startswith(text.rstrip("\u2026")) for text, name in zip(named, groups, strict=True)
        )
        assert max(end for _, end in drawn) <= width
    assert [
        text for text, _ in legend(svg(charts.group_curves(split_rows(groups), SEVEN, []), "x"))
    ][-3:] == ["draft", "revision", "peers"]


def test_a_gap_of_long_names_is_no_higher_and_one_round_has_its_interval() -> None:
    def drawn(groups: str, rounds: int) -> Any:
        rows = [
            {"round": n, "series": "draft", "groups": groups, "gap": 1, "low": 0.5, "high": 2}
            for n in range(rounds)
        ]
        return charts.gap_curves(rows, SEVEN, {"draft": "--first"})

    def height(spec: Any) -> float:
        return float(re.search(r'height="([\d.]+)"', svg(spec, "x"))[1])  # type: ignore[index]

    long = " \u2212 ".join(LONG)
    assert height(drawn(long, 3)) == pytest.approx(height(drawn("good \u2212 bad", 3)), abs=8)
    assert "good \u2212 bad, points" in svg(drawn("good \u2212 bad", 3), "x")
    assert "mark-rule" in svg({**drawn(long, 1), "layer": drawn(long, 1)["layer"][1:]}, "x")
    assert "mark-area" in svg(drawn(long, 3), "x")
