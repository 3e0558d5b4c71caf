"""Constraining replies to the shape that a prompt template declares: the fields of each server.

Servers differ: vLLM takes a regular expression in `structured_outputs`, SGLang in `regex`, and most
others (llama.cpp, Ollama, LiteLLM, OpenAI) take a JSON schema in `response_format`. An object that
follows from a schema is written as the text that the prompt asks for, so that all replies of a
template look the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from agents.forms import CallName, JsonShape, Parsed, Shape, Status, line_of, object_schema
from sandbox.backends.base import Call

JSON_TOKENS = 32
"""Tokens for the braces and names of an object, in addition to those of a reply."""


class Constraint(StrEnum):
    """How replies are constrained."""

    NONE = "none"
    VLLM = "vllm"
    SGLANG = "sglang"
    JSON_SCHEMA = "json_schema"


def described(kind: Constraint) -> str:
    """Say how a server constrains replies."""
    if kind is Constraint.NONE:
        return "does not constrain replies to their form: some may be unparseable"
    return f"constrains replies to their form ({kind})"


FIELDS = frozenset(("structured_outputs", "regex", "response_format"))
"""The fields of a request that constrain its reply."""

BY_OWNER = {
    "vllm": Constraint.VLLM,
    "sglang": Constraint.SGLANG,
    "llamacpp": Constraint.JSON_SCHEMA,
    "library": Constraint.JSON_SCHEMA,  # Ollama
}
"""What servers take that name themselves as the owner of their models."""

_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def constraint_fields(kind: Constraint, shape: Shape[Any]) -> dict[str, Any]:
    """Return the fields that constrain a reply to its shape; none where that cannot be done."""
    if kind is Constraint.JSON_SCHEMA:
        if not isinstance(shape, JsonShape):
            return {}
        schema = {"name": "reply", "strict": True, "schema": shape.json_schema}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if shape.regex is None:
        return {}
    if kind is Constraint.VLLM:
        return {"structured_outputs": {"regex": shape.regex}}
    return {"regex": shape.regex} if kind is Constraint.SGLANG else {}


def written(shape: Shape[Any], text: str, cut: bool) -> str:
    """Write a reply that is an object of the shape's schema as the text that the prompt asks for.

    Any other reply stays as it is. Of a truncated object everything up to the truncated text is
    read; a number or a list that may have been truncated is not.
    """
    if not isinstance(shape, JsonShape):
        return text
    fenced = _FENCE.fullmatch(text)
    for candidate in (fenced[1] if fenced else text, *([f'{text}"}}'] if cut else [])):
        try:
            value = json.loads(candidate, strict=False)
            if isinstance(value, dict):
                return shape.from_json(value)
        except (ValueError, RecursionError):
            continue
    return text


@dataclass(frozen=True)
class Probe:
    """A shape that no model would reply in by itself, to find out whether a server obeys."""

    max_tokens: int = 256
    regex: str = "kz7[0-9]{3}"

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """An object with one of two words."""
        return object_schema({"kz7": {"type": "string", "enum": ["kz7001", "kz7002"]}})

    def from_json(self, value: Mapping[str, Any]) -> str:
        """Return the word."""
        return line_of(value, "kz7")

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Read the word."""
        obeyed = not cut and re.fullmatch(self.regex, text.strip()) is not None
        return Parsed(text, Status.OK) if obeyed else Parsed(None, Status.UNREADABLE)


def probe_call(temperature: float, adapter: str | None = None) -> Call:
    """Return a short call with the shape `Probe`; it belongs to no episode."""
    name = CallName(0, 0, "probe", None)
    system, user = "You answer in one word.", "What colour is grass?"
    return Call(name, 7, system, user, Probe(), 256, temperature, adapter=adapter)
