"""Exchanges that a report shows in full: the largest rise, the largest fall, a typical one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select

from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.exchanges import stage_changes
from sandbox.reading.text_diff import Piece
from storage import tables
from storage.exchanges import Exchange, exchange
from storage.reader import Reader
from storage.scenes import Scene


class Example(NamedTuple):
    """An exchange to read.

    Attributes:
        title: why it is shown.
        exchange: with its texts.
        changes: by stage how its text differs from the stage before; see `stage_changes`.
        scene: what was played in between, in a sentence; empty without a scene.
    """

    title: str
    exchange: Exchange
    changes: Mapping[str, Sequence[Piece] | None]
    scene: str


def examples(reader: Reader) -> list[Example]:
    """The exchanges to read, each once; where nothing was scored the first that can be read."""
    found: dict[int, str] = {}
    for title, query in _wanted(reader):
        number = reader.scalar(query.where(_episodes.c.id.not_in(found)).limit(1))
        if number is not None:
            found[int(number)] = title
    if not found:
        first = reader.scalar(_complete(reader).order_by(_episodes.c.id).limit(1))
        found |= {} if first is None else {int(first): "An exchange"}
    return [_example(reader, number - reader.base, title) for number, title in found.items()]


_episodes = tables.episodes


def _complete(reader: Reader) -> Select[Any]:
    """The ids of complete exchanges that did not fail, as a query."""
    e = _episodes
    return select(e.c.id).where(e.c.run_id == reader.run.id, e.c.observed, e.c.failed_at.is_(None))


def _wanted(reader: Reader) -> Iterator[tuple[str, Select[Any]]]:
    """What is looked for; of exchanges that fit alike it is the first with the fewest gaps."""
    declared, ids = declaration_of(reader), measure_ids(reader)
    measure = None if declared.main is None else declared.gain(declared.main)
    if measure is None:
        return
    gain, before, after = (tables.scores.alias() for _ in range(3))
    names = (measure.name, *(f"{s}_{measure.scale.name}" for s in (measure.base, measure.stage)))
    joined = [
        condition
        for table, name in zip((gain, before, after), names, strict=True)
        for condition in (table.c.measure_id == ids[name], table.c.episode_id == _episodes.c.id)
    ]
    scored = _complete(reader).where(*joined)
    last = (func.coalesce(_episodes.c.ratings_missing, 0), _episodes.c.id)
    yield "The largest rise", scored.where(gain.c.value > 0).order_by(gain.c.value.desc(), *last)
    yield "The largest fall", scored.where(gain.c.value < 0).order_by(gain.c.value, *last)
    means = reader.first(
        scored.with_only_columns(func.avg(before.c.value), func.avg(after.c.value))
    )
    if None not in means:
        first, second = before.c.value - float(means[0]), after.c.value - float(means[1])
        apart = func.abs(first) + func.abs(second)
        yield "A typical exchange", scored.order_by(apart, *last)


def _example(reader: Reader, number: int, title: str) -> Example:
    found = exchange(reader, number)
    assert found is not None
    scene = "" if found.scene is None else _told(found.scene)
    return Example(title, found, stage_changes(found), scene)


def _told(scene: Scene) -> str:
    acts = scene.acts
    refused, harmful = sum(act.passed is False for act in acts), sum(bool(act.harm) for act in acts)
    return (
        f"{len(scene.parts)} people were on stage. Of {len(acts)} acts the modulator refused "
        f"{refused}, and {harmful} did harm."
    )
