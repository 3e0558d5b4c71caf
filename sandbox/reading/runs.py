"""Runs: outcome, overview and settings of a run, and all runs of a database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import URL, Engine, func, select

from agents.forms import UNPARSED, Status
from agents.scale import Better, Declaration, Scale
from sandbox.failing import Cause, failing, form_of, is_failing, token_limits
from sandbox.progress import Waiting, mostly_missing, parse_waiting, warning
from sandbox.reading.declaration import declaration_of
from sandbox.reading.metrics import (
    EPISODE,
    FormCalls,
    RoundScores,
    Spread,
    calls_by_form,
    difference_of,
    scores_by_round,
)
from sandbox.reading.policy import policy_of
from sandbox.reading.recall import recall_rule
from sandbox.reading.records import PAGES_ONLY, Record
from sandbox.reading.splits import LABEL, check_author_split
from sandbox.reading.statistics import Interval
from sandbox.reading.trends import Trends, all_trends, trend_measures
from storage import database, tables
from storage.copying import forked_from
from storage.database import Address, address_of
from storage.errors import InputError, damage_reported
from storage.json_columns import parse_list
from storage.model_names import model_usage
from storage.reader import Reader, join_texts, parse_text_list
from storage.secrets import hide_values


@contextmanager
def open_run(run: str | Address) -> Iterator[Reader]:
    """Open a run for reading, also while another process writes it.

    Args:
        run: an address, or a string as `storage.database.parse_run` reads it.

    Raises:
        InputError: there is no such run.
    """
    address = address_of(run)
    engine = database.open_for_reading(address.url)
    try:
        yield Reader.find(engine, address.name, str(address))
    finally:
        engine.dispose()


SCRIPTED = "scripted"
"""The model name of the backend that composes texts by rules, without a language model."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Record):
    """The figures of a run.

    Attributes:
        run, db, status, message: its name, database, status, and why it stopped.
        agents: the number of agents.
        rounds: the number of rounds in the config.
        episodes, episodes_failed: the number of complete episodes, and of those that failed.
        calls, calls_failed, unparsed, lenient: the number of calls in the journal, of those without
            a reply, of those whose reply could not be parsed, and of those read leniently.
        shortened: the number of truncated replies that were kept to their last whole sentence.
        calls_replayed: the number of calls that were replayed in the latest session.
        tokens_in, tokens_out, tokens_cached: sums over all calls.
        forms: calls by prompt template.
        digest: of a finished run.
        seconds: of work in all sessions.
        inputs: a line about each input file; empty for runs of older versions.
        warnings: about episodes, if most failed, and about prompt templates most of whose replies
            are missing.
    """

    run: str
    db: str
    status: str
    agents: int
    rounds: int
    episodes: int
    episodes_failed: int
    calls: int
    calls_replayed: int
    calls_failed: int
    unparsed: int
    lenient: int
    shortened: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    forms: list[FormCalls]
    digest: str | None
    seconds: float
    inputs: list[str]
    message: str | None = None
    warnings: Sequence[str] = ()

    def show(self) -> None:
        """Display a summary with a figure in a notebook, or print it.

        Raises:
            InputError: the database cannot be opened.
        """
        from sandbox.reading import notebook  # which imports this module

        notebook.display(self._address, self)

    def _repr_html_(self) -> str:
        """The summary that a notebook shows of the value of a cell."""
        from sandbox.reading import notebook

        try:
            return notebook.summary_html(self._address)
        except InputError as error:
            return notebook.unavailable(error)

    @property
    def _address(self) -> Address:
        return Address(database.parse_url(self.db), self.run)


