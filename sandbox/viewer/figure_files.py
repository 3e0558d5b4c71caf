"""Figures as files: CSV, SVG, PNG and PDF, on a screen or in a paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from sandbox.reading.figures import Figure, source_of
from sandbox.viewer.addresses import Query
from sandbox.viewer.downloads import lines
from storage.reader import Reader

TYPES = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv; charset=utf-8",
}
"""The media type of each kind of file."""


def figure_response(
    figure: Figure | None, kind: str, query: Query, readers: Iterable[Reader] = ()
) -> Response:
    """A figure as a file to download.

    Args:
        figure: the figure; None or one without rows is not found.
        kind: one of `TYPES`.
        query: `theme` (light or dark), and `size` (`paper`: 85 mm wide with text of 8 points).
        readers: the runs that it shows, named in the file.

    Raises:
        HTTPException: there is no such figure or kind.
        InputError: a value of the query is not allowed.
    """
    if figure is None or not figure.rows or kind not in TYPES:
        raise HTTPException(404)
    paper = query.choice("size", ("screen", "paper")) == "paper"
    dark = query.choice("theme", ("light", "dark")) == "dark"
    name = f"{figure.name}-paper" if paper and kind != "csv" else figure.name
    headers = {"content-disposition": f'attachment; filename="{name}.{kind}"'}
    if kind == "csv":
        data = "".join(lines(figure.rows, "csv", figure.columns)).encode()
    else:
        data = figure.file(kind, source_of(readers), dark, paper)
    return Response(data, media_type=TYPES[kind], headers=headers)


def figure_links(base: str, **query: str | None) -> Iterator[tuple[str, str]]:
    """The labels and URLs of the files of a figure.

    Args:
        base: the URL of the figure without its suffix and query.
        query: its query; None leaves a parameter out.
    """
    given = {name: value for name, value in query.items() if value is not None}
    for kind in TYPES:
        yield kind.upper(), _with_query(f"{base}.{kind}", given)
    yield "PDF for a paper", _with_query(f"{base}.pdf", {**given, "size": "paper"})


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(query)}" if query else url
