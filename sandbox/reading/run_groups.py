"""Groups of runs that differ only in their seed: their config, and names that say what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import select

from agents.scale import Declaration
from sandbox.reading.declaration import declaration_of
from sandbox.reading.records import flat
from storage import tables
from storage.copying import forked_from
from storage.reader import Reader
from storage.secrets import hide_values

MOST_KEYS = 3
"""A group whose config differs in more keys is named by its first run."""


class RunSettings(NamedTuple):
    """What decides the group of a run.

    Attributes:
        name, seed: of the run.
        config: its config with dotted keys, without keys that are None or empty.
        declared: its stages and scales.
        history: of a fork, the rounds after which rules were changed, and what was changed.
    """

    name: str
    seed: int
    config: Mapping[str, Any]
    declared: Declaration
    history: Sequence[Any]

    @property
    def rules(self) -> dict[str, Any]:
        """The config without the name, the seed and the schedule, which do not affect the rules."""
        return {key: value for key, value in self.config.items() if is_rule(key)}

    @property
    def key(self) -> str:
        """A text that exactly the runs of one group share."""
        parts = [self.rules, self.declared.model_dump(), self.history]
        return json.dumps(parts, sort_keys=True)


def is_rule(key: str) -> bool:
    """Whether a config key affects what happens in a run, so that it splits groups."""
    return key not in ("name", "seed") and not key.startswith("schedule.")


def run_settings(reader: Reader) -> RunSettings:
    """The name, seed, config and history of a run, without secrets."""
    return RunSettings(
        name=str(reader.run.name),
        seed=int(reader.run.seed),
        config=flat(hide_values(_without_empty(json.loads(reader.run.config)))),
        declared=declaration_of(reader),
        history=list(_history(reader)),
    )


def _history(reader: Reader) -> Iterator[list[Any]]:
    origin = forked_from(reader)
    while origin is not None:
        changed = {
            key: pair for key, pair in origin["changed"].items() if is_rule(key) and key != "rounds"
        }
        if changed:
            yield [origin["round"], changed]
        origin = origin.get("forked_from")


def _without_empty(value: Any) -> Any:
    """A config without keys that are None or empty.

    So that a key that only newer versions write does not split a group while it has no effect.
    """
    if not isinstance(value, Mapping):
        return value
    parts = {key: _without_empty(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part is not None and part != {}}


def grouped(settings: Sequence[RunSettings]) -> list[list[int]]:
    """The positions of the runs of each group, groups in the order of their first run."""
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(settings):
        groups.setdefault(one.key, []).append(index)
    return list(groups.values())


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rules that are not the same in all configs, each with a value for each config."""
    by_key = {
        key: [config.get(key) for config in configs]
        for key in dict.fromkeys(key for config in configs for key in config)
        if is_rule(key)
    }
    return {
        key: values for key, values in by_key.items() if any(value != values[0] for value in values)
    }


def group_names(groups: Sequence[Sequence[RunSettings]]) -> list[str]:
    """A name for each group, all different: a run's, or ``score_only true (3 seeds)``.

    The config keys that differ name the groups where a group has several runs; a group is named by
    what the names of its runs have in common where no key or more than `MOST_KEYS` differ, as after
    a change that was undone.
    """
    firsts = [group[0] for group in groups]
    keys = differing_keys([one.config for one in firsts])
    by_key = any(len(group) > 1 for group in groups) and 0 < len(keys) <= MOST_KEYS
    plain = [
        ", ".join(f"{_last(key, keys)} {yaml_value(values[index])}" for key, values in keys.items())
        if by_key
        else common_name([one.name for one in group])
        for index, group in enumerate(groups)
    ]
    names = [
        name + (f" ({_seeds(group)})" if by_key or len(group) > 1 else "")
        for name, group in zip(plain, groups, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} [{index + 1}]"
        for index, name in enumerate(names)
    ]


def common_name(names: Sequence[str]) -> str:
    """The name of a run; of several runs what their names begin with: ``wide`` of wide-seed7, 8."""
    if len(names) == 1:
        return names[0]
    equal = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in equal).rstrip("0123456789-_. ")
    return start.removesuffix("seed").rstrip("-_. ") or names[0]


def _seeds(group: Sequence[RunSettings]) -> str:
    count = len({one.seed for one in group})
    return f"{count} seed{'s' if count != 1 else ''}"


def _last(key: str, keys: Mapping[str, Any]) -> str:
    """The last part of a dotted key, or the whole key where another one ends in the same."""
    end = key.rpartition(".")[2]
    return end if sum(one.rpartition(".")[2] == end for one in keys) == 1 else key


def yaml_value(value: Any) -> str:
    """A config value as one writes it in YAML: true, 4, text; ``unset`` for None."""
    if value is None:
        return "unset"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def same_people(first: Reader, second: Reader) -> bool:
    """Whether two runs have the same agents, so that their exchanges can be paired."""
    return _people(first) == _people(second)


def _people(reader: Reader) -> list[tuple[str, str]]:
    a = tables.agents
    query = select(a.c.label, a.c.persona).where(a.c.run_id == reader.run.id).order_by(a.c.number)
    return [
        (label, json.dumps(json.loads(persona), sort_keys=True))
        for label, persona in reader.rows(query)
    ]
