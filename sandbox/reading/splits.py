"""Splits of a run: the groups of authors, raters or questions by which figures can be drawn.

A split names a property: the starting demographic of authors, their model, community or a trait of
their persona, the starting demographic of raters, or the topic of questions. Summaries have the
starting demographic of authors; the other splits are counted from the scores of all episodes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Float, Select, cast, func, select

from sandbox.reading.declaration import declaration_of, measure_ids
from sandbox.reading.metrics import TEXTS, Outcomes, merged, no_outcomes, outcomes_by_label
from storage import tables
from storage.errors import InputError
from storage.model_names import ModelNames
from storage.reader import Reader

LABEL, MODEL, COMMUNITY, RATER, TOPIC = "label", "model", "community", "rater_label", "topic"

MOST_GROUPS = 6
"""Of more groups, the largest are shown, and all others are one."""

OTHERS = "all others"
NOT_TOLD = "not told"

_AGES = (18, 25, 35, 45, 55, 65)
_TRAITS = ("place", "occupation", "adapter")


_TITLES = {
    LABEL: "starting label",
    RATER: "rater\u2019s starting label",
    TOPIC: "question topic",
}


class Split(NamedTuple):
    """A property by which figures can be split, by its name in URLs."""

    name: str

    @property
    def title(self) -> str:
        """The name for display."""
        return _TITLES.get(self.name, self.name.replace("_", " "))


def splits(reader: Reader) -> list[Split]:
    """The properties of a run by which it can be split.

    They have at least two values; a trait of personas that nearly everybody has alone is none.
    """
    agents = _agents(reader)
    found = [Split(LABEL)] if len({one.label for one in agents}) > 1 else []
    m, q = tables.models, tables.questions
    models = select(func.count(m.c.name.distinct())).where(
        m.c.run_id == reader.run.id, m.c.role.not_like("observer%")
    )
    if int(reader.scalar(models) or 0) > 1:
        found.append(Split(MODEL))
    if len({one.community for one in agents}) > 1:
        found.append(Split(COMMUNITY))
    if found and found[0].name == LABEL and declaration_of(reader).peers is not None:
        found.append(Split(RATER))
    topics = select(func.count(q.c.topic.distinct())).where(reader.belongs_to_run(q.c.id))
    if int(reader.scalar(topics) or 0) > 1:
        found.append(Split(TOPIC))
    traits: dict[str, Counter[str]] = {}
    for one in agents:
        for name, value in one.traits.items():
            traits.setdefault(name, Counter())[value] += 1
    found += [Split(name) for name, n in traits.items() if _groups(n)]
    return found


def _groups(sizes: Counter[str]) -> bool:
    """Whether a trait has groups: several, and few enough to show the half of all agents."""
    largest = sum(n for _, n in sizes.most_common(MOST_GROUPS))
    return len(sizes) > 1 and 2 * largest >= sizes.total()


def split_outcomes(reader: Reader, split: str) -> dict[str, Outcomes]:
    """Count the outcomes of measures by group and round.

    Args:
        reader: the run.
        split: the name of one of its `splits`.

    Returns:
        Counts by group. All splits but the one by label leave out the outcomes that are the status
        of a missing rating; the one by the label of raters has only the peers' ratings.

    Raises:
        InputError: the run has no such split.
    """
    offered = splits(reader)
    if split not in {one.name for one in offered}:
        raise _unknown(split, offered)
    if split == LABEL:
        return outcomes_by_label(reader)
    counted = _Counted()
    if split in (RATER, TOPIC):
        counted.add(_grouped(reader, split))
        return counted.largest({})
    groups = groups_of_agents(reader, split)
    counted.add((groups[author], *rest) for author, *rest in _by_author(reader) if author in groups)
    return counted.largest(Counter(groups.values()))


def author_splits(reader: Reader) -> list[Split]:
    """The splits of a run that are properties of authors."""
    return [one for one in splits(reader) if one.name not in (RATER, TOPIC)]


def check_author_split(reader: Reader, split: str) -> None:
    """Check that a split is a property of authors; the one by label always is.

    Raises:
        InputError: it is not.
    """
    offered = author_splits(reader)
    if split != LABEL and split not in {one.name for one in offered}:
        raise _unknown(split, offered)


def _unknown(split: str, offered: Sequence[Split]) -> InputError:
    names = ", ".join(one.name for one in offered) or "none"
    return InputError(f"split: found {split!r}; expected one of those of this run: {names}")


def groups_of_agents(reader: Reader, split: str) -> dict[int, str]:
    """The group of each agent, for a split by a property of authors.

    Returns:
        The name of the group by the number of the agent; empty for other splits.
    """
    if split == LABEL:
        a = tables.agents
        query = select(a.c.number, a.c.label).where(a.c.run_id == reader.run.id)
        return {row.number: row.label for row in reader.rows(query.order_by(a.c.number))}
    if split == MODEL:
        with reader.engine.connect() as connection:
            return ModelNames.of(reader, connection).of_agents(connection, reader.run.id)
    agents = _agents(reader)
    if split == COMMUNITY:
        names = {one.number: one.community for one in agents}
        return {
            number: NOT_TOLD if name is None else f"community {name}"
            for number, name in names.items()
        }
    if not any(split in one.traits for one in agents):
        return {}
    return {one.number: one.traits.get(split) or NOT_TOLD for one in agents}


class _Agent(NamedTuple):
    number: int
    label: str
    community: int | None
    traits: Mapping[str, str]


def _agents(reader: Reader) -> list[_Agent]:
    a = tables.agents
    query = select(a.c.number, a.c.label, a.c.community, a.c.persona)
    return [
        _Agent(number, label, community, dict(_traits(json.loads(persona))))
        for number, label, community, persona in reader.rows(
            query.where(a.c.run_id == reader.run.id).order_by(a.c.number)
        )
    ]


def _traits(persona: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The traits of a stored persona by which agents can be grouped."""
    age = persona.get("age")
    if age is not None:
        yield "age", age_group(int(age))
    for name in _TRAITS:
        if persona.get(name):
            yield name, str(persona[name])
    for name, value in (persona.get("survey") or {}).items():
        if value and name != "age" and isinstance(value, str):
            yield name, value
        elif name == "age" and age is None and value:
            yield name, str(value).replace(" years old", "")


