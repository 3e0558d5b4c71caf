"""The scenes of a run: who took part, what they did, who saw it, and what harm there was in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from storage import tables


class ScenePart(NamedTuple):
    """Somebody who takes part: the name, who they are, and the agent who plays them, if any."""

    name: str
    about: str
    agent: int | None


class SceneAct(NamedTuple):
    """What a part did or would have done.

    Attributes:
        step: of the plan, from 0.
        part: the number of the part that acts, from 0.
        reacts_to: the number of the act that it answers; None for a step of the plan.
        text: what was done; None where the model gave nothing that can be read.
        passed: whether the modulator let it come to pass; None where nobody could tell.
        why: the modulator's reason.
        seen_by: the numbers of the parts that saw it, the actor's among them.
        harm: whether it did harm; None where nobody could tell.
        critique: who is harmed and how, or why nobody is.
    """

    step: int
    part: int
    reacts_to: int | None
    text: str | None
    passed: bool | None
    why: str | None
    seen_by: tuple[int, ...]
    harm: bool | None
    critique: str | None


class SceneNote(NamedTuple):
    """What else a scene brought: occasion, step, consequences, told, instruction, answer, ..."""

    kind: str
    text: str


class Scene(NamedTuple):
    """One scene, each in the order of its numbers."""

    parts: tuple[ScenePart, ...]
    acts: tuple[SceneAct, ...]
    notes: tuple[SceneNote, ...]

    def noted(self, kind: str) -> list[str]:
        """The texts of all notes of a kind."""
        return [note.text for note in self.notes if note.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: [one._asdict() for one in rows] for name, rows in self._asdict().items()}


def scenes_of(connection: Connection, ids: Sequence[int]) -> dict[int, Scene]:
    """The scenes of those of these episodes that are one, by the episode's id."""
    parts, acts, notes = _parts(connection, ids), _acts(connection, ids), _notes(connection, ids)
    return {
        number: Scene(tuple(parts[number]), tuple(acts[number]), tuple(notes[number]))
        for number in parts.keys() | acts.keys() | notes.keys()
    }


def _parts(connection: Connection, ids: Sequence[int]) -> defaultdict[int, list[ScenePart]]:
    p, name, about = tables.parts, tables.texts.alias(), tables.texts.alias()
    query = (
        select(p.c.episode_id, name.c.text, about.c.text, p.c.agent)
        .join(name, name.c.id == p.c.name_id)
        .join(about, about.c.id == p.c.about_id)
        .where(p.c.episode_id.in_(ids))
        .order_by(p.c.episode_id, p.c.number)
    )
    found: defaultdict[int, list[ScenePart]] = defaultdict(list)
    for number, *values in connection.execute(query):
        found[number].append(ScenePart._make(values))
    return found


def _acts(connection: Connection, ids: Sequence[int]) -> defaultdict[int, list[SceneAct]]:
    a, text, why, critique = tables.acts, *(tables.texts.alias() for _ in range(3))
    columns = (a.c.episode_id, a.c.step, a.c.part, a.c.reacts_to, text.c.text, a.c.passed)
    query = (
        select(*columns, why.c.text, a.c.seen_by, a.c.harm, critique.c.text)
        .outerjoin(text, text.c.id == a.c.text_id)
        .outerjoin(why, why.c.id == a.c.why_id)
        .outerjoin(critique, critique.c.id == a.c.critique_id)
        .where(a.c.episode_id.in_(ids))
        .order_by(a.c.episode_id, a.c.number)
    )
    found: defaultdict[int, list[SceneAct]] = defaultdict(list)
    for number, *values in connection.execute(query):
        one = SceneAct._make(values)
        seen_by = tuple(int(part) for part in values[6].split(",") if part)
        found[number].append(one._replace(seen_by=seen_by))
    return found


def _notes(connection: Connection, ids: Sequence[int]) -> defaultdict[int, list[SceneNote]]:
    n, t = tables.notes, tables.texts
    query = (
        select(n.c.episode_id, n.c.kind, t.c.text)
        .join(t, t.c.id == n.c.text_id)
        .where(n.c.episode_id.in_(ids))
        .order_by(n.c.episode_id, n.c.number)
    )
    found: defaultdict[int, list[SceneNote]] = defaultdict(list)
    for number, *values in connection.execute(query):
        found[number].append(SceneNote._make(values))
    return found
