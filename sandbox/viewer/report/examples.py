"""Exchanges that a report shows in full: the largest rise, the largest fall, a typical one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select

from sandbox.reading.text_diff import Piece, changes
from storage import tables
from storage.exchanges import Exchange, exchange
from storage.reader import Reader
from storage.scenes import Scene


class Example(NamedTuple):
    """An exchange to read.

    Attributes:
        title: why it is shown.
        exchange: with its texts.
        changes: how the draft became the revision; None where either is missing.
        scene: what was played in between, in a sentence; empty without a scene.
    """

    title: str
    exchange: Exchange
    changes: list[Piece] | None
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
_before, _after = _episodes.c.draft_alignment, _episodes.c.revision_alignment


def _complete(reader: Reader) -> Select[Any]:
    """The ids of complete exchanges with both answers, as a query."""
    e = _episodes
    return select(e.c.id).where(
        e.c.run_id == reader.run.id,
        e.c.observed,
        e.c.draft_id.is_not(None),
        e.c.failed_at.is_(None),
    )


def _wanted(reader: Reader) -> Iterator[tuple[str, Select[Any]]]:
    """What is looked for; of exchanges that fit alike it is the first with the fewest gaps."""
    gain, gaps = _after - _before, func.coalesce(_episodes.c.ratings_missing, 0)
    scored = _complete(reader).where(gain.is_not(None))
    last = (gaps, _episodes.c.id)
    yield "The largest rise", scored.where(gain > 0).order_by(gain.desc(), *last)
    yield "The largest fall", scored.where(gain < 0).order_by(gain, *last)
    means = reader.first(scored.with_only_columns(func.avg(_before), func.avg(_after)))
    if None not in means:
        apart = func.abs(_before - float(means[0])) + func.abs(_after - float(means[1]))
        yield "A typical exchange", scored.order_by(apart, *last)


def _example(reader: Reader, number: int, title: str) -> Example:
    found = exchange(reader, number)
    assert found is not None
    scene = "" if found.scene is None else _told(found.scene)
    return Example(title, found, changes(found.draft, found.revision), scene)


def _told(scene: Scene) -> str:
    acts = scene.acts
    refused, harmful = sum(act.passed is False for act in acts), sum(bool(act.harm) for act in acts)
    return (
        f"{len(scene.parts)} people were on stage. Of {len(acts)} acts the modulator refused "
        f"{refused}, and {harmful} did harm."
    )
