"""Image files of charts: SVG and PNG. The same spec gives the same bytes in every process."""

from __future__ import annotations

import re

import vl_convert

from sandbox.reading import charts
from sandbox.reading.charts import Spec

WIDTH = 600
"""Default width of an SVG in pixels."""

_PNG_SCALE = 3.0  # PNG pixels per SVG pixel
_IDS = re.compile(r'(id="|url\(#)((?:clip|gradient_)\d+)')


def svg(spec: Spec, name: str, dark: bool = False, width: int = WIDTH) -> str:
    """Draw a chart as SVG.

    Args:
        spec: the chart, in the colours of the style sheet.
        name: a prefix of its ids, so that one page can contain several images.
        dark: in the colours of the dark theme.
        width: pixels.
    """
    themed = charts.themed(spec, dark, width)
    drawn: str = vl_convert.vegalite_to_svg(themed, vl_version=charts.VERSION)
    return _with_unique_ids(drawn, f"{name}-{'dark' if dark else 'light'}")


def png(svg: str) -> bytes:
    """Convert an SVG to a PNG that is sharp in print."""
    drawn: bytes = vl_convert.svg_to_png(svg, scale=_PNG_SCALE)
    return drawn


def _with_unique_ids(svg: str, name: str) -> str:
    """Rename ids: vl-convert numbers them from a counter of the process."""
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return match[1] + names.setdefault(match[2], f"{name}-{len(names)}")

    return _IDS.sub(rename, svg)
