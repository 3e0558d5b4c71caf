"""Runs in a PostgreSQL server that the test starts."""

from __future__ import annotations

import pytest
from conftest import Make, small

from sandbox.engine.run import create, prepare, resume
from sandbox.reading.runs import states
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
