"""Fault injection: after a fault, a resumed run has no lost or duplicate rows and the same digest.

The number of kills is ``pytest --kills N`` (default 6; 50 or more for a thorough test).
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conftest import ROOT, scripted_backends, small
from program import program

from agents.forms import CallName
from sandbox.backends import scripted
from sandbox.backends.base import Call, Reply, Unavailable
from sandbox.config import QUICKSTART
from sandbox.engine.health import PROBE
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.study.verify import verify
from storage.errors import Gone, IncompleteWarning, InputError

LATENCY = "models.social.latency={first_token: 0.004, per_token: 0.0001, capacity: 16}"
CONFIGS = {
    "plain": (),
    "rough": ("models.social.misbehave=0.2", "models.observer.misbehave=0.2"),
    "lock_step": ("schedule.order=lock_step", "world.reach=global"),
    "pareto": ("stop.patience=1", "rounds=9", "memory.keep=2"),
    "network": ("world.topology=scale_free", "world.score_only=true", "schedule.max_in_flight=7"),
}
DUPLICATES = (
    "SELECT count(*) FROM (SELECT 1 FROM calls "
    "GROUP BY episode_id, form_id, agent, turn, attempt HAVING count(*) > 1)"
)
INCOMPLETE = """
SELECT (SELECT count(*) FROM ratings WHERE episode_id NOT IN (SELECT id FROM episodes))
     + (SELECT count(*) FROM observations WHERE episode_id NOT IN (SELECT id FROM episodes))
     + (SELECT count(*) FROM ratings WHERE call_id NOT IN (SELECT id FROM calls))
     + (SELECT count(*) FROM stage_texts WHERE text_id NOT IN (SELECT id FROM texts))
     + (SELECT count(*) FROM stage_texts WHERE episode_id NOT IN (SELECT id FROM episodes))
     + (SELECT count(*) FROM memories WHERE text_id NOT IN (SELECT id FROM texts))
     + (SELECT count(*) FROM episodes e WHERE failed_at IS NULL AND NOT EXISTS
            (SELECT 1 FROM memories m WHERE m.episode_id = e.id))
