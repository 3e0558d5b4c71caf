"""The command line: the verbs, and what they print.

Exit status: 0 done; 1 the run ended with failures that it reports; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from sandbox import __version__
from sandbox.api import open_run
from sandbox.cli.export import export
from sandbox.cli.options import AsJson, Backends, out
from sandbox.cli.report import report
from sandbox.cli.view import view
from sandbox.config import QUICKSTART, Config, load_config
from sandbox.datasets.ids import Origin, mark, origin_of
from sandbox.doctor import examine
from sandbox.engine.limits import Budget, Stopped
from sandbox.engine.run import Interrupted, Outcome, create, prepare, states
from sandbox.engine.run import resume as resume_run
from sandbox.engine.run import verify as verify_run
from sandbox.reading import views
from sandbox.study.compare import compare as compare_runs
from sandbox.study.estimate import estimate as estimate_run
from sandbox.study.estimate import given_rates
from sandbox.study.fork import fork as fork_run
from sandbox.terminal import render
from sandbox.terminal.live import Display, duration
from sandbox.terminal.scene import plain, printable
from storage import database
from storage.database import Address, parse_run
from storage.errors import InputError
from storage.reader import Reader

app = typer.Typer(
    name="run_sim.py",
    help="Societies of language-model agents that answer, rate each other and revise.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="a name under runs/, a database, a URL#name")
]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="stop after so many calls")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="stop after so many tokens")]
MaxHours = Annotated[float | None, typer.Option(min=0, help="stop after so many hours")]


class Subject(StrEnum):
    """What `inspect` can show."""

    AGENTS = "agents"
    AGENT = "agent"
    MEMORY = "memory"
    EPISODE = "episode"
    CALLS = "calls"
    CALL = "call"


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="a YAML config; default: quickstart")
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the run")] = None,
    db: Annotated[
        str | None, typer.Option(metavar="URL", help="database; default runs/NAME.db")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override a key")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="number of rounds")] = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    as_json: AsJson = False,
) -> None:
    """Run a config (default: the quickstart, with scripted replies)."""
    loaded = load_config(config or QUICKSTART, set_ or [], name=name, rounds=rounds)
    budget = Budget(max_calls, max_tokens, max_hours)
    blueprint = prepare(loaded, str(config or QUICKSTART), set_ or [])
    _work(create(blueprint, db), as_json, budget=budget, allow=loaded.files())


@app.command()
def resume(
    run: Run,
    rounds: Annotated[int | None, typer.Option(help="so many rounds in all, from now on")] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="go on although something has changed")
    ] = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    backend: Backends = None,
    as_json: AsJson = False,
) -> None:
    """Go on where a run stopped."""
    budget = Budget(max_calls, max_tokens, max_hours)
    address = parse_run(run)
    _work(
        address,
        as_json,
        rounds=rounds,
        budget=budget,
        accept_changes=accept_changes,
        allow=backend or [],
    )


def _work(address: Address, as_json: bool, **options: Any) -> None:
    with Display() as display:
        outcome = resume_run(address, display.watch, **options)
    with open_run(str(address)) as reader:
        data = outcome.as_dict()
        out(as_json, data, lambda: _summary(reader, outcome))
    if outcome.calls_failed:
        print(_failures(address, outcome), file=sys.stderr)
    if outcome.status == "done" and outcome.calls_failed == outcome.calls > 0:
        raise typer.Exit(1)
    if outcome.status == "done" and not display.shown:
        print("done already: nothing is left to do", file=sys.stderr)
    if outcome.status != "done":
        stopped = f"{outcome.status}: {outcome.message}".removeprefix("interrupted: ")
        print(f"{stopped}; go on with: {_resume(address, options['allow'])}", file=sys.stderr)
        raise typer.Exit(130 if outcome.status == "interrupted" else 1)


def _failures(address: Address, outcome: Outcome) -> str:
    """How many calls got no reply, what the last of them was told, and how to see the others."""
    with open_run(str(address)) as reader:
        error = printable(views.last_error(reader))
    failed = f"{outcome.calls_failed:,} of {outcome.calls:,} calls got no reply"
    look = f"python run_sim.py inspect {address.typed} calls --failures"
    return f"{failed}, the last one: {error}; all of them: {look}"


def _resume(address: Address, files: Sequence[Path]) -> str:
    named = "".join(f" --backend {shlex.quote(str(file))}" for file in files)
    return f"python run_sim.py resume {address.typed}{named}"


def _summary(reader: Reader, outcome: Outcome) -> RenderableType:
    made = render.table("", "")
    made.show_header = False
    missing = f"{outcome.calls_failed:,} failed, {outcome.unparsed:,} unparsed"
    words = {
        "agents": f"{outcome.agents:,}",
        "episodes": f"{outcome.episodes:,} ({outcome.episodes_failed:,} failed)",
        "calls": f"{outcome.calls:,} ({missing}, {outcome.calls_replayed:,} replayed)",
        "tokens": f"{outcome.tokens_in:,} in{_cached(outcome)}, {outcome.tokens_out:,} out",
        "time": duration(outcome.seconds),
        "database": outcome.db,
    }
    for key, value in words.items():
        made.add_row(key, plain(value))
    data = views.society(reader)
    return Group(render.society(data), Text(), made, *_next_steps(outcome, data))


def _cached(outcome: Outcome) -> str:
    """How much of the prompts the engine's prefix cache held, where it told."""
    share = outcome.tokens_cached / max(1, outcome.tokens_in)
    return f" ({share:.0%} from the prefix cache)" if outcome.tokens_cached else ""


