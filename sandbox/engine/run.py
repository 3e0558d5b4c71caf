"""The life of a run: prepare and check a config, create the run, resume it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, insert, update
from sqlalchemy.exc import DBAPIError

from agents.agent import Agent
from agents.checks import files_of
from agents.embedding import Embedder
from agents.forms import Form
from agents.persona import STANCE, Persona
from agents.plugins import unnamed_file
from agents.policy import Policy
from agents.scale import Declaration
from sandbox import __version__
from sandbox.backends import backends_of, started
from sandbox.backends.base import Backend, BackendDown
from sandbox.backends.embedding import check_embedder, embedder_of
from sandbox.config import Config, place_of_key
from sandbox.engine.changes import refuse_changes
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Layer
from sandbox.engine.limits import UNLIMITED, Budget, Stopped
from sandbox.engine.roles import check_models
from sandbox.engine.runner import Runner
from sandbox.engine.sessions import Changed, begin
from sandbox.engine.settings import differences, resumed
from sandbox.engine.society import extend_questions, write_society
from sandbox.engine.stopping import pareto_rule
from sandbox.engine.world_faults import WorldFault, checked, reported
from sandbox.interrupts import run_coroutine
from sandbox.progress import Progress
from sandbox.reading.policy import all_forms, policy_of
from sandbox.reading.runs import Outcome, outcome, worked
from sandbox.sources import Question, read_forms, read_pairs, read_personas, read_questions
from sandbox.sources.policies import read_policy
from storage import database, tables
from storage.copying import forked_from
from storage.database import Address
from storage.digest import VERSION as DIGEST_VERSION
from storage.digest import digest
from storage.errors import InputError, StorageFault
from storage.reader import Reader
from storage.rewinding import first_round_with
from storage.writer import Writer
from worlds.base import Pair, SettingError, World


class Blueprint(NamedTuple):
    """A config with all its inputs, read and checked; nothing is written yet.

    Attributes:
        config: the run's config.
        world: the world that it describes.
        agents: the society.
        policy: the rules that bind it.
        questions: as many as the run needs.
        inherited: the prior memories of each agent.
        forms: the prompt templates, by name.
        embedder: embeds the questions.
        per_round: number of episodes in a round.
        notes: a line about each input file: what was read from it, and what was not used.
    """

    config: Config
    world: World
    agents: list[Agent]
    policy: Policy
    questions: list[Question]
    inherited: list[list[Pair]]
    forms: dict[str, Form[Any]]
    embedder: Embedder
    per_round: int
    notes: list[str]


Watch = Callable[[Progress], None]
"""Called once with the progress of a run, when its backends are ready."""


def prepare(config: Config, place: str = "", settings: Sequence[str] = ()) -> Blueprint:
    """Read and check all inputs of a config.

    Args:
        config: the config of the new run.
        place: the file of the config, for error messages.
        settings: overrides as `load_config` takes them, for error messages.

    Raises:
        InputError: an input is missing or invalid.
    """

    def where(key: str) -> str:
        return place_of_key(key, place or config.name, settings)

    kind = config.world.kind
    notes: list[str] = []
    of_forms: list[str] = []
    try:
        world = config.build_world()
        if config.stop is not None:
            pareto_rule(config.stop, world)
    except SettingError as error:
        raise InputError(f"{where(error.key)}: {error.key}: {error}") from None
    with reported(kind, "its prompts"):
        forms = read_forms(config.forms, world.forms, of_forms)
    policy = _policy(config, of_forms)
    personas = read_personas(config.personas, notes)
    pairs = read_pairs(config.memory.prior, notes) if config.memory.prior else []
    count = config.memory.prior_pairs if config.memory.prior else 0
    with _refused("world", where):
        agents = _populate(world, kind, personas, policy)
    with _refused("memory", where), reported(kind, "inherit"):
        inherited = [list(world.inherit(agent, pairs, count)) for agent in agents]
    with _refused("world", where):
        per_round = _check_meetings(world, kind, agents)
    check_models(config, agents, where)
    check_embedder(config.memory.embedder, where("memory.embedder"))
    wanted = per_round * config.rounds
    limit = min(wanted, config.question_count or wanted)
    of_questions: list[str] = []
    questions = read_questions(config.questions, limit, of_questions)
    embedder = embedder_of(config.memory.embedder)
    return Blueprint(
        config,
        world,
        agents,
        policy,
        questions,
        inherited,
        {form.name: form for form in all_forms(forms.values(), policy)},
        embedder,
        per_round,
        [*world.notes, *of_questions, *notes, *of_forms],
    )


def _policy(config: Config, notes: list[str] | None = None) -> Policy:
    """Read the policy of a config."""
    given = config.policy
    return read_policy(given.file, given.checks, given.prompts, notes)


@contextmanager
def _refused(section: str, where: Callable[[str], str]) -> Iterator[None]:
    """Report an invalid setting of a section of the config."""
    try:
        yield
    except SettingError as error:
        key = f"{section}.{error.key}"
        raise InputError(f"{where(key)}: {key}: {error}") from None


def _populate(world: World, kind: str, personas: Sequence[Persona], policy: Policy) -> list[Agent]:
    """Make the agents."""
    with reported(kind, "populate"):
        agents = world.populate(personas)
        for agent in agents:
            agent.policy = policy
            _ = agent.introduction  # a label that no persona knows is found here
    return agents


def _check_meetings(world: World, kind: str, agents: Sequence[Agent]) -> int:
    """Check the meetings of the first round, and return how many a round has."""
    with reported(kind, "per_round"):
        per_round = world.per_round(agents)
    if per_round < 1:
        raise WorldFault(f"world {kind}: per_round: found {per_round}; expected at least 1")
    with reported(kind, "meet, round 0"):
        meetings = list(world.meet(agents, 0))
    checked(meetings, kind, 0, per_round, len(agents))
    return per_round


def create(
    blueprint: Blueprint, url: str | None = None, backends: Mapping[str, Backend] | None = None
) -> Address:
    """Write a new run to its database, in one transaction.

    Args:
        blueprint: the result of `prepare`.
        url: a database URL or a path; the default is ``runs/NAME.db``.
        backends: by role, in place of those that the config names; pass them to `resume` as well.

    Raises:
        InputError: the name is taken, or the database cannot be used.
    """
    name = blueprint.config.name
    target = database.parse_url(url or str(database.RUNS / f"{name}.db"))
    address = Address(target, name)
    with new_run(address) as engine:
        _write(engine, blueprint, backends or {})
    return address


@contextmanager
def new_run(address: Address) -> Iterator[Engine]:
    """Open a database for a new run; a new file is deleted if there is an error.

    Raises:
        InputError: the name is taken, or the database cannot be used.
    """
    url = address.url
    if database.exists(url):
        _refuse_taken(address)  # before the file is opened for writing
    try:
        with database.writing(url) as engine:
            _refuse_taken(address)
            yield engine
    except DBAPIError as error:
        line = database.one_line(error)
        raise InputError(f"{database.place_of(url)}: cannot be written: {line}") from None


def _refuse_taken(address: Address) -> None:
    if address.name in database.run_names(address.url):
        raise InputError(
            f"name: found {address}, which exists; expected a new name (--name), "
            f"or `resume {address.name}`"
        )


def _write(engine: Engine, blueprint: Blueprint, backends: Mapping[str, Backend]) -> None:
    config, embedder = blueprint.config, blueprint.embedder
    row = {
        "name": config.name,
        "status": "interrupted",
        "world": config.world.kind,
        "seed": config.seed,
        "rounds": config.rounds,
        "per_round": blueprint.per_round,
        "config": config.as_json(),
        "embedder": embedder.name,
        "threshold": config.memory.threshold or embedder.threshold,
        "code_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "digest_version": DIGEST_VERSION,
        "declaration": blueprint.world.declaration.model_dump_json(),
        "stances": json.dumps(dict(STANCE)),
        "inputs": json.dumps(blueprint.notes, ensure_ascii=False),
        "policy": blueprint.policy.model_dump_json(),
    }
    with engine.begin() as connection:
        result = connection.execute(insert(tables.runs).values(row).returning(tables.runs.c.id))
        run_id = result.scalar_one()
        _write_forms_and_models(connection, run_id, blueprint, backends)
        measures = measure_rows(run_id, blueprint.world.declaration)
        if measures:
            connection.execute(insert(tables.measures), measures)
        writer = Writer(engine, run_id)
        write_society(
            writer,
            connection,
            blueprint.agents,
            blueprint.questions,
            blueprint.inherited,
            embedder,
            blueprint.policy,
        )


def _write_forms_and_models(
    connection: Connection, run_id: int, blueprint: Blueprint, given: Mapping[str, Backend]
) -> None:
    forms = [
        {"run_id": run_id, "name": form.name, "system": form.system, "template": form.user}
        for form in blueprint.forms.values()
    ]
    connection.execute(insert(tables.forms), forms)
    roles = blueprint.config.models.roles()
    backends = backends_of(roles, given)
    models = [
        {
            "run_id": run_id,
            "role": role,
            "name": backends[role].model,
            "settings": settings.model_dump_json(),
        }
        for role, settings in roles
    ]
    connection.execute(insert(tables.models), models)


def measure_rows(run_id: int, declaration: Declaration) -> list[dict[str, Any]]:
    """The rows of the table `measures` of a run, without their ids."""
    return [
        {
            "run_id": run_id,
            "name": measure.name,
            "kind": measure.kind,
            "scale": measure.scale.name,
            "subject": measure.scale.subject,
            "stage": measure.stage,
            "base": measure.base,
            "sign": 1 if measure.scale.better == "high" else -1,
            "same_as": getattr(declaration.same_as(measure), "name", None),
        }
        for measure in declaration.measures
    ]


class Change(NamedTuple):
    """What to change in a stored run before it is played on.

    Attributes:
        settings: settings that do not change what is said, each ``a.b=value``; see
            `sandbox.engine.settings`.
        retry: statuses of calls to request again. The run is played again from the first round
            with such a call; all other calls are replayed where their prompts are the same.
    """

    settings: Sequence[str] = ()
    retry: Collection[str] = ()


NO_CHANGE = Change()


class Interrupted(KeyboardInterrupt):
    """The run was interrupted at once, without waiting for calls in flight; it can be resumed.

    Attributes:
        outcome: the outcome of the run.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.run}: interrupted; `resume` continues it")
        self.outcome = outcome


