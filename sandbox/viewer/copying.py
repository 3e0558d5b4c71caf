"""A static copy: the pages as HTML files with relative links, for mailing or static hosting."""

from __future__ import annotations

import hashlib
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
from sandbox.viewer.maps import frame_data
from sandbox.viewer.pages import Pages
from storage import tables
from storage.errors import InputError
from storage.reader import Reader

MANIFEST = "copy.json"
NOT_COPIED = "left-out.html"

_MAX_NODES = 20_000  # agents times rounds that are embedded in the map of a copy

Progress = Callable[[int], None]


class LinkedPage(NamedTuple):
    """A page that is linked to: the run's key, the rest of the path, and the page of a list."""

    key: str
    parts: tuple[str, ...]
    page: int


class CopyResult(NamedTuple):
    """The result: the folder, the number of files, and the number of exchanges of each run."""

    out: Path
    files: int
    exchanges: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "out": str(self.out)}


class CopyLinks(Links):
    """Links between the files of a copy.

    Attributes:
        queue: pages that are linked to but not written yet, with their file names.

    Args:
        first: the number of the first exchange of each run that is copied, by key.
        limit: the maximum number of exchanges, and of agents, of a run.
    """

    static = True

    def __init__(self, first: dict[str, int], limit: int) -> None:
        super().__init__("")
        self._first = first
        self._limit = limit
        self._names: dict[LinkedPage, str] = {}
        self._file_names = {"index.html", NOT_COPIED}
        self.queue: deque[tuple[LinkedPage, str]] = deque()

    def runs(self) -> str:
        """The list of runs."""
        return "index.html"

    def compare(self, *keys: str, part: str = "", **query: object) -> str:
        """The page for links outside the copy: copies have no comparison."""
        return NOT_COPIED

    def search(self, **query: object) -> str | None:
        """None: copies have no search."""
        return None

    def run(self, key: str, *parts: object, **query: object) -> str:
        """The file name of a page, which is queued; or of the page for links outside the copy."""
        return self.listed(key, tuple(map(str, parts)), 1)

    def listed(self, key: str, parts: tuple[str, ...], page: int) -> str:
        """As `run`, for a page of a list."""
        page_key = LinkedPage(key, parts, page)
        if not self._is_copied(page_key):
            return NOT_COPIED
        if page_key not in self._names:
            self._names[page_key] = self._name(page_key)
            self.queue.append((page_key, self._names[page_key]))
        return self._names[page_key]

    def _is_copied(self, page_key: LinkedPage) -> bool:
        match page_key.parts:
            case () | ("agents" | "exchanges",):
                return (page_key.page - 1) * PAGE < self._limit
            case ("ratings" | "policy" | "about",) | ("calls", _):
                return True
            case ("agents", number):
                return int(number) < self._limit
            case ("exchanges", number):
                return int(number) >= self._first[page_key.key]
        return False

    def _name(self, page_key: LinkedPage) -> str:
        words = [page_key.key, *page_key.parts, *([f"page-{page_key.page}"] * (page_key.page > 1))]
        name = "-".join(re.sub(r"[^\w.~-]+", "_", word, flags=re.ASCII) for word in words)
        file = f"{name}.html"
        file = file if file not in self._file_names else f"{name}~{len(self._names)}.html"
        self._file_names.add(file)
        return file


class CopiedListQuery(Query):
    """The query of a list in a copy, where every page of the list is a file."""

    def __init__(self, links: CopyLinks, page_key: LinkedPage) -> None:
        super().__init__({"page": str(page_key.page)})
        self._links = links
        self._wanted = page_key

    def changed(self, **changes: object) -> str:
        """The file name of another page of the list."""
        page = changes.get("page") or 1
        return self._links.listed(self._wanted.key, self._wanted.parts, int(str(page)))


