"""The config of a run: typed, read from YAML.

Every error is found before the run starts, and is one line with the file, the key, what was found
and what was expected.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from agents.memory import RecallRule
from agents.persona import Label
from agents.plugins import PluginError, exception_line, is_file, may_load, only_files, unnamed_file
from agents.scale import Better, Scale, Subject
from agents.section import Section, error_at
from sandbox.backends import BUILT_IN, ModelConfig, UnloadedSettings, kind_of
from sandbox.backends.embedding import EmbedderSetting
from sandbox.settings_files import (
    GIVEN,
    PATH_BEGINNINGS,
    absolute,
    error_text,
    first_error,
    origin_of,
    read_yaml,
    redacted,
    set_key,
    shown,
)
from sandbox.text import short
from sandbox.wording import other_range
from storage.errors import InputError
from storage.secrets import secret_key
from worlds.base import SettingError, Settings, World, is_kind, kinds, world_of
from worlds.observer import observer_form

PRESETS = Path(__file__).resolve().parent.parent / "worlds" / "presets"
QUICKSTART = PRESETS / "quickstart.yaml"
_PATH_KEYS = (
    ("questions",),
    ("personas",),
    ("forms",),
    ("memory", "prior"),
    ("world", "topology"),
    ("world", "kind"),
    ("world", "red_team"),
    ("world", "items"),
    ("policy", "file"),
)


class MemoryConfig(Section):
    """Prior memories of agents, and how memories are recalled."""

    prior: Path | None = None
    prior_pairs: int = Field(default=50, ge=0)
    recall: Literal["nearest", "threshold"] = "nearest"
    top_k: int = Field(default=1, ge=1, le=100)
    threshold: float | None = Field(default=None, gt=0, le=2)
    embedder: EmbedderSetting = "wordllama"
    keep: Literal["all"] | Annotated[int, Field(ge=1)] = "all"

    @field_validator("keep", mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("all, or a number of memories from 1") from None

    @model_validator(mode="after")
    def _threshold(self) -> MemoryConfig:
        if self.threshold is not None and self.recall == "nearest":
            raise error_at("threshold", self.threshold, "recall: threshold beside it")
        return self

    @property
    def limit(self) -> int | None:
        """Number of latest memories that can be recalled; None for all."""
        return None if self.keep == "all" else self.keep

    def rule(self, threshold: float) -> RecallRule:
        """Return the rule of recall; the threshold is the run's, which the embedder may set."""
        return RecallRule.of(self.recall, self.top_k, threshold)


class PolicyConfig(Section):
    """The rules that bind a run, and how they act.

    Attributes:
        file: an organisation's policy; the rules of tier 1 stand in every run, with and without it.
        checks: `enforce` acts on replies that break a rule; `record` lets them pass and records
            them, to measure what the checks prevent.
        prompts: whether prompts show the rules.
    """

    file: Path | None = None
    checks: Literal["enforce", "record"] = "enforce"
    prompts: bool = True

    @model_validator(mode="before")
    @classmethod
    def _file(cls, value: Any) -> Any:
        """A path alone is the file."""
        if isinstance(value, str | Path):
            return {"file": value}
        if not isinstance(value, Mapping | PolicyConfig):
            raise ValueError("the path of a policy, or its keys; tier 1 stands in every run")
        return value


class Group(Section):
    """Agents with a model of their own: by label, by a random share, or by number."""

    model: ModelConfig
    label: Label | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    agents: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_rule(self) -> Group:
        if sum(rule is not None for rule in (self.label, self.share, self.agents)) != 1:
            raise ValueError(
                "exactly one of label, share and agents, which select the group's agents"
            )
        return self


class Models(Section):
    """The model of each role."""

    social: ModelConfig
    observer: ModelConfig
    groups: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Group] = Field(
        default={}
    )

    @field_validator("groups")
    @classmethod
    def _groups(cls, value: dict[str, Group]) -> dict[str, Group]:
        for name in ("social", "observer"):
            if name in value:
                raise ValueError(f"another name than {name}, which is a role")
        return value

    def roles(self) -> list[tuple[str, ModelConfig]]:
        """Return every role with its settings; a group is a role of its name."""
        groups = [(name, group.model) for name, group in self.groups.items()]
        return [("social", self.social), ("observer", self.observer), *groups]


