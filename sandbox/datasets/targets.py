"""Conversions of rows for training frameworks whose formats differ from TRL's.

OpenRLHF reads the same rows as TRL; so do Axolotl and verl for formats that are not listed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sandbox.datasets.format import MESSAGE, MESSAGES, Columns, Format
from storage.errors import InputError

Data = dict[str, Any]


class Shape(NamedTuple):
    """The conversion of the rows of a format for a training framework.

    Attributes:
        replaces: the columns that are replaced.
        columns: returns the new columns, given the columns of the format.
        change: returns the values of the new columns, given those of a row.
    """

    replaces: tuple[str, ...]
    columns: Callable[[Columns], Columns]
    change: Callable[[Data], Data]

    def apply(self, data: Data) -> Data:
        """Convert a row; columns that are not replaced are unchanged."""
        rest = {name: value for name, value in data.items() if name not in self.replaces}
        return self.change(data) | rest

    def applied(self, columns: Columns) -> Columns:
        """Return the columns of converted rows."""
        rest = {name: kind for name, kind in columns.items() if name not in self.replaces}
        return {**self.columns(columns), **rest}


def _pair(data: Data) -> Data:
    chosen, rejected = data["chosen"][0], data["rejected"][0]
    return {"messages": data["prompt"], "chosen": chosen, "rejected": rejected}


def _labelled(data: Data) -> Data:
    return {"messages": data["prompt"] + data["completion"], "label": data["label"]}


def _strings(data: Data) -> Data:
    return {
        "prompt": data["prompt"][0]["content"],
        "completion": data["completion"][0]["content"],
        "label": data["label"],
    }


def _verl(data: Data) -> Data:
    reward = {"style": "rule", "ground_truth": data["reference"] or ""}
    extra = {name: data[name] for name in ("id", *_first_ratings(data), "scripted")}
    return {
        "data_source": f"sandbox-society/{data['run']}",
        "prompt": data["prompt"],
        "ability": "alignment",
        "reward_model": reward,
        "extra_info": {"index": data["episode"], **extra},
    }


def _verl_columns(columns: Columns) -> Columns:
    extra = {"index": "int64", "id": "string", **dict.fromkeys(_first_ratings(columns), "float64")}
    return {
        "data_source": "string",
        "prompt": MESSAGES,
        "ability": "string",
        "reward_model": {"style": "string", "ground_truth": "string"},
        "extra_info": {**extra, "scripted": "bool"},
    }


def _first_ratings(columns: Iterable[str]) -> list[str]:
    """The columns of `prompts` with mean ratings of first answers."""
    return [name for name in columns if name.endswith("_rating") and name != "reference_rating"]


_PAIR = Shape(
    ("prompt", "chosen", "rejected"),
    lambda columns: {"messages": MESSAGES, "chosen": dict(MESSAGE), "rejected": dict(MESSAGE)},
    _pair,
)
SHAPES: Mapping[str, Mapping[str, Shape | None]] = {
    "llama-factory": {
        "sft": None,
        "preference": _PAIR,
        "kto": Shape(
            ("prompt", "completion", "label"),
            lambda columns: {"messages": MESSAGES, "label": "bool"},
            _labelled,
        ),
    },
    "axolotl": {
        "sft": None,
        "preference": _PAIR,
        "kto": Shape(
            ("prompt", "completion", "label"),
            lambda columns: {"prompt": "string", "completion": "string", "label": "bool"},
            _strings,
        ),
        "prompts": None,
    },
    "verl": {
        "sft": None,
        "prompts": Shape(
            ("prompt",),
            _verl_columns,
            _verl,
        ),
    },
}
"""The supported formats of each framework, with their conversions; None: unchanged."""


def shape_of(target: str, format: Format) -> Shape | None:
    """Return the conversion of a format for a framework; None: unchanged.

    Raises:
        InputError: the framework does not read the format.
    """
    if target == "trl":
        return None
    known = SHAPES[target]
    if format.name not in known:
        expected = " or ".join(known)
        raise InputError(f"target {target}: found format {format.name}; expected {expected}")
    return known[format.name]


_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
_COLUMNS = {
    "sft": {"messages": "messages"},
    "preference": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
    "kto": {"messages": "messages", "kto_tag": "label"},
}


def dataset_info(format: Format, files: Sequence[str]) -> Data:
    """Return the `dataset_info.json` entries of LLaMA-Factory, by file name without suffix."""
    return {
        name.rsplit(".", 1)[0]: {
            "file_name": name,
            "formatting": "sharegpt",
            "ranking": format.name == "preference",
            "columns": _COLUMNS[format.name],
            "tags": _TAGS,
        }
        for name in files
    }
