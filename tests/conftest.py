"""What tests share: small configs, and runs made from them."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from stored import SPOILT, Run
from stored import make as make_stored

from sandbox.backends.base import Backend
from sandbox.backends.scripted import ScriptedBackend, ScriptedConfig
from sandbox.config import QUICKSTART, Config, load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.runs import Outcome
from storage.database import Address

settings.register_profile("patient", deadline=None)  # machines are shared: time proves nothing
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent

SMALL = ("world.size=4", "rounds=3", "question_count=8", "memory.prior_pairs=20")


def small(*settings: str) -> Config:
    """The quickstart, made smaller, with other settings on top."""
    return load_config(QUICKSTART, [*SMALL, *settings])


def scripted_backends(
    config: Config, kind: type[ScriptedBackend] = ScriptedBackend
) -> dict[str, Backend]:
    """Make a backend of this class for every role, as `resume` takes them."""
    made: dict[str, Backend] = {}
    for role, model in config.models.roles():
        assert isinstance(model, ScriptedConfig)
        made[role] = kind(model)
    return made


Make = Callable[..., tuple[Address, Outcome]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make and work on a run: ``make("world.raters=2", name="a")``."""

    def made(*settings: str, name: str = "run") -> tuple[Address, Outcome]:
        config = small(*settings, f"name={name}")
        address = create(prepare(config), str(tmp_path / f"{name}.db"))
        return address, resume(address)

    return made


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(place) for place in [shutil.which("initdb")] if place
    ]
    return found[-1].parent if found else None


def missing(reason: str, what: str = "") -> None:
    """On a user's machine a test of a program that is missing is skipped; in CI it has to run.

    CI names in CI_LATER what it installs only after the README's own test command.
    """
    if os.environ.get("CI") and what not in os.environ.get("CI_LATER", "").split():
        pytest.fail(reason)
    pytest.skip(reason)


class PostgreSQL(NamedTuple):
    """A server of one's own: the URL of its database, and how it is stopped and started.

    `stop` takes the mode of ``pg_ctl stop -m``: immediate, as after a crash, or fast.
    """

    url: str
    stop: Callable[[str], None]
    start: Callable[[], None]


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL) -> str:
    """The URL of an empty database."""
    return postgresql.url


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A server with an empty database."""
    programs = _programs()
    if programs is None:
        missing("PostgreSQL is not installed: apt-get install postgresql")
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
    log = str(folder / "log")
    start = partial(call, "pg_ctl", "-D", str(data), "-o", options, "-l", log, "-w", "start")
    stop = partial(call, "pg_ctl", "-D", str(data), "-w", "stop", "-m")
    start()
    try:
        yield PostgreSQL(f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres", stop, start)
    finally:
        with suppress(subprocess.CalledProcessError):  # it may be down already
            stop("immediate")


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: many tests wait for processes and clocks."""
    return (os.cpu_count() or 1) + 2


SLOWEST_FIRST = (
    *("readme", "recipes", "browser", "fuzz", "interrupts", "faults", "retry", "damage", "run"),
    *("cli", "openai", "wheel", "orders", "sessions", "postgresql", "database"),
)
"""Files of a few long tests: begun first, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests of `SLOWEST_FIRST` to the front; skip long tests unless they are wanted."""
    places = {f"test_{name}": place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    skip = pytest.mark.skip(reason="takes long: --long runs it")
    for item in items:
        if item.get_closest_marker("long") and not item.config.getoption("--long"):
            item.add_marker(skip)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` as well")
    parser.addoption("--kills", type=int, default=6, help="how often runs are killed in all")
    parser.addoption("--side", type=int, default=8, help="agents a side of the society on Ray")
    parser.addoption("--damaged", type=int, default=6, help="how many files are damaged")
    parser.addoption("--fuzz", type=int, default=15, help="inputs of each kind that are tried")
    parser.addoption("--fuzz-from", type=int, default=0, help="number of the first input")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often runs are killed in all."""
    return int(request.config.getoption("--kills"))


@pytest.fixture
def damaged(request: pytest.FixtureRequest) -> int:
    """How many files are damaged."""
    return int(request.config.getoption("--damaged"))


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """75 exchanges about 10 questions; every reply can be used."""
    return make_stored(tmp_path_factory.mktemp("tidy") / "run.db", "rounds=3")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """150 exchanges about as many questions; three replies in ten are spoilt."""
    folder = tmp_path_factory.mktemp("messy")
    return make_stored(folder / "run.db", "rounds=6", "question_count=null", *SPOILT)
