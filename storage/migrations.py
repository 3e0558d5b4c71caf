"""Migrations: append-only, each applied in one transaction together with its record.

A new database gets today's tables and today's version. An older one is brought up step by step.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Engine, insert, inspect, select, update

from storage.errors import InputError
from storage.tables import metadata, schema


def _thinking_and_expected(connection: Connection) -> None:
    for column in ("thinking TEXT", "expected FLOAT"):
        connection.exec_driver_sql(f"ALTER TABLE calls ADD COLUMN {column}")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_thinking_and_expected,)
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
            connection.execute(insert(schema).values(version=VERSION))
        return
    for step in range(version, VERSION):
        with engine.begin() as connection:
            MIGRATIONS[step - 1](connection)
            connection.execute(update(schema).values(version=step + 1))