def resume(
    address: Address,
    watch: Watch | None = None,
    *,
    change: Change = NO_CHANGE,
    rounds: int | None = None,
    budget: Budget = UNLIMITED,
    accept_changes: bool = False,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
    allow: Collection[Path] = (),
) -> Outcome:
    """Play a run until it is done or has to stop; a run that is done stays as it is.

    Args:
        address: the run.
        watch: called once with the run's progress, when its backends are ready.
        change: what to change before the run is played on.
        rounds: raise the total number of rounds to this.
        budget: limits of this session.
        accept_changes: continue although something has changed since the run was started.
        backends: by role, in place of those that the config names.
        layers: additional layers around calls, outermost first; see `sandbox.engine.layers`.
        allow: files with Python code that the run's config names and that may be loaded.

    Returns:
        The outcome; its status says whether the run is done.

    Raises:
        InputError: there is no such run, another process is writing it, it has changed, it needs
            a file that is not allowed, or a setting changes what is said.
        Interrupted: a second signal stopped the run at once.
    """
    session = _Session(watch, budget, accept_changes, backends or {}, layers, allow, change)
    names = database.run_names(address.url)  # before the file is opened for writing
    place = database.place_of(address.url)
    if not names:
        raise InputError(f"{place}: found an empty database; expected one with runs")
    if address.name is not None and address.name not in names:
        raise InputError(f"{place}: no run {address.name}; found {', '.join(names)}")
    try:
        with database.writing(address.url) as engine:
            return _resume(engine, address, rounds, session)
    except DBAPIError as error:
        raise InputError(f"{place}: cannot be used: {database.one_line(error)}") from None