@dataclass(frozen=True, kw_only=True)
class ScaleScore(Record):
    """The mean on a scale in the first and the last complete round.

    Attributes:
        measure: the scale's measure at its last rated stage.
        low, high, better: the scale's range and its better end.
        first, last: the means; None where nothing could be parsed.
        scale: the scale.
        difference: last minus first, with its 95 % interval by Welch's t over the ratings of both
            rounds, as if they were independent; None if only one round is complete.
    """

    measure: str
    low: float
    high: float
    better: Better
    first: float | None
    last: float | None
    scale: Scale = field(metadata=PAGES_ONLY)
    difference: Interval | None = field(metadata=PAGES_ONLY)


@dataclass(frozen=True, kw_only=True)
class RunState(Outcome):
    """The figures of a run.

    Attributes:
        episodes_total: the number of episodes that it will have.
        scores: a score for each scale, the main one first; empty before a round is complete.
        waiting: what calls wait for, while it is played.
        policy: name, version and hash of its policy; None for a run without one.
    """

    waiting: list[Waiting]
    episodes_total: int
    scores: list[ScaleScore]
    policy: str | None


@dataclass(frozen=True, kw_only=True)
class Unreadable(Record):
    """A database file that cannot be read, and why; or a run of a study that is not created."""

    run: str
    db: str
    status: str = "unreadable"
    message: str | None