def role_key(role: str) -> str:
    """Return the config key of a role's model."""
    return f"models.{role}" if role in ("social", "observer") else f"models.groups.{role}.model"


class Schedule(Section):
    """The order of episodes, and limits of concurrency."""

    order: Literal["out_of_order", "lock_step", "sequential"] = "out_of_order"
    max_in_flight: int = Field(default=1024, ge=1)
    max_ahead: int = Field(default=4, ge=1)


class ParetoStop(Section):
    """Stop once the product of the scales' means has not risen for `patience` rounds.

    Attributes:
        patience: number of rounds without a rise.
        scales: the scales whose means are multiplied; None for those that the world names.
    """

    rule: Literal["pareto"] = "pareto"
    patience: int = Field(default=3, ge=1)
    scales: tuple[str, ...] | None = Field(default=None, min_length=1)


class ScaleConfig(Section):
    """A scale that a config adds to its world, or overrides for one of the world's scales.

    A new scale needs `low`, `high` and `ask`; see `agents.scale.Scale` for the keys.
    """

    low: float | None = None
    high: float | None = None
    ask: str | None = Field(default=None, min_length=1)
    integer: bool | None = None
    better: Better | None = None
    subject: Subject | None = None
    stages: tuple[str, ...] | None = Field(default=None, min_length=1)


class UnloadedWorld(Settings):
    """Settings of a world file that a stored run names and that has not been loaded.

    They can be shown; no world can be made from them.
    """

    model_config = ConfigDict(extra="allow")


