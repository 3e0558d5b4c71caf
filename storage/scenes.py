"""Read scenes: the parts, their acts, who saw each act, and whether it did harm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from storage import tables


class ScenePart(NamedTuple):
    """A character of a scene: name, description, and the agent that plays it (None: invented)."""

    name: str
    about: str
    agent: int | None


class SceneAct(NamedTuple):
    """An act of a part, or one that the modulator refused.

    Attributes:
        step: the number of the step of the plan, from 0.
        part: the number of the acting part, from 0.
        reacts_to: the number of the act that this one reacts to; None for a step of the plan.
        text: the act; None where the reply was unparseable.
        passed: whether the modulator accepted the act; None where its reply was unparseable.
        why: the modulator's reason.
        seen_by: the numbers of the parts that saw the act, including the acting part.
        harm: whether the act did harm; None where the critique was unparseable.
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
    """Any other text of a scene.

    Attributes:
        kind: occasion, step, consequences, told, instruction or answer.
        text: the text.
        shortened: it was truncated, and kept to its last whole sentence.
    """

    kind: str
    text: str
    shortened: bool = False


class Scene(NamedTuple):
    """One scene; parts, acts and notes are in the order of their numbers."""

    parts: tuple[ScenePart, ...]
    acts: tuple[SceneAct, ...]
    notes: tuple[SceneNote, ...]

    def noted(self, kind: str) -> list[str]:
        """The texts of all notes of one kind."""
        return [note.text for note in self.notes if note.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        """The scene as lists and dicts, for JSON."""
        return {name: [row._asdict() for row in rows] for name, rows in self._asdict().items()}


def scenes_of(connection: Connection, ids: Sequence[int]) -> dict[int, Scene]:
    """Read the scenes of episodes by id; episodes without a scene are left out."""
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
    parts: defaultdict[int, list[ScenePart]] = defaultdict(list)
    for number, *values in connection.execute(query):
        parts[number].append(ScenePart._make(values))
    return parts


def _acts(connection: Connection, ids: Sequence[int]) -> defaultdict[int, list[SceneAct]]:
    a = tables.acts
    text, why, critique = (tables.texts.alias() for _ in range(3))
    query = (
        select(
            a.c.episode_id,
            a.c.step,
            a.c.part,
            a.c.reacts_to,
            text.c.text,
            a.c.passed,
            why.c.text,
            a.c.seen_by,
            a.c.harm,
            critique.c.text,
        )
        .outerjoin(text, text.c.id == a.c.text_id)
        .outerjoin(why, why.c.id == a.c.why_id)
        .outerjoin(critique, critique.c.id == a.c.critique_id)
        .where(a.c.episode_id.in_(ids))
        .order_by(a.c.episode_id, a.c.number)
    )
    acts: defaultdict[int, list[SceneAct]] = defaultdict(list)
    for number, *values in connection.execute(query):
        act = SceneAct._make(values)
        seen_by = tuple(int(part) for part in values[6].split(",") if part)
        acts[number].append(act._replace(seen_by=seen_by))
    return acts


def _notes(connection: Connection, ids: Sequence[int]) -> defaultdict[int, list[SceneNote]]:
    n, t = tables.notes, tables.texts
    query = (
        select(n.c.episode_id, n.c.kind, t.c.text, n.c.shortened)
        .join(t, t.c.id == n.c.text_id)
        .where(n.c.episode_id.in_(ids))
        .order_by(n.c.episode_id, n.c.number)
    )
    notes: defaultdict[int, list[SceneNote]] = defaultdict(list)
    for number, *values in connection.execute(query):
        notes[number].append(SceneNote._make(values))
    return notes
