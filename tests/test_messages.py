"""Messages about input name the right place, and what was expected there."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from program import program
from stored import Run

from sandbox import api
from sandbox.config import PRESETS, QUICKSTART
from sandbox.reading.runs import open_run
from sandbox.study import estimate, sample
from sandbox.viewer import copying
from sandbox.viewer.catalog import RunCatalog
from storage.errors import InputError

AWAY = "models.social={backend: openai, model: m, base_url: 'http://127.0.0.1:9'}"


def refused(folder: Path, *arguments: str) -> str:
    done = program(folder, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("memory.prior_pairs=1000", "memory.prior_pairs: found 1000; expected at most 120, the nu"),
        *((f"world.size={size}", "a whole number of agents a side, 1 to 1,000, or rows and col")
          for size in ("3x", "x", "0", "1001", "3.0", "-3", "true", "[3]", "[0, 3]", "3x5x2")),
    ],
)  # fmt: skip
def test_the_place_of_a_setting(tmp_path: Path, setting: str, words: str) -> None:
    said = refused(tmp_path, "run", "--set", setting)
    assert said.startswith(f"error: --set {setting}: {setting.partition('=')[0]}: found ")
    assert words in said


def test_the_place_of_prior_pairs_in_a_scene(tmp_path: Path) -> None:
    scene = str(PRESETS / "scene.yaml")
    pairs = tmp_path / "few.jsonl"
    pairs.write_text('{"question": "Tea?", "answer": "Yes.", "label": "good"}\n')
    prior = f"memory={{prior: {pairs}, prior_pairs: 2}}"
    said = refused(tmp_path, "run", scene, "--set", prior, "--set", "world.cast=population")
    assert "memory.prior_pairs: found 2; expected at most 1, the number of prior pairs" in said


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (["world.raters=100"], "world.raters 100: 12 at most, as nobody has more neighbours"),
        (["world.raters=12"], None),
        (["world.raters=24", "world.topology=complete"], None),
        (["world.raters=13", "world.reach=global"], None),
        (["world.topology={graph}", "world.raters=2"],
         "world.size 5 is not used: a society from a file has an agent for each of its 3 nodes"),
    ],
)  # fmt: skip
def test_settings_without_effect_are_told(
    tmp_path: Path, settings: list[str], note: str | None
) -> None:
    (tmp_path / "graph.csv").write_text("a,b\nb,c\n")
    given = [part.format(graph=tmp_path / "graph.csv") for part in settings]
    run = api.create(db=tmp_path / "run.db", rounds=1, settings=given)
    with open_run(run) as reader:
        inputs = json.loads(reader.run.inputs)
    told = [line for line in inputs if line.startswith("world.")]
    assert told == ([] if note is None else [note])


@pytest.mark.parametrize("tables", [None, "empty", "kept"])
def test_a_database_without_runs(tmp_path: Path, tables: str | None) -> None:
    file = tmp_path / "none.db"
    file.touch()
    if tables == "empty":
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE a (b)")
            connection.execute("DROP TABLE a")
    elif tables == "kept":
        api.create(db=file, rounds=1)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM runs")
    before = file.read_bytes()
    for verb in ("resume", "verify", "inspect", "status"):
        for run in ("none.db", "none.db#x"):
            assert "empty database" in refused(tmp_path, verb, run)
    assert "empty database" in refused(tmp_path, "fork", "none.db", "--at", "0")
    export = ("export", "none.db", "--format", "sft", "--explain")
    assert "empty database" in refused(tmp_path, *export)
    assert file.read_bytes() == before, "nothing is written into a file without runs"
    (tmp_path / "runs").mkdir()
    shutil.copy(file, tmp_path / "runs" / "none.db")
    assert "empty database" in program(tmp_path, "status").stdout


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("one.jsonl", '{"question": "a"', 1),
        ("one.jsonl", '{"question": "a"\n\n', 1),
        ("one.jsonl", '{"question": "a"}\r\n{"question"\r\n', 2),
        ("one.json", '[{"question": "a"\n', 1),
        ("one.json", '[{"question": "a"},\n {"question": \n', 2),
    ],
)
def test_the_line_of_a_broken_value(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert f"{name}:{line}: not JSON" in refused(tmp_path, "run", "--set", f"questions={name}")


def test_export_without_a_format_lists_them(tidy: Run, tmp_path: Path) -> None:
    assert "--format: found none; expected one or more of sft, preference" in refused(
        tmp_path, "export", str(tidy.path), "--out", "d"
    )


def test_an_export_without_rows_says_why(tidy: Run, tmp_path: Path) -> None:
    tidy_run = str(tidy.path)
    chosen = ("--format", "preference", "--min-margin", "6", "--out", "d")
    done = program(tmp_path, "export", tidy_run, *chosen)
    assert done.returncode == 0
    (note,) = [line for line in done.stdout.splitlines() if "nothing is left" in line]
    assert note.startswith("note: preference: nothing is left: rules removed all ")
    assert "most of them" in note


def test_an_estimate_of_a_model_that_is_away_is_no_bad_input(tmp_path: Path) -> None:
    done = program(tmp_path, "estimate", "--set", AWAY, "--json")
    assert done.returncode == 1
    assert (
        "no sample could be played: openai: http://127.0.0.1:9/v1 cannot be reached"
        in (json.loads(done.stdout)["error"])
    )
    with pytest.raises(api.NoSample, match="cannot be reached"):
        api.estimate(settings=[AWAY])


def test_the_cost_of_an_estimate_does_not_grow_with_the_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met: list[int] = []
    meet = sample._Sampler._meet
    monkeypatch.setattr(
        sample._Sampler, "_meet", lambda own, round: met.append(round) or meet(own, round)
    )
    long = api.estimate(rounds=100_000)
    assert len(met) < 4 * sample.FILLED and max(met) < 2 * sample.FILLED
    assert long.episodes == 2_500_000
    assert long.calls.estimate == 25_000_000
    assert any("first 128" in note for note in long.notes)
    short = api.estimate(rounds=200)
    for name in ("tokens_in", "tokens_out"):
        each = getattr(long, name).estimate / 500
        assert each == pytest.approx(getattr(short, name).estimate, rel=0.1)
    assert not any("first 128" in note for note in api.estimate(rounds=100).notes)


def test_moved_episodes_are_different_and_in_order() -> None:
    numbers = [3, 127 * 25 + 4, 128 * 25, 128 * 25 + 1, 5000 * 25 + 1, 5000 * 25 + 2]
    moved = sample._in_first_rounds(numbers, 25)
    assert moved == [3, 127 * 25 + 4, 128 * 25, 128 * 25 + 1, 131 * 25 + 1, 132 * 25 + 2]
    assert estimate.FILLED == 128


def test_a_config_is_a_mapping_as_well(tmp_path: Path) -> None:
    given = yaml.safe_load(QUICKSTART.read_text())
    for section, key in ((given, "questions"), (given["memory"], "prior")):
        section[key] = PRESETS / section[key]  # paths, and tuples, are values too
    given["world"]["size"] = (5, 5)
    ran = api.run(given, db=tmp_path / "a.db")
    assert ran.digest == "acd83efd9fbecb80f54c10bb987c5139c574e41d7ea4d84a548a3a4078a9d316"
    assert given["world"]["size"] == (5, 5), "the caller's own stays as it is"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "config: found int; expected the path of a YAML file, or a mapping"),
        (None, "config: found NoneType; expected the path"),
        ({"name": "a"}, "config: questions: missing; expected a value"),
        ({"name": object()}, "config: found TypeError: a value of the type object; expected plain"),
        ({"nme": "a"}, "config: "),
    ],
)
def test_a_config_of_another_kind_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        api.run(given)
    assert str(error.value).startswith(words)


def test_a_copy_on_a_full_disk_is_refused_in_one_line(
    tidy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(copying.shutil, "copyfile", full)
    with pytest.raises(InputError) as error:
        copying.copy(RunCatalog([str(tidy.path)]), tmp_path / "pages", 5, False, lambda _: None)
    place = f"--static: {tmp_path / 'pages'}"
    assert str(error.value) == f"{place}: No space left on device; expected a writable folder"
    assert not (tmp_path / "pages").exists()
