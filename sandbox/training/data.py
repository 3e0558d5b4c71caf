"""Reads the rows of an export, and where they are from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sandbox.sources.json_files import json_values
from sandbox.text import command, short
from sandbox.training.alpaca import question_of
from sandbox.yaml_values import NotYaml, parse_yaml
from storage.errors import InputError
from worlds.text_files import FileFault

Row = dict[str, Any]

FORMATS = {
    "sft": "sft",
    "cpo": "stable-alignment",
    "dpo": "preference",
    "kto": "kto",
    "reward": "preference",
}
"""The format of an export that a method needs."""

CARD = "README.md"
TRAIN = "train"


@dataclass(frozen=True)
class TrainingData:
    """The rows of an export for a method.

    Attributes:
        train: the rows of the split `train`.
        test: those of another split; empty if there is none.
        digest: the SHA-256 of the rows that are trained on.
        runs: the runs that they are from: name and digest.
        written_by: the models that wrote the texts.
        rated_by: the models that rated them.
        scripted: whether texts are from the scripted backend; None if unknown.
        choices: the choices of the export, in the words of its card; empty if unknown.
        questions: the distinct questions that are trained on.
    """

    train: Sequence[Row]
    test: Sequence[Row]
    digest: str
    runs: Sequence[Mapping[str, Any]]
    written_by: Sequence[str]
    rated_by: Sequence[str]
    scripted: bool | None
    choices: str
    questions: Sequence[str]

    def lineage(self) -> dict[str, Any]:
        """Where the rows are from, as plain values."""
        return {
            "digest": self.digest,
            "runs": [dict(run) for run in self.runs],
            "questions": len(self.questions),
            "written_by": list(self.written_by),
            "rated_by": list(self.rated_by),
            "scripted": self.scripted,
            "choices": self.choices,
        }


def read_export(export: Path, method: str) -> TrainingData:
    """Read the rows that a method trains on.

    Args:
        export: a folder that `export` wrote; for `cpo` also its JSON file alone.
        method: a method of `TrainSettings`.

    Raises:
        InputError: there is no such export, it has no rows of the format that the method needs, or
            a row is damaged.
    """
    files, choices = _files(export, method)
    if TRAIN not in files:
        raise InputError(f"{export}: found the splits {', '.join(files)}; expected one named train")
    check = _CHECKS[FORMATS[method]]
    train = _rows(files[TRAIN], check)
    if not train:
        raise InputError(f"{files[TRAIN]}: found no rows; expected some to train on")
    other = next((split for split in files if split != TRAIN), None)
    origins = [*train, *_lineage(files[TRAIN])]
    return TrainingData(
        train=train,
        test=[] if other is None else _rows(files[other], check),
        digest=digest_of(train),
        runs=_runs(origins),
        written_by=_named(origins, "model", "models", "chosen_model", "rejected_model"),
        rated_by=_named(
            origins, "rated_by", "scored_by", "chosen_rated_by", "rejected_rated_by", "rater_models"
        ),
        scripted=_scripted(origins),
        choices=choices,
        questions=list(dict.fromkeys(q for row in train for q in _questions(row))),
    )


def digest_of(rows: Sequence[Row]) -> str:
    """The SHA-256 of rows: of a line of JSON for each, with sorted keys."""
    digest = sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _files(export: Path, method: str) -> tuple[dict[str, Path], str]:
    """The file of each split, and the export's choices."""
    if export.is_file() and method == "cpo" and export.suffix == ".json":
        return {TRAIN: export}, ""
    card = export / CARD
    if not card.is_file():
        found = "found no" if not export.exists() else "no export: found no"
        raise InputError(f"{export}: {found} {CARD}; expected a folder that `export` wrote")
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{card}: cannot be read: {error}") from None
    wanted, configs = FORMATS[method], _configs(card, text)
    if wanted not in configs:
        again = command("export", "RUN", f"--format {wanted} --out DIR")
        found = ", ".join(configs) or "none"
        raise InputError(
            f"{export}: found the formats {found}; expected {wanted} for {method}: {again}"
        )
    files = {split: export / name for split, name in configs[wanted].items()}
    missing = next((path for path in files.values() if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{card}: names {missing.name}, which is not there; expected it beside")
    return files, _choices(text, wanted)


def _configs(card: Path, text: str) -> dict[str, dict[str, str]]:
    """The file of each split of each format, from the front matter of a card."""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        data = parse_yaml(front[1] if front else "")
        return {
            str(config["config_name"]): {
                str(file["split"]): str(file["path"]) for file in config["data_files"]
            }
            for config in data["configs"]
        }
    except (NotYaml, KeyError, TypeError):
        expected = "expected front matter with `configs`, as `export` writes it"
        raise InputError(f"{card}: found no list of its files; {expected}") from None


def _choices(text: str, wanted: str) -> str:
    """What the card says about the choices of a format."""
    section = text.partition(f"\n## {wanted}\n")[2].partition("\n## ")[0]
    found = re.search(r"^Choices: (.*)$", section, re.MULTILINE)
    return found[1] if found else ""


def _rows(path: Path, check: Callable[[Row], str | None]) -> list[Row]:
    rows = []
    for number, row in _numbered(path):
        problem = check(row) if isinstance(row, dict) else "expected an object"
        if problem is not None:
            raise InputError(f"{path}:{number}: found {short(json.dumps(row), 80)}; {problem}")
        rows.append(row)
    return rows


def _numbered(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their numbers."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1)
        else:
            yield from json_values(path)
    except FileFault as fault:
        raise InputError(str(fault)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {short(error)}") from None


def _lineage(path: Path) -> Iterator[Row]:
    """The origins of the responses in a file of the format `stable-alignment`."""
    name = re.sub(r"^(\w+?)(-\w+)?\.json$", r"\1_lineage\2.jsonl", path.name)
    beside = path.with_name(name)
    if name == path.name or not beside.is_file():
        return
    for _, row in _numbered(beside):
        responses = row.get("responses") if isinstance(row, dict) else None
        yield from (one for one in responses or () if isinstance(one, dict))


def _runs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    pairs = (
        (row.get(f"{side}run"), row.get(f"{side}digest"))
        for row in rows
        for side in ("", "chosen_", "rejected_")
    )
    distinct = dict.fromkeys(pair for pair in pairs if pair[0] is not None)
    return [{"run": run, "digest": digest} for run, digest in distinct]


def _named(rows: Sequence[Row], *columns: str) -> list[str]:
    """The distinct names in columns with one or several."""
    names: dict[str, None] = {}
    for row in rows:
        for column in columns:
            value = row.get(column)
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    names[name] = None
    return sorted(names)


def _scripted(rows: Sequence[Row]) -> bool | None:
    flags = [row["scripted"] for row in rows if isinstance(row.get("scripted"), bool)]
    names = _named(rows, "model", "models", "scored_by", "rater_models")
    return any(flags) or "scripted" in names if flags or names else None


def _questions(row: Row) -> Iterator[str]:
    if "query" in row:
        yield question_of(row["query"])
        return
    for message in row.get("prompt") or row["messages"]:
        if message["role"] == "user":
            yield message["content"]


def _messages(value: Any) -> bool:
    """Whether a value is a conversation: one message or more, with a role and a text."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(one, dict)
            and isinstance(one.get("role"), str)
            and isinstance(one.get("content"), str)
            for one in value
        )
    )


def _sft(row: Row) -> str | None:
    messages = row.get("messages")
    if _messages(messages) and len(row["messages"]) > 1 and _answers(row["messages"][-1:]):
        return None
    return "expected `messages`, of which the last is the assistant's"


def _answers(value: Any) -> bool:
    """Whether a value is one message of the assistant, with a text."""
    is_one = _messages(value) and len(value) == 1 and value[0]["role"] == "assistant"
    return is_one and bool(value[0]["content"].strip())


def _preference(row: Row) -> str | None:
    if _messages(row.get("prompt")) and all(_answers(row.get(key)) for key in _PAIR):
        return None
    return "expected the conversations `prompt`, `chosen` and `rejected`, as TRL reads them"


_PAIR = ("chosen", "rejected")


def _kto(row: Row) -> str | None:
    is_pair = _messages(row.get("prompt")) and _answers(row.get("completion"))
    if is_pair and isinstance(row.get("label"), bool):
        return None
    return "expected the conversations `prompt` and `completion`, and a `label`, as TRL reads them"


def _stable_alignment(row: Row) -> str | None:
    responses, scores = row.get("responses"), row.get("scores")
    if (
        isinstance(row.get("query"), str)
        and isinstance(responses, list)
        and isinstance(scores, list)
        and 0 < len(responses) == len(scores)
        and all(isinstance(one, str) for one in responses)
        and all(isinstance(one, int | float) and 1 <= one <= 7 for one in scores)
    ):
        return None
    return "expected a `query`, and as many `responses` as `scores` from 1 to 7"


_CHECKS: dict[str, Callable[[Row], str | None]] = {
    "sft": _sft,
    "preference": _preference,
    "kto": _kto,
    "stable-alignment": _stable_alignment,
}
