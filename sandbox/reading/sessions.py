"""The history of a run: its sessions, from start or resume to their ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from sandbox.reading.records import Record
from sandbox.reading.runs import status_now
from storage import tables
from storage.database import Address
from storage.json_columns import parse_mapping
from storage.reader import Reader


@dataclass(frozen=True, kw_only=True)
class Session(Record):
    """One process working on a run.

    Attributes:
        number: from 0.
        started, ended: ISO 8601, UTC; `ended` is None while it is under way, or if it was killed.
        seconds: from its start to its end; None without an end.
        status: of the run at its end: done, interrupted, failed or killed; running until then.
        message: why it ended; None: nothing to report.
        calls: the number of new calls.
        code_version: the version of the program.
        changes: settings that it changed at its start, by key: [before, after].
        environment: what it was played with: versions, commit and machine of the "program", and
            what each backend tells of its engine, under its roles; empty if it called no model.
    """

    number: int
    started: str
    ended: str | None
    seconds: float | None
    status: str
    message: str | None
    calls: int
    code_version: str
    changes: Mapping[str, Sequence[Any]]
    environment: Mapping[str, Mapping[str, Any]]

    @property
    def changed(self) -> list[str]:
        """The changes in words: ``key: before → after``."""
        return [f"{key}: {_value(a)} \u2192 {_value(b)}" for key, (a, b) in self.changes.items()]


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """What some sessions of a run were played with.

    Attributes:
        sessions: their numbers.
        parts: as `Session.environment`.
    """

    sessions: list[int]
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def words(self) -> list[tuple[str, str]]:
        """What and value of each entry; those of a model after its roles."""
        return [
            (key if part == "program" else f"{part} model: {key}", _value(value))
            for part, told in self.parts.items()
            for key, value in told.items()
            if value is not None
        ]

    @property
    def title(self) -> str:
        """Which sessions had it."""
        numbers = ", ".join(map(str, self.sessions))
        return f"Environment of session{'s' if len(self.sessions) > 1 else ''} {numbers}"


def environments(reader: Reader) -> list[Environment]:
    """Read the distinct environments of a run's sessions; none of those that called no model."""
    s = tables.sessions
    query = (
        select(s.c.number, s.c.environment)
        .where(s.c.run_id == reader.run.id, s.c.environment.is_not(None))
        .order_by(s.c.number)
    )
    found: dict[str, list[int]] = {}
    for row in reader.rows(query):
        found.setdefault(row.environment, []).append(row.number)
    return [
        Environment(sessions=numbers, parts=_environment(text)) for text, numbers in found.items()
    ]


def sessions(reader: Reader, address: Address) -> list[Session]:
    """Read the sessions of a run, the first one first.

    A run that was played by an older version of the program has none of that time.

    Args:
        reader: the run.
        address: where it is stored.
    """
    s = tables.sessions
    rows = list(reader.rows(select(s).where(s.c.run_id == reader.run.id).order_by(s.c.number)))
    now = status_now(reader, address.url)
    return [_session(reader, row, now) for row in rows]


def _session(reader: Reader, row: Any, now: str) -> Session:
    under_way = row.status == "running"
    return Session(
        number=row.number,
        started=row.started,
        ended=row.ended,
        seconds=None if row.ended is None else _seconds(row.started, row.ended),
        status=now if under_way else row.status,
        message=row.message,
        calls=_calls_so_far(reader, row.first_call) if under_way else row.calls,
        code_version=row.code_version,
        changes=parse_mapping(row.changes, "sessions.changes") if row.changes else {},
        environment=_environment(row.environment),
    )


def _environment(text: str | None) -> Mapping[str, Mapping[str, Any]]:
    if text is None:
        return {}
    found = parse_mapping(text, "sessions.environment")
    for part, told in found.items():
        if not isinstance(told, dict):
            raise ValueError(f"sessions.environment: {part}: found no JSON object; expected one")
    return found


def _seconds(started: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def _calls_so_far(reader: Reader, first: int) -> int:
    c = tables.calls
    query = select(func.count()).where(reader.belongs_to_run(c.c.id), c.c.id >= first)
    return int(reader.scalar(query))


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
