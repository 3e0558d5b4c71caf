"""Which model said what: the names of a run's models, and who spoke with which of them.

A society may be mixed, personas may name adapters, and a fork may go on with another model, so
that a text's model is that of the call which brought it, never that of the run.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from storage import tables
from storage.reader import Reader

OBSERVER = "observer"
"""Stands for the observer where everybody else has the number of an agent, or none."""

Spoke = Mapping[tuple[int, int | str | None], str]
"""The name of the model by the id of an episode and who spoke: the number of an agent, None for
nobody in particular, or `OBSERVER`."""


class Voice(NamedTuple):
    """A model of a run: its role, its name, and how many calls it was asked."""

    role: str
    name: str
    calls: int


class Voices(NamedTuple):
    """The models of a run.

    Attributes:
        names: the name of each model, by its id in the database.
        adapters: the adapter that an agent's persona names, by the agent's number.
        observers: the ids of the observer's models.
    """

    names: Mapping[int, str]
    adapters: Mapping[int, str]
    observers: frozenset[int]

    @classmethod
    def of(cls, reader: Reader, connection: Connection) -> Voices:
        """The models of a run, as a connection sees them."""
        a, m = tables.agents, tables.models
        named = select(a.c.number, a.c.persona).where(
            a.c.run_id == reader.run.id, a.c.persona.contains('"adapter":')
        )
        adapters = {
            number: json.loads(persona)["adapter"] for number, persona in connection.execute(named)
        }
        rows = connection.execute(select(m).where(m.c.run_id == reader.run.id).order_by(m.c.id))
        known = {row.id: (row.role, row.name) for row in rows}
        watching = (number for number, (role, _) in known.items() if role.startswith(OBSERVER))
        return cls(_public(known), adapters, frozenset(watching))

    def heard(self, connection: Connection, ids: Sequence[int]) -> Spoke:
        """Who spoke with which model in some episodes. Within an episode nobody changes it."""
        c = tables.calls
        query = select(c.c.episode_id, c.c.agent, c.c.model_id).where(c.c.episode_id.in_(ids))
        return {
            (episode, OBSERVER if model in self.observers else agent): self._name(agent, model)
            for episode, agent, model in connection.execute(query.distinct())
        }

    def _name(self, agent: int | None, model: int) -> str:
        adapter = None if agent is None else self.adapters.get(agent)
        return self.names[model] if adapter is None else f"{self.names[model]} + {adapter}"


def voices(reader: Reader, connection: Connection) -> list[Voice]:
    """The models of a run and how often each was asked, in the order in which they came."""
    c, m = tables.call_sums, tables.models
    query = select(c.c.model_id, func.sum(c.c.calls)).where(c.c.run_id == reader.run.id)
    asked = {row[0]: int(row[1]) for row in connection.execute(query.group_by(c.c.model_id))}
    rows = connection.execute(select(m).where(m.c.run_id == reader.run.id).order_by(m.c.id)).all()
    names = Voices.of(reader, connection).names
    return [Voice(row.role, names[row.id], asked.get(row.id, 0)) for row in rows]


def _public(models: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Names to show, by id; of two paths that end alike each is told apart by its role."""
    raw = {name for _, name in models.values()}
    alike = Counter(map(_short, raw))
    return {
        number: _short(name) if alike[_short(name)] == 1 else f"{_short(name)} ({role})"
        for number, (role, name) in models.items()
    }


def _short(name: str) -> str:
    """A model's name; of a path, which is nobody's business, the last part."""
    if name.startswith(("/", "~", ".")) or PureWindowsPath(name).drive:
        return re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    return name
