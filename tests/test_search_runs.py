"""Search across runs: the matcher of one run, phrases first, and in bounded time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored import Run, make
from viewing import Site, Tags, hostile, listed, serving

from sandbox.reading.exchanges import search_page
from sandbox.reading.search_hits import as_phrase, run_hits
from sandbox.viewer import search_pages
from sandbox.viewer.catalog import RunCatalog
from storage.errors import InputError
from storage.search import ignored_signs

SMALL = ("world.size=3", "rounds=2", "question_count=6", "memory.prior_pairs=12")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("search")
    return [
        make(folder / f"{name}.db", *SMALL, f"seed={seed}", name=name)
        for name, seed in (("one", 1), ("two", 2))
    ]


@pytest.fixture(scope="module")
def site(stored: list[Run]) -> Iterator[Site]:
    with serving(*stored) as started:
        yield started


def counts(page: str) -> dict[str, int]:
    """The numbers of exchanges, by run."""
    pairs = re.findall(r'<h2 id="run-\d+"><a href="/r/([^"]+)">.*?>(\d+)[^<]*exchange', page, re.S)
    return {name: int(count) for name, count in pairs}


def phrase_of(run: Run) -> str:
    """Two words that follow each other in the revision of an exchange."""
    text = run.sql("SELECT t.text FROM stage_texts s JOIN texts t ON t.id = s.text_id "
                   "WHERE s.stage = 'revision' LIMIT 1")[0][0]  # fmt: skip
    return " ".join(re.findall(r"\w{3,} \w{3,}", text)[0].split())


def test_all_runs_are_searched_as_one_is(site: Site, stored: list[Run]) -> None:
    page = site.page("/search", q="people the")
    expected = {run.name: search_page(run.reader, "people the", 1, 5)[0].total for run in stored}
    assert counts(page) == {name: n for name, n in expected.items() if n}
    for run in stored:
        assert f'href="/r/{run.name}/search?q=people+the"' in page
    assert "<mark>" in page and len(listed(page, "exchanges")) <= 6
    assert 'action="/search"' in site.page("/")


def test_phrases_come_before_single_words(stored: list[Run]) -> None:
    run = stored[0]
    text = phrase_of(run)
    found = run_hits(run.reader, text, 1000, 1000)
    phrases = {one.episode for one in search_page(run.reader, f'"{text}"', 1, 1000)[1]}
    words = {one.episode for one in search_page(run.reader, text, 1, 1000)[1]}
    numbers = [hit.exchange.episode for hit in found.hits]
    assert set(numbers[: found.phrases]) == phrases and set(numbers) == phrases | words
    assert found.total == len(numbers) and not found.cut
    assert all(len(hit.terms) == 1 for hit in found.hits[: found.phrases])
    for ordered in (numbers[: found.phrases], numbers[found.phrases :]):
        assert ordered == sorted(ordered, reverse=True), "the latest first"
    assert as_phrase("word") is None and as_phrase('a "b c"') is None
    few = run_hits(run.reader, "the", 5, 2)
    assert (few.total, few.cut, len(few.hits)) == (5, True, 2)


def test_the_time_of_a_search_is_bounded(
    site: Site, stored: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = RunCatalog([str(run.path) for run in stored])
    result = search_pages.search_runs(catalog, "the", seconds=-1.0)
    assert list(result.left_out) == ["one", "two"] and not result.matches
    monkeypatch.setattr(search_pages, "LIMIT", 4)
    page = site.page("/search", q="the")
    assert set(counts(page).values()) == {4} and "only the latest 4 matches" in page
    catalog.close()


def test_without_words_or_matches(site: Site) -> None:
    for query in ("", "...", "xyzzyplugh"):
        page = site.page("/search", q=query)
        assert ("No matches" if query == "xyzzyplugh" else "No search term") in page
    assert site.ask("/search?q=" + "+".join(f"w{n}" for n in range(101))).status == 400
    with pytest.raises(InputError, match="at most 100"):
        search_pages.search_runs(RunCatalog(), " ".join(f"w{n}" for n in range(101)))


def test_ignored_signs_are_named(site: Site) -> None:
    smile = "\N{SLIGHTLY SMILING FACE}"
    for path in ("/search", "/r/one/search"):
        for query, signs in ((f"{smile} the {smile}", smile), ("C++ <", "+ <"), (smile, smile)):
            page = site.page(path, q=query)
            assert f"Signs are not searched: {signs}" in Tags(page).shown, (path, query)
            assert ("No search term" in page) == (query == smile)
        for query in (
            "the",
            '"the good"',
            "don't re-read",
            "caf\u0065\u0301",
            "\u4e2d",
            "snake_case",
        ):
            assert "not searched" not in site.page(path, q=query), (path, query)
    assert ignored_signs("What's _this_ ('so')? so-so + so") == [*"(')?+"]


def test_hits_are_escaped_and_unreadable_runs_named(stored: list[Run], tmp_path: Path) -> None:
    bad = hostile(stored[0], tmp_path)
    broken = Path(shutil.copy(stored[1].path, tmp_path / "broken.db"))
    with serving(bad, f"{broken}#two") as site:
        broken.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
        page = site.page("/search", q="script alert")
        found = Tags(page)
        assert {has.get("src") for tag, has in found.tags if tag == "script"} >= {"/static/keys.js"}
        assert "<script>alert" not in page and "alert" in found.shown
        assert re.search(r"two: .*(?:malformed|not a database|damaged)", found.shown)