def copy(
    catalog: RunCatalog, out: Path, limit: int, overwrite: bool, progress: Progress
) -> CopyResult:
    """Write the pages of all runs of a catalog into a folder, atomically.

    Args:
        catalog: the runs.
        out: a new or an empty folder.
        limit: copy the latest `limit` exchanges and the first `limit` agents of each run.
        overwrite: replace an earlier copy.
        progress: called with the number of pages written so far.

    Raises:
        InputError: there is no run, or `out` cannot be used.
    """
    entries = [entry for entry in catalog.entries() if entry.problem is None]
    if not entries:
        raise InputError("view: found no readable run; expected at least one")
    counts = {entry.key: _episode_count(catalog.open(entry.key)) for entry in entries}
    first = {key: max(0, end - limit) for key, end in counts.items()}
    links = CopyLinks(first, limit)
    try:
        with new_folder(out, overwrite, find_unknown_file, "copy") as folder:
            names = list(_write(folder, Pages(catalog, links), links, catalog, progress))
            written = {name: _hash(folder / name) for name in sorted(names)}
            (folder / MANIFEST).write_text(json.dumps(written, indent=0))
    except OSError as error:
        raise InputError(
            f"--static: {out}: {error.strerror or error}; expected a writable folder"
        ) from None
    kept = {key: end - first[key] for key, end in counts.items()}
    return CopyResult(out, len(names) + 1, kept)


def _episode_count(reader: Reader) -> int:
    """The number of episodes recorded so far: the highest episode number plus one."""
    e = tables.episodes
    last = reader.scalar(select(func.max(e.c.id)).where(e.c.run_id == reader.run.id))
    return 0 if last is None else int(last) - reader.base + 1


def _write(
    folder: Path, pages: Pages, links: CopyLinks, catalog: RunCatalog, progress: Progress
) -> Iterator[str]:
    for file in STATIC.rglob("*"):
        if file.is_file():
            target = folder / "static" / file.relative_to(STATIC)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)  # unlike copytree's, its error is one line
    (folder / "static" / "vega.js").write_bytes(vega())
    yield from (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    yield _file(folder, "index.html", pages.runs(Query({})))
    yield _file(folder, NOT_COPIED, pages.not_copied())
    written = 0
    while links.queue:
        page_key, name = links.queue.popleft()
        yield _file(folder, name, _page(pages, links, catalog, page_key))
        written += 1
        progress(written)


def _file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8", errors="replace")
    return name


def _page(pages: Pages, links: CopyLinks, catalog: RunCatalog, page_key: LinkedPage) -> str:
    key, query = page_key.key, CopiedListQuery(links, page_key)
    match page_key.parts:
        case ():
            return pages.society(key, Query({}), _frames(catalog.open(key), key, links))
        case (name,):
            return str(getattr(pages, name)(key, query))
        case (name, number):
            one = {"agents": pages.agent, "exchanges": pages.exchange, "calls": pages.call}[name]
            return one(key, int(number), query)
    raise ValueError(page_key)


def _frames(reader: Reader, key: str, links: Links) -> list[dict[str, Any]]:
    """The frames of the map: all rounds, or the latest ones of a long run."""
    last = last_round(reader)
    if last is None:
        return []
    newest = frame_data(frame(reader, last), key, links)
    count = max(1, _MAX_NODES // max(1, len(newest["nodes"])))
    rounds = range(max(0, last + 1 - count), last)
    return [*(frame_data(frame(reader, round), key, links) for round in rounds), newest]


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def find_unknown_file(folder: Path) -> str | None:
    """Find a file in a folder that no earlier copy wrote, or that was changed; None if none.

    A manifest alone does not make a file one of a copy: its name has to be one that a copy can
    have, and its content has to be the one that was written.
    """
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        known = {}
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST and known and not path.is_symlink():
            continue
        if not (_is_copied(name, path) and known.get(name) == _hash(path)):
            return name
    return None


def _is_copied(name: str, path: Path) -> bool:
    """Whether a copy can have a file of this name."""
    if path.is_symlink() or not path.is_file():
        return False
    below_static = name.removeprefix("static/")
    if below_static != name:
        return below_static == "vega.js" or (STATIC / below_static).is_file()
    return "/" not in name and name.endswith(".html")
