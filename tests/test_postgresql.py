"""Runs in a PostgreSQL server that the test starts, stops and restarts."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, Make, PostgreSQL, scripted_backends, small
from sqlalchemy import create_engine, text
from test_cli import sim_json

from sandbox.backends.base import Call, CallFailed, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.engine.run import Change, create, prepare, resume
from sandbox.reading.exchanges import found_exchanges
from sandbox.reading.runs import Outcome, open_run, society, states
from sandbox.reading.sessions import sessions
from sandbox.study.verify import verify
from storage import database
from storage.database import Address, parse_run, parse_url
from storage.errors import InputError, Taken, Unreachable
from storage.reader import Reader
from storage.writer import Writer

SLOW = "models.social.latency={first_token: 0.02, per_token: 0.0001, capacity: 8}"
DUPLICATES = (
    "SELECT count(*) FROM (SELECT 1 FROM calls "
    "GROUP BY episode_id, form_id, agent, turn, attempt HAVING count(*) > 1) twice"
)


def _ask(url: str, query: str, **values: Any) -> Any:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            return connection.scalar(text(query), values)
    finally:
        engine.dispose()


def test_a_run_in_postgresql_is_the_run_in_sqlite(server: str, make: Make) -> None:
    rough = ("models.social.misbehave=0.2", "models.observer.misbehave=0.2")
    plain = make(*rough, name="pg")[1]
    served = resume(create(prepare(small(*rough, "name=pg")), server))
    assert served.status == "done"
    assert served.digest == plain.digest
    second = resume(create(prepare(small("seed=9", "name=other")), server))
    assert second.digest != plain.digest
    assert [row.run for row in states(parse_url(server))] == ["pg", "other"]
    assert verify(parse_run(f"{server}#pg")).of_replay == plain.digest
    with pytest.raises(InputError, match="exists"):
        create(prepare(small("name=pg")), server)


def test_two_processes_on_one_run_of_a_server(server: str) -> None:
    address = create(prepare(small("name=claimed")), server)
    with (
        database.writing(address.url) as engine,
        database.claim(engine, "claimed"),
        pytest.raises(InputError, match="another process"),
    ):
        resume(address)
    assert resume(address).status == "done"


@pytest.mark.long
def test_failed_calls_of_a_run_in_a_server_can_be_requested_again(server: str) -> None:
    config = small("name=again")

    class Refusing(ScriptedBackend):
        async def answer(self, call: Call) -> Reply:
            if call.seed % 10 == 0:
                raise CallFailed("refused")
            return await super().answer(call)

    calm = resume(create(prepare(small("name=calm")), server))
    address = create(prepare(config), server)
    broken = resume(address, backends=scripted_backends(config, Refusing))
    assert broken.calls_failed > 0
    mended = resume(address, change=Change(["schedule.max_in_flight=9"], ["failed"]))
    assert (mended.digest, mended.calls, mended.calls_failed) == (calm.digest, calm.calls, 0)
    assert verify(parse_run(f"{server}#again")).agrees
    with open_run(address) as reader, open_run(f"{server}#calm") as other:
        first, second = sessions(reader, address)
        assert first.calls == broken.calls
        assert second.changes["schedule.max_in_flight"] == [1024, 9]
        assert society(reader).rounds == society(other).rounds
        for words in ("friend", "money", "tell"):
            found = [
                [row.episode for row in found_exchanges(run, words, None, 999)]
                for run in (reader, other)
            ]
            assert found[0] == found[1]


@contextmanager
def _played(url: str, name: str, *settings: str) -> Iterator[Callable[[], Any]]:
    """Play a run in a thread; yields when it has calls, with what waits for its result."""
    address = create(prepare(small(SLOW, f"name={name}", *settings)), url)
    results: list[Any] = []

    def play() -> None:
        try:
            results.append(resume(address))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    while _state(address).calls < 20:
        assert thread.is_alive(), results
        time.sleep(0.05)

    def result() -> Any:
        thread.join(60)
        assert not thread.is_alive()
        return results[0]

    yield result
    result()


def _state(address: Address) -> Any:
    return next(row for row in states(address.url) if row.run == address.name)


def _calm(make: Make, name: str) -> Outcome:
    return make(f"name={name}", name=f"calm-{name}")[1]


@pytest.mark.parametrize(("mode", "away"), [("immediate", 0), ("immediate", 2), ("fast", 1)])
@pytest.mark.long
def test_a_server_that_is_restarted_is_waited_for(
    postgresql: PostgreSQL, make: Make, mode: str, away: int
) -> None:
    name = f"restarted-{mode}-{away}"
    with _played(postgresql.url, name) as result:
        postgresql.stop(mode)
        time.sleep(away)
        postgresql.start()
        outcome = result()
    assert not isinstance(outcome, Exception), outcome
    calm = _calm(make, name)
    assert outcome.status == "done", outcome.message
    assert (outcome.status, outcome.digest, outcome.calls) == ("done", calm.digest, calm.calls)
    assert _ask(postgresql.url, DUPLICATES) == 0
    assert verify(parse_run(f"{postgresql.url}#{name}")).agrees


@pytest.mark.long
def test_a_server_that_stays_away_stops_the_run(
    postgresql: PostgreSQL, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.engine.journal._PATIENCE_SECONDS", 1.0)
    with _played(postgresql.url, "away") as result:
        postgresql.stop("immediate")
        began = time.monotonic()
        error = result()
    assert time.monotonic() - began < 12, "the groups of replies wait together"
    assert isinstance(error, Unreachable)
    assert "cannot be reached" in str(error)
    assert len(str(error).splitlines()) == 1
    with pytest.raises(InputError, match="cannot be reached") as unreadable:
        states(parse_url(postgresql.url))
    assert str(unreadable.value).count("postgresql+psycopg://") == 1
    postgresql.start()
    address = parse_run(f"{postgresql.url}#away")
    assert _state(address).status == "killed"
    outcome = resume(address)
    assert (outcome.status, outcome.digest) == ("done", _calm(make, "away").digest)
    assert _ask(postgresql.url, DUPLICATES) == 0


END = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
END_LOCK = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'"


@pytest.mark.parametrize("query", [END, END_LOCK])
@pytest.mark.long
def test_sessions_that_somebody_ends_are_opened_again(server: str, make: Make, query: str) -> None:
    name = f"ended-{len(query)}"
    with _played(server, name) as result:
        for _ in range(5):
            _ask(server, query)
            time.sleep(0.1)
        outcome = result()
    assert not isinstance(outcome, Exception), outcome
    calm = _calm(make, name)
    assert (outcome.status, outcome.digest, outcome.calls) == ("done", calm.digest, calm.calls)
    assert _ask(server, DUPLICATES) == 0


def test_who_loses_the_lock_to_another_writes_no_more(server: str) -> None:
    """The former writer stops, whatever it was about to write, and the other one is alone."""
    address = create(prepare(small("name=lost")), server)
    with database.writing(address.url) as first, database.claim(first, "lost"):
        with first.begin() as connection:
            connection.execute(text("UPDATE runs SET message = 'ours' WHERE name = 'lost'"))
        assert _ask(server, END_LOCK) == 1
        with database.writing(address.url) as second, database.claim(second, "lost"):
            with (
                pytest.raises(Taken, match="lost: another process is writing"),
                first.begin() as connection,
            ):
                connection.execute(text("UPDATE runs SET message = 'late' WHERE name = 'lost'"))
            assert _ask(server, "SELECT message FROM runs WHERE name = 'lost'") == "ours"
            with second.begin() as connection:
                connection.execute(text("UPDATE runs SET message = 'new' WHERE name = 'lost'"))
        with first.begin() as connection:  # free again
            connection.execute(text("UPDATE runs SET message = 'again' WHERE name = 'lost'"))
    assert _ask(server, "SELECT message FROM runs WHERE name = 'lost'") == "again"


def test_a_transaction_in_flight_ends_before_another_process_writes(server: str) -> None:
    address = create(prepare(small("name=fence")), server)
    order: list[str] = []

    def take() -> None:
        with database.writing(address.url) as second, database.claim(second, "fence"):
            order.append("second")

    with database.writing(address.url) as first, database.claim(first, "fence"):
        with first.begin() as connection:
            connection.execute(text("UPDATE runs SET message = 'in flight' WHERE name = 'fence'"))
            ended = "classid = 7304 AND locktype = 'advisory'"
            _ask(server, f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {ended}")
            thread = threading.Thread(target=take)
            thread.start()
            time.sleep(1)
            order.append("first")
        thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_whose_answer_is_lost_is_written_once(
    server: str, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    import psycopg

    address = create(prepare(small(f"name=doubt-{committed}")), server)
    with database.writing(address.url) as engine, database.claim(engine, str(address.name)):
        writer = Writer(engine, Reader.find(engine, address.name, "").run.id)
        writer.open()
        number = writer.text(f"once {committed}")
        end = engine.dialect.do_commit

        def lose(connection: Any) -> None:
            if committed:
                end(connection)
            connection.dbapi_connection.close()
            raise psycopg.OperationalError("the connection was lost")

        monkeypatch.setattr(engine.dialect, "do_commit", lose)
        with pytest.raises(Unreachable):
            writer.commit()
        monkeypatch.undo()
        later = writer.text(f"later {committed}")
        writer.commit()
        found = Reader.find(engine, address.name, "").texts([number, later])
    assert found == {number: f"once {committed}", later: f"later {committed}"}


def test_a_user_without_a_further_session_is_told_so_in_one_line(server: str) -> None:
    """The lock of a run is a second session: the server refuses it."""
    address = create(prepare(small("name=crowded")), server)
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in (
            "CREATE ROLE crowd LOGIN CONNECTION LIMIT 1",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO crowd",
        ):
            connection.execute(text(statement))
    engine.dispose()
    url = parse_url(server).set(username="crowd")
    with pytest.raises(InputError, match="too many connections") as refused:
        resume(Address(url, address.name))
    assert len(str(refused.value).splitlines()) == 1
    assert resume(address).status == "done"


@pytest.mark.long
def test_a_server_that_refuses_to_write_stops_the_run(server: str, make: Make) -> None:
    """As a full disk does: what was stored stays, and the run is resumed later."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, _played(server, "refused") as result:
        connection.execute(text("ALTER DATABASE postgres SET default_transaction_read_only = on"))
        connection.execute(text(END))
        outcome = result()
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text("ALTER DATABASE postgres RESET default_transaction_read_only"))
    engine.dispose()
    assert outcome.status == "failed"
    assert "cannot be written: cannot execute" in str(outcome.message)
    again = resume(parse_run(f"{server}#refused"))
    assert (again.status, again.digest) == ("done", _calm(make, "refused").digest)
    assert _ask(server, DUPLICATES) == 0


