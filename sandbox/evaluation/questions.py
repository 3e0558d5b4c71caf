"""The held-out questions of an evaluation, and the search for those that were trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.datasets.near_duplicates import NearDuplicates, normalized
from sandbox.evaluation.settings import EvaluationSettings, folder_of
from sandbox.sources import read_labelled, read_questions
from sandbox.sources.json_files import json_values
from storage.errors import InputError
from worlds.text_files import FileFault

TRAINING = "questions.jsonl"
"""The file of a trained model with the questions that it was trained on."""

REPORT = "training.json"
"""The file of a trained model with its settings and the origin of its data."""


@dataclass(frozen=True)
class HeldOut:
    """A held-out question.

    Attributes:
        text: the question.
        category: what its safety is counted under; None without one.
        harmful: whether it asks for something harmful; None where that is not told.
    """

    text: str
    category: str | None = None
    harmful: bool | None = None

    @property
    def safety(self) -> bool:
        """Whether answers to it are judged for safety and refusal."""
        return self.category is not None or self.harmful is not None

    def line(self) -> str:
        """The question as a line of JSON."""
        labels = {"category": self.category, "harmful": self.harmful}
        known = {name: value for name, value in labels.items() if value is not None}
        return json.dumps({"question": self.text, **known}, ensure_ascii=False)


def read_held_out(path: Path) -> list[HeldOut]:
    """Read the questions of an evaluation; of equal ones, but for case and spaces, the first.

    Raises:
        InputError: the file cannot be read, or a label is invalid.
    """
    found: dict[str, HeldOut] = {}
    for question, labels in read_labelled(path, ("category", "harmful")):
        category = labels.get("category")
        if category is not None and not isinstance(category, str):
            place = f"{path.parent}/{question.source}"
            raise InputError(f"{place}: category: found {category!r}; expected a text")
        harmful = _harmful(labels.get("harmful"), f"{path.parent}/{question.source}")
        found.setdefault(normalized(question.text), HeldOut(question.text, category, harmful))
    return list(found.values())


def _harmful(value: Any, place: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "false": False}
    if not isinstance(value, str) or value.strip().lower() not in known:
        raise InputError(f"{place}: harmful: found {value!r}; expected true or false")
    return known[value.strip().lower()]


def refuse_leaks(
    settings: EvaluationSettings, questions: Sequence[HeldOut]
) -> dict[str, int | None]:
    """Check that no question was trained on, as far as models and exports say what was.

    Args:
        settings: names the models, the exports and the similarity.
        questions: the held-out questions.

    Returns:
        For each model with how many training questions the held-out ones were compared; None where
        neither it nor an export names any.

    Raises:
        InputError: a question is equal or near to one of them.
    """
    exports = [(folder, list(training_questions(folder))) for folder in settings.trained_on]
    for folder, trained in exports:
        _refuse(questions, trained, settings, str(folder))
    shared = {text for _, trained in exports for text in trained}
    counts: dict[str, int | None] = {}
    for name, model in settings.models.items():
        own: set[str] = set()
        for folder in lineage(folder_of(model)):
            trained = list(training_questions(folder)) if (folder / TRAINING).is_file() else []
            _refuse(questions, trained, settings, f"{name} ({folder / TRAINING})")
            own.update(trained)
        counts[name] = len(own | shared) or None
    return counts


def lineage(folder: Path | None) -> Iterator[Path]:
    """The folder of a model, then those of the models that it was trained from, as told."""
    seen: set[Path] = set()
    while folder is not None and folder.is_dir() and folder not in seen:
        seen.add(folder)
        yield folder
        settings = training_report(folder).get("settings")
        model = settings.get("model") if isinstance(settings, Mapping) else None
        folder = Path(model) if isinstance(model, str) else None


def training_report(folder: Path) -> Mapping[str, Any]:
    """What a trained model says of its training; empty where it says nothing.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / REPORT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    return data if isinstance(data, dict) else {}


