"""Damaged files: every verb and every page says so in one line, or shows what is right.

The number of damaged copies is ``pytest --damaged N`` (default 6; 300 for a thorough test).
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT
from program import program
from starlette.testclient import TestClient
from stored import make as make_stored

from sandbox.config import load_config
from sandbox.datasets import FORMATS
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.viewer.app import application
from sandbox.viewer.catalog import RunCatalog
from storage.database import parse_run
from storage.errors import InputError, StorageFault

VERBS = (
    ("status", "RUN"),
    ("inspect", "RUN"),
    ("inspect", "RUN", "agents"),
    ("inspect", "RUN", "agent", "4"),
    ("inspect", "RUN", "memory", "4"),
    ("inspect", "RUN", "episode", "9"),
    ("inspect", "RUN", "calls"),
    ("inspect", "RUN", "call", "50"),
    ("inspect", "RUN", "--search", "work"),
    ("report", "RUN", "--out", "report.html", "--overwrite"),
    ("verify", "RUN"),
    ("compare", "RUN", "SOUND"),
    ("fork", "RUN", "--at", "0", "--db", "fork.db", "--accept-changes"),
    ("resume", "RUN", "--max-calls", "5"),
)
PAGES = (
    "/",
    "/r/run",
    "/r/run/agents",
    "/r/run/agents/4",
    "/r/run/exchanges",
    "/r/run/exchanges/9",
    "/r/run/ratings",
    "/r/run/calls",
    "/r/run/calls/50",
    "/r/run/about",
    "/r/run/search?q=work",
    "/r/run/frames/0.json",
    "/r/run/advice/0",
    "/r/run/pulse.json",
    "/pulse.json",
    "/compare?run=run",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that is done, one that was stopped, and a scene."""
    folder = tmp_path_factory.mktemp("sound")
    small = ("world.size=3", "rounds=2", "memory.prior_pairs=5", "models.social.misbehave=0.1")
    done = make_stored(folder / "done.db", *small, name="run").path
    stopped = make_stored(folder / "stopped.db", *small, name="run", play=False).path
    resume(parse_run(str(stopped)), budget=Budget(calls=90))
    config = load_config(ROOT / "worlds/presets/scene.yaml", ["rounds=1"], name="run")
    resume(create(prepare(config), str(folder / "scene.db")))
    return {"done": done, "stopped": stopped, "scene": folder / "scene.db"}


def _damage(path: Path, chance: random.Random) -> None:
    """Flip some bytes of a file, or cut it short."""
    content = bytearray(path.read_bytes())
    kind = chance.random()
    if kind < 0.1:
        del content[chance.randrange(100, len(content)) :]
    else:
        size = len(content) if kind < 0.8 else 4096 * 4
        for _ in range(chance.choice((1, 5, 40, 400))):
            content[chance.randrange(100 if kind < 0.9 else 0, size)] = chance.randrange(256)
    path.write_bytes(content)


_SHARES = 5  # tests that the copies are shared out to

EXPORTS = tuple(("export", "RUN", "--format", name, "--out", f"data-{name}") for name in FORMATS)


def _ask(folder: Path, path: Path, sound: Path, verbs: Sequence[tuple[str, ...]]) -> list[str]:
    """What is wrong with the answers of some verbs about a file."""
    wrong = []
    for verb in verbs:
        names = {"RUN": str(path), "SOUND": str(sound)}
        done = program(folder, *(names.get(word, word) for word in verb))
        lines = done.stderr.strip().splitlines()
        if "Traceback" in done.stderr:
            wrong.append(f"{' '.join(verb)}: {' | '.join(lines[-4:])}")
        elif done.returncode not in (0, 1, 2, 130):
            wrong.append(f"{' '.join(verb)}: status {done.returncode}: {lines[-1:]}")
        elif done.returncode and not lines and verb[0] != "verify":
            wrong.append(f"{' '.join(verb)}: status {done.returncode} and not a word")
    return wrong


def _look_at_all(path: Path) -> list[str]:
    """What is wrong with the pages about a file."""
    try:
        catalog = RunCatalog([str(path)])
    except (InputError, StorageFault):
        return []
    wrong = []
    with TestClient(application(catalog), base_url="http://127.0.0.1") as client:
        for page in PAGES:
            try:
                answer = client.get(page)
            except Exception as error:  # what a server would log with a traceback
                wrong.append(f"{page}: {type(error).__name__}: {error}")
                continue
            if answer.status_code == 500:
                wrong.append(f"{page}: 500")
    return wrong


