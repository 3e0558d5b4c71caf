"""The run config: typed, read from YAML, passed whole.

Everything wrong in it is one line that names the file, the key, what was found and what was
expected, and is found before anything starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator

from agents.forms import clean
from sandbox.backends import ModelConfig
from storage.errors import InputError
from worlds.base import Settings, kinds, world_of

PRESETS = Path(__file__).resolve().parent.parent / "worlds" / "presets"
QUICKSTART = PRESETS / "quickstart.yaml"
_PATH_KEYS = (("questions",), ("personas",), ("forms",), ("memory", "prior"), ("world", "topology"))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MemoryConfig(_Part):
    """What agents are born with, and what they recall."""

    prior: Path | None = None
    prior_pairs: int = Field(default=50, ge=0)
    threshold: float | None = Field(default=None, gt=0, le=2)
    embedder: Literal["hashed"] = "hashed"
    keep: Literal["all"] | Annotated[int, Field(ge=1)] = "all"

    @property
    def limit(self) -> int | None:
        """How many of the most recent memories can be recalled; None for all."""
        return None if self.keep == "all" else self.keep


class Models(_Part):
    """Who speaks with which model."""

    social: ModelConfig
    observer: ModelConfig


class Schedule(_Part):
    """In which order episodes are played, and how much goes on at once."""

    order: Literal["out_of_order", "lock_step", "sequential"] = "out_of_order"
    max_in_flight: int = Field(default=1024, ge=1)
    max_ahead: int = Field(default=4, ge=1)


class ParetoStop(_Part):
    """Stop once mean alignment times mean engagement has not risen for `patience` rounds."""

    rule: Literal["pareto"] = "pareto"
    patience: int = Field(default=3, ge=1)


class Config(_Part):
    """One run, whole. Paths are absolute once it is loaded."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    seed: int = Field(default=7, ge=0, lt=2**63)
    rounds: int = Field(default=5, ge=1, le=1_000_000)
    questions: Path
    question_count: int | None = Field(default=None, ge=1)
    personas: Path
    forms: Path | None = None
    attempts: int = Field(default=2, ge=1, le=10)
    world: SerializeAsAny[Settings]
    memory: MemoryConfig = MemoryConfig()
    models: Models
    schedule: Schedule = Schedule()
    stop: ParetoStop | None = None

    @field_validator("world", mode="before")
    @classmethod
    def _world(cls, value: Any) -> Settings:
        if isinstance(value, Settings):
            return value
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if kind not in kinds():
            raise ValueError(f"kind: found {kind!r}, expected one of {', '.join(kinds())}")
        return world_of(kind).settings_type.model_validate(value)

    def as_json(self) -> str:
        """The config as a run stores it."""
        return self.model_dump_json()

    @staticmethod
    def from_json(text: str) -> Config:
        """The config of a stored run."""
        return Config.model_validate_json(text)


def load_config(path: Path, settings: Sequence[str] = (), **overrides: Any) -> Config:
    """Read a config.

    Args:
        path: a YAML file; paths in it are relative to it.
        settings: ``a.b=value`` each, as ``--set`` gives them; paths relative to the working folder.
        overrides: top-level keys that win over both.

    Raises:
        InputError: it cannot be read, or something in it cannot work.
    """
    data = _read_yaml(path)
    origin: dict[tuple[str, ...], str] = {}
    _anchor(data, path.resolve().parent)
    for setting in settings:
        key = apply_setting(data, setting)
        origin[key] = f"--set {setting}"
    data.update({key: value for key, value in overrides.items() if value is not None})
    data.setdefault("personas", str(PRESETS.parent / "data" / "personas.jsonl"))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, str(path), origin)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8; expected a YAML config") from None
    try:
        data = yaml.safe_load(clean(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {_short(data)}, expected a YAML mapping of config keys")
    return data


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make the file's relative paths absolute."""
    for *parents, last in _PATH_KEYS:
        part: Any = data
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(part.get(last), str):
            part[last] = _absolute((*parents, last), part[last], folder)


def _absolute(key: tuple[str, ...], value: str, folder: Path) -> str:
    if key == ("world", "topology") and "." not in value and "/" not in value:
        return value  # a generated topology
    return str((folder / Path(value).expanduser()).resolve())


def apply_setting(data: dict[str, Any], setting: str) -> tuple[str, ...]:
    """Put one ``a.b=value`` into the data of a config; returns its key.

    Raises:
        InputError: it has another form.
    """
    name, equals, text = setting.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise InputError(f"--set {setting}: expected a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {setting}: found {_short(text)}, expected a YAML value") from None
    if key in _PATH_KEYS and isinstance(value, str):
        value = _absolute(key, value, Path.cwd())
    part = data
    for parent in key[:-1]:
        if not isinstance(part.setdefault(parent, {}), dict):
            part[parent] = {}
        part = part[parent]
    part[key[-1]] = value
    return key


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def explain(error: ValidationError, path: str, origin: Mapping[tuple[str, ...], str]) -> str:
    """One line for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    key = tuple(
        str(part) for part in first["loc"] if str(part) not in ("scripted", "vllm", "openai")
    )
    place = next((text for at, text in origin.items() if at == key[: len(at)]), path)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{place}: {'.'.join(key)}: unknown key; expected one that the README lists"
    if first["type"] == "missing":
        return f"{place}: {'.'.join(key)}: missing; expected a value"
    message = message[:1].lower() + message[1:]
    return f"{place}: {'.'.join(key)}: found {_short(first['input'])}; expected: {message}"
