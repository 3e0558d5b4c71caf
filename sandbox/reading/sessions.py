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

    @property
    def changed(self) -> list[str]:
        """The changes in words: ``key: before → after``."""
        return [f"{key}: {_value(a)} \u2192 {_value(b)}" for key, (a, b) in self.changes.items()]


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
    )


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
