"""Settings that can be changed while a run is under way: those that do not change what is said.

An address, a timeout or the number of calls in flight says how replies are fetched; a model, a
temperature or a prompt template says what they are. `resume` sets the first kind, `fork` the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.plugins import only_files
from sandbox.backends import check_model
from sandbox.backends.base import transport_of
from sandbox.config import Config, apply_setting, explain, role_key
from sandbox.reading.records import flat
from sandbox.settings_files import redacted
from storage.errors import InputError
from storage.secrets import hide_all, hide_values

Changes = dict[str, list[Any]]
"""Changed settings by dotted key: [before, after]."""


def differences(old: Config, new: Config) -> Changes:
    """Return the settings that differ, except for the name."""
    return _differences(flat(json.loads(old.as_json())), flat(json.loads(new.as_json())))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    keys = [key for key in {**before, **after} if key != "name"]
    pairs = {key: [before.get(key), after.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def resumed(config: Config, settings: Sequence[str], allow: Collection[Path] = ()) -> Config:
    """Return a run's config with settings changed that do not change what is said.

    Args:
        config: the run's config.
        settings: the changes, each ``a.b=value``.
        allow: files with Python code that the config names and that may be loaded.

    Raises:
        InputError: a setting is invalid, or changes what is said.
    """
    if not settings:
        return config
    data: dict[str, Any] = json.loads(config.as_json())
    before = flat(data)
    origin = {apply_setting(data, setting): redacted(setting) for setting in settings}
    known = {key: pair for key, pair in _differences(before, flat(data)).items() if key in before}
    _refuse(config, known, origin)
    if data.get("name") != config.name:
        raise InputError(f"{origin['name',]}: expected no name: a run keeps its own")
    try:
        new = Config.model_validate(data, context=only_files(allow))
    except ValidationError as error:
        raise InputError(explain(error, f"run {config.name}", origin, data)) from None
    _refuse(config, differences(config, new), origin)
    _check(config, new)
    return new


def transport_changes(old: Config, new: Config) -> list[str]:
    """List the settings of a config that differ and do not change what is said.

    Returns:
        Settings for `resumed`, each ``a.b=value``; without those that the new config leaves out.
    """
    allowed = transport_keys(old)
    return [
        f"{key}={json.dumps(after)}"
        for key, (_, after) in differences(old, new).items()
        if after is not None and _is_within(key, allowed)
    ]


def _is_within(key: str, sections: Collection[str]) -> bool:
    """Whether a dotted key is one of these keys, or within one."""
    parts = key.split(".")
    return any(".".join(parts[:length]) in sections for length in range(1, len(parts) + 1))


def _refuse(config: Config, changes: Changes, origin: Mapping[tuple[str, ...], str]) -> None:
    allowed = transport_keys(config)
    for changed in changes:
        if _is_within(changed, allowed):
            continue
        parts = changed.split(".")
        given = max(origin, key=lambda at: _common(at, parts))
        place = origin[given]
        key = changed if parts[: len(given)] == list(given) else ".".join(given)
        if key == "rounds":
            raise InputError(f"{place}: expected --rounds, which raises the number of rounds")
        raise InputError(
            f"{place}: {key} changes what is said; expected a key that does not, such as an "
            f"address or a timeout, or a new run: `fork {config.name} --at ROUND --set {key}=...`"
        )


def _common(key: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts two keys have in common from their beginning."""
    pairs = enumerate(zip(key, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(key), len(other)))


def _check(old: Config, new: Config) -> None:
    """Check the changed models as they are checked before a run is created."""
    before = dict(old.models.roles())
    for role, settings in new.models.roles():
        try:
            if settings != before[role]:
                check_model(settings)
        except ValueError as error:
            raise InputError(f"{role_key(role)}.{error}") from None


def transport_keys(config: Config) -> set[str]:
    """List the keys of a config that do not change what is said; each stands for all within it."""
    sections: list[tuple[str, Any]] = [
        *((role_key(role), settings) for role, settings in config.models.roles()),
        ("memory.embedder", config.memory.embedder),
    ]
    within = {
        f"{section}.{key}" for section, settings in sections for key in transport_of(type(settings))
    }
    return {"schedule", *within}


def without_secrets(changes: Changes) -> Changes:
    """Return changes as they are stored in the history: values that may be secret are hidden."""
    return {
        key: [_shown(key, value) for value in pair] if pair != [None, None] else pair
        for key, pair in changes.items()
    }


def _shown(key: str, value: Any) -> Any:
    parts = key.split(".")
    return (
        hide_all(value) if "headers" in parts[:-1] else hide_values({parts[-1]: value})[parts[-1]]
    )