@dataclass(frozen=True, kw_only=True)
class Overview(RunState):
    """Status and key figures of a run: the head of every page.

    Attributes:
        world: the kind of world, or the topology where agents live in a graph.
        seed, created: of the run.
        typed: the argument RUN for the command line.
        labels: the number of agents by starting demographic.
        models: the distinct names of its models.
        fork: the run that it was forked from; see `storage.copying.forked_from`.
    """

    world: str
    seed: int
    created: str
    typed: str
    labels: Mapping[str, int]
    models: Sequence[str]
    fork: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether all of it is played."""
        return self.status == "done"

    @property
    def scripted(self) -> bool:
        """Whether texts were composed by the scripted backend."""
        return SCRIPTED in self.models

    @property
    def main_score(self) -> ScaleScore | None:
        """The score on the main scale; None before a round is complete."""
        return next(iter(self.scores), None)

    @property
    def mark(self) -> str:
        """A short value that changes whenever the run has progressed, or waits for something."""
        return marker(self.status, self.episodes, self.calls, *self.waiting)


@dataclass(frozen=True, kw_only=True)
class Society(Record):
    """A run, its scores by round and its calls by prompt template.

    Attributes:
        agents: the number of agents by starting demographic.
        models: the names of the models by role.
        rounds: see `RoundScores`.
        trends: of each score and of the peers' ratings, see `Trends`.
        forms: see `FormCalls`.
        warnings: about prompt templates most of whose replies are missing.
        declaration: the stages and scales that it records.
    """

    run: str
    status: str
    message: str | None
    world: str
    seed: int
    created: str
    digest: str | None
    agents: Mapping[str, int]
    models: Mapping[str, str]
    rounds: list[RoundScores]
    trends: list[Trends]
    forms: list[FormCalls]
    warnings: Sequence[str]
    declaration: Declaration = field(metadata=PAGES_ONLY)

    @property
    def scripted(self) -> bool:
        """Whether texts were composed by the scripted backend."""
        return SCRIPTED in self.models.values()

    @property
    def scored(self) -> bool:
        """Whether there is a rating on the main scale."""
        main = self.declaration.main
        final = None if main is None else self.declaration.final(main)
        return final is not None and any(
            scores.means[final.name] is not None for scores in self.rounds
        )


@dataclass(frozen=True, kw_only=True)
class PromptTemplate(Record):
    """A prompt template of a run."""

    name: str
    system: str
    template: str


@dataclass(frozen=True, kw_only=True)
class About(Record):
    """Config, prompt templates and costs of a run.

    Attributes:
        config: as YAML.
        templates: the prompt templates.
        costs: calls by prompt template.
        code_version: the version of the program.
        embedder: embeds the questions, for the recall of memories.
        threshold: the cosine distance below which memories are recalled; None: whatever it is.
        top_k: how many memories are recalled at most.
        database: its address.
    """

    config: str
    templates: list[PromptTemplate]
    costs: list[FormCalls]
    code_version: str
    embedder: str
    threshold: float | None
    top_k: int
    database: str


def society(reader: Reader, split: str = LABEL) -> Society:
    """Status, models and agents of a run, scores by round, trends, and calls by prompt template.

    Args:
        reader: the run.
        split: the property of authors by which trends are grouped, see `sandbox.reading.splits`.

    Raises:
        InputError: the run has no such split of authors.
    """
    check_author_split(reader, split)
    run, m, forms = reader.run, tables.models, calls_by_form(reader)
    models = select(m.c.role, m.c.name).where(m.c.run_id == run.id)
    return Society(
        run=run.name,
        status=run.status,
        message=run.message,
        world=run.world,
        seed=run.seed,
        created=run.created,
        digest=run.digest,
        agents=labels(reader),
        models={row.role: row.name for row in reader.rows(models)},
        rounds=scores_by_round(reader),
        trends=all_trends(reader, trend_measures(declaration_of(reader)), split),
        forms=forms,
        warnings=warnings(reader, forms),
        declaration=declaration_of(reader),
    )


def outcome(reader: Reader, address: Address, replayed: int = 0) -> Outcome:
    """Compute the outcome of a run from its database.

    Args:
        reader: the run.
        address: where it is stored.
        replayed: the number of calls that were replayed in the latest session.
    """
    return Outcome(**_figures(reader, address), calls_replayed=replayed)


def _figures(reader: Reader, address: Address) -> dict[str, Any]:
    run, forms, episodes = reader.run, calls_by_form(reader), _episodes(reader)
    return {
        "run": run.name,
        "db": database.place_of(address.url),
        "status": run.status,
        "agents": sum(labels(reader).values()),
        "rounds": run.rounds,
        "episodes": sum(episodes.values()),
        "episodes_failed": episodes.get("failed", 0),
        "calls": sum(form.calls for form in forms),
        "calls_failed": sum(form.failed for form in forms),
        "unparsed": sum(form.unparsed for form in forms),
        "lenient": sum(form.lenient for form in forms),
        "shortened": sum(form.shortened for form in forms),
        "tokens_in": sum(form.tokens_in for form in forms),
        "tokens_out": sum(form.tokens_out for form in forms),
        "tokens_cached": sum(form.tokens_cached or 0 for form in forms),
        "forms": forms,
        "digest": run.digest,
        "seconds": round(worked(reader), 3),
        "inputs": json.loads(run.inputs or "[]"),
        "message": run.message,
        "warnings": warnings(reader, forms),
    }


def _state(reader: Reader, address: Address) -> dict[str, Any]:
    status = status_now(reader, address.url)
    return {
        **_figures(reader, address),
        "status": status,
        "message": _message(reader, address.url),
        "waiting": _waiting(reader) if status == "running" else [],
        "calls_replayed": 0,
        "episodes_total": reader.run.rounds * reader.run.per_round,
        "scores": _scores(reader),
        "policy": getattr(policy_of(reader), "title", None),
    }


def _waiting(reader: Reader) -> list[Waiting]:
    """What the calls of the latest session wait for."""
    s = tables.sessions
    query = select(s.c.waiting).where(s.c.run_id == reader.run.id)
    text = reader.scalar(query.order_by(s.c.number.desc()).limit(1))
    parse_list(text or "[]", "sessions.waiting", dict)
    return parse_waiting(text)


def warnings(reader: Reader, forms: Sequence[FormCalls]) -> list[str]:
    """Warn if most episodes failed, and of each prompt template most of whose replies are missing.

    The first warning says why episodes fail and what to change; the others have an example.
    """
    failing = failing_episodes(reader, forms)
    return [
        *([] if failing is None else [failing]),
        *_missing_replies(reader, forms),
    ]


def failing_episodes(reader: Reader, forms: Sequence[FormCalls]) -> str | None:
    """Say that most episodes failed, why, and what to change; None if most did not."""
    counts, e = _episodes(reader), tables.episodes
    episodes, failed = sum(counts.values()), counts.get("failed", 0)
    if not is_failing(episodes, failed):
        return None
    some = select(e.c.failed_at).where(reader.belongs_to_run(e.c.id), e.c.failed_at.is_not(None))
    at = {form_of(row.failed_at) for row in reader.rows(some.limit(_SOME_EPISODES))}
    causes = [
        Cause(form.form, status, getattr(form, status.value))
        for form in forms
        for status in (*UNPARSED, Status.FAILED)
    ]
    example = next(
        (_example(reader, form) for form in forms if form.form in at and form.failed), ""
    )
    return failing(
        episodes, failed, causes, at, token_limits(json.loads(reader.run.config)), example
    )


_SOME_EPISODES = 1000
"""Failed episodes that are looked at, to find the prompt templates at which they failed."""


def _missing_replies(reader: Reader, forms: Sequence[FormCalls]) -> list[str]:
    return [
        warning(form.form, form.calls, form.failed, form.unparsed, _example(reader, form))
        for form in forms
        if mostly_missing(form.calls, form.failed + form.unparsed)
    ]


def _example(reader: Reader, form: FormCalls) -> str:
    """The latest error of a prompt template, or its latest reply that could not be parsed."""
    c, f = tables.calls, tables.forms
    failed = form.failed >= form.unparsed
    statuses = [Status.FAILED] if failed else list(UNPARSED)
    query = (
        select(c.c.error, c.c.reply)
        .join(f, f.c.id == c.c.form_id)
        .where(
            reader.belongs_to_run(c.c.id),
            f.c.run_id == reader.run.id,
            f.c.name == form.form,
            c.c.status.in_([status.value for status in statuses]),
        )
    )
    row = reader.first(query.order_by(c.c.id.desc()).limit(1))
    if row is None or failed or row.reply is None:
        return "" if row is None else row.error or ""
    return join_texts(row.reply, reader.texts(parse_text_list(row.reply)))


def _episodes(reader: Reader) -> dict[str, int]:
    """The number of complete episodes, played and failed."""
    o = tables.outcomes
    query = select(o.c.outcome, func.sum(o.c.n)).where(
        o.c.run_id == reader.run.id, o.c.measure == EPISODE
    )
    return {row[0]: int(row[1]) for row in reader.rows(query.group_by(o.c.outcome))}


def marker(*parts: object) -> str:
    """A short value that is another one, almost surely, for other parts: 16 hexadecimal digits."""
    return blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def states(url: URL) -> list[RunState]:
    """The figures of all runs in a database.

    Raises:
        InputError: the database cannot be read.
        Damaged: its rows cannot be read.
    """
    engine = database.open_for_reading(url)
    try:
        with damage_reported(database.place_of(url)):
            return [_state_of(engine, Address(url, name)) for name in database.run_names(url)]
    finally:
        engine.dispose()


def state(address: Address) -> RunState:
    """The figures of one run.

    Raises:
        InputError: there is no such run.
    """
    with open_run(address) as reader:
        return RunState(**_state(reader, address))


def _state_of(engine: Engine, address: Address) -> RunState:
    return RunState(**_state(Reader.find(engine, address.name, str(address)), address))


def overview(reader: Reader, address: Address) -> Overview:
    """Read the status and key figures of a run with a few short queries."""
    run = reader.run
    with reader.engine.connect() as connection:
        models = list(dict.fromkeys(usage.name for usage in model_usage(reader, connection)))
    return Overview(
        **_state(reader, address),
        world=_world(run.config),
        seed=run.seed,
        created=run.created,
        typed=address.typed,
        labels=labels(reader),
        models=models,
        fork=forked_from(reader),
    )


def _world(config: str) -> str:
    """The kind of a run's world; for a graph its topology."""
    world = json.loads(config)["world"]
    topology = Path(str(world.get("topology") or "grid")).name
    return str(world["kind"] if topology in ("grid", world["kind"]) else topology)


