"""Migrations: databases of older versions end up with the same schema and content as new ones."""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, small
from sqlalchemy import Engine, MetaData, create_engine, inspect, select, text

from sandbox.engine.run import create, prepare, resume
from sandbox.study.verify import verify
from storage import database
from storage.database import Address
from storage.digest import digest
from storage.migrations import migrate
from storage.reader import Reader
from storage.tables import metadata

DATA = ROOT / "tests" / "data"
"""A database of version 4 with the runs `grid` and `scene` (done) and `half` (interrupted), and the
statements that created the tables of version 4 in PostgreSQL."""

PLAYED = ("grid", "scene")

SUMMED = ("draft", "revision"), ("alignment", "engagement")

BACK = {
    4: (
        *(f"DROP TABLE {name}" for name in ("words", "outcomes", "rater_sums", "call_sums")),
        *("DROP INDEX ratings_by_rater", "DROP INDEX calls_not_ok"),
        *(
            f"ALTER TABLE episodes DROP COLUMN {name}"
            for name in (
                *(f"{stage}_{scale}" for stage, scale in product(*SUMMED)),
                *("mean_rating", "ratings_read", "ratings_missing"),
            )
        ),
    ),
    3: (
        *("DROP TABLE notes", "DROP TABLE acts", "DROP TABLE parts"),
        "ALTER TABLE agents DROP COLUMN community",
    ),
    2: ("ALTER TABLE calls DROP COLUMN thinking", "ALTER TABLE calls DROP COLUMN expected"),
}
"""Statements that revert each migration, except for the constraint on authors."""


def stored(folder: Path) -> Address:
    """The database of version 4."""
    file = folder / "old.db"
    file.write_bytes(gzip.decompress((DATA / "schema4.db.gz").read_bytes()))
    return Address(database.parse_url(str(file)), None)


def age(engine: Engine, to: int) -> None:
    """Downgrade a database of version 4 without scenes to an older version."""
    with engine.begin() as connection:
        for version in range(4, to, -1):
            for statement in BACK[version]:
                connection.execute(text(statement))
        if to < 3:
            connection.execute(text("PRAGMA writable_schema = ON"))
            change = "replace(sql, 'author INTEGER', 'author INTEGER NOT NULL')"
            connection.execute(
                text(f"UPDATE sqlite_master SET sql = {change} WHERE name = 'episodes'")
            )
            connection.execute(text("PRAGMA writable_schema = RESET"))
        connection.execute(text(f"UPDATE sandbox_schema SET version = {to}"))


def shape(engine: Engine) -> dict[str, Any]:
    """The tables with their columns, nullability and keys."""
    found = inspect(engine)
    return {
        name: (
            {column["name"]: column["nullable"] for column in found.get_columns(name)},
            found.get_pk_constraint(name)["constrained_columns"],
        )
        for name in found.get_table_names()
    }


def fresh_shape(engine: Engine) -> dict[str, Any]:
    """The schema of a new database."""
    migrate(engine, "here")
    return shape(engine)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_older_file_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    address = stored(tmp_path)
    fresh = fresh_shape(create_engine(f"sqlite:///{tmp_path / 'new.db'}"))
    engine = create_engine(address.url)
    age(engine, version)
    assert shape(engine) != fresh
    engine.dispose()
    grown = resume(Address(address.url, "half"), accept_changes=True)  # prompts name `memories` now
    played, _ = play(tmp_path)
    assert (grown.status, grown.digest) == ("done", played)
    engine = create_engine(address.url)
    assert shape(engine) == fresh
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    engine.dispose()
    for name in ("grid", "half", *(["scene"] if version > 2 else [])):
        assert verify(Address(address.url, name)).agrees


def play(folder: Path) -> tuple[str | None, Address]:
    """The digest of the run `half`, played from the beginning by this version."""
    keys = ("size=2", "raters=2")
    settings = ("name=half", "rounds=2", "question_count=4", "memory.prior_pairs=3")
    settings += ("memory.recall=threshold", "memory.embedder=hashed")  # the defaults of then
    config = small(*settings, *(f"world.{key}" for key in keys))
    address = create(prepare(config), str(folder / "again.db"))
    return resume(address).digest, address


def test_an_older_server_is_brought_up_to_date(server: str, tmp_path: Path) -> None:
    engine = create_engine(server)
    empty(engine)
    fresh = fresh_shape(engine)
    empty(engine)
    with engine.begin() as connection:
        for statement in (DATA / "schema4.postgresql.sql").read_text("utf-8").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(
            "CREATE TABLE words (episode_id BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)"
        )
        connection.exec_driver_sql("CREATE INDEX words_found ON words USING gin (words)")
    carry(create_engine(stored(tmp_path).url), engine)
    migrate(engine, "here")
    assert shape(engine) == fresh
    for name in PLAYED:
        reader = Reader.find(engine, name, "here")
        assert digest(reader) == reader.run.digest
    empty(engine)
    engine.dispose()


def carry(source: Engine, target: Engine) -> None:
    """Copy all rows of a database into the same tables of another one."""
    there = MetaData()
    there.reflect(target)
    with source.connect() as old, target.begin() as new:
        for table in there.sorted_tables:
            if table.name == "words":
                continue
            rows = [dict(row._mapping) for row in old.execute(select(table))]
            if rows:
                new.execute(table.insert(), rows)
    source.dispose()


def empty(engine: Engine) -> None:
    """Drop all tables."""
    metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS words"))
