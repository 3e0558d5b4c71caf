"""What can be looked at in a run, as plain values: the terminal, JSON and notebooks share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from agents.chance import seed_of
from agents.forms import CallName, prompt_hash
from agents.memory import PRIOR
from sandbox.reading.agents import read_agents
from sandbox.reading.metrics import calls_by_form, scores_by_round
from storage import tables
from storage.errors import NotThere
from storage.exchanges import Exchange, exchange, exchanges, exchanges_of, snapshot
from storage.reader import Journalled, Reader
from storage.search import says

Data = dict[str, Any]


def society(reader: Reader) -> Data:
    """A run at a glance: its state, models and society, scores by round, calls by form."""
    run, a, m = reader.run, tables.agents, tables.models
    labels = select(a.c.label, func.count()).where(a.c.run_id == run.id).group_by(a.c.label)
    models = select(m.c.role, m.c.name).where(m.c.run_id == run.id)
    return {
        "run": run.name,
        "status": run.status,
        "message": run.message,
        "world": run.world,
        "seed": run.seed,
        "created": run.created,
        "digest": run.digest,
        "agents": {row[0]: row[1] for row in reader.rows(labels.order_by(a.c.label))},
        "models": {row.role: row.name for row in reader.rows(models)},
        "rounds": [scores._asdict() for scores in scores_by_round(reader)],
        "forms": [asdict(calls) for calls in calls_by_form(reader)],
    }


def agents(reader: Reader, search: str | None = None) -> list[Data]:
    """All agents: who they are, what they believe in number, how their answers are rated."""
    rated = _mean_ratings(reader)
    memories = memory_counts(reader)
    found = []
    for agent in read_agents(reader):
        persona = agent.persona
        row = {
            "agent": agent.number,
            "name": persona.name,
            "label": agent.label,
            "age": persona.age,
            "place": persona.place,
            "occupation": persona.occupation,
            "x": agent.x,
            "y": agent.y,
            "community": agent.community,
            "memories": memories.get(agent.number, 0),
            "mean_rating": rated.get(agent.number),
        }
        if search is None or search.lower() in agent.introduction.lower():
            found.append(row)
    return found


def _mean_ratings(reader: Reader) -> dict[int, float]:
    e = tables.episodes
    total = func.sum(e.c.mean_rating * e.c.ratings_read) / func.sum(e.c.ratings_read)
    query = (
        select(e.c.author, total)
        .where(e.c.run_id == reader.run.id, e.c.ratings_read > 0)
        .group_by(e.c.author)
    )
    return {author: float(mean) for author, mean in reader.rows(query)}


def memory_counts(reader: Reader) -> dict[int, int]:
    """How many memories each agent has, by its number."""
    m = tables.memories
    query = select(m.c.agent, func.count()).where(reader.mine(m.c.id)).group_by(m.c.agent)
    counts: dict[int, int] = {row.agent: row[1] for row in reader.rows(query)}
    return counts


def agent(reader: Reader, number: int) -> Data:
    """One agent: its persona, its place, and how it fared round by round."""
    found = _agent(reader, number)
    episodes = [_line(one) for one in exchanges(reader, author=number)]
    return {
        "agent": number,
        "label": found.label,
        **found.persona.model_dump(mode="json"),
        "introduction": found.introduction,
        "x": found.x,
        "y": found.y,
        "links": found.links,
        "node": found.node,
        "community": found.community,
        "memories": memory_counts(reader).get(number, 0),
        "episodes": episodes,
        "gives": _gives(reader, number),
    }


def _agent(reader: Reader, number: int) -> Any:
    everybody = read_agents(reader)
    if not everybody:
        raise NotThere(f"agent {number}: the run has no agents: its scenes invent their people")
    if not 0 <= number < len(everybody):
        raise NotThere(f"agent {number}: no such agent; expected 0 to {len(everybody) - 1}")
    return everybody[number]


def _line(one: Exchange) -> Data:
    return {
        "episode": one.episode,
        "round": one.round,
        "question": one.question,
        "mean_rating": one.mean_rating,
        "alignment": [one.score("draft", "alignment"), one.score("revision", "alignment")],
        "engagement": [one.score("draft", "engagement"), one.score("revision", "engagement")],
        "failed_at": one.failed_at,
    }


def _gives(reader: Reader, number: int) -> Data:
    """How an agent rates others: how often, the mean, and how many could not be read."""
    r = tables.rater_sums
    sums = (func.sum(column) for column in (r.c.ratings, r.c.missing, r.c.total))
    query = select(*sums).where(r.c.run_id == reader.run.id, r.c.rater == number)
    count, missing, total = (int(value or 0) for value in reader.first(query))
    mean = total / (count - missing) if count > missing else None
    return {"ratings": count, "mean": mean, "missing": missing}


def memory(
    reader: Reader, number: int, round: int | None = None, search: str | None = None
) -> Data:
    """An agent's memory as of the end of a round (None: now).

    `internal` is what it believes, the latest first; `was` is what it believed about the same
    question before. `external` is what others said of its drafts.
    """
    _agent(reader, number)
    internal = [
        row
        for row in beliefs(reader, number, round)
        if search is None or search.lower() in f"{row['question']}\n{row['answer']}".lower()
    ]
    external = [
        {
            "episode": one.episode,
            "round": one.round,
            "question": one.question,
            "ratings": [given._asdict() for given in one.ratings],
        }
        for one in exchanges(reader, author=number)
        if (round is None or one.round <= round) and _matches(one, search)
    ]
    return {"agent": number, "round": round, "internal": internal, "external": external[::-1]}


def beliefs(reader: Reader, number: int, round: int | None = None) -> list[Data]:
    """An agent's internal memory as of the end of a round; see `memory`."""
    m, q = tables.memories, tables.questions
    asked, answer = tables.texts.alias(), tables.texts.alias()
    query = (
        select(m, asked.c.text.label("question"), answer.c.text.label("answer"))
        .join(q, q.c.id == m.c.question_id)
        .join(asked, asked.c.id == q.c.text_id)
        .join(answer, answer.c.id == m.c.text_id)
        .where(m.c.run_id == reader.run.id, m.c.agent == number)
        .order_by(m.c.round, m.c.id)
    )
    if round is not None:
        query = query.where(m.c.round <= round)
    before: dict[str, str] = {}
    found: list[Data] = []
    for row in reader.rows(query):
        was = before.get(row.question)
        before[row.question] = row.answer
        found.append(
            {
                "memory": row.id - reader.base,
                "round": None if row.round == PRIOR else row.round,
                "episode": None if row.episode_id is None else row.episode_id - reader.base,
                "question": row.question,
                "answer": row.answer,
                "was": was,
            }
        )
    return found[::-1]