class _Session(NamedTuple):
    """The arguments of `resume` that describe a session."""

    watch: Watch | None
    budget: Budget
    accept_changes: bool
    backends: Mapping[str, Backend]
    layers: Sequence[Layer]
    allow: Collection[Path]
    change: Change


def _resume(engine: Engine, address: Address, rounds: int | None, session: _Session) -> Outcome:
    name = Reader.find(engine, address.name, str(address)).run.name
    with database.claim(engine, name):
        reader = Reader.find(engine, name, str(address))
        before = Config.from_json(reader.run.config, session.allow)
        new = resumed(before, session.change.settings, session.allow)
        extended = rounds is not None and rounds != reader.run.rounds
        again = first_round_with(reader, session.change.retry, _forked_at(reader))
        if reader.run.status == "done" and not extended and again is None:
            return outcome(reader, address)
        new.refuse_unloaded(session.backends)
        refuse_unnamed_checks(reader, session.allow)
        if rounds is not None and extended:
            new = new.model_copy(update={"rounds": rounds})
            _extend(reader, new, before)
            reader = Reader.find(engine, name, str(address))
        changed = Changed(new, differences(before, new), again, session.change.retry)
        return _run_session(reader, address, session, changed)


def refuse_unnamed_checks(reader: Reader, allow: Collection[Path]) -> None:
    """Check that the Python files of a run's policy may be loaded: a database alone names none.

    Raises:
        InputError: one is not among those that the caller allows.
    """
    policy, allowed = policy_of(reader), {path.expanduser().resolve() for path in allow}
    for file in () if policy is None else files_of(policy):
        if file not in allowed:
            raise InputError(unnamed_file(reader.run.name, "check", str(file)))


