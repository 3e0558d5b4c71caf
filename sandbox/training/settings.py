"""The settings of a training: method, model, published recipes, and the trainer's own arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from agents.section import Section, error_at
from sandbox.text import short
from sandbox.yaml_values import LONGEST_CONFIG, NotYaml, parse_yaml
from storage.errors import InputError

Method = Literal["sft", "cpo", "dpo", "kto", "reward"]
METHODS: tuple[str, ...] = get_args(Method)

ALPACA = "alpaca"

_COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "num_train_epochs": 1,
    "max_length": 1024,
    "seed": 42,
    "report_to": "none",
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "save_steps": 0.1,
    "save_total_limit": 2,
}
_CONTRAST: dict[str, Any] = {"ratio": 0.2, "margin": 1.0, "responses": 3, "worst": False}
_LIU = {
    **_CONTRAST,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 2e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {**_COMMON, "learning_rate": 2e-5, "num_train_epochs": 2},
    "cpo": {**_COMMON, **_CONTRAST, "learning_rate": 2e-5, "num_train_epochs": 2},
    "dpo": {**_COMMON, "learning_rate": 1e-6},
    "kto": {**_COMMON, "learning_rate": 1e-6},
    "reward": {**_COMMON, "learning_rate": 1e-5},
}
"""Of each method: for full training of a model of some 7 billion parameters on GPUs."""

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "liu-readme": ("cpo", {**_LIU, "num_train_epochs": 7, "max_length": 360, "margin": 10.0}),
    "liu-model-card": ("cpo", {**_LIU, "num_train_epochs": 2, "max_length": 480, "margin": 1.0}),
    "matrix": (
        "sft",
        {
            "lora": {"r": 8, "alpha": 16, "dropout": 0.05},
            "learning_rate": 2e-5,
            "num_train_epochs": 3,
            "gradient_accumulation_steps": 8,
            "max_length": 1024,
        },
    ),
}
"""Published recipes with their method.

