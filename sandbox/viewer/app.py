"""The web application: routes and request handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
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
from sandbox.reading.figures import Figure, figures, histories
from sandbox.reading.split_figures import split_figures
from sandbox.reading.statistics import t_quantile
from sandbox.viewer import downloads, maps
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.figure_files import figure_response
from sandbox.viewer.guard import AccessMiddleware
from sandbox.viewer.pages import Pages
from sandbox.viewer.queries import compared_runs
from storage.database import last_opened, one_line
from storage.errors import DECODING_ERRORS, InputError, NotThere, StorageFault, damage

STATIC = Path(__file__).parent / "static"

_MAX_PATH_NUMBER = 2**31 - 1  # the largest id that the database columns can store


@cache
def vega() -> bytes:
    """Vega, Vega-Lite and vega-embed as one script, bundled by vl-convert."""
    return vl_convert.javascript_bundle(vl_version=charts.VERSION).encode()  # type: ignore[call-arg]


def warm_up() -> None:
    """Fill slow caches at startup, so that the first request does not wait for them."""
    vega()
    t_quantile(0.975, 1)


class Site:
    """Request handlers.

    Args:
        catalog: the runs that are served.
    """

    def __init__(self, catalog: RunCatalog) -> None:
        self._catalog = catalog
        self._pages = Pages(catalog, Links())

    def _pages_for(self, request: Request) -> Pages:
        """The pages, with links that begin with the path prefix of a request."""
        prefix = request.scope.get("root_path", "")
        return self._pages.at(f"{prefix}/") if prefix else self._pages

    def runs(self, request: Request) -> Response:
        """The list of runs."""
        return HTMLResponse(self._pages_for(request).runs(_query(request)))

    def search_runs(self, request: Request) -> Response:
        """Search results of all runs."""
        return HTMLResponse(self._pages_for(request).search_runs(_query(request)))

    def runs_pulse(self, request: Request) -> Response:
        """A change marker for the list of runs, as JSON."""
        return JSONResponse(self._pages_for(request).runs_pulse())

    def page(self, render: Callable[..., str], request: Request) -> Response:
        """A page of a run, or a part of one that depends on the query."""
        pages, parameters = self._pages_for(request), _path_parameters(request)
        content = render(pages, **parameters, query=_query(request))
        return HTMLResponse(content) if isinstance(content, str) else JSONResponse(content)

    def fragment(self, render: Callable[..., Any], request: Request) -> Response:
        """Data or an HTML fragment that a script of a page fetches."""
        content = render(self._pages_for(request), **_path_parameters(request))
        return HTMLResponse(content) if isinstance(content, str) else JSONResponse(content)

    def compare(self, request: Request) -> Response:
        """The comparison of runs."""
        pages = self._pages_for(request).comparison
        return HTMLResponse(pages.page(_runs(request), _query(request)))

    def differences(self, request: Request) -> Response:
        """The table of differences between runs, as an HTML fragment."""
        pages = self._pages_for(request)
        try:
            return HTMLResponse(pages.comparison.differences(_runs(request), _query(request)))
        except InputError as error:
            return HTMLResponse(pages.note(str(error)))

    def download(self, request: Request) -> Response:
        """The filtered rows of a table, as a file."""
        key, name, kind = (request.path_params[part] for part in ("key", "name", "kind"))
        if name not in downloads.DOWNLOADS or kind not in downloads.TYPES:
            raise HTTPException(404)
        reader = self._catalog.open(key)
        columns = downloads.DOWNLOADS[name].columns(reader)
        rows = downloads.DOWNLOADS[name].rows(reader, _query(request))
        first = list(islice(rows, 1))  # errors are raised before the response has started
        return StreamingResponse(
            downloads.lines(chain(first, rows), kind, columns),
            media_type=downloads.TYPES[kind],
            headers=_attachment(f"{name}.{kind}"),
        )

    def figure(self, request: Request) -> Response:
        """A figure as a file."""
        key, name, kind = (request.path_params[part] for part in ("key", "name", "kind"))
        found = self._figures(key, _query(request))
        figure = next((figure for figure in found if figure.name == name), None)
        return figure_response(figure, kind, _query(request), [self._catalog.open(key)])

    def agent_figure(self, request: Request) -> Response:
        """A figure of an agent as a file."""
        path = _path_parameters(request)
        reader = self._catalog.open(path["key"])
        found = {figure.name: figure for figure in histories(reader, path["number"])}
        return figure_response(found.get(path["name"]), path["kind"], _query(request), [reader])

    def _figures(self, key: str, query: Query) -> list[Figure]:
        """The figures of a run, of a split of it, or of what is searched for."""
        reader, split = self._catalog.open(key), query.text("split")
        if query.text("q") is not None:
            return self._pages.spread_figures(key, query)
        return list(figures(reader).values()) if split is None else split_figures(reader, split)

    def map_file(self, request: Request) -> Response:
        """A round of the map as a file."""
        parameters = _path_parameters(request)
        reader = self._catalog.open(parameters["key"])
        figure = maps.map_figure(reader, parameters["round"], _query(request))
        return figure_response(figure, parameters["kind"], _query(request), [reader])

    def comparison_figure(self, request: Request) -> Response:
        """A figure of a comparison as a file."""
        name, kind = request.path_params["name"], request.path_params["kind"]
        keys, query = _runs(request), _query(request)
        found = self._pages.comparison.figures(keys, query).get(name)
        return figure_response(found, kind, query, map(self._catalog.open, keys))

    def comparison_spread(self, request: Request) -> Response:
        """The spread over seeds of a comparison as CSV."""
        rows = self._pages.comparison.spread(_runs(request), _query(request))
        return _csv("spread.csv", rows, list(rows[0]) if rows else [])

    def vega(self, request: Request) -> Response:
        """The script that renders charts."""
        headers = {"cache-control": "private, max-age=86400"}
        return Response(vega(), media_type="text/javascript", headers=headers)

    def error(self, request: Request, error: Exception) -> Response:
        """The error page for an exception."""
        code, message = _status_and_message(error)
        return HTMLResponse(self._pages_for(request).error(code, message), code)

    def routes(self) -> list[Route | Mount]:
        """All routes."""
        pages, run = Pages, "/r/{key}"
        whole_pages: dict[str, Callable[..., Any]] = {
            run: pages.society,
            f"{run}/agents": pages.agents,
            f"{run}/agents/{{number:int}}": pages.agent,
            f"{run}/exchanges": pages.exchanges,
            f"{run}/exchanges/{{number:int}}": pages.exchange,
            f"{run}/ratings": pages.ratings,
            f"{run}/policy": pages.policy,
            f"{run}/calls": pages.calls,
            f"{run}/calls/{{number:int}}": pages.call,
            f"{run}/about": pages.about,
            f"{run}/search": pages.search,
            f"{run}/frames/{{round:int}}.json": pages.frame,
            f"{run}/spread": pages.spread,
            f"{run}/spread.json": pages.said,
        }
        fragments: dict[str, Callable[..., Any]] = {
            f"{run}/pulse.json": pages.pulse,
            f"{run}/advice/{{round:int}}": pages.advice,
            f"{run}/ratings/agreement": pages.rater_agreement,
            f"{run}/ratings/figures": pages.rating_figures,
            f"{run}/neighbours": pages.neighbours,
            f"{run}/card/{{number:int}}/{{round:int}}": pages.card,
        }
        return [
            Route("/", self.runs),
            Route("/pulse.json", self.runs_pulse),
            Route("/search", self.search_runs),
            Route("/compare", self.compare),
            Route("/compare/differences", self.differences),
            Route("/compare/figures/spread.csv", self.comparison_spread),
            Route("/compare/figures/{name}.{kind}", self.comparison_figure),
            *(Route(path, partial(self.page, render)) for path, render in whole_pages.items()),
            *(Route(path, partial(self.fragment, render)) for path, render in fragments.items()),
            Route(f"{run}/by-round", partial(self.page, pages.by_round)),
            Route(f"{run}/figures/{{name}}.{{kind}}", self.figure),
            Route(f"{run}/agents/{{number:int}}/figures/{{name}}.{{kind}}", self.agent_figure),
            Route(f"{run}/map/{{round:int}}.{{kind}}", self.map_file),
            Route(f"{run}/{{name}}.{{kind}}", self.download),
            Route("/static/vega.js", self.vega),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]


def _query(request: Request) -> Query:
    return Query(dict(request.query_params))


def _path_parameters(request: Request) -> dict[str, Any]:
    """The path parameters; numbers that are too large for the database give status 404."""
    parameters = request.path_params
    if any(isinstance(v, int) and v > _MAX_PATH_NUMBER for v in parameters.values()):
        raise HTTPException(404)
    return parameters


def _runs(request: Request) -> list[str]:
    return compared_runs(request.query_params.getlist("run"))


def _csv(name: str, rows: Iterable[dict[str, Any]], columns: list[str]) -> Response:
    text = "".join(downloads.lines(rows, "csv", columns))
    return Response(text, media_type=downloads.TYPES["csv"], headers=_attachment(name))


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def _status_and_message(error: Exception) -> tuple[int, str]:
    """The HTTP status for an exception, and a one-line message."""
    if isinstance(error, InputError):
        return 404 if isinstance(error, NotThere) else 400, str(error)
    if isinstance(error, StorageFault):
        return 503, str(error)
    if isinstance(error, DBAPIError):
        return 503, f"The database cannot be read: {one_line(error)}"
    if isinstance(error, DECODING_ERRORS):
        return 503, str(damage(error, last_opened() or ""))
    status = error.status_code if isinstance(error, HTTPException) else 500
    return status, "There is no such page." if status == 404 else "This page cannot be shown."


def application(
    catalog: RunCatalog,
    token: str | None = None,
    prefix: str = "",
    hosts: Collection[str] = (),
) -> AccessMiddleware:
    """The ASGI application that serves the runs of a catalog.

    Args:
        catalog: the runs.
        token: the access token that requests need; None: only requests to localhost are accepted.
        prefix: the path of the pages behind a reverse proxy; see `AccessMiddleware`.
        hosts: names that requests may be sent to besides those of this machine.
    """
    site = Site(catalog)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        catalog.close()

    async def handle_error(request: Request, error: Exception) -> Response:
        return site.error(request, error)

    handled = (InputError, StorageFault, DBAPIError, HTTPException, *DECODING_ERRORS, Exception)
    app = Starlette(
        routes=site.routes(),
        exception_handlers=dict.fromkeys(handled, handle_error),
        lifespan=lifespan,
    )
    return AccessMiddleware(app, token, prefix, hosts)
