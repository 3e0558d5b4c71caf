"""Scenes as scripts, their summaries, and the list of a run's latest scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select

from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import ExchangeRow, exchange_rows
from storage import tables
from storage.reader import Reader
from storage.scenes import Scene, SceneAct


class SceneLine(NamedTuple):
    """An act in a script.

    Attributes:
        number: of the act within the scene.
        act: the act.
        depth: 0 for a step of the plan, 1 for a reaction to it, 2 for a reaction to that.
    """

    number: int
    act: SceneAct
    depth: int


@dataclass(frozen=True)
class SceneStep:
    """A step of the plan: what was planned, and what was done.

    Attributes:
        number: from 0.
        plan: what was planned.
        lines: the acts in order; empty where the step was not played.
    """

    number: int
    plan: str
    lines: Sequence[SceneLine]

    @property
    def as_planned(self) -> bool:
        """Whether an act of the step says exactly what was planned."""
        plan = self.plan.strip().rstrip(".").casefold()
        said = (line.act.text or "" for line in self.lines if line.depth == 0)
        return any(text.strip().rstrip(".").casefold() == plan for text in said)


@dataclass(frozen=True)
class Script:
    """A scene as a script.

    Attributes:
        steps: in order.
        acts: the number of acts.
        refused, harmful: the numbers of the acts that the modulator refused, and that did harm.
    """

    steps: Sequence[SceneStep]
    acts: int
    refused: Sequence[int]
    harmful: Sequence[int]


def script(scene: Scene) -> Script:
    """The script of a scene."""
    depths: list[int] = []
    for act in scene.acts:
        reacts = act.reacts_to is not None and act.reacts_to < len(depths)
        depths.append(depths[act.reacts_to or 0] + 1 if reacts else 0)
    lines = [SceneLine(n, act, depths[n]) for n, act in enumerate(scene.acts)]
    return Script(
        steps=[
            SceneStep(number, plan, [line for line in lines if line.act.step == number])
            for number, plan in enumerate(scene.noted("step"))
        ],
        acts=len(lines),
        refused=[line.number for line in lines if line.act.passed is False],
        harmful=[line.number for line in lines if line.act.harm],
    )


class SceneRow(NamedTuple):
    """A scene in a list: its exchange, and the numbers of its people and acts."""

    exchange: ExchangeRow
    people: int
    acts: int
    refused: int
    harmful: int


def latest_scenes(reader: Reader, limit: int) -> list[SceneRow]:
    """The latest scenes of a run, the latest first; empty for a world without scenes."""
    e, a, p = tables.episodes, tables.acts, tables.parts
    played = select(a.c.episode_id).where(a.c.episode_id == e.c.id).exists()
    query = select(e.c.id).where(e.c.run_id == reader.run.id, played)
    any_act = select(a.c.episode_id).where(reader.belongs_to_run(a.c.episode_id)).limit(1)
    if reader.scalar(any_act) is None:
        return []
    ids = [row.id for row in reader.rows(query.order_by(e.c.id.desc()).limit(limit))]
    acts = select(
        a.c.episode_id,
        func.count().label("acts"),
        func.count().filter(a.c.passed.is_(False)).label("refused"),
        func.count().filter(a.c.harm.is_(True)).label("harmful"),
    ).where(a.c.episode_id.in_(ids))
    counts = {row.episode_id: row for row in reader.rows(acts.group_by(a.c.episode_id))}
    parts = select(p.c.episode_id, func.count()).where(p.c.episode_id.in_(ids))
    people = {row[0]: row[1] for row in reader.rows(parts.group_by(p.c.episode_id))}
    rows = exchange_rows(reader, ids, declaration_of(reader))
    return [
        SceneRow(row, people.get(id, 0), one.acts, one.refused, one.harmful)
        for row in rows
        for id in [reader.base + row.episode]
        for one in [counts[id]]
    ]
