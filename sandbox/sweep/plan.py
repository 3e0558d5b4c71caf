"""The plan of a sweep: its runs with their names and configs, all checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from sqlalchemy import URL

from agents.checks import files_of
from sandbox.config import Config, load_config, role_key
from sandbox.engine.run import prepare
from sandbox.engine.settings import differences, is_within, transport_changes, transport_keys
from sandbox.reading.run_groups import yaml_value
from sandbox.reading.runs import open_run
from sandbox.settings_files import read_settings, read_yaml, shown
from sandbox.sources.policies import read_policy
from sandbox.sweep.engines import engine_keys, on_ray
from sandbox.sweep.settings import PAGE, SweepSettings
from sandbox.text import short
from storage.database import RUNS, Address, absolute, exists, parse_url, run_names
from storage.errors import InputError

NOT_CREATED = "not created"
"""The status of a run that has no row in its database yet."""

MOST_RUNS = 10_000
"""Of a study: more are refused before any is made."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        db: the URL, with its password, or the path of its database.
        config: as it is stored.
        own: the settings by dotted key that it does not share with all runs of the study.
    """

    db: str
    config: Config
    own: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.config.name

    @property
    def address(self) -> Address:
        """Where it is stored."""
        return Address(parse_url(self.db), self.name)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that it shares with other runs: see `engine_keys`."""
        return tuple(sorted(set(engine_keys(self.config).values())))

    def files(self) -> list[Path]:
        """The files with Python code that the study's config and policy name."""
        given = self.config.policy
        policy = read_policy(given.file, given.checks, given.prompts)
        return [*self.config.files(), *files_of(policy)]


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, in the order in which they are begun.

    Attributes:
        source: the file of the study.
        settings: its settings.
        runs: at least one.
    """

    source: Path
    settings: SweepSettings
    runs: Sequence[PlannedRun]

    @property
    def place(self) -> str:
        """The folder or the URL with all runs."""
        return self.settings.db or str(_folder(self.settings))

    @property
    def url(self) -> URL | None:
        """The database of all runs; None where each has a file of its own."""
        return None if self.settings.db is None else parse_url(self.settings.db)


def is_study(run: str) -> bool:
    """Whether an argument RUN names the file of a study."""
    return run.endswith((".yaml", ".yml")) and "://" not in run


def read_plan(source: Path, settings: Sequence[str] = ()) -> Plan:
    """Read the settings of a study and load the configs of all its runs.

    Args:
        source: a YAML file.
        settings: overrides of the study's own keys, each ``a.b=value``.

    Raises:
        InputError: something is invalid, or two runs have one name.
    """
    _refuse_config(source)
    study = read_settings(SweepSettings, PAGE, source, settings)
    folder = source.resolve().parent
    _refuse_own("settings", study.settings, source)
    _check_grid(study.grid, source)
    _refuse_many(study, source)
    _refuse_overridden(study, source)
    common = _Set(folder, study.config).set(study.settings, f"{source}: settings")
    first = common.load().seed
    seeds = range(first, first + study.seeds) if isinstance(study.seeds, int) else study.seeds
    runs: dict[str, PlannedRun] = {}
    for arm in _arms(study, source):
        varied = common
        for place, values in arm.settings:
            varied = varied.set(values, f"{source}: {place}")
        for seed in seeds:
            name = "-".join([study.name, *arm.names, f"seed{seed}"])
            seeded = varied.set({"name": name}, f"{source}: name").set({"seed": seed}, str(source))
            own = {key: value for _, values in arm.settings for key, value in values.items()}
            run = _planned(study, seeded, {**own, "seed": seed})
            if name in runs:
                _refuse_equal_names(source, runs[name], run)
            runs[name] = run
    return Plan(source, study, list(runs.values()))


def _refuse_config(source: Path) -> None:
    """Say of the config of a run that it is no study."""
    keys = read_yaml(source, f"keys that {PAGE} lists").keys()
    others = keys - SweepSettings.model_fields.keys()
    if others and keys <= Config.model_fields.keys():
        raise InputError(
            f"{source}: found the config of a run, with the key {min(others)}; expected the name "
            f"of the run, or the file of a sweep, with keys that {PAGE} lists"
        )


@dataclass(frozen=True)
class _Set:
    """The config of a run: a file, and settings with the places that they come from."""

    folder: Path
    config: Path
    places: Mapping[str, str] = field(default_factory=dict)

    def set(self, values: Mapping[str, Any], place: str) -> _Set:
        """The same with further settings."""
        more = {f"{key}={json.dumps(value)}": place for key, value in values.items()}
        return _Set(self.folder, self.config, {**self.places, **more})

    def load(self) -> Config:
        return load_config(self.config, list(self.places), folder=self.folder, places=self.places)


@dataclass(frozen=True)
class _Arm:
    """The runs that differ only in their seed: parts of their names, and settings by place."""

    names: Sequence[str]
    settings: Sequence[tuple[str, Mapping[str, Any]]]


def _arms(study: SweepSettings, source: Path) -> Iterator[_Arm]:
    """Each entry of `list` with each combination of `grid`."""
    keys = [*study.grid, *(key for entry in study.list for key in entry if key != "name")]
    axes = [
        list(_axis(source, key, values, _short_key(key, keys)))
        for key, values in study.grid.items()
    ]
    for number, entry in enumerate(study.list or [{}]):
        place = f"list[{number}]"
        values = {key: value for key, value in entry.items() if key != "name"}
        _refuse_own(place, values, source)
        given = entry.get("name")
        if given is not None and not isinstance(given, str):
            raise InputError(f"{source}: {place}.name: found {shown(given)}; expected a text")
        names = (
            [_safe(given)]
            if given
            else [
                _value_name(source, f"{place}.{key}", _short_key(key, keys), value)
                for key, value in values.items()
            ]
        )
        for combination in product(*axes):
            yield _Arm(
                [*names, *(name for name, _, _ in combination)],
                [(place, values), *((at, setting) for _, at, setting in combination)],
            )


def _check_grid(grid: Mapping[str, Any], source: Path) -> None:
    for key, values in grid.items():
        _refuse_own(f"grid.{key}", {key: values}, source)
        if not isinstance(values, list | dict) or not values:
            expected = "a list of values, or a mapping from names to values"
            raise InputError(f"{source}: grid.{key}: found {shown(values)}; expected {expected}")


def _refuse_overridden(study: SweepSettings, source: Path) -> None:
    """Check that no key of the grid replaces what `settings` or an entry of `list` has set."""
    places = {"settings": study.settings}
    places |= {f"list[{number}]": entry for number, entry in enumerate(study.list)}
    for place, values in places.items():
        for key, axis in product(values, study.grid):
            if is_within(key, [axis]):
                expected = f"grid.{axis} or {place}.{key}, not both"
                raise InputError(
                    f"{source}: found {key} in grid and in {place}; expected {expected}"
                )


def _refuse_many(study: SweepSettings, source: Path) -> None:
    """Count the runs without making them."""
    seeds = study.seeds if isinstance(study.seeds, int) else len(study.seeds)
    count = seeds * max(1, len(study.list)) * prod(map(len, study.grid.values()))
    if count > MOST_RUNS:
        raise InputError(f"{source}: found {count:,} runs; expected at most {MOST_RUNS:,}")


def _axis(
    source: Path, key: str, values: Any, short_key: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The values of a key of the grid: the part of the name, the place, and the setting."""
    place = f"grid.{key}"
    if isinstance(values, dict):
        for name, value in values.items():
            yield _safe(str(name)), f"{place}.{name}", {key: value}
        return
    for value in values:
        yield _value_name(source, place, short_key, value), place, {key: value}


