"""The registry of backends: built in, from packages, and from files that are allowed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, scripted_backends, small
from sqlalchemy import select
from test_cli import sim, sim_json

from sandbox import api
from sandbox.backends import BUILT_IN, UnloadedSettings, backend_of, backends_of, kind_of, names
from sandbox.backends.base import Call, ModelSettings, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.config import QUICKSTART, Config, load_config
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.reading import calls, memory, runs
from sandbox.study.compare import compare
from sandbox.study.estimate import estimate
from sandbox.study.fork import fork
from sandbox.study.verify import verify
from storage import tables
from storage.database import Address
from storage.errors import InputError

FILE = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.DOTALL
)[0]
"""The backend that docs/models.md shows."""

MARKER = "\nfrom pathlib import Path\nPath(__file__).with_suffix('.loaded').touch()\n"
"""Leaves a file beside a backend file that was loaded."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backend file that leaves a marker when it is loaded."""
    path = tmp_path / "my_backend.py"
    path.write_text(FILE + MARKER, encoding="utf-8")
    return path


def _unload(file: Path) -> Path:
    """Unload a backend file and delete its marker; returns the path of the marker."""
    for name in [name for name in sys.modules if name.startswith("sandbox_plugin_")]:
        del sys.modules[name]
    marker = file.with_suffix(".loaded")
    marker.unlink(missing_ok=True)
    return marker


def _config(file: Path, *settings: str) -> Config:
    return small(f"models.social={{backend: {file}, length: 3}}", *settings)


