"""Sweeps: names, checks, runs side by side, shared engines, kills, failures, PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from program import begin_sweep, program

from sandbox import api
from sandbox.config import load_config
from sandbox.sweep.plan import read_plan
from sandbox.sweep.progress import RunProgress, SweepProgress
from sandbox.sweep.run import states_of
from sandbox.terminal.sweeps import SweepDisplay
from storage.errors import InputError

QUICK = {"world.size": 3, "rounds": 3, "question_count": 8, "memory.prior_pairs": 20}
SLOW = {"models.social.latency": {"first_token": 0.03, "per_token": 0.0, "capacity": 8}}
GRID = {"world.raters": [2, 3], "world.score_only": [True, False]}

ENGINE = """\
import os
from pathlib import Path

from sandbox.backends.base import BackendDown
from sandbox.backends.scripted.backend import ScriptedBackend
from sandbox.backends.scripted.config import ScriptedConfig

FOLDER = Path(__file__).parent


class Config(ScriptedConfig):
    backend: str


class Backend(ScriptedBackend):
    async def start(self):
        with (FOLDER / "starts").open("a") as file:
            print(os.getpid(), file=file)
        if (FOLDER / "broken").exists():
            raise BackendDown("the engine is broken")
"""

Study = Callable[..., Path]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Write the file of a study of small scripted runs, into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(settings: dict[str, Any] | None = None, **keys: Any) -> Path:
        common = {**QUICK, **(settings or {})}
        path = tmp_path / "study.yaml"
        data = {"name": "s", "seeds": [1, 2], "settings": common, **keys}
        text = yaml.safe_dump(data, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, Any]:
    """Settings by which all models are an engine that counts how often it is started."""
    (tmp_path / "engine.py").write_text(ENGINE, encoding="utf-8")
    return {f"models.{role}.backend": "./engine.py" for role in ("social", "observer")}


def sweep(folder: Path, status: int = 0) -> dict[str, Any]:
    """Run the sweep of a folder, and parse its JSON."""
    done = program(folder, "sweep", "study.yaml", "--json")
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def digests(found: dict[str, Any]) -> dict[str, str]:
    return {run["run"]: run["digest"] for run in found["runs"]}


def undisturbed(path: Path) -> dict[str, str]:
    """The digests of the runs of a study, each played alone."""
    found = {}
    for run in read_plan(path).runs:
        config = json.loads(run.config.as_json())
        for model in (config["models"]["social"], config["models"]["observer"]):
            model.pop("latency", None)
        db = path.parent / "alone" / f"{run.name}.db"
        found[run.name] = str(api.run(config, db=db).digest)
    return found


def calls(path: Path) -> int:
    """The calls that the runs of a study have in their journals."""
    states = states_of(read_plan(path))
    return sum(state.calls for state in states.values())


def begun(process: subprocess.Popen[str], path: Path, least: int) -> None:
    """Wait until a sweep has journalled some calls."""
    until = time.monotonic() + 60
    while True:
        with suppress(InputError):  # a database that is just created
            if calls(path) >= least:
                return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the workers of a sweep."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def gone(pids: list[int]) -> bool:
    """Whether processes end within some seconds."""
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.long
def test_a_grid_times_seeds_with_the_digests_of_single_runs(study: Study, tmp_path: Path) -> None:
    path = study(grid={"world.raters": [2, 3]}, side_by_side=2)
    found = sweep(tmp_path)
    assert found["status"] == "done" and found["name"] == "s"
    assert [*digests(found)] == [f"s-raters{n}-seed{seed}" for n in (2, 3) for seed in (1, 2)]
    assert digests(found) == undisturbed(path)
    assert found["calls"] == sum(run["calls"] for run in found["runs"]) > 0
    assert found["runs"][3]["settings"] == {"world.raters": 3, "seed": 2}
    again = sweep(tmp_path)
    assert digests(again) == digests(found) and again["calls"] == 0
    for verb in (["verify"], ["inspect"], ["export", "--format", "exchanges", "--out", "data"]):
        database = str(tmp_path / "runs" / "s" / "s-raters2-seed1.db")
        done = program(tmp_path, verb[0], database, *verb[1:])
        assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_more_seeds_and_settings_add_runs(study: Study, tmp_path: Path) -> None:
    study(grid={"world.raters": [2]})
    first = sweep(tmp_path)
    study(grid={"world.raters": [2, 3]}, seeds=[1, 2, 3])
    both = sweep(tmp_path)
    assert len(both["runs"]) == 6 and digests(first).items() <= digests(both).items()
    assert both["calls"] < sum(run["calls"] for run in both["runs"])


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"seeds": 2}, ["s-seed7", "s-seed8"]),
        ({"seeds": [3]}, ["s-seed3"]),
        (
            {"seeds": [1], "grid": {"models.social.temperature": [0.25]}},
            ["s-temperature0.25-seed1"],
        ),
        ({"seeds": [1], "grid": {"world.score_only": [True]}}, ["s-score_only-true-seed1"]),
        (
            {"seeds": [1], "grid": {"models.social.stop": {"none": [], "own": ["</a>"]}}},
            ["s-none-seed1", "s-own-seed1"],
        ),
        (
            {
                "seeds": [1],
                "list": [{"name": "base line"}, {"world.raters": 2}],
                "grid": {"models.social.max_tokens": [2, 3]},
            },
            [f"s-{arm}-max_tokens{n}-seed1" for arm in ("base_line", "raters2") for n in (2, 3)],
        ),
        (
            {
                "seeds": [1],
                "grid": {"models.social.temperature": [0], "models.observer.temperature": [1]},
            },
            ["s-social.temperature0-observer.temperature1-seed1"],
        ),
    ],
)
def test_names_of_runs(study: Study, keys: dict[str, Any], names: list[str]) -> None:
    assert [run.name for run in read_plan(study(**keys)).runs] == names


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"grid": {"world.sise": [3]}}, "study.yaml: grid.world.sise: world.sise: unknown key"),
    ({"list": [{"rounds": "x"}]}, 'study.yaml: list[0]: rounds: found "x"'),
    ({"grid": {"rounds": 3}}, "study.yaml: grid.rounds: found 3; expected a list of values"),
    ({"grid": {"rounds": []}}, "grid.rounds: found []; expected a list"),
    ({"grid": {"seed": [3]}}, "grid.seed: found the key seed; expected seeds"),
    ({"list": [{"name": 3}]}, "list[0].name: found 3; expected a text"),
    (
        {"list": [{"name": "a", "rounds": 2}, {"name": "a", "rounds": 3}]},
        "two runs with the name s-a-seed1",
    ),
    ({"grid": {"models.social": [{"backend": "scripted"}]}}, "expected a name for it"),
    ({"seeds": []}, "seeds: found []; expected: a number from 1"),
    ({"seeds": [1, 1]}, "seeds: found [1, 1]"),
    ({"seeds": 0}, "seeds: found 0"),
    ({"gird": {}}, "gird: unknown key; expected a key that docs/sweeps.md lists; did you mean"),
    ({"name": "a b"}, "name: found"),
    ({"config": "none.yaml"}, "none.yaml: cannot be read"),
    ({"db": "runs.db"}, "db: found"),
    ({"db": "postgresql://x@127.0.0.1/x", "out": "here"}, "only one of out"),
    *(
        ({"on": "ray", "ray": address}, f'study.yaml: ray: found "{address}"; expected: an address')
        for address in ("nope", "ray://host:1", "host:", "host:port", ":6379")
    ),
    ({"grid": {"rounds": [2, 3]}}, "found rounds in grid and in settings; expected grid.rounds or"),
    (
        {"list": [{}, {"models.social.stop": []}], "grid": {"models.social": {"a": {}, "b": {}}}},
        "study.yaml: found models.social.stop in grid and in list[1]; expected grid.models.social",
    ),
    ({"side_by_side": 0}, "side_by_side: found 0"),
    ({"grid": {"questions": ["none.txt"]}}, "none.txt"),
    ({"seeds": 10**9}, "study.yaml: found 1,000,000,000 runs; expected at most 10,000"),
    (
        {"seeds": 5, "list": [{"rounds": 1}] * 40, "grid": {"a": [*range(40)], "b": [*range(40)]}},
        "study.yaml: found 320,000 runs; expected at most 10,000",
    ),
]


@pytest.mark.parametrize(("keys", "line"), REFUSED)
def test_bad_studies_are_one_line_and_start_nothing(
    study: Study, tmp_path: Path, keys: dict[str, Any], line: str
) -> None:
    study(**keys)
    done = program(tmp_path, "sweep", "study.yaml")
    told = done.stderr.strip().splitlines()
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert told[0].startswith("error: ") and line in told[0]
    assert not [*tmp_path.rglob("*.db")]


def test_paths_are_relative_to_the_study(study: Study, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "questions.txt").write_text("Why?\nWhen?\n", encoding="utf-8")
    path = study({"question_count": 2}, grid={"questions": ["./questions.txt"]})
    moved = path.rename(tmp_path / "deep" / "study.yaml")
    (run, _) = read_plan(moved).runs
    assert run.config.questions == tmp_path / "deep" / "questions.txt"
    assert run.name == "s-questions-questions-seed1"


@pytest.mark.long
def test_a_stored_run_that_the_study_no_longer_describes_is_refused(
    study: Study, tmp_path: Path
) -> None:
    study(list=[{"name": "arm", "world.raters": 2}])
    before = digests(sweep(tmp_path))
    study(SLOW, list=[{"name": "arm", "world.raters": 2}])  # how replies are fetched may change
    assert digests(sweep(tmp_path)) == before
    study(list=[{"name": "arm", "world.raters": 3}])
    done = program(tmp_path, "sweep", "study.yaml")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "s-arm-seed1: the stored run has world.raters 2; found 3" in done.stderr


def test_a_dry_run_lists_runs_and_starts_none(study: Study, tmp_path: Path) -> None:
    study(grid=GRID)
    listed = json.loads(program(tmp_path, "sweep", "study.yaml", "--dry-run", "--json").stdout)
    assert len(listed["runs"]) == 8 and not [*tmp_path.rglob("*.db")]
    assert {run["status"] for run in listed["runs"]} == {"not created"}
    assert "s-raters3" in program(tmp_path, "sweep", "study.yaml", "--dry-run").stdout


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("out", ["/proc/nope", "/dev/null/x", "study.yaml", "study.yaml/x"])
def test_a_folder_that_cannot_be_written_is_refused(
    study: Study, tmp_path: Path, out: str, more: list[str]
) -> None:
    study(out=out)
    done = program(tmp_path, "sweep", "study.yaml", *more)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: study.yaml: out: found ")
    assert done.stderr.endswith("; expected a folder that can be written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.long
def test_runs_with_equal_engines_share_one(
    study: Study, engine: dict[str, Any], tmp_path: Path
) -> None:
    path = study({**engine, **SLOW}, grid={"world.raters": [2, 3]}, side_by_side=4)
    found = sweep(tmp_path)
    started = (tmp_path / "starts").read_text().split()
    assert len(started) == 2 and len(set(started)) == 1  # social with latency, observer without
    assert len(set(digests(found).values())) == 4
    social, observer = sorted(found["engines"], key=lambda one: -one["mean_in_flight"])
    assert 0.5 < social["busy_share"] <= 1 and social["mean_in_flight"] > 1
    assert social["calls"] + observer["calls"] == found["calls"]
    assert digests(found) == undisturbed(path)


@pytest.mark.long
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("whom", ["sweep", "worker"])
def test_a_kill_loses_nothing(
    study: Study, engine: dict[str, Any], tmp_path: Path, whom: str, shared: bool
) -> None:
    path = study({**(engine if shared else {}), **SLOW}, grid={"world.raters": [2, 3]})
    process = begin_sweep(tmp_path)
    begun(process, path, 30)
    children = workers(process)
    assert len(children) == (1 if shared else 4)
    os.kill(process.pid if whom == "sweep" else children[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=100)
    assert gone(children)
    if whom == "sweep":
        before = calls(path)
        found = sweep(tmp_path)
        assert found["calls"] == sum(run["calls"] for run in found["runs"]) - before
    else:
        assert process.returncode == 0, stderr
        found = json.loads(stdout)
        assert sum(run["retried"] for run in found["runs"]) == (4 if shared else 1)
    assert digests(found) == undisturbed(path)


@pytest.mark.long
def test_ctrl_c_stops_all_runs_gently_and_the_sweep_goes_on(study: Study, tmp_path: Path) -> None:
    slower = {"first_token": 0.1, "per_token": 0.0, "capacity": 2}
    key = "models.social.latency"
    path = study({key: slower}, grid={"world.raters": [2, 3]}, side_by_side=2)
    process = begin_sweep(tmp_path)
    begun(process, path, 20)
    second = program(tmp_path, "sweep", "study.yaml")
    assert second.returncode == 2 and len(second.stderr.splitlines()) == 1
    assert "another process is writing it" in second.stderr
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    stopped = json.loads(stdout)
    assert stopped["status"] == "interrupted" and "the same command again" in stderr
    statuses = [run["status"] for run in stopped["runs"]]
    assert statuses == ["interrupted", "interrupted", "not created", "not created"]
    study({key: None}, grid={"world.raters": [2, 3]})
    found = sweep(tmp_path)
    assert found["calls"] + stopped["calls"] == sum(run["calls"] for run in found["runs"])
    assert digests(found) == undisturbed(path)


@pytest.mark.long
def test_a_failing_run_is_resumed_then_reported(
    study: Study, engine: dict[str, Any], tmp_path: Path
) -> None:
    broken = {"models.social": {"backend": "./engine.py"}}
    study(seeds=[1], list=[{"name": "good"}, {"name": "bad", **broken}], retries=1)
    (tmp_path / "engine.py").with_name("broken").touch()
    found = sweep(tmp_path, status=1)
    good, bad = found["runs"]
    assert found["status"] == "failed" and good["status"] == "done"
    assert bad["status"] == "failed" and bad["retried"] == 1
    assert bad["message"] == "the engine is broken"
    assert len((tmp_path / "starts").read_text().split()) == 2
    told = program(tmp_path, "sweep", "study.yaml").stderr
    assert "1 failed: s-bad-seed1; type the same command again" in told
    (tmp_path / "broken").unlink()
    assert sweep(tmp_path)["status"] == "done"


@pytest.mark.long
def test_status_compare_and_view_of_a_study(study: Study, tmp_path: Path) -> None:
    study(grid={"world.raters": [2, 3]})
    sweep(tmp_path)
    study(grid={"world.raters": [2, 3]}, seeds=[1, 2, 3])
    shown = json.loads(program(tmp_path, "status", "study.yaml", "--json").stdout)["runs"]
    assert [run["status"] for run in shown] == ["done", "done", "not created"] * 2
    assert "s-raters3-seed3" in program(tmp_path, "status", "study.yaml").stdout
    compared = json.loads(program(tmp_path, "compare", "study.yaml", "--json").stdout)
    assert [group["name"] for group in compared["groups"]] == [
        "raters 2 (2 seeds)",
        "raters 3 (2 seeds)",
    ]
    assert compared["notes"][0] == "2 of 6 runs of study.yaml are left out: not done"
    copied = program(tmp_path, "view", "study.yaml", "--static", "pages", "--json")
    assert copied.returncode == 0 and (tmp_path / "pages" / "index.html").exists()
    assert "s-raters2-seed1" in (tmp_path / "pages" / "index.html").read_text()


def test_from_python(study: Study, tmp_path: Path) -> None:
    watched: list[Any] = []
    done = api.sweep(study(), settings={"seeds": [4], "out": "there"}, watch=watched.append)
    assert done.status == "done" and [run.run for run in done.runs] == ["s-seed4"]
    assert (tmp_path / "there" / "s-seed4.db").exists()
    assert watched[0].runs["s-seed4"].status == "done" and watched[0].calls == done.calls


def test_a_run_whose_episodes_fail_says_why(study: Study, tmp_path: Path) -> None:
    bad = {"models.social.misbehave": 1.0, "models.social.mishaps": ["empty"]}
    study(seeds=[1], list=[{"name": "good"}, {"name": "bad", **bad}])
    done = program(tmp_path, "sweep", "study.yaml")
    (line,) = [line for line in done.stderr.splitlines() if "episodes failed" in line]
    assert line.startswith("s-bad-seed1: 27 of 27 episodes failed: "), line
    assert "replies of draft were empty" in line


def test_a_run_that_no_process_plays_is_killed(study: Study) -> None:
    path = study(seeds=[1])
    api.sweep(path)
    with closing(sqlite3.connect("runs/s/s-seed1.db")) as database:
        database.execute("UPDATE runs SET status = 'running'")
        database.commit()
    assert states_of(read_plan(path))["s-seed1"].status == "killed"


@pytest.mark.parametrize(("retried", "words"), [(1, "resumed once"), (2, "resumed 2 times")])
def test_words_of_a_run_that_was_resumed(
    retried: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunProgress("failed", "it broke", retried)
    with SweepDisplay() as display:
        display.watch(SweepProgress("s", {"s-seed1": run}))
    assert f"s-seed1: it broke, {words}\n" in capsys.readouterr().err


def test_the_table_has_the_status_of_a_failed_run_alone(
    study: Study, engine: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    study(engine, seeds=[1], retries=0)
    done = program(tmp_path, "sweep", "study.yaml")
    assert done.returncode == 1 and "failed" in done.stdout
    assert "the engine is broken" not in done.stdout
    assert "s-seed1: the engine is broken" in done.stderr


@pytest.mark.long
def test_all_runs_in_one_postgresql_database(study: Study, server: str, tmp_path: Path) -> None:
    path = study(SLOW, grid={"world.raters": [2, 3]}, db=server)
    process = begin_sweep(tmp_path)
    begun(process, path, 20)
    process.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    second = program(tmp_path, "sweep", "study.yaml")
    assert second.returncode == 2 and "another process" in second.stderr
    children = workers(process)
    process.kill()
    process.communicate(timeout=60)
    assert gone(children)
    found = sweep(tmp_path)
    assert digests(found) == undisturbed(path)
    shown = json.loads(program(tmp_path, "status", "study.yaml", "--json").stdout)["runs"]
    assert [run["status"] for run in shown] == ["done"] * 4
    compared = program(tmp_path, "compare", "study.yaml", "--json")
    assert len(json.loads(compared.stdout)["groups"]) == 2
    copied = program(tmp_path, "view", "study.yaml", "--static", "pages", "--json")
    assert copied.returncode == 0, copied.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "found null, expected a YAML mapping of keys that docs/sweeps.md lists"),
        ("{name: s, list: 3}", "list: found 3; expected: a list"),
        ("{name: s, grid: 3}", "grid: found 3; expected: a mapping of keys"),
        ("name: a b", 'name: found "a b"; expected: at most 60 letters, digits, - . and _, a'),
        ("{name: s, world: {size: 3}}", "found the config of a run, with the key world; expected"),
    ],
)
def test_a_file_that_is_no_study_is_told_in_plain_words(
    tmp_path: Path, text: str, line: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_plan(path)
    assert str(refused.value).startswith(f"{path}: {line}")


def test_a_study_in_place_of_a_run_names_what_to_type(study: Study) -> None:
    study()
    with pytest.raises(InputError, match=r"expected one run: .*`status study.yaml` lists its runs"):
        api.parse_runs(["study.yaml"])
    with pytest.raises(InputError, match=r"^study.yaml: found no run that is done; expected"):
        api.compare(["study.yaml"])


def test_a_config_of_the_study_may_be_any_file(study: Study, tmp_path: Path) -> None:
    preset = ROOT / "worlds" / "presets" / "scene.yaml"
    path = study()
    path.write_text(yaml.safe_dump({"name": "s", "config": str(preset), "seeds": 1}))
    (run,) = read_plan(path).runs
    assert run.config.world == load_config(preset).world
