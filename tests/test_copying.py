"""A static copy: its files link only to files that exist."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from stored import Run
from stored import make as make_stored

from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.copying import NOT_COPIED, copy
from storage.errors import InputError

LINK = re.compile(r'(?:href|src)="([^"]*)"')


def copied(out: Path, *runs: Run, most: int = 500, overwrite: bool = False) -> Any:
    return copy(RunCatalog([str(run.path) for run in runs]), out, most, overwrite, lambda _: None)


def links(page: Path) -> set[str]:
    """The files that a page links to or loads."""
    found = (urlsplit(unescape(link)) for link in LINK.findall(page.read_text("utf-8")))
    return {unquote(link.path) for link in found if link.path}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """16 exchanges of four agents."""
    folder = tmp_path_factory.mktemp("calm")
    return make_stored(folder / "run.db", "world.size=2", "world.radius=1", "rounds=4")


@pytest.fixture(scope="module")
def whole(calm: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A static copy of the whole run."""
    return copied(tmp_path_factory.mktemp("whole") / "out", calm)


@pytest.mark.long
def test_every_link_leads_to_a_file(calm: Run, whole: Any) -> None:
    made, out = whole, whole.out
    pages = list(out.glob("*.html"))
    assert made.exchanges == {"small": 16}
    assert made.files == sum(path.is_file() for path in out.rglob("*"))
    for page in pages:
        for link in links(page):
            assert (out / link).is_file(), f"{page.name}: {link}"
    calls = len(calm.sql("SELECT id FROM calls"))
    kinds = {"agents": 4, "exchanges": 16, "calls": calls}
    for kind, count in kinds.items():
        names = [page.name for page in pages]
        assert sum(bool(re.fullmatch(rf"small-{kind}-\d+\.html", n)) for n in names) == count


@pytest.mark.long
def test_pages_contain_the_texts(calm: Run, whole: Any) -> None:
    text = unescape((whole.out / "small-exchanges-13.html").read_text("utf-8"))
    one = calm.all()[13]
    assert one.texts["draft"] and one.texts["draft"] in text
    assert all(given.reason in text for given in one.ratings if given.reason)
    society = (whole.out / "small.html").read_text("utf-8")
    (frames,) = re.findall(r'id="frames">(.*?)</script>', society, re.DOTALL)
    rounds = json.loads(frames)
    assert [frame["round"] for frame in rounds] == [0, 1, 2, 3]
    scores = {
        (frame["round"], node["agent"]): node["revision_alignment"]
        for frame in rounds
        for node in frame["nodes"]
    }
    assert scores == {(e.round, e.author): e.score("revision", "alignment") for e in calm.all()}


def test_pages_need_no_server(whole: Any) -> None:
    for page in whole.out.glob("*.html"):
        text = page.read_text("utf-8")
        assert "data-fragment" not in text and "data-pulse" not in text
        assert "<form class" not in text
        assert not any(link.startswith(("http:", "https:", "//")) for link in LINK.findall(text))


def test_a_copy_contains_the_latest_exchanges(calm: Run, tmp_path: Path) -> None:
    made = copied(tmp_path / "out", calm, most=5)
    out = tmp_path / "out"
    assert made.exchanges == {"small": 5}
    kept = {path.name for path in out.glob("small-exchanges-*.html")}
    assert kept == {f"small-exchanges-{number}.html" for number in range(11, 16)}
    assert NOT_COPIED in links(out / "small-exchanges-11.html"), (
        "the previous exchange is not copied"
    )
    assert all((out / link).is_file() for page in out.glob("*.html") for link in links(page))


def test_runs_with_the_same_name_have_separate_pages(calm: Run, tmp_path: Path) -> None:
    other = Run(Path(shutil.copy(calm.path, tmp_path / "other.db")), calm.name)
    other.sql("UPDATE texts SET text = text || ' (the other)'")
    copied(tmp_path / "out", calm, other, most=2)
    texts = [
        (tmp_path / "out" / f"{key}-exchanges-15.html").read_text() for key in ("small", "small~2")
    ]
    assert ["(the other)" in text for text in texts] == [False, True]


@pytest.mark.long
def test_only_an_earlier_copy_is_replaced(calm: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    copied(out, calm, most=1)
    with pytest.raises(InputError, match="exists; expected an empty or a new folder"):
        copied(out, calm, most=1)
    copied(out, calm, most=2, overwrite=True)
    assert (out / "small-exchanges-14.html").is_file()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"contains 'notes\.txt', which no copy wrote"):
        copied(out, calm, most=1, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "small-exchanges-14.html").is_file()


@pytest.mark.parametrize("manifest", ["list", "hashes", "link", "changed", "no manifest"])
def test_a_manifest_alone_makes_no_file_a_copy(calm: Run, tmp_path: Path, manifest: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    if manifest == "list":
        (out / "copy.json").write_text('["thesis.tex", "copy.json"]')
    elif manifest == "hashes":
        (out / "copy.json").write_text(json.dumps({"thesis.tex": digest}))
    elif manifest == "link":
        (out / "index.html").symlink_to(out / "thesis.tex")
        (out / "copy.json").write_text(json.dumps({"index.html": digest, "thesis.tex": digest}))
    elif manifest == "changed":
        (out / "thesis.tex").unlink()
        copied(out, calm, most=1)
        (out / "index.html").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
    with pytest.raises(InputError, match="which no copy wrote; expected an earlier copy"):
        copied(out, calm, most=1, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()} == before


def test_a_run_with_nothing_played_is_copied(tmp_path: Path) -> None:
    idle = make_stored(tmp_path / "idle.db", "world.size=2", "world.radius=1", play=False)
    made = copied(tmp_path / "out", idle)
    assert made.exchanges == {"small": 0}
    assert "Nothing has been played yet" in (tmp_path / "out" / "small.html").read_text()


def test_a_failure_leaves_no_files(calm: Run, tmp_path: Path) -> None:
    def full(pages: int) -> None:
        if pages == 3:
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        copy(RunCatalog([str(calm.path)]), tmp_path / "out", 5, False, full)
    assert list(tmp_path.iterdir()) == []
