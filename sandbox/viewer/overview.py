"""A run at a glance: how far it is, what it is made of, and what to type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import func, select

from sandbox.datasets.source import SCRIPTED
from sandbox.reading.metrics import EPISODE, Spread, calls_by_form
from sandbox.reading.runs import status_now, worked
from storage import tables
from storage.copying import forked_from
from storage.database import Address
from storage.reader import Reader
from storage.voices import voices

Row = dict[str, Any]


def overview(reader: Reader, address: Address) -> Row:
    """How far a run is, in a few small reads."""
    run, o, c = reader.run, tables.outcomes, tables.call_sums
    counted = select(o.c.outcome, func.sum(o.c.n)).where(
        o.c.run_id == run.id, o.c.measure == EPISODE
    )
    episodes = {row[0]: int(row[1]) for row in reader.rows(counted.group_by(o.c.outcome))}
    summed = select(c.c.status, func.sum(c.c.calls)).where(c.c.run_id == run.id)
    calls = {row[0]: int(row[1]) for row in reader.rows(summed.group_by(c.c.status))}
    models = _models(reader)
    status, done = status_now(reader, address.url), sum(episodes.values())
    return {
        "name": run.name,
        "status": status,
        "message": run.message,
        "over": status == "done",
        "world": _world(run.config),
        "seed": run.seed,
        "rounds": run.rounds,
        "created": run.created,
        "seconds": worked(reader),
        "digest": run.digest,
        "done": done,
        "total": run.rounds * run.per_round,
        "failed": episodes.get("failed", 0),
        "calls": sum(calls.values()),
        "calls_failed": calls.get("failed", 0),
        "unparsed": sum(n for key, n in calls.items() if key not in ("ok", "failed")),
        "mark": f"{status} {done} {sum(calls.values())}",
        "typed": address.typed,
        "agents": _labels(reader),
        "models": models,
        "scripted": SCRIPTED in models,
        "scores": _ends(reader),
        "fork": forked_from(reader),
    }


def _world(config: str) -> str:
    """The kind of a run's world, and of a graph its topology."""
    world = json.loads(config)["world"]
    topology = Path(str(world.get("topology") or "grid")).name
    return str(world["kind"] if topology in ("grid", world["kind"]) else topology)


def _labels(reader: Reader) -> dict[str, int]:
    a = tables.agents
    query = select(a.c.label, func.count()).where(a.c.run_id == reader.run.id).group_by(a.c.label)
    return dict(map(tuple, reader.rows(query.order_by(a.c.label))))


def _models(reader: Reader) -> list[str]:
    """The names of the models that were asked or are to be, each once."""
    with reader.engine.connect() as connection:
        return list(dict.fromkeys(voice.name for voice in voices(reader, connection)))


def _ends(reader: Reader) -> Row | None:
    """Mean alignment of the revisions of the first and the last round that is over, if any is."""
    o = tables.outcomes
    mine = o.c.run_id == reader.run.id
    over = (
        select(o.c.round)
        .where(mine, o.c.measure == EPISODE)
        .group_by(o.c.round)
        .having(func.sum(o.c.n) == reader.run.per_round)
        .subquery()
    )
    rounds = reader.first(select(func.min(over.c.round), func.max(over.c.round)))
    score = (mine, o.c.measure == "revision_alignment", o.c.round.in_(list(rounds)))
    found: dict[int, dict[str, int]] = {}
    for round, outcome, n in reader.rows(select(o.c.round, o.c.outcome, o.c.n).where(*score)):
        found.setdefault(round, {})[outcome] = n
    if not found:
        return None
    first, last = (Spread.of(found.get(round, {})).mean for round in rounds)
    return {"first": first, "last": last}


def forms(reader: Reader) -> list[Any]:
    """The forms of a run as they were worded: `name`, `system` and `template` of each."""
    f = tables.forms
    query = select(f.c.name, f.c.system, f.c.template).where(f.c.run_id == reader.run.id)
    return [row._mapping for row in reader.rows(query.order_by(f.c.id))]


def about(reader: Reader, address: Address) -> Row:
    """What a run was asked to be, and what it has cost: config, forms, calls."""
    config = json.loads(reader.run.config)
    return {
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "forms": forms(reader),
        "costs": calls_by_form(reader),
        "code_version": reader.run.code_version,
        "embedder": reader.run.embedder,
        "threshold": reader.run.threshold,
        "database": str(address),
    }