def age_group(age: int) -> str:
    """The age group of PRISM's survey: `18-24`, ... `65+`; younger ones are `under 18`."""
    if age < _AGES[0]:
        return f"under {_AGES[0]}"
    lower = max(limit for limit in _AGES if limit <= age)
    after = _AGES.index(lower) + 1
    return f"{lower}+" if after == len(_AGES) else f"{lower}-{_AGES[after] - 1}"


_Row = tuple[str, int, str, float, int]
"""Group, round, measure, value, and how often."""


class _Counted:
    """Outcomes by group, with the number of values of each."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcomes] = {}
        self._sizes: Counter[str] = Counter()

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of group, round, measure, value and number."""
        for group, round, measure, value, n in rows:
            counts = self._outcomes.setdefault(group, no_outcomes())
            counts[round][measure][_outcome(value)] += n
            self._sizes[group] += n

    def largest(self, sizes: Mapping[str, int]) -> dict[str, Outcomes]:
        """The largest groups, by these sizes or else by their values, and the others as one."""
        size = sizes or self._sizes
        names = sorted(self._outcomes, key=lambda name: (-size[name], name))
        kept = names if len(names) <= MOST_GROUPS else names[: MOST_GROUPS - 1]
        found = {name: self._outcomes[name] for name in sorted(kept)}
        rest = [self._outcomes[name] for name in names[len(kept) :]]
        return found | ({OTHERS: merged(rest)} if rest else {})