class Config(Section):
    """The config of a run. Paths are absolute once it is loaded."""

    name: str = Field(max_length=100)
    seed: int = Field(default=7, ge=0, lt=2**63)
    rounds: int = Field(default=5, ge=1, le=1_000_000)
    questions: Path
    question_count: int | None = Field(default=None, ge=1)
    personas: Path
    forms: Path | None = None
    attempts: int = Field(default=2, ge=1, le=10)
    truncated: Literal["missing", "sentence"] = "missing"
    world: SerializeAsAny[Settings]
    memory: MemoryConfig = MemoryConfig()
    policy: PolicyConfig = PolicyConfig()
    models: Models
    schedule: Schedule = Schedule()
    stop: ParetoStop | None = None
    scales: dict[str, ScaleConfig] = Field(default={})

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) or value.endswith(".db"):
            raise ValueError(
                "letters, digits, '.', '_' and '-'; must start with a letter or digit, "
                "and must not end in .db"
            )
        return value

    @field_validator("world", mode="before")
    @classmethod
    def _world(cls, value: Any, info: ValidationInfo) -> Settings:
        if isinstance(value, Settings):
            return value
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or not is_kind(kind):
            known = f"one of {', '.join(kinds())}, or the path of a Python file"
            if kind is None:
                raise ValueError(f"a mapping with the key kind, {known}")
            raise error_at("kind", kind, known)
        if is_file(kind) and not may_load(kind, info.context):
            return UnloadedWorld.model_validate(value)
        try:
            return world_of(kind).settings_type.model_validate(value)
        except PluginError as error:
            raise error_at("kind", kind, f"a world that can be loaded; {error}") from None

    def build_world(self) -> World:
        """Make the world of this config.

        Raises:
            SettingError: a scale is invalid; the error has the key of the config.
            InputError: the world is a file that has not been loaded.
        """
        if isinstance(self.world, UnloadedWorld):
            raise InputError(unnamed_file(self.name, "world", self.world.kind))
        kind = world_of(self.world.kind)
        scales = [_scale(name, given, kind) for name, given in self.scales.items()]
        try:
            world = kind(self.world, self.seed, scales)
        except ValidationError as error:
            raise SettingError("scales", error_text(error.errors()[0])) from None
        except Exception as error:  # the code of a world can raise any exception
            reason = exception_line(error)
            raise InputError(f"world {self.world.kind}: cannot be made: {reason}") from error
        if not hasattr(world, "prompts"):
            raise InputError(f"world {self.world.kind}: the class World has no prompts")
        for scale in scales:
            _try_question(scale, world)
        return world

    def as_json(self) -> str:
        """Return the config as JSON, as it is stored with the run."""
        return self.model_dump_json()

    def addresses(self) -> list[str]:
        """List the keys with the address of a model's server."""
        models = [(role_key(role), settings) for role, settings in self.models.roles()]
        return [f"{key}.base_url" for key, settings in models if hasattr(settings, "base_url")]

    def files(self) -> list[Path]:
        """List the files with Python code that the config names."""
        backends = [settings.backend for _, settings in self.models.roles()]
        return [Path(name) for name in dict.fromkeys([self.world.kind, *backends]) if is_file(name)]

    def refuse_unloaded(self, given: Collection[str] = ()) -> None:
        """Check that no world or backend file is missing because it was not allowed.

        Args:
            given: roles whose backends the caller passes in, so that theirs are not needed.

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
        """Parse the config of a stored run.

        Of the files with Python code that it names, only allowed ones are loaded.

        Args:
            text: the result of `as_json`.
            allow: files that may be loaded.

        Raises:
            InputError: it is no longer valid.
            ValueError: the text is damaged: it is not JSON.
        """
        try:
            return Config.model_validate_json(text, context=only_files(allow))
        except ValidationError as error:
            data = json.loads(text)
            raise InputError(explain(error, "the stored config", {}, data)) from None


def _scale(name: str, given: ScaleConfig, world: type[World]) -> Scale:
    """Make a new scale, or one of the world's with overrides."""
    key, values = f"scales.{name}", given.model_dump(exclude_none=True)
    known = next((scale for scale in world.scales if scale.name == name), None)
    if known is None:
        missing = next((key for key in ("low", "high", "ask") if key not in values), None)
        if missing is not None:
            raise SettingError(f"{key}.{missing}", "missing; expected a value")
        values["subject"] = _subject(key, given.subject, world)
    elif known.rater == "peers":
        extra = next((key for key in ("ask", "subject", "stages") if key in values), None)
        if extra is not None:
            expected = "expected none: peers rate by a prompt template, which `forms:` replaces"
            raise SettingError(f"{key}.{extra}", f"found {values[extra]!r}; {expected}")
    before = {} if known is None else known.model_dump()
    try:
        return Scale.model_validate(before | {"name": name} | values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        expected = f"expected: {error_text(first)}"
        if first["loc"]:
            expected = f"{first['loc'][0]}: found {shown(first['input'])}; {expected}"
        raise SettingError(key, expected) from None


def _subject(key: str, wanted: Subject | None, world: type[World]) -> Subject:
    """The subject of a new scale, which must be one that the world has the observer rate."""
    rated = [scale.subject for scale in world.scales if scale.rater == "observer"] or ["stage"]
    if wanted is None:
        return "stage" if "stage" in rated else rated[0]
    if wanted not in rated:
        known = " or ".join(dict.fromkeys(rated))
        raise SettingError(f"{key}.subject", f"found {wanted}; expected {known}, as the world asks")
    return wanted


def _try_question(scale: Scale, world: World) -> None:
    """Render the prompt of a scale that the config adds, since its question is a template."""
    if scale.rater == "peers":
        return
    try:
        observer_form(scale, world.observed, world.example, world.unit).try_out()
    except ValueError as error:
        raise SettingError(f"scales.{scale.name}.ask", str(error)) from None
    other = other_range(scale.question, scale.low, scale.high)
    if other is not None:
        expected = f"expected the scale's {scale.range}, or another low and high"
        raise SettingError(f"scales.{scale.name}.ask", f"found a rating {other}; {expected}")


def load_config(
    source: Path | Mapping[str, Any],
    settings: Sequence[str] = (),
    *,
    folder: Path | None = None,
    places: Mapping[str, str] = {},
    **overrides: Any,
) -> Config:
    """Read a config.

    Args:
        source: a YAML file, with paths that are relative to its folder; or the config itself, with
            paths that are relative to the working folder.
        settings: overrides ``a.b=value``, as for ``--set``.
        folder: the folder that paths in settings are relative to; the default is the working
            folder.
        places: by setting, where it was written, for error messages; the default is ``--set``.
        overrides: values of top-level keys that override both; None is ignored.

    Raises:
        InputError: it cannot be read, or is invalid.
    """
    if isinstance(source, Mapping):
        place, own_folder, data = GIVEN, Path.cwd(), _plain_keys(source)
    else:
        place, own_folder, data = str(source), source.resolve().parent, read_yaml(source)
    origin: dict[tuple[str, ...], str] = {}
    _resolve_paths(data, own_folder)
    for setting in settings:
        key = apply_setting(data, setting, folder)
        origin[key] = places.get(setting) or redacted(setting)
    given = {key: value for key, value in overrides.items() if value is not None}
    twice = next((option for option in given if (option,) in origin), None)
    if twice is not None:
        raise InputError(f"{origin[twice,]}: found --{twice} as well; expected one of them")
    origin.update({(option,): f"--{option}" for option in given})
    data.update(given)
    data.setdefault("personas", str(PRESETS.parent / "data" / "personas.jsonl"))
    return parse_config(data, place, origin)


def _plain_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config that Python code made, with plain values as YAML has them."""
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(given), default=_path))
    except (TypeError, ValueError, RecursionError) as error:
        found = short(exception_line(error), 200)
        raise InputError(f"{GIVEN}: found {found}; expected plain values and paths") from None
    return {key: value for key, value in copied.items() if not key.startswith("x-")}


def _path(value: Any) -> str:
    if not isinstance(value, os.PathLike):
        raise TypeError(f"a value of the type {type(value).__name__}")
    return str(Path(value))


def parse_config(data: Any, path: str, origin: Mapping[tuple[str, ...], str]) -> Config:
    """Validate the data of a new config.

    Args:
        data: plain values; paths are absolute.
        path: the source of the data, for error messages.
        origin: the source of single keys that come from elsewhere.

    Raises:
        InputError: it is invalid, or contains a secret, which would be stored with the run.
    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, path, origin, data)) from None
    except (RecursionError, ValueError, OverflowError):
        raise InputError(f"{path}: found keys nested too deeply; expected a config") from None
    _refuse_secrets(data, path, origin)
    try:
        config.as_json()
    except ValueError:  # the name of a folder may be any bytes
        raise InputError(f"{path}: found a path that is not UTF-8; expected one that is") from None
    return config


