"""Signals stop a run in a terminal, a script, a notebook and a thread, even if its code hangs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT, SMALL
from program import program

from sandbox import api
from sandbox.config import QUICKSTART
from sandbox.engine.limits import Budget

LATENCY = "models.social.latency={first_token: 0.03, per_token: 0.001, capacity: 8}"

NOTEBOOK = """\
import asyncio, sys
from sandbox import api

SETTINGS = {settings!r}

async def cell():
    try:
        print(api.run(name="run", settings=SETTINGS).status, flush=True)
    except KeyboardInterrupt as stopped:
        print(type(stopped).__name__, flush=True)

asyncio.run(cell())
print("the notebook lives", flush=True)
"""

THREAD = """\
import signal, threading, time
from sandbox import api

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

SETTINGS = {settings!r}


def work():
    print(api.run(name="run", settings=SETTINGS).status, flush=True)

threading.Thread(target=work).start()
time.sleep(600)
"""

HANGING = ("spin", "thread", "pool", "deaf", "start", "close")
"""Ways in which code hangs, each of which takes the five seconds until it is left behind."""

SCRIPT = """\
from sandbox import api

print(api.run(name="run", settings={settings!r}).status, flush=True)
print(api.resume("run", rounds=4, budget=api.Budget(calls=0)).message, flush=True)
"""

BACKEND = '''\
"""The scripted model, which hangs after some calls while the file `hang` exists."""

import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox.backends import scripted

FLAG = Path(__file__).with_name("hang")


class Config(scripted.ScriptedConfig):
    backend: str


async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


def spin():
    while True:
        pass


class Backend(scripted.ScriptedBackend):
    calls = 0

    async def start(self):
        if FLAG.exists() and FLAG.read_text() == "start":
            time.sleep(3600)
        await super().start()

    async def answer(self, call):
        self.calls += 1
        if FLAG.exists() and self.calls == 60:
            match FLAG.read_text():
                case "sleep":
                    time.sleep(3600)
                case "spin":
                    spin()
                case "thread":
                    await asyncio.to_thread(time.sleep, 3600)
                case "pool":
                    await asyncio.wrap_future(ThreadPoolExecutor().submit(time.sleep, 3600))
                case "foreground":
                    threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()
                case "deaf":
                    await deaf()
        return await super().answer(call)

    async def close(self):
        if FLAG.exists() and FLAG.read_text() == "close":
            time.sleep(3600)
'''


def _calls(folder: Path) -> int:
    """The number of calls of the run; -1 before its session has begun."""
    database = folder / "runs" / "run.db"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sessions").fetchone():
                return -1
            return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.Error:
        return -1


def _wait_for_calls(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while _calls(folder) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def _start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _python(folder: Path, script: str) -> subprocess.Popen[str]:
    return _start(folder, "-c", script.format(settings=[*SMALL, LATENCY]))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the run that nothing interrupts."""
    place = tmp_path_factory.mktemp("calm") / "run.db"
    return str(api.run(QUICKSTART, name="run", db=place, settings=SMALL).digest)


def _resumed(folder: Path, *options: str) -> str:
    done = program(folder, "resume", "run", "--json", *options)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["digest"])


