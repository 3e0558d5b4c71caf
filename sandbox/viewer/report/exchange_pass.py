"""One pass over all complete exchanges of a run, for statistics without a summary table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from sandbox.datasets.schema import Schema
from sandbox.datasets.source import Origin, SourcedExchange
from sandbox.datasets.survey import Survey
from sandbox.reading.influence import Influence, influences
from storage import tables
from storage.exchanges import Exchange, exchanges_of, snapshot
from storage.reader import Reader

_BATCH = 500


class ExchangePass(NamedTuple):
    """The results of a pass.

    Attributes:
        survey: statistics of agreement, lengths and failures.
        raters: the influence of every rater, by decreasing centrality.
    """

    survey: Survey
    raters: list[Influence]


def exchange_pass(reader: Reader) -> ExchangePass:
    """Read all complete exchanges, in batches.

    Memory grows by what a `Survey` and `influences` store: about 50 bytes per rating.
    """
    with snapshot(reader) as connection:
        origin = Origin.single(reader, connection)
        survey = Survey(Schema([origin.schema]))
        counted = _counted(_complete(reader, connection), survey, origin)
        raters = influences(counted, origin.declaration)
    return ExchangePass(survey, raters)


def _complete(reader: Reader, connection: Connection) -> Iterator[Exchange]:
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id, e.c.observed)
    ids = connection.scalars(
        query.order_by(e.c.round, e.c.id), execution_options={"yield_per": _BATCH}
    )
    return exchanges_of(reader, connection, ids)


def _counted(rows: Iterator[Exchange], survey: Survey, origin: Origin) -> Iterator[Exchange]:
    questions: Mapping[str, Any] = {}
    for exchange in rows:
        survey.add(SourcedExchange(origin, 0, exchange, questions))
        yield exchange
