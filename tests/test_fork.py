"""Forks: the past is the original's, call by call; the future is the fork's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Make, scripted_backends, small
from test_cli import sim, sim_json
from test_run import Stopping

from sandbox.engine.run import create, prepare, resume
from sandbox.engine.society import extend_questions
from sandbox.reading.calls import call
from sandbox.reading.memory import memory
from sandbox.reading.runs import Outcome, states
from sandbox.study.fork import fixed_keys, fork
from sandbox.study.verify import verify
from storage import database, tables
from storage.copying import forked_from
from storage.database import Address, open_for_reading, parse_run, parse_url
from storage.errors import InputError
from storage.exchanges import exchanges
from storage.reader import Reader

ROUGH = ("models.social.misbehave=0.1", "models.observer.misbehave=0.1")


def _reader(address: Address) -> Reader:
    return Reader.find(open_for_reading(address.url), address.name, str(address))


def _forked(source: Address, at: int, *settings: str, **options: Any) -> tuple[Address, Outcome]:
    place = Path(str(source.url.database)).parent / "fork.db"
    address = fork(source, at, settings, **{"db": str(place), **options})
    return address, resume(address)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_fork_without_a_change_is_the_original(make: Make, at: int) -> None:
    source, outcome = make(*ROUGH)
    address, forked = _forked(source, at)
    assert address.name == f"run-fork-at-{at}"
    assert (forked.digest, forked.calls) == (outcome.digest, outcome.calls)
    assert (forked.tokens_in, forked.unparsed) == (outcome.tokens_in, outcome.unparsed)


def test_a_fork_beside_other_runs_has_ids_of_its_own(make: Make, tmp_path: Path) -> None:
    source, outcome = make(*ROUGH)
    before = resume(create(prepare(small("seed=3", "name=first")), str(tmp_path / "both.db")))
    _, beside = _forked(source, 1, db=str(tmp_path / "both.db"), name="a")
    _, within = _forked(source, 1, db=str(tmp_path / "run.db"), name="b")
    assert beside.digest == within.digest == outcome.digest
    rows = {row.run: row.digest for row in states(parse_run(f"{tmp_path}/both.db").url)}
    assert rows == {"first": before.digest, "a": outcome.digest}
    reader = _reader(parse_run(f"{tmp_path}/both.db#a"))
    assert memory(reader, 3, 1) == memory(_reader(source), 3, 1)
    assert all(call(reader, number).hash_agrees for number in range(0, 300, 23))


def test_a_fork_of_a_run_that_is_not_finished(make: Make, tmp_path: Path) -> None:
    _, outcome = make(*ROUGH)
    source = create(prepare(small(*ROUGH, "name=half")), str(tmp_path / "half.db"))
    Stopping.calls, Stopping.limit = 0, 400
    backends = scripted_backends(small(*ROUGH), Stopping)
    assert resume(source, backends=backends).status == "failed"
    with pytest.raises(InputError, match=r"--at: found 2; expected .* are complete: 0 to \d"):
        fork(source, 2, db=str(tmp_path / "fork.db"))
    address, forked = _forked(source, 0)
    assert forked.digest == outcome.digest
    origin = forked_from(_reader(address))
    assert origin is not None
    assert (origin["run"], origin["digest"], origin["round"]) == ("half", None, 0)


def test_one_rule_changes_and_the_past_stays(make: Make) -> None:
    source, outcome = make(*ROUGH, "rounds=4")
    address, forked = _forked(source, 1, "world.raters=1", "memory.keep=3")
    assert forked.digest != outcome.digest
    old, new = list(exchanges(_reader(source))), list(exchanges(_reader(address)))
    assert new[:32] == old[:32]
    assert {len(one.ratings) for one in new[32:] if one.failed_at is None} == {1}
    origin = json.loads(_reader(address).run.origin)["forked_from"]
    assert (origin["run"], origin["digest"], origin["round"]) == ("run", outcome.digest, 1)
    changed = {"world.raters": [4, 1], "memory.keep": ["all", 3]}
    assert origin["changed"] == changed
    verdict = verify(address)
    assert verdict.agrees
    kept = sum(len(_reader(address).journal(number)) for number in range(32))
    assert verdict.outcome.calls_replayed == forked.calls - kept


def test_a_fork_of_a_fork_knows_both(make: Make, tmp_path: Path) -> None:
    source, _ = make("rounds=4")
    address, forked = _forked(source, 1, "world.raters=1")
    again = fork(address, 2, name="again", db=str(tmp_path / "again.db"))
    assert resume(again).digest == forked.digest
    origin = forked_from(_reader(again))
    assert origin is not None
    assert origin["run"] == address.name
    assert origin["forked_from"]["run"] == "run"


def test_a_model_that_changes_leaves_its_calls_with_the_old_one(make: Make) -> None:
    source, _ = make()
    address, forked = _forked(source, 0, "models.social.misbehave=0.5")
    assert forked.unparsed > 0
    with sqlite3.connect(str(address.url.database)) as connection:
        query = (
            "SELECT role, settings, min(episode_id), max(episode_id) FROM models "
            "JOIN calls ON calls.model_id = models.id WHERE role LIKE 'social%' GROUP BY role"
        )
        rows = {row[0]: row[1:] for row in connection.execute(query)}
    connection.close()
    assert rows["social until round 0"][1:] == (0, 15)
    assert rows["social"][1:] == (16, 47)
    assert json.loads(rows["social"][0])["misbehave"] == 0.5


@pytest.mark.parametrize("question_count", ["null", "40"])
def test_more_rounds_bring_more_questions(make: Make, tmp_path: Path, question_count: str) -> None:
    settings = (*ROUGH, f"question_count={question_count}")
    short, _ = make(*settings, "rounds=2", name="short")
    _, long = make(*settings, "rounds=4", name="long")
    _, forked = _forked(short, 1, rounds=4)
    assert forked.digest == long.digest
    with database.writing(short.url) as engine:
        reader = Reader.find(engine, None, "short")
        extend_questions(reader, small(*settings, "rounds=4", "name=short"))
        count = reader.count(tables.questions, tables.questions.c.source.is_not(None))
    assert count == (64 if question_count == "null" else 40)


def _questions(path: Path, first: int, count: int) -> str:
    path.write_text("".join(f"What is {n} plus {n}?\n" for n in range(first, first + count)))
    return f"questions={path}"


def test_a_list_that_was_read_to_its_end_is_complete(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    source, _ = make(_questions(file, 0, 20), "question_count=null", "rounds=2")
    file.unlink()
    _, forked = _forked(source, 0, rounds=3)
    assert forked.episodes == 48


def test_a_question_file_that_changed_is_refused(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    source, _ = make(_questions(file, 0, 100), "question_count=null", "rounds=1")
    for first, count, words in ((1, 100, "questions.txt:1 where run run has question 0"),
                                (0, 10, "its end where run run has question 10")):  # fmt: skip
        _questions(file, first, count)
        with pytest.raises(InputError, match=words):
            fork(source, 0, db=str(tmp_path / "fork.db"), rounds=2)
    file.unlink()
    with pytest.raises(InputError, match=r"questions.txt: No such file"):
        fork(source, 0, db=str(tmp_path / "fork.db"), rounds=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.db"]


OTHER = {
    "seed": 9, "world.kind": "moon", "world.size": 5, "world.topology": "complete",
    "world.demographics": "all_good", "world.degree": 6, "world.rewire": 0.5,
    "questions": "other.txt", "question_count": 9, "personas": "other.jsonl",
    "memory.prior": "other.jsonl", "memory.prior_pairs": 3, "memory.embedder": "other",
    "memory.embedder.backend": "vllm", "memory.embedder.model": "other",
    "forms": "other.yaml", "policy.file": "other.yaml", "policy.prompts": "false",
}  # fmt: skip


def test_settings_that_contradict_the_past_are_refused(make: Make, tmp_path: Path) -> None:
    source, _ = make("rounds=1")
    assert set(OTHER) == set(fixed_keys(small()))
    for key, value in OTHER.items():
        with pytest.raises(InputError, match=f"^{key}: found .*; expected .* the fork keeps"):
            fork(source, 0, [f"{key}={value}"], db=str(tmp_path / "fork.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]


BAD: list[tuple[int, Sequence[str], dict[str, Any], str]] = [
    (3, (), {}, "--at: found 3; .* complete: 0 to 2"),
    (-1, (), {}, "--at: found -1"),
    (1, (), {"rounds": 1}, "rounds: found 1; expected at least 2"),
    (1, ["wrold.size=3"], {}, "wrold: unknown key"),
    (1, ["world.raters=-1"], {}, "--set world.raters=-1: world.raters: found -1"),
    (1, ["world.radius=0.5"], {}, "world.radius: found 0.5, which reaches nobody"),
    (1, (), {"name": "a b"}, "--name: name: found"),
    (1, (), {"name": "run", "db": "run.db"}, "exists; expected a new name"),
    (1, (), {"db": "/proc/nowhere/x.db"}, "/proc/nowhere/x.db: cannot be"),
]


def test_bad_input_leaves_nothing_behind(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, _ = make()
    before = (tmp_path / "run.db").read_bytes()
    for at, settings, options, words in BAD:
        with pytest.raises(InputError, match=words) as error:
            fork(source, at, settings, **options)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]
    assert (tmp_path / "run.db").read_bytes() == before


def test_a_copy_that_breaks_off_leaves_nothing_behind(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = make()
    monkeypatch.setattr("sandbox.study.fork._write_models", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fork(source, 1, db=str(tmp_path / "new.db"))
    with pytest.raises(ZeroDivisionError):
        fork(source, 1, db=str(tmp_path / "run.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]
    assert [row.run for row in states(source.url)] == ["run"]
    assert verify(source).outcome.run == "run"


def test_a_fork_in_postgresql(server: str, make: Make) -> None:
    source, outcome = make(*ROUGH, name="origin")
    there = fork(source, 0, name="there", db=server)
    assert resume(there).digest == outcome.digest
    back = fork(Address(parse_url(server), "there"), 1, name="again", db=server)
    assert resume(back).digest == outcome.digest


def test_the_verbs(tmp_path: Path) -> None:
    original = sim_json(tmp_path, "run", "--rounds", "2", "--set", "world.size=3")
    forked = sim_json(tmp_path, "fork", "quickstart", "--at", "0", "--set", "world.raters=1")
    assert (forked["run"], forked["status"]) == ("quickstart-fork-at-0", "done")
    assert forked["digest"] != original["digest"]
    compared = sim_json(tmp_path, "compare", "quickstart", "quickstart-fork-at-0")
    assert compared["comparisons"][0]["first_round"] == 1
    estimated = sim_json(tmp_path, "estimate", "--rounds", "2", "--set", "world.size=3")
    assert estimated["calls"]["estimate"] == original["calls"]
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in (
        (("fork", "quickstart", "--at", "7"), "--at: found 7"),
        (("compare", "quickstart"), "expected at least 2"),
        (("estimate", "--gpus", "-1"), "--gpus: found -1"),
    ):
        done = sim(tmp_path, *arguments, "--json", status=2)
        assert words in json.loads(done.stdout)["error"]
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_group_with_a_model_of_its_own_can_be_added(make: Make, tmp_path: Path) -> None:
    original, _ = make("rounds=2")
    group = "models.groups={half: {share: 0.5, model: {backend: scripted, max_tokens: 300}}}"
    forked = fork(original, 0, [group], name="mixed", db=str(tmp_path / "mixed.db"))
    assert resume(forked).status == "done"
    with sqlite3.connect(tmp_path / "mixed.db") as connection:
        query = (
            "SELECT role, count(calls.id) FROM models JOIN calls ON model_id = models.id GROUP BY 1"
        )
        asked = dict(connection.execute(query))
    assert set(asked) == {"social", "observer", "half"} and asked["half"] > 20
