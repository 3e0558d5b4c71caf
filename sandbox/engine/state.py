"""The state of a run in its database, from which a session continues."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import func, select

from agents.forms import Form
from agents.policy import Policy
from sandbox.config import Config
from sandbox.engine.society import Society, read_society
from sandbox.reading.policy import all_forms, policy_of
from storage import tables
from storage.reader import Reader
from worlds.base import World


class RatingSum(NamedTuple):
    """The observer's ratings of one stage and scale in one round: their sum and number."""

    round: int
    stage: str
    scale: str
    total: float
    ratings: int


class RunState(NamedTuple):
    """A run as it is stored when a session starts.

    Attributes:
        config, world: the run's config and the world that it describes.
        per_round: number of episodes in a round.
        society: agents, questions and memories.
        forms: the run's prompt templates, by name.
        form_ids: their rows, by name.
        model_ids: the rows of the models, by role.
        recorded: for each stored episode, by number: whether its observations are stored too.
        failed: the number of complete episodes that failed.
        rating_sums: sums of the stored observations.
        policy: the rules that bind the run; None: none.
    """

    config: Config
    world: World
    per_round: int
    society: Society
    forms: dict[str, Form[Any]]
    form_ids: dict[str, int]
    model_ids: dict[str, int]
    recorded: dict[int, bool]
    failed: int
    rating_sums: list[RatingSum]
    policy: Policy | None


def read_state(reader: Reader, config: Config) -> RunState:
    """Read the state of a run.

    Args:
        reader: the run.
        config: its config, with the files that it names loaded.
    """
    world = config.build_world()
    rows = _form_rows(reader)
    policy = policy_of(reader)
    known = {form.name: form for form in all_forms(world.forms, policy)}
    return RunState(
        config=config,
        world=world,
        per_round=reader.run.per_round,
        society=read_society(reader, config.memory),
        forms={
            row.name: replace(known[row.name], system=row.system, user=row.template) for row in rows
        },
        form_ids={row.name: row.id for row in rows},
        model_ids=_model_ids(reader),
        recorded=_recorded_episodes(reader),
        failed=_failed_episodes(reader),
        policy=policy,
        rating_sums=_rating_sums(reader) if config.stop else [],
    )


def _form_rows(reader: Reader) -> list[Any]:
    f = tables.forms
    return list(reader.rows(select(f).where(f.c.run_id == reader.run.id).order_by(f.c.id)))


def _model_ids(reader: Reader) -> dict[str, int]:
    m = tables.models
    return {row.role: row.id for row in reader.rows(select(m).where(m.c.run_id == reader.run.id))}


def _recorded_episodes(reader: Reader) -> dict[int, bool]:
    e = tables.episodes
    query = select(e.c.id, e.c.observed).where(reader.belongs_to_run(e.c.id))
    return {row.id - reader.base: row.observed for row in reader.rows(query)}


def _failed_episodes(reader: Reader) -> int:
    e = tables.episodes
    failed = e.c.observed & e.c.failed_at.is_not(None)
    return int(reader.scalar(select(func.count()).where(reader.belongs_to_run(e.c.id), failed)))


def _rating_sums(reader: Reader) -> list[RatingSum]:
    e, o = tables.episodes, tables.observations
    query = (
        select(e.c.round, o.c.stage, o.c.scale, func.sum(o.c.rating), func.count(o.c.rating))
        .join(o, o.c.episode_id == e.c.id)
        .where(reader.belongs_to_run(e.c.id), o.c.rating.is_not(None))
        .group_by(e.c.round, o.c.stage, o.c.scale)
    )
    return [
        RatingSum(round, stage, scale, float(total), count)
        for round, stage, scale, total, count in reader.rows(query)
    ]
