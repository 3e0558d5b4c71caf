"""Figures as a report holds them: to look at in both themes, and to take away."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import vl_convert
from markupsafe import Markup

from sandbox.reading import charts
from sandbox.reading.figures import Figure
from sandbox.viewer.downloads import lines
from sandbox.viewer.filters import short

TYPES = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}
"""The files that a figure can be taken away as."""

_WIDTH = 420  # of a drawing on a page: two stand side by side, and one fits a phone
_SCALE = 3.0  # pixels of a PNG a point
_LETTERS = 60  # of a name
_LONG = 12  # agents in a list
_IDS = re.compile(r'(id="|url\(#)((?:clip|gradient_)\d+)')
_ROLES = re.compile(r' role="graphics-[a-z]+"| aria-roledescription="[^"]*"')
_NAMESPACES = re.compile(r' xmlns(?::xlink)?="[^"]*"')


class Drawing(NamedTuple):
    """A figure, drawn.

    Attributes:
        figure: what is drawn.
        files: the file of each of `TYPES`.
    """

    figure: Figure
    files: dict[str, bytes]

    @classmethod
    def of(cls, figure: Figure) -> Drawing:
        """A figure in files; the same figure always gives the same ones."""
        clean = figure._replace(rows=[_clean(row) for row in figure.rows])
        svg = _svg(clean, dark=False)
        png = vl_convert.svg_to_png(svg, scale=_SCALE)
        table = "".join(lines(figure.rows, "csv", figure.columns))
        return cls(clean, {"svg": svg.encode(), "png": png, "csv": table.encode()})

    @property
    def is_long(self) -> bool:
        """Whether it is higher than two others beside each other should be."""
        return len(self.figure.rows) > _LONG and self.figure.name == "bias"

    def inline(self, dark: bool) -> Markup:
        """The SVG of a theme, as a part of a page that holds other ones."""
        svg = _svg(self.figure, dark) if dark else self.files["svg"].decode()
        head, body, rest = svg.partition(">")
        return Markup(_NAMESPACES.sub("", head) + body + _ROLES.sub("", rest))

    def links(self) -> Iterator[tuple[str, str]]:
        """The files as addresses that hold them: the name of the type, and the address."""
        for kind, data in self.files.items():
            yield kind.upper(), f"data:{TYPES[kind]};base64,{b64encode(data).decode()}"

    def write(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            OSError: they cannot be written.
        """
        for kind, data in self.files.items():
            (folder / f"{self.figure.name}.{kind}").write_bytes(data)


def _clean(row: dict[str, object]) -> dict[str, object]:
    """A row whose texts are short, and hold nothing that hides or that an SVG may not hold."""
    return {
        key: short(some, _LETTERS) if isinstance(some, str) else some for key, some in row.items()
    }


def _svg(figure: Figure, dark: bool) -> str:
    spec = charts.themed({**figure.spec, "width": _WIDTH}, dark)
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=charts.VERSION)
    return _own_ids(svg, f"{figure.name}-{'dark' if dark else 'light'}")


def _own_ids(svg: str, name: str) -> str:
    """An SVG whose ids no other one has; vl-convert counts them on from drawing to drawing."""
    seen: dict[str, str] = {}

    def own(found: re.Match[str]) -> str:
        return found[1] + seen.setdefault(found[2], f"{name}-{len(seen)}")

    return _IDS.sub(own, svg)
