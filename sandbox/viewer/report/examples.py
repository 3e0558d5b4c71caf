"""Exchanges that a report shows in full: the largest gain, the largest loss, a typical one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from agents.scale import Declaration, Measure, Scale, Stage
from sandbox.reading.declaration import measure_ids
from sandbox.reading.text_diff import Piece, changes
from storage import tables
from storage.exchanges import Exchange, GivenRating, exchange
from storage.reader import Reader
from storage.scenes import Scene


class Score(NamedTuple):
    """What the observer gave a stage on a scale.

    Attributes:
        scale: the scale.
        rating: None where it could not be parsed.
        before: the rating of the stage before; None where there is none.
        status: of the observer's reply.
    """

    scale: Scale
    rating: float | None
    before: float | None
    status: str


class ShownStage(NamedTuple):
    """A stage of an exchange, as it is laid out.

    Attributes:
        stage: its declaration.
        text: None where it is missing.
        changes: how it differs from the stage before; None for the first stage, and where either
            text is missing.
        scores: on every scale on which it was rated.
        ratings: the peers' ratings of it.
    """

    stage: Stage
    text: str | None
    changes: list[Piece] | None
    scores: list[Score]
    ratings: tuple[GivenRating, ...]


class Example(NamedTuple):
    """An exchange to read.

    Attributes:
        title: why it is shown.
        exchange: with its texts.
        stages: in order.
        scene: what was played after the first stage, in a sentence; empty without a scene.
    """

    title: str
    exchange: Exchange
    stages: list[ShownStage]
    scene: str


def examples(reader: Reader, declared: Declaration) -> list[Example]:
    """The exchanges to read, each once; without a score the first that is complete."""
    found: dict[int, str] = {}
    for title, query in _wanted(reader, declared):
        number = reader.scalar(query.where(_episodes.c.id.not_in(found)).limit(1))
        if number is not None:
            found[int(number)] = title
    if not found:
        first = reader.scalar(_complete(reader, declared).order_by(_episodes.c.id).limit(1))
        found |= {} if first is None else {int(first): "An exchange"}
    return [_example(reader, declared, id - reader.base, title) for id, title in found.items()]


_episodes = tables.episodes


def _complete(reader: Reader, declared: Declaration) -> Select[Any]:
    """The ids of complete exchanges that have all texts, as a query."""
    e, t = _episodes, tables.stage_texts
    texts = select(func.count()).select_from(t).where(t.c.episode_id == e.c.id).scalar_subquery()
    return select(e.c.id).where(
        e.c.run_id == reader.run.id,
        e.c.observed,
        e.c.failed_at.is_(None),
        texts == len(declared.stages),
    )


def _wanted(reader: Reader, declared: Declaration) -> Iterator[tuple[str, Select[Any]]]:
    """Queries for the exchanges; of several that fit alike, the first with the fewest gaps."""
    main = declared.main
    if main is None:
        return
    gain, rated = declared.gain(main), _rated(declared, main)
    scores = {
        one.name: tables.scores.alias(one.name) for one in (*rated, *([gain] if gain else []))
    }
    scored = _complete(reader, declared)
    for name, id in measure_ids(reader).items():
        if name in scores:
            s = scores[name]
            scored = scored.join(s, (s.c.episode_id == _episodes.c.id) & (s.c.measure_id == id))
    last = (func.coalesce(_episodes.c.ratings_missing, 0), _episodes.c.id)
    if gain is not None:
        value = scores[gain.name].c.value
        yield "The largest gain", scored.where(value > 0).order_by(value.desc(), *last)
        yield "The largest loss", scored.where(value < 0).order_by(value, *last)
    else:
        final = scores[rated[-1].name].c.value
        best, worst = final.desc(), final.asc()
        if main.better == "low":
            best, worst = worst, best
        yield "The best rated exchange", scored.order_by(best, *last)
        yield "The worst rated exchange", scored.order_by(worst, *last)
    values = [scores[one.name].c.value for one in rated]
    means = reader.first(scored.with_only_columns(*map(func.avg, values)))
    if None not in means:
        yield "A typical exchange", scored.order_by(_distance(values, means), *last)


def _rated(declared: Declaration, scale: Scale) -> list[Measure]:
    """The measures of the first and the last stage that is rated on a scale."""
    rated = [one for one in declared.measures if one.kind == "score" and one.scale == scale]
    return rated[:1] + rated[1:][-1:]


def _distance(values: Sequence[ColumnElement[float]], means: Any) -> ColumnElement[float]:
    """The sum of the distances of values from their means."""
    distances = [func.abs(v - float(mean)) for v, mean in zip(values, means, strict=True)]
    total: ColumnElement[float] = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total


def _example(reader: Reader, declared: Declaration, number: int, title: str) -> Example:
    found = exchange(reader, number)
    assert found is not None
    scene = "" if found.scene is None else _scene_in_words(found.scene)
    return Example(title, found, list(_stages(found, declared)), scene)


def _stages(one: Exchange, declared: Declaration) -> Iterator[ShownStage]:
    rated = None if declared.peers is None else declared.stages_of(declared.peers)[:1]
    before: str | None = None
    for stage in declared.stages:
        text = one.texts.get(stage.name)
        yield ShownStage(
            stage=stage,
            text=text,
            changes=changes(one.texts[before], text) if before is not None else None,
            scores=list(_scores(one, declared, stage.name, before)),
            ratings=one.ratings if rated == (stage.name,) else (),
        )
        before = stage.name


def _scores(
    one: Exchange, declared: Declaration, stage: str, before: str | None
) -> Iterator[Score]:
    for scale in declared.observed:
        seen = one.observation(stage, scale.name)
        if seen is not None:
            earlier = None if before is None else one.score(before, scale.name)
            yield Score(scale, one.score(stage, scale.name), earlier, seen.status)


def _scene_in_words(scene: Scene) -> str:
    acts = scene.acts
    refused, harmful = sum(act.passed is False for act in acts), sum(bool(act.harm) for act in acts)
    return (
        f"{len(scene.parts)} people were on stage. Of {len(acts)} acts the modulator refused "
        f"{refused}, and {harmful} did harm."
    )
