"""Helpers for viewer tests: a server, HTTP requests, and a database with hostile texts."""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import uvicorn
from stored import Run

from sandbox.viewer.app import application
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.server import _listen
from storage.database import parse_url, writing
from storage.summaries import rebuild


class HttpResponse(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text, newline="")))

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.text.split("\n") if line]


class Site(NamedTuple):
    """A running viewer."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> HttpResponse:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as line:
            line.request(method, path, headers=headers)
            answer = line.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return HttpResponse(answer.status, names, answer.read())

    def page(self, path: str, **query: Any) -> str:
        answer = self.ask(path + (f"?{urlencode(query)}" if query else ""))
        assert answer.status == 200, (path, query, answer.text[-600:])
        return answer.text


@contextmanager
def serving(
    *runs: Run | Path | str, token: str | None = None, prefix: str = "", hosts: Sequence[str] = ()
) -> Iterator[Site]:
    """Run a viewer in a thread; without arguments it serves all runs under ``runs/``."""
    places = [str(run.path) if isinstance(run, Run) else str(run) for run in runs]
    listener = _listen("127.0.0.1", 0)
    config = uvicorn.Config(
        application(RunCatalog(places), token, prefix, hosts),
        log_level="error",
        access_log=False,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Site(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def addresses(run: Run, key: str | None = None) -> list[str]:
    """URLs of every kind of page of a run, and of every fragment that scripts fetch."""
    at = f"/r/{key or run.name}"
    calls = run.sql("SELECT id, episode_id FROM calls WHERE memory_id IS NOT NULL LIMIT 1")
    call, episode = calls[0] if calls else (0, 0)
    agents = run.sql("SELECT count(*) FROM agents")[0][0]
    parts = (
        [
            "frames/0.json",
            "advice/0",
            "neighbours",
            "card/0/0",
            "spread?q=the",
            "agents/0",
            "agents/3?only=prior",
        ]
        if agents
        else []
    )
    parts += ["?split=none", "?split=age", "by-round?split=label"] if agents else []
    pages = [
        *("", "/agents", "/exchanges", "/ratings", "/calls", "/about", "/pulse.json", "/search"),
        *(f"/exchanges/{episode}", f"/exchanges/{episode}?q=the", f"/calls/{call}"),
        *("/search?q=the", "/exchanges?q=kind", "/exchanges?order=-alignment_gain&page=2"),
        *("/calls?status=not+ok", *(f"/{part}".replace("/?", "?") for part in parts)),
        *(f"/{name}.{kind}" for name in ("exchanges", "calls") for kind in ("csv", "jsonl")),
    ]
    return ["/", "/pulse.json", "/compare", *(at + page for page in pages)]


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script>",
    "</textarea></title></style>--><svg onload=alert(4)>",
    "{{ 7*7 }} {% raw %} ${7*7}",
    "\u202eright to left\u202c and \u2066isolated\u2069",
    "w" * 100_000,
    "bell \x07, escape \x1b[31m, delete \x7f, next line \x85",
    "\U0001f9d1\u200d\U0001f680 \U0001f44b\U0001f3fd e\u0301 \ud7ff",
    '=HYPERLINK("http://elsewhere.example/x")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\t=1",
    "javascript:alert(5)",
    "\"><a href=javascript:alert(6) onclick='alert(7)'>x</a>",
)
"""Model texts that pages and files must show without interpreting them."""

PREFIXED = tuple(text for text in HOSTILE if len(text) < 1000)


def hostile(run: Run, folder: Path) -> Run:
    """Copy a run and make every text, name and error hostile.

    Each text is prefixed with one of `HOSTILE`, so that its words can still be searched; one is a
    single word of 100,000 characters.
    """
    copy = Run(Path(shutil.copy(run.path, folder / "hostile.db")), run.name)
    with closing(sqlite3.connect(copy.path)) as connection, connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM texts ORDER BY id")]
        connection.executemany(
            "UPDATE texts SET text = ? || ' ' || text WHERE id = ?",
            [(PREFIXED[number % len(PREFIXED)], number) for number in ids],
        )
        first, last = (
            f"SELECT text_id FROM stage_texts WHERE stage = '{stage}' AND episode_id = (SELECT min("
            "one.episode_id) FROM stage_texts one JOIN stage_texts two USING (episode_id) "
            "WHERE one.stage = 'draft' AND two.stage = 'revision' AND one.text_id <> two.text_id)"
            for stage in ("draft", "revision")
        )
        for text in (first, last):
            connection.execute(
                f"UPDATE texts SET text = ? WHERE id = ({text})", (max(HOSTILE, key=len) + text,)
            )
        connection.executemany(
            "UPDATE agents SET persona = json_set(persona, '$.name', ?, '$.place', ?, "
            "'$.occupation', ?, '$.voice', ?) WHERE number = ?",
            [
                (*(PREFIXED[(number + shift) % len(PREFIXED)] for shift in range(4)), number)
                for (number,) in connection.execute("SELECT number FROM agents").fetchall()
            ],
        )
        connection.execute("UPDATE models SET name = ? || id", (PREFIXED[0],))
        connection.execute("UPDATE calls SET error = ? WHERE status = 'failed'", (PREFIXED[1],))
        connection.execute(
            "UPDATE runs SET status = 'failed', message = ?", (PREFIXED[0] + PREFIXED[5],)
        )
        connection.execute("UPDATE questions SET source = ? WHERE source > ''", (PREFIXED[1],))
    rebuild_summaries(copy)
    return copy


def rebuild_summaries(run: Run) -> None:
    """Rebuild the summaries and the search index."""
    with writing(parse_url(str(run.path))) as engine, engine.begin() as connection:
        rebuild(connection)


class Tags(HTMLParser):
    """The tags of a page with their attributes, its text, and its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._within: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._within.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if self._within else self.words).append(data)

    @property
    def shown(self) -> str:
        return "".join(self.words)


def listed(page: str, kind: str) -> list[int]:
    """The numbers of the rows listed on a page, in order."""
    return [int(number) for number in re.findall(rf'data-row href="[^"?]*/{kind}/(\d+)["?]', page)]


def link(page: str, rel: str) -> str | None:
    """The URL of a link of the pager: prev or next."""
    found = re.findall(rf'rel="{rel}" href="([^"]*)"', page)
    return unescape(found[-1]) if found else None
