"""A run from start to end: make it, work on it, resume it, verify it."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from agents.agent import Agent
from agents.embedding import Embedder
from agents.forms import Form
from sandbox import __version__
from sandbox.backends import backends_of, started
from sandbox.backends.base import Backend, BackendDown, Call, Reply
from sandbox.backends.embedding import check_embedder, embedder_of
from sandbox.concurrency import run_coroutine
from sandbox.config import Config, place_of
from sandbox.engine.changes import refuse_changes
from sandbox.engine.journal import Journal
from sandbox.engine.layers import Layer
from sandbox.engine.limits import UNLIMITED, Budget, Stopped
from sandbox.engine.roles import check_models
from sandbox.engine.runner import Progress, Runner
from sandbox.engine.society import extend_questions, write_society
from sandbox.reading.metrics import FormCalls, calls_by_form, scores_by_round
from sandbox.sources import Question, read_forms, read_pairs, read_personas, read_questions
from storage import database, tables
from storage.copying import copy_start
from storage.database import Address
from storage.digest import digest
from storage.errors import InputError
from storage.reader import Reader
from storage.writer import Writer
from worlds.base import Pair, SettingError, World, world_of


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


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    `calls` and what follows count the whole journal, `forms` by form; `calls_replayed` counts this
    sitting.
    """

    run: str
    db: str
    status: str
    agents: int
    rounds: int
    episodes: int
    episodes_failed: int
    calls: int
    calls_replayed: int
    calls_failed: int
    unparsed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    forms: list[FormCalls]
    digest: str | None
    seconds: float
    message: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


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

    world = world_of(config.world.kind)(config.world, config.seed)
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
    }
    with engine.begin() as connection:
        made = connection.execute(insert(tables.runs).values(row).returning(tables.runs.c.id))
        run_id = made.scalar_one()
        _write_forms_and_models(connection, run_id, blueprint, backends)
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


class NoModel:
    """Stands in for a model where every call must be in the journal."""

    model = "none"

    async def start(self) -> None:
        """Nothing to start."""

    async def answer(self, call: Call) -> Reply:
        """Refuse: this call should have been replayed."""
        raise InputError(f"call {call.name}: the journal does not hold it; expected a finished run")

    async def close(self) -> None:
        """Nothing to close."""


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


class Verdict(NamedTuple):
    """What `verify` found: the run's outcome, and digests that should all be the run's.

    `of_tables` is made from the tables as they are now, `of_replay` from a replay of the journal.
    """

    outcome: Outcome
    of_tables: str
    of_replay: str

    @property
    def agrees(self) -> bool:
        """Whether the run is what it was when it ended, and follows from its journal."""
        return self.outcome.digest == self.of_tables == self.of_replay


def verify(
    address: Address, watch: Watch | None = None, *, allow: Collection[Path] = ()
) -> Verdict:
    """Replay a finished run from its journal, with no model, in a database of its own.

    Args:
        address: where the run lives.
        watch: gets the progress once, before the work begins.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: the run is not finished, a call of the replay is not in the journal, or the run
            needs a file that is not allowed.
    """
    with ExitStack() as stack:
        original = database.open_for_reading(address.url)
        stack.callback(original.dispose)
        source = Reader.find(original, address.name, str(address))
        name = source.run.name
        if source.run.status != "done":
            raise InputError(f"{address}: not finished; expected `resume` first")
        config = Config.from_json(source.run.config, allow)
        config.refuse_unloaded()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-verify-"))
        url = database.parse_url(str(Path(folder) / "replay.db"))
        engine = stack.enter_context(database.writing(url))
        copy_start(source, engine)
        reader = Reader.find(engine, name, str(address))
        writer = Writer(engine, reader.run.id)
        writer.open()
        nobody = dict.fromkeys(dict(config.models.roles()), NoModel())
        runner = Runner(reader, writer, nobody, Journal(source, copy=True), config=config)
        run_coroutine(_work(runner, watch))
        replayed = runner.progress.counts.replayed
        return Verdict(outcome(source, address, replayed), digest(source), digest(reader))


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
        run_coroutine(_work(runner, sitting.watch))
        values = {"status": "done", "message": runner.ended_early, "digest": digest(reader)}
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


async def _work(runner: Runner, watch: Watch | None) -> None:
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


def outcome(reader: Reader, address: Address, replayed: int = 0) -> Outcome:
    """The figures of a run, counted in its database."""
    run, forms, rounds = reader.run, calls_by_form(reader), scores_by_round(reader)
    return Outcome(
        run=run.name,
        db=database.place_of(address.url),
        status=run.status,
        agents=int(reader.scalar(select(func.count()).where(tables.agents.c.run_id == run.id))),
        rounds=run.rounds,
        episodes=sum(one.episodes for one in rounds),
        episodes_failed=sum(one.failed for one in rounds),
        calls=sum(one.calls for one in forms),
        calls_replayed=replayed,
        calls_failed=sum(one.failed for one in forms),
        unparsed=sum(one.unparsed for one in forms),
        tokens_in=sum(one.tokens_in for one in forms),
        tokens_out=sum(one.tokens_out for one in forms),
        tokens_cached=sum(one.tokens_cached or 0 for one in forms),
        forms=forms,
        digest=run.digest,
        seconds=round(worked(reader), 3),
        message=run.message,
    )


def states(url: URL) -> list[dict[str, Any]]:
    """All runs of a database: their figures, and how many episodes they are to have.

    Raises:
        InputError: the database cannot be read.
    """
    engine = database.open_for_reading(url)
    try:
        return [_state(engine, url, name) for name in database.run_names(url)]
    finally:
        engine.dispose()


def _state(engine: Engine, url: URL, name: str) -> dict[str, Any]:
    address = Address(url, name)
    reader = Reader.find(engine, name, str(address))
    found = outcome(reader, address).as_dict() | {"status": status_now(reader, url)}
    return found | {"episodes_total": reader.run.rounds * reader.run.per_round}


def worked(reader: Reader) -> float:
    """Seconds at work over all sittings, also of one that goes on or was killed."""
    c = tables.calls
    query = select(c.c.started + c.c.took).where(reader.mine(c.c.id))
    last = reader.scalar(query.order_by(c.c.id.desc()).limit(1))
    return max(float(reader.run.seconds), int(last or 0) / 1000)


def status_now(reader: Reader, url: URL) -> str:
    """A run's status; one that says it is running while nobody writes its file was killed."""
    status = str(reader.run.status)
    alone = database.is_file(url) and not database.is_being_written(url)
    return "killed" if status == "running" and alone else status
