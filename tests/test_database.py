"""The file of a run: names, links, locks, permissions, companions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import ROOT, Make, small
from program import program
from starlette.testclient import TestClient

from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.runs import open_run, states
from sandbox.viewer.app import application
from sandbox.viewer.catalog import RunCatalog
from storage import database
from storage.database import parse_run, parse_url
from storage.errors import Damaged, IncompleteWarning, InputError

SLOW = "models.social.latency={first_token: 0.05, per_token: 0.0001, capacity: 4}"
ODD = "a#b %41?x=1 'q' ü:;&=@"


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_second_writer_under_another_name_is_refused(tmp_path: Path, link: str) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    other = tmp_path / "elsewhere" / "other.db"
    other.parent.mkdir()
    make = other.symlink_to if link == "symbolic" else other.hardlink_to
    with database.writing(address.url):
        make(tmp_path / "run.db")
        with pytest.raises(InputError, match=r"another process (is writing|may write)"):
            resume(parse_run(str(other)))
    if link == "hard":
        with pytest.raises(InputError, match="2 names"):
            resume(address)
        other.unlink()
        assert resume(address).status == "done"
    else:
        assert resume(parse_run(str(other))).status == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run.db"]


def test_a_relative_path_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    monkeypatch.chdir(tmp_path)
    with database.writing(address.url), pytest.raises(InputError, match="another process"):
        resume(parse_run("./run.db"))


def test_a_dangling_link_names_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert resume(create(prepare(small("rounds=1")), str(tmp_path / "link.db"))).status == "done"
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "real.db").stat().st_size > 0


@pytest.mark.long
def test_odd_characters_in_a_path(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    path = folder / f"{ODD}.db"
    made = ["--set", "world.size=3", "--set", "rounds=2", "--set", "memory.prior_pairs=5"]
    program_ok(tmp_path, "run", "--name", "one", "--db", str(path), *made)
    program_ok(tmp_path, "run", "--name", "two", "--db", f"sqlite:///{path}", *made)
    program_ok(tmp_path, "fork", f"{path}#one", "--at", "0", "--db", str(path), "--name", "three")
    names = [f"{path}#one", f"sqlite:///{path}#two"]
    for run in names:
        program_ok(tmp_path, "status", run)
        program_ok(tmp_path, "inspect", run, "episode", "0")
        program_ok(tmp_path, "verify", run)
        program_ok(tmp_path, "resume", run)
    program_ok(tmp_path, "status", str(path))
    program_ok(tmp_path, "compare", *names)
    program_ok(tmp_path, "export", *names, "--format", "sft", "--out", str(tmp_path / "data"))
    program_ok(tmp_path, "report", names[0], "--out", str(tmp_path / "report.html"))
    program_ok(tmp_path, "view", *names, "--static", str(tmp_path / "copy"))
    assert [path.name for path in folder.iterdir()] == [f"{ODD}.db"]


def program_ok(folder: Path, *arguments: str) -> str:
    done = program(folder, *arguments)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "x" * 5000], "no such run"),
        (["status", "#" * 5000], "no such run"),
        (["run", "--db", "x" * 5000], "cannot be written: File name too long"),
        (["status", "postgresql+psycopg://u@h:x/d"], "not a usable database URL"),
        (["run", "--db", "postgresql+psycopg://bob:S3CRET@h:x/d"], "not a usable database URL"),
        (["run", "--db", "sqlite://"], "in memory"),
        (["run", "--db", "mysql://u@h/d"], "expected postgresql+psycopg://HOST/DATABASE"),
        (["status", "postgresql+psycopg2://u@h/d"], "found a database of the kind postgresql+psyc"),
    ],
)
def test_an_odd_address_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = program(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "S3CRET" not in done.stderr


def test_a_nul_in_an_address_is_refused() -> None:
    for action in (parse_url, parse_run):
        with pytest.raises(InputError, match=r"no path of a file|no such run"):
            action("a\0b")


def killed(folder: Path) -> Path:
    """The file of a run that was killed, with its companions."""
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", "run", "--set", SLOW]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        path = folder / "runs" / "run.db"
        wait_for_calls(path)
        process.send_signal(signal.SIGKILL)
    return path


def wait_for_calls(path: Path, number: int = 20) -> None:
    """Wait until a run that another process plays has some calls."""
    for _ in range(400):
        if path.exists():
            try:
                with open_run(str(path)) as reader:
                    if states(parse_url(str(path)))[0].calls >= number:
                        return
                    assert reader.run.status in ("interrupted", "running")
            except InputError:
                pass
        time.sleep(0.05)
    raise AssertionError("no calls")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a killed run."""
    folder = tmp_path_factory.mktemp("killed")
    killed(folder)
    return folder / "runs"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users may enter, unlike those of pytest."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def ours(stopped: Path, shared: Path) -> Path:
    """A copy of the killed run with all its companions."""
    shutil.copytree(stopped, shared / "runs")
    return shared / "runs" / "run.db"