def labels(reader: Reader) -> dict[str, int]:
    """The number of agents by starting demographic."""
    a = tables.agents
    query = select(a.c.label, func.count()).where(a.c.run_id == reader.run.id).group_by(a.c.label)
    return {row[0]: row[1] for row in reader.rows(query.order_by(a.c.label))}


def _scores(reader: Reader) -> list[ScaleScore]:
    """The score on every scale at its last rated stage, of rounds that are complete."""
    declared, o = declaration_of(reader), tables.outcomes
    in_run = o.c.run_id == reader.run.id
    complete = (
        select(o.c.round)
        .where(in_run, o.c.measure == EPISODE)
        .group_by(o.c.round)
        .having(func.sum(o.c.n) == reader.run.per_round)
        .subquery()
    )
    first, last = reader.first(select(func.min(complete.c.round), func.max(complete.c.round)))
    finals = [declared.final(scale) for scale in declared.observed]
    measures = [
        *(measure for measure in finals if measure is not None),
        *(measure for measure in declared.measures if measure.kind == "peers"),
    ]
    if first is None or not measures:
        return []
    names = [measure.name for measure in measures]
    query = select(o.c.round, o.c.measure, o.c.outcome, o.c.n).where(
        in_run, o.c.measure.in_(names), o.c.round.in_((first, last))
    )
    counts: dict[tuple[int, str], Counter[str]] = {}
    for round, name, outcome, n in reader.rows(query):
        counts.setdefault((round, name), Counter())[outcome] += n  # a row for each label
    spreads = {
        measure: [Spread.of(counts.get((at, measure.name), {})) for at in (first, last)]
        for measure in measures
    }
    return [
        ScaleScore(
            measure=measure.name,
            low=measure.low,
            high=measure.high,
            better=measure.scale.better,
            first=before.mean,
            last=after.mean,
            scale=measure.scale,
            difference=difference_of(before, after) if last > first else None,
        )
        for measure, (before, after) in spreads.items()
    ]


