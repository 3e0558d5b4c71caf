"""Forks: a new run that continues from the state of another run after a round.

Settings can be changed in the fork, to compare its outcome with the original. The rounds before are
those of the original, call by call.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from sandbox import __version__
from sandbox.backends import backend_of, backends_of
from sandbox.backends.embedding import embedder_of
from sandbox.config import Config, apply_setting, parse_config
from sandbox.engine.changes import refuse_changes
from sandbox.engine.run import new_run
from sandbox.engine.settings import differences
from sandbox.engine.society import add_questions, missing_questions
from sandbox.reading.agents import read_agents
from sandbox.reading.policy import policy_of
from sandbox.reading.records import flat
from sandbox.settings_files import redacted
from sandbox.sources import Question
from storage import database, tables
from storage.copying import TransactionWriter, copy_rounds, forked_from
from storage.database import Address
from storage.digest import VERSION as DIGEST_VERSION
from storage.errors import InputError
from storage.reader import Reader
from worlds.base import SettingError

FIXED = (
    "seed",
    "world.kind",
    "questions",
    "question_count",
    "personas",
    "forms",
    "policy.file",
    "policy.prompts",
    "memory.prior",
    "memory.prior_pairs",
    "memory.embedder",
    "memory.embedder.backend",
    "memory.embedder.model",
)
"""Keys that a fork cannot change, because the copied rounds depend on them.

`forms` and the rules in them, because a call is shown, and its hash checked, with the prompt
template of its run; `seed`, because the agents are drawn with it. A world adds the settings that
its agents depend on.
"""


def fixed_keys(config: Config) -> list[str]:
    """All keys of a run's config that a fork cannot change."""
    return [*FIXED, *(f"world.{key}" for key in type(config.world).founding)]


class _Plan(NamedTuple):
    """A fork that is validated but not written yet."""

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
    """Write a new run that starts with the rounds of another one, in a single transaction.

    Args:
        source: the run to fork, finished or not.
        at: the last round to keep, counted from 0; its episodes must be complete.
        settings: changes to the run's config, each ``a.b=value``.
        name: of the new run; the default is RUN-fork-at-ROUND.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: the total number of rounds; the default is that of the original.
        accept_changes: fork with the run's own copies although files or the program have changed.
        allow: files with Python code that the run's config names and that may be loaded; those in
            `settings` may be loaded anyway.

    Returns:
        The address of the new run; `sandbox.engine.run.resume` plays it.

    Raises:
        InputError: there is no such run or round, a setting contradicts the copied rounds, or
            the new run cannot be written.
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
    """A run's config with changed settings, validated like a config file."""
    data: dict[str, Any] = json.loads(config.as_json()) | {"name": default}
    origin = {apply_setting(data, setting): redacted(setting) for setting in settings}
    given = {"name": name, "rounds": rounds}
    for key, value in given.items():
        if value is not None:
            data[key] = value
            origin[key,] = f"--{key}"
    _check_past(config, flat(data))
    return parse_config(data, f"run {config.name}", origin)


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
    """Validate changed world settings: a world checks them when it places its agents."""
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
    query = insert(tables.runs).values(row).returning(tables.runs.c.id)
    run_id = connection.execute(query).scalar_one()
    copy_rounds(source, connection, run_id, plan.at)
    _write_models(connection, run_id, plan)
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
        "stances": run.stances,
        "inputs": run.inputs,
        "policy": _policy(plan),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": _seconds(plan),
        "origin": json.dumps({"forked_from": _origin(plan)}),
    }


def _policy(plan: _Plan) -> str | None:
    """The rules of the original; whether checks act on replies may change."""
    policy = policy_of(plan.source)
    if policy is None:
        return None
    return policy.model_copy(update={"checks": plan.new.policy.checks}).model_dump_json()


def _origin(plan: _Plan) -> dict[str, Any]:
    """The origin of a fork: run, digest (None if not finished), round, and changed keys.

    `changed` has [before, after] by key; `forked_from` is present if the original is a fork.
    """
    run = plan.source.run
    origin = {
        "run": run.name,
        "digest": run.digest,
        "round": plan.at,
        "changed": differences(plan.old, plan.new),
    }
    earlier = forked_from(plan.source)
    return origin if earlier is None else origin | {"forked_from": earlier}


def _seconds(plan: _Plan) -> float:
    """Seconds of work until the last copied reply: the fork counts on from there."""
    c, source = tables.calls, plan.source
    end = source.base + (plan.at + 1) * source.run.per_round - 1
    query = select(func.max(c.c.started + c.c.took)).where(c.c.episode_id.between(source.base, end))
    return int(source.scalar(query) or 0) / 1000


def _write_models(connection: Connection, run_id: int, plan: _Plan) -> None:
    """Write models that change; the old ones keep their calls, under a role of their own."""
    m = tables.models
    before = dict(plan.old.models.roles())
    for role, new in plan.new.models.roles():
        if before.get(role) == new:
            continue
        in_role = (m.c.run_id == run_id) & (m.c.role == role)
        connection.execute(update(m).where(in_role).values(role=f"{role} until round {plan.at}"))
        name, settings = backend_of(new).model, new.model_dump_json()
        row = {"run_id": run_id, "role": role, "name": name, "settings": settings}
        connection.execute(insert(m), row)
