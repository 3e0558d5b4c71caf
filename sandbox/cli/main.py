"""The command line: its verbs, and how errors become exit statuses.

Exit status: 0 done; 1 the run ended with failures that it reports; 2 bad input; 130 interrupted.

Each verb is a function in a module of this package. The modules import what they need inside the
functions, so that `--help` is fast and no verb loads the dependencies of another.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from agents.plugins import exception_line
from sandbox import __version__
from sandbox.cli.doctor import doctor
from sandbox.cli.evaluate import evaluate
from sandbox.cli.export import export
from sandbox.cli.generations import generations
from sandbox.cli.inspect import inspect, status
from sandbox.cli.messages import show_log
from sandbox.cli.policy import policy
from sandbox.cli.report import report
from sandbox.cli.run import resume, run, verify
from sandbox.cli.study import calibrate, compare, estimate, fork
from sandbox.cli.sweep import sweep
from sandbox.cli.train import train
from sandbox.cli.view import view
from sandbox.text import command, printable, short
from storage.errors import (
    DECODING_ERRORS,
    IncompleteWarning,
    InputError,
    StorageFault,
    damage,
)
from storage.secrets import hide_secrets

app = typer.Typer(
    help="Simulate societies of language-model agents that answer, rate each other and revise.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(run)
app.command()(resume)
app.command()(sweep)
app.command()(status)
app.command()(inspect)
app.command()(export)
app.command()(train)
app.command()(evaluate)
app.command()(generations)
app.command()(view)
app.command()(report)
app.command()(fork)
app.command()(compare)
app.command()(estimate)
app.command()(calibrate)
app.command()(verify)
app.command()(doctor)
app.add_typer(policy, name="policy")


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
    """Run the command line, and end the process even if a thread hangs."""
    try:
        _main()
    except SystemExit as end:
        if threading.active_count() > 1:
            from sandbox.interrupts import end_process

            end_process(end.code if isinstance(end.code, int) else 0)
        raise


def _main() -> None:
    """Run the command line; the only place where errors become exit statuses."""
    gc.set_threshold(_IMPORTED, 20, 20)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.showwarning = _note
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    show_log()
    try:
        _refuse_undecodable(sys.argv)
        status = app(prog_name=command(), standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except InputError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except _UsageError as error:
        _misused(error)
    except Exception as error:
        _explain(error)
    else:
        sys.exit(status)


_IMPORTED = 50_000
"""Objects before a garbage collection: imports make many, and no garbage."""

_show_warning = warnings.showwarning


_noted: set[str] = set()


def _note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning about a database as one line, once; any other as Python does."""
    if issubclass(category, IncompleteWarning):
        line = printable(f"note: {message}")
        if line not in _noted:
            _noted.add(line)
            print(line, file=sys.stderr)
    else:
        _show_warning(message, category, *place, **more)


_UsageError: Any = typer.BadParameter.__mro__[1]  # of the click that typer bundles


def _open_missing_streams() -> None:
    """Replace streams that the caller closed, so that no file takes the place of one."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _discard_output() -> None:
    """Write what is still to be printed nowhere, since nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _refuse_undecodable(arguments: list[str]) -> None:
    for number, argument in enumerate(arguments[1:], 1):
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            raise InputError(f"argument {number}: found bytes that are no text; expected UTF-8")


def _misused(error: Any) -> NoReturn:
    """Print one line for invalid arguments, or the help if there are none."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    verb = "" if error.ctx is None else error.ctx.command_path.removeprefix(command()).strip()
    message = error.format_message()
    _fail(f"{verb}: {message}" if verb else message, 2)


def _explain(error: Exception) -> NoReturn:
    """Exit for the errors of modules that are too slow to import unless something failed."""
    from sqlalchemy.exc import DBAPIError

    from sandbox.engine.limits import Stopped
    from sandbox.study.sample import NoSample
    from storage.database import last_opened, one_line

    if isinstance(error, StorageFault | NoSample):
        _fail(str(error), 1)
    if isinstance(error, DBAPIError):
        _fail(f"the database cannot be used: {one_line(error)}", 2)
    if isinstance(error, Stopped):
        _fail("interrupted", 130)
    if isinstance(error, DECODING_ERRORS) and (place := last_opened()) is not None:
        _fail(str(damage(error, place)), 1)
    if isinstance(error, OSError):
        _fail(_of_system(error), 1)
    if sys.flags.dev_mode:
        raise error
    _fail(f"{FAULT}: {_place(error)}: {exception_line(error)}; python -X dev shows more", 1)


FAULT = "a fault of the program"
"""The beginning of the line for an exception that nobody foresaw."""


def _of_system(error: OSError) -> str:
    """Describe what the operating system refused: the file, if it is known, and the reason."""
    reason = error.strerror or exception_line(error)
    if error.filename is None:
        return f"cannot be written or read: {reason}"
    return f"{error.filename}: {reason}"


def _place(error: Exception) -> str:
    """The file and line that raised an exception."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


LONGEST_MESSAGE = 2_000
"""Maximum length of an error message, in characters."""


def _fail(message: str, status: int) -> NoReturn:
    """Print one line to standard error, with --json also an object to standard output, and exit.

    No secret is printed, whatever the message repeats of a command line or a file.
    """
    line = short(hide_secrets(message[: 10 * LONGEST_MESSAGE]), LONGEST_MESSAGE)
    try:
        print(f"error: {line}" if status == 2 else line, file=sys.stderr)
        if "--json" in sys.argv:
            print(json.dumps({"error": line}), flush=True)
    except OSError:  # nobody can be told
        _discard_output()
    sys.exit(status)
