"""Databases of older versions: they are brought up to date, and then are like new ones."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from conftest import Make
from sqlalchemy import Engine, create_engine, inspect, text

from sandbox.engine.run import resume
from sandbox.study.verify import verify
from storage import database
from storage.migrations import VERSION, migrate
from storage.reader import Reader
from storage.tables import metadata

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
"""What takes each version back to the one before, beside the constraint on authors."""


def age(engine: Engine, to: int) -> None:
    """Make a database what it would have been in an older version."""
    with engine.begin() as connection:
        for version in range(VERSION, to, -1):
            for statement in BACK[version]:
                connection.execute(text(statement))
        if to == 3:
            pass
        elif engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA writable_schema = ON"))
            change = "replace(sql, 'author INTEGER', 'author INTEGER NOT NULL')"
            connection.execute(
                text(f"UPDATE sqlite_master SET sql = {change} WHERE name = 'episodes'")
            )
            connection.execute(text("PRAGMA writable_schema = RESET"))
        else:
            connection.execute(text("ALTER TABLE episodes ALTER COLUMN author SET NOT NULL"))
        connection.execute(text(f"UPDATE sandbox_schema SET version = {to}"))


def shape(engine: Engine) -> dict[str, Any]:
    """Tables with their columns, whether they may be NULL, and their keys."""
    found = inspect(engine)
    return {
        name: (
            {column["name"]: column["nullable"] for column in found.get_columns(name)},
            found.get_pk_constraint(name)["constrained_columns"],
        )
        for name in found.get_table_names()
    }


def empty(engine: Engine) -> None:
    """Take all tables away."""
    metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS words"))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_file_is_brought_up_to_date(make: Make, version: int) -> None:
    address, outcome = make("rounds=1")
    engine = create_engine(address.url)
    fresh = shape(engine)
    age(engine, version)
    assert shape(engine) != fresh and shape(engine)["episodes"][0]["author"] == (version == 3)
    engine.dispose()
    grown = resume(address, rounds=2)
    assert grown.status == "done" and grown.episodes == 2 * outcome.episodes
    engine = create_engine(address.url)
    assert shape(engine) == fresh
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        assert connection.execute(text("SELECT count(*) FROM acts")).scalar_one() == 0
    engine.dispose()
    assert verify(address).agrees
    assert Reader.find(database.open_for_reading(address.url), "run", "").run.rounds == 2


def test_an_older_server_is_brought_up_to_date(server: str) -> None:
    engine = create_engine(server)
    empty(engine)
    migrate(engine, "here")
    fresh = shape(engine)
    age(engine, 1)
    migrate(engine, "here")
    assert shape(engine) == fresh
    empty(engine)
    engine.dispose()
