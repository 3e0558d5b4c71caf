"""The verbs that look at runs in a terminal: `status` and `inspect`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.options import AsJson, Run, show
from storage.errors import InputError, StorageFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from sandbox.datasets.ids import Origin
    from sandbox.reading.runs import RunState, Unreadable
    from sandbox.reading.sessions import Session
    from storage.database import Address
    from storage.reader import Reader


class Subject(StrEnum):
    """What `inspect` can show."""

    AGENTS = "agents"
    AGENT = "agent"
    MEMORY = "memory"
    EPISODE = "episode"
    CALLS = "calls"
    CALL = "call"
    SESSIONS = "sessions"
    POLICY = "policy"


_NUMBERED = (Subject.AGENT, Subject.MEMORY, Subject.EPISODE, Subject.CALL)


def status(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="or the STUDY.yaml of a sweep; default: all runs under runs/"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress, speed and failures of runs."""
    from sandbox.reading.runs import states
    from sandbox.sweep.plan import is_study
    from storage import database

    history: dict[str, list[Session]] = {}
    rows: list[RunState | Unreadable]
    of_study = run is not None and is_study(run)
    if run is not None and of_study:
        rows = _states_of_study(Path(run))
    elif run is not None:
        address = database.parse_run(run)
        all_runs = states(address.url)
        matches = [state for state in all_runs if address.name in (None, state.run)]
        if not matches:
            found = ", ".join(state.run for state in all_runs) or "an empty database, without runs"
            raise InputError(f"{run}: no such run; found {found}")
        rows = [*matches]
        history = {state.run: _history(address._replace(name=state.run)) for state in matches}
    else:
        rows = [row for file in sorted(database.RUNS.glob("*.db")) for row in _states_of(file)]
    data = [
        row.as_dict() | _as_dicts(history[row.run]) if row.run in history else row.as_dict()
        for row in rows
    ]
    show(as_json, {"runs": data}, lambda: _status_table(rows, history, of_study))


def _states_of_study(source: Path) -> list[RunState | Unreadable]:
    from sandbox.reading.runs import Unreadable, state
    from sandbox.sweep.plan import NOT_CREATED, addresses_of
    from storage.database import place_of

    return [
        state(address)
        if created
        else Unreadable(
            run=str(address.name), db=place_of(address.url), status=NOT_CREATED, message=None
        )
        for address, created in addresses_of(source).items()
    ]


def _history(address: Address) -> list[Session]:
    from sandbox.reading.runs import open_run
    from sandbox.reading.sessions import sessions

    with open_run(address) as reader:
        return sessions(reader, address)


def _as_dicts(history: Sequence[Session]) -> dict[str, Any]:
    return {"sessions": [session.as_dict() for session in history]}


def _states_of(file: Path) -> Sequence[RunState | Unreadable]:
    """The runs in a file, or one row for an unreadable file."""
    from sqlalchemy.exc import DBAPIError

    from sandbox.reading.runs import Unreadable, states
    from storage import database

    try:
        return states(database.parse_url(str(file))) or [
            Unreadable(run=file.stem, db=str(file), message="an empty database, without runs")
        ]
    except (InputError, StorageFault, DBAPIError) as error:
        return [Unreadable(run=file.stem, db=str(file), message=database.one_line(error))]