def _refuse_own(place: str, values: Mapping[str, Any], source: Path) -> None:
    """Check that nothing sets what the study sets itself."""
    for key, instead in (("seed", "seeds: [1, 2]"), ("name", "name: of the study")):
        if key in values:
            raise InputError(f"{source}: {place}: found the key {key}; expected {instead}")


def _short_key(key: str, keys: Collection[str]) -> str:
    """The last part of a dotted key, or as many as tell it from all others: raters."""
    parts = key.split(".")
    others = {other for other in keys if other != key}
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(f".{other}".endswith(f".{end}") for other in others):
            return end
    return key


def _value_name(source: Path, place: str, key: str, value: Any) -> str:
    """A setting as a part of a run's name: raters2, score_only-true."""
    if isinstance(value, dict | list):
        expected = "a name for it: `grid: {a.b: {NAME: VALUE}}`, or `list: [{name: NAME, ...}]`"
        raise InputError(f"{source}: {place}: found {shown(value)}; expected {expected}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = Path(value).stem if isinstance(value, str) and "/" in value else yaml_value(value)
    return _safe(f"{key}{value}" if number else f"{key}-{text}")


def _safe(text: str) -> str:
    """A text with the characters that names of runs may have, at most 40."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:40]


def _planned(study: SweepSettings, settings: _Set, own: Mapping[str, Any]) -> PlannedRun:
    config = settings.load()
    loaded = next(iter(engine_keys(config)), None)
    if study.on == "ray" and loaded is not None:
        raise InputError(
            f"{role_key(loaded)}.on: found a model that the process of a run loads; expected ray, "
            "so that the runs on Ray share its replicas"
        )
    cluster = {
        f"{key}.ray.{name}": value
        for key, model in on_ray(config).items()
        for name, value in (("pool", study.name), ("address", study.ray))
        if value is not None and getattr(model.ray, name) is None
    }
    if cluster:  # the runs of a study share the replicas of equal models
        config = settings.set(cluster, str(settings.config)).load()
    return PlannedRun(study.db or str(_folder(study) / f"{config.name}.db"), config, own)


def _folder(study: SweepSettings) -> Path:
    return absolute(study.out or str(RUNS / study.name))


def _refuse_equal_names(source: Path, one: PlannedRun, other: PlannedRun) -> None:
    both = " and ".join(short(json.dumps(dict(run.own)), 120) for run in (one, other))
    raise InputError(
        f"{source}: found two runs with the name {one.name}: {both}; expected different ones: "
        "`grid: {a.b: {NAME: VALUE}}` and `list: [{name: NAME, ...}]` name settings"
    )


def check_place(plan: Plan) -> None:
    """Check that the folder of a study can be written, and make nothing there.

    Raises:
        InputError: it cannot.
    """
    if plan.url is not None:
        return
    folder = nearest = Path(plan.place)
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    with writing_to(plan, folder), TemporaryFile(dir=nearest):
        pass


@contextmanager
def writing_to(plan: Plan, folder: Path) -> Iterator[None]:
    """Say of an error of the operating system that the folder of a study cannot be written."""
    try:
        yield
    except OSError as error:
        found = f"{shown(str(folder))} ({error.strerror})"
        raise InputError(
            f"{plan.source}: out: found {found}; expected a folder that can be written"
        ) from None


def created(plan: Plan) -> set[str]:
    """The names of the runs of a study that are in their databases.

    Raises:
        InputError: a database cannot be read.
    """
    if plan.url is not None:
        names = set(run_names(plan.url))
        return {run.name for run in plan.runs if run.name in names}
    found = (run for run in plan.runs if exists(run.address.url))
    return {run.name for run in found if run.name in run_names(run.address.url)}


def addresses_of(source: Path) -> dict[Address, bool]:
    """The runs of a study by address, in the order of the study, and whether each is created.

    Raises:
        InputError: the study is invalid, or a database cannot be read.
    """
    plan = read_plan(source)
    there = created(plan)
    return {run.address: run.name in there for run in plan.runs}


def viewable(source: Path) -> list[str]:
    """What `view` is given to show a study: its folder, or each run in its database."""
    plan = read_plan(source)
    if plan.url is None:
        return [plan.place]
    there = created(plan)
    return [f"{run.db}#{run.name}" for run in plan.runs if run.name in there]


def changed_settings(plan: Plan, run: PlannedRun) -> list[str]:
    """The settings by which the study now changes a stored run without changing what is said.

    Returns:
        Settings for `resume`, each ``a.b=value``.

    Raises:
        InputError: the study now says something else than the stored run.
    """
    with open_run(run.address) as reader:
        stored = Config.from_json(reader.run.config, run.config.files())
    transport = transport_keys(stored)
    for key, (before, now) in differences(stored, run.config).items():
        if not is_within(key, transport):
            raise InputError(
                f"{plan.source}: {run.name}: the stored run has {key} {short(before, 60)}; found "
                f"{short(now, 60)}; expected the same, or another name of the study"
            )
    return transport_changes(stored, run.config)


def check_ready(runs: Sequence[PlannedRun], source: Path) -> None:
    """Check the inputs of runs as `run` does, before the first one is played.

    Raises:
        InputError: an input is missing or invalid.
    """
    seen: set[str] = set()
    for run in runs:
        said = run.config.model_copy(update={"name": "", "seed": 0}).as_json()
        if said not in seen:  # the inputs of runs that differ in their seed are the same
            seen.add(said)
            prepare(run.config, f"{source}: {run.name}")