Those of Liu et al. (arXiv 2305.16960) stand in the README of their code and in the model card of
socially-good-lm; that of MATRIX (Pang et al., arXiv 2402.05699) in its code.
"""

_LORA_RATE = 10
"""By how much the default learning rate is higher with LoRA than without."""


class LoraSettings(Section):
    """A low-rank adapter of all linear layers (Hu et al., arXiv 2106.09685).

    Attributes:
        r: the rank.
        alpha: what the adapter is scaled by, times the rank.
        dropout: of its inputs.
        merge: add it to the weights in the end, so that a whole model is left.
    """

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    merge: bool = False


class TrainSettings(Section):
    """The settings of a training, with presets and defaults filled in.

    Attributes:
        method: supervised fine-tuning, the paper's contrastive loss, DPO, KTO, or a reward model.
        model: a folder with a model, or its name on the hub.
        preset: a published recipe, which `PRESETS` lists.
        lora: train an adapter; None trains all weights.
        chat_template: for a tokenizer that has none: `alpaca`, or a Jinja file.
        ratio: of `cpo`: the weight of the contrast.
        margin: of `cpo`: by how much less likely a response has to be that is rated a scale lower.
        responses: of `cpo`: the responses to a query that are drawn in an epoch.
        worst: of `cpo`: contrast with the worst violation, not with the mean.
        arguments: of TRL's config class for the method, by name.
    """

    method: Method
    model: str = Field(min_length=1)
    preset: str | None = None
    lora: LoraSettings | None = None
    chat_template: str | None = Field(None, min_length=1)
    ratio: float | None = Field(None, ge=0)
    margin: float | None = Field(None, ge=0)
    responses: int | None = Field(None, ge=1)
    worst: bool | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("model")
    @classmethod
    def _absolute(cls, model: str) -> str:
        """The absolute path of a folder, so that it is found from any other."""
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else model

    @model_validator(mode="after")
    def _fits(self) -> TrainSettings:
        for name in _CONTRAST if self.method != "cpo" else ():
            if getattr(self, name) is not None:
                raise error_at(name, getattr(self, name), f"no such key with method {self.method}")
        return self


def load_settings(
    config: Path | None = None,
    settings: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
) -> TrainSettings:
    """Read settings.

    Args:
        config: a YAML file with flat keys.
        settings: overrides ``key=value`` as for ``--set``.
        given: further values by key, which override the file's; None is ignored.

    Raises:
        InputError: the file cannot be read, or a value is invalid.
    """
    data = {} if config is None else _read(config)
    data.update({key: value for key, value in (given or {}).items() if value is not None})
    for setting in settings:
        _apply(data, setting)
    place = "settings" if config is None else str(config)
    return _settings(data, place)


def _settings(data: Mapping[str, Any], place: str) -> TrainSettings:
    method = data.get("method")
    if method not in METHODS:
        raise InputError(f"method: found {_shown(method)}; expected one of {', '.join(METHODS)}")
    own = {key: value for key, value in data.items() if value is not None or key not in _CONTRAST}
    merged = {**_defaults(method, data), **_preset(method, data.get("preset")), **own}
    known = {key: merged.pop(key) for key in list(merged) if key in TrainSettings.model_fields}
    if "arguments" in known:
        raise InputError("arguments: unknown key; expected the arguments themselves, as flat keys")
    merged.setdefault("data_seed", merged.get("seed"))
    try:
        return TrainSettings(**known, arguments=merged)
    except ValidationError as error:
        raise InputError(_explained(error, place)) from None


def _defaults(method: str, data: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(DEFAULTS[method])
    if data.get("lora") is not None:
        found["learning_rate"] *= _LORA_RATE
    return found


def _preset(method: str, name: Any) -> dict[str, Any]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"preset: found {_shown(name)}; expected one of {', '.join(PRESETS)}")
    wanted, values = PRESETS[name]
    if wanted != method:
        raise InputError(f"preset: found {name} with method {method}; expected method {wanted}")
    return values


def _explained(error: ValidationError, place: str) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{name}: missing; expected a value"
    if first["type"] == "extra_forbidden":
        return f"{place}: {name}: unknown key; expected r, alpha, dropout or merge"
    expected = _EXPECTED.get(first["type"], first["msg"][:1].lower() + first["msg"][1:])
    return f"{place}: {name}: found {_shown(first['input'])}; expected: {expected}"


_EXPECTED = {"model_type": "a mapping of r, alpha, dropout and merge; {} takes defaults"}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:  # a pipe or a device may have no end
            content = file.read(LONGEST_CONFIG + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: found no UTF-8 text; expected a YAML file of settings") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(content) > LONGEST_CONFIG:
        raise InputError(f"{path}: found more than {LONGEST_CONFIG:,} bytes; expected settings")
    try:
        data = parse_yaml(text)
    except NotYaml as error:
        line = f":{error.line}" if error.line else ""
        raise InputError(f"{path}{line}: not YAML: {error}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{path}: found {_shown(data)}; expected a YAML mapping of settings")
    return data


def _apply(data: dict[str, Any], setting: str) -> None:
    """Set ``name=value`` or ``lora.key=value`` in place."""
    name, equals, text = setting.partition("=")
    *parents, last = name.strip().split(".")
    if not equals or not last or len(parents) > 1 or not all(parents):
        raise InputError(f"--set {short(setting, 100)}: expected name=value")
    try:
        value = parse_yaml(text)
    except NotYaml as error:
        expected = f"expected a YAML value after =; {error}"
        raise InputError(f"--set {short(setting, 100)}: {expected}") from None
    for parent in parents:
        inner = data.get(parent)
        data[parent] = data = dict(inner) if isinstance(inner, dict) else {}
    data[last] = value


def _shown(value: Any) -> str:
    return "none" if value is None else short(repr(value), 60)
