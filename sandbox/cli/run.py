"""The verbs that play a run: `run`, `resume`, and `verify`, which replays one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sandbox.cli.options import (
    AcceptChanges,
    AsJson,
    BackendFiles,
    CheckFiles,
    ConfigFile,
    Database,
    MaxCalls,
    MaxHours,
    MaxTokens,
    Name,
    RetryFailed,
    RetryUnparsed,
    Rounds,
    Run,
    Set,
    TotalRounds,
    Transport,
    WorldFile,
    plugin_files,
    show,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.engine.limits import Budget
    from sandbox.reading.runs import Outcome
    from sandbox.study.verify import Verdict
    from storage.database import Address
    from storage.reader import Reader


def run(
    config: ConfigFile = None,
    name: Name = None,
    db: Database = None,
    set_: Set = None,
    rounds: Rounds = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    as_json: AsJson = False,
) -> None:
    """Run a config; the default is the quickstart preset with scripted replies."""
    from sandbox import api
    from sandbox.config import QUICKSTART

    budget = api.Budget(max_calls, max_tokens, max_hours)
    address = api.create(config or QUICKSTART, name=name, db=db, rounds=rounds, settings=set_ or [])
    _tell_inputs(address)
    play(address, as_json, budget=budget, allow=api.plugin_files(address))


def resume(
    run: Run,
    set_: Transport = None,
    rounds: TotalRounds = None,
    retry_failed: RetryFailed = False,
    retry_unparsed: RetryUnparsed = False,
    accept_changes: AcceptChanges = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    backend: BackendFiles = None,
    world: WorldFile = None,
    check: CheckFiles = None,
    as_json: AsJson = False,
) -> None:
    """Resume a run that was stopped, extend it with --rounds, or repeat calls that failed."""
    from sandbox import api
    from storage.database import parse_run

    budget = api.Budget(max_calls, max_tokens, max_hours)
    play(
        parse_run(run),
        as_json,
        settings=set_ or (),
        rounds=rounds,
        retry_failed=retry_failed,
        retry_unparsed=retry_unparsed,
        budget=budget,
        accept_changes=accept_changes,
        allow=plugin_files(run, backend, world, checks=check),
    )


def verify(
    run: Run,
    backend: BackendFiles = None,
    world: WorldFile = None,
    check: CheckFiles = None,
    as_json: AsJson = False,
) -> None:
    """Replay a finished run from its journal, without a model, and compare digests."""
    from sandbox import api
    from sandbox.terminal.live import Display

    with Display() as display:
        files = plugin_files(run, backend, world, checks=check)
        verdict = api.verify(run, watch=display.watch, allow=files)
    data = {
        **verdict.outcome.as_dict(),
        "agrees": verdict.agrees,
        "digest_of_tables": verdict.of_tables,
        "digest_of_replay": verdict.of_replay,
        "differences": [difference._asdict() for difference in verdict.differences],
    }
    show(as_json, data, lambda: _verdict(verdict))
    if not verdict.agrees:
        raise typer.Exit(1)


def play(
    address: Address,
    as_json: bool,
    *,
    settings: Sequence[str] = (),
    rounds: int | None = None,
    retry_failed: bool = False,
    retry_unparsed: bool = False,
    budget: Budget | None = None,
    accept_changes: bool = False,
    allow: Sequence[Path] = (),
) -> None:
    """Play a run with a live display, print its outcome, and set the exit status.

    Args:
        address: the run.
        as_json: print the outcome as JSON.
        settings: config keys to set that do not change what is said.
        rounds: raise the total number of rounds to this.
        retry_failed: request calls without a reply again.
        retry_unparsed: request calls with an unparseable reply again.
        budget: limits on calls, tokens and hours; None: unlimited.
        accept_changes: resume although files or the program have changed since the run started.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        typer.Exit: the run did not finish, or no call got a reply, or all episodes failed.
    """
    from sandbox import api
    from sandbox.terminal.live import Display
    from sandbox.text import command, printable

    with Display(warn=as_json) as display:
        try:
            outcome = api.resume(
                address,
                settings=settings,
                rounds=rounds,
                retry_failed=retry_failed,
                retry_unparsed=retry_unparsed,
                budget=budget or api.UNLIMITED,
                accept_changes=accept_changes,
                watch=display.watch,
                allow=allow,
            )
        except api.Interrupted as interrupted:
            outcome = interrupted.outcome
    with api.open_run(address) as reader:
        show(as_json, outcome.as_dict(), lambda: _summary(reader, address, outcome))
        for line in _failing(outcome):
            print(printable(line), file=sys.stderr)
        if outcome.calls_failed:
            print(_failures(reader, address, outcome), file=sys.stderr)
    nothing = outcome.calls_failed == outcome.calls > 0
    if outcome.status == "done" and (nothing or outcome.episodes_failed == outcome.episodes > 0):
        raise typer.Exit(1)
    if outcome.status == "done" and not display.shown:
        retry = retry_failed or retry_unparsed
        left = "no call to request again" if retry else "nothing left to do"
        print(f"already done: there is {left}", file=sys.stderr)
    if outcome.status != "done":
        stopped = f"{outcome.status}: {outcome.message}".removeprefix("interrupted: ")
        failed = ("--retry-failed",) if outcome.calls_failed and outcome.status == "failed" else ()
        again = command("resume", address.typed, *failed, *_named(address))
        moved = _if_moved(address) if outcome.status == "failed" else ""
        print(f"{stopped}; resume with: {again}{moved}", file=sys.stderr)
        raise typer.Exit(130 if outcome.status == "interrupted" else 1)


def _failing(outcome: Outcome) -> Iterator[str]:
    """The warning about a run most of whose episodes failed; it comes first."""
    from sandbox.failing import is_failing

    if is_failing(outcome.episodes, outcome.episodes_failed):
        yield outcome.warnings[0]


def _tell_inputs(address: Address) -> None:
    """Print a line about each input file of a new run, on the standard error stream."""
    from sandbox.reading.runs import open_run, outcome
    from sandbox.text import printable

    with open_run(address) as reader:
        for line in outcome(reader, address).inputs:
            print(printable(line), file=sys.stderr)


def _if_moved(address: Address) -> str:
    """How to name another address of the models that a server has; empty without one."""
    from sandbox import api
    from sandbox.config import Config

    with api.open_run(address) as reader:
        keys = Config.from_json(reader.run.config).addresses()
    named = " ".join(f"--set {key}=URL" for key in keys)
    return f" (at another address: {named})" if named else ""


def _named(address: Address) -> Iterator[str]:
    """The options that name the files with Python code of a run."""
    from sandbox import api
    from sandbox.config import Config

    with api.open_run(address) as reader:
        config = Config.from_json(reader.run.config)
    for file in config.files():
        kind = "world" if str(file) == config.world.kind else "backend"
        yield f"--{kind} {shlex.quote(str(file))}"


def _failures(reader: Reader, address: Address, outcome: Outcome) -> str:
    """Summarize failed calls: their number, the last error, and how to list them."""
    from sandbox.reading.calls import last_error
    from sandbox.text import command, printable

    failed = f"{outcome.calls_failed:,} of {outcome.calls:,} calls got no reply"
    error = printable(last_error(reader))
    look = command("inspect", address.typed, "calls --failures")
    again = command("resume", address.typed, "--retry-failed")
    return (
        f"{failed}, the last one: {error}; list them with: {look}; request them again with: {again}"
    )


def _summary(reader: Reader, address: Address, outcome: Outcome) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sandbox.reading.runs import society
    from sandbox.terminal import style
    from sandbox.terminal.runs import society_view
    from sandbox.terminal.trends import trend_view
    from sandbox.text import duration

    table = style.table("", "")
    table.show_header = False
    missing = f"{outcome.calls_failed:,} failed, {outcome.unparsed:,} unparsed"
    missing += f", {outcome.lenient:,} read leniently" if outcome.lenient else ""
    missing += f", {outcome.shortened:,} shortened" if outcome.shortened else ""
    rows = {
        "agents": f"{outcome.agents:,}",
        "episodes": f"{outcome.episodes:,} ({outcome.episodes_failed:,} failed)",
        "calls": f"{outcome.calls:,} ({missing}, {outcome.calls_replayed:,} replayed)",
        "tokens": f"{outcome.tokens_in:,} in{_cached(outcome)}, {outcome.tokens_out:,} out",
        "time": duration(outcome.seconds),
        "inputs": "\n".join(outcome.inputs),
        "database": outcome.db,
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, style.plain(value))
    shown = society(reader)
    answers = shown.scored and bool(shown.declaration.answers)
    steps = _next_steps(address, outcome, answers)
    trend = [Text(), trend_view(shown.trends[:1])] if shown.trends[:1] else []
    return Group(society_view(shown), *trend, Text(), table, *steps)


def _cached(outcome: Outcome) -> str:
    """The prefix cache's hit rate, if the backend reported any hits."""
    share = outcome.tokens_cached / max(1, outcome.tokens_in)
    return f" ({share:.0%} from the prefix cache)" if outcome.tokens_cached else ""


