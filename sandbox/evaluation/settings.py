"""The settings of an evaluation: models, observers, questions; read from arguments or YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from agents.section import Section
from sandbox.backends import ModelConfig
from sandbox.backends.base import ModelSettings
from sandbox.config import apply_setting, resolve_model_paths
from sandbox.settings_files import explained, read_yaml
from sandbox.text import short
from storage.errors import InputError
from storage.secrets import secret_key

PAGE = "docs/evaluation.md"

REWARD = "reward:"
"""The beginning of an observer that is a reward model; its folder follows."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$"
_SPECS = "scripted, a folder with a model, or a .yaml file with a section models"

Name = Annotated[str, Field(pattern=_NAME)]


class RewardSettings(Section):
    """An observer that is a reward model: a sequence classifier with one label.

    Attributes:
        reward: its folder.
    """

    reward: Path


class EvaluationSettings(Section):
    """What is evaluated, by whom, and on which questions.

    Attributes:
        models: the settings of each model by its name; the first one is the baseline.
        observers: the same of those who score; a reward model is `RewardSettings`. Values of both
            may be given as on the command line, such as ``scripted`` or ``reward:FOLDER``.
        questions: a file as a run takes it; `category` and `harmful` are read, too.
        samples: answers of each model to each question.
        seed: of the answers, and of the order in which they are judged.
        pairwise: compare each two models' answers in both orders as well.
        truncated: what becomes of an answer that reached max_tokens, as in a run's config.
        attempts: requests before a reply counts as missing.
        near: the similarity from which on a held-out question is near to one of the training.
        trained_on: folders of exports that models were trained on.
        forms: a YAML file that rewords prompt templates of the worlds `answers` and `judging`.
    """

    models: dict[Name, ModelConfig]
    observers: dict[Name, ModelConfig | RewardSettings]
    questions: Path
    samples: int = Field(default=2, ge=1, le=1000)
    seed: int = Field(default=7, ge=0, lt=2**63)
    pairwise: bool = True
    truncated: Literal["missing", "sentence"] = "missing"
    attempts: int = Field(default=2, ge=1, le=10)
    near: float = Field(default=0.8, gt=0, le=1)
    trained_on: tuple[Path, ...] = ()
    forms: Path | None = None

    @field_validator("models", "observers", mode="before")
    @classmethod
    def _specs(cls, value: Any) -> Any:
        """A text stands for what it stands for on the command line."""
        if not isinstance(value, Mapping) or not value:
            raise ValueError("at least one, by its name, such as base=FOLDER")
        return {
            name: section_of(one, Path.cwd()) if isinstance(one, str) else one
            for name, one in value.items()
        }

    @field_validator("questions", "forms", mode="after")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @field_validator("trained_on", mode="after")
    @classmethod
    def _folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(folder.expanduser().resolve() for folder in value)

    @property
    def judges(self) -> dict[str, ModelSettings]:
        """The observers that are language models."""
        return {k: v for k, v in self.observers.items() if isinstance(v, ModelSettings)}

    @property
    def rewards(self) -> dict[str, Path]:
        """The folders of the observers that are reward models."""
        return {k: v.reward for k, v in self.observers.items() if isinstance(v, RewardSettings)}


def named_spec(text: str) -> tuple[str, str]:
    """Split an argument ``NAME=SPEC`` or ``SPEC``; without a name it is named after its file."""
    name, equals, spec = text.partition("=")
    if equals and re.fullmatch(_NAME, name):
        return name, spec
    path = Path(text.removeprefix(REWARD)).expanduser()
    named = path.resolve().name if path.is_dir() else path.stem
    return named, text


def section_of(spec: str, folder: Path) -> dict[str, Any]:
    """Return the settings that an argument stands for.

    Args:
        spec: ``scripted``, the folder of a model or of an adapter, a YAML file with a section
            `models`, or ``reward:FOLDER``.
        folder: where relative paths begin.

    Raises:
        InputError: there is no such model.
    """
    if spec == "scripted":
        return {"backend": "scripted"}
    if spec.startswith(REWARD):
        return {"reward": str(_reward_folder(spec, folder))}
    path = (folder / Path(spec).expanduser()).resolve()
    if path.suffix.lower() in (".yaml", ".yml"):
        return _of_yaml(path)
    if not path.is_dir():
        raise InputError(f"{spec}: found no such folder; expected {_SPECS}")
    if (path / "adapter_config.json").is_file():
        return _of_adapter(path)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{spec}: found a folder without config.json and without adapter_config.json; "
            "expected a model"
        )
    return {"backend": "vllm", "model": str(path)}


def _reward_folder(spec: str, folder: Path) -> Path:
    path = (folder / Path(spec.removeprefix(REWARD)).expanduser()).resolve()
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            f"{spec}: found no folder with a config.json or an adapter_config.json; expected that "
            "of a reward model"
        )
    return path


def _of_adapter(folder: Path) -> dict[str, Any]:
    """The settings of a base model with an adapter; the template is that of the adapter."""
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{folder / 'adapter_config.json'}: base_model_name_or_path: found {base!r}; "
            "expected the base model"
        )
    beside = folder / base
    section: dict[str, Any] = {
        "backend": "vllm",
        "model": str(beside.resolve()) if beside.is_dir() else base,
        "adapters": {"trained": str(folder)},
        "adapter": "trained",
    }
    template = folder / "chat_template.jinja"
    if template.is_file():
        section["chat_template"] = str(template)
    return section


