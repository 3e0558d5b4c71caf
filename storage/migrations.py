"""Migrations: append-only, each applied in one transaction together with its record.

A new database gets today's tables and today's version. An older one is brought up step by step,
and then its summaries, which follow from the rest, are made anew.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Engine, insert, inspect, select, update

from storage.errors import InputError
from storage.summaries import create_words, rebuild
from storage.tables import metadata, schema


def _thinking_and_expected(connection: Connection) -> None:
    for column in ("thinking TEXT", "expected FLOAT"):
        connection.exec_driver_sql(f"ALTER TABLE calls ADD COLUMN {column}")


def _scenes(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    for name, columns in (
        ("parts", "name_id BIGINT NOT NULL, about_id BIGINT NOT NULL, agent INTEGER"),
        (
            "acts",
            "step INTEGER NOT NULL, part INTEGER NOT NULL, reacts_to INTEGER, text_id BIGINT, "
            "passed BOOLEAN, why_id BIGINT, seen_by TEXT NOT NULL, harm BOOLEAN, "
            "critique_id BIGINT",
        ),
        ("notes", "kind VARCHAR(32) NOT NULL, text_id BIGINT NOT NULL"),
    ):
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (episode_id BIGINT NOT NULL REFERENCES episodes (id), "
            f"number INTEGER NOT NULL, {columns}, PRIMARY KEY (episode_id, number))"
            + (" WITHOUT ROWID" if sqlite else "")
        )
    connection.exec_driver_sql("ALTER TABLE agents ADD COLUMN community INTEGER")
    if not sqlite:
        connection.exec_driver_sql("ALTER TABLE episodes ALTER COLUMN author DROP NOT NULL")
        return
    # SQLite's own way to drop a constraint: https://www.sqlite.org/lang_altertable.html, section 7
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, 'author INTEGER NOT NULL', 'author INTEGER') "
        "WHERE type = 'table' AND name = 'episodes'"
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _summaries(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    scores = [
        f"{stage}_{scale}"
        for scale in ("alignment", "engagement")
        for stage in ("draft", "revision")
    ]
    for column in (
        *(f"{score} SMALLINT" for score in scores),
        "mean_rating FLOAT",
        *("ratings_read SMALLINT", "ratings_missing SMALLINT"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE episodes ADD COLUMN {column}")
    for name, columns, key in (
        (
            "outcomes",
            "round INTEGER NOT NULL, measure VARCHAR(64) NOT NULL, outcome VARCHAR(12) NOT NULL, "
            "n INTEGER NOT NULL",
            "round, measure, outcome",
        ),
        (
            "rater_sums",
            "rater INTEGER NOT NULL, label VARCHAR(32) NOT NULL, ratings INTEGER NOT NULL, "
            "missing INTEGER NOT NULL, total INTEGER NOT NULL, compared INTEGER NOT NULL, "
            "deviation FLOAT NOT NULL, deviation_squares FLOAT NOT NULL",
            "rater, label",
        ),
        (
            "call_sums",
            "form_id INTEGER NOT NULL REFERENCES forms (id), model_id INTEGER NOT NULL "
            "REFERENCES models (id), status VARCHAR(12) NOT NULL, calls INTEGER NOT NULL, "
            "tokens_in BIGINT NOT NULL, tokens_out BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, "
            "told INTEGER NOT NULL, tokens_told BIGINT NOT NULL, took BIGINT NOT NULL",
            "form_id, model_id, status",
        ),
    ):
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (run_id INTEGER NOT NULL REFERENCES runs (id), {columns}, "
            f"PRIMARY KEY (run_id, {key}))" + (" WITHOUT ROWID" if sqlite else "")
        )
    connection.exec_driver_sql("CREATE INDEX ratings_by_rater ON ratings (rater, episode_id)")
    connection.exec_driver_sql("CREATE INDEX calls_not_ok ON calls (id) WHERE status <> 'ok'")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _thinking_and_expected,
    _scenes,
    _summaries,
)
"""Step i brings a database from version i + 1 to version i + 2. Never edit a step; add one."""

VERSION = 1 + len(MIGRATIONS)


def schema_version(engine: Engine, place: str) -> int | None:
    """The schema version of a database; None for one without any table.

    Raises:
        InputError: it is not ours, or from a newer version.
    """
    names = inspect(engine).get_table_names()
    if not names:
        return None
    if schema.name not in names:
        raise InputError(f"{place}: not a database of runs; expected one that this program made")
    with engine.connect() as connection:
        version = int(connection.scalar(select(schema.c.version)) or 0)
    if version > VERSION:
        raise InputError(
            f"{place}: written by a newer version of this program (schema {version}); expected "
            f"schema {VERSION} or older: upgrade the program"
        )
    return version


def check_readable(engine: Engine, place: str) -> None:
    """Refuse what a reader cannot read: an empty, foreign, newer or older database."""
    version = schema_version(engine, place)
    if version is None:
        raise InputError(f"{place}: an empty database; expected one with runs in it")
    if version < VERSION:
        raise InputError(
            f"{place}: schema {version}, from an older version of this program; expected schema "
            f"{VERSION}: `resume` brings it up to date"
        )


def migrate(engine: Engine, place: str) -> None:
    """Make the tables, or bring those of an older version to today's.

    Raises:
        InputError: the database is not ours, or from a newer version.
    """
    version = schema_version(engine, place)
    if version is None:
        with engine.begin() as connection:
            metadata.create_all(connection)
            create_words(connection)
            connection.execute(insert(schema).values(version=VERSION))
        return
    for step in range(version, VERSION):
        with engine.begin() as connection:
            MIGRATIONS[step - 1](connection)
            connection.execute(update(schema).values(version=step + 1))
            if step + 1 == VERSION:
                rebuild(connection)
