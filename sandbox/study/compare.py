"""Comparing runs: groups of runs that differ in their seed alone, and differences between groups.

Every measure has a value for each episode, or none; a run's mean is that of its episodes' values,
and a group's the mean over its seeds. Intervals are for 95 % and for one measure at a time: nothing
corrects for looking at several. What is missing enters no figure and is counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, select

from sandbox.config import Config, Schedule, flat
from sandbox.reading.agents import read_agents
from sandbox.reading.statistics import clustered, mean, number, student, welch
from storage import database, tables
from storage.copying import forked_from
from storage.database import parse_run
from storage.errors import InputError
from storage.reader import Reader

Data = dict[str, Any]
Values = NDArray[np.float64]

MEASURES = (
    *("draft_alignment", "revision_alignment", "alignment_gain"),
    *("draft_engagement", "revision_engagement", "engagement_gain"),
    *("peer_rating", "missing_ratings", "failed"),
)
"""Scores and ratings are on the 1-7 scales, gains are revision minus draft; `missing_ratings` is
the share of an episode's ratings that could not be read, `failed` is 1 for a failed episode.
"""

METHODS = {
    "episode": (
        "paired by episode (same round, place in it and question); the standard error is "
        "cluster-robust by author, since the episodes of an author are not independent; Student's "
        "t with as many degrees of freedom as authors, less one; it is about these two runs, not "
        "about other seeds"
    ),
    "seed": "paired by seed, one difference a seed; Student's t",
    "none": "not paired (other seeds, or other people), one mean a seed; Welch's t, which needs "
    "two seeds on each side",
}

_SCORES = [
    (stage, scale) for scale in ("alignment", "engagement") for stage in ("draft", "revision")
]


class _Run(NamedTuple):
    """One run: what it is, and its complete episodes, a row each (missing values are NaN)."""

    reader: Reader
    config: Config
    rows: NDArray[Any]

    def values(self, measure: str) -> Values:
        """A measure, by episode."""
        if measure.endswith("_gain"):
            scale = measure.removesuffix("_gain")
            return self.values(f"revision_{scale}") - self.values(f"draft_{scale}")
        values: Values = self.rows[measure]
        return values

    def within(self, scope: str, first: int = 0) -> NDArray[np.bool_]:
        """Which episodes are of a scope, rounds before `first` left out."""
        rounds = self.rows["round"]
        last = rounds.max(initial=0) if scope == "last" else first
        inside: NDArray[np.bool_] = rounds >= max(first, last)
        return inside

    def mean(self, measure: str, scope: str, first: int = 0) -> float:
        """A measure's mean; NaN where there is no value."""
        return mean(self.values(measure)[self.within(scope, first)])


Group = list[_Run]


def compare(names: Sequence[str]) -> Data:
    """Group runs by their config, and compare each group with the first.

    Args:
        names: runs as `parse_run` reads them, at least two.

    Returns:
        `groups` (runs, seeds and means; the first run's group first), `differing_keys` (config
        keys with a value for each group), `comparisons` (differences, other minus first, with
        intervals, the means of what is compared and the pairing that was used) and `notes`, for
        JSON.

    Raises:
        InputError: there is no such run, one is given twice or has no complete episode, or there
            are fewer than two.
    """
    if len(names) < 2:
        raise InputError(f"compare: found {len(names)} run; expected at least 2")
    with ExitStack() as stack:
        groups = _grouped([_read(stack, name) for name in names], names)
        comparisons = [_comparison(groups, other) for other in range(1, len(groups))]
        return {
            "groups": [_summary(group) for group in groups],
            "differing_keys": _differing_keys(groups),
            "comparisons": comparisons,
            "notes": list(_notes(groups)),
        }


def _read(stack: ExitStack, name: str) -> _Run:
    address = parse_run(name)
    engine = database.open_for_reading(address.url)
    stack.callback(engine.dispose)
    reader = Reader.find(engine, address.name, str(address))
    rows = np.fromiter(_rows(reader), _COLUMNS)
    if not len(rows):
        raise InputError(f"{name}: no complete episode yet; expected at least one")
    return _Run(reader, Config.from_json(reader.run.config), rows)


_COLUMNS = np.dtype(
    [("round", "i4"), ("slot", "i4"), ("author", "i8"), ("question", "i8")]
    + [(f"{stage}_{scale}", "f8") for stage, scale in _SCORES]
    + [("peer_rating", "f8"), ("missing_ratings", "f8"), ("failed", "f8")]
)


def _rows(reader: Reader) -> Iterator[tuple[float, ...]]:
    asked: dict[int, int] = {}
    q, t = tables.questions, tables.texts
    query = select(q.c.id, t.c.text).join(t, t.c.id == q.c.text_id).where(reader.mine(q.c.id))
    asked.update((row.id, hash(row.text)) for row in reader.rows(query))
    for row in reader.rows(_episodes(reader)):
        number, round, author, question, failed_at, *scores, peers, read, unread = row
        slot = number - reader.base - round * reader.run.per_round
        own = -number if author is None else author  # nobody's episodes are independent
        missing = unread / (read + unread) if read + unread else None
        values = (*scores, peers, missing, failed_at is not None)
        yield round, slot, own, asked[question], *(math.nan if v is None else v for v in values)


def _episodes(reader: Reader) -> Select[Any]:
    e = tables.episodes
    scores = [e.c[f"{stage}_{scale}"] for stage, scale in _SCORES]
    ratings = (e.c.mean_rating, e.c.ratings_read, e.c.ratings_missing)
    columns = (e.c.id, e.c.round, e.c.author, e.c.question_id, e.c.failed_at)
    mine = reader.mine(e.c.id)
    return select(*columns, *scores, *ratings).where(mine, e.c.observed).order_by(e.c.id)


