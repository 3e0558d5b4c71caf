"""Forks: a new run that goes on from the state of another one after a round.

One rule is changed in it, or none, and what becomes of it is compared with what became of the
original. The rounds before are those of the original, call by call.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select, update

from sandbox import __version__
from sandbox.backends import backend_of, backends_of
from sandbox.backends.embedding import embedder_of
from sandbox.config import Config, apply_setting, explain, redacted
from sandbox.engine.changes import refuse_changes
from sandbox.engine.run import new_run
from sandbox.engine.society import add_questions, missing_questions
from sandbox.reading.agents import read_agents
from sandbox.reading.records import flat
from sandbox.sources import Question
from storage import database, tables
from storage.copying import TransactionWriter, copy_rounds, forked_from
from storage.database import Address
from storage.digest import VERSION as DIGEST_VERSION
from storage.errors import InputError
from storage.reader import Reader
from worlds.base import SettingError

FIXED = (
    *("seed", "world.kind", "questions", "question_count", "personas", "forms"),
    *("memory.prior", "memory.prior_pairs"),
    *("memory.embedder", "memory.embedder.backend", "memory.embedder.model"),
)
"""Keys that a fork cannot change: the rounds that it takes over were lived by them.

`forms` is among them because a call is shown, and its hash checked, with the form of its run, and
`seed` because the people follow from it.
A world adds those of its settings that its society is founded on.
"""


def fixed_keys(config: Config) -> list[str]:
    """All keys of a run that a fork of it cannot change."""
    return [*FIXED, *(f"world.{key}" for key in type(config.world).founding)]


class _Plan(NamedTuple):
    """A fork that is checked, and not written yet."""

    source: Reader
    at: int
    old: Config
    new: Config
    questions: list[Question]


def fork(
    source: Address,
    at: int,
    settings: Sequence[str] = (),
    *,
    name: str | None = None,
    db: str | None = None,
    rounds: int | None = None,
    accept_changes: bool = False,
    allow: Collection[Path] = (),
) -> Address:
    """Write a new run that begins with the rounds of another one, whole or not at all.

    Args:
        source: the run to fork, finished or not.
        at: the last round to keep, counted from 0; all its episodes are complete.
        settings: ``a.b=value`` each, on top of the run's config.
        name: of the new run; the default is RUN-fork-at-ROUND.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: rounds in all; the default is as many as the run was to have.
        accept_changes: fork with the run's own copies although files or the program have changed.
        allow: files with Python code that the run's config names and that may be loaded; those in
            `settings` may be loaded anyway.

    Returns:
        Where the new run lives; `sandbox.engine.run.resume` works on it.

    Raises:
        InputError: there is no such run or round, a setting contradicts the past, or the new run
            cannot be written.
    """
    engine = database.open_for_reading(source.url)
    try:
        reader = Reader.find(engine, source.name, str(source))
        old = Config.from_json(reader.run.config, allow)
        old.refuse_unloaded()
        plan = _plan(reader, at, old, settings, name, rounds)
        if not accept_changes:
            refuse_changes(reader, old, backends_of(old.models.roles()))
        new_name = plan.new.name
        place = database.parse_url(db or str(database.RUNS / f"{new_name}.db"))
        address = Address(place, new_name)
        with new_run(address) as target, target.begin() as connection:
            _write(connection, plan)
        return address
    finally:
        engine.dispose()


def _plan(
    reader: Reader,
    at: int,
    old: Config,
    settings: Sequence[str],
    name: str | None,
    rounds: int | None,
) -> _Plan:
    new = _changed(old, settings, name or f"{old.name}-fork-at-{at}", name, rounds)
    _check_round(reader, at, new.rounds)
    _check_past(old, flat(json.loads(new.as_json())))
    _check_world(reader, old, new)
    return _Plan(reader, at, old, new, missing_questions(reader, new))


def _changed(
    config: Config, settings: Sequence[str], default: str, name: str | None, rounds: int | None
) -> Config:
    """A run's config with other settings, checked as one that is read from a file."""
    data: dict[str, Any] = json.loads(config.as_json()) | {"name": default}
    origin = {apply_setting(data, setting): redacted(setting) for setting in settings}
    given = {"name": name, "rounds": rounds}
    for key, value in given.items():
        if value is not None:
            data[key] = value
            origin[key,] = f"--{key}"
    _check_past(config, flat(data))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, f"run {config.name}", origin, data)) from None