@pytest.mark.parametrize("share", range(_SHARES))
@pytest.mark.long
def test_damaged_copies(sound: dict[str, Path], tmp_path: Path, damaged: int, share: int) -> None:
    """Each copy is looked at on all pages, and by some of the verbs; `resume` comes last."""
    chance = random.Random(share)
    wrong = []
    for number in range(share, damaged, _SHARES):
        kind = list(sound)[number % 3]
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = Path(shutil.copy(sound[kind], folder / "run.db"))
        _damage(path, chance)
        verbs = [*chance.sample(VERBS[:-1], 3), chance.choice(EXPORTS), VERBS[-1]]
        wrong += [f"{number} {kind}: {line}" for line in _look_at_all(path)]
        wrong += [f"{number} {kind}: {line}" for line in _ask(folder, path, sound["done"], verbs)]
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "damage", ["not SQLite", "empty", "empty log", "log of another", "half", "no table"]
)
@pytest.mark.long
def test_files_that_are_no_run(sound: dict[str, Path], tmp_path: Path, damage: str) -> None:
    path = Path(shutil.copy(sound["done"], tmp_path / "run.db"))
    if damage == "not SQLite":
        path.write_bytes(b"no database at all " * 1000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "empty log":
        path.with_name("run.db-wal").write_bytes(b"")
    elif damage == "log of another":
        path.with_name("run.db-wal").write_bytes(_log(tmp_path))
    elif damage == "half":
        os.truncate(path, path.stat().st_size // 2)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE scores")
    verbs = (*VERBS[:-1], EXPORTS[0], VERBS[-1])
    assert _look_at_all(path) + _ask(tmp_path, path, sound["done"], verbs) == []


def _log(folder: Path) -> bytes:
    """The log of another database."""
    other = folder / "other" / "other.db"
    other.parent.mkdir()
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (thing)")
        connection.execute("INSERT INTO things VALUES (zeroblob(100000))")
        connection.commit()
        return other.with_name("other.db-wal").read_bytes()


def test_what_is_said_of_a_damaged_file(sound: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(sound["done"], tmp_path / "run.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE questions SET vector = x'00'")
        connection.execute("UPDATE agents SET persona = '{'")
        connection.execute("UPDATE calls SET prompt = 'x' WHERE id = 50")
        connection.commit()
    for verb in (
        ("verify", str(path)),
        ("inspect", str(path), "agents"),
        ("inspect", str(path), "call", "50"),
        ("export", str(path), "--format", "sft", "--out", "data"),
    ):
        done = program(tmp_path, *verb)
        assert done.returncode == 1, verb
        [line] = done.stderr.strip().splitlines()[-1:]
        assert line.startswith(f"{path}: the database is damaged: "), verb
    assert not (tmp_path / "data").exists()


_JSON_COLUMNS = (
    ("runs", "config"),
    ("runs", "declaration"),
    ("runs", "stances"),
    ("runs", "inputs"),
    ("runs", "origin"),
    ("sessions", "changes"),
    ("sessions", "waiting"),
    ("sessions", "environment"),
    ("models", "settings"),
    ("agents", "persona"),
)
_JSON_VERBS = (
    ("status", "RUN"),
    ("inspect", "RUN"),
    ("inspect", "RUN", "agents"),
    ("inspect", "RUN", "sessions"),
    ("verify", "RUN"),
    ("export", "RUN", "--format", "sft", "--out", "data", "--overwrite"),
    ("resume", "RUN"),
)


@pytest.mark.parametrize(
    ("table", "column"),
    [_JSON_COLUMNS[0], *(pytest.param(*one, marks=pytest.mark.long) for one in _JSON_COLUMNS[1:])],
    ids=lambda name: str(name),
)
def test_json_of_another_content_is_told_in_one_line(
    sound: dict[str, Path], tmp_path: Path, table: str, column: str
) -> None:
    wrong = []
    for value in ("{}", "[]", "null", '"x"', "1"):
        path = tmp_path / "run.db"
        shutil.copyfile(sound["done"], path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        told = _ask(tmp_path, path, sound["done"], _JSON_VERBS)
        wrong += [f"{table}.{column} = {value}: {line}" for line in told]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("stances", "[]", "runs.stances: found []; expected a JSON object"),
        ("inputs", '"x"', 'runs.inputs: found "x"; expected a JSON list'),
        ("declaration", "{}", "runs.declaration: stages: found nothing; expected a JSON list"),
        ("config", "{}", "runs.config: world: found nothing; expected a JSON object"),
    ],
)
def test_a_damaged_json_column_is_named(
    sound: dict[str, Path], tmp_path: Path, column: str, value: str, told: str
) -> None:
    path = tmp_path / "run.db"
    shutil.copyfile(sound["done"], path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE runs SET {column} = ?", (value,))
    done = program(tmp_path, "status", str(path))
    assert done.returncode == 1
    assert "the database is damaged" in done.stderr and told in done.stderr
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE runs SET {column} = '{{}}' WHERE '{column}' = 'stances'")
    if column == "stances":
        done = program(tmp_path, "verify", str(path))
        assert done.returncode == 1 and "expected one that runs.stances describes" in done.stderr
