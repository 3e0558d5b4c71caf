"""The command line as scripts and people use it, each verb in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from program import program

from sandbox.cli import export as export_options
from sandbox.datasets import FORMATS
from sandbox.datasets.choices import named
from sandbox.text import command

SLOW = "models.social.latency={first_token: 0.01, per_token: 0.0002, capacity: 8}"
OUTCOME = {
    "run", "db", "status", "agents", "rounds", "episodes", "calls", "calls_replayed",
    "calls_failed", "unparsed", "digest", "seconds",
}  # fmt: skip


def sim(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder and check its exit status."""
    done = program(folder, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def sim_json(folder: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The one JSON object that a verb prints."""
    data: dict[str, Any] = json.loads(sim(folder, *arguments, "--json", status=status).stdout)
    return data


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart has been run."""
    folder = tmp_path_factory.mktemp("home")
    data = sim_json(folder, "run", "--rounds", "3")
    assert set(data) >= OUTCOME
    assert (data["run"], data["status"], data["calls"]) == ("quickstart", "done", 750)
    return folder


def test_status(home: Path) -> None:
    (row,) = sim_json(home, "status")["runs"]
    assert (row["run"], row["status"], row["episodes"], row["episodes_total"]) == (
        "quickstart", "done", 75, 75,
    )  # fmt: skip
    assert "quickstart" in sim(home, "status", "quickstart").stdout


def test_verify(home: Path) -> None:
    data = sim_json(home, "verify", "quickstart")
    assert data["agrees"]
    assert data["calls_replayed"] == data["calls"] == 750
    assert set(data) >= OUTCOME


def test_inspect_everything(home: Path) -> None:
    look = ("inspect", "quickstart")
    assert len(sim_json(home, *look)["rounds"]) == 3
    assert len(sim_json(home, *look, "agents")["agents"]) == 25
    agent = sim_json(home, *look, "agent", "3")
    assert [one["round"] for one in agent["episodes"]] == [0, 1, 2]
    memory = sim_json(home, *look, "memory", "3")
    assert len(memory["internal"]) == 53
    assert len(memory["external"]) == 3
    assert len(sim_json(home, *look, "memory", "3", "--round", "1")["internal"]) == 52
    episode = sim_json(home, *look, "episode", "28")
    assert (episode["round"], episode["author"], len(episode["calls"])) == (1, 3, 10)
    call = episode["calls"][0]["call"]
    assert sim_json(home, *look, "call", str(call))["hash_agrees"]
    assert len(sim_json(home, *look, "calls", "--limit", "7")["calls"]) == 7
    assert sim_json(home, *look, "calls", "--failures")["calls"] == []
    word = episode["revision"].split()[3]
    found = sim_json(home, *look, "--search", episode["revision"])["episodes"]
    assert 28 in [one["episode"] for one in found]
    assert len(sim_json(home, *look, "--round", "2")["episodes"]) == 25
    for arguments in ([], ["agents"], ["agent", "3"], ["memory", "3"], ["episode", "28"],
                      ["calls"], ["call", str(call)], ["--search", word]):  # fmt: skip
        assert sim(home, *look, *arguments).stdout.strip()


def test_scripted_text_says_so(home: Path) -> None:
    for arguments in ([], ["episode", "28"]):
        text = " ".join(sim(home, "inspect", "quickstart", *arguments).stdout.split())
        assert "composed by the scripted backend, not by a language model" in text


def test_export(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "exchanges"
    sim(home, "export", "quickstart", "--format", "exchanges", "--out", str(out))
    assert len((out / "exchanges.jsonl").read_text().splitlines()) == 75
    again = ("export", "quickstart", "--format", "exchanges", "--out", str(out))
    assert "exists" in sim(home, *again, status=2).stderr
    sim(home, *again, "--overwrite")
    data = sim_json(home, "export", "quickstart", "--format", "stable-alignment", "--out",
                    str(tmp_path / "sa"), "--mix", "all")  # fmt: skip
    rows = json.loads((tmp_path / "sa" / "stable_alignment.json").read_text())
    assert len(rows) == data["files"]["stable_alignment.json"]


def test_doctor(home: Path) -> None:
    findings = {one["what"]: one for one in sim_json(home, "doctor")["findings"]}
    assert findings["numpy"]["found"]
    assert "full-text search" in findings["sqlite"]["found"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "exists"),
        (["run", "--set", "rounds=0", "--name", "x"], "rounds: found 0"),
        (["run", "--set", "wrold.size=3", "--name", "x"], "wrold: unknown key"),
        (["run", "missing.yaml"], "missing.yaml: cannot be read"),
        (["run", "--name", "x", "--db", "runs"], "runs: cannot be"),
        (["run", "--name", "x", "--db", "nosuch://host/db"], "of the kind nosuch; expected"),
        (["run", "--name", "x", "--db", "/proc/nowhere/x.db"], "/proc/nowhere"),
        (["resume", "nobody"], "nobody: no such run"),
        (["resume", "quickstart#other"], "no run other"),
        (["status", "nobody"], "nobody: no such run"),
        (["verify", "nobody"], "nobody: no such run"),
        (["inspect", "nobody"], "nobody: no such run"),
        (["inspect", "quickstart", "agent"], "expected its number"),
        (["inspect", "quickstart", "agents", "3"], "expected no number"),
        (["inspect", "quickstart", "agent", "25"], "agent 25: no such agent"),
        (["inspect", "quickstart", "episode", "75"], "episode 75: not played"),
        (["inspect", "quickstart", "call", "99999"], "call 99999: no such call"),
        (["export", "quickstart", "--format", "pdf", "--out", "o"], "found 'pdf'; expected"),
        (["export", "quickstart", "--format", "exchanges", "--out", "/proc/x"], "/proc/x"),
        (
            ["export", "quickstart", "--format", "stable-alignment", "--out", "o", "--mix", "5"],
            "mix: found 5 for stable-alignment; expected 3 whole numbers, for imitation",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(home: Path, arguments: list[str], words: str) -> None:
    before = sorted(path.name for path in home.rglob("*"))
    done = sim(home, *arguments, status=2)
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in home.rglob("*")) == before


def test_wrong_usage_is_status_2(home: Path) -> None:
    for arguments in (["fly"], ["run", "--wings"], ["inspect"], ["inspect", "quickstart", "birds"]):
        done = sim(home, *arguments, status=2)
        assert done.stdout == "" and done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1, done.stderr
    for arguments in (["export", "quickstart"], ["run", "--rounds", "x"]):
        done = sim(home, *arguments, "--json", status=2)
        assert json.loads(done.stdout)["error"] in done.stderr
    assert "Usage" in sim(home, status=2).stdout + sim(home, "--help").stdout


def test_a_run_that_stops_prints_one_object(tmp_path: Path) -> None:
    done = sim(tmp_path, "run", "--max-calls", "50", "--json", status=130)
    assert json.loads(done.stdout)["status"] == "interrupted"


def test_an_unreadable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    sim(tmp_path, "run", "--rounds", "1")
    (tmp_path / "runs" / "broken.db").write_bytes(b"nothing of use" * 50)
    rows = {row["run"]: row["status"] for row in sim_json(tmp_path, "status")["runs"]}
    assert rows == {"broken": "unreadable", "quickstart": "done"}


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run_sim.py"), *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _calls(database: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _wait_for(database: Path, calls: int) -> int:
    for _ in range(600):
        found = _calls(database)
        if found >= calls:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {calls} calls within 30 seconds")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the slow run gives if nobody disturbs it."""
    return sim_json(tmp_path_factory.mktemp("calm"), "run", "--set", "models.social.misbehave=0.1")


def test_killed_and_resumed(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    settings = ("--set", "models.social.misbehave=0.1", "--set", SLOW)
    process = _start(tmp_path, "run", *settings)
    database = tmp_path / "runs" / "quickstart.db"
    for calls in (150, 500, 900):
        _wait_for(database, calls)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (row,) = sim_json(tmp_path, "status")["runs"]
        assert row["status"] == "killed"
        process = _start(tmp_path, "resume", "quickstart", "--json")
    out, _ = process.communicate(timeout=60)
    outcome = json.loads(out)
    assert (outcome["status"], outcome["digest"]) == ("done", undisturbed["digest"])
    assert outcome["calls"] == undisturbed["calls"]
    with closing(sqlite3.connect(database)) as connection:
        twice = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM calls "
            "GROUP BY episode_id, form_id, agent, turn, attempt HAVING count(*) > 1)"
        ).fetchone()
    assert twice == (0,)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quickstart.db"]


@pytest.mark.parametrize(
    "one", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_interrupted_and_resumed(
    tmp_path: Path, undisturbed: dict[str, Any], one: signal.Signals
) -> None:
    process = _start(tmp_path, "run", "--set", "models.social.misbehave=0.1", "--set", SLOW)
    database = tmp_path / "runs" / "quickstart.db"
    _wait_for(database, 300)
    process.send_signal(one)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "resume with: python run_sim.py resume quickstart" in err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quickstart.db"]
    (row,) = sim_json(tmp_path, "status")["runs"]
    assert row["status"] == "interrupted"
    before = _calls(database)
    outcome = sim_json(tmp_path, "resume", "quickstart")
    assert outcome["digest"] == undisturbed["digest"]
    assert 0 < outcome["calls_replayed"] <= before


def test_two_processes_on_one_run(tmp_path: Path) -> None:
    process = _start(tmp_path, "run", "--set", SLOW.replace("8", "3"), "--json")
    _wait_for(tmp_path / "runs" / "quickstart.db", 100)
    done = sim(tmp_path, "resume", "quickstart", status=2)
    assert "another process is writing it" in done.stderr
    (row,) = sim_json(tmp_path, "status")["runs"]
    assert row["status"] == "running"
    assert sim_json(tmp_path, "inspect", "quickstart", "agents")["agents"]
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["status"] == "done"


def test_the_live_display_on_a_terminal(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", "--rounds", "4", "--set", SLOW]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    assert process.wait(timeout=60) == 0
    for word in (b"round 4 of 4", b"episodes", b"calls", b"tokens", b"failed", b"remaining"):
        assert word in seen


def test_a_foreign_package_of_the_same_name_is_a_clear_error(tmp_path: Path) -> None:
    foreign = tmp_path / "site" / "agents"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", "import sandbox.api"],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert "the module `agents` comes from" in done.stderr
    assert "another distribution has a module of that name" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 900 kB, where this machine lets us mount one."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path, undisturbed: dict[str, Any]) -> None:
    done = sim(small_disk, "run", "--set", "models.social.misbehave=0.1", status=1)
    assert "full" in done.stderr
    assert "resume" in done.stderr
    _remount(small_disk, "size=20m")
    assert sim_json(small_disk, "resume", "quickstart")["digest"] == undisturbed["digest"]


def test_a_read_only_disk_can_be_read(small_disk: Path, tmp_path: Path) -> None:
    sim(small_disk, "run", "--rounds", "2", "--max-calls", "300", status=130)
    _remount(small_disk, "ro")
    assert "Read-only" in sim(small_disk, "resume", "quickstart", status=2).stderr
    assert "Read-only" in sim(small_disk, "run", "--name", "other", status=2).stderr
    (row,) = sim_json(small_disk, "status")["runs"]
    assert (row["status"], row["calls"]) == ("interrupted", 300)
    assert len(sim_json(small_disk, "inspect", "quickstart", "agents")["agents"]) == 25
    sim(small_disk, "export", "quickstart", "--format", "exchanges", "--out", str(tmp_path / "out"))
    _remount(small_disk, "rw,size=20m")
    assert sim_json(small_disk, "resume", "quickstart")["status"] == "done"


HEAVY = ("aiohttp", "altair", "numpy", "pyarrow", "pydantic", "scipy", "sqlalchemy", "starlette",
         "vl_convert", "vllm", "sandbox.api", "sandbox.engine", "sandbox.backends")  # fmt: skip


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(tmp_path: Path, option: str) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "run_sim.py"), option]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sandbox.cli.main" in imported
    assert imported.isdisjoint(HEAVY)


def test_a_run_imports_only_what_it_needs(tmp_path: Path) -> None:
    arguments = ("run", "--set", "rounds=1", "--set", "world.size=2", "--set", "question_count=2")
    command = [sys.executable, "-X", "importtime", str(ROOT / "run_sim.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sandbox.engine.runner" in imported
    needless = ("aiohttp", "networkx", "pyarrow", "scipy", "starlette", "sandbox.datasets",
                "sandbox.evaluation", "sandbox.generations", "sandbox.study",
                "sandbox.training")  # fmt: skip
    assert imported.isdisjoint(needless)


def test_the_help_of_export_lists_all_names() -> None:
    assert export_options.FORMATS.split(", ") == list(FORMATS)
    parameters = inspect.signature(export_options.export, eval_str=True).parameters
    for choice in ("ratings", "target", "files"):
        (option,) = parameters[choice].annotation.__metadata__
        assert option.help.endswith(", ".join(named(choice)))


def test_what_to_type_next_names_the_command_that_was_typed(monkeypatch: Any) -> None:
    for started, expected in (
        ("run_sim.py", "python run_sim.py resume x"),
        ("/opt/bin/sandbox-society", "sandbox-society resume x"),
        ("-c", "sandbox-society resume x"),
    ):
        monkeypatch.setattr(sys, "argv", [started])
        assert command("resume", "x") == expected