def _next_steps(address: Address, outcome: Outcome, answers: bool) -> Iterator[RenderableType]:
    """Suggest commands to run next."""
    from rich.text import Text

    from sandbox.text import command

    if not outcome.episodes:
        return
    run = address.typed
    format = "sft" if answers else "exchanges"
    yield Text()
    steps = [
        ("open it in a browser", command("view", run)),
        ("write a report", command("report", run)),
        ("read an exchange", command("inspect", run, "episode 0")),
        ("export a dataset", command("export", run, f"--format {format} --out data/{outcome.run}")),
    ]
    if outcome.agents:
        steps.insert(2, ("read a memory", command("inspect", run, "memory 3")))
    for description, line in steps:
        yield Text(f"{description:21} {line}", no_wrap=True, overflow="ignore")


def _verdict(verdict: Verdict) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sandbox.terminal import style

    outcome = verdict.outcome
    table = style.table("", "")
    table.show_header = False
    table.add_row("calls replayed", f"{outcome.calls_replayed:,}")
    table.add_row("digest of the run", str(outcome.digest))
    for what, digest in (("tables", verdict.of_tables), ("replay", verdict.of_replay)):
        colour = "green" if digest == outcome.digest else "red"
        table.add_row(f"digest of the {what}", Text(digest, style=colour))
    lines = [style.plain(str(difference)) for difference in verdict.differences]
    return Group(table, *lines, Text("agrees" if verdict.agrees else "DIFFERS", style="bold"))
