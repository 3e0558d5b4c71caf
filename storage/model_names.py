"""Model names: the models of a run, and which model each agent used in an episode.

A society may use several models, personas may name adapters, and a fork may change the model. So
the model of a text is that of the call that returned it, never that of the run.
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
"""The key of the observer in `ModelByAgent`."""

ModelByAgent = Mapping[tuple[int, int | str | None], str]
"""Model names by episode id and agent: the number of an agent, None for a call without an agent,
or `OBSERVER`."""


class ModelUsage(NamedTuple):
    """A model of a run: its role, its name, and the number of its calls."""

    role: str
    name: str
    calls: int


class ModelNames(NamedTuple):
    """The names of a run's models and adapters.

    Attributes:
        names: the name of each model, by its id in the database.
        adapters: the adapter named by an agent's persona, by the agent's number.
        observers: the ids of the observer's models.
    """

    names: Mapping[int, str]
    adapters: Mapping[int, str]
    observers: frozenset[int]

    @classmethod
    def of(cls, reader: Reader, connection: Connection) -> ModelNames:
        """Read the models of a run over an open connection."""
        a, m = tables.agents, tables.models
        with_adapter = select(a.c.number, a.c.persona).where(
            a.c.run_id == reader.run.id, a.c.persona.contains('"adapter":')
        )
        adapters = {
            number: json.loads(persona)["adapter"]
            for number, persona in connection.execute(with_adapter)
        }
        rows = connection.execute(select(m).where(m.c.run_id == reader.run.id).order_by(m.c.id))
        models = {row.id: (row.role, row.name) for row in rows}
        observers = (number for number, (role, _) in models.items() if role.startswith(OBSERVER))
        return cls(_display_names(models), adapters, frozenset(observers))

    def by_agent(self, connection: Connection, ids: Sequence[int]) -> ModelByAgent:
        """The model of each agent in these episodes; it is fixed within an episode."""
        c = tables.calls
        query = select(c.c.episode_id, c.c.agent, c.c.model_id).where(c.c.episode_id.in_(ids))
        return {
            (episode, OBSERVER if model in self.observers else agent): self._name(agent, model)
            for episode, agent, model in connection.execute(query.distinct())
        }

    def of_agents(self, connection: Connection, run_id: int) -> dict[int, str]:
        """The model of each agent of a run; of one that changed in a fork, the latest.

        Calls are looked through only where there are several models.
        """
        a, c, e = tables.agents, tables.calls, tables.episodes
        social = [model for model in self.names if model not in self.observers]
        if len(social) == 1:
            numbers = connection.scalars(select(a.c.number).where(a.c.run_id == run_id))
            return {number: self._name(number, social[0]) for number in numbers}
        query = (
            select(c.c.agent, c.c.model_id)
            .join(e, e.c.id == c.c.episode_id)
            .where(e.c.run_id == run_id, c.c.agent.is_not(None))
            .distinct()
        )
        rows = sorted(connection.execute(query), key=lambda row: row.model_id)
        return {agent: self._name(agent, model) for agent, model in rows}

    def _name(self, agent: int | None, model: int) -> str:
        adapter = None if agent is None else self.adapters.get(agent)
        return self.names[model] if adapter is None else f"{self.names[model]} + {adapter}"


def model_usage(reader: Reader, connection: Connection) -> list[ModelUsage]:
    """The models of a run with the number of their calls, in the order of their first use."""
    c, m = tables.call_sums, tables.models
    query = select(c.c.model_id, func.sum(c.c.calls)).where(c.c.run_id == reader.run.id)
    calls = {row[0]: int(row[1]) for row in connection.execute(query.group_by(c.c.model_id))}
    rows = connection.execute(select(m).where(m.c.run_id == reader.run.id).order_by(m.c.id)).all()
    names = ModelNames.of(reader, connection).names
    return [ModelUsage(row.role, names[row.id], calls.get(row.id, 0)) for row in rows]


def _display_names(models: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Names for display, by id; the role is added where two paths have the same last part."""
    raw = {name for _, name in models.values()}
    count = Counter(map(_short, raw))
    return {
        number: _short(name) if count[_short(name)] == 1 else f"{_short(name)} ({role})"
        for number, (role, name) in models.items()
    }


def _short(name: str) -> str:
    """A model's name; for a path only the last part, so that no local folder is published."""
    if name.startswith(("/", "~", ".")) or PureWindowsPath(name).drive:
        return re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    return name
