"""Replicas in child processes: the same run, errors as they are, deaths, cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Make, small

from agents.forms import CallName, FreeText
from sandbox.backends import backend_of, kind_of
from sandbox.backends.base import BackendDown, Call, CallFailed, Reply, Resting, Unavailable
from sandbox.backends.replicas.messages import decode_batch, encode_batch, encode_results
from sandbox.backends.replicas.pool import ReplicaPool
from storage.errors import InputError

BACKEND = """
import asyncio, os, sys
from pathlib import Path
from typing import Literal
from sandbox.backends.base import *

class Config(ModelSettings):
    folder: str = ""
    broken: bool = False

class Backend:
    model = "telling"

    def __init__(self, config):
        self.config = config
        self.asked = 0

    async def start(self):
        print("this is no frame")
        if self.config.broken:
            raise BackendDown("the model is broken")

    async def answer(self, call):
        self.asked += 1
        return await getattr(self, call.user, self.tell)()

    async def tell(self):
        return Reply(str(os.getpid()), tokens_in=self.asked)

    async def slow(self):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            Path(self.config.folder, "cancelled").touch()
            raise

    async def nap(self):
        await asyncio.sleep(1)
        return Reply(str(os.getpid()))

    async def busy(self):
        raise Unavailable("full", 2.5, asked=True, busy=True)

    async def resting(self):
        raise Resting("all rest", 1.5)

    async def refuse(self):
        raise CallFailed("not this one")

    async def down(self):
        raise BackendDown("no credit")

    async def bug(self):
        return {}["key"]

    async def odd(self):
        return lambda: None

    async def close(self):
        Path(self.config.folder, f"closed-{os.getpid()}").touch()
