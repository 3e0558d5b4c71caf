"""Calls that failed are requested again: the result is that of a run in which nothing failed."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, small
from program import program

from sandbox import api
from sandbox.config import PRESETS, QUICKSTART, Config, load_config
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.exchanges import found_exchanges
from storage.database import Address

BACKEND = '''\
"""The scripted model behind a server that refuses some calls while the file `broken` exists."""

from pathlib import Path

from sandbox.backends import scripted
from sandbox.backends.base import CallFailed, Reply

HERE = Path(__file__).parent


class Config(scripted.ScriptedConfig):
    backend: str


class Backend(scripted.ScriptedBackend):
    async def answer(self, call):
        if (HERE / "broken").exists() and call.seed % 100 < int((HERE / "broken").read_text()):
            raise CallFailed("400: System role not supported")
        if (HERE / "mumbling").exists() and call.seed % 9 == 0 and call.name.form == "rate":
            return Reply("I would rather not say.")
        return await super().answer(call)
'''

KINDS = {
    "grid": (QUICKSTART, SMALL),
    "rough": (QUICKSTART, (*SMALL, "models.observer.misbehave=0.2")),
    "pareto": (QUICKSTART, (*SMALL, "rounds=8", "stop.patience=1", "memory.keep=2")),
    "scene": (PRESETS / "scene.yaml", ("rounds=2",)),
    "personal": (PRESETS / "personal.yaml", ("rounds=2", "world.users=8")),
}

DUMPS = {
    "scores": "SELECT m.name, s.episode_id, s.value FROM scores s JOIN measures m "
    "ON m.id = s.measure_id ORDER BY 1, 2",
    "outcomes": "SELECT round, measure, outcome, n FROM outcomes ORDER BY 1, 2, 3",
    "rater_sums": "SELECT rater, label, ratings, missing, total, compared, round(deviation, 6), "
    "round(deviation_squares, 6) FROM rater_sums ORDER BY 1, 2",
    "agent_sums": "SELECT s.agent, m.name, s.n, round(s.total, 6) FROM agent_sums s "
    "JOIN measures m ON m.id = s.measure_id ORDER BY 1, 2",
    "call_sums": "SELECT f.name, s.model_id, s.status, s.calls, s.tokens_in, s.tokens_out "
    "FROM call_sums s JOIN forms f ON f.id = s.form_id ORDER BY 1, 2, 3",
    "recalled": "SELECT c.episode_id, f.name, c.agent, c.turn, c.attempt, t.text, "
    "round(c.distance, 6) FROM calls c JOIN forms f ON f.id = c.form_id "
    "LEFT JOIN memories m ON m.id = c.memory_id AND m.agent = c.agent "
    "LEFT JOIN texts t ON t.id = m.text_id ORDER BY 1, 2, 3, 4, 5",
}
"""What must be equal in two runs with the same result, beside what their digest covers."""


def _config(kind: str, folder: Path, *settings: str) -> Config:
    preset, own = KINDS[kind]
    backend = folder / "server.py"
    backend.write_text(BACKEND, encoding="utf-8")
    served = [f"models.{role}.backend={backend}" for role in ("social", "observer")]
    return load_config(preset, [*own, *served, *settings])


def _start(kind: str, folder: Path, name: str, *settings: str) -> Address:
    config = _config(kind, folder, f"name={name}", *settings)
    return create(prepare(config), str(folder / f"{name}.db"))


def _dump(database: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(database)) as connection:
        return {name: connection.execute(query).fetchall() for name, query in DUMPS.items()}


def _play(address: Address, folder: Path, **options: Any) -> Any:
    return api.resume(address, allow=[folder / "server.py"], **options)


def _same(folder: Path, one: str, other: str) -> None:
    mended, calm = _dump(folder / f"{one}.db"), _dump(folder / f"{other}.db")
    for name in DUMPS:
        assert mended[name] == calm[name], name
    for words in ("friend", "money", "tell", "refuse"):
        found = []
        for name in (one, other):
            with api.open_run(str(folder / f"{name}.db")) as reader:
                found.append([row.episode for row in found_exchanges(reader, words, None, 1000)])
        assert found[0] == found[1], words


@pytest.mark.parametrize(
    "share", [pytest.param(share, marks=pytest.mark.long) for share in (3, 40)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_an_undisturbed_run(tmp_path: Path, kind: str, share: int) -> None:
    calm = _play(_start(kind, tmp_path, "calm"), tmp_path)
    address = _start(kind, tmp_path, "run")
    (tmp_path / "broken").write_text(str(share))
    broken = _play(address, tmp_path)
    assert broken.status == "done"
    assert broken.calls_failed > 0
    assert broken.digest != calm.digest
    (tmp_path / "broken").unlink()
    mended = _play(address, tmp_path, retry_failed=True)
    assert (mended.status, mended.digest) == ("done", calm.digest)
    assert (mended.calls, mended.calls_failed) == (calm.calls, calm.calls_failed)
    assert mended.calls_replayed > 0
    _same(tmp_path, "run", "calm")
    assert api.verify(address, allow=[tmp_path / "server.py"]).agrees
    if not calm.calls_failed:
        again = _play(address, tmp_path, retry_failed=True)
        assert (again.digest, again.calls_replayed) == (calm.digest, 0)


def test_calls_that_fail_once_more_stay_failed(tmp_path: Path) -> None:
    address = _start("grid", tmp_path, "run")
    (tmp_path / "broken").write_text("10")
    before = _play(address, tmp_path)
    after = _play(address, tmp_path, retry_failed=True)
    assert (after.digest, after.calls) == (before.digest, before.calls)
    assert after.calls_failed == before.calls_failed
    assert after.calls_replayed == before.calls - before.calls_failed
    assert api.verify(address, allow=[tmp_path / "server.py"]).agrees


def test_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    """One rating is missing in the last round: all else is replayed."""
    address = _start("grid", tmp_path, "run")
    (tmp_path / "broken").write_text("100")
    first = _play(address, tmp_path, budget=Budget(calls=1))
    assert first.calls_failed == 1
    (tmp_path / "broken").unlink()
    calm = _play(_start("grid", tmp_path, "calm"), tmp_path)
    _play(address, tmp_path)
    mended = _play(address, tmp_path, retry_failed=True)
    assert mended.digest == calm.digest


def test_unparseable_replies_can_be_requested_again(tmp_path: Path) -> None:
    calm = _play(_start("grid", tmp_path, "calm"), tmp_path)
    address = _start("grid", tmp_path, "run")
    (tmp_path / "mumbling").touch()
    assert _play(address, tmp_path).unparsed > 0
    (tmp_path / "mumbling").unlink()
    assert _play(address, tmp_path, retry_failed=True).unparsed > 0
    mended = _play(address, tmp_path, retry_unparsed=True)
    assert (mended.unparsed, mended.digest, mended.calls) == (0, calm.digest, calm.calls)


def test_an_unfinished_run_is_mended_too(tmp_path: Path) -> None:
    calm = _play(_start("grid", tmp_path, "calm"), tmp_path)
    address = _start("grid", tmp_path, "run")
    (tmp_path / "broken").write_text("20")
    assert _play(address, tmp_path, budget=Budget(calls=200)).status == "interrupted"
    (tmp_path / "broken").unlink()
    part = _play(address, tmp_path, retry_failed=True, budget=Budget(calls=40))
    assert part.status == "interrupted"
    assert part.calls_failed == 0
    assert _play(address, tmp_path).digest == calm.digest
    _same(tmp_path, "run", "calm")


def test_a_fork_keeps_the_rounds_that_it_copied(tmp_path: Path) -> None:
    address = _start("grid", tmp_path, "run")
    (tmp_path / "broken").write_text("10")
    _play(address, tmp_path)
    allow = [tmp_path / "server.py"]
    fork = api.fork(address, 1, name="fork", db=tmp_path / "fork.db", allow=allow)
    _play(fork, tmp_path)
    (tmp_path / "broken").unlink()
    mended = _play(fork, tmp_path, retry_failed=True)
    assert mended.calls_failed > 0, "those of the copied rounds"
    assert api.verify(fork, allow=allow).agrees
    again = _play(fork, tmp_path, retry_failed=True)
    assert (again.digest, again.calls_replayed) == (mended.digest, 0)


@pytest.mark.parametrize("kind", ["grid", pytest.param("scene", marks=pytest.mark.long)])
@pytest.mark.long
def test_a_kill_at_any_time_loses_nothing(tmp_path: Path, kind: str, kills: int) -> None:
    slow = "models.social.latency={first_token: 0.004, per_token: 0.0001, capacity: 16}"
    calm = _play(_start(kind, tmp_path, "calm"), tmp_path)
    address = _start(kind, tmp_path, "run", slow)
    (tmp_path / "broken").write_text("30")
    _play(address, tmp_path)
    (tmp_path / "broken").unlink()
    chance = random.Random(kind)
    command = [sys.executable, str(ROOT / "run_sim.py"), "resume", "run.db"]
    options = ["--backend", "server.py"]
    for number in range(max(2, kills // 2)):
        retry = ["--retry-failed"] if number == 0 else []
        process = subprocess.Popen(
            [*command, *options, *retry], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        time.sleep(chance.uniform(1.0, 1.8))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
    done = program(tmp_path, "resume", "run.db", *options, "--retry-failed", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["digest"], outcome["calls"]) == (calm.digest, calm.calls)
    _same(tmp_path, "run", "calm")


def test_the_terminal_names_the_command(tmp_path: Path) -> None:
    _start("grid", tmp_path, "run")
    (tmp_path / "broken").write_text("10")
    files = ("--backend", "server.py")
    first = program(tmp_path, "resume", "run.db", *files)
    assert first.returncode == 0
    assert "request them again with: " in first.stderr
    assert "--retry-failed" in first.stderr
    (tmp_path / "broken").unlink()
    second = program(tmp_path, "resume", "run.db", *files, "--retry-failed", "--json")
    assert json.loads(second.stdout)["calls_failed"] == 0
    third = program(tmp_path, "resume", "run.db", *files, "--retry-failed")
    assert third.returncode == 0
    assert "there is no call to request again" in third.stderr
    assert len(third.stderr.strip().splitlines()) == 1


def test_a_run_in_which_nothing_failed_stays_as_it_is(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    done = resume(address)
    again = api.resume(address, retry_failed=True, retry_unparsed=True)
    assert (again.digest, again.calls_replayed) == (done.digest, 0)
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
