"""The personal world: PRISM's protocol, failures as rows, and the same result whatever happens."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, scripted_backends

from sandbox.backends.base import Call, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.config import PRESETS, Config, load_config
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.study.verify import verify
from storage.database import Address
from storage.errors import InputError

PRESET = PRESETS / "personal.yaml"


def config(*settings: str, name: str = "run") -> Config:
    return load_config(PRESET, ["world.users=8", "rounds=6", f"name={name}", *settings])


def played(folder: Path, *settings: str, name: str = "run", **options: Any) -> Address:
    address = create(prepare(config(*settings, name=name)), str(folder / f"{name}.db"))
    resume(address, **options)
    return address


def rows(address: Address, query: str) -> list[Any]:
    with sqlite3.connect(str(address.url.database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return played(tmp_path_factory.mktemp("personal"), "world.turns=[2, 4]")


def test_conversations_follow_the_protocol(run: Address) -> None:
    utterances = rows(run, "SELECT u.*, e.round, e.author FROM utterances u "
                           "JOIN episodes e ON e.id = u.episode_id")  # fmt: skip
    talks: dict[int, list[Any]] = defaultdict(list)
    for one in utterances:
        talks[one["episode_id"]].append(one)
    assert len(talks) == 48
    types: dict[int, Counter[str]] = defaultdict(Counter)
    lengths = Counter[int]()
    for talk in talks.values():
        answers = [one for one in talk if one["kind"] == "answer"]
        turns = sorted({one["turn"] for one in answers})
        lengths[len(turns)] += 1
        for turn in turns:
            made = [one for one in answers if one["turn"] == turn]
            assert [one["candidate"] for one in made] == list(range(4 if turn == 0 else 2))
            assert len({one["prompt_id"] for one in made}) == 1
            (chosen,) = [one for one in made if one["chosen"]]
            assert chosen["score"] == max(one["score"] for one in made)
        assert all(1 <= one["score"] <= 100 for one in answers)
        assert len([one for one in talk if one["kind"] == "aggregate"]) == 1
        assert len({one["rule"] for one in talk if one["kind"] == "red_team"}) == 1
        assert [one["number"] for one in talk] == list(range(len(talk)))
        types[answers[0]["author"]][answers[0]["manner"]] += 1
    assert set(lengths) == {2, 3, 4}
    two = {"unguided": 2, "values guided": 2, "controversy guided": 2}
    assert all(dict(each) == two for each in types.values())
    phrasings = {one["manner"] for one in utterances if one["kind"] == "red_team"}
    assert len(phrasings) == 6


def test_both_answers_are_rated_blind_by_the_user(run: Address) -> None:
    query = (
        "SELECT c.agent, m.role FROM calls c JOIN forms f ON f.id = c.form_id "
        "JOIN models m ON m.id = c.model_id WHERE f.name = 'observe_satisfaction'"
    )
    asked = rows(run, query)
    assert len(asked) == 96
    assert {(call["role"], call["agent"] is None) for call in asked} == {("social", False)}
    form = rows(run, "SELECT system, template FROM forms WHERE name = 'observe_satisfaction'")[0]
    assert form == rows(run, "SELECT system, template FROM forms WHERE name = 'score'")[0]
    stages = rows(run, "SELECT stage, count(*) n FROM observations WHERE scale = 'satisfaction' "
                       "AND rating BETWEEN 1 AND 100 GROUP BY 1")  # fmt: skip
    assert stages == [{"stage": "aggregate", "n": 48}, {"stage": "personal", "n": 48}]
    gains = rows(run, "SELECT count(*) n FROM scores s JOIN measures m ON m.id = s.measure_id "
                      "WHERE m.name = 'satisfaction_gain'")  # fmt: skip
    assert gains == [{"n": 48}]


def test_the_users_wishes_stand_in_the_prompt_of_the_model_and_not_in_the_common_one(
    run: Address,
) -> None:
    """The prompt for all shows no wish of a single user; overruled wishes stand nowhere."""
    wishes = rows(run, "SELECT wish FROM overruled")
    assert wishes
    for row in wishes:
        given = (row["wish"],)
        with sqlite3.connect(str(run.url.database)) as connection:
            found = connection.execute("SELECT count(*) FROM texts WHERE instr(text, ?)", given)
            assert found.fetchone() == (0,)


@pytest.mark.long
def test_the_result_does_not_depend_on_order_or_stops(tmp_path: Path) -> None:
    settings = ("rounds=2", "models.social.misbehave=0.05", "models.observer.misbehave=0.05")
    calm = verify(played(tmp_path, *settings, name="calm"))
    assert calm.agrees
    for order in ("sequential", "lock_step"):
        address = played(tmp_path, *settings, f"schedule.order={order}", name=order)
        assert verify(address).of_tables == calm.of_tables
    stopped = create(prepare(config(*settings, name="stopped")), str(tmp_path / "stopped.db"))
    for _ in range(40):
        if resume(stopped, budget=Budget(calls=97)).status == "done":
            break
    assert verify(stopped).of_tables == calm.of_tables


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_digest(tmp_path: Path) -> None:
    slow = "models.social.latency={first_token: 0.01, per_token: 0, capacity: 8}"
    given = ["--rounds", "2", "--set", "world.users=8", "--set", slow]
    command = [sys.executable, str(ROOT / "run_sim.py")]
    for name, kills in (("calm", 0), ("killed", 3)):
        place = ["--db", str(tmp_path / f"{name}.db"), "--name", name]
        arguments = ["run", str(PRESET), *given, *place]
        for _ in range(kills):
            process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            before = _calls(tmp_path / f"{name}.db")
            while _calls(tmp_path / f"{name}.db") < before + 60:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            arguments = ["resume", str(tmp_path / f"{name}.db")]
        subprocess.run([*command, *arguments], check=True, capture_output=True)
    digests = [
        rows_of(tmp_path / f"{name}.db", "SELECT digest FROM runs") for name in ("calm", "killed")
    ]
    assert digests[0] == digests[1] != [(None,)]
    counts = [
        rows_of(tmp_path / f"{name}.db", "SELECT count(*) FROM calls")
        for name in ("calm", "killed")
    ]
    assert counts[0] == counts[1]


def rows_of(path: Path, query: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


def _calls(path: Path) -> int:
    try:
        return int(rows_of(path, "SELECT count(*) FROM calls")[0][0])
    except sqlite3.Error:
        return 0


class Silent(ScriptedBackend):
    """Some forms have no usable reply."""

    silent: tuple[str, ...] = ()

    async def answer(self, call: Call) -> Reply:
        """Answer one call."""
        if call.name.form in self.silent:
            return Reply("")
        return await super().answer(call)


@pytest.mark.parametrize(
    ("silent", "failed_at"),
    [
        (("open",), "open"),
        (("answer",), "answer"),
        (("continue",), "continue/1"),
        (("score",), None),
    ],
)
def test_a_missing_reply_is_a_row_and_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...], failed_at: str | None
) -> None:
    monkeypatch.setattr(Silent, "silent", silent)
    given = config("rounds=1", "world.users=3")
    address = create(prepare(given), str(tmp_path / "run.db"))
    resume(address, backends=scripted_backends(given, Silent))
    assert {row["failed_at"] for row in rows(address, "SELECT failed_at FROM episodes")} == {
        failed_at
    }
    assert (
        rows(address, "SELECT * FROM utterances WHERE score IS NOT NULL AND text_id IS NULL") == []
    )
    if failed_at is None:
        kinds = rows(address, "SELECT DISTINCT score FROM utterances WHERE kind = 'answer'")
        assert kinds == [{"score": None}]


@pytest.mark.parametrize("form", ["obeyed", "performance", "stance", "prefer", "guess_age"])
def test_a_missing_verdict_has_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(Silent, "silent", (form,))
    given = config("rounds=1", "world.users=6", "policy.checks=record")
    address = create(prepare(given), str(tmp_path / "run.db"))
    resume(address, backends=scripted_backends(given, Silent))
    kind = {"prefer": "dimension", "guess_age": "guess"}.get(form, form)
    subject = "AND subject = 'age'" if form == "guess_age" else ""
    found = rows(address, f"SELECT DISTINCT value FROM verdicts WHERE kind = '{kind}' {subject} "
                          "AND coalesce(value, '') <> 'mentioned'")  # fmt: skip
    assert found == [{"value": None}]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["world.turns=[3, 2]"], "world.turns: found .*the fewest, then the most"),
        (["world.turns=[0, 2]"], "world.turns"),
        (["world.turns=[2, 11]"], "world.turns"),
        (["world.candidates=5"], "world.candidates: found 5"),
        (["world.users=0"], "world.users: found 0"),
        (
            [f"personas={PRESETS.parent / 'data' / 'personas.jsonl'}"],
            "personas without preferences",
        ),
        (["world.red_team=nowhere.jsonl"], "world.red_team: .*nowhere.jsonl: No such file"),
    ],
)
def test_settings_that_cannot_work_are_told(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(config(*settings))


@pytest.mark.long
def test_bounds_can_be_seen_to_leak_and_to_hold(tmp_path: Path) -> None:
    """The same attacks: some are obeyed while checks only record, none of tier 1 once they act."""
    shares = {}
    for checks in ("record", "enforce"):
        address = played(tmp_path, "world.users=32", f"policy.checks={checks}", name=checks)
        verdicts = rows(address, "SELECT subject, value, count(*) n FROM verdicts "
                                 "WHERE kind = 'obeyed' GROUP BY 1, 2")  # fmt: skip
        tier1 = [row for row in verdicts if row["subject"].startswith("law.")]
        yes = sum(row["n"] for row in tier1 if row["value"] == "yes")
        known = sum(row["n"] for row in tier1 if row["value"] is not None)
        assert known > 100
        shares[checks] = yes / known
    assert shares["enforce"] == 0 < 0.05 < shares["record"]
