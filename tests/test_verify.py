"""`verify` notices every change of a stored value."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from program import program
from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Numeric, Table
from stored import Run
from stored import make as make_stored

from sandbox.config import load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.study.verify import verify
from storage import tables
from storage.database import parse_run
from storage.errors import Damaged, InputError

FREE = {
    "runs.status": "only a run that is done is verified",
    "runs.message": "words for the reader",
    "runs.code_version": "a record of the program that played it",
    "runs.created": "a time",
    "runs.inputs": "a record of what was read",
    "runs.asked_again": "null in a run that is done",
    "runs.asked_again_from": "null in a run that is done",
    "runs.seconds": "a time",
    "runs.origin": "a record of the run that it was forked from",
    "runs.embedder": "what the vectors were made with; the vectors are stored",
    "runs.stances": "words that are stored with the run; the prompts that show them are compared",
    "runs.declaration": "stored with the run; measures are compared with it",
    "runs.config": "stored with the run; what follows from it is compared",
    "runs.threshold": "null in a config: the default of the embedder",
    "sandbox_schema.version": "checked whenever a database is opened",
    "models.name": "a record of what answered",
    "models.settings": "a record of what answered",
    "questions.source": "a record of where it was read",
    "questions.topic": "a record of what was read beside the question",
    "questions.vector": "stored with the run; the distances that follow from it are compared",
    "agents.x": "stored with the run; whom an agent meets follows from it and is compared",
    "agents.y": "stored with the run; whom an agent meets follows from it and is compared",
    "agents.node": "a name in a graph file",
    "agents.community": "stored with the run",
    "calls.started": "a time",
    "calls.error": "words for the reader; whether there are some is compared",
    "calls.expected": "a record of the reply's probabilities",
    "calls.raw": "a record of the server's response",
    "calls.cut": "a record of the reply; what is parsed from it is compared",
}
"""The columns that no replay can tell, with the reason; `sessions` is a record as a whole."""

COLUMNS = [
    (table, column)
    for table in tables.metadata.sorted_tables
    for column in table.c
    if f"{table.name}.{column.name}" not in FREE and table is not tables.sessions
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of a grid with missing values, one of a scene, and one of users."""
    folder = tmp_path_factory.mktemp("verify")
    small = ("world.size=3", "rounds=2", "memory.prior_pairs=5", "world.raters=2")
    rough = ("models.social.misbehave=0.2", "models.observer.misbehave=0.2")
    grid = make_stored(folder / "grid.db", *small, *rough, name="grid")
    config = load_config(ROOT / "worlds/presets/scene.yaml", ["rounds=1"], name="scene")
    assert resume(create(prepare(config), str(folder / "scene.db"))).status == "done"
    settings = ["rounds=2", "world.users=12", "policy.checks=record"]
    config = load_config(ROOT / "worlds/presets/personal.yaml", settings, name="personal")
    assert resume(create(prepare(config), str(folder / "personal.db"))).status == "done"
    return {
        "grid": grid,
        "scene": Run(folder / "scene.db", "scene"),
        "personal": Run(folder / "personal.db", "personal"),
    }


_KIND = {
    **dict.fromkeys((tables.parts, tables.acts, tables.notes), "scene"),
    **dict.fromkeys(
        (tables.utterances, tables.verdicts, tables.breaches, tables.overruled), "personal"
    ),
}
"""The run that has rows of a table."""


def _notices(path: Path) -> bool:
    try:
        return not verify(parse_run(str(path))).agrees
    except (InputError, Damaged) as error:
        return len(str(error).splitlines()) == 1


def test_unchanged_runs_agree(played: dict[str, Run], tmp_path: Path) -> None:
    for run in played.values():
        verdict = verify(parse_run(str(run.copy(tmp_path).path)))
        assert verdict.agrees, verdict.differences


@pytest.mark.long
@pytest.mark.parametrize(
    ("table", "column"), COLUMNS, ids=[f"{t.name}.{c.name}" for t, c in COLUMNS]
)
def test_a_changed_value_is_noticed(
    played: dict[str, Run], tmp_path: Path, table: Table, column: Column[Any]
) -> None:
    run = played[_KIND.get(table, "grid")].copy(tmp_path)
    with closing(sqlite3.connect(run.path)) as connection, connection:
        given = f"FROM {table.name} WHERE {column.name} IS NOT NULL"
        count = connection.execute(f"SELECT count(*) {given}").fetchone()[0]
        if not count:
            key = table.primary_key.columns[0].name
            row = f"(SELECT {key} FROM {table.name} LIMIT 1)"
            change = f"UPDATE {table.name} SET {column.name} = 1 WHERE {key} = {row}"
        else:
            keys = ", ".join(c.name for c in table.primary_key.columns)
            row = f"(SELECT {keys} {given} LIMIT 1 OFFSET {count // 2})"
            change = (
                f"UPDATE {table.name} SET {column.name} = {_changed(column)} WHERE ({keys}) = {row}"
            )
        assert connection.execute(change).rowcount >= 1
    assert _notices(run.path)