def _matches(one: Exchange, search: str | None) -> bool:
    if search is None:
        return True
    parts = [one.question, one.draft, one.revision, *(given.reason for given in one.ratings)]
    if one.scene is not None:
        parts += [text for act in one.scene.acts for text in (act.text, act.why, act.critique)]
        parts += [text for part in one.scene.parts for text in (part.name, part.about)]
        parts += [note.text for note in one.scene.notes]
    return any(search.lower() in part.lower() for part in parts if part)


def found_exchanges(
    reader: Reader, search: str | None, round: int | None, limit: int
) -> list[Data]:
    """Exchanges that say something (see `storage.search`), or all of a round, in order.

    At most `limit`; of those that are still being played, no words are found.
    """
    return [
        {**_line(one), "author": one.author, "draft": one.draft, "revision": one.revision}
        for one in islice(_found(reader, search, round), limit)
    ]


def _found(reader: Reader, search: str | None, round: int | None) -> Iterator[Exchange]:
    if search is None:
        yield from exchanges(reader, round=round)
        return
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == reader.run.id, says(reader, e.c.id, search))
    if round is not None:
        query = query.where(e.c.round == round)
    with snapshot(reader) as connection:
        ids = connection.scalars(query.order_by(e.c.id), execution_options={"yield_per": 100})
        yield from exchanges_of(reader, connection, ids)