@pytest.mark.long
def test_a_process_that_is_killed_leaves_its_run_to_another(server: str, make: Make) -> None:
    address = create(prepare(small(SLOW, "name=killed")), server)
    command = [sys.executable, str(ROOT / "run_sim.py"), "resume", str(address), "--json"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while _state(address).calls < 20:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    outcome = resume(address)
    assert (outcome.status, outcome.digest) == ("done", _calm(make, "killed").digest)
    assert _ask(server, DUPLICATES) == 0


def _write(url: str, name: str) -> str | None:
    return resume(parse_run(f"{url}#{name}")).digest


@pytest.mark.long
def test_many_processes_write_into_one_server(server: str, make: Make) -> None:
    names = [f"writer-{number}" for number in range(6)]
    for name in names:
        create(prepare(small(f"name={name}")), server)
    with multiprocessing.get_context("spawn").Pool(len(names)) as pool:
        digests = pool.starmap(_write, [(server, name) for name in names])
    assert set(digests) == {_calm(make, "writer").digest}
    assert _ask(server, DUPLICATES) == 0
    assert [verify(parse_run(f"{server}#{name}")).agrees for name in names[:2]] == [True, True]


@pytest.mark.long
def test_every_verb_takes_a_run_in_a_server(server: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        settings = ("--set", f"seed={seed}", *chain(*(("--set", one) for one in SMALL)))
        made = sim_json(tmp_path, "run", "--name", f"verbs-{seed}", "--db", server, *settings)
        assert made["status"] == "done"
    one, two = f"{server}#verbs-1", f"{server}#verbs-2"
    for verb in (
        ("status", one),
        ("resume", one),
        ("verify", one),
        ("compare", one, two),
        *(("inspect", one, *what) for what in ((), ("agents",), ("agent", "1"), ("memory", "1"),
          ("episode", "3"), ("calls",), ("call", "3"), ("sessions",))),
        ("export", one, two, "--format", "sft", "--out", str(tmp_path / "out")),
        ("report", one, "--out", str(tmp_path / "report.html")),
        ("fork", one, "--at", "0", "--name", "verbs-fork", "--db", server),
    ):  # fmt: skip
        assert sim_json(tmp_path, *verb), verb
    assert (tmp_path / "report.html").stat().st_size > 10_000


def _open(url: str) -> None:
    with database.writing(parse_url(url)):
        pass


@pytest.mark.long
def test_many_processes_create_the_tables_of_a_new_database(server: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(6) as pool:
        pool.map(_open, [server] * 12)
    assert _ask(server, "SELECT count(*) FROM sandbox_schema") == 1