def _status_table(
    rows: Sequence[RunState | Unreadable], history: Mapping[str, Sequence[Session]], study: bool
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sandbox.terminal.runs import session_table, status_table
    from sandbox.terminal.style import plain
    from sandbox.text import command
    from storage.database import RUNS, Address, parse_url

    if not rows:
        return plain(f"no runs under {RUNS}/; start one with: {command('run')}")
    names = [
        row.run if study else Address(parse_url(row.db), row.run).typed.strip("'") for row in rows
    ]
    states = status_table(list(zip(names, rows, strict=True)))
    only = next(iter(history.values())) if len(history) == 1 else []
    return Group(states, Text(), session_table(only)) if only else states


def inspect(
    run: Run,
    subject: Annotated[Subject | None, typer.Argument(help="what to show")] = None,
    number: Annotated[
        int | None,
        typer.Argument(metavar="[ID]", min=0, max=2**40, help="number of the subject"),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="only items that contain TEXT")
    ] = None,
    round: Annotated[
        int | None,
        typer.Option(metavar="N", help="only round N; memory: as of the end of round N"),
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="calls: only those that failed")
    ] = False,
    call_status: Annotated[
        str | None,
        typer.Option("--status", metavar="S", help="calls: only with this status, such as lenient"),
    ] = None,
    all_calls: Annotated[
        bool, typer.Option("--calls", help="episode: list the calls also of a scene")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="list at most N items; default: 100")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="group trends by this property of authors: label (default), model, community, "
            "age, ...",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a society: `agents`, `agent ID`, `memory ID`, `episode ID`, `calls`, `call ID`, ...

    `sessions` lists when the run was started and resumed, and what changed. `policy` shows the
    rules, what broke them and how many red-team requests were obeyed; `policy ID` what binds the
    answers to an agent.

    RUN can also be the id of an exported row, to show the exchange that the row comes from.
    """
    from sandbox.reading.runs import open_run

    row = _origin(run) if subject is None else None
    if row is not None:
        run, subject, number = row.run, Subject.EPISODE, row.episode
    if subject is not Subject.POLICY and (subject in _NUMBERED) != (number is not None):
        expected = "its number" if subject in _NUMBERED else "no number"
        raise InputError(f"inspect {subject or ''}: expected {expected}")
    given = {
        "search": search,
        "round": round,
        "failures": failures or None,
        "status": call_status,
        "calls": all_calls or None,
        "limit": limit,
        "split": split,
    }
    _refuse_idle_options(subject, [name for name, value in given.items() if value is not None])
    limit = limit or _LIMIT
    if subject is Subject.SESSIONS:
        _show_sessions(run, as_json)
        return
    with open_run(run) as reader:
        if row is not None:
            _warn_if_changed(reader, row)
        if subject is Subject.POLICY:
            data, picture = _policy(reader, number)
        elif subject is None:
            data, picture = _society(reader, search, round, limit, split)
        elif number is not None:
            data, picture = _item(reader, subject, number, search, round, all_calls)
        else:
            data, picture = _items(reader, subject, search, round, failures, limit, call_status)
        show(as_json, data, lambda: picture)


def _show_sessions(run: str, as_json: bool) -> None:
    from rich.console import Group

    from sandbox.reading.runs import open_run
    from sandbox.reading.sessions import environments, sessions
    from sandbox.terminal.runs import environment_table, session_table
    from storage.database import parse_run

    address = parse_run(run)
    with open_run(address) as reader:
        history, played_with = sessions(reader, address), environments(reader)
    show(
        as_json,
        _as_dicts(history),
        lambda: Group(session_table(history), *map(environment_table, played_with)),
    )


_LIMIT = 100
"""Number of items that a list shows unless --limit says otherwise."""

_OPTIONS: dict[Subject | None, tuple[str, ...]] = {
    None: ("search", "round", "limit", "split"),
    Subject.AGENTS: ("search", "limit"),
    Subject.MEMORY: ("search", "round"),
    Subject.EPISODE: ("calls",),
    Subject.CALLS: ("search", "round", "failures", "status", "limit"),
}
"""The options that each view takes."""


def _refuse_idle_options(subject: Subject | None, given: Sequence[str]) -> None:
    """Check that every option that is given has an effect on what is shown."""
    taken = _OPTIONS.get(subject, ())
    idle = next((name for name in given if name not in taken), None)
    where = "inspect RUN" if subject is None else f"inspect RUN {subject}"
    if idle is not None:
        views = [view for view, options in _OPTIONS.items() if idle in options]
        elsewhere = ", ".join(f"`inspect RUN {view}`".replace(" None", "") for view in views)
        known = " or ".join(f"--{name}" for name in taken) or "no option"
        raise InputError(f"{where}: found --{idle}, an option of {elsewhere}; expected {known}")
    if "split" in given and len(given) > 1:
        raise InputError(f"{where}: found --split and --{given[0]}; expected one of them")
    if subject is None and list(given) == ["limit"]:
        raise InputError(f"{where}: found --limit; expected it with --search or --round")
    if "failures" in given and "status" in given:
        raise InputError(f"{where}: found --failures and --status; expected one of them")


def _origin(run: str) -> Origin | None:
    """The exchange that a row's id names; None if the text is not such an id."""
    if "@" not in run or "/" not in run:
        return None
    from sandbox.datasets.ids import origin_of

    return origin_of(run)


