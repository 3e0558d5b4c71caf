"""A run from start to end: make it, work on it, resume it, verify it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, insert, update
from sqlalchemy.exc import DBAPIError

from agents.agent import Agent
from agents.embedding import Embedder
from agents.forms import Form
from agents.scale import Declaration
from sandbox import __version__
from sandbox.backends import backends_of, started
from sandbox.backends.base import Backend, BackendDown
from sandbox.backends.embedding import check_embedder, embedder_of
from sandbox.concurrency import run_coroutine
from sandbox.config import Config, place_of
from sandbox.engine.changes import refuse_changes
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Layer
from sandbox.engine.limits import UNLIMITED, Budget, Stopped
from sandbox.engine.roles import check_models
from sandbox.engine.runner import Runner
from sandbox.engine.society import extend_questions, write_society
from sandbox.engine.stopping import pareto_rule
from sandbox.progress import Progress
from sandbox.reading.runs import Outcome, outcome, worked
from sandbox.sources import Question, read_forms, read_pairs, read_personas, read_questions
from storage import database, tables
from storage.database import Address
from storage.digest import VERSION as DIGEST_VERSION
from storage.digest import digest
from storage.errors import InputError
from storage.reader import Reader
from storage.writer import Writer
from worlds.base import Pair, SettingError, World


class Blueprint(NamedTuple):
    """Everything that a run starts from, read and checked; nothing is written yet."""

    config: Config
    world: World
    agents: list[Agent]
    questions: list[Question]
    inherited: list[list[Pair]]
    forms: dict[str, Form[Any]]
    embedder: Embedder
    per_round: int


Watch = Callable[[Progress], None]


def prepare(config: Config, place: str = "", settings: Sequence[str] = ()) -> Blueprint:
    """Read and check everything that a config names.

    Args:
        config: what is asked for.
        place: where the config was read from, for errors.
        settings: what was set on top of it, as `load_config` takes it, for errors.

    Raises:
        InputError: something in it cannot work.
    """

    def where(key: str) -> str:
        return place_of(key, place or config.name, settings)

    try:
        world = config.build_world()
        _try_scales(config, world)
        if config.stop is not None:
            pareto_rule(config.stop, world)
    except SettingError as error:
        raise InputError(f"{where(error.key)}: {error.key}: {error}") from None
    forms = read_forms(config.forms, world.forms)
    personas = read_personas(config.personas)
    pairs = read_pairs(config.memory.prior) if config.memory.prior else []
    count = config.memory.prior_pairs if config.memory.prior else 0
    try:
        agents = world.populate(personas)
        inherited = [list(world.inherit(agent, pairs, count)) for agent in agents]
        per_round = world.per_round(agents)
    except SettingError as error:
        key = f"world.{error.key}"
        raise InputError(f"{where(key)}: {key}: {error}") from None
    check_models(config, agents, where)
    check_embedder(config.memory.embedder, where("memory.embedder"))
    wanted = per_round * config.rounds
    limit = min(wanted, config.question_count or wanted)
    questions = read_questions(config.questions, limit)
    embedder = embedder_of(config.memory.embedder)
    return Blueprint(config, world, agents, questions, inherited, forms, embedder, per_round)


def _try_scales(config: Config, world: World) -> None:
    """Render the prompts of the scales that the config adds: their questions are templates."""
    for form in world.forms:
        scale = form.name.removeprefix("observe_")
        if scale in config.scales and form.name != scale:
            try:
                form.try_out()
            except ValueError as error:
                raise SettingError(f"scales.{scale}.ask", str(error)) from None


def create(
    blueprint: Blueprint, url: str | None = None, backends: Mapping[str, Backend] | None = None
) -> Address:
    """Write a new run into its database, whole or not at all.

    Args:
        blueprint: what `prepare` returned.
        url: a database URL or a path; the default is ``runs/NAME.db``.
        backends: by role, those that `resume` will be given; the names of their models are stored.

    Raises:
        InputError: the name is taken there, or the database cannot be used.
    """
    name = blueprint.config.name
    place = database.parse_url(url or str(database.RUNS / f"{name}.db"))
    address = Address(place, name)
    with new_run(address) as engine:
        _write(engine, blueprint, backends or {})
    return address


@contextmanager
def new_run(address: Address) -> Iterator[Engine]:
    """Open a database to write a new run into it; a file that is made for it goes with an error.

    Raises:
        InputError: the name is taken there, or the database cannot be used.
    """
    url = address.url
    if not database.is_file(url) or Path(str(url.database)).exists():
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
            f"name: {address} exists; expected a new name (--name), or `resume {address.name}`"
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
    }
    with engine.begin() as connection:
        made = connection.execute(insert(tables.runs).values(row).returning(tables.runs.c.id))
        run_id = made.scalar_one()
        _write_forms_and_models(connection, run_id, blueprint, backends)
        _write_measures(connection, run_id, blueprint.world.declaration)
        writer = Writer(engine, run_id)
        write_society(
            writer,
            connection,
            blueprint.agents,
            blueprint.questions,
            blueprint.inherited,
            embedder,
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


def _write_measures(connection: Connection, run_id: int, declaration: Declaration) -> None:
    rows = [
        {
            "run_id": run_id,
            "name": one.name,
            "kind": one.kind,
            "scale": one.scale.name,
            "subject": one.scale.subject,
            "stage": one.stage,
            "base": one.base,
            "sign": 1 if one.scale.better == "high" else -1,
            "same_as": getattr(declaration.same_as(one), "name", None),
        }
        for one in declaration.measures
    ]
    if rows:
        connection.execute(insert(tables.measures), rows)


class Interrupted(Exception):
    """Somebody asked the run to stop at once; it can be resumed."""


def resume(
    address: Address,
    watch: Watch | None = None,
    *,
    rounds: int | None = None,
    budget: Budget = UNLIMITED,
    accept_changes: bool = False,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
    allow: Collection[Path] = (),
) -> Outcome:
    """Work on a run until it is done; on one that is done already, nothing happens.

    Args:
        address: where the run lives.
        watch: gets the run's progress once, before the work begins.
        rounds: so many rounds in all from now on; not fewer than before.
        budget: what this sitting may spend.
        accept_changes: go on although something has changed since the run was started.
        backends: by role, in place of those that the config names.
        layers: further layers that calls go through, the outermost first; see
            `sandbox.engine.layers`.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: there is no such run, another process writes it, it has changed, or it needs a
            file that is not allowed.
    """
    sitting = _Sitting(watch, budget, accept_changes, backends or {}, layers, allow)
    try:
        with database.writing(address.url) as engine:
            return _resume(engine, address, rounds, sitting)
    except DBAPIError as error:
        place = database.place_of(address.url)
        raise InputError(f"{place}: cannot be used: {database.one_line(error)}") from None


class _Sitting(NamedTuple):
    """What `resume` was given for one sitting."""

    watch: Watch | None
    budget: Budget
    accept_changes: bool
    backends: Mapping[str, Backend]
    layers: Sequence[Layer]
    allow: Collection[Path]


def _resume(engine: Engine, address: Address, rounds: int | None, sitting: _Sitting) -> Outcome:
    name = Reader.find(engine, address.name, str(address)).run.name
    with database.claim(engine, name):
        reader = Reader.find(engine, name, str(address))
        more = rounds is not None and rounds != reader.run.rounds
        if reader.run.status == "done" and not more:
            return outcome(reader, address)
        Config.from_json(reader.run.config, sitting.allow).refuse_unloaded(sitting.backends)
        if rounds is not None and more:
            _raise_rounds(reader, rounds)
            reader = Reader.find(engine, name, str(address))
        return _sit(reader, address, sitting)


def _raise_rounds(reader: Reader, rounds: int) -> None:
    """More rounds are simply more rounds: the run goes on as if it had been asked for them."""
    run = reader.run
    if rounds < run.rounds:
        raise InputError(f"--rounds: found {rounds}; expected at least the run's {run.rounds}")
    config = Config.from_json(run.config).model_copy(update={"rounds": rounds})
    extend_questions(reader, config)
    _update(reader, rounds=rounds, config=config.as_json(), status="interrupted", digest=None)


def _sit(reader: Reader, address: Address, sitting: _Sitting) -> Outcome:
    """One sitting at a run."""
    config = Config.from_json(reader.run.config, sitting.allow)
    backends = backends_of(config.models.roles(), sitting.backends)
    if not sitting.accept_changes:
        refuse_changes(reader, config, backends)
    writer = Writer(reader.engine, reader.run.id)
    writer.open()
    journal = Journal(reader, accept_changes=sitting.accept_changes)
    runner = Runner(
        reader,
        writer,
        backends,
        journal,
        sitting.budget,
        worked(reader),
        sitting.layers,
        config,
    )
    _update(reader, status="running", message=None)
    values: dict[str, Any] = {"status": "interrupted", "message": "stopped before its end"}
    try:
        run_coroutine(play(runner, sitting.watch))
        values = {
            "status": "done",
            "message": runner.ended_early,
            "digest": digest(reader),
            "digest_version": DIGEST_VERSION,
        }
    except Stopped as stopped:
        values["message"] = str(stopped)
    except (Interrupted, KeyboardInterrupt):
        values["message"] = "interrupted"
    except BackendDown as error:
        values = {"status": "failed", "message": str(error)}
    finally:
        with suppress(DBAPIError):
            _update(reader, seconds=runner.clock.seconds(), **values)
    now = Reader.find(reader.engine, reader.run.name, str(address))
    made = outcome(now, address, runner.progress.counts.replayed)
    return replace(made, status=values["status"], message=values["message"])


def _update(reader: Reader, **values: Any) -> None:
    with reader.engine.begin() as connection:
        r = tables.runs
        connection.execute(update(r).where(r.c.id == reader.run.id).values(**values))


async def play(runner: Runner, watch: Watch | None) -> None:
    """Start the backends, play the run until it is over or has to stop, and close the backends.

    Args:
        runner: the run.
        watch: called once with the run's progress, when the backends are ready.

    Raises:
        Interrupted: a second signal asked to stop at once.
    """
    async with started(runner.backends.values()):
        if watch is not None:
            watch(runner.progress)
        task = asyncio.current_task()
        assert task is not None
        with _stoppable(runner, task):
            try:
                await runner.work()
            except asyncio.CancelledError:
                raise Interrupted from None
            finally:
                await runner.flush()


@contextmanager
def _stoppable(runner: Runner, task: asyncio.Task[Any]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets calls under way come in, a second one stops at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop() -> None:
        if runner.progress.stopping:
            task.cancel()
        runner.stop("interrupted")

    for one in signals:
        loop.add_signal_handler(one, stop)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