@pytest.fixture
def played(file: Path, tmp_path: Path) -> Address:
    """An interrupted run whose social model is the file."""
    address = create(prepare(_config(file, "name=mine")), str(tmp_path / "mine.db"))
    assert resume(address, budget=Budget(calls=200), allow=[file]).status == "interrupted"
    return address


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_backends_are_described_without_importing_libraries(name: str) -> None:
    script = (
        f"import sys; from sandbox.backends import kind_of; kind = kind_of({name!r}); "
        "print(kind.settings.__name__, *sorted({'vllm', 'torch', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [kind_of(name).settings.__name__], done.stderr
    assert "backend" in kind_of(name).settings.model_fields


def test_a_file_is_a_backend(file: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    data["models"]["social"] = {"backend": "./my_backend.py", "length": 4}
    data |= {"rounds": 1, "name": "mine"}
    for key in ("questions", "personas"):
        if key in data:
            data[key] = str((QUICKSTART.parent / data[key]).resolve())
    data.pop("memory")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    outcome = api.run(tmp_path / "config.yaml", db=tmp_path / "mine.db")
    assert (outcome.status, outcome.calls_failed) == ("done", 0)
    with api.open_run(str(tmp_path / "mine.db")) as reader:
        settings = Config.from_json(reader.run.config, [file]).models.social
        assert settings.backend == str(file)
        reply = calls.calls(reader, limit=1)[0].reply
        assert reply is not None and len(reply.split()) == 4


def test_equal_settings_share_a_backend(file: Path) -> None:
    models = f"models={{social: {{backend: {file}}}, observer: {{backend: {file}}}}}"
    backends = backends_of(small(models).models.roles())
    assert backends["social"] is backends["observer"]


def test_a_path_on_the_command_line_is_relative_to_the_working_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert small("models.social={backend: ./my_backend.py}").models.social.backend == str(file)


def test_an_edited_file_is_reloaded(file: Path) -> None:
    _config(file)
    file.write_text(FILE.replace("length: int", "size: int"), encoding="utf-8")
    with pytest.raises(InputError, match=r"models.social.length: unknown key"):
        _config(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "bad.py: no such file; expected a Python file"),
        ("import nonsense_that_is_not_there", "ModuleNotFoundError: No module named"),
        ("def broken(:", "bad.py: line 1: "),
        ("raise RuntimeError('one\\ntwo')", "bad.py: RuntimeError: one two"),
        ("", "defines no class Config that is a subclass of ModelSettings"),
        (FILE.replace("class Backend", "class Other"), "defines no class Backend"),
        (
            FILE.replace("class Backend", "from sandbox.backends.base import Backend\nclass Other"),
            "defines no class Backend",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        small(f"models.social.backend={path}")
    message = str(error.value)
    expected = f'models.social.backend: found "{path}"; expected: a backend that can be loaded; '
    assert expected[:60] in message
    assert words in message
    assert "\n" not in message


def test_keys_of_a_file_are_checked(file: Path) -> None:
    for setting, words in (
        ("length=0", "models.social.length: found 0; expected: 1 or more"),
        ("lenght=3", f"models.social.lenght: unknown key; .* Config in {file}"),
        ("retries=-1", "models.social.retries: found -1"),
    ):
        with pytest.raises(InputError, match=words):
            small(f"models.social={{backend: {file}}}", f"models.social.{setting}")


def test_an_unknown_backend_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("models: {social: {backend: psychic}}\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_config(path, ["name=x", "questions=q", "world={kind: grid}", "models.observer={}"])
    message = str(error.value)
    assert message.startswith(f'{path}: models.social.backend: found "psychic"; expected: one of ')
    assert ", ".join(BUILT_IN) in message


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers two backends; one of them is broken."""
    (tmp_path / "their_backend.py").write_text(FILE, encoding="utf-8")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sandbox_society.backends]\ntheirs = their_backend\ngone = not_there\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_a_package_registers_a_backend(tmp_path: Path) -> None:
    assert names() == [*BUILT_IN, "gone", "theirs"]
    config = small("models.social={backend: theirs, length: 2}")
    backend = backend_of(config.models.social)
    assert backend.model == "words"
    assert Config.from_json(config.as_json()) == config, "installed packages are trusted"
    with pytest.raises(InputError, match=r"gone \(not_there\): ModuleNotFoundError"):
        small("models.social={backend: gone}")


def test_a_stored_config_loads_no_file(file: Path) -> None:
    config = _config(file)
    marker = _unload(file)
    stored = Config.from_json(config.as_json())
    assert isinstance(stored.models.social, UnloadedSettings)
    assert json.loads(stored.as_json()) == json.loads(config.as_json())
    assert not marker.exists()
    with pytest.raises(InputError, match="is not loaded"):
        backend_of(stored.models.social)
    loaded = Config.from_json(config.as_json(), [file])
    assert marker.exists()
    assert loaded.as_json() == config.as_json()
    for text in (small().as_json(), stored.as_json()):
        assert Config.from_json(text).as_json() == text


def test_resuming_a_run_needs_its_file_to_be_allowed(played: Address, file: Path) -> None:
    marker = _unload(file)
    words = re.escape(
        f"run mine was played with the backend file {file}; "
        f"expected it named on the command line: --backend {file}"
    )
    with pytest.raises(InputError, match=words):
        resume(played)
    with pytest.raises(InputError, match=words):
        resume(played, allow=[file.with_name("another.py")])
    with pytest.raises(InputError, match=words):
        resume(played, rounds=9)
    with pytest.raises(InputError, match=words):
        fork(played, 0)
    with api.open_run(str(played)) as reader:
        assert reader.run.rounds == 3
    assert not marker.exists(), "refused before its code is executed"
    assert resume(played, allow=[file]).status == "done"
    assert resume(played).status == "done", "nothing is left to play"
    _unload(file)
    with pytest.raises(InputError, match=words):
        verify(played)
    assert not marker.exists()
    assert verify(played, allow=[file]).agrees


def test_reading_a_run_does_not_execute_its_file(
    played: Address, file: Path, tmp_path: Path
) -> None:
    resume(played, allow=[file])
    marker = _unload(file)
    with api.open_run(str(played)) as reader:
        runs.society(reader)
        memory.memory(reader, 3)
    compare([str(played), str(_another(tmp_path))])
    api.export(str(played), "exchanges", tmp_path / "data")
    assert not marker.exists()


def _another(tmp_path: Path) -> Address:
    address = create(prepare(small("name=another")), str(tmp_path / "another.db"))
    resume(address)
    return address


@pytest.mark.long
def test_the_option_backend_allows_the_file(file: Path, tmp_path: Path) -> None:
    data = json.loads(_config(file, "name=mine").as_json())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    stopped = sim(tmp_path, "run", "config.yaml", "--max-calls", "200", status=130)
    assert f"resume mine --backend {file}" in stopped.stderr
    refused = sim(tmp_path, "resume", "mine", status=2)
    assert refused.stderr.count("\n") == 1
    assert "run mine was played with the backend file" in refused.stderr
    named = ("--backend", "my_backend.py")
    outcome = sim_json(tmp_path, "resume", "mine", *named)
    assert outcome["status"] == "done"
    assert sim_json(tmp_path, "verify", "mine", *named)["agrees"]
    assert sim_json(tmp_path, "fork", "mine", "--at", "0", *named)["digest"] == outcome["digest"]
    sim(tmp_path, "inspect", "mine")
    sim(tmp_path, "run", "--name", "plain", "--rounds", "2", "--set", "world.size=3")
    change = "models.social={backend: ./my_backend.py}"
    forked = sim_json(tmp_path, "fork", "plain", "--at", "0", "--set", change)
    assert forked["status"] == "done", "a file in --set is allowed"


class Renamed(ScriptedBackend):
    """A scripted backend with a name of its own."""

    model = "renamed"

    async def answer(self, call: Call) -> Reply:
        reply = await super().answer(call)
        return reply if call.shape.regex else reply._replace(text=f"{reply.text} Indeed.")


def test_backends_can_be_passed_in(tmp_path: Path) -> None:
    social = {"social": scripted_backends(small(), Renamed)["social"]}
    settings = {"world.size": 4, "rounds": 2}
    outcome = api.run(db=tmp_path / "a.db", settings=settings, backends=social)
    with api.open_run(str(tmp_path / "a.db")) as reader:
        draft = next(call.reply for call in calls.calls(reader, limit=9) if call.reply)
        assert draft.endswith(" Indeed.")
    address = create(prepare(small("rounds=2")), str(tmp_path / "b.db"), social)
    assert resume(address, budget=Budget(calls=9), backends=social).calls == 9
    with pytest.raises(InputError, match="the social model, renamed then, scripted now"):
        resume(address)
    assert api.resume(str(tmp_path / "b.db"), backends=social).status == "done"
    assert outcome.status == "done"
    estimated = estimate(prepare(small()), backends=scripted_backends(small(), Renamed))
    assert estimated.tokens_out.estimate > 0


def test_a_backend_that_is_passed_in_replaces_a_file(played: Address, file: Path) -> None:
    marker = _unload(file)
    backends = {"social": scripted_backends(small(), Renamed)["social"]}
    outcome = resume(played, backends=backends, accept_changes=True)
    assert outcome.status == "done"
    assert not marker.exists()


def test_an_unknown_role_is_refused(tmp_path: Path) -> None:
    address = create(prepare(small()), str(tmp_path / "run.db"))
    with pytest.raises(InputError, match="backends: found the role 'judge'; expected one of soci"):
        resume(address, backends={"judge": scripted_backends(small())["social"]})


def test_settings_of_every_backend_are_model_settings() -> None:
    for name in BUILT_IN:
        assert issubclass(kind_of(name).settings, ModelSettings)


def test_a_group_can_list_agents_by_number(tmp_path: Path) -> None:
    def group(agents: object) -> str:
        return f"models.groups={{few: {{agents: {agents}, model: {{backend: scripted}}}}}}"

    address = create(prepare(small(group([3, 5]))), str(tmp_path / "run.db"))
    resume(address)
    with api.open_run(str(address)) as reader:
        c, m = tables.calls, tables.models
        query = select(c.c.agent, m.c.role).join(m, m.c.id == c.c.model_id)
        rows = list(reader.rows(query))
        assert {row.agent for row in rows if row.role == "few"} == {3, 5}
        assert {row.agent for row in rows if row.role == "social"} == set(range(16)) - {3, 5}
    for bad, words in (
        ([3, 16], r"models.groups.few.agents: found 16; expected numbers of agents, 0 to 15"),
        ([], r"models.groups.few.agents: found \[\]"),
        ([-1], r"models.groups.few.agents"),
    ):
        with pytest.raises(InputError, match=words):
            prepare(small(group(bad)))
    with pytest.raises(InputError, match="exactly one of label, share and agents"):
        small(group([3]).replace("agents:", "share: 0.5, agents:"))


WORLD = """
from worlds import grid

class Settings(grid.World.settings_type):
    kind: str

class World(grid.World):
    settings_type = Settings
"""


def test_a_world_file_of_a_stored_run_must_be_allowed(tmp_path: Path) -> None:
    world = tmp_path / "my_world.py"
    world.write_text(WORLD + MARKER, encoding="utf-8")
    config = small(f"world.kind={world}", "name=mine")
    address = create(prepare(config), str(tmp_path / "mine.db"))
    marker = _unload(world)
    words = re.escape(f"run mine was played with the world file {world}; expected")
    with pytest.raises(InputError, match=words):
        resume(address)
    with pytest.raises(InputError, match=words):
        fork(address, 0)
    with pytest.raises(InputError, match=words):
        Config.from_json(config.as_json()).build_world()
    assert not marker.exists()
    assert resume(address, allow=[world]).status == "done"