def _grouped(runs: Sequence[_Run], names: Sequence[str]) -> list[Group]:
    found: dict[str, Group] = {}
    places: set[tuple[str, str]] = set()
    for name, run in zip(names, runs, strict=True):
        place = str(parse_run(name).url), run.reader.run.name
        if place in places:
            raise InputError(f"{name}: given twice; expected each run once")
        places.add(place)
        found.setdefault(_rules(run), []).append(run)
    return list(found.values())


def _rules(run: _Run) -> str:
    """What a run was played by: its config, and since when, where it is a fork.

    Its name, its seed and its schedule do not count: they change no rule.
    """
    plain = {"name": "any", "seed": 0, "schedule": Schedule()}
    history = []
    origin = forked_from(run.reader)
    while origin is not None:
        changed = {key: some for key, some in origin["changed"].items() if _counts(key)}
        history.append([origin["round"], changed] if changed else None)
        origin = origin.get("forked_from")
    return json.dumps([run.config.model_copy(update=plain).as_json(), [*filter(None, history)]])


def _counts(key: str) -> bool:
    return key not in ("name", "seed", "rounds") and not key.startswith("schedule.")


def _summary(group: Group) -> Data:
    return {
        "runs": [run.reader.run.name for run in group],
        "seeds": [run.config.seed for run in group],
        "n": len(group),
        "episodes": sum(len(run.rows) for run in group),
        "failed_episodes": int(sum(run.values("failed").sum() for run in group)),
        "measures": {
            measure: {scope: _figure(group, measure, scope) for scope in SCOPES}
            for measure in MEASURES
        },
    }


SCOPES = ("all", "last")
"""All rounds of a run, and its last one."""


def _figure(group: Group, measure: str, scope: str) -> Data:
    values = [run.values(measure)[run.within(scope)] for run in group]
    missing = sum(int(np.isnan(some).sum()) for some in values)
    seeds = np.array(list(_by_seed(group, measure, scope).values()))
    return {"mean": number(mean(seeds)), "missing": missing}


def _by_seed(group: Group, measure: str, scope: str, first: int = 0) -> dict[int, float]:
    """A measure's mean by seed: runs that share one count as one."""
    means: dict[int, list[float]] = {}
    for run in group:
        means.setdefault(run.config.seed, []).append(run.mean(measure, scope, first))
    return {seed: mean(np.array(some)) for seed, some in means.items()}


def _differing_keys(groups: Sequence[Group]) -> Data:
    configs = [flat(group[0].config) for group in groups]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {
        key: some
        for key, some in values.items()
        if (_counts(key) or key == "rounds") and any(one != some[0] for one in some)
    }


def _comparison(groups: Sequence[Group], other: int) -> Data:
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
            for measure in MEASURES
        },
    }


def _pairing(one: Group, two: Group) -> str:
    """By episode or by seed only where the people are the same on both sides."""
    one_side, other_side = (
        {run.config.seed: _people(run) for run in group} for group in (one, two)
    )
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
    before = [run.rows[run.rows["round"] <= last].tobytes() for run in (a, b)]
    return last if before[0] == before[1] else -1


def _lineage(run: _Run) -> Iterator[tuple[str, str | None, float]]:
    """Whose rounds a run has: (run, digest, last round), itself first."""
    row, until = run.reader.run, math.inf
    yield row.name, row.digest, until
    origin = forked_from(run.reader)
    while origin is not None:
        until = min(until, origin["round"])
        yield origin["run"], origin["digest"], until
        origin = origin.get("forked_from")


def _by_episode(one: Group, two: Group, measure: str, scope: str, first: int) -> Data:
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


def _paired_seeds(one: Group, two: Group, measure: str, scope: str, first: int) -> Data:
    a, b = (_by_seed(group, measure, scope, first) for group in (one, two))
    sides = [np.array([side[seed] for seed in a]) for side in (a, b)]
    differences = sides[1] - sides[0]
    read = ~np.isnan(differences)
    found = student(differences[read]) | {"left_out": int((~read).sum())}
    return found | _means(*(values[read] for values in sides))


def _unpaired(one: Group, two: Group, measure: str, scope: str, first: int) -> Data:
    both = [np.array(list(_by_seed(group, measure, scope, first).values())) for group in (one, two)]
    a, b = (values[~np.isnan(values)] for values in both)
    left_out = sum(map(len, both)) - len(a) - len(b)
    return welch(a, b) | {"left_out": left_out} | _means(a, b)


def _notes(groups: Sequence[Group]) -> Iterator[str]:
    for run in (run for group in groups for run in group):
        row, played = run.reader.run, int(run.rows["round"].max()) + 1
        if row.status != "done":
            yield f"{row.name} is not finished: {len(run.rows):,} episodes are complete"
        elif played < row.rounds:
            yield f"{row.name} stopped by its rule after {played} of {row.rounds} rounds"
    for index, group in enumerate(groups):
        if len({run.config.seed for run in group}) < len(group):
            yield f"group {index}: runs with the same seed count as one"
    for index, other in enumerate(groups[1:], 1):
        last = max(_shared(a, b) for a in groups[0] for b in other)
        if last >= 0:
            yield (
                f"groups 0 and {index} share rounds 0 to {last} (one is forked from the other, or "
                "both from a third); they are left out of the differences"
            )
    if len(groups) == 1:
        yield "all runs have the same config but for the seed and the name: nothing to compare"
