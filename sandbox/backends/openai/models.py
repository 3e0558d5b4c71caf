"""The list of models that a server has. It is advice: some servers have none, or a wrong one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from sandbox.backends.openai.response import as_list, as_mapping

_WHOLE = frozenset(("vllm", "sglang"))  # the lists of these servers name all that they serve

_NAMED = 8  # names in a message


class ModelList(NamedTuple):
    """The models that a server lists.

    Attributes:
        owners: who owns each model, by its name.
    """

    owners: dict[str, str]

    def has(self, model: str) -> bool:
        """Whether a model is listed, perhaps by a pattern, a longer name, or without its tag."""
        return any(
            model == name
            or name in (f"models/{model}", f"{model}:latest")
            or ("*" in name and fnmatchcase(model, name))
            for name in self.owners
        )

    def words(self) -> str:
        """The first names, and how many more there are."""
        names = list(self.owners)
        more = len(names) - _NAMED
        return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")

    def is_whole(self) -> bool:
        """Whether the list comes from a server whose list names all that it serves."""
        return bool(_WHOLE.intersection(self.owners.values()))


def model_list(content: Any) -> ModelList | None:
    """Read a list of models; None if the content is none.

    Args:
        content: the JSON of the response: ``{"data": [{"id": ...}]}``, or less.
    """
    listed = content
    if isinstance(content, dict):
        listed = content.get("data", content.get("models"))
    if not isinstance(listed, list):
        return None
    owners = {}
    for entry in as_list(listed):
        name = entry if isinstance(entry, str) else _name(as_mapping(entry))
        if name:
            owners[name] = str(as_mapping(entry).get("owned_by"))
    return ModelList(owners) if owners or not listed else None


def _name(entry: Any) -> str | None:
    return next((str(entry[key]) for key in ("id", "name", "model") if entry.get(key)), None)