"""


def _ask(database: Path, query: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _exists(database: Path) -> bool:
    """Whether the run exists: it is created atomically, so an earlier kill leaves none."""
    tables = "SELECT count(*) FROM sqlite_master WHERE name = 'runs'"
    return (
        database.exists()
        and bool(_ask(database, tables))
        and bool(_ask(database, "SELECT count(*) FROM runs"))
    )


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "plain" else pytest.param(kind, marks=pytest.mark.long) for kind in CONFIGS],
)
def test_sigkill_at_random_times(tmp_path: Path, kind: str, kills: int) -> None:
    """SIGKILL while the run is created, resumed, committed and finished."""
    settings = ("rounds=4", *CONFIGS[kind], f"name={kind}")
    calm = resume(create(prepare(small(*settings)), str(tmp_path / "calm.db")))
    config = small(*settings, LATENCY)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.as_json())), encoding="utf-8")
    database = tmp_path / "runs" / f"{kind}.db"
    chance = random.Random(kind)
    for _ in range(-(-kills // len(CONFIGS))):
        verb = ["resume", kind] if _exists(database) else ["run", str(path)]
        command = [sys.executable, str(ROOT / "run_sim.py"), *verb]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(chance.uniform(0.6, 1.6))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        if _exists(database):
            assert _ask(database, INCOMPLETE) == 0
            assert _ask(database, DUPLICATES) == 0
    verb = ["resume", kind] if _exists(database) else ["run", str(path)]
    done = program(tmp_path, *verb, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["status"], outcome["digest"]) == ("done", calm.digest)
    assert outcome["calls"] == calm.calls
    assert _ask(database, DUPLICATES) == 0


class Faulty(scripted.ScriptedBackend):
    """Hangs or is unavailable at random; other calls get their usual reply."""

    hang = 0.0
    burst = 0.0
    chance = random.Random(1)
    answered: ClassVar[Counter[CallName]] = Counter()

    async def answer(self, call: Call) -> Reply:
        if self.chance.random() < self.hang:
            await asyncio.sleep(3600)
        if self.chance.random() < self.burst:
            raise Unavailable("connection refused")
        self.answered[call.name] += 1
        return await super().answer(call)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    kind: type[Faulty] = type(
        "Faulty", (Faulty,), {"chance": random.Random(3), "answered": Counter()}
    )
    monkeypatch.setattr("sandbox.engine.layers.pause", lambda attempt, jitter: 0.001)
    return kind


def test_a_backend_that_hangs_and_fails_in_bursts(tmp_path: Path, faulty: type[Faulty]) -> None:
    calm = resume(create(prepare(small()), str(tmp_path / "calm.db")))
    settings = [f"models.{role}.{key}" for role in ("social", "observer")
                for key in ("timeout=0.02", "retries=40")]  # fmt: skip
    faulty.hang, faulty.burst, faulty.answered = 0.02, 0.3, Counter()
    config = small(*settings)
    address = create(prepare(config), str(tmp_path / "faulty.db"))
    outcome = resume(address, backends=scripted_backends(config, faulty))
    assert outcome.digest == calm.digest
    assert (outcome.calls, outcome.calls_failed) == (calm.calls, 0)
    assert max(n for name, n in faulty.answered.items() if name.form != PROBE) == 1


def test_an_unavailable_backend_stops_the_run(tmp_path: Path, faulty: type[Faulty]) -> None:
    config = small("models.social.patience=0.5", "models.observer.patience=0.5")
    address = create(prepare(config), str(tmp_path / "run.db"))
    faulty.burst = 1.0
    backends = scripted_backends(config, faulty)
    outcome = resume(address, backends=backends)
    assert outcome.status == "failed"
    assert outcome.message is not None
    assert "connection refused; no call was answered for" in outcome.message
    assert outcome.calls == 0
    faulty.burst = 0.0
    assert resume(address, backends=backends).status == "done"


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    calm = resume(create(prepare(small()), str(tmp_path / "calm.db")))
    address = create(prepare(small(LATENCY)), str(tmp_path / "run.db"))

    def lock() -> None:
        with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout = 5000")
            for _ in range(5):
                time.sleep(0.05)
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(0.1)
                connection.execute("COMMIT")

    thread = threading.Thread(target=lock)
    thread.start()
    try:
        assert resume(address).digest == calm.digest
    finally:
        thread.join()


def test_a_permanently_locked_database_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = resume(create(prepare(small()), str(tmp_path / "calm.db")))
    address = create(prepare(small(LATENCY)), str(tmp_path / "run.db"))
    monkeypatch.setattr("storage.files._PRAGMAS", ("busy_timeout = 100",))
    stop = threading.Event()

    def lock() -> None:
        with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout = 5000")
            while connection.execute("SELECT count(*) FROM calls").fetchone()[0] < 100:
                time.sleep(0.01)
            connection.execute("BEGIN IMMEDIATE")
            stop.wait(20)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=lock)
    thread.start()
    outcome = resume(address)
    stop.set()
    thread.join()
    assert outcome.message is not None
    assert "locked" in outcome.message
    assert _ask(tmp_path / "run.db", INCOMPLETE) == 0
    with pytest.warns(IncompleteWarning, match="it was not closed"):  # but by the other process
        assert resume(address).digest == calm.digest


@pytest.mark.parametrize("replaced", [False, True])
def test_a_deleted_database_stops_the_run(tmp_path: Path, replaced: bool) -> None:
    slow = LATENCY.replace("16", "1")
    path = tmp_path / "run.db"
    address = create(prepare(small(slow)), str(path))

    def lose() -> None:
        path.unlink()
        if replaced:
            path.write_bytes(b"something else")

    thread = threading.Timer(1.0, lose)
    thread.start()
    with pytest.raises(Gone, match="is gone: it was deleted or replaced"):
        resume(address)
    thread.join()
    assert path.exists() == replaced, "nothing is made in its place"
    if replaced:
        assert path.read_bytes() == b"something else"


@pytest.mark.long
def test_a_deleted_database_is_told_in_one_line(tmp_path: Path) -> None:
    slow = ["--set", LATENCY.replace("16", "1")]
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", "lost", *slow]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    path = tmp_path / "runs" / "lost.db"
    _wait_for_calls(path)
    path.unlink()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == (
        f"{path} is gone: it was deleted or replaced while it was written"
    )
    assert "Traceback" not in err
    assert not path.exists()


def _wait_for_calls(path: Path) -> None:
    """Wait until a run that is being played has calls."""
    while not (_exists(path) and _ask(path, "SELECT count(*) FROM calls")):
        time.sleep(0.05)


def test_jumps_of_the_system_clock_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = resume(create(prepare(small()), str(tmp_path / "calm.db")))
    chance = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + chance.uniform(-1e6, 1e6))
    outcome = resume(create(prepare(small(LATENCY)), str(tmp_path / "run.db")))
    assert outcome.digest == calm.digest
    assert 0 < outcome.seconds < 60


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(calls=100), "the limit of 100 calls is reached"),
        (Budget(tokens=20_000), "the limit of 20,000 tokens is reached"),
        (Budget(hours=0.1 / 3600), "hours is reached"),
    ],
)
@pytest.mark.parametrize("setting", ["schedule.order=sequential", LATENCY])
@pytest.mark.long
def test_a_budget_stops_cleanly(tmp_path: Path, budget: Budget, words: str, setting: str) -> None:
    slow = LATENCY.replace("0.004", "0.02")
    calm = resume(create(prepare(small()), str(tmp_path / "calm.db")))
    address = create(
        prepare(small(setting, *([slow] if budget.hours else []))), str(tmp_path / "run.db")
    )
    outcome = resume(address, budget=budget)
    assert outcome.status == "interrupted"
    assert outcome.message is not None
    assert words in outcome.message
    if budget.calls:
        assert outcome.calls == 100, "calls in flight are journalled, and no more are sent"
    before = outcome.calls
    assert 0 < before < calm.calls
    outcome = resume(address)
    assert (outcome.digest, outcome.calls) == (calm.digest, calm.calls)
    assert outcome.calls_replayed <= before


def test_more_rounds_are_simply_more_rounds(tmp_path: Path) -> None:
    whole = resume(create(prepare(small("rounds=5", "question_count=60")), str(tmp_path / "a.db")))
    short = create(prepare(small("rounds=2", "question_count=60")), str(tmp_path / "b.db"))
    resume(short)
    with pytest.raises(InputError, match="expected at least the run's 2"):
        resume(short, rounds=1)
    longer = resume(short, rounds=5)
    assert (longer.rounds, longer.digest) == (5, whole.digest)
    assert verify(short).of_replay == whole.digest


def _interrupted(tmp_path: Path, *settings: str) -> Any:
    address = create(prepare(small(*settings)), str(tmp_path / "run.db"))
    assert resume(address, budget=Budget(calls=100)).status == "interrupted"
    return address


def test_a_changed_prompt_template_is_detected(tmp_path: Path) -> None:
    forms = tmp_path / "forms.yaml"
    forms.write_text("draft: {system: Be brief.}\n")
    address = _interrupted(tmp_path, f"forms={forms}")
    forms.write_text("draft: {system: Be very brief.}\n")
    with pytest.raises(
        InputError, match=r"changed since it was started: the prompt template draft; .*--accept"
    ):
        resume(address)
    assert resume(address, accept_changes=True).status == "done"


def test_changed_files_are_detected(tmp_path: Path) -> None:
    files = {"personas": "personas.jsonl", "questions": "questions.jsonl"}
    for name in files.values():
        source = QUICKSTART.parent.parent / "data" / name
        (tmp_path / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    address = _interrupted(tmp_path, *(f"{key}={tmp_path / name}" for key, name in files.items()))
    for name in files.values():
        lines = (tmp_path / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[:1] * len(lines)), encoding="utf-8")
    with pytest.raises(InputError, match=r"personas in .*questions in "):
        resume(address)
    for name in files.values():
        (tmp_path / name).unlink()
    assert resume(address).status == "done", "the run has its own copies"


def test_another_version_or_model_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = _interrupted(tmp_path)
    monkeypatch.setattr("sandbox.engine.changes.__version__", "9.9")
    with pytest.raises(InputError, match=r"the program's version, .* then, 9.9 now"):
        resume(address)
    monkeypatch.undo()

    class Another(scripted.ScriptedBackend):
        model = "another"

    with pytest.raises(InputError, match="the social model, scripted then, another now"):
        resume(address, backends=scripted_backends(small(), Another))


def test_a_call_with_a_changed_prompt_can_be_requested_again(tmp_path: Path) -> None:
    address = _interrupted(tmp_path, "schedule.order=sequential")
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection, connection:
        connection.execute("UPDATE forms SET system = 'Changed.' WHERE name = 'rate'")
    with pytest.raises(InputError, match="changed since it was started: the prompt template rate"):
        resume(address)
    outcome = resume(address, accept_changes=True)
    assert outcome.status == "done"
    assert _ask(tmp_path / "run.db", DUPLICATES) == 0
