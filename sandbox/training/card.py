"""The model card: what was trained, on which rows, with which settings."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from sandbox import __version__
from sandbox.training.data import TrainingData
from sandbox.training.report import TrainReport
from sandbox.training.settings import TrainSettings

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")

_METHODS = {
    "sft": "supervised fine-tuning on well rated answers",
    "cpo": (
        "the contrastive loss of Stable Alignment (Liu et al., arXiv 2305.16960), which its "
        "authors call contrastive preference optimisation; not the loss of TRL's CPO trainer"
    ),
    "dpo": "direct preference optimisation (Rafailov et al., arXiv 2305.18290)",
    "kto": "Kahneman-Tversky optimisation (Ethayarajh et al., arXiv 2402.01306)",
    "reward": "a reward model of pairs (Bradley-Terry)",
}


def versions() -> dict[str, str]:
    """The versions of this program and of the libraries that train."""
    return {"sandbox-society": __version__, "python": platform.python_version(), **_installed()}


def _installed() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def card(settings: TrainSettings, report: TrainReport, data: TrainingData) -> str:
    """Return the text of README.md, with front matter that the hub reads."""
    parts = (
        _front(settings),
        _title(settings, report, data),
        _lineage(data),
        _settings(settings),
        _versions(),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def public_name(model: str) -> str:
    """A model's name on the hub, or the last part of the path of its folder."""
    path = Path(model)
    return path.name if path.is_absolute() or model.startswith(("./", "../", "~")) else model


def _is_adapter(settings: TrainSettings) -> bool:
    return settings.lora is not None and not settings.lora.merge


def _front(settings: TrainSettings) -> Iterator[str]:
    base = public_name(settings.model)
    data: dict[str, Any] = {
        "library_name": "peft" if _is_adapter(settings) else "transformers",
        "tags": ["alignment", "sandbox-society", settings.method],
    }
    if base == settings.model:
        data["base_model"] = base
    yield f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n"


def _title(settings: TrainSettings, report: TrainReport, data: TrainingData) -> Iterator[str]:
    if data.scripted:
        yield (
            "**Texts or ratings of the data were composed by the scripted backend, not by a "
            "language model.**\n"
        )
    what = "A LoRA adapter of" if _is_adapter(settings) else "Trained from"
    yield f"# {Path(report.out).name}\n"
    yield f"{what} `{public_name(settings.model)}` by {_METHODS[settings.method]}.\n"
    yield "| | |\n| --- | --- |"
    loss = f"{report.loss:.4f}"
    if report.eval_loss is not None:
        loss += f"; {report.eval_loss:.4f} on the other split"
    rows = f"{report.rows:,}"
    if report.left_out:
        rows += f" ({report.left_out:,} more leave no room for an answer within `max_length`)"
    shown = {
        "rows": rows,
        "questions": f"{len(data.questions):,}, in `questions.jsonl`",
        "steps": f"{report.steps:,} ({report.epochs:g} epochs)",
        "last loss": loss,
    }
    yield from (f"| {key} | {value} |" for key, value in shown.items())
    yield ""


def _lineage(data: TrainingData) -> Iterator[str]:
    yield "## Data\n"
    yield f"Digest of the rows (SHA-256): `{data.digest}`.\n"
    if data.runs:
        yield "| run | digest |\n| --- | --- |"
        for run in data.runs:
            digest = f"`{run['digest']}`" if run["digest"] else "none (not finished)"
            yield f"| {_plain(run['run'])} | {digest} |"
        yield ""
    for what, names in (("written", data.written_by), ("rated", data.rated_by)):
        if names:
            yield f"{what.capitalize()} by: {', '.join(map(_plain, names))}.\n"
    if data.choices:
        yield f"Choices of the export: {data.choices}\n"


def _settings(settings: TrainSettings) -> Iterator[str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    values["model"] = public_name(settings.model)
    if "chat_template" in values:
        values["chat_template"] = Path(values["chat_template"]).name
    yield "## Settings\n"
    yield f"```yaml\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}```\n"


def _versions() -> Iterator[str]:
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}."


def _plain(text: object) -> str:
    """A text in one line, without markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#$~" else char for char in line)
