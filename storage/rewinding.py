"""Take a run back to the start of a round, and keep its calls, from which it is played again."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, func, select, update

from storage import tables
from storage.reader import Reader
from storage.summaries import add_up_again, count_calls_again, forget_words
from storage.tables import first_id

_BY_EPISODE = (
    tables.scores,
    tables.ratings,
    tables.observations,
    tables.stage_texts,
    tables.parts,
    tables.acts,
    tables.notes,
    tables.utterances,
    tables.verdicts,
    tables.breaches,
)


def first_round_with(reader: Reader, statuses: Collection[str], after: int = -1) -> int | None:
    """Find the first round with a call of one of these statuses; None if there is none.

    Args:
        reader: the run.
        statuses: values of the column `status` of calls.
        after: rounds up to this one are left out.
    """
    c, per_round = tables.calls, reader.run.per_round
    query = select(func.min(c.c.episode_id)).where(
        c.c.status != "ok",  # the condition of the index
        c.c.status.in_(statuses),
        reader.belongs_to_run(c.c.id),
        c.c.episode_id >= reader.base + (after + 1) * per_round,
    )
    episode = reader.scalar(query)
    return None if episode is None else (int(episode) - reader.base) // per_round


def rewind(connection: Connection, reader: Reader, round: int, statuses: Collection[str]) -> int:
    """Delete all rows of a round and those after it, except for its calls.

    Calls with one of `statuses` are deleted, so that they are requested again. The run keeps the
    round in `asked_again_from` until it has been played again.

    Args:
        connection: a transaction.
        reader: the run.
        round: the first round to play again.
        statuses: values of the column `status` of calls.

    Returns:
        The number of calls that were deleted.
    """
    run, m, e, c, r = reader.run, tables.memories, tables.episodes, tables.calls, tables.runs
    first, last = reader.base + round * run.per_round, first_id(run.id + 1) - 1
    forget_words(connection, run.id, first)
    for table in _BY_EPISODE:
        connection.execute(delete(table).where(table.c.episode_id.between(first, last)))
    connection.execute(delete(m).where(reader.belongs_to_run(m.c.id), m.c.round >= round))
    connection.execute(delete(e).where(e.c.id.between(first, last)))
    deleted = connection.execute(
        delete(c).where(c.c.episode_id.between(first, last), c.c.status.in_(statuses))
    )
    add_up_again(connection, run.id, round)
    earlier = round if run.asked_again_from is None else min(round, run.asked_again_from)
    count = int(deleted.rowcount)
    query = update(r).where(r.c.id == run.id)
    again = (run.asked_again or 0) + count
    connection.execute(query.values(asked_again_from=earlier, asked_again=again, digest=None))
    return count


def finish(connection: Connection, reader: Reader) -> None:
    """Delete calls of episodes that are no longer part of a run that was played again to its end.

    Args:
        connection: a transaction.
        reader: the run.
    """
    run, c, e, r = reader.run, tables.calls, tables.episodes, tables.runs
    if run.asked_again_from is None:
        return
    first, last = reader.base + run.asked_again_from * run.per_round, first_id(run.id + 1) - 1
    played = select(e.c.id).where(e.c.id.between(first, last))
    stale = delete(c).where(c.c.episode_id.between(first, last), c.c.episode_id.not_in(played))
    connection.execute(stale)
    count_calls_again(connection, run.id)
    query = update(r).where(r.c.id == run.id)
    connection.execute(query.values(asked_again_from=None, asked_again=None))
