"""Sessions: what `resume` can set, what it refuses, and the history of a run."""

from __future__ import annotations

import json
import platform
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, Make, small
from program import program
from viewing import serving

from sandbox import __version__, api
from sandbox.backends.scripted import ScriptedBackend, ScriptedConfig
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.engine.settings import without_secrets
from sandbox.reading.runs import open_run
from sandbox.reading.sessions import Session, environments, sessions
from storage.database import Address
from storage.errors import InputError

SERVER = '''\
"""A server with OpenAI's interface: the scripted model behind HTTP."""

import asyncio, json, sys
from aiohttp import web

async def models(request):
    return web.json_response({"data": [{"id": "m"}]})

async def chat(request):
    body = await request.json()
    text = "\\n".join(message["content"] for message in body["messages"])
    said = "Rating: 4\\nReason: it is kind." if "Reason:" in text else f"I would wait. {len(text)}"
    choice = {"message": {"content": said}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice], "usage": {}})

app = web.Application()
app.router.add_get("/v1/models", models)
app.router.add_post("/v1/chat/completions", chat)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
'''


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server with a model."""
    port = _port()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
    try:
        for _ in range(200):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _history(address: Address) -> list[Session]:
    with api.open_run(address) as reader:
        return sessions(reader, address)


def _set(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_a_run_whose_server_was_named_wrongly_is_mended(tmp_path: Path, server: str) -> None:
    dead = f"http://127.0.0.1:{_port()}"
    model = json.dumps({"backend": "openai", "model": "m", "base_url": dead, "retries": 0})
    group = json.dumps({"label": "bad", "model": json.loads(model)})
    named = _set(
        *SMALL[:1],
        "rounds=1",
        f"models.social={model}",
        f"models.observer={model}",
        f"models.groups.bad={group}",
    )
    failed = program(tmp_path, "run", "--name", "it", *named)
    assert failed.returncode == 1, failed.stderr
    assert "resume it (at another address: --set models.social.base_url=URL" in failed.stderr
    keys = (
        "models.social.base_url",
        "models.observer.base_url",
        "models.groups.bad.model.base_url",
    )
    one = program(tmp_path, "resume", "it", *_set(f"{keys[0]}={server}"))
    assert one.returncode == 1, "the other roles still have the old address"
    done = program(tmp_path, "resume", "it", *_set(*(f"{key}={server}" for key in keys)), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    shown = json.loads(program(tmp_path, "inspect", "it", "sessions", "--json").stdout)
    assert [one["status"] for one in shown["sessions"]] == ["failed", "failed", "done"]
    assert shown["sessions"][1]["changes"] == {keys[0]: [dead, server]}
    assert shown["sessions"][2]["changes"] == {key: [dead, server] for key in keys[1:]}
    status = json.loads(program(tmp_path, "status", "it", "--json").stdout)
    assert status["runs"][0]["sessions"] == shown["sessions"]
    assert json.loads(program(tmp_path, "verify", "it", "--json").stdout)["agrees"]
    with closing(sqlite3.connect(tmp_path / "runs" / "it.db")) as connection:
        (config,) = connection.execute("SELECT config FROM runs").fetchone()
        stored = connection.execute("SELECT settings FROM models").fetchall()
    assert dead not in config
    assert all(json.loads(row[0])["base_url"] == server for row in stored)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("models.social.temperature=0.5", "models.social.temperature"),
        ("models.observer.max_tokens=9", "models.observer.max_tokens"),
        ("models.social.misbehave=0.5", "models.social.misbehave"),
        ("models.social.backend=openai", "models.social.backend"),
        ("seed=8", "seed"),
        ("world.raters=2", "world.raters"),
        ("memory.threshold=0.2", "memory.threshold"),
        ("attempts=3", "attempts"),
        ("forms=./forms.yaml", "forms"),
        ("stop.patience=2", "stop.patience"),
        ("models.groups.other={label: bad, model: {backend: scripted}}", "models.groups.other"),
        ("scales.honesty={low: 1, high: 5, ask: How honest}", "scales.honesty"),
    ],
)
def test_what_changes_what_is_said_is_refused(make: Make, setting: str, key: str) -> None:
    address, done = make()
    with pytest.raises(InputError) as refused:
        api.resume(address, rounds=4, settings=[setting])
    message = str(refused.value)
    assert "\n" not in message
    assert key in message
    assert "changes what is said" in message
    assert "fork run --at ROUND --set " in message
    assert api.resume(address).digest == done.digest


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("models.social.base_ulr=http://x", "base_ulr: unknown key"),
        ("models.social.timeout=-1", "models.social.timeout: found -1"),
        ("schedule.max_in_flight=many", 'schedule.max_in_flight: found "many"'),
        ("schedule.max_in_flight", "expected a.b=value"),
        ("rounds=9", "expected --rounds"),
        ("name=other", "a run keeps its own"),
    ],
)
def test_invalid_settings_change_nothing(make: Make, setting: str, words: str) -> None:
    address, done = make()
    with pytest.raises(InputError) as refused:
        api.resume(address, rounds=4, settings=[setting])
    assert words in str(refused.value)
    assert api.resume(address).digest == done.digest
    assert len(_history(address)) == 1


def test_what_can_be_set_is_stored_and_changes_no_result(tmp_path: Path) -> None:
    calm = api.resume(create(prepare(small()), str(tmp_path / "calm.db")))
    address = create(prepare(small()), str(tmp_path / "run.db"))
    api.resume(address, budget=Budget(calls=100))
    changed: dict[str, Any] = {
        "schedule.max_in_flight": 3,
        "schedule.order": "lock_step",
        "models.social.timeout": 60,
        "models.observer.retries": 1,
        "models.social.latency": {"first_token": 0.001, "per_token": 0, "capacity": 4},
    }
    part = api.resume(address, settings=changed, budget=Budget(calls=50))
    assert part.status == "interrupted"
    done = api.resume(address)
    assert done.digest == calm.digest
    assert api.verify(address).agrees
    first, second, third = _history(address)
    assert (first.changes, third.changes) == ({}, {})
    assert second.changes["schedule.max_in_flight"] == [1024, 3]
    assert second.changes["models.social.timeout"] == [None, 60]
    assert second.calls == 50
    assert first.calls + second.calls + third.calls == calm.calls
    assert "schedule.max_in_flight: 1024 \u2192 3" in second.changed
    longer = api.resume(address, rounds=4)
    assert longer.rounds == 4
    assert _history(address)[-1].changes == {"rounds": [3, 4]}


def test_a_backend_of_ones_own_names_its_keys(tmp_path: Path) -> None:
    backend = tmp_path / "own.py"
    backend.write_text(
        "from typing import ClassVar\n"
        "from sandbox.backends import scripted\n"
        "class Config(scripted.ScriptedConfig):\n"
        "    transport: ClassVar[tuple[str, ...]] = ('host', 'options')\n"
        "    backend: str\n"
        "    host: str = 'a'\n"
        "    options: dict[str, str] = {}\n"
        "    style: str = 'plain'\n"
        "class Backend(scripted.ScriptedBackend):\n"
        "    pass\n"
    )
    config = small(f"models.social.backend={backend}")
    address = create(prepare(config), str(tmp_path / "run.db"))
    options: dict[str, Any] = {"allow": [backend], "budget": Budget(calls=10)}
    api.resume(address, settings={"models.social.host": "b"}, **options)
    api.resume(address, settings={"models.social.options": {"zone": "c"}}, **options)
    api.resume(address, settings={"models.social.timeout": 9}, **options)
    with pytest.raises(InputError, match=r"models\.social\.style changes what is said"):
        api.resume(address, settings={"models.social.style": "d"}, **options)
    assert [list(one.changes) for one in _history(address)] == [
        ["models.social.host"],
        ["models.social.options.zone"],
        ["models.social.timeout"],
    ]


def test_secrets_are_not_in_the_history() -> None:
    changes = {
        "models.social.headers.X-Auth": ["old", "new"],
        "models.social.proxy": ["http://bob:pw@proxy:1", None],
        "models.social.base_url": [["http://u:p@a/v1", "http://b/v1"], "http://c/v1"],
        "models.social.extra.max_num_batched_tokens": [None, 8],
    }
    assert without_secrets(changes) == {
        "models.social.headers.X-Auth": ["***", "***"],
        "models.social.proxy": ["http://***@proxy:1", None],
        "models.social.base_url": [["http://***@a/v1", "http://b/v1"], "http://c/v1"],
        "models.social.extra.max_num_batched_tokens": [None, 8],
    }


@pytest.mark.long
def test_a_killed_session_is_in_the_history(tmp_path: Path) -> None:
    slow = "models.social.latency={first_token: 0.3, per_token: 0, capacity: 4}"
    create(prepare(small("name=run", slow)), str(tmp_path / "runs" / "run.db"))
    command = [sys.executable, str(ROOT / "run_sim.py"), "resume", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    database = tmp_path / "runs" / "run.db"
    while True:
        with closing(sqlite3.connect(database)) as connection:
            (calls,) = connection.execute("SELECT count(*) FROM calls").fetchone()
        if calls > 30:
            break
        time.sleep(0.05)
    shown = json.loads(program(tmp_path, "inspect", "run", "sessions", "--json").stdout)
    assert [one["status"] for one in shown["sessions"]] == ["running"]
    assert shown["sessions"][0]["calls"] > 0
    process.send_signal(signal.SIGKILL)
    process.wait()
    shown = json.loads(program(tmp_path, "inspect", "run", "sessions", "--json").stdout)
    assert [one["status"] for one in shown["sessions"]] == ["killed"]
    killed = shown["sessions"][0]["calls"]
    assert killed > 30
    assert shown["sessions"][0]["seconds"] is None
    program(tmp_path, "resume", "run", "--set", "models.social.latency=null")
    shown = json.loads(program(tmp_path, "inspect", "run", "sessions", "--json").stdout)
    assert [one["status"] for one in shown["sessions"]] == ["killed", "done"]
    assert shown["sessions"][0]["calls"] == killed
    text = program(tmp_path, "inspect", "run", "sessions").stdout
    assert "killed" in text
    assert "models.social.latency" in text


@pytest.mark.long
def test_pages_and_reports_show_the_history(tmp_path: Path) -> None:
    address = create(prepare(small("name=run")), str(tmp_path / "run.db"))
    api.resume(address, budget=Budget(calls=50))
    api.resume(address, settings={"schedule.max_in_flight": 5})
    for name in ("r.html", "r.md"):
        made = program(tmp_path, "report", "run.db", "--out", name)
        assert made.returncode == 0, made.stderr
        text = (tmp_path / name).read_text(encoding="utf-8").replace("\\", "")
        assert "Sessions" in text
        assert "schedule.max_in_flight" in text
    with serving(tmp_path / "run.db") as site:
        page = site.page("/r/run/about")
    assert "schedule.max_in_flight: 1024 \u2192 5" in page
    assert "the limit of 50 calls is reached" in page


class Telling(ScriptedBackend):
    """A backend that tells what answers, and what no JSON can hold."""

    async def environment(self) -> dict[str, object]:
        return {"engine": "1.2", "arguments": {"dtype": "float32"}}


def test_a_session_stores_what_it_is_played_with(tmp_path: Path) -> None:
    address = create(prepare(small("rounds=1")), str(tmp_path / "run.db"))
    backend = Telling(ScriptedConfig(backend="scripted"))
    resume(address, backends={"social": backend})
    resume(address, rounds=2)
    with open_run(address) as reader:
        first, second = environments(reader)
        told = dict(first.words)
    api.export(str(tmp_path / "run.db"), ["sft"], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert told["python"] == platform.python_version()
    assert told["sandbox-society"] == __version__
    assert told["commit"].removesuffix("-modified") == _head()
    assert told["social model: engine"] == "1.2"
    assert json.loads(told["social model: arguments"]) == {"dtype": "float32"}
    assert "social" not in second.parts and "observer" not in first.parts
    assert (first.sessions, second.sessions) == ([0], [1])
    assert "engine: '1.2'" in card


def _head() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_backend_that_cannot_tell_what_answers_is_named(tmp_path: Path) -> None:
    class Failing(ScriptedBackend):
        async def environment(self) -> dict[str, object]:
            return {"engine": object()}

    address = create(prepare(small("rounds=1")), str(tmp_path / "run.db"))
    resume(address, backends={"observer": Failing(ScriptedConfig(backend="scripted"))})
    with open_run(address) as reader:
        [one] = environments(reader)
    assert "not JSON serializable" in dict(one.words)["observer model: error"]