@pytest.mark.parametrize(
    "script",
    [NOTEBOOK, *(pytest.param(script, marks=pytest.mark.long) for script in (SCRIPT, THREAD))],
    ids=["notebook", "script", "thread"],
)
@pytest.mark.parametrize(
    "one", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_one_signal_stops_and_loses_nothing(
    tmp_path: Path, script: str, one: signal.Signals, calm: str
) -> None:
    process = _python(tmp_path, script)
    _wait_for_calls(tmp_path, 50, process)
    process.send_signal(one)
    out, err = process.communicate(timeout=30)
    if script == THREAD and one == signal.SIGTERM:
        assert process.returncode == -signal.SIGTERM, "the main thread is the caller's"
    else:
        assert out.startswith("interrupted\n"), out + err
    if script == NOTEBOOK:
        assert out.endswith("the notebook lives\n")
        assert process.returncode == 0, err
    if script == SCRIPT:
        assert "the limit of 0 calls is reached" in out
    options = ["--rounds", "4"] if script == SCRIPT else []
    digest = _resumed(tmp_path, *options)
    assert script == SCRIPT or digest == calm


@pytest.mark.long
def test_two_signals_in_a_notebook_stop_at_once(tmp_path: Path, calm: str) -> None:
    process = _start(
        tmp_path,
        "-c",
        NOTEBOOK.format(
            settings=[
                *SMALL,
                "models.social.latency={first_token: 0.01, per_token: 0, capacity: 8}",
                "models.observer.latency={first_token: 40, per_token: 0, capacity: 8}",
            ]
        ),
    )
    _wait_for_calls(tmp_path, 20, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "calls in flight are waited for"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == "Interrupted\nthe notebook lives\n", err
    assert time.monotonic() - began < 10
    quick = ["--set", "models.observer.latency=null", "--set", "models.social.latency=null"]
    assert _resumed(tmp_path, *quick) == calm


@pytest.mark.parametrize(
    "how",
    ["sleep", *(pytest.param(how, marks=pytest.mark.long) for how in HANGING)],
)
@pytest.mark.long
def test_code_that_hangs_is_left_behind(tmp_path: Path, how: str, calm: str) -> None:
    backend = tmp_path / "own.py"
    backend.write_text(BACKEND, encoding="utf-8")
    (tmp_path / "hang").write_text(how)
    served = [f"models.{role}.backend=./own.py" for role in ("social", "observer")]
    rounds = ["models.social.latency={first_token: 0.05, per_token: 0, capacity: 4}"]
    pairs = [*SMALL, *served, *(rounds if how == "close" else [])]
    options = [part for setting in pairs for part in ("--set", setting)]
    process = _start(tmp_path, str(ROOT / "run_sim.py"), "run", "--name", "run", *options)
    _wait_for_calls(tmp_path, 0 if how == "start" else 10, process)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 15
    assert "resume with: " in err
    (row,) = json.loads(program(tmp_path, "status", "run", "--json").stdout)["runs"]
    assert row["status"] == "interrupted"
    (tmp_path / "hang").unlink()
    more = ["--set", "models.social.latency=null"] if how == "close" else []
    assert _resumed(tmp_path, "--backend", "own.py", *more) == calm


def _hanging(folder: Path, how: str, *more: str) -> list[str]:
    """The settings of a run whose backend hangs in some call, which fails after a second."""
    (folder / "own.py").write_text(BACKEND, encoding="utf-8")
    (folder / "hang").write_text(how)
    roles = ("social", "observer")
    keys = [f"models.{role}.{key}" for role in roles for key in ("backend=./own.py", "timeout=1")]
    return [*SMALL, *keys, *more]


@pytest.mark.parametrize(
    ("how", "hours", "status"),
    [
        ("thread", None, 0),
        ("thread", "0.0004", 130),
        ("pool", None, 0),
        ("foreground", None, 0),
    ],
)
@pytest.mark.long
def test_threads_that_hang_do_not_keep_the_command_line(
    tmp_path: Path, how: str, hours: str | None, status: int, calm: str
) -> None:
    """The outcome is stored and printed, and then the process ends, with its exit status."""
    slow = ["models.social.latency={first_token: 0.2, per_token: 0, capacity: 8}"] if hours else []
    settings = _hanging(tmp_path, how, *slow)
    options = [part for setting in settings for part in ("--set", setting)]
    options += ["--max-hours", hours] if hours else []
    began = time.monotonic()
    command = (str(ROOT / "run_sim.py"), "run", "--name", "run", "--json", *options)
    process = _start(tmp_path, *command)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert time.monotonic() - began < 30
    assert json.loads(out)["status"] == ("interrupted" if hours else "done")
    if hours:
        (tmp_path / "hang").unlink()
        quick = ["--set", "models.social.latency=null"]
        assert _resumed(tmp_path, "--backend", "own.py", *quick) == calm


@pytest.mark.long
def test_a_script_goes_on_beside_a_thread_that_hangs(tmp_path: Path, calm: str) -> None:
    settings = _hanging(tmp_path, "thread")
    script = f"""\
import os
from sandbox import api

print(api.run(name="run", settings={settings!r}).digest, flush=True)
os._exit(0)
"""
    process = _start(tmp_path, "-c", script)
    out, err = process.communicate(timeout=30)
    assert out.strip() == calm, err


def test_limits_from_python(tmp_path: Path, calm: str) -> None:
    place = tmp_path / "run.db"
    part = api.run(db=place, name="run", settings=SMALL, budget=Budget(calls=40))
    assert (part.status, part.calls) == ("interrupted", 40)
    part = api.resume(str(place), budget=Budget(tokens=1000))
    assert part.status == "interrupted"
    assert "1,000 tokens" in str(part.message)
    assert api.resume(str(place)).digest == calm