def _warn_if_changed(reader: Reader, row: Origin) -> None:
    """Print a note if a run has changed since a row was exported."""
    from sandbox.datasets.ids import mark

    if not row.agrees(reader.run.digest):
        now = mark(reader.run.digest)
        print(
            f"note: the row is from {row.run}@{row.digest}, the run is now {now}", file=sys.stderr
        )


def _society(
    reader: Reader, search: str | None, round: int | None, limit: int, split: str | None
) -> tuple[Any, RenderableType]:
    """The whole run, or the exchanges that a search or a round selects."""
    from rich.console import Group
    from rich.text import Text

    from sandbox.reading.exchanges import found_exchanges
    from sandbox.reading.runs import society
    from sandbox.reading.splits import LABEL
    from sandbox.terminal.exchanges import found_table
    from sandbox.terminal.runs import form_table, society_view
    from sandbox.terminal.trends import trend_view

    if search is None and round is None:
        shown = society(reader, split or LABEL)
        parts = [society_view(shown), Text()]
        if any(found.window for found in shown.trends):
            parts += [trend_view(shown.trends), Text()]
        return shown.as_dict(), Group(*parts, form_table(shown.forms))
    matches = found_exchanges(reader, search, round, limit)
    return {"episodes": [match.as_dict() for match in matches]}, found_table(matches)


def _policy(reader: Reader, agent: int | None) -> tuple[Any, RenderableType]:
    """The policy of a run, or what binds the answers to one of its agents."""
    from sandbox.reading.bounds import measure
    from sandbox.reading.policy import bound_agent, required_policy, run_policy
    from sandbox.terminal.policy import bound_agent_view, run_policy_view

    policy = required_policy(reader)
    if agent is not None:
        bound = bound_agent(reader, agent)
        return bound.as_dict(), bound_agent_view(bound)
    shown, measured = run_policy(reader), measure(reader, policy)
    return {**shown.as_dict(), **measured.as_dict()}, run_policy_view(shown, measured)


def _item(
    reader: Reader,
    subject: Subject,
    number: int,
    search: str | None,
    round: int | None,
    all_calls: bool,
) -> tuple[Any, RenderableType]:
    from sandbox.reading.agents import agent
    from sandbox.reading.calls import call
    from sandbox.reading.declaration import declaration_of
    from sandbox.reading.exchange_detail import read_exchange
    from sandbox.reading.memory import memory
    from sandbox.terminal.agents import agent_view, memory_view
    from sandbox.terminal.calls import call_view
    from sandbox.terminal.exchanges import exchange_view

    match subject:
        case Subject.AGENT:
            one_agent = agent(reader, number)
            return one_agent.as_dict(), agent_view(one_agent, declaration_of(reader))
        case Subject.MEMORY:
            agent_memory = memory(reader, number, round, search)
            return agent_memory.as_dict(), memory_view(agent_memory, declaration_of(reader))
        case Subject.EPISODE:
            exchange = read_exchange(reader, number)
            return exchange.as_dict(), exchange_view(exchange, all_calls)
        case _:
            one_call = call(reader, number)
            return one_call.as_dict(), call_view(one_call)


def _items(
    reader: Reader,
    subject: Subject,
    search: str | None,
    round: int | None,
    failures: bool,
    limit: int,
    status: str | None,
) -> tuple[Any, RenderableType]:
    from sandbox.reading.agents import agents
    from sandbox.reading.calls import STATUSES, calls
    from sandbox.reading.declaration import declaration_of
    from sandbox.terminal.agents import agent_table
    from sandbox.terminal.calls import call_table

    if subject is Subject.AGENTS:
        agent_rows = agents(reader, search)[:limit]
        data = {"agents": [row.as_dict() for row in agent_rows]}
        return data, agent_table(agent_rows, declaration_of(reader))
    if status is not None and status not in STATUSES:
        raise InputError(f"--status: found {status!r}; expected one of {', '.join(STATUSES)}")
    call_rows = calls(reader, search, round, failures, limit, status)
    return {"calls": [row.as_dict() for row in call_rows]}, call_table(call_rows, search)