def _changed(column: Column[Any]) -> str:
    kind = column.type
    if isinstance(kind, Boolean):
        return f"NOT {column.name}"
    if isinstance(kind, Float | Numeric):
        return f"{column.name} + 0.5"
    if column.primary_key or column.foreign_keys or column.name.endswith("_id"):
        return f"{column.name} + 1000000" if isinstance(kind, Integer) else f"{column.name} || 'x'"
    if isinstance(kind, Integer):
        return f"{column.name} + 1"
    if isinstance(kind, LargeBinary):
        return "zeroblob(16)"
    if column.name in ("prompt", "reply", "thinking"):
        return "'1'"
    return f"{column.name} || 'x'"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE sessions SET calls = calls + 1", "sessions: number 0: calls: found "),
        (
            "UPDATE calls SET error = 'x' WHERE id = (SELECT min(id) FROM calls)",
            ": error: found 'x'",
        ),
    ],
)
def test_changed_records_are_noticed(
    played: dict[str, Run], tmp_path: Path, change: str, told: str
) -> None:
    run = played["grid"].copy(tmp_path)
    with closing(sqlite3.connect(run.path)) as connection, connection:
        assert connection.execute(change).rowcount == 1
    differences = verify(parse_run(str(run.path))).differences
    assert len(differences) == 1
    assert told in str(differences[0])


def test_only_columns_that_exist_are_free() -> None:
    names = {f"{t.name}.{c.name}" for t in tables.metadata.sorted_tables for c in t.c}
    assert set(FREE) <= names


@pytest.mark.parametrize(
    ("change", "place", "found", "expected"),
    [
        (
            "UPDATE episodes SET ratings_read = 7 WHERE id = 3",
            "episodes: id 3: ratings_read",
            "7",
            None,
        ),
        (
            "UPDATE scores SET value = 9 WHERE episode_id = 0 AND measure_id = 1",
            "scores",
            "9",
            None,
        ),
        (
            "DELETE FROM outcomes WHERE measure = 'episode' AND round = 1",
            "outcomes",
            "no row",
            None,
        ),
        ("UPDATE measures SET sign = -sign WHERE kind = 'gain'", "measures", "-1", "1"),
    ],
)
def test_a_difference_names_the_row_and_both_values(
    played: dict[str, Run],
    tmp_path: Path,
    change: str,
    place: str,
    found: str,
    expected: str | None,
) -> None:
    run = played["grid"].copy(tmp_path)
    run.sql(change)
    done = program(tmp_path, "verify", str(run.path), "--json")
    assert done.returncode == 1
    [first, *_] = json.loads(done.stdout)["differences"]
    assert first["place"].startswith(place)
    assert first["found"].startswith(found)
    assert first["expected"] == expected if expected else first["expected"] != first["found"]
    shown = program(tmp_path, "verify", str(run.path))
    assert shown.returncode == 1
    assert "DIFFERS" in shown.stdout


def test_a_changed_index_of_words_is_noticed(played: dict[str, Run], tmp_path: Path) -> None:
    run = played["grid"].copy(tmp_path)
    run.sql("INSERT INTO words (rowid, question) VALUES (999, 'entirelynew')")
    [difference] = verify(parse_run(str(run.path))).differences
    assert str(difference) == (
        "words: 'entirelynew' in question: episodes and occurrences: found (1, 1); expected None"
    )


def test_a_reference_to_nothing_is_noticed(played: dict[str, Run], tmp_path: Path) -> None:
    run = played["grid"].copy(tmp_path)
    run.sql("UPDATE models SET run_id = 5 WHERE role = 'observer'")
    assert _notices(run.path)


def test_memories_that_were_written_in_another_order_agree(tmp_path: Path) -> None:
    """Their ids follow the order in which episodes end, which is another one in a replay."""
    late = "models.social.latency={first_token: 0.003, per_token: 0.0003, capacity: 7}"
    run = make_stored(tmp_path / "run.db", "rounds=3", "world.size=3", "memory.top_k=3", late)
    assert run.sql("SELECT count(*) FROM calls WHERE further LIKE '%,%'")[0][0] > 20
    assert verify(parse_run(str(run.path))).agrees
    run.sql("UPDATE calls SET further = replace(further, ':', ':1') WHERE further LIKE '%,%'")
    found = verify(parse_run(str(run.path))).differences
    assert found and all(one.place.endswith("further") for one in found)