"""


def call(user: str = "tell", episode: int = 0) -> Call:
    name = CallName(0, episode, "draft", 1)
    return Call(name, 1, "", user, FreeText(), 10, 1.0)


Use = Callable[[ReplicaPool], Awaitable[Any]]


@pytest.fixture
def used(tmp_path: Path) -> Callable[..., Any]:
    """Start replicas of the backend above, use them and close them."""
    file = tmp_path / "telling.py"
    file.write_text(BACKEND, encoding="utf-8")

    def run(use: Use, **settings: Any) -> Any:
        given = {"replicas": 1, "on": "processes", "folder": str(tmp_path), **settings}
        backend = backend_of(
            kind_of(str(file)).settings.model_validate(given | {"backend": str(file)})
        )
        assert isinstance(backend, ReplicaPool)

        async def work() -> Any:
            try:
                await backend.start()
                return await use(backend)
            finally:
                await backend.close()

        return asyncio.run(work())

    return run


def test_a_run_on_two_replicas_has_the_digest_of_one_backend(make: Make) -> None:
    here = make(name="here")[1]
    models = "{backend: scripted, replicas: 2, on: processes}"
    spread = make(f"models.social={models}", f"models.observer={models}", name="spread")[1]
    assert (spread.status, spread.digest) == ("done", here.digest)
    assert spread.calls == here.calls


def test_errors_arrive_with_their_attributes(used: Callable[..., Any]) -> None:
    async def use(pool: ReplicaPool) -> list[Any]:
        asked = [pool.answer(call(user)) for user in ("busy", "resting", "refuse", "bug", "odd")]
        return await asyncio.gather(*asked, return_exceptions=True)

    busy, resting, refused, bug, odd = used(use)
    assert type(busy) is Unavailable and str(busy) == "full"
    assert (busy.after, busy.asked, busy.busy) == (2.5, True, True)
    assert type(resting) is Resting and resting.after == 1.5
    assert type(refused) is CallFailed and str(refused) == "not this one"
    assert type(bug) is CallFailed and str(bug) == "the backend raised KeyError: 'key'"
    assert type(odd) is CallFailed and "returned function" in str(odd)


def test_an_episode_stays_at_its_replica_unless_that_is_much_busier(
    used: Callable[..., Any],
) -> None:
    async def use(pool: ReplicaPool) -> tuple[list[str], set[str]]:
        told = [(await pool.answer(call(episode=number % 2))).text for number in range(10)]
        many = await asyncio.gather(*(pool.answer(call("nap")) for _ in range(40)))
        return told, {reply.text for reply in many}

    told, crowd = used(use, replicas=2)
    assert len(set(told)) == 2
    assert told == told[:2] * 5
    assert crowd == set(told)


def test_a_cancelled_call_is_cancelled_in_its_replica(
    used: Callable[..., Any], tmp_path: Path
) -> None:
    async def use(pool: ReplicaPool) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await pool.answer(call("slow"))
        for _ in range(100):
            if (tmp_path / "cancelled").exists():
                return
            await asyncio.sleep(0.05)

    used(use)
    assert (tmp_path / "cancelled").exists()


def test_a_replica_that_dies_is_started_again_a_limited_number_of_times(
    used: Callable[..., Any],
) -> None:
    async def ready(pool: ReplicaPool) -> int:
        while True:
            try:
                return int((await pool.answer(call())).text)
            except Resting:
                await asyncio.sleep(0.05)

    async def use(pool: ReplicaPool) -> list[int]:
        lives = []
        for _ in range(2):
            pid = await ready(pool)
            lives.append(pid)
            flying = [asyncio.ensure_future(pool.answer(call("slow"))) for _ in range(3)]
            await asyncio.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            died = await asyncio.gather(*flying, return_exceptions=True)
            assert {type(error) for error in died} <= {Unavailable, BackendDown}
        with pytest.raises(BackendDown, match="died 2 times"):
            await ready(pool)
        return lives

    assert len(set(used(use, ray={"max_restarts": 1}))) == 2


def test_a_backend_that_is_down_in_one_replica_leaves_the_others(
    used: Callable[..., Any],
) -> None:
    async def use(pool: ReplicaPool) -> str:
        with pytest.raises(Unavailable, match="no credit"):
            await pool.answer(call("down"))
        left = (await pool.answer(call())).text
        with pytest.raises(BackendDown, match="no credit"):
            await pool.answer(call("down"))
        with pytest.raises(BackendDown, match="no credit"):
            await pool.answer(call())
        return left

    assert int(used(use, replicas=2)) > 0


def test_a_backend_that_cannot_be_started_says_why(used: Callable[..., Any]) -> None:
    async def use(pool: ReplicaPool) -> None:
        pytest.fail("it was started")

    with pytest.raises(BackendDown, match="the model is broken"):
        used(use, broken=True)


def test_replicas_close_their_backends(used: Callable[..., Any], tmp_path: Path) -> None:
    async def use(pool: ReplicaPool) -> list[int]:
        assert all(one.environment["sandbox-society"] for one in pool.started())
        return [one.process for one in pool.started()]

    processes = used(use, replicas=2)
    assert len(processes) == 2
    for process in processes:
        assert (tmp_path / f"closed-{process}").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_replicas_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio\n"
        "from sandbox.backends import backend_of\n"
        "from sandbox.backends.scripted import ScriptedConfig\n"
        "settings = dict(backend='scripted', replicas=2, on='processes')\n"
        "async def main():\n"
        "    pool = backend_of(ScriptedConfig.model_validate(settings))\n"
        "    await pool.start()\n"
        "    print(*(one.process for one in pool.started()), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    processes = [int(word) for word in driver.stdout.readline().split()]
    assert len(processes) == 2
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in processes):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


def test_calls_that_cannot_be_read_or_written_fail_alone() -> None:
    batch = decode_batch(encode_batch({4: call(), 7: call()}, [2]))
    assert (batch.calls[7], batch.cancelled) == (call(), [2])
    spoilt = encode_batch({4: call()}, []).replace(
        b"sandbox.backends.base", b"sandbox.backends.bose"
    )
    assert isinstance(decode_batch(spoilt).calls[4], CallFailed)
    assert b"cannot be sent" in encode_results({1: Reply("good"), 2: lambda: None})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{backend: scripted, replicas: 2}", "replicas: found 2; expected: `on: processes`"),
        ("{backend: scripted, replicas: 0, on: ray}", "replicas: found 0"),
        ("{backend: scripted, on: mars}", 'on: found "mars"'),
        ("{backend: scripted, on: processes, ray: {pool: a}}", 'ray: found "pool a"'),
        ("{backend: scripted, on: ray, ray: {num_gpus: 1.5}}", "num_gpus: found 1.5"),
        ("{backend: scripted, on: ray, ray: {address: 'ray://a:1'}}", "ray.address: found"),
        ("{backend: scripted, replicas: 4, on: ray, ray: {max_replicas: 2}}", "max_replicas 2"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        small(f"models.social={settings}")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
