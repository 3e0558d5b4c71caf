"""Figures of a report, rendered in both themes and as files to download."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from sandbox.reading.figures import Figure
from sandbox.reading.pictures import png
from sandbox.viewer.downloads import lines

TYPES = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}
"""The file types that a figure is written as, with their media types."""

_WIDTH = 420  # of a figure on a page: two stand side by side, and one fits a phone
_LONG = 12  # agents in a list
_ROLES = re.compile(r' role="graphics-[a-z]+"| aria-roledescription="[^"]*"')
_NAMESPACES = re.compile(r' xmlns(?::xlink)?="[^"]*"')


class RenderedFigure(NamedTuple):
    """A figure with its files.

    Attributes:
        figure: its rows and their chart.
        files: the content of each of `TYPES`.
    """

    figure: Figure
    files: dict[str, bytes]

    @classmethod
    def of(cls, figure: Figure) -> RenderedFigure:
        """Render a figure; the same figure always gives the same files."""
        svg = figure.svg(width=_WIDTH)
        table = "".join(lines(figure.rows, "csv", figure.columns))
        return cls(figure, {"svg": svg.encode(), "png": png(svg), "csv": table.encode()})

    @property
    def is_long(self) -> bool:
        """Whether it is too high to stand beside another figure."""
        return len(self.figure.rows) > _LONG and self.figure.name == "bias"

    def inline(self, dark: bool) -> Markup:
        """The SVG of a theme, to be put into a page beside other SVGs."""
        svg = self.figure.svg(dark, _WIDTH) if dark else self.files["svg"].decode()
        head, body, rest = svg.partition(">")
        return Markup(_NAMESPACES.sub("", head) + body + _ROLES.sub("", rest))

    def links(self) -> Iterator[tuple[str, str]]:
        """The files as data URLs: the name of the type, and the URL."""
        for kind, data in self.files.items():
            yield kind.upper(), f"data:{TYPES[kind]};base64,{b64encode(data).decode()}"

    def write(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            OSError: they cannot be written.
        """
        for kind, data in self.files.items():
            (folder / f"{self.figure.name}.{kind}").write_bytes(data)
