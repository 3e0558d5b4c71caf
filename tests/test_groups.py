"""Groups of calls: written by a thread, in the order in which they were queued."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import small

from sandbox.backends.base import BackendDown
from sandbox.engine.journal import GroupCommit
from sandbox.engine.run import create, prepare
from storage import database
from storage.reader import Reader
from storage.writer import Writer


@contextmanager
def _writer(folder: Path) -> Iterator[tuple[Writer, Path]]:
    """A writer of a new run, and its file."""
    place = folder / "run.db"
    address = create(prepare(small()), str(place))
    with database.writing(address.url) as engine:
        writer = Writer(engine, Reader.find(engine, None, "").run.id)
        writer.open()
        yield writer, place


def _texts(place: Path, *wanted: str) -> list[str]:
    """Which of some texts are stored, in the order of their ids."""
    with closing(sqlite3.connect(place)) as connection:
        rows = connection.execute("SELECT text FROM texts ORDER BY id").fetchall()
    return [text for (text,) in rows if text in wanted]


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Another connection writes the file: a commit has to wait."""
    with closing(sqlite3.connect(place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_the_loop_goes_on_while_a_group_is_written(tmp_path: Path) -> None:
    async def work(writer: Writer, place: Path) -> None:
        group = GroupCommit(writer)
        with _locked(place):
            writer.text("first")
            first = group.written(hurry=True)
            await asyncio.sleep(0.05)  # its transaction waits for the other one
            writer.text("second")
            second = group.written(hurry=True)
            await asyncio.sleep(0.05)
            assert not first.done() and not second.done()
            assert _texts(place, "first", "second") == []
        await first
        assert "first" in _texts(place, "first", "second")
        await second
        assert _texts(place, "first", "second") == ["first", "second"]

    with _writer(tmp_path) as (writer, place):
        asyncio.run(work(writer, place))


def test_rows_that_are_queued_while_a_group_is_written_are_in_the_next(tmp_path: Path) -> None:
    with _writer(tmp_path) as (writer, place):
        writer.text("first")
        writer.take()
        with _locked(place):
            thread = threading.Thread(target=writer.write)
            thread.start()
            writer.text("second")
        thread.join()
        assert _texts(place, "first", "second") == ["first"]
        writer.commit()
        assert _texts(place, "first", "second") == ["first", "second"]


def test_closing_waits_for_the_group_that_is_written(tmp_path: Path) -> None:
    with _writer(tmp_path) as (writer, place):
        writer.text("first")
        writer.take()
        with _locked(place):
            thread = threading.Thread(target=writer.write)
            thread.start()
            writer.text("second")
        writer.close()
        thread.join()
        assert _texts(place, "first", "second") == ["first", "second"]
        with pytest.raises(RuntimeError, match="has ended"):
            writer.commit()


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    """Everyone who waits is told, and no row is lost or written twice."""

    async def work(writer: Writer, place: Path) -> None:
        group = GroupCommit(writer)
        with closing(sqlite3.connect(place)) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON texts BEGIN SELECT RAISE(FAIL, 'full'); END"
            )
            writer.text("first")
            waiting = [group.written(hurry=False) for _ in range(3)]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(error) for error in found] == [BackendDown] * 3
            assert "cannot be written: full" in str(found[0])
            other.execute("DROP TRIGGER full")
        writer.text("second")
        await group.written(hurry=True)
        assert _texts(place, "first", "second") == ["first", "second"]

    with _writer(tmp_path) as (writer, place):
        asyncio.run(work(writer, place))
