"""The agents of a run, read from its database."""

from __future__ import annotations

import json

from sqlalchemy import select

from agents.agent import Agent
from agents.memory import Memory
from agents.persona import Persona
from storage import tables
from storage.reader import Reader


def read_agents(reader: Reader, keep: int | None = None) -> list[Agent]:
    """Read the agents, with empty memories."""
    a = tables.agents
    query = select(a).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return [
        Agent(
            row.number,
            row.label,
            Persona.model_validate(json.loads(row.persona)),
            row.x,
            row.y,
            None if row.neighbours is None else tuple(map(int, row.neighbours.split(","))),
            row.node,
            row.community,
            Memory(keep),
        )
        for row in reader.rows(query)
    ]