def _of_yaml(path: Path) -> dict[str, Any]:
    """The section of a YAML file: its `models`, or the first role in it."""
    models = read_yaml(path).get("models")
    if not isinstance(models, dict):
        raise InputError(f"{path}: models: found {short(models, 60)}; expected a mapping")
    roles = [models[role] for role in ("social", "observer") if isinstance(models.get(role), dict)]
    found: dict[str, Any] = dict(roles[0] if roles and "backend" not in models else models)
    if "backend" not in found:
        raise InputError(f"{path}: models: found no key backend; expected one model, or social")
    resolve_model_paths([found], path.parent)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {type(data).__name__}; expected an object")
    return data


def read_settings(
    config: Path | None,
    models: Sequence[str] = (),
    observers: Sequence[str] = (),
    settings: Sequence[str] = (),
    observer_settings: Sequence[str] = (),
    **given: Any,
) -> EvaluationSettings:
    """Read settings from a YAML file and arguments, which add to it and override it.

    Args:
        config: a YAML file with the keys of `EvaluationSettings`; paths are relative to it.
        models: arguments ``NAME=SPEC`` or ``SPEC``.
        observers: the same of observers.
        settings: ``a.b=value``, set in the section of every model.
        observer_settings: the same for every observer that is a language model.
        given: further keys; None is ignored.

    Raises:
        InputError: a key is unknown or invalid, or two models have one name.
    """
    data = {} if config is None else _of_file(config)
    for key, specs in (("models", models), ("observers", observers)):
        data[key] = {**data.get(key, {}), **_sections(key, specs)}
    data |= {key: value for key, value in given.items() if value not in (None, ())}
    for key, assignments in (("models", settings), ("observers", observer_settings)):
        for section in data[key].values():
            for assignment in assignments if "reward" not in section else ():
                apply_setting(section, assignment)
    return checked_settings(data, "evaluate" if config is None else str(config))


def _sections(key: str, specs: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in specs:
        name, spec = named_spec(text)
        if name in found:
            raise InputError(f"{key}: found {name} twice; expected NAME=SPEC with another name")
        found[name] = section_of(spec, Path.cwd())
    return found


def _of_file(config: Path) -> dict[str, Any]:
    """The keys of a YAML file, with absolute paths and sections in place of specs."""
    return absolute_settings(read_yaml(config), config.resolve().parent, str(config))


def absolute_settings(data: dict[str, Any], folder: Path, place: str) -> dict[str, Any]:
    """Make the paths in the keys of an evaluation absolute, with sections in place of specs.

    Args:
        data: the keys; changed in place.
        folder: where relative paths begin.
        place: the source, for error messages.

    Raises:
        InputError: a section is no mapping, or there is no such model.
    """
    for key in ("models", "observers"):
        given = data.setdefault(key, {})
        if not isinstance(given, dict):
            raise InputError(f"{place}: {key}: found {short(given, 60)}; expected a mapping")
        resolve_model_paths([given], folder)
        data[key] = {
            name: section_of(one, folder) if isinstance(one, str) else one
            for name, one in given.items()
        }
    for key in ("questions", "forms"):
        if isinstance(data.get(key), str):
            data[key] = str(folder / Path(data[key]).expanduser())
    if isinstance(data.get("trained_on"), list):
        data["trained_on"] = [str(folder / Path(str(p)).expanduser()) for p in data["trained_on"]]
    return data


def checked_settings(data: Mapping[str, Any], place: str) -> EvaluationSettings:
    """Validate the keys of an evaluation.

    Args:
        data: the keys.
        place: the source, for error messages.

    Raises:
        InputError: a key is missing, unknown or invalid, or a value may be a secret.
    """
    for section in ("models", "observers"):
        secret = secret_key(data.get(section), (section,))
        if secret is not None:
            raise InputError(
                f"{place}: {'.'.join(secret)}: found what looks like a secret; expected none, "
                "since settings are stored: a key belongs in the variable that api_key_env names"
            )
    for key, example in (("questions", "FILE"), ("observers", "judge=FILE.yaml")):
        if not data.get(key):
            raise InputError(f"{place}: {key}: found none; expected {example}")
    try:
        return EvaluationSettings.model_validate(data)
    except ValidationError as error:
        raise InputError(explained(EvaluationSettings, PAGE, error, place, data)) from None


_SAMPLE = 1 << 20  # bytes at both ends of a large file


def fingerprint(folder: Path) -> str:
    """A hash of the files of a model: names, sizes, and of each file its beginning and its end."""
    digest = sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            if size > 2 * _SAMPLE:
                file.seek(-_SAMPLE, 2)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def folder_of(settings: ModelSettings | RewardSettings) -> Path | None:
    """The folder of a model, or of its adapter; None for a model without one on this machine."""
    if isinstance(settings, RewardSettings):
        return settings.reward
    adapters, adapter = getattr(settings, "adapters", {}), getattr(settings, "adapter", None)
    name = adapters.get(adapter) if adapter else getattr(settings, "model", None)
    folder = None if name is None else Path(name)
    return folder if folder is not None and folder.is_dir() else None
