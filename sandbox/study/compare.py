"""Comparing runs: groups of runs that differ in their seed alone, and differences between groups.

Every measure has a value for each episode, or none; the mean of a run is the mean of its episodes'
values, and that of a group the mean over its seeds. Intervals are for 95 % and for one measure at a
time: nothing corrects for looking at several. Missing values enter no figure and are counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from agents.scale import Declaration, Measure
from sandbox.reading.agents import read_agents
from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.records import flat
from sandbox.reading.statistics import clustered, mean, number, student, welch
from storage import database, tables
from storage.copying import forked_from
from storage.database import parse_run
from storage.errors import InputError
from storage.reader import Reader

Data = dict[str, Any]
Values = NDArray[np.float64]

MISSING, FAILED = "missing_ratings", "failed"
"""Measures that do not depend on a scale: the share of an episode's ratings that could not be
parsed, and 1 for a failed episode."""

METHODS = {
    "episode": (
        "paired by episode (same round, position in the round, and question); the standard error "
        "is cluster-robust by author, since the episodes of an author are not independent; "
        "Student's t with one degree of freedom less than there are authors; the interval is about "
        "these two runs, not about other seeds"
    ),
    "seed": "paired by seed, one difference for each seed; Student's t",
    "none": (
        "not paired (different seeds or different agents), one mean for each seed; Welch's t, "
        "which needs two seeds in each group"
    ),
}


class _Run(NamedTuple):
    """One run and its complete episodes.

    Attributes:
        reader: the run.
        config: as it is stored, in dotted keys; see `_plain`.
        declared: its stages and scales.
        rows: round, slot, author and question of each episode.
        columns: the values of each measure by episode; NaN where there is none.
    """

    reader: Reader
    config: Mapping[str, Any]
    declared: Declaration
    rows: NDArray[Any]
    columns: Mapping[str, Values]

    @property
    def name(self) -> str:
        """Of the run."""
        return str(self.reader.run.name)

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.reader.run.seed)

    def values(self, measure: str) -> Values:
        """The values of a measure by episode; all NaN where the run does not have it."""
        found = self.columns.get(measure)
        return np.full(len(self.rows), np.nan) if found is None else found

    def within(self, scope: str, first: int = 0) -> NDArray[np.bool_]:
        """Which episodes are of a scope, without the rounds before `first`."""
        rounds = self.rows["round"]
        last = rounds.max(initial=0) if scope == "last" else first
        inside: NDArray[np.bool_] = rounds >= max(first, last)
        return inside

    def mean(self, measure: str, scope: str, first: int = 0) -> float:
        """The mean of a measure; NaN where there is no value."""
        return mean(self.values(measure)[self.within(scope, first)])


class _Group(list[_Run]):
    """Runs that differ in their seed alone."""

    @cached_property
    def measures(self) -> frozenset[str]:
        """The names of the measures that they have."""
        return frozenset(self[0].columns)


def compare(names: Sequence[str]) -> Data:
    """Group runs by their config, and compare each group with the first.

    Args:
        names: runs as `parse_run` reads them, at least two.

    Returns:
        `groups` (runs, seeds and means; the first run's group first), `differing_keys` (config
        keys with a value for each group), `comparisons` (differences, other minus first, with
        intervals, the means of what is compared and the pairing that was used) and `notes`, for
        JSON. A measure that a group does not have is None there, and in its differences.

    Raises:
        InputError: there is no such run, one is given twice or has no complete episode, there
            are fewer than two, or a scale has not the same range in all of them.
    """
    if len(names) < 2:
        raise InputError(f"compare: found {len(names)} run; expected at least 2")
    with ExitStack() as stack:
        runs = [_read(stack, name) for name in names]
        _check_ranges(runs)
        groups, measures = _grouped(runs, names), measures_of([run.declared for run in runs])
        comparisons = [_comparison(groups, other, measures) for other in range(1, len(groups))]
        return {
            "groups": [_summary(group, measures) for group in groups],
            "differing_keys": _differing_keys(groups),
            "comparisons": comparisons,
            "notes": list(_notes(groups, measures)),
        }


def measures_of(declarations: Sequence[Declaration]) -> list[str]:
    """The names of the measures that at least one run has, in the order of their declarations."""
    names = (one.name for declared in declarations for one in _in_order(declared))
    return [*dict.fromkeys(names), MISSING, FAILED]


def _in_order(declared: Declaration) -> list[Measure]:
    return sorted(declared.measures, key=lambda one: one.kind == "peers")


def _check_ranges(runs: Sequence[_Run]) -> None:
    """Differences are in points of a scale, so that its range has to be the same in all runs."""
    seen: dict[str, tuple[_Run, tuple[float, float, str]]] = {}
    for run in runs:
        for scale in run.declared.scales:
            here = scale.low, scale.high, scale.better
            first, there = seen.setdefault(scale.name, (run, here))
            if here != there:
                raise InputError(
                    f"compare: {scale.name}: found {_range(here)} in {run.name}; expected "
                    f"{_range(there)} as in {first.name}"
                )


def _range(scale: tuple[float, float, str]) -> str:
    low, high, better = scale
    return f"{low:g} to {high:g} ({better} is better)"


def _read(stack: ExitStack, name: str) -> _Run:
    address = parse_run(name)
    engine = database.open_for_reading(address.url)
    stack.callback(engine.dispose)
    reader = Reader.find(engine, address.name, str(address))
    ids, rows, columns = _episodes(reader)
    if not len(rows):
        raise InputError(f"{name}: no complete episode yet; expected at least one")
    declared = declaration_of(reader)
    columns = {**dict(_scores(reader, declared, ids)), **columns}
    return _Run(reader, flat(_plain(json.loads(reader.run.config))), declared, rows, columns)


_ROW = np.dtype([("round", "i4"), ("slot", "i4"), ("author", "i8"), ("question", "i8")])


def _episodes(reader: Reader) -> tuple[NDArray[np.int64], NDArray[Any], dict[str, Values]]:
    """The complete episodes of a run: ids, rows, and the measures that no scale declares."""
    e, q, t = tables.episodes, tables.questions, tables.texts
    texts = (
        select(q.c.id, t.c.text).join(t, t.c.id == q.c.text_id).where(reader.belongs_to_run(q.c.id))
    )
    asked = {row.id: hash(row.text) for row in reader.rows(texts)}
    columns = (e.c.id, e.c.round, e.c.author, e.c.question_id, e.c.failed_at)
    counts = (e.c.ratings_read, e.c.ratings_missing)
    ids, rows, missing, failed = [], [], [], []
    query = (
        select(*columns, *counts)
        .where(reader.belongs_to_run(e.c.id), e.c.observed)
        .order_by(e.c.id)
    )
    for episode, round, author, question, failed_at, read, unread in reader.rows(query):
        slot = episode - reader.base - round * reader.run.per_round
        own = -episode if author is None else author  # nobody's episodes are independent
        ids.append(episode)
        rows.append((round, slot, own, asked[question]))
        missing.append(unread / (read + unread) if read + unread else math.nan)
        failed.append(float(failed_at is not None))
    others = {MISSING: np.array(missing, dtype=float), FAILED: np.array(failed, dtype=float)}
    return np.array(ids, dtype=np.int64), np.array(rows, dtype=_ROW), others


def _scores(
    reader: Reader, declared: Declaration, ids: NDArray[np.int64]
) -> Iterator[tuple[str, Values]]:
    """The values of each declared measure, by episode."""
    s, keys = tables.scores, measure_ids(reader)
    pair = np.dtype([("episode", "i8"), ("value", "f8")])
    for measure in declared.measures:
        query = select(s.c.episode_id, s.c.value).where(s.c.measure_id == keys[measure.name])
        found = np.fromiter((tuple(row) for row in reader.rows(query)), pair)
        values = np.full(len(ids), np.nan)
        places = np.searchsorted(ids, found["episode"])
        known = places < len(ids)
        known[known] = ids[places[known]] == found["episode"][known]
        values[places[known]] = found["value"][known]
        yield measure.name, values


def _grouped(runs: Sequence[_Run], names: Sequence[str]) -> list[_Group]:
    found: dict[str, _Group] = {}
    places: set[tuple[str, str]] = set()
    for name, run in zip(names, runs, strict=True):
        place = str(parse_run(name).url), run.name
        if place in places:
            raise InputError(f"{name}: given twice; expected each run once")
        places.add(place)
        found.setdefault(_rules(run), _Group()).append(run)
    return list(found.values())


def _plain(value: Any) -> Any:
    """A config without keys that are None or empty.

    A key that only newer versions write, with a default that changes nothing, splits no group.
    """
    if not isinstance(value, Mapping):
        return value
    parts = {key: _plain(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part is not None and part != {}}


def _rules(run: _Run) -> str:
    """What a run was played by: its config, and since when, where it is a fork.

    The name, the seed and the schedule do not count: they change no rule.
    """
    history = []
    origin = forked_from(run.reader)
    while origin is not None:
        changed = {key: some for key, some in origin["changed"].items() if _counts(key)}
        history.append([origin["round"], changed] if changed else None)
        origin = origin.get("forked_from")
    config = {key: value for key, value in run.config.items() if _counts(key) or key == "rounds"}
    return json.dumps([config, run.declared.model_dump(), [*filter(None, history)]], sort_keys=True)


def _counts(key: str) -> bool:
    return key not in ("name", "seed", "rounds") and not key.startswith("schedule.")


def _summary(group: _Group, measures: Sequence[str]) -> Data:
    return {
        "runs": [run.name for run in group],
        "seeds": [run.seed for run in group],
        "n": len(group),
        "episodes": sum(len(run.rows) for run in group),
        "failed_episodes": int(sum(run.values(FAILED).sum() for run in group)),
        "measures": {
            measure: {scope: _figure(group, measure, scope) for scope in SCOPES}
            if measure in group.measures
            else None
            for measure in measures
        },
    }


SCOPES = ("all", "last")
"""All rounds of a run, and its last one."""


def _figure(group: _Group, measure: str, scope: str) -> Data:
    values = [run.values(measure)[run.within(scope)] for run in group]
    missing = sum(int(np.isnan(some).sum()) for some in values)
    seeds = np.array(list(_by_seed(group, measure, scope).values()))
    return {"mean": number(mean(seeds)), "missing": missing}


def _by_seed(group: _Group, measure: str, scope: str, first: int = 0) -> dict[int, float]:
    """The mean of a measure by seed: runs that share a seed count as one."""
    means: dict[int, list[float]] = {}
    for run in group:
        means.setdefault(run.seed, []).append(run.mean(measure, scope, first))
    return {seed: mean(np.array(some)) for seed, some in means.items()}


def _differing_keys(groups: Sequence[_Group]) -> Data:
    configs = [group[0].config for group in groups]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {
        key: some
        for key, some in values.items()
        if (_counts(key) or key == "rounds") and any(one != some[0] for one in some)
    }


def _comparison(groups: Sequence[_Group], other: int, measures: Sequence[str]) -> Data:
    one, two = groups[0], groups[other]
    pairing = _pairing(one, two)
    first = 1 + max(_shared(a, b) for a in one for b in two)
    interval = {"episode": _by_episode, "seed": _paired_seeds, "none": _unpaired}[pairing]
    return {
        "groups": [0, other],
        "pairing": pairing,
        "method": METHODS[pairing],
        "first_round": first,
        "measures": {
            measure: {scope: interval(one, two, measure, scope, first) for scope in SCOPES}
            if measure in one.measures & two.measures
            else None
            for measure in measures
        },
    }


def _pairing(one: _Group, two: _Group) -> str:
    """By episode or by seed only where the agents are the same in both groups."""
    one_side, other_side = ({run.seed: _people(run) for run in group} for group in (one, two))
    if one_side != other_side:
        return "none"
    return "episode" if len(one) == len(two) == 1 else "seed"


def _people(run: _Run) -> list[tuple[str, str]]:
    return [(agent.label, agent.persona.model_dump_json()) for agent in read_agents(run.reader)]


def _shared(a: _Run, b: _Run) -> int:
    """The last round that one run took over from the other, or both from a third; -1 for none."""
    last = -1
    for name, digest, until in _lineage(a):
        for other, its_digest, its_until in _lineage(b):
            same = name == other and (None in (digest, its_digest) or digest == its_digest)
            if same and min(until, its_until) < math.inf:
                last = max(last, int(min(until, its_until)))
    return last if _same_until(a, b, last) else -1


def _same_until(a: _Run, b: _Run, last: int) -> bool:
    """Whether two runs have the same episodes and values up to a round."""
    inside = [run.rows["round"] <= last for run in (a, b)]
    rows = [run.rows[some].tobytes() for run, some in zip((a, b), inside, strict=True)]
    return rows[0] == rows[1] and all(
        np.array_equal(a.columns[name][inside[0]], b.columns[name][inside[1]], equal_nan=True)
        for name in a.columns.keys() & b.columns.keys()
    )


def _lineage(run: _Run) -> Iterator[tuple[str, str | None, float]]:
    """The runs that a run has rounds of, itself first: name, digest, last round."""
    row, until = run.reader.run, math.inf
    yield row.name, row.digest, until
    origin = forked_from(run.reader)
    while origin is not None:
        until = min(until, origin["round"])
        yield origin["run"], origin["digest"], until
        origin = origin.get("forked_from")


def _by_episode(one: _Group, two: _Group, measure: str, scope: str, first: int) -> Data:
    a, b = one[0], two[0]
    one_place, other_place = (
        run.rows["round"].astype(np.int64) << 32 | run.rows["slot"] for run in (a, b)
    )
    _, mine, its = np.intersect1d(one_place, other_place, assume_unique=True, return_indices=True)
    same = a.rows["question"][mine] == b.rows["question"][its]
    mine, its = mine[same], its[same]
    rounds = a.rows["round"][mine]
    last = rounds.max(initial=0) if scope == "last" else first
    inside = rounds >= max(first, last)
    sides = [values[inside] for values in (a.values(measure)[mine], b.values(measure)[its])]
    differences = sides[1] - sides[0]
    read = ~np.isnan(differences)
    authors = a.rows["author"][mine][inside]
    unmatched = int((a.rows["round"] >= max(first, last)).sum()) - int(inside.sum())
    left_out = int((~read).sum()) + unmatched
    found = clustered(differences[read], authors[read]) | {"left_out": left_out}
    return found | _means(*(values[read] for values in sides))


def _means(one: Values, two: Values) -> Data:
    """The mean of each side over what is compared: their difference is the difference."""
    return {"means": [number(mean(one)), number(mean(two))]}


def _paired_seeds(one: _Group, two: _Group, measure: str, scope: str, first: int) -> Data:
    a, b = (_by_seed(group, measure, scope, first) for group in (one, two))
    sides = [np.array([side[seed] for seed in a]) for side in (a, b)]
    differences = sides[1] - sides[0]
    read = ~np.isnan(differences)
    found = student(differences[read]) | {"left_out": int((~read).sum())}
    return found | _means(*(values[read] for values in sides))


def _unpaired(one: _Group, two: _Group, measure: str, scope: str, first: int) -> Data:
    both = [np.array(list(_by_seed(group, measure, scope, first).values())) for group in (one, two)]
    a, b = (values[~np.isnan(values)] for values in both)
    left_out = sum(map(len, both)) - len(a) - len(b)
    return welch(a, b) | {"left_out": left_out} | _means(a, b)


def _notes(groups: Sequence[_Group], measures: Sequence[str]) -> Iterator[str]:
    yield from _unfinished(groups)
    for index, group in enumerate(groups):
        if len({run.seed for run in group}) < len(group):
            yield f"group {index}: runs with the same seed count as one"
        lacking = [measure for measure in measures if measure not in group.measures]
        if lacking:
            yield f"group {index} has no {', '.join(lacking)}"
    for index, other in enumerate(groups[1:], 1):
        last = max(_shared(a, b) for a in groups[0] for b in other)
        if last >= 0:
            yield (
                f"groups 0 and {index} share rounds 0 to {last} (one is forked from the other, or "
                "both from a third); they are left out of the differences"
            )
    if len(groups) == 1:
        yield "all runs have the same config but for the seed and the name: nothing to compare"


def _unfinished(groups: Sequence[_Group]) -> Iterator[str]:
    for run in (run for group in groups for run in group):
        row, played = run.reader.run, int(run.rows["round"].max()) + 1
        if row.status != "done":
            yield f"{row.name} is not finished: {len(run.rows):,} episodes are complete"
        elif played < row.rounds:
            yield f"{row.name} stopped by its rule after {played} of {row.rounds} rounds"