def _check_round(reader: Reader, at: int, rounds: int) -> None:
    e, per_round = tables.episodes, reader.run.per_round
    query = (
        select(func.count()).where(reader.belongs_to_run(e.c.id), e.c.observed).group_by(e.c.round)
    )
    counts = [row[0] for row in reader.rows(query.order_by(e.c.round))]
    complete = next((r for r, n in enumerate(counts) if n < per_round), len(counts))
    if not 0 <= at < complete:
        there = f"0 to {complete - 1}" if complete else "none yet"
        raise InputError(
            f"--at: found {at}; expected a round of which, and before which, all episodes of "
            f"{reader.run.name} are complete: {there}"
        )
    if rounds <= at:
        raise InputError(
            f"rounds: found {rounds}; expected at least {at + 1}, those that --at {at} keeps"
        )


def _differences(old: Config, new: Config) -> dict[str, list[Any]]:
    """Keys whose values differ, but for the name: [before, after]."""
    before, after = flat(json.loads(old.as_json())), flat(json.loads(new.as_json()))
    keys = [key for key in before | after if key != "name"]
    pairs = {key: [before.get(key), after.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _check_past(config: Config, new: Mapping[str, Any]) -> None:
    old = flat(json.loads(config.as_json()))
    scales = {key for key in old | dict(new) if key.startswith("scales.")}
    for key in scales:
        if new.get(key) != old.get(key):
            raise InputError(
                f"{key}: found {new.get(key)}; expected {old.get(key)}, as in the rounds that the "
                "fork keeps"
            )
    for key in fixed_keys(config):
        if key in new and new[key] != old.get(key):
            raise InputError(
                f"{key}: found {new[key]}; expected {old.get(key)}, as in the rounds that the "
                "fork keeps"
            )


def _check_world(reader: Reader, old: Config, new: Config) -> None:
    """A world checks its settings as it populates itself; here the result is thrown away."""
    if new.world == old.world:
        return
    personas = [agent.persona for agent in read_agents(reader)]
    try:
        new.build_world().populate(personas)
    except SettingError as error:
        raise InputError(f"world.{error.key}: {error}") from None


def _write(connection: Connection, plan: _Plan) -> None:
    source = plan.source
    row = _run_row(plan)
    made = connection.execute(insert(tables.runs).values(row).returning(tables.runs.c.id))
    run_id = made.scalar_one()
    copy_rounds(source, connection, run_id, plan.at)
    _enter_models(connection, run_id, plan)
    if plan.questions:
        writer = TransactionWriter(connection, run_id)
        embedder = embedder_of(plan.new.memory.embedder)
        add_questions(writer, source, plan.questions, embedder)
        writer.flush(connection)


def _run_row(plan: _Plan) -> dict[str, Any]:
    run, config = plan.source.run, plan.new
    threshold = run.threshold
    if config.memory.threshold != plan.old.memory.threshold:
        threshold = config.memory.threshold or embedder_of(config.memory.embedder).threshold
    return {
        "name": config.name,
        "status": "interrupted",
        "world": run.world,
        "seed": config.seed,
        "rounds": config.rounds,
        "per_round": run.per_round,
        "config": config.as_json(),
        "embedder": run.embedder,
        "threshold": threshold,
        "code_version": __version__,
        "digest_version": DIGEST_VERSION,
        "declaration": run.declaration,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": _seconds(plan),
        "origin": json.dumps({"forked_from": _origin(plan)}),
    }


def _origin(plan: _Plan) -> dict[str, Any]:
    """Where a fork comes from: run, digest (None if not finished), round, what was changed.

    `changed` has [before, after] by key; `forked_from` is there where the original is a fork.
    """
    run = plan.source.run
    origin = {
        "run": run.name,
        "digest": run.digest,
        "round": plan.at,
        "changed": _differences(plan.old, plan.new),
    }
    earlier = forked_from(plan.source)
    return origin if earlier is None else origin | {"forked_from": earlier}


def _seconds(plan: _Plan) -> float:
    """Time at work until the last reply that is kept: the fork's clock goes on from there."""
    c, source = tables.calls, plan.source
    end = source.base + (plan.at + 1) * source.run.per_round - 1
    query = select(func.max(c.c.started + c.c.took)).where(c.c.episode_id.between(source.base, end))
    return int(source.scalar(query) or 0) / 1000


def _enter_models(connection: Connection, run_id: int, plan: _Plan) -> None:
    """Where a model changes, the old one keeps the calls that it answered, in a role of its own."""
    m = tables.models
    before = dict(plan.old.models.roles())
    for role, new in plan.new.models.roles():
        if before.get(role) == new:
            continue
        mine = (m.c.run_id == run_id) & (m.c.role == role)
        connection.execute(update(m).where(mine).values(role=f"{role} until round {plan.at}"))
        name, settings = backend_of(new).model, new.model_dump_json()
        row = {"run_id": run_id, "role": role, "name": name, "settings": settings}
        connection.execute(insert(m), row)
