"""The run config: typed, read from YAML, passed whole.

Everything wrong in it is one line that names the file, the key, what was found and what was
expected, and is found before anything starts.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from agents.forms import clean
from agents.persona import Label
from agents.plugins import PluginError, is_file, may_load, only_files, unnamed_file
from agents.scale import Better, Scale, Subject
from sandbox.backends import BUILT_IN, ModelConfig, UnloadedSettings, kind_of
from sandbox.backends.embedding import EmbedderSetting
from storage.errors import InputError
from worlds.base import SettingError, Settings, World, kinds, world_of

PRESETS = Path(__file__).resolve().parent.parent / "worlds" / "presets"
QUICKSTART = PRESETS / "quickstart.yaml"
_PATH_BEGINNINGS = ("./", "../", "/", "~")
_PATH_KEYS = (
    ("questions",),
    ("personas",),
    ("forms",),
    ("memory", "prior"),
    ("world", "topology"),
    ("world", "kind"),
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MemoryConfig(_Part):
    """What agents are born with, and what they recall."""

    prior: Path | None = None
    prior_pairs: int = Field(default=50, ge=0)
    threshold: float | None = Field(default=None, gt=0, le=2)
    embedder: EmbedderSetting = "hashed"
    keep: Literal["all"] | Annotated[int, Field(ge=1)] = "all"

    @property
    def limit(self) -> int | None:
        """How many of the most recent memories can be recalled; None for all."""
        return None if self.keep == "all" else self.keep


class Group(_Part):
    """Agents that speak with a model of their own.

    They are those of a label, a share drawn by chance, or those of some numbers.
    """

    model: ModelConfig
    label: Label | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    agents: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_rule(self) -> Group:
        if sum(rule is not None for rule in (self.label, self.share, self.agents)) != 1:
            raise ValueError("either a label, a share or agents, to say who is in the group")
        return self


class Models(_Part):
    """Who speaks with which model."""

    social: ModelConfig
    observer: ModelConfig
    groups: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Group] = {}

    @field_validator("groups")
    @classmethod
    def _groups(cls, value: dict[str, Group]) -> dict[str, Group]:
        for name in ("social", "observer"):
            if name in value:
                raise ValueError(f"another name than {name}, which is a role")
        return value

    def roles(self) -> list[tuple[str, ModelConfig]]:
        """Every role with its settings; a group is a role of its name."""
        groups = [(name, group.model) for name, group in self.groups.items()]
        return [("social", self.social), ("observer", self.observer), *groups]


class Schedule(_Part):
    """In which order episodes are played, and how much goes on at once."""

    order: Literal["out_of_order", "lock_step", "sequential"] = "out_of_order"
    max_in_flight: int = Field(default=1024, ge=1)
    max_ahead: int = Field(default=4, ge=1)


class ParetoStop(_Part):
    """Stop once the product of the scales' means has not risen for `patience` rounds.

    Attributes:
        scales: whose means are multiplied; None: those that the world names.
    """

    rule: Literal["pareto"] = "pareto"
    patience: int = Field(default=3, ge=1)
    scales: tuple[str, ...] | None = Field(default=None, min_length=1)


class ScaleConfig(_Part):
    """A scale that a config adds to its world, or another range for one of the world's scales.

    A new scale needs `low`, `high` and `ask`; see `agents.scale.Scale` for what each key means.
    """

    low: float | None = None
    high: float | None = None
    ask: str | None = Field(default=None, min_length=1)
    integer: bool | None = None
    better: Better | None = None
    subject: Subject | None = None
    stages: tuple[str, ...] | None = None


class UnloadedWorld(Settings):
    """Settings of a world file that a stored run names and that has not been loaded.

    They can be looked at; no world can be made from them.
    """

    model_config = ConfigDict(extra="allow")


class Config(_Part):
    """One run, whole. Paths are absolute once it is loaded."""

    name: str = Field(max_length=100)
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
    scales: dict[str, ScaleConfig] = {}

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) or value.endswith(".db"):
            raise ValueError("letters, digits, '.', '_' and '-', not beginning with a sign")
        return value

    @field_validator("world", mode="before")
    @classmethod
    def _world(cls, value: Any, info: ValidationInfo) -> Settings:
        if isinstance(value, Settings):
            return value
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or (kind not in kinds() and not is_file(kind)):
            there = ", ".join(kinds())
            raise ValueError(f"kind: found {kind!r}, expected one of {there}, or a Python file")
        if is_file(kind) and not may_load(kind, info.context):
            return UnloadedWorld.model_validate(value)
        try:
            return world_of(kind).settings_type.model_validate(value)
        except PluginError as error:
            raise ValueError(f"kind: found {kind!r}, which cannot be loaded: {error}") from None

    def build_world(self) -> World:
        """The world that this config asks for.

        Raises:
            SettingError: a scale cannot be made; its key is that of the config.
            InputError: the world is a file that has not been loaded.
        """
        if isinstance(self.world, UnloadedWorld):
            raise InputError(unnamed_file(self.name, "world", self.world.kind))
        kind = world_of(self.world.kind)
        known = {scale.name: scale for scale in kind.scales}
        scales = [_scale(name, given, known.get(name)) for name, given in self.scales.items()]
        try:
            return kind(self.world, self.seed, scales)
        except ValidationError as error:
            raise SettingError("scales", _message(error)) from None

    def as_json(self) -> str:
        """The config as a run stores it."""
        return self.model_dump_json()

    def files(self) -> list[Path]:
        """List the files with Python code that the config names."""
        backends = [settings.backend for _, settings in self.models.roles()]
        return [Path(name) for name in dict.fromkeys([self.world.kind, *backends]) if is_file(name)]

    def refuse_unloaded(self, given: Collection[str] = ()) -> None:
        """Refuse to play a run with a file that has not been loaded.

        Args:
            given: roles whose backends are handed in, so that theirs are not needed.

        Raises:
            InputError: the caller of `from_json` did not allow a file.
        """
        if isinstance(self.world, UnloadedWorld):
            raise InputError(unnamed_file(self.name, "world", self.world.kind))
        for role, settings in self.models.roles():
            if isinstance(settings, UnloadedSettings) and role not in given:
                raise InputError(unnamed_file(self.name, "backend", settings.backend))

    @staticmethod
    def from_json(text: str, allow: Collection[Path] = ()) -> Config:
        """Read the config of a stored run.

        Of the files with Python code that it names, only those that are allowed are loaded.

        Args:
            text: what `as_json` returned.
            allow: files that the caller names.

        Raises:
            InputError: it cannot be read any more.
        """
        try:
            return Config.model_validate_json(text, context=only_files(allow))
        except ValidationError as error:
            raise InputError(explain(error, "the stored config", {}, {})) from None


def _scale(name: str, given: ScaleConfig, known: Scale | None) -> Scale:
    """A new scale, or a known one with other values."""
    key, values = f"scales.{name}", given.model_dump(exclude_none=True)
    if known is None:
        missing = next((one for one in ("low", "high", "ask") if one not in values), None)
        if missing is not None:
            raise SettingError(f"{key}.{missing}", "missing; expected a value")
    elif known.rater == "peers":
        own = next((one for one in ("ask", "subject", "stages") if one in values), None)
        if own is not None:
            expected = "expected none: peers are asked by a prompt template, which `forms:` rewords"
            raise SettingError(f"{key}.{own}", f"found {values[own]!r}; {expected}")
    try:
        return Scale.model_validate(
            {**(known.model_dump() if known else {}), "name": name} | values
        )
    except ValidationError as error:
        raise SettingError(key, _message(error)) from None


def _message(error: ValidationError) -> str:
    """What pydantic found first, in one line."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"{part}: " for part in first["loc"] if isinstance(part, str))
    return f"{place}found {_short(first['input'])}; expected: {_text(first)}"


