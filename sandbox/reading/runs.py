"""What a run has come to: its status and its figures, counted in its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import URL, Engine, func, select

from sandbox.reading.metrics import FormCalls, calls_by_form, scores_by_round
from storage import database, tables
from storage.database import Address, address_of
from storage.reader import Reader


@contextmanager
def open_run(run: str | Address) -> Iterator[Reader]:
    """Open a run for reading, also while another process works on it.

    Args:
        run: an address, or a string as `storage.database.parse_run` reads it.

    Raises:
        InputError: there is no such run.
    """
    address = address_of(run)
    engine = database.open_for_reading(address.url)
    try:
        yield Reader.find(engine, address.name, str(address))
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Outcome:
    """The status and the figures of a run.

    Counts are of the whole journal, except for `calls_replayed`, which is of the latest session;
    `forms` has the counts of each form.
    """

    run: str
    db: str
    status: str
    agents: int
    rounds: int
    episodes: int
    episodes_failed: int
    calls: int
    calls_replayed: int
    calls_failed: int
    unparsed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    forms: list[FormCalls]
    digest: str | None
    seconds: float
    message: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The outcome as a dictionary for JSON."""
        return asdict(self)


def outcome(reader: Reader, address: Address, replayed: int = 0) -> Outcome:
    """Compute the outcome of a run from its database.

    Args:
        reader: the run.
        address: where it is stored.
        replayed: the number of calls that were replayed in the latest session.
    """
    run, forms, rounds = reader.run, calls_by_form(reader), scores_by_round(reader)
    return Outcome(
        run=run.name,
        db=database.place_of(address.url),
        status=run.status,
        agents=int(reader.scalar(select(func.count()).where(tables.agents.c.run_id == run.id))),
        rounds=run.rounds,
        episodes=sum(one.episodes for one in rounds),
        episodes_failed=sum(one.failed for one in rounds),
        calls=sum(one.calls for one in forms),
        calls_replayed=replayed,
        calls_failed=sum(one.failed for one in forms),
        unparsed=sum(one.unparsed for one in forms),
        tokens_in=sum(one.tokens_in for one in forms),
        tokens_out=sum(one.tokens_out for one in forms),
        tokens_cached=sum(one.tokens_cached or 0 for one in forms),
        forms=forms,
        digest=run.digest,
        seconds=round(worked(reader), 3),
        message=run.message,
    )


def states(url: URL) -> list[dict[str, Any]]:
    """List the runs of a database: their outcomes, and their planned number of episodes.

    Raises:
        InputError: the database cannot be read.
    """
    engine = database.open_for_reading(url)
    try:
        return [_state(engine, url, name) for name in database.run_names(url)]
    finally:
        engine.dispose()


def _state(engine: Engine, url: URL, name: str) -> dict[str, Any]:
    address = Address(url, name)
    reader = Reader.find(engine, name, str(address))
    found = outcome(reader, address).as_dict() | {"status": status_now(reader, url)}
    return found | {"episodes_total": reader.run.rounds * reader.run.per_round}


def worked(reader: Reader) -> float:
    """Seconds of work in all sessions, including one in progress or killed."""
    c = tables.calls
    query = select(c.c.started + c.c.took).where(reader.mine(c.c.id))
    last = reader.scalar(query.order_by(c.c.id.desc()).limit(1))
    return max(float(reader.run.seconds), int(last or 0) / 1000)


def status_now(reader: Reader, url: URL) -> str:
    """The status of a run; `killed` if it is marked as running but no process writes it."""
    status = str(reader.run.status)
    alone = database.is_file(url) and not database.is_being_written(url)
    return "killed" if status == "running" and alone else status
