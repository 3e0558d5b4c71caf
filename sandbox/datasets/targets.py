"""What other programs than TRL want of a row, where it differs.

OpenRLHF, and Axolotl and verl for what is not listed here, read the rows as TRL does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sandbox.datasets.rows import MESSAGE, MESSAGES, Columns, Format
from storage.errors import InputError

Data = dict[str, Any]


class Shape(NamedTuple):
    """How a program wants the rows of a format.

    Attributes:
        takes: the columns of the format that are given another form.
        columns: what they become.
        change: the new values of a row's old ones.
    """

    takes: tuple[str, ...]
    columns: Columns
    change: Callable[[Data], Data]

    def apply(self, data: Data) -> Data:
        """A row as the program wants it; columns that it does not read stay as they are."""
        rest = {name: value for name, value in data.items() if name not in self.takes}
        return self.change(data) | rest

    def applied(self, columns: Columns) -> Columns:
        """The columns of such a row."""
        rest = {name: one for name, one in columns.items() if name not in self.takes}
        return {**self.columns, **rest}


def _pair(data: Data) -> Data:
    one, other = data["chosen"][0], data["rejected"][0]
    return {"messages": data["prompt"], "chosen": one, "rejected": other}


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
    extra = {name: data[name] for name in ("id", "draft_rating", "scripted")}
    return {
        "data_source": f"sandbox-society/{data['run']}",
        "prompt": data["prompt"],
        "ability": "alignment",
        "reward_model": reward,
        "extra_info": {"index": data["episode"], **extra},
    }


_PAIR = Shape(
    ("prompt", "chosen", "rejected"),
    {"messages": MESSAGES, "chosen": dict(MESSAGE), "rejected": dict(MESSAGE)},
    _pair,
)
_EXTRA: Columns = {
    "index": "int64",
    "id": "string",
    "draft_rating": "float64",
    "scripted": "bool",
}

SHAPES: Mapping[str, Mapping[str, Shape | None]] = {
    "llama-factory": {
        "sft": None,
        "preference": _PAIR,
        "kto": Shape(
            ("prompt", "completion", "label"),
            {"messages": MESSAGES, "label": "bool"},
            _labelled,
        ),
    },
    "axolotl": {
        "sft": None,
        "preference": _PAIR,
        "kto": Shape(
            ("prompt", "completion", "label"),
            {"prompt": "string", "completion": "string", "label": "bool"},
            _strings,
        ),
        "prompts": None,
    },
    "verl": {
        "sft": None,
        "prompts": Shape(
            ("prompt",),
            {
                "data_source": "string",
                "prompt": MESSAGES,
                "ability": "string",
                "reward_model": {"style": "string", "ground_truth": "string"},
                "extra_info": dict(_EXTRA),
            },
            _verl,
        ),
    },
}
"""By program and format how its rows are to be; None: as they are. Formats not named it has no use
for."""


def shape_of(target: str, format: Format) -> Shape | None:
    """How a program wants the rows of a format; None: as they are.

    Raises:
        InputError: it has no use for the format.
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
    """LLaMA-Factory's description of the files of a format, each by its name without suffix."""
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
