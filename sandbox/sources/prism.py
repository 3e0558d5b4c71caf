"""People of PRISM's survey as personas (Kirk et al., arXiv 2404.16019).

The data set is not part of this project: whoever has its `survey.jsonl` can name it as the personas
of a run.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from agents.preferences import Attribute
from storage.errors import InputError

NOTE = (
    "people of PRISM (Kirk et al., arXiv 2404.16019), whose texts are under CC-BY-4.0: name the "
    "source, and make no attempt to find out who they are, which its terms forbid"
)
"""What a run says of such a file."""

_FIELDS = ("user_id", "stated_prefs", "system_string", "self_description")
_SAME = (
    "age",
    "gender",
    "education",
    "employment_status",
    "marital_status",
    "english_proficiency",
    "lm_familiarity",
    "lm_frequency_use",
)
_PLACES = ("birth_country", "birth_region", "reside_country", "reside_region")
_NONE = (None, "", "EMPTY STRING")
_LONGEST = 200  # characters of a wish
_MOST = 20  # wishes of a persona


def is_prism(value: Any) -> bool:
    """Whether a line of a personas file is a person of PRISM's survey."""
    return isinstance(value, dict) and "user_id" in value


def persona_fields(value: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of a persona for a person of PRISM's survey; all others are left out.

    The name is the `user_id`, the wishes are the sentences of `system_string`, and of religion and
    ethnicity the simplified category is taken.

    Args:
        value: the person.
        place: the file and line, for errors.

    Raises:
        InputError: a field is missing, or is no text or object where it must be.
    """
    missing = next((name for name in _FIELDS if name not in value), None)
    if missing is not None:
        raise InputError(f"{place}: {missing}: found none; expected it in a line with user_id")
    about = value["self_description"]
    told = {name: value.get(name) for name in _SAME}
    told |= {
        name: _part(value, name, place).get("simplified") for name in ("religion", "ethnicity")
    }
    told |= {name: _part(value, "location", place).get(name) for name in _PLACES}
    stated = _part(value, "stated_prefs", place)
    return {
        "name": value["user_id"],
        "description": "Somebody who says nothing of themselves" if about in _NONE else about,
        "preferences": {
            "stated": {
                name: stated[name] for name in get_args(Attribute) if stated.get(name) is not None
            },
            "wishes": list(_wishes(value["system_string"], place)),
        },
        "survey": {name: answer for name, answer in told.items() if answer not in _NONE},
    }


def _part(value: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    part = value.get(name) or {}
    if not isinstance(part, dict):
        raise InputError(f"{place}: {name}: found {type(part).__name__}; expected an object")
    return part


def _wishes(text: Any, place: str) -> Iterator[str]:
    """Yield the sentences of a text; a very long one in parts."""
    if text in _NONE:
        return
    if not isinstance(text, str):
        raise InputError(f"{place}: system_string: found {type(text).__name__}; expected a text")
    sentences = re.split(r"(?<=[.!?])\s+|\n+", text.strip())
    parts = [part for sentence in sentences for part in textwrap.wrap(sentence, _LONGEST)]
    yield from parts if len(parts) <= _MOST else textwrap.wrap(text, _LONGEST)