def _outcome(value: float | tuple[float, int]) -> str:
    """A value as outcomes have it; for a text the sum and the number of its ratings."""
    if isinstance(value, tuple):
        return f"{value[0]:.12g}/{value[1]}"
    return f"{value:.12g}"


def _by_author(reader: Reader) -> Iterator[tuple[Any, ...]]:
    """Author, round, measure, value and number, of all complete episodes with an author."""
    e, s, r = tables.episodes, tables.scores, tables.ratings
    names = {number: name for name, number in measure_ids(reader).items()}
    peers = declaration_of(reader).peers
    in_run = (e.c.run_id == reader.run.id, e.c.observed, e.c.author.is_not(None))
    scores = select(e.c.author, e.c.round, s.c.measure_id, s.c.value)
    scores = scores.join(e, e.c.id == s.c.episode_id).where(s.c.measure_id.in_(names), *in_run)
    for author, round, measure, value in reader.rows(scores):
        if peers is None or names[measure] != peers.name:
            yield author, round, names[measure], float(value), 1
    if peers is not None:
        given = select(e.c.author, e.c.round, r.c.rating).join(e, e.c.id == r.c.episode_id)
        for author, round, rating in reader.rows(given.where(r.c.rating.is_not(None), *in_run)):
            yield author, round, peers.name, float(rating), 1
        for author, round, total, n in reader.rows(_texts(e.c.author).where(*in_run)):
            yield author, round, TEXTS, (float(total), int(n)), 1


def _grouped(reader: Reader, split: str) -> Iterator[tuple[Any, ...]]:
    """Group, round, measure, value and number, of a split that the database can group by."""
    e, s, q = tables.episodes, tables.scores, tables.questions
    peers, names = declaration_of(reader).peers, measure_ids(reader)
    texts: dict[tuple[str, int, int], list[float]] = {}
    if split == TOPIC:
        topic = func.coalesce(q.c.topic, NOT_TOLD)
        columns = (topic, e.c.round, s.c.measure_id, s.c.value)
        query = (
            select(*columns, func.count())
            .join(e, e.c.id == s.c.episode_id)
            .join(q, q.c.id == e.c.question_id)
            .where(s.c.measure_id.in_(names.values()), e.c.run_id == reader.run.id)
            .group_by(*columns)
        )
        by_id = {number: name for name, number in names.items()}
        for group, round, measure, value, n in reader.rows(query):
            if peers is None or by_id[measure] != peers.name:
                yield group, round, by_id[measure], float(value), n
    if peers is not None:
        for group, round, episode, value in reader.rows(_ratings(reader, split)):
            yield group, round, peers.name, float(value), 1
            texts.setdefault((group, round, episode), []).append(float(value))
        for (group, round, _), given in texts.items():
            yield group, round, TEXTS, (sum(given), len(given)), 1


def _texts(group: Any) -> Select[Any]:
    """A query of group, round, and the sum and the number of the peers' ratings of each text."""
    e, r = tables.episodes, tables.ratings
    sums = func.sum(cast(r.c.rating, Float)), func.count(r.c.rating)
    query = select(group, e.c.round, *sums).join(e, e.c.id == r.c.episode_id)
    return query.where(r.c.rating.is_not(None)).group_by(group, e.c.round, e.c.id)


def _ratings(reader: Reader, split: str) -> Select[Any]:
    """Group, round, episode and rating of the peers, by topic or by the label of the rater."""
    e, r, a, q = tables.episodes, tables.ratings, tables.agents, tables.questions
    group = func.coalesce(q.c.topic, NOT_TOLD) if split == TOPIC else a.c.label
    query = select(group, e.c.round, e.c.id, r.c.rating).join(e, e.c.id == r.c.episode_id)
    if split == TOPIC:
        query = query.join(q, q.c.id == e.c.question_id)
    else:
        query = query.join(a, (a.c.run_id == e.c.run_id) & (a.c.number == r.c.rater + 0))
    return query.where(e.c.run_id == reader.run.id, e.c.observed, r.c.rating.is_not(None))