def _next_steps(outcome: Outcome, data: dict[str, Any]) -> Iterator[RenderableType]:
    """What can be looked at, where there is something."""
    run = Address(database.parse_url(outcome.db), outcome.run).typed
    scored = any(row["revision_alignment"] is not None for row in data["rounds"])
    format = "sft" if scored else "exchanges"
    steps = (
        ("look into a head", f"inspect {run} memory 3", outcome.agents),
        ("read an exchange", f"inspect {run} episode 0", outcome.episodes),
        ("carry data away", f"export {run} --format {format} --out data/{outcome.run}", True),
    )
    if outcome.episodes:
        yield Text()
        for what, verb, there in steps:
            if there:
                line = f"{what:17} python run_sim.py {verb}"
                yield Text(line, no_wrap=True, overflow="ignore")


@app.command()
def status(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="default: all under runs/")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show runs, their progress, speed and failures; of one run also by form."""
    if run is not None:
        address = parse_run(run)
        rows = [row for row in states(address.url) if address.name in (None, row["run"])]
        if not rows:
            raise InputError(f"{run}: no such run; expected one of those that `status` lists")
    else:
        rows = [row for file in sorted(database.RUNS.glob("*.db")) for row in _states_of(file)]
    out(as_json, {"runs": rows}, lambda: _status_picture(rows))


def _states_of(file: Path) -> list[dict[str, Any]]:
    """One unreadable file does not hide the others."""
    try:
        return states(database.parse_url(str(file)))
    except (InputError, DBAPIError) as error:
        return [
            {
                "run": file.stem,
                "db": str(file),
                "status": "unreadable",
                "message": database.one_line(error),
            }
        ]


def _status_picture(rows: list[dict[str, Any]]) -> RenderableType:
    if not rows:
        return plain(f"no runs under {database.RUNS}/; start one with: python run_sim.py run")
    return render.status([(_run_of(row), row) for row in rows])


def _run_of(row: dict[str, Any]) -> str:
    """RUN as it can be typed, of a row of `status`."""
    return Address(database.parse_url(row["db"]), row["run"]).typed.strip("'")


@app.command()
def inspect(
    run: Run,
    subject: Annotated[Subject | None, typer.Argument(help="what to look at")] = None,
    number: Annotated[
        int | None, typer.Argument(metavar="ID", min=0, max=2**40, help="its number")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="only what says this; of exchanges: all its words")
    ] = None,
    round: Annotated[int | None, typer.Option(help="of, or as of the end of, this round")] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="calls: only those gone wrong")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="lists: at most so many")] = 100,
    as_json: AsJson = False,
) -> None:
    """Look at a society: `agents`, `agent ID`, `memory ID`, `episode ID`, `calls`, `call ID`.

    In place of RUN the id of an exported row shows the exchange that it is from.
    """
    row = origin_of(run) if subject is None else None
    if row is not None:
        run, subject, number = row.run, Subject.EPISODE, row.episode
    one = subject in (Subject.AGENT, Subject.MEMORY, Subject.EPISODE, Subject.CALL)
    if one != (number is not None):
        raise InputError(
            f"inspect {subject or ''}: expected {'its number' if one else 'no number'}"
        )
    with open_run(run) as reader:
        _same(reader, row)
        data, picture = _look(reader, subject, number or 0, search, round, failures, limit)
        out(as_json, data, lambda: picture)


def _same(reader: Reader, row: Origin | None) -> None:
    """Say so where a run has changed since a row was exported."""
    if row is not None and not row.agrees(reader.run.digest):
        now = mark(reader.run.digest)
        print(
            f"note: the row is from {row.run}@{row.digest}, the run is now {now}", file=sys.stderr
        )


def _look(
    reader: Reader,
    subject: Subject | None,
    number: int,
    search: str | None,
    round: int | None,
    failures: bool,
    limit: int,
) -> tuple[Any, RenderableType]:
    match subject:
        case Subject.AGENTS:
            listed = views.agents(reader, search)
            return {"agents": listed}, render.agents(listed)
        case Subject.AGENT:
            data = views.agent(reader, number)
            return data, render.agent(data)
        case Subject.MEMORY:
            data = views.memory(reader, number, round, search)
            return data, render.memory(data)
        case Subject.EPISODE:
            data = views.episode(reader, number)
            return data, render.episode(data)
        case Subject.CALL:
            data = views.call(reader, number)
            return data, render.call(data)
        case Subject.CALLS:
            listed = views.calls(reader, search, round, failures, limit)
            return {"calls": listed}, render.call_table(listed)
    if search is None and round is None:
        data = views.society(reader)
        forms = render.forms(data["forms"])
        return data, Group(render.society(data), Text(), forms)
    listed = views.found_exchanges(reader, search, round, limit)
    return {"episodes": listed}, render.found(listed)


app.command()(export)
app.command()(view)
app.command()(report)


@app.command()
def fork(
    run: Run,
    at: Annotated[int, typer.Option(metavar="ROUND", help="the last round to keep, from 0")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change a key")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="name of the new run; default RUN-fork-at-ROUND")
    ] = None,
    db: Annotated[
        str | None, typer.Option(metavar="URL", help="database; default runs/NAME.db")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="so many rounds in all")] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="fork although something has changed")
    ] = False,
    backend: Backends = None,
    as_json: AsJson = False,
) -> None:
    """Go on from the state after a round of a run, as a new run, and change a rule."""
    address = fork_run(
        parse_run(run),
        at,
        set_ or [],
        name=name,
        db=db,
        rounds=rounds,
        accept_changes=accept_changes,
        allow=backend or [],
    )
    with open_run(str(address)) as reader:
        files = Config.from_json(reader.run.config).files()  # fork has checked them
    _work(address, as_json, accept_changes=accept_changes, allow=files)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="two runs or more")],
    as_json: AsJson = False,
) -> None:
    """Compare runs, grouped by config: means, and differences with confidence intervals."""
    data = compare_runs(runs)
    out(as_json, data, lambda: render.comparison(data))


@app.command()
def estimate(
    config: Annotated[
        Path | None, typer.Argument(help="a YAML config; default: quickstart")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override a key")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="number of rounds")] = None,
    episodes: Annotated[int, typer.Option(help="how many to play as a sample")] = 32,
    tokens_in_per_second: Annotated[
        float | None, typer.Option(help="how fast one GPU reads prompts")
    ] = None,
    tokens_out_per_second: Annotated[
        float | None, typer.Option(help="how fast one GPU writes replies")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="how many GPUs there are")] = None,
    as_json: AsJson = False,
) -> None:
    """Play a sample of a config's episodes, and tell what the whole run takes."""
    rates = given_rates(tokens_in_per_second, tokens_out_per_second, gpus)
    loaded = load_config(config or QUICKSTART, set_ or [], rounds=rounds)
    data = estimate_run(loaded, episodes, rates, gpus)
    out(as_json, data, lambda: render.estimated(data))


