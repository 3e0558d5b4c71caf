"""The base class of everything that is read from a config, a policy or a file of personas."""

from __future__ import annotations

from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Plain values with known keys, unchangeable: an unknown key is an error, and so is infinity.

    ``true`` is no number: a field takes it only if its type names `bool`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _no_booleans(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        section = handler(data)
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            if field is not None and _holds_boolean(value) and not _names(field.annotation, bool):
                raise error_at(name, value, "a number, a text or a mapping, not true or false")
        return section


def error_at(key: str, found: Any, expected: str) -> ValidationError:
    """Make an error at a key of the section that is validated."""
    reason = PydanticCustomError("section", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data(
        "Settings", [{"type": reason, "loc": (key,), "input": found}]
    )


def _holds_boolean(value: Any) -> bool:
    """Whether a value is a boolean, or a list with one."""
    if isinstance(value, list | tuple):
        return any(isinstance(each, bool) for each in value)
    return isinstance(value, bool)


def _names(annotation: Any, kind: type) -> bool:
    """Whether a type is `kind`, allows everything, or has it as an alternative."""
    if annotation is kind or annotation is Any:
        return True
    return any(_names(each, kind) for each in get_args(annotation))
