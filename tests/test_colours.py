"""Colours of charts: text on the ramp can be read, and kinds differ for deuteranopes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from sandbox.reading.charts import OUTCOMES
from sandbox.reading.charts.parts import RAMP, palette
from sandbox.reading.charts.ranges import DARK

Colour = NDArray[np.float64]

both_themes = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])

DEUTERANOPE = np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
])  # fmt: skip
"""Machado, Oliveira and Fernandes 2009, of linear RGB."""

TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip


def rgb(name: str, dark: bool) -> Colour:
    text = palette(dark)[name]
    return np.array([int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def linear(colour: Colour) -> Colour:
    made: Colour = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return made


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(light: Colour) -> Colour:
    scaled = np.cbrt(TO_XYZ @ np.clip(light, 0, 1) / np.array([0.95047, 1, 1.08883]))
    x, y, z = scaled
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@both_themes
def test_text_can_be_read_on_every_colour_of_the_ramp(dark: bool) -> None:
    """Also between two steps, where charts interpolate."""
    ramp = [rgb(name, dark) for name in RAMP]
    for place in np.linspace(0, 1, 301):
        below = min(5, int(place * 6))
        colour = ramp[below] + (ramp[below + 1] - ramp[below]) * (place * 6 - below)
        ink = rgb("--on-7" if place >= DARK else "--on-1", dark)
        assert contrast(colour, ink) >= 4.5, place
    for step in range(1, 8):
        assert contrast(rgb(f"--ramp-{step}", dark), rgb(f"--on-{step}", dark)) >= 4.5


@both_themes
def test_the_ramp_has_even_direction_and_a_distinct_upper_end(dark: bool) -> None:
    lightness = [lab(linear(rgb(name, dark)))[0] for name in RAMP]
    steps = np.diff(lightness) * (1 if dark else -1)
    assert min(steps) > 5 and min(steps[-2:]) > 14


@both_themes
def test_kinds_of_missing_ratings_differ_for_deuteranopes(dark: bool) -> None:
    seen = {kind: lab(DEUTERANOPE @ linear(rgb(name, dark))) for kind, name in OUTCOMES.items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 25, (one, other)