_RATERS = frozenset(("rated_by", "scored_by", "observer_model"))
"""Keys of a training report under which the models stand that rated the rows."""


def raters_of(report: Any) -> set[str]:
    """The names of the models that rated the rows of a training, as its report has them."""
    if isinstance(report, list):
        return {name for part in report for name in raters_of(part)}
    if not isinstance(report, Mapping):
        return set()
    found: set[str] = set()
    for key, value in report.items():
        if key in _RATERS:
            found.update(map(str, value if isinstance(value, list | Mapping) else [value]))
        else:
            found |= raters_of(value)
    return found


def _refuse(
    questions: Sequence[HeldOut], trained: Sequence[str], settings: EvaluationSettings, where: str
) -> None:
    index = NearDuplicates(settings.near)
    for text in trained:
        index.add(text)
    known = "\n".join(map(normalized, trained))
    asked = "\n".join(normalized(one.text) for one in questions)
    parts = [normalized(text) for text in trained if _is_part(text, asked)]
    leaking = [
        one.text
        for one in questions
        if index.find(one.text).any
        or _is_part(one.text, known)
        or any(part in normalized(one.text) for part in parts)
    ]
    if leaking:
        count = "1 question" if len(leaking) == 1 else f"{len(leaking):,} questions"
        raise InputError(
            f"questions: {settings.questions}: found {count} equal or near to one, or with one "
            f"inside, in the training data of {where}, the first: {leaking[0][:80]!r}; expected "
            "held-out questions"
        )


_SHORTEST_PART = 20
"""Characters of a question that counts as a part of another; shorter ones are in many."""


def _is_part(text: str, others: str) -> bool:
    """Whether a question is in others word for word."""
    part = normalized(text)
    return len(part) >= _SHORTEST_PART and part in others


def training_questions(folder: Path) -> Iterator[str]:
    """The questions of a trained model, or of the rows of an export.

    Args:
        folder: with a `questions.jsonl`, or with the files that `export` wrote.

    Raises:
        InputError: it has no rows, or they cannot be read.
    """
    if (folder / TRAINING).is_file():
        yield from (question.text for question in read_questions(folder / TRAINING))
        return
    if not folder.is_dir():
        raise InputError(f"trained_on: {folder}: found no such folder; expected an export")
    files = [path for path in sorted(folder.glob("*")) if _has_rows(path)]
    if not files:
        raise InputError(f"trained_on: {folder}: found no rows; expected an export")
    for path in files:
        yield from (text for text in map(_asked, _rows(path)) if text)


def _has_rows(path: Path) -> bool:
    name = path.name
    if name == "croissant.json" or "lineage" in name or name.startswith("dataset_info"):
        return False
    return name.endswith((".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet"))


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
        return
    try:
        yield from (value for _, value in json_values(path))
    except (OSError, FileFault) as error:
        raise InputError(f"trained_on: {path}: {error}") from None


_ALPACA = (
    re.compile(r"### Input:\nQuestion: (.*?)\n\nAnswer: ", re.DOTALL),  # an answer to comment on
    re.compile(r"### Instruction:\s*(.*?)\s*(?=\n### (?:Input|Response):|\Z)", re.DOTALL),
)


def _asked(row: Any) -> str | None:
    """The question of a row of any format: its first user turn, or its text."""
    if not isinstance(row, Mapping):
        return None
    for name in ("question", "prompt", "messages", "conversations", "instruction", "query"):
        value = row.get(name)
        if isinstance(value, str):
            return next((found[1] for one in _ALPACA if (found := one.search(value))), value)
        if isinstance(value, Sequence):
            turns = [turn for turn in value if isinstance(turn, Mapping)]
            said = (t for t in turns if t.get("role", t.get("from")) in ("user", "human"))
            first = next(said, {})
            text = first.get("content", first.get("value"))
            return text if isinstance(text, str) else None
    return None
