"""A run at a glance: how far it is, what it is made of, and what to type."""

from __future__ import annotations

import json
from typing import Any

import yaml
from sqlalchemy import func, select

from sandbox.metrics import EPISODE, calls_by_form
from sandbox.run import status_now
from storage import tables
from storage.copying import forked_from
from storage.database import Address
from storage.export.source import SCRIPTED
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
    status, done = status_now(reader, address.url), sum(episodes.values())
    return {
        "name": run.name,
        "status": status,
        "message": run.message,
        "running": status == "running",
        "world": run.world,
        "seed": run.seed,
        "rounds": run.rounds,
        "created": run.created,
        "seconds": run.seconds,
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
        "models": _models(reader),
        "scripted": _is_scripted(reader),
        "fork": forked_from(reader),
    }


def _labels(reader: Reader) -> dict[str, int]:
    a = tables.agents
    query = select(a.c.label, func.count()).where(a.c.run_id == reader.run.id).group_by(a.c.label)
    return dict(map(tuple, reader.rows(query.order_by(a.c.label))))


def _models(reader: Reader) -> list[Row]:
    with reader.engine.connect() as connection:
        return [voice._asdict() for voice in voices(reader, connection)]


def _is_scripted(reader: Reader) -> bool:
    """Whether any of its models is the backend that composes texts by rules."""
    return any(model["name"] == SCRIPTED for model in _models(reader))


def about(reader: Reader, address: Address) -> Row:
    """What a run was asked to be, and what it has cost: config, forms, calls."""
    f = tables.forms
    forms = select(f.c.name, f.c.system, f.c.template).where(f.c.run_id == reader.run.id)
    config = json.loads(reader.run.config)
    return {
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "forms": [row._mapping for row in reader.rows(forms.order_by(f.c.id))],
        "costs": calls_by_form(reader),
        "code_version": reader.run.code_version,
        "embedder": reader.run.embedder,
        "threshold": reader.run.threshold,
        "database": str(address),
    }
