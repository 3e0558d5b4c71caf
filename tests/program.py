"""Runs the program in child processes, forked from a parent that has already imported it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_PARENT = """
import json, os, resource, signal, sys
import sandbox.api, sandbox.doctor, sandbox.terminal.live, sandbox.terminal.runs
import sandbox.viewer.report.report, sandbox.viewer.server
from sandbox.cli.main import main

def limit(seconds, memory):
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.alarm(6 * seconds)

def check_config(path):
    from sandbox.config import load_config
    from sandbox.engine.run import prepare
    from storage.errors import InputError
    try:
        prepare(load_config(path))
    except InputError as error:
        sys.exit(f"error: {error}")

def run(asked):
    os.chdir(asked["folder"])
    if asked["limits"]:
        limit(*asked["limits"])
    for stream, place in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["run_sim.py", *asked["arguments"]]
    try:
        from pathlib import Path
        check_config(Path(asked["config"])) if asked["config"] else main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 2 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0

for line in sys.stdin:
    child = os.fork()
    if not child:
        status = run(json.loads(line))
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                status = status or 120
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _parent() -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], env=environment, **pipes)  # type: ignore[call-overload]
    atexit.register(parent.kill)
    return parent  # type: ignore[no-any-return]


def program(
    folder: Path,
    *arguments: str,
    config: str | None = None,
    limits: tuple[int, int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``python run_sim.py ARGUMENTS`` in a folder, without the import time of one second.

    Args:
        folder: the working folder.
        arguments: the command line.
        config: check only the config of this name, in place of a command line.
        limits: CPU seconds and bytes of memory; the status is negative if they did not suffice.
    """
    parent = _parent()
    assert parent.stdin is not None and parent.stdout is not None
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        asked = {
            "arguments": arguments,
            "folder": str(folder),
            "out": str(out),
            "err": str(err),
            "config": config,
            "limits": limits,
        }
        parent.stdin.write(json.dumps(asked) + "\n")
        parent.stdin.flush()
        status = int(parent.stdout.readline())
        said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(arguments, status, *said)


def begin_sweep(folder: Path, *more: str, **variables: str) -> subprocess.Popen[str]:
    """Start the sweep of a folder in a process of its own.

    Args:
        folder: with the file `study.yaml`.
        more: further arguments.
        variables: of the environment, besides those of this process.
    """
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_sim.py"), "sweep", "study.yaml", "--json", *more],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