def _refuse_secrets(data: Mapping[str, Any], path: str, origin: Mapping[Any, str]) -> None:
    """Check that no model's settings contain a secret: a config is stored, shown and copied."""
    memory = data.get("memory")
    embedder = memory.get("embedder") if isinstance(memory, Mapping) else None
    sections = (("models",), data.get("models")), (("memory", "embedder"), embedder)
    for section, value in sections:
        key = secret_key(value, section)
        if key is not None:
            raise InputError(
                f"{origin_of(key, origin) or path}: {'.'.join(key)}: found what looks like a "
                "secret; expected none, since a config is stored with its run and shown: a key "
                "belongs in the environment variable that api_key_env names"
            )


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the paths in a config absolute, in place, and spell out a policy that is a path alone.

    Otherwise a setting below `policy` would replace its file.
    """
    if isinstance(data.get("policy"), str):
        data["policy"] = {"file": data["policy"]}
    for *parents, last in _PATH_KEYS:
        section: Any = data
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(section.get(last), str):
            section[last] = _absolute((*parents, last), section[last], folder)
    memory = data.get("memory")
    embedder = memory.get("embedder") if isinstance(memory, dict) else None
    resolve_model_paths([data.get("models"), embedder], folder)


def resolve_model_paths(sections: list[Any], folder: Path) -> None:
    """Make the paths in settings of models absolute, in place; YAML aliases may be recursive."""
    seen: set[int] = set()
    while sections:
        section = sections.pop()
        if not isinstance(section, dict) or id(section) in seen:
            continue
        seen.add(id(section))
        if section.get("backend") == "openai":  # names that a server knows are not paths
            if isinstance(section.get("ca_file"), str):
                section["ca_file"] = _absolute((), section["ca_file"], folder)
            continue
        adapters = section.get("adapters")
        for mapping in (section, adapters if isinstance(adapters, dict) else {}):
            for key, value in mapping.items():
                if isinstance(value, str) and (mapping is adapters or _is_path(key, value)):
                    mapping[key] = _absolute((), value, folder)
        sections.extend(section.values())


def _is_path(key: str, value: str) -> bool:
    """Whether a setting of a model is a path, not the name of a model or backend."""
    if key == "backend":
        return is_file(value)
    return key == "chat_template" or (key == "model" and value.startswith(PATH_BEGINNINGS))


def _absolute(key: tuple[str, ...], value: str, folder: Path) -> str:
    if key == ("world", "kind") and not is_file(value):
        return value
    if key == ("world", "items") and not value.endswith((".jsonl", ".jsonl.gz")):
        return value  # of a world that has another meaning for it
    if key == ("world", "topology") and "." not in value and "/" not in value:
        return value  # a generated topology
    return absolute(value, folder)


def apply_setting(
    data: dict[str, Any], setting: str, folder: Path | None = None
) -> tuple[str, ...]:
    """Apply one override ``a.b=value`` to the data of a config, in place.

    Args:
        data: plain values; paths are absolute.
        setting: the override.
        folder: the folder that its paths are relative to; the default is the working folder.

    Returns:
        Its key: ``("a", "b")``.

    Raises:
        InputError: it is not of that form.
    """
    key = set_key(data, setting)
    _resolve_paths(data, folder or Path.cwd())  # all other paths are absolute already
    return key


def explain(
    error: ValidationError,
    path: str,
    origin: Mapping[tuple[str, ...], str],
    data: Mapping[str, Any],
) -> str:
    """Return an error message for the first error in the data of a config.

    Args:
        error: the error of pydantic.
        path: the source of the data.
        origin: the source of single keys that come from elsewhere.
        data: the data.
    """
    return first_error(error, path, origin, data, _expected_key)


def _expected_key(key: Sequence[str], data: Any) -> str:
    for part in key[:-1]:
        data = data[part]
    backend = data.get("backend")
    if isinstance(backend, str) and is_file(backend):
        return f"expected a key of the class Config in {backend}"
    where = "docs/models.md" if key[0] == "models" or "embedder" in key else "docs/config.md"
    if key[0] == "world":
        where = _WORLD_DOCS.get(str(data.get("kind")), "docs/config.md")
    known = _known_keys()
    near = difflib.get_close_matches(key[-1], known, 1, 0.75)
    hint = f"; did you mean {near[0]}?" if near and key[-1] not in known else ""
    return f"expected a key that {where} lists{hint}"


_WORLD_DOCS = {"scene": "docs/scenes.md", "personal": "docs/policies.md"}
"""The page that lists the keys of a world."""


def _known_keys() -> set[str]:
    """Return all keys of a config and its nested sections."""
    known: set[str] = set()
    waiting: list[Any] = [Config, *(world_of(kind).settings_type for kind in kinds())]
    waiting += [kind_of(name).settings for name in BUILT_IN]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation.model_fields
            waiting += [field.annotation for name, field in fields.items() if name not in known]
            known.update(fields)
        else:
            waiting.extend(get_args(annotation))
    return known


def place_of_key(key: str, path: str, settings: Sequence[str]) -> str:
    """Return where a key was set: a ``--set``, or else the file at `path`."""
    origin = {
        tuple(setting.partition("=")[0].strip().split(".")): redacted(setting)
        for setting in settings
    }
    return origin_of(tuple(key.split(".")), origin) or path