def episode(reader: Reader, number: int) -> Data:
    """One exchange whole: question, draft, ratings, revision, scores, and every call."""
    one = exchange(reader, number)
    if one is None:
        raise NotThere(
            f"episode {number}: not played; expected one of 0 to "
            f"{reader.run.rounds * reader.run.per_round - 1} that is"
        )
    data = one._asdict()
    data["ratings"] = [given._asdict() for given in one.ratings]
    data["observations"] = [seen._asdict() for seen in one.observations]
    data["mean_rating"] = one.mean_rating
    data["scene"] = one.scene and one.scene.as_dict()
    data["models"] = sorted(one.models)
    data["calls"] = [_call_line(reader, call, number) for call in reader.journal(number)]
    return data


def _call_line(reader: Reader, call: Journalled, episode: int) -> Data:
    return {
        "call": call.call_id - reader.base,
        "name": call_name(reader, call, episode),
        "model": call.model,
        "status": call.status,
        "cut": call.cut,
        "error": call.error,
        "reply": call.reply,
        "thinking": call.thinking,
        "expected": call.expected,
        "tokens_in": call.tokens_in,
        "tokens_out": call.tokens_out,
        "cached_tokens": call.cached_tokens,
        "seconds": call.took / 1000,
        "recalled": None if call.memory_id is None else call.memory_id - reader.base,
        "distance": call.distance,
    }


def call_name(reader: Reader, call: Journalled, episode: int) -> str:
    """A call's name, as its seed is made from it."""
    name = CallName(
        episode // reader.run.per_round, episode, call.form, call.agent, call.turn, call.attempt
    )
    return str(name)


def calls(
    reader: Reader, search: str | None, round: int | None, failures: bool, limit: int
) -> list[Data]:
    """Calls in the order of the journal, at most `limit`."""
    found: list[Data] = []
    for batch in _call_batches(reader, round, failures):
        for line in batch:
            if search is None or search.lower() in (line["reply"] or line["error"] or "").lower():
                found.append(line)
                if len(found) == limit:
                    return found
    return found


def _call_batches(reader: Reader, round: int | None, failures: bool) -> Iterator[list[Data]]:
    c = tables.calls
    query = select(c.c.id, c.c.episode_id).where(reader.mine(c.c.id)).order_by(c.c.id)
    if round is not None:
        first = reader.base + round * reader.run.per_round
        query = query.where(c.c.episode_id.between(first, first + reader.run.per_round - 1))
    if failures:
        query = query.where(c.c.status != "ok")
    rows = reader.rows(query)
    while batch := list(islice(rows, 500)):
        wanted = {row.id for row in batch}
        by_episode = reader.calls_of(sorted({row.episode_id - reader.base for row in batch}))
        lines = [
            _call_line(reader, call, number)
            for number, some in by_episode.items()
            for call in some
            if call.call_id in wanted
        ]
        yield sorted(lines, key=lambda line: int(line["call"]))


def last_error(reader: Reader) -> str:
    """What was said of the last call that failed."""
    c = tables.calls
    query = select(c.c.error).where(reader.mine(c.c.id), c.c.error.is_not(None))
    return str(reader.scalar(query.order_by(c.c.id.desc()).limit(1)))


def call(reader: Reader, number: int) -> Data:
    """One call: its exact prompt, whether that still has the journalled hash, and its reply."""
    c, f = tables.calls, tables.forms
    query = (
        select(c.c.episode_id, f.c.system)
        .join(f, f.c.id == c.c.form_id)
        .where(c.c.id == reader.base + number)
    )
    row = reader.first(query)
    if row is None:
        raise NotThere(f"call {number}: no such call; `inspect RUN calls` lists them")
    episode = row.episode_id - reader.base
    one = next(x for x in reader.journal(episode) if x.call_id == reader.base + number)
    hashed = prompt_hash(row.system, one.prompt)
    name = call_name(reader, one, episode)
    return {
        **_call_line(reader, one, episode),
        "episode": episode,
        "seed": seed_of(reader.run.seed, name),
        "system": row.system,
        "prompt": one.prompt,
        "prompt_hash": one.prompt_hash.hex(),
        "hash_agrees": hashed == one.prompt_hash,
        "cut": one.cut,
    }
