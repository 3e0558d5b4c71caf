"""Replicas on Ray: real clusters on this machine, and vLLM with a tiny model in their actors."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, missing

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # that of these clusters, and of no other
}
pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def _ray() -> None:
    if importlib.util.find_spec("ray") is None:
        missing("Ray is not installed: pip install -e '.[ray]'", "vllm")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Cluster:
    """Nodes of a cluster on this machine; each has processes of its own."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets have short paths
        self.address = f"127.0.0.1:{_free_port()}"
        self._nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.partition(":")[2]
        self._begin(
            2, "--head", f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false"
        )

    def add(self, cpus: int) -> None:
        """Let a node join."""
        self._begin(cpus, f"--address={self.address}")

    def _begin(self, cpus: int, *options: str) -> None:
        script = str(Path(sys.executable).parent / "ray")
        command = [script, "start", "--block", f"--num-cpus={cpus}", "--num-gpus=0"]
        command += ["--object-store-memory=80000000", *options]
        node = subprocess.Popen(
            command, env=os.environ | QUIET, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._nodes.append(node)
        deadline = time.monotonic() + 60
        while len(self._alive()) < len(self._nodes) and time.monotonic() < deadline:
            assert node.poll() is None, "the node did not start"
            time.sleep(0.3)

    def _alive(self) -> list[int]:
        listed = subprocess.run(
            ["pgrep", "-f", f"raylet/raylet .*{self.folder}"], capture_output=True
        )
        return listed.stdout.decode().split()

    def kill(self) -> None:
        """Kill all processes of all nodes at once."""
        for pid in processes(self.folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        self.kill()
        for node in self._nodes:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def processes(pattern: str) -> list[int]:
    listed = subprocess.run(["pgrep", "-f", pattern], capture_output=True)
    return [pid for pid in map(int, listed.stdout.split()) if pid != os.getpid()]


def actors(cluster: Cluster) -> list[int]:
    """The processes of replicas on a cluster."""
    nodes = set(processes(f"raylet/raylet .*{cluster.folder}"))
    return [pid for pid in processes("^ray::ReplicaActor") if _parent(pid) in nodes]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return None


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.end()


def model(cluster: Cluster, ray: dict[str, Any] | None = None, **more: Any) -> str:
    """Settings of replicas of the scripted backend."""
    where = {"address": cluster.address, **(ray or {})}
    return json.dumps({"backend": "scripted", "replicas": 2, "on": "ray", "ray": where, **more})


SCRIPTED = ("question_count=9", "memory.prior_pairs=5", "world.size=5", "rounds=4")


def command(name: str, social: str, *more: str, scripted: bool = True) -> list[str]:
    """The command line of a run whose roles share a model."""
    pairs = [*SCRIPTED, f"models.social={social}", f"models.observer={social}", *more]
    settings = [part for pair in pairs for part in ("--set", pair)]
    return [sys.executable, str(ROOT / "run_sim.py"), "run", "--json", "--name", name, *settings]


def started(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, cwd=folder, env=os.environ | QUIET, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(folder: Path, arguments: list[str], status: int = 0) -> dict[str, Any]:
    """Run a command and parse its JSON."""
    return ended(started(folder, arguments), status)


def ended(process: subprocess.Popen[str], status: int = 0) -> dict[str, Any]:
    output, errors = process.communicate(timeout=900)
    assert process.returncode == status, output + errors
    found: dict[str, Any] = json.loads(output)
    return found | {"stderr": errors}


def verb(folder: Path, verb: str, name: str, *more: str) -> dict[str, Any]:
    return done(folder, [sys.executable, str(ROOT / "run_sim.py"), verb, name, "--json", *more])


def rows(folder: Path, name: str, query: str) -> list[Any]:
    with sqlite3.connect(folder / "runs" / f"{name}.db") as connection:
        return connection.execute(query).fetchall()


def calls(folder: Path, name: str) -> int:
    try:
        return int(rows(folder, name, "SELECT count(*) FROM calls")[0][0])
    except sqlite3.OperationalError:
        return 0


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


SLOW = {"latency": {"first_token": 0.4, "per_token": 0, "capacity": 8}}
TWICE = (
    "SELECT count(*) FROM (SELECT 1 FROM calls GROUP BY episode_id, form_id, agent, turn, attempt "
    "HAVING count(*) > 1)"
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run in one process."""
    return done(tmp_path_factory.mktemp("here"), command("here", "{backend: scripted}"))


def test_ray_is_started_where_there_is_none_and_prints_nothing(
    tmp_path: Path, here: dict[str, Any]
) -> None:
    local = json.dumps({"backend": "scripted", "on": "ray", "ray": {"address": "local"}})
    made = done(tmp_path, command("local", local))
    assert (made["status"], made["digest"]) == ("done", here["digest"])
    lines = made["stderr"].splitlines()
    assert not [line for line in lines if "ray" in line.lower() and "replicas" not in line]


def test_a_replica_is_killed_and_one_joins_in_mid_run(
    tmp_path: Path, cluster: Cluster, here: dict[str, Any]
) -> None:
    run = started(tmp_path, command("run", model(cluster, {"max_replicas": 3}, **SLOW)))
    until(lambda: calls(tmp_path, "run") > 50)
    assert len(actors(cluster)) == 2
    os.kill(actors(cluster)[0], signal.SIGKILL)
    cluster.add(1)
    until(lambda: len(actors(cluster)) == 3)
    made = ended(run)
    assert (made["status"], made["digest"]) == ("done", here["digest"])
    assert made["calls"] == here["calls"] == calls(tmp_path, "run")
    assert "replica" in made["stderr"] and "died" in made["stderr"]
    assert rows(tmp_path, "run", TWICE) == [(0,)]
    assert verb(tmp_path, "verify", "run")["agrees"]
    until(lambda: not actors(cluster), 20)


def test_more_replicas_than_a_cluster_has_room_for_are_refused_at_once(
    tmp_path: Path, cluster: Cluster
) -> None:
    began = time.monotonic()
    refused = done(tmp_path, command("wide", model(cluster, replicas=3)), 2)
    assert time.monotonic() - began < 20
    assert "replicas: found 3 of 1 CPU each" in refused["error"]
    assert "has 2 CPUs and 0 GPUs on 1 node; expected at most 2" in refused["error"]
    gpu = done(tmp_path, command("gpu", model(cluster, {"num_gpus": 0.5})), 2)
    assert "found 2 of 0.5 GPU each" in gpu["error"] and "at most 0" in gpu["error"]
    nowhere = done(tmp_path, command("nowhere", model(cluster, {"address": "127.0.0.1:9"})), 2)
    assert "127.0.0.1:9, where no Ray cluster answers" in nowhere["error"]
    assert not (tmp_path / "runs").exists()
    resumable = done(tmp_path, [*command("less", model(cluster)), "--max-calls", "20"], 130)
    assert resumable["status"] == "interrupted"
    changed = ("--set", "models.social.replicas=1", "--set", "models.observer.replicas=1")
    assert verb(tmp_path, "resume", "less", *changed)["status"] == "done"


def test_a_cluster_that_is_gone_ends_a_run_that_can_be_resumed(
    tmp_path: Path, cluster: Cluster, here: dict[str, Any]
) -> None:
    run = started(tmp_path, command("gone", model(cluster, **SLOW)))
    until(lambda: calls(tmp_path, "gone") > 50)
    cluster.kill()
    stopped = ended(run, 1)
    assert "the cluster at" in stopped["message"] and "is gone" in stopped["message"]
    elsewhere = [
        part
        for role in ("social", "observer")
        for part in ("--set", f"models.{role}.on=here", "--set", f"models.{role}.replicas=1")
    ]
    assert verb(tmp_path, "resume", "gone", *elsewhere)["digest"] == here["digest"]


def test_actors_end_with_a_driver_that_is_killed(tmp_path: Path, cluster: Cluster) -> None:
    run = started(tmp_path, command("run", model(cluster, **SLOW)))
    until(lambda: calls(tmp_path, "run") > 50)
    run.kill()
    run.communicate()
    until(lambda: not actors(cluster), 30)


def test_runs_of_a_pool_share_replicas_that_end_after_the_last(
    tmp_path: Path, cluster: Cluster, here: dict[str, Any]
) -> None:
    shared = model(cluster, {"pool": "study", "linger": 20}, **SLOW)
    runs = [started(tmp_path, command(name, shared)) for name in ("a", "b")]
    until(lambda: calls(tmp_path, "a") > 50 and calls(tmp_path, "b") > 50)
    assert len(actors(cluster)) == 2
    assert [ended(run)["digest"] for run in runs] == [here["digest"]] * 2
    assert len(actors(cluster)) == 2
    until(lambda: not actors(cluster), 90)


SOCIETY = ("rounds=2", "world.raters=2", "question_count=50")
ENGINE = {"dtype": "float32", "max_model_len": 2048}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of vLLM with a tiny model."""
    if importlib.util.find_spec("vllm") is None:
        missing("vLLM is not installed: see the README", "vllm")
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny_model.py"), folder], check=True)
    model = {"backend": "vllm", "model": str(folder / "model"), "extra": ENGINE}
    return {**model, "max_tokens": 120}


def test_replicas_of_vllm_have_the_digest_of_one_engine(
    tmp_path: Path, cluster: Cluster, engine: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """`--side 20` plays 400 agents."""
    society = (f"world.size={request.config.getoption('--side')}", *SOCIETY)
    alone = done(tmp_path, command("alone", json.dumps(engine), *society))
    spread = model(cluster, {"max_replicas": 3}, **engine)
    run = started(tmp_path, command("spread", spread, *society))
    until(lambda: calls(tmp_path, "spread") > 0, 300)
    first, _ = actors(cluster)
    cluster.add(1)  # whose engine joins if the society is large enough to last so long
    until(lambda: calls(tmp_path, "spread") > alone["calls"] // 4, 300)
    os.kill(first, signal.SIGKILL)
    made = ended(run)
    assert (made["status"], made["digest"]) == ("done", alone["digest"])
    assert made["calls"] == alone["calls"] == calls(tmp_path, "spread")
    assert made["calls_failed"] == 0
    assert rows(tmp_path, "spread", TWICE) == [(0,)]
    assert verb(tmp_path, "verify", "spread")["digest"] == alone["digest"]
