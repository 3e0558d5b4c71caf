"""Runs in a PostgreSQL server that the test starts."""

from __future__ import annotations

import pytest
from conftest import Make, scripted_backends, small

from sandbox.backends.base import Call, CallFailed, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.engine.run import Change, create, prepare, resume
from sandbox.reading.exchanges import found_exchanges
from sandbox.reading.runs import open_run, society, states
from sandbox.reading.sessions import sessions
from sandbox.study.verify import verify
from storage import database
from storage.database import parse_run, parse_url
from storage.errors import InputError


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
