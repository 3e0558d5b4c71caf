"""The closed loop on the CPU: real societies, real training, real evaluation, and real kills."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, missing
from tests.test_vllm import QUIET

MOMENTS = ((1, "society", 20), (1, "control", 9), (2, "training", 11), (2, "evaluation", 25))
"""Generation and phase in which a study is killed, and how many seconds after its beginning."""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    for module, kind in (("vllm", "vllm"), ("trl", "trl")):
        if importlib.util.find_spec(module) is None:
            missing(f"{module} is not installed: see docs/generations.md", kind)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, and a study of it that takes a minute a generation."""
    folder = tmp_path_factory.mktemp("loop")
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny_model.py"), folder], check=True)
    society = yaml.safe_load((ROOT / "worlds" / "presets" / "quickstart.yaml").read_text())
    society |= {
        "questions": str(ROOT / "worlds" / "data" / "questions.jsonl"),
        "rounds": 2,
        "world": {"kind": "grid", "size": 4, "raters": 2},
        "memory": {"prior": str(ROOT / "worlds" / "data" / "prior.jsonl"), "prior_pairs": 5},
    }
    learner = {
        "backend": "vllm",
        "model": str(folder / "model"),
        "max_tokens": 160,
        "extra": {"dtype": "float32", "max_model_len": 2048},
    }
    society["models"]["groups"] = {"learners": {"share": 0.5, "model": learner}}
    (folder / "society.yaml").write_text(yaml.safe_dump(society))
    (folder / "held_out.txt").write_text("What is a fair price?\nMay I keep the change?\n")
    study = {
        "name": "tiny",
        "society": "society.yaml",
        "learner": "models.groups.learners.model",
        "export": {"min_rating": 2},
        "train": {"method": "sft", "max_steps": 4, "save_steps": 1, "max_length": 256,
                  "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1},
        "evaluate": {"questions": "held_out.txt", "observers": {"scripted": "scripted"},
                     "pairwise": False},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


def start(place: Path, out: str, count: int = 2) -> subprocess.Popen[str]:
    arguments = ["generations", "study.yaml", "--count", str(count), "--out", out, "--json"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_sim.py"), *arguments],
        cwd=place,
        env=os.environ | QUIET | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    found: dict[str, Any] = json.loads(printed)
    return found


def digests(study: dict[str, Any]) -> list[Any]:
    """What a kill must not change: runs, data, models, scores."""
    models = sorted((Path(study["out"]) / "models").glob("*/model.safetensors"))
    weights = [(path.parent.name, path.read_bytes()) for path in models]
    scores = [(row["model"], row["scale"], row["mean"]) for row in study["evaluation"]["scores"]]
    keys = ("digest", "data", "control_data", "steps")
    return [[[each[key] for key in keys] for each in study["generations"]], weights, scores]


@pytest.fixture(scope="module")
def calm(place: Path) -> dict[str, Any]:
    """A study that nobody disturbs."""
    return finished(start(place, "calm"))


def test_each_generation_plays_the_model_of_the_one_before(
    place: Path, calm: dict[str, Any]
) -> None:
    first, second = calm["generations"]
    assert first["digest"] != second["digest"] and first["data"] != second["data"]
    assert first["rows"] > 0 and first["control_rows"] == min(first["rows"], first["control_rows"])
    names = [model["name"] for model in calm["evaluation"]["models"]]
    assert names == ["start", "control-1", "generation-1", "control-2", "generation-2"]
    with sqlite3.connect(place / "calm/generation-2/society.db") as connection:
        ((config,),) = connection.execute("SELECT config FROM runs").fetchall()
    learner = json.loads(config)["models"]["groups"]["learners"]["model"]
    assert learner["model"] == str(place / "calm/models/generation-1")
    for number in (1, 2):
        told = json.loads((place / f"calm/models/generation-{number}/training.json").read_text())
        wanted = "model" if number == 1 else "calm/models/generation-1"
        assert told["settings"]["model"] == str(place / wanted)
        assert told["report"]["steps"] == 4
        questions = (place / f"calm/models/generation-{number}/questions.jsonl").read_text()
        assert "fair price" not in questions


def test_a_further_generation_is_added_and_another_study_refused(
    place: Path, calm: dict[str, Any]
) -> None:
    again = finished(start(place, "calm"))
    assert digests(again) == digests(calm)
    text = (place / "study.yaml").read_text()
    (place / "study.yaml").write_text(text.replace("min_rating: 2", "min_rating: 3"))
    try:
        process = start(place, "calm")
        _, told = process.communicate(timeout=300)
    finally:
        (place / "study.yaml").write_text(text)
    assert process.returncode == 2
    assert "has a study with export" in told.splitlines()[-1]


def _family(process: int) -> Iterator[int]:
    """A process and all that it has started, from the youngest on."""
    listed = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    for child in map(int, listed.stdout.split()):
        yield from _family(child)
    yield process


def kill_in(place: Path, out: str, generation: int, phase: str, seconds: float) -> bool:
    """Kill the study with all its processes some time after a phase has begun."""
    process = start(place, out)
    assert process.stderr is not None
    wanted = f"generation {generation} of 2: {phase}"
    for line in process.stderr:
        if line.strip() == wanted:
            break
    else:
        process.communicate()
        return False
    time.sleep(seconds)
    family = list(_family(process.pid))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for member in family:
            try:
                os.kill(member, number)
            except ProcessLookupError:
                continue
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_killed_in_every_phase_it_ends_with_the_same_data(
    place: Path, calm: dict[str, Any]
) -> None:
    """Each phase of one of the two generations, at different moments of it."""
    killed = [kill_in(place, "killed", *moment) for moment in MOMENTS]
    assert killed == [True] * 4
    assert digests(finished(start(place, "killed"))) == digests(calm)
