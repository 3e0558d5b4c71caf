"""Runs in a PostgreSQL server: a real one, started for the test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Make, small

from sandbox.run import create, prepare, resume, states, verify
from storage import database
from storage.database import parse_run, parse_url
from storage.errors import InputError


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(place) for place in [shutil.which("initdb")] if place
    ]
    return found[-1].parent if found else None


def _missing(reason: str) -> None:
    """On a user's machine a test that needs a server is skipped; in CI it has to run."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database."""
    programs = _programs()
    if programs is None:
        _missing("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg") if not os.environ.get("CI") else __import__("psycopg")
    folder = tmp_path_factory.mktemp("pg")
    user = "postgres" if getpass.getuser() == "root" else getpass.getuser()
    as_user = ["runuser", "-u", user, "--"] if getpass.getuser() == "root" else []
    if as_user:
        for place in (folder, *folder.parents):
            if place != Path(tempfile.gettempdir()) and place.is_relative_to(tempfile.gettempdir()):
                place.chmod(0o755)
        shutil.chown(folder, user)
    data = folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, f"{programs}/{program}", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=60)

    call("initdb", "-D", str(data), "-U", user, "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    call("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def test_a_run_in_postgresql_is_the_run_in_sqlite(server: str, make: Make) -> None:
    rough = ("models.social.misbehave=0.2", "models.observer.misbehave=0.2")
    plain = make(*rough, name="pg")[1]
    served = resume(create(prepare(small(*rough, "name=pg")), server))
    assert served.status == "done"
    assert served.digest == plain.digest
    second = resume(create(prepare(small("seed=9", "name=other")), server))
    assert second.digest != plain.digest
    assert [row["run"] for row in states(parse_url(server))] == ["pg", "other"]
    assert verify(parse_run(f"{server}#pg"))[1] == plain.digest
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
