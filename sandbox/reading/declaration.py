"""The stored declaration of a run: its stages, scales and measures."""

from __future__ import annotations

from sqlalchemy import select

from agents.scale import Declaration
from storage import tables
from storage.reader import Reader


def declaration_of(reader: Reader) -> Declaration:
    """Read the declaration of a run from its database, without loading its world."""
    return Declaration.model_validate_json(reader.run.declaration)


def measure_ids(reader: Reader) -> dict[str, int]:
    """The ids of a run's measures in the table `scores`, by name."""
    m = tables.measures
    query = select(m.c.name, m.c.id).where(m.c.run_id == reader.run.id).order_by(m.c.id)
    return {row.name: row.id for row in reader.rows(query)}
