"""Choosing raters: conditions such as ``age<30`` on what a rater is.

That is its persona, what it told in a survey, its starting label, and the model that plays it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from agents.preferences import Survey
from storage.errors import InputError

NOT_CHOSEN = "its rater is left out by raters"

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_PERSON = ("name", "age", "place", "occupation", "label", "model")
FIELDS = tuple(dict.fromkeys((*_PERSON, *Survey.model_fields)))
"""What conditions may name."""

_OPERATOR = "|".join(map(re.escape, _OPERATORS))
_CONDITION = re.compile(rf"\s*(\w+)\s*(==|{_OPERATOR}|[^\w\s]*)\s*(.*?)\s*", re.DOTALL)
_NEXT = re.compile(rf",(?=\s*\w+\s*(?:{_OPERATOR}))")
_OLDEST = 120


class Condition(NamedTuple):
    """A condition on a rater.

    Attributes:
        field: one of `FIELDS`.
        operator: =, !=, <, <=, > or >=.
        value: a number, or a text that is compared without regard to case.
    """

    field: str
    operator: str
    value: float | str

    def holds(self, persona: Mapping[str, Any]) -> bool:
        """Whether it holds for a stored persona; what a persona does not tell fulfils nothing.

        A condition on an age of which only the band is known holds if it does for the whole band.
        """
        compare = _OPERATORS[self.operator]
        if not isinstance(self.value, str):
            ages = _ages(persona)
            return bool(ages) and all(compare(age, self.value) for age in ages)
        told = _told(persona, self.field)
        return told is not None and compare(told.casefold(), self.value.casefold())


def parse_raters(texts: Iterable[str]) -> tuple[Condition, ...]:
    """Parse conditions; several in one text are separated by commas, and all must hold.

    Raises:
        InputError: a condition has no known field or operator, or an invalid value.
    """
    return tuple(_condition(part) for text in texts for part in _NEXT.split(text))


def matches(conditions: Sequence[Condition], persona: Mapping[str, Any] | None) -> bool:
    """Whether all conditions hold for a stored persona; without a persona only if none is given."""
    if persona is None:
        return not conditions
    return all(condition.holds(persona) for condition in conditions)


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None or not found[2]:
        raise InputError(f"raters: found {text!r}; expected a condition such as age<30")
    field, sign, value = found[1], found[2], found[3]
    if field not in FIELDS:
        raise InputError(f"raters: found field {field!r}; expected one of {', '.join(FIELDS)}")
    number = _number(value) if field == "age" else None
    allowed = tuple(_OPERATORS) if number is not None else ("=", "!=")
    if sign not in _OPERATORS or (sign not in allowed and field != "age"):
        expected = ", ".join(_OPERATORS if field == "age" else allowed)
        raise InputError(f"raters: found {sign!r} after {field}; expected one of {expected}")
    if not value or sign not in allowed:
        expected = "a number" if field == "age" else "a value"
        raise InputError(f"raters: found {value!r} after {field}{sign}; expected {expected}")
    return Condition(field, sign, value if number is None else number)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,3}(\.\d+)?", text, re.ASCII) else None


def _told(persona: Mapping[str, Any], field: str) -> str | None:
    survey = persona.get("survey") or {}
    told = survey.get(field) if field in Survey.model_fields else persona.get(field)
    return None if told is None else str(told)


def _ages(persona: Mapping[str, Any]) -> Sequence[float]:
    """The age of a persona, or the two ends of the band that its survey tells."""
    age = persona.get("age")
    if age is not None:
        return (float(age),)
    ends = re.findall(r"\d+", _told(persona, "age") or "")
    return [float(end) for end in ends] + ([_OLDEST] if len(ends) == 1 else [])