def templates(reader: Reader) -> list[PromptTemplate]:
    """The prompt templates of a run."""
    f = tables.forms
    query = select(f.c.name, f.c.system, f.c.template).where(f.c.run_id == reader.run.id)
    return [
        PromptTemplate(name=name, system=system, template=template)
        for name, system, template in reader.rows(query.order_by(f.c.id))
    ]


def about(reader: Reader, address: Address) -> About:
    """Config, prompt templates and costs of a run."""
    config = hide_values(json.loads(reader.run.config))
    recall = recall_rule(reader)
    return About(
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        templates=templates(reader),
        costs=calls_by_form(reader),
        code_version=reader.run.code_version,
        embedder=reader.run.embedder,
        threshold=recall.threshold,
        top_k=recall.top_k,
        database=str(address),
    )


def worked(reader: Reader) -> float:
    """Seconds of work in all sessions, including a current or killed one."""
    c = tables.calls
    query = select(c.c.started + c.c.took).where(reader.belongs_to_run(c.c.id))
    last = reader.scalar(query.order_by(c.c.id.desc()).limit(1))
    return max(float(reader.run.seconds), int(last or 0) / 1000)


def _message(reader: Reader, url: URL) -> str | None:
    """Why the run stopped, and what of its database is missing; None: nothing to report."""
    parts = (reader.run.message, database.missing_part(url))
    return "; ".join(part for part in parts if part) or None


def status_now(reader: Reader, url: URL) -> str:
    """The status of a run; `killed` if it is stored as running but no process writes it."""
    status = str(reader.run.status)
    if status != "running":
        return status
    with reader.engine.connect() as connection:
        written = database.is_being_written(connection, url, reader.run.name)
    return "killed" if written is False else status
