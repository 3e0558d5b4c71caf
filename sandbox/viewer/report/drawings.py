"""Figures as a report holds them: to look at in both themes, and to take away."""

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
"""The files that a figure can be taken away as."""

_WIDTH = 420  # of a drawing on a page: two stand side by side, and one fits a phone
_LONG = 12  # agents in a list
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
        svg = figure.svg(width=_WIDTH)
        table = "".join(lines(figure.rows, "csv", figure.columns))
        return cls(figure, {"svg": svg.encode(), "png": png(svg), "csv": table.encode()})

    @property
    def is_long(self) -> bool:
        """Whether it is higher than two others beside each other should be."""
        return len(self.figure.rows) > _LONG and self.figure.name == "bias"

    def inline(self, dark: bool) -> Markup:
        """The SVG of a theme, as a part of a page that holds other ones."""
        svg = self.figure.svg(dark, _WIDTH) if dark else self.files["svg"].decode()
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
