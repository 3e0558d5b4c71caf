"""Figures of a report, rendered in both themes and as files to download."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from sandbox.reading.figures import Figure
from sandbox.viewer.downloads import lines

TYPES = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv",
}
"""The media type of each file type that a figure is written as."""

_WIDTH = 420  # pixels: two figures fit side by side, and one fits on a phone
_LONG = 12  # agents in a figure with a row for each
_ROLES = re.compile(r' role="graphics-[a-z]+"| aria-roledescription="[^"]*"')
_NAMESPACES = re.compile(r' xmlns(?::xlink)?="[^"]*"')


class RenderedFigure(NamedTuple):
    """A figure rendered as files.

    Attributes:
        figure: the rows and their chart.
        files: the content of the file of each of `TYPES`.
    """

    figure: Figure
    files: dict[str, bytes]

    @classmethod
    def of(cls, figure: Figure, source: str) -> RenderedFigure:
        """Render a figure deterministically.

        Args:
            figure: the figure.
            source: its run, which the files name; see `reading.figures.source_of`.
        """
        table = "".join(lines(figure.rows, "csv", figure.columns)).encode()
        drawn = {kind: figure.file(kind, source, width=_WIDTH) for kind in TYPES if kind != "csv"}
        return cls(figure, {**drawn, "csv": table})

    @property
    def is_long(self) -> bool:
        """Whether it is too tall to be placed beside another figure."""
        return len(self.figure.rows) > _LONG and self.figure.name in ("bias", "gain-by-group")

    def inline(self, dark: bool) -> Markup:
        """The SVG for a theme, without the attributes that inline SVG does not need."""
        svg = self.figure.svg(dark, _WIDTH)
        head, body, rest = svg.partition(">")
        return Markup(_NAMESPACES.sub("", head) + body + _ROLES.sub("", rest))

    def links(self) -> Iterator[tuple[str, str]]:
        """The type and the data URL of each file that is the same whenever it is written."""
        for kind, data in self.files.items():
            if kind != "pdf":
                yield kind.upper(), f"data:{TYPES[kind]};base64,{b64encode(data).decode()}"

    def write(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            OSError: they cannot be written.
        """
        for kind, data in self.files.items():
            (folder / f"{self.figure.name}.{kind}").write_bytes(data)
