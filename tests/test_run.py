"""Whole runs: reproducible results, resuming, verifying, and missing replies."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest
from conftest import Make, scripted_backends, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.forms import CallName, prompt_hash
from sandbox import api
from sandbox.backends import scripted
from sandbox.backends.base import BackendDown, Call, Reply
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.agents import agents
from sandbox.reading.calls import call, calls
from sandbox.reading.memory import memory
from sandbox.reading.runs import society
from sandbox.study.verify import verify
from storage import database
from storage.database import open_for_reading, parse_run
from storage.errors import InputError
from storage.exchanges import exchanges
from storage.reader import Reader

LATENCY = "models.social.latency={first_token: 0.001, per_token: 0.00002, capacity: 9}"


def _reader(path: Path, name: str | None = None) -> Reader:
    address = parse_run(str(path))
    return Reader.find(open_for_reading(address.url), name, str(path))


def test_a_run_has_the_configured_size(make: Make) -> None:
    _, outcome = make()
    assert outcome.status == "done"
    assert (outcome.agents, outcome.episodes, outcome.calls) == (16, 48, 480)
    assert (outcome.calls_failed, outcome.unparsed, outcome.calls_replayed) == (0, 0, 0)
    assert outcome.digest is not None
    assert len(outcome.digest) == 64


def test_no_temporary_files_are_left(make: Make, tmp_path: Path) -> None:
    make()
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]


@pytest.mark.parametrize(
    "setting",
    [
        "schedule.max_in_flight=1",
        "schedule.order=lock_step",
        "schedule.order=sequential",
        "schedule.max_ahead=1",
        LATENCY,
    ],
)
@pytest.mark.parametrize("world", ["world.reach=global", "world.topology=small_world"])
def test_the_schedule_does_not_change_the_result(make: Make, setting: str, world: str) -> None:
    rough = ("models.social.misbehave=0.1", "models.observer.misbehave=0.1")
    plain = make(world, *rough, name="plain")[1]
    other = make(world, *rough, setting, name="other")[1]
    assert other.digest == plain.digest


def test_another_seed_is_another_run(make: Make) -> None:
    assert make(name="a")[1].digest != make("seed=8", name="b")[1].digest


@pytest.mark.parametrize(
    "setting", ["schedule.order=out_of_order", "schedule.order=lock_step", LATENCY]
)
def test_stopping_at_pareto_optimality_is_the_same_in_every_order(make: Make, setting: str) -> None:
    stop = ("rounds=12", "stop.patience=2", "question_count=4", "world.size=3")
    plain = make(*stop, "schedule.order=sequential", name="plain")[1]
    other = make(*stop, setting, name="other")[1]
    assert plain.episodes < 12 * 9
    assert plain.episodes % 9 == 0
    assert (other.episodes, other.digest) == (plain.episodes, plain.digest)


class Stopping(scripted.ScriptedBackend):
    """Raises BackendDown after some calls."""

    calls = 0
    limit = 0

    async def answer(self, call: Call) -> Reply:
        type(self).calls += 1
        if type(self).calls > type(self).limit:
            raise BackendDown("the engine is gone")
        return await super().answer(call)


@pytest.mark.long
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_a_run_resumes_where_its_backend_failed(
    tmp_path_factory: pytest.TempPathFactory, limits: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    setting = ("models.social.misbehave=0.1", "name=broken", "stop.patience=1")
    setting += ("memory.keep=2", "rounds=5", "question_count=4")
    plain = create(prepare(small(*setting)), str(folder / "plain.db"))
    broken = create(prepare(small(*setting)), str(folder / "broken.db"))
    expected = resume(plain)
    asked: Counter[CallName] = Counter()

    class Counting(Stopping):
        async def answer(self, call: Call) -> Reply:
            reply = await super().answer(call)
            asked[call.name] += 1
            return reply

    for limit in [*limits, 10**9]:
        Counting.calls, Counting.limit = 0, limit
        outcome = resume(broken, backends=scripted_backends(small(*setting), Counting))
        if outcome.status == "done":
            break
        assert (outcome.status, outcome.message) == ("failed", "the engine is gone")
    assert outcome.status == "done"
    assert outcome.digest == expected.digest
    assert outcome.calls == expected.calls
    assert max(asked.values()) == 1, "a journalled call was requested again"


def test_resuming_a_finished_run_changes_nothing(make: Make, tmp_path: Path) -> None:
    address, outcome = make()
    before = (tmp_path / "run.db").read_bytes()
    assert resume(address) == outcome
    assert len((tmp_path / "run.db").read_bytes()) == len(before)


def test_verify_detects_a_changed_reply(make: Make, tmp_path: Path) -> None:
    address, outcome = make("models.social.misbehave=0.1")
    verdict = verify(address)
    assert verdict.agrees
    assert verdict.outcome.calls_replayed == outcome.calls
    with sqlite3.connect(tmp_path / "run.db") as connection:
        (text,) = connection.execute(
            "SELECT text_id FROM stage_texts WHERE stage = 'revision' "
            "ORDER BY episode_id DESC LIMIT 1"
        ).fetchone()
        connection.execute("UPDATE texts SET text = text || ' Really.' WHERE id = ?", (text,))
    connection.close()
    with pytest.raises(InputError, match=r"observe_.*another prompt"):
        verify(address)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE observations SET rating = 8 - rating WHERE stage = 'revision'",
        "UPDATE ratings SET rating = 7 WHERE episode_id = 5",
        "UPDATE memories SET agent = 1 - agent WHERE agent < 2 AND round = 1",
    ],
)
def test_verify_detects_changed_tables(make: Make, tmp_path: Path, change: str) -> None:
    address, outcome = make()
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute(change)
    connection.close()
    verdict = verify(address)
    assert not verdict.agrees
    assert (verdict.of_replay == outcome.digest) != (verdict.of_tables == outcome.digest)


def test_concurrent_starts_with_the_same_name(tmp_path: Path) -> None:
    """One of them creates the run, the others get an error, and the run is intact."""
    blueprint = prepare(small())
    results: list[object] = []

    def start() -> None:
        try:
            results.append(create(blueprint, str(tmp_path / "run.db")))
        except InputError as error:
            results.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [result for result in results if isinstance(result, str)]
    assert len(refused) == 3
    assert all("exists" in error or "another process" in error for error in refused)
    assert resume(parse_run(str(tmp_path / "run.db"))).status == "done"


def test_verify_needs_a_finished_run(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "new.db"))
    with pytest.raises(InputError, match="not finished"):
        verify(address)


def test_a_changed_persona_is_detected_on_resume(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    Stopping.calls, Stopping.limit = 0, 40
    backends = scripted_backends(small(), Stopping)
    assert resume(address, backends=backends).status == "failed"
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE agents SET label = iif(label = 'good', 'bad', 'good')")
    connection.close()
    Stopping.limit = 10**9
    with pytest.raises(
        InputError, match=r"call 0/\d+/draft/\d+/0.0: found another prompt in the journal"
    ):
        resume(address, backends=backends)


def test_a_damaged_reply_is_a_row_with_a_status_and_never_a_number(
    make: Make, tmp_path: Path
) -> None:
    settings = ("models.social.misbehave=0.3", "models.observer.misbehave=0.3", "rounds=4")
    _, outcome = make(*settings)
    assert outcome.status == "done"
    reader = _reader(tmp_path / "run.db")
    config = small(*settings).models.social
    kinds: Counter[str] = Counter()
    unusable = 0
    forms = small().build_world().forms
    for number in range(64):
        for journalled in reader.journal(number):
            name = CallName(
                number // 16,
                number,
                journalled.form,
                journalled.agent,
                journalled.turn,
                journalled.attempt,
            )
            form = next(form for form in forms if form.name == journalled.form)
            from agents.chance import seed_of

            kind = scripted.mishap(
                Call(name, seed_of(7, name), "", "", form.reply, 512, 1.0), config
            )
            if kind is not None:
                kinds[kind] += 1
                unusable += journalled.status != "ok"
                assert (journalled.status == "failed") == (kind == "error")
                if kind == "injection":
                    assert journalled.status == "ok"
                elif kind == "cut" and form.reply.regex:  # perhaps after the rating
                    assert journalled.cut and journalled.status in ("ok", "cut")
                else:
                    assert journalled.status != "ok"
            else:
                assert journalled.status == "ok"
    assert set(kinds) == {"empty", "cut", "fraction", "refusal", "chatter", "injection", "error"}
    assert unusable == outcome.calls_failed + outcome.unparsed > 0
    missing = 0
    for one in exchanges(reader):
        for given_ in one.ratings:
            missing += given_.rating is None
            if given_.status not in ("ok", "cut"):
                assert given_.rating is None
        missing += sum(seen.rating is None for seen in one.observations)
        read = [given_.rating for given_ in one.ratings if given_.rating is not None]
        assert all(1 <= rating <= 7 for rating in read)
        assert one.mean_rating == (sum(read) / len(read) if read else None)
        if one.failed_at is not None:
            assert one.texts["revision"] is None
    assert missing > 0
    assert sum(one.missing_ratings for one in society(reader).rounds) == missing


def test_stored_prompts_have_the_journalled_hash(make: Make, tmp_path: Path) -> None:
    _, outcome = make("models.social.misbehave=0.1")
    reader = _reader(tmp_path / "run.db")
    for number in range(0, outcome.calls, 7):
        assert call(reader, number).hash_agrees
    one = call(reader, 0)
    assert prompt_hash(one.system, one.prompt + " ").hex() != one.prompt_hash


def test_the_recalled_memory_is_in_the_prompt(make: Make, tmp_path: Path) -> None:
    make("rounds=6", "question_count=4")
    reader = _reader(tmp_path / "run.db")
    recalled = 0
    for one in calls(reader, round=5):
        if one.recalled is not None and one.agent is not None:
            recalled += 1
            beliefs = {each.memory: each for each in memory(reader, one.agent, 4).internal}
            assert f"Answer: {beliefs[one.recalled].answer}\n</memory>" in one.prompt
        else:
            assert "<memory>" not in one.prompt
    assert recalled > 20


def test_only_recent_memories_are_recalled(make: Make, tmp_path: Path) -> None:
    make("rounds=6", "question_count=4", "memory.keep=2")
    reader = _reader(tmp_path / "run.db")
    for one in calls(reader, round=5):
        if one.recalled is not None and one.agent is not None:
            kept = [each.memory for each in memory(reader, one.agent, 4).internal[:2]]
            assert one.recalled in kept


def test_without_raters_and_with_scores_only(make: Make, tmp_path: Path) -> None:
    _, alone = make("world.raters=0", name="alone")
    assert alone.calls == 48 * 6
    make("world.score_only=true", name="scores")
    reader = _reader(tmp_path / "scores.db")
    for one in calls(reader, round=0):
        if one.form == "revise":
            assert "on average" in one.prompt
            assert "<comments>" not in one.prompt


@pytest.mark.long
def test_two_runs_in_one_database_are_independent(make: Make, tmp_path: Path) -> None:
    single = {name: make(f"seed={seed}", name=name)[1] for name, seed in (("a", 1), ("b", 2))}
    for name, seed in (("a", 1), ("b", 2)):
        config = small(f"seed={seed}", f"name={name}")
        both = resume(create(prepare(config), str(tmp_path / "both.db")))
        assert both.digest == single[name].digest
    assert verify(parse_run(f"{tmp_path}/both.db#b")).of_replay == single["b"].digest
    both_runs = parse_run(f"{tmp_path}/both.db")
    with pytest.raises(InputError, match="found a, b"):
        resume(both_runs)


def test_a_name_that_exists_is_refused(make: Make, tmp_path: Path) -> None:
    make()
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(InputError, match="exists"):
        create(prepare(small("name=run")), str(tmp_path / "run.db"))
    assert (tmp_path / "run.db").read_bytes() == before


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    with database.writing(address.url), pytest.raises(InputError, match="another process"):
        resume(address)
    assert resume(address).status == "done"


def test_foreign_files_are_refused_and_stay_unchanged(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE things (id INTEGER)")
    connection.close()
    before = foreign.read_bytes()
    for action in (
        lambda: create(prepare(small()), str(foreign)),
        lambda: resume(parse_run(str(foreign))),
        lambda: open_for_reading(parse_run(str(foreign)).url),
    ):
        with pytest.raises(InputError, match="not a database of runs"):
            action()
    assert foreign.read_bytes() == before
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"this is no database at all, only some words" * 100)
    with pytest.raises(InputError, match="not a database"):
        open_for_reading(parse_run(str(junk)).url)
    with pytest.raises(InputError, match="not a database"):
        create(prepare(small()), str(junk))


def test_a_newer_database_is_refused(make: Make, tmp_path: Path) -> None:
    address, _ = make()
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE sandbox_schema SET version = 99")
    connection.close()
    for action in (lambda: resume(address), lambda: open_for_reading(address.url)):
        with pytest.raises(InputError, match="newer version"):
            action()


def test_from_python_also_inside_a_running_loop(tmp_path: Path) -> None:
    async def notebook() -> str | None:
        outcome = api.run(
            name="nb", db=str(tmp_path / "nb.db"), rounds=1, settings={"world.size": 3}
        )
        return outcome.digest

    digest = asyncio.run(notebook())
    with api.open_run(str(tmp_path / "nb.db")) as reader:
        assert reader.run.digest == digest
        assert len(agents(reader)) == 9
    assert api.resume(str(tmp_path / "nb.db")).digest == digest


def test_errors_from_python_name_the_setting(tmp_path: Path) -> None:
    for given_settings in ({"world.radius": 0.5}, ["world.radius=0.5"]):
        with pytest.raises(InputError, match=r"^--set world.radius=0.5: world.radius: found 0.5"):
            api.run(db=tmp_path / "x.db", settings=given_settings)
    with pytest.raises(InputError, match=r"^--set world.size=1: world"):
        api.run(db=tmp_path / "x.db", settings={"world.size": 1})


def test_a_run_from_python_stops_at_its_budget_and_gets_more_rounds(tmp_path: Path) -> None:
    seen: list[str] = []
    address = api.create(name="small", db=tmp_path / "s.db", rounds=1, settings={"world.size": 3})
    stopped = api.resume(
        address, budget=api.Budget(calls=10), watch=lambda progress: seen.append(progress.run)
    )
    assert (stopped.status, stopped.calls, seen) == ("interrupted", 10, ["small"])
    done = api.resume(address, rounds=2)
    assert (done.status, done.rounds, done.episodes) == ("done", 2, 18)
    assert api.verify(address).agrees
    other = api.fork(address, 0, settings={"world.raters": 2}, db=tmp_path / "f.db")
    assert api.resume(other).status == "done"
    compared = api.compare([str(address), str(other)])
    assert compared.differing_keys["world.raters"][1] == 2
    estimated = api.estimate(rounds=4, settings={"world.size": 3}, episodes=8)
    assert estimated.episodes == 36
