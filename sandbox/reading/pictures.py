"""Image files of charts: SVG, PNG and PDF.

The same spec gives the same bytes in every process, but for PDFs, whose objects vl-convert numbers
in a random order.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.sax.saxutils import escape

import vl_convert

from sandbox.reading import charts
from sandbox.reading.charts import Spec
from sandbox.text import escape_controls

WIDTH = 600
"""Default width of an SVG in pixels."""

PAPER_MM = 85
"""Width of a figure for a paper: one column of most journals."""

PAPER_POINTS = 8
"""The font size of a figure for a paper."""

_POINTS_PER_MM = 72 / 25.4
_POINTS_PER_PIXEL = 72 / 96
_PAPER_SCALE = PAPER_POINTS / charts.FONT_SIZE  # points per pixel of the chart
_PAPER_WIDTH = round(PAPER_MM * _POINTS_PER_MM / _PAPER_SCALE)  # pixels
_PNG_SCALE = 3.0  # PNG pixels per SVG pixel
_UTF16 = b"\xfe\xff"  # byte order mark of a text in a PDF
_IDS = re.compile(r'(id="|url\(#)((?:clip|gradient_)\d+)')
_SIZE = re.compile(r' width="([\d.]+)(mm)?" height="([\d.]+)(?:mm)?"')


class Caption(NamedTuple):
    """What the file of a picture says about itself.

    Attributes:
        title: the title of the figure.
        about: what its marks mean.
        source: the runs, their digests, and the version of the program.
    """

    title: str
    about: str
    source: str


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


def paper_svg(spec: Spec, name: str) -> str:
    """Draw a chart for a paper: 85 mm wide, text of 8 points, in the light theme."""
    drawn = svg(charts.with_font_size(spec), name, width=_PAPER_WIDTH)
    return _resized(drawn, PAPER_MM, "mm")


def png(svg: str) -> bytes:
    """Convert an SVG to a PNG that is sharp in print."""
    drawn: bytes = vl_convert.svg_to_png(svg, scale=_PNG_SCALE)
    return drawn


def pdf(svg: str, caption: Caption) -> bytes:
    """Convert an SVG to a PDF of the same size in print, with embedded fonts."""
    width, unit = _width(svg)
    points = width * (_POINTS_PER_MM if unit == "mm" else _POINTS_PER_PIXEL)
    drawn: bytes = vl_convert.svg_to_pdf(_resized(svg, points))  # a pixel becomes a point
    return _with_info(
        drawn,
        {
            "Title": caption.title,
            "Subject": caption.about,
            "Keywords": caption.source,
            "Creator": "Sandbox society",
        },
    )


def described(svg: str, caption: Caption) -> str:
    """Add title, description and source to an SVG, as elements and as Dublin Core metadata."""
    title, about, source = (escape(escape_controls(text)) for text in caption)
    dublin_core = (
        '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description rdf:about="">'
        f"<dc:title>{title}</dc:title><dc:description>{about}</dc:description>"
        f"<dc:source>{source}</dc:source></rdf:Description></rdf:RDF></metadata>"
    )
    head, end, rest = svg.partition(">")
    return f"{head}{end}<title>{title}</title><desc>{about} {source}</desc>{dublin_core}{rest}"


def _width(svg: str) -> tuple[float, str | None]:
    """The width of an SVG, and its unit; None: pixels."""
    found = _SIZE.search(svg)
    assert found is not None
    return float(found[1]), found[2]


def _resized(svg: str, width: float, unit: str = "") -> str:
    """The same picture with another width, and the height that goes with it."""

    def size(found: re.Match[str]) -> str:
        height = width * float(found[3]) / float(found[1])
        return f' width="{width:.6g}{unit}" height="{height:.6g}{unit}"'

    return _SIZE.sub(size, svg, count=1)


def _with_unique_ids(svg: str, name: str) -> str:
    """Rename ids: vl-convert numbers them from a counter of the process."""
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return match[1] + names.setdefault(match[2], f"{name}-{len(names)}")

    return _IDS.sub(rename, svg)


def _with_info(pdf: bytes, info: dict[str, str]) -> bytes:
    """Append document information to a PDF, as an incremental update (ISO 32000-1, 7.5.6)."""
    trailer = pdf[pdf.rindex(b"trailer") :]
    size, root, before = (
        int(found[1])
        for pattern in (rb"/Size (\d+)", rb"/Root (\d+) 0 R", rb"startxref\s+(\d+)")
        if (found := re.search(pattern, trailer))
    )
    entries = " ".join(
        f"/{key} <{(_UTF16 + escape_controls(text).encode('utf-16-be')).hex()}>"
        for key, text in info.items()
    )
    added = pdf + b"\n"
    place = len(added)
    added += f"{size} 0 obj\n<< {entries} >>\nendobj\n".encode()
    table = f"xref\n{size} 1\n{place:010} 00000 n\r\n"
    end = f"/Size {size + 1} /Root {root} 0 R /Info {size} 0 R /Prev {before}"
    return added + f"{table}trailer\n<< {end} >>\nstartxref\n{len(added)}\n%%EOF\n".encode()
