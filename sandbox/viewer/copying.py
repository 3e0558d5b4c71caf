"""A static copy: the same pages as files that link to each other, to be sent or put on a server."""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select

from sandbox.files import new_folder
from sandbox.reading.exchanges import PAGE
from sandbox.reading.map import frame, last_round
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.app import STATIC, vega
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.pages import Pages, frame_data
from storage import tables
from storage.errors import InputError
from storage.reader import Reader

LISTING = "copy.json"
LEFT_OUT = "left-out.html"

_NODES = 20_000  # agents times rounds that the map of a copy holds

Watch = Callable[[int], None]


class Wanted(NamedTuple):
    """A page that is linked to: the run's key, what follows it in the address, the list's page."""

    key: str
    parts: tuple[str, ...]
    page: int


class Copied(NamedTuple):
    """What was copied: the folder, the files written, and which exchanges of each run."""

    out: Path
    files: int
    exchanges: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "out": str(self.out)}


class Files(Links):
    """Links of a copy: names of files beside each other.

    Attributes:
        waiting: pages that are linked to and not written yet, with their file names.

    Args:
        first: of each run the number of the first exchange that is kept.
        most: so many exchanges and so many agents of a run are kept.
    """

    static = True

    def __init__(self, first: dict[str, int], most: int) -> None:
        super().__init__("")
        self._first = first
        self._most = most
        self._names: dict[Wanted, str] = {}
        self._taken = {"index.html", LEFT_OUT}
        self.waiting: deque[tuple[Wanted, str]] = deque()

    def runs(self) -> str:
        """The list of runs."""
        return "index.html"

    def compare(self, *keys: str, **query: object) -> str:
        """Copies compare nothing."""
        return LEFT_OUT

    def run(self, key: str, *parts: object, **query: object) -> str:
        """The file of a page, which is then waited for; or where it is said what is left out."""
        return self.listed(key, tuple(map(str, parts)), 1)

    def listed(self, key: str, parts: tuple[str, ...], page: int) -> str:
        """The file of a page of a list."""
        wanted = Wanted(key, parts, page)
        if not self._kept(wanted):
            return LEFT_OUT
        if wanted not in self._names:
            self._names[wanted] = self._name(wanted)
            self.waiting.append((wanted, self._names[wanted]))
        return self._names[wanted]

    def _kept(self, wanted: Wanted) -> bool:
        match wanted.parts:
            case () | ("agents" | "exchanges",):
                return (wanted.page - 1) * PAGE < self._most
            case ("ratings" | "about",) | ("calls", _):
                return True
            case ("agents", number):
                return int(number) < self._most
            case ("exchanges", number):
                return int(number) >= self._first[wanted.key]
        return False

    def _name(self, wanted: Wanted) -> str:
        words = [wanted.key, *wanted.parts, *([f"page-{wanted.page}"] * (wanted.page > 1))]
        name = "-".join(re.sub(r"[^\w.~-]+", "_", word, flags=re.ASCII) for word in words)
        file = f"{name}.html"
        file = file if file not in self._taken else f"{name}~{len(self._names)}.html"
        self._taken.add(file)
        return file


class Paged(Query):
    """The query of a list in a copy, whose pages are files."""

    def __init__(self, links: Files, wanted: Wanted) -> None:
        super().__init__({"page": str(wanted.page)})
        self._links = links
        self._wanted = wanted

    def changed(self, **changes: object) -> str:
        """The file of another page."""
        page = changes.get("page") or 1
        return self._links.listed(self._wanted.key, self._wanted.parts, int(str(page)))


def copy(catalog: RunCatalog, out: Path, most: int, overwrite: bool, watch: Watch) -> Copied:
    """Write the pages of all runs of a catalog into a folder, whole or not at all.

    Args:
        catalog: the runs.
        out: a new or an empty folder.
        most: of each run so many exchanges, the latest, and so many agents, the first.
        overwrite: replace an earlier copy.
        watch: told how many files there are.

    Raises:
        InputError: there is no run, or `out` cannot be used.
    """
    entries = [entry for entry in catalog.entries() if entry.problem is None]
    if not entries:
        raise InputError("view: found no run that can be read; expected one to copy")
    counts = {entry.key: _recorded(catalog.open(entry.key)) for entry in entries}
    first = {key: max(0, end - most) for key, end in counts.items()}
    links = Files(first, most)
    try:
        with new_folder(out, overwrite, find_unknown_file, "copy") as folder:
            names = list(_write(folder, Pages(catalog, links), links, catalog, watch))
            (folder / LISTING).write_text(json.dumps(sorted([*names, LISTING])))
    except OSError as error:
        raise InputError(f"--static: {out}: {error.strerror or error}; expected room") from None
    kept = {key: end - first[key] for key, end in counts.items()}
    return Copied(out, len(names) + 1, kept)


def _recorded(reader: Reader) -> int:
    """One more than the number of the latest exchange that is recorded."""
    e = tables.episodes
    last = reader.scalar(select(func.max(e.c.id)).where(e.c.run_id == reader.run.id))
    return 0 if last is None else int(last) - reader.base + 1


def _write(
    folder: Path, pages: Pages, links: Files, catalog: RunCatalog, watch: Watch
) -> Iterator[str]:
    shutil.copytree(STATIC, folder / "static")
    (folder / "static" / "vega.js").write_bytes(vega())
    yield from (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    yield _file(folder, "index.html", pages.runs(Query({})))
    yield _file(folder, LEFT_OUT, pages.left_out())
    written = 0
    while links.waiting:
        wanted, name = links.waiting.popleft()
        yield _file(folder, name, _page(pages, links, catalog, wanted))
        written += 1
        watch(written)


def _file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8", errors="replace")
    return name


def _page(pages: Pages, links: Files, catalog: RunCatalog, wanted: Wanted) -> str:
    key, query = wanted.key, Paged(links, wanted)
    match wanted.parts:
        case ():
            return pages.society(key, Query({}), _frames(catalog.open(key), key, links))
        case (name,):
            return str(getattr(pages, name)(key, query))
        case (name, number):
            one = {"agents": pages.agent, "exchanges": pages.exchange, "calls": pages.call}[name]
            return one(key, int(number), query)
    raise ValueError(wanted)


def _frames(reader: Reader, key: str, links: Links) -> list[dict[str, Any]]:
    """The rounds of the map, of a long run the latest."""
    last = last_round(reader)
    if last is None:
        return []
    newest = frame_data(frame(reader, last), key, links)
    count = max(1, _NODES // max(1, len(newest["nodes"])))
    rounds = range(max(0, last + 1 - count), last)
    return [*(frame_data(frame(reader, round), key, links) for round in rounds), newest]


def find_unknown_file(folder: Path) -> str | None:
    """The first file in a folder that no copy wrote; None in an earlier copy."""
    try:
        known = set(json.loads((folder / LISTING).read_text()))
    except (OSError, ValueError):
        known = set()
    held = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return next((name for name in sorted(held) if name not in known), None)
