"""The README is true: its commands run as it prints them, and its keys are all there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from pydantic import BaseModel

from sandbox.cli import app
from sandbox.config import Config, MemoryConfig, Schedule, load_config
from worlds.grid import Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, with a `python` that is this one."""
    place = tmp_path_factory.mktemp("clone")
    for name in ("run_sim.py", "worlds", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    (place / "bin").mkdir()
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    (place / "mine.yaml").write_text(_blocks("yaml")[0], encoding="utf-8")
    return place


def test_the_commands_run(folder: Path) -> None:
    """All but the two that install, which .ci/run takes from the README itself."""
    blocks = [block for block in _blocks("bash") if "pip install" not in block]
    assert len(blocks) >= 4
    script = "set -e\n" + "".join(blocks)
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    first = "python run_sim.py run\n"
    done = subprocess.run(
        ["bash", "-c", script.replace("set -e\n", f"set -e\n{first}")],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = _blocks("python")[0]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "done" in done.stdout


def test_two_commands_set_everything_up() -> None:
    endings = [
        block.strip().split("&& ", 1)[1] for block in _blocks("bash") if "pip install" in block
    ]
    assert endings == [
        "pip install -e . && python run_sim.py run",
        "pip install -e '.[test]' && pytest",
    ]


@pytest.mark.parametrize(
    ("part", "model"),
    [(None, Config), ("world", Settings), ("memory", MemoryConfig), ("schedule", Schedule)],
)
def test_every_key_is_listed(part: str | None, model: type[BaseModel]) -> None:
    data = yaml.safe_load(_blocks("yaml")[0])
    listed = set(data[part] if part else data)
    assert set(model.model_fields) - listed <= {"forms"}
    assert listed <= set(model.model_fields)
    assert "forms:" in README


def test_the_config_is_one(folder: Path) -> None:
    assert load_config(folder / "mine.yaml").name == "mine"


def test_every_verb_is_documented() -> None:
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert f"| `{name}" in README, f"the README's table lacks {name}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