def _text(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


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
        origin[key] = told(setting)
    data.update({key: value for key, value in overrides.items() if value is not None})
    data.setdefault("personas", str(PRESETS.parent / "data" / "personas.jsonl"))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, str(path), origin, data)) from None
    except (RecursionError, ValueError, OverflowError):
        raise InputError(f"{path}: nested without end; expected a config") from None


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, as it is nearly always a slip."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8; expected a YAML config") from None
    try:
        data = yaml.load(clean(text), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    except (RecursionError, ValueError):
        raise InputError(f"{path}: nested without end; expected a YAML config") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {_short(data)}, expected a YAML mapping of config keys")
    return data


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute."""
    for *parents, last in _PATH_KEYS:
        part: Any = data
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(part.get(last), str):
            part[last] = _absolute((*parents, last), part[last], folder)
    memory = data.get("memory")
    embedder = memory.get("embedder") if isinstance(memory, dict) else None
    _anchor_models([data.get("models"), embedder], folder)


def _anchor_models(parts: list[Any], folder: Path) -> None:
    """The same for what is a path in the settings of models. They may hold themselves."""
    seen: set[int] = set()
    while parts:
        part = parts.pop()
        if not isinstance(part, dict) or id(part) in seen or part.get("backend") == "openai":
            continue  # what a server knows by some name is no path here
        seen.add(id(part))
        adapters = part.get("adapters")
        for place in (part, adapters if isinstance(adapters, dict) else {}):
            for key, value in place.items():
                if isinstance(value, str) and (place is adapters or _is_path(key, value)):
                    place[key] = _absolute((), value, folder)
        parts.extend(part.values())


def _is_path(key: str, value: str) -> bool:
    """Tell whether a setting of a model is a path; models and backends can have other names."""
    if key == "backend":
        return is_file(value)
    return key == "chat_template" or (key == "model" and value.startswith(_PATH_BEGINNINGS))


def _absolute(key: tuple[str, ...], value: str, folder: Path) -> str:
    if key == ("world", "kind") and not is_file(value):
        return value
    if key == ("world", "topology") and "." not in value and "/" not in value:
        return value  # a generated topology
    return str((folder / os.path.expanduser(value)).resolve())


def apply_setting(data: dict[str, Any], setting: str) -> tuple[str, ...]:
    """Put one ``a.b=value`` into the data of a config; returns its key.

    Raises:
        InputError: it has another form.
    """
    name, equals, text = setting.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise InputError(f"{told(setting)}: expected a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{told(setting)}: expected a YAML value after =") from None
    part = data
    for parent in key[:-1]:
        if not isinstance(part.setdefault(parent, {}), dict):
            part[parent] = {}
        part = part[parent]
    part[key[-1]] = value
    _anchor(data, Path.cwd())  # whatever else is in the data is absolute already
    return key


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "something that holds itself"
    return text if len(text) <= 60 else text[:57] + "..."


def explain(
    error: ValidationError,
    path: str,
    origin: Mapping[tuple[str, ...], str],
    data: Mapping[str, Any],
) -> str:
    """One line for the first thing that is wrong with the data of a config.

    Args:
        error: what pydantic found.
        path: where the data came from.
        origin: where single keys came from instead.
        data: what was read.
    """
    first = error.errors(include_url=False)[0]
    key = _key(first["loc"], data, first["type"] == "missing")
    place = _origin_of(key, origin) or path
    name = ".".join(key)
    message = _TOLD.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        return f"{place}: {name}: unknown key; {_expected_key(key, data)}"
    if first["type"] == "missing":
        return f"{place}: {name}: missing; expected a value"
    message = message[:1].lower() + message[1:]
    found = _short(first["input"])
    if _is_secret(key) and ("base_url" not in key or "@" in found):
        found = "one that is not shown, for it may be secret"
    return f"{place}: {name}: found {found}; expected: {message}"


_SECRET = re.compile("key|token|passw|url|://", re.IGNORECASE)


def _is_secret(key: Sequence[str]) -> bool:
    """Whether what stands under a key may be a secret, or hold one, as people mistake them."""
    return any(_SECRET.search(part) for part in key)


def told(setting: str) -> str:
    """A ``--set`` as errors name it: without its value where that may be a secret."""
    name, _, value = setting.partition("=")
    hidden = _is_secret(name.split(".")) or _SECRET.search(value)
    return f"--set {name if hidden else setting}"


def _expected_key(key: Sequence[str], data: Any) -> str:
    for part in key[:-1]:
        data = data[part]
    backend = data.get("backend")
    if isinstance(backend, str) and is_file(backend):
        return f"expected one that the class Config in {backend} has"
    where = "docs/models.md" if key[0] == "models" or "embedder" in key else "the README"
    where = "docs/scenes.md or the README" if key[0] == "world" else where
    near = difflib.get_close_matches(key[-1], _known_keys(), 1, 0.75)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"expected one that {where} lists{hint}"


def _known_keys() -> set[str]:
    """The keys of a config and of whatever can be nested in it."""
    found: set[str] = set()
    waiting: list[Any] = [Config, *(world_of(kind).settings_type for kind in kinds())]
    waiting += [kind_of(name).settings for name in BUILT_IN]
    while waiting:
        part = waiting.pop()
        if isinstance(part, type) and issubclass(part, BaseModel):
            fields = part.model_fields
            waiting += [field.annotation for name, field in fields.items() if name not in found]
            found.update(fields)
        else:
            waiting.extend(get_args(part))
    return found


_TOLD = {"path_type": "the path of a file", "model_type": "a mapping of keys"}


def place_of(key: str, path: str, settings: Sequence[str]) -> str:
    """Where a key was set: by a ``--set``, or else in the file."""
    origin = {tuple(one.partition("=")[0].strip().split(".")): told(one) for one in settings}
    return _origin_of(tuple(key.split(".")), origin) or path


def _origin_of(key: tuple[str, ...], origin: Mapping[tuple[str, ...], str]) -> str | None:
    """Where a key was set: itself, or else what it is part of, or else a part of it."""
    around = [at for at in origin if at == key[: len(at)]]
    within = [at for at in origin if key == at[: len(key)]]
    nearest = max(around, key=len) if around else within[-1] if within else None
    return None if nearest is None else origin[nearest]


def _key(place: Sequence[int | str], data: Any, missing: bool) -> tuple[str, ...]:
    """The config's own keys in a place that also names the alternatives of a type."""
    key = []
    for number, part in enumerate(place):
        if isinstance(data, Mapping) and part in data:
            key.append(str(part))
            data = data[part]
        elif missing and isinstance(data, Mapping) and number == len(place) - 1:
            key.append(str(part))
    return tuple(key)
