"""The web application: which address is which page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import vl_convert
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.reading import charts
from sandbox.reading.figures import figures
from sandbox.reading.pictures import png
from sandbox.reading.statistics import t_quantile
from sandbox.viewer import downloads
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.guard import Guard
from sandbox.viewer.pages import Pages
from storage.database import one_line
from storage.errors import InputError, NotThere

STATIC = Path(__file__).parent / "static"

_HIGHEST = 2**31 - 1  # of a number in an address


@cache
def vega() -> bytes:
    """Vega, Vega-Lite and vega-embed in one script, as they come with vl-convert."""
    return vl_convert.javascript_bundle(vl_version=charts.VERSION).encode()  # type: ignore[call-arg]


def warm_up() -> None:
    """Do what is done once and takes long, so that no page waits for it."""
    vega()
    t_quantile(0.975, 1)


class Site:
    """Answers requests.

    Args:
        catalog: the runs that are shown.
    """

    def __init__(self, catalog: RunCatalog) -> None:
        self._catalog = catalog
        self.pages = Pages(catalog, Links())

    def runs(self, request: Request) -> Response:
        """The list of runs."""
        return HTMLResponse(self.pages.runs(_query(request)))

    def runs_pulse(self, request: Request) -> Response:
        """Whether any run has gone on."""
        return JSONResponse(self.pages.runs_pulse())

    def page(self, make: Callable[..., str], request: Request) -> Response:
        """A page of a run."""
        return HTMLResponse(make(**_parts(request), query=_query(request)))

    def part(self, make: Callable[..., Any], request: Request) -> Response:
        """What a script of a page asks for: data, or a piece of the page."""
        made = make(**_parts(request))
        return HTMLResponse(made) if isinstance(made, str) else JSONResponse(made)

    def compare(self, request: Request) -> Response:
        """Runs side by side."""
        keys = request.query_params.getlist("run")
        return HTMLResponse(self.pages.compare(keys, _query(request)))

    def differences(self, request: Request) -> Response:
        """The differences of runs."""
        keys = request.query_params.getlist("run")
        try:
            return HTMLResponse(self.pages.differences(keys, _query(request)))
        except InputError as error:
            return HTMLResponse(self.pages.note(str(error)))

    def download(self, request: Request) -> Response:
        """What a filter shows, as a file."""
        key, name, kind = (request.path_params[part] for part in ("key", "name", "kind"))
        if name not in downloads.KINDS or kind not in downloads.TYPES:
            raise HTTPException(404)
        reader = self._catalog.open(key)
        columns = downloads.KINDS[name].columns(reader)
        rows = downloads.KINDS[name].rows(reader, _query(request))
        first = list(islice(rows, 1))  # what is wrong shows before the answer has begun
        return StreamingResponse(
            downloads.lines(chain(first, rows), kind, columns),
            media_type=downloads.TYPES[kind],
            headers=_attached(f"{name}.{kind}"),
        )

    def figure(self, request: Request) -> Response:
        """A figure, to take away."""
        key, name, kind = (request.path_params[part] for part in ("key", "name", "kind"))
        found = figures(self._catalog.open(key)).get(name)
        if found is None or kind not in ("svg", "png", "csv"):
            raise HTTPException(404)
        headers = _attached(f"{name}.{kind}")
        if kind == "csv":
            text = "".join(downloads.lines(found.rows, "csv", found.columns))
            return Response(text, media_type=downloads.TYPES["csv"], headers=headers)
        dark = _query(request).choice("theme", ("light", "dark")) == "dark"
        svg = found.svg(dark)
        if kind == "svg":
            return Response(svg, media_type="image/svg+xml", headers=headers)
        return Response(png(svg), media_type="image/png", headers=headers)

    def vega(self, request: Request) -> Response:
        """The script that draws charts."""
        headers = {"cache-control": "private, max-age=86400"}
        return Response(vega(), media_type="text/javascript", headers=headers)

    def failed(self, request: Request, error: Exception) -> Response:
        """What could not be shown, in one line."""
        code, message = _fault(error)
        return HTMLResponse(self.pages.fault(code, message), code)

    def routes(self) -> list[Route | Mount]:
        """Which address is which page."""
        pages, run = self.pages, "/r/{key}"
        whole: dict[str, Callable[..., str]] = {
            run: pages.society,
            f"{run}/agents": pages.agents,
            f"{run}/agents/{{number:int}}": pages.agent,
            f"{run}/exchanges": pages.exchanges,
            f"{run}/exchanges/{{number:int}}": pages.exchange,
            f"{run}/ratings": pages.ratings,
            f"{run}/calls": pages.calls,
            f"{run}/calls/{{number:int}}": pages.call,
            f"{run}/about": pages.about,
            f"{run}/search": pages.search,
        }
        parts: dict[str, Callable[..., Any]] = {
            f"{run}/pulse.json": pages.pulse,
            f"{run}/frames/{{round:int}}.json": pages.frame,
            f"{run}/advice/{{round:int}}": pages.advice,
        }
        return [
            Route("/", self.runs),
            Route("/pulse.json", self.runs_pulse),
            Route("/compare", self.compare),
            Route("/compare/differences", self.differences),
            *(Route(path, partial(self.page, make)) for path, make in whole.items()),
            *(Route(path, partial(self.part, make)) for path, make in parts.items()),
            Route(f"{run}/figures/{{name}}.{{kind}}", self.figure),
            Route(f"{run}/{{name}}.{{kind}}", self.download),
            Route("/static/vega.js", self.vega),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]


def _query(request: Request) -> Query:
    return Query(dict(request.query_params))


def _parts(request: Request) -> dict[str, Any]:
    """The values in the path of an address; numbers that no database holds are not there."""
    parts = request.path_params
    if any(isinstance(part, int) and part > _HIGHEST for part in parts.values()):
        raise HTTPException(404)
    return parts


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def _fault(error: Exception) -> tuple[int, str]:
    """The status, and a line that says what is wrong and what was expected."""
    if isinstance(error, KeyError):
        return 404, f"There is no run {error.args[0]} here."
    if isinstance(error, InputError):
        return 404 if isinstance(error, NotThere) else 400, str(error)
    if isinstance(error, DBAPIError):
        return 503, f"The database cannot be read: {one_line(error)}"
    status = error.status_code if isinstance(error, HTTPException) else 500
    return status, "There is no such page." if status == 404 else "This page cannot be shown."


def application(catalog: RunCatalog, token: str | None = None) -> Guard:
    """The application that shows the runs of a catalog.

    Args:
        catalog: the runs.
        token: what browsers must show; None: requests must be addressed to this machine.
    """
    site = Site(catalog)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        catalog.close()

    async def failed(request: Request, error: Exception) -> Response:
        return site.failed(request, error)

    caught = (KeyError, InputError, DBAPIError, HTTPException, Exception)
    app = Starlette(
        routes=site.routes(),
        exception_handlers=dict.fromkeys(caught, failed),
        lifespan=lifespan,
    )
    return Guard(app, token)
