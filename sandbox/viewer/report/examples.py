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
    """The observer's rating of a stage on a scale.

    Attributes:
        scale: the scale.
        rating: None if it could not be parsed.
        before: the rating of the previous stage; None if there is none.
        status: the status of the observer's reply.
    """

    scale: Scale
    rating: float | None
    before: float | None
    status: str


class ShownStage(NamedTuple):
    """A stage of an exchange, prepared for the template.

    Attributes:
        stage: its declaration.
        text: None if it is missing.
        changes: the diff against the previous stage; None for the first stage, and if either text
            is missing.
        scores: one for each scale on which it was rated.
        ratings: the peers' ratings of it.
    """

    stage: Stage
    text: str | None
    changes: list[Piece] | None
    scores: list[Score]
    ratings: tuple[GivenRating, ...]


class Example(NamedTuple):
    """An example exchange.

    Attributes:
        title: why it was selected.
        exchange: the exchange.
        stages: its stages, in order.
        scene: a summary of the scene after the first stage; empty without a scene.
    """

    title: str
    exchange: Exchange
    stages: list[ShownStage]
    scene: str


def examples(reader: Reader, declared: Declaration) -> list[Example]:
    """Select the examples, each exchange once; without scores the first complete exchange."""
    titles: dict[int, str] = {}
    for title, query in _queries(reader, declared):
        number = reader.scalar(query.where(_episodes.c.id.not_in(titles)).limit(1))
        if number is not None:
            titles[int(number)] = title
    if not titles:
        first = reader.scalar(_complete(reader, declared).order_by(_episodes.c.id).limit(1))
        titles |= {} if first is None else {int(first): "An exchange"}
    return [_example(reader, declared, id - reader.base, title) for id, title in titles.items()]


_episodes = tables.episodes


def _complete(reader: Reader, declared: Declaration) -> Select[Any]:
    """A query of the ids of complete exchanges that have the texts of all stages."""
    e, t = _episodes, tables.stage_texts
    texts = select(func.count()).select_from(t).where(t.c.episode_id == e.c.id).scalar_subquery()
    return select(e.c.id).where(
        e.c.run_id == reader.run.id,
        e.c.observed,
        e.c.failed_at.is_(None),
        texts == len(declared.stages),
    )


def _queries(reader: Reader, declared: Declaration) -> Iterator[tuple[str, Select[Any]]]:
    """Titles and queries of the examples; ties go to the fewest missing ratings, then the first."""
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
    """The scores of the first and the last stage that are rated on a scale."""
    rated = [one for one in declared.measures if one.kind == "score" and one.scale == scale]
    return rated[:1] + rated[1:][-1:]


def _distance(values: Sequence[ColumnElement[float]], means: Any) -> ColumnElement[float]:
    """The sum of the absolute deviations of values from their means."""
    distances = [func.abs(v - float(mean)) for v, mean in zip(values, means, strict=True)]
    total: ColumnElement[float] = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total


def _example(reader: Reader, declared: Declaration, number: int, title: str) -> Example:
    read = exchange(reader, number)
    assert read is not None
    scene = "" if read.scene is None else _scene_summary(read.scene)
    return Example(title, read, list(_stages(read, declared)), scene)


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


def _scene_summary(scene: Scene) -> str:
    acts = scene.acts
    refused, harmful = sum(act.passed is False for act in acts), sum(bool(act.harm) for act in acts)
    return (
        f"The scene has {len(scene.parts)} characters. The modulator refused {refused} of "
        f"{len(acts)} acts, and {harmful} did harm."
    )