@app.command()
def verify(run: Run, backend: Backends = None, as_json: AsJson = False) -> None:
    """Replay the journal with no model, and compare digests."""
    address = parse_run(run)
    with Display() as display:
        verdict = verify_run(address, display.watch, allow=backend or [])
    outcome, agrees = verdict.outcome, verdict.agrees
    data = {
        **outcome.as_dict(),
        "agrees": agrees,
        "digest_of_tables": verdict.of_tables,
        "digest_of_replay": verdict.of_replay,
    }

    def picture() -> RenderableType:
        made = render.table("", "")
        made.show_header = False
        made.add_row("calls replayed", f"{outcome.calls_replayed:,}")
        made.add_row("digest of the run", str(outcome.digest))
        for what, digest in (("tables", verdict.of_tables), ("replay", verdict.of_replay)):
            style = "green" if digest == outcome.digest else "red"
            made.add_row(f"digest of the {what}", Text(digest, style=style))
        return Group(made, Text("agrees" if agrees else "DIFFERS", style="bold"))

    out(as_json, data, picture)
    if not agrees:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, what is missing, and what to type."""
    findings = examine(database.RUNS)

    def picture() -> RenderableType:
        made = render.table("", "", "")
        made.show_header = False
        for one in findings:
            missing = "missing" if one.needed else "not found"
            cells = (one.what, one.found or missing, "" if one.found else one.advice)
            made.add_row(*map(plain, cells))
        return made

    out(as_json, {"findings": [one._asdict() for one in findings]}, picture)
    if any(one.needed and one.found is None for one in findings):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the one place where errors become exit statuses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        _misused(error)
    except InputError as error:
        _fail(str(error), 2)
    except DBAPIError as error:
        _fail(f"the database cannot be used: {database.one_line(error)}", 2)
    except (Stopped, Interrupted, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        sys.exit(status)


_UsageError: Any = typer.BadParameter.__mro__[1]  # of the click that comes with typer


def _misused(error: Any) -> NoReturn:
    """One line for wrong options; without any word the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    verb = "" if error.ctx is None else f"{error.ctx.command_path.partition(' ')[2]}: "
    _fail(f"{verb}{' '.join(error.format_message().split())}", 2)


def _fail(message: str, status: int) -> NoReturn:
    """One line for people; with --json an object for scripts as well."""
    if "--json" in sys.argv:
        print(json.dumps({"error": message}))
    words = f"error: {message}" if status == 2 else message
    print(printable(words), file=sys.stderr)
    sys.exit(status)