def _forked_at(reader: Reader) -> int:
    """The last round that was copied from another run, which is never played again; else -1."""
    origin = forked_from(reader)
    return -1 if origin is None else int(origin["round"])


def _extend(reader: Reader, new: Config, before: Config) -> None:
    """Raise the number of rounds; the result is the same as with that number from the start."""
    run = reader.run
    if new.rounds < run.rounds:
        raise InputError(f"--rounds: found {new.rounds}; expected at least the run's {run.rounds}")
    extend_questions(reader, new)
    config = before.model_copy(update={"rounds": new.rounds})
    _update(reader, rounds=new.rounds, config=config.as_json(), status="interrupted", digest=None)


def _run_session(reader: Reader, address: Address, session: _Session, changed: Changed) -> Outcome:
    """Play a run until it is done or has to stop, and store the outcome."""
    config = changed.config
    backends = backends_of(config.models.roles(), session.backends)
    if not session.accept_changes:
        refuse_changes(reader, config, backends)
    row = begin(reader, changed)
    reader = Reader.find(reader.engine, reader.run.name, str(address))
    runner = _runner(reader, config, backends, session)
    values: Mapping[str, Any] = {"status": "interrupted", "message": "stopped before its end"}
    try:
        values = _played(reader, runner, session.watch)
    except WorldFault as fault:
        values = {"status": "failed", "message": str(fault)}
        raise
    finally:
        with suppress(DBAPIError, StorageFault):
            row.end(reader, {**values, "seconds": runner.clock.seconds()})
    now = Reader.find(reader.engine, reader.run.name, str(address))
    result = outcome(now, address, runner.progress.counts.replayed)
    result = replace(result, status=values["status"], message=values["message"])
    if values == _AT_ONCE:
        raise Interrupted(result)
    return result


_AT_ONCE = {"status": "interrupted", "message": "interrupted at once"}


def _played(reader: Reader, runner: Runner, watch: Watch | None) -> Mapping[str, Any]:
    """Play a run; return columns of the run that say how it ended."""
    try:
        run_coroutine(play(runner, watch), runner.interrupt)
        return {
            "status": "done",
            "message": runner.ended_early,
            "digest": digest(reader),
            "digest_version": DIGEST_VERSION,
        }
    except Stopped as stopped:
        return {"status": "interrupted", "message": str(stopped)}
    except KeyboardInterrupt:
        with suppress(DBAPIError, StorageFault):
            runner.close()
        return _AT_ONCE
    except BackendDown as error:
        return {"status": "failed", "message": str(error)}


def _runner(
    reader: Reader, config: Config, backends: Mapping[str, Backend], session: _Session
) -> Runner:
    """Make the runner of a session from the stored state of the run."""
    writer = Writer(reader.engine, reader.run.id)
    writer.open()
    again = reader.run.asked_again
    accept = session.accept_changes or again is not None
    return Runner.load(
        reader,
        writer,
        backends,
        Journal(reader, accept_changes=accept, asked_again=again),
        budget=session.budget,
        before=worked(reader),
        layers=session.layers,
        config=config,
    )


def _update(reader: Reader, **values: Any) -> None:
    with reader.engine.begin() as connection:
        r = tables.runs
        connection.execute(update(r).where(r.c.id == reader.run.id).values(**values))


async def play(runner: Runner, watch: Watch | None) -> None:
    """Start the backends, play the run until it is complete or has to stop, close the backends.

    Args:
        runner: the run.
        watch: called once with the run's progress, when the backends are ready.

    Raises:
        Stopped: the budget is spent, or the run was stopped.
    """
    runner.check()
    async with started(runner.backends.values()):
        if watch is not None:
            watch(runner.progress)
        try:
            await runner.work()
        finally:
            await runner.flush()
            runner.progress.finished = time.monotonic()