def as_nobody(action: Callable[[], Any]) -> Any:
    """The result of an action that the user `nobody` does."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            result = {"value": action()}
        except BaseException as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "error" not in result, result
    return result["value"]


def looked_at(path: Path) -> dict[str, Any]:
    """What a run looks like: status, message, number of calls, and the status of pages."""
    state = states(parse_url(str(path)))[0]
    pages = TestClient(application(RunCatalog([str(path)])), base_url="http://127.0.0.1")
    codes = {pages.get(page).status_code for page in ("/", "/r/run", "/r/run/exchanges")}
    return {
        "status": state.status,
        "message": state.message,
        "calls": state.calls,
        "codes": sorted(codes),
    }


def calls_in(path: Path) -> int:
    """The number of calls, as SQLite reads them itself, from a copy."""
    folder = path.parent.parent / "read"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path.parent, folder)
    with closing(sqlite3.connect(folder / path.name)) as connection:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])


root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@root
@pytest.mark.parametrize("folder", [0o755, 0o555, 0o777])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("lock", [None, 0o644, 0o600])
@pytest.mark.long
def test_a_killed_run_of_another_user(
    ours: Path, folder: int, index: bool, lock: int | None
) -> None:
    expected = calls_in(ours)
    assert expected >= 20
    if not index:
        ours.with_name("run.db-shm").unlink()
    if lock is None:
        ours.with_name("run.db.lock").unlink()
    else:
        ours.with_name("run.db.lock").chmod(lock)
    ours.parent.chmod(folder)
    before = sorted(path.name for path in ours.parent.iterdir())
    seen = as_nobody(lambda: looked_at(ours))
    assert seen == {
        "status": "running" if lock == 0o600 else "killed",
        "message": None,
        "calls": expected,
        "codes": [200],
    }
    if lock != 0o600:
        assert sorted(path.name for path in ours.parent.iterdir()) == before


@root
def test_a_live_run_of_another_user(shared: Path) -> None:
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", "run", "--set", SLOW]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=shared, **quiet) as process:  # type: ignore[call-overload]
        path = shared / "runs" / "run.db"
        try:
            wait_for_calls(path)
            seen = as_nobody(lambda: looked_at(path))
        finally:
            process.kill()
    assert (seen["status"], seen["message"], seen["codes"]) == ("running", None, [200])
    assert seen["calls"] >= 20


@root
def test_a_log_that_cannot_be_read(ours: Path) -> None:
    ours.with_name("run.db-wal").chmod(0o600)

    def look() -> dict[str, Any]:
        with pytest.warns(IncompleteWarning, match=r"run.db-wal cannot be read"):
            return looked_at(ours)

    seen = as_nobody(look)
    assert seen["status"] in ("killed", "interrupted")
    assert seen["message"].endswith("run.db-wal cannot be read: the latest calls are missing")
    assert seen["codes"] == [200]


@pytest.mark.long
def test_a_killed_run_that_was_moved_without_its_log(ours: Path, tmp_path: Path) -> None:
    calls = calls_in(ours)
    alone = tmp_path / "alone" / "run.db"
    alone.parent.mkdir()
    shutil.copy(ours, alone)
    words = "it was not closed, and run.db-wal is not beside it: if it was copied without it, "
    words += "its latest calls are missing"
    done = program(tmp_path, "status", str(alone), "--json")
    assert done.returncode == 0
    assert done.stderr.startswith(f"note: {alone}: {words}")
    assert len(done.stderr.splitlines()) == 1
    [row] = json.loads(done.stdout)["runs"]
    assert row["calls"] < calls
    assert words in row["message"]
    assert [path.name for path in alone.parent.iterdir()] == ["run.db"]
    with pytest.warns(IncompleteWarning, match="run.db-wal is not beside it"):
        outcome = resume(parse_run(str(alone)))
    assert outcome.status == "done", "what is missing is requested again"
    assert resume(parse_run(str(ours))).digest == outcome.digest
    assert program(tmp_path, "status", str(alone)).stderr == ""


def test_a_killed_run_is_carried_by_one_command(ours: Path, tmp_path: Path) -> None:
    calls = calls_in(ours)
    with closing(sqlite3.connect(ours)) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path / 'b.db'}'")
    [state] = states(parse_url(str(tmp_path / "b.db")))
    assert (state.calls, state.message) == (calls, None)


def test_a_killed_run_with_the_log_of_another_is_not_written(
    ours: Path, tmp_path: Path, make: Make
) -> None:
    address, _ = make("seed=5", name="other")
    log = ours.with_name("run.db-wal").read_bytes()
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    path.with_name("other.db-wal").write_bytes(log)
    before = path.read_bytes()
    with pytest.raises((Damaged, InputError)):
        resume(address)
    assert path.read_bytes() == before


def test_a_stopped_run_says_nothing(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    resume(address, budget=Budget(calls=100))
    [state] = states(address.url)
    assert (state.status, state.message) == ("interrupted", "the limit of 100 calls is reached")
