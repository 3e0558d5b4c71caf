"""What a training needs before any model is loaded: settings, rows, and the folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from conftest import Make
from program import program

from sandbox import api
from sandbox.datasets.formats.stable_alignment import COMMENT, template
from sandbox.training.alpaca import CHAT_TEMPLATE, message_of, parts, question_of
from sandbox.training.checkpoints import Place
from sandbox.training.data import read_export
from sandbox.training.settings import DEFAULTS, PRESETS, load_settings
from storage.errors import InputError


@pytest.fixture
def run(make: Make) -> str:
    return str(make()[0])


@pytest.fixture
def folder(run: str, tmp_path: Path) -> Path:
    formats = ["sft", "preference", "kto", "stable-alignment"]
    choices = {"splits": {"train": 0.7, "test": 0.3}, "mix": []}
    api.export(run, formats, tmp_path / "data", choices=choices)
    return tmp_path / "data"


# Settings


def test_presets_and_defaults_are_filled_in(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("method: cpo\nmodel: m\npreset: liu-readme\nratio: 0.3\nlearning_rate: 1e-4\n")
    found = load_settings(file, ["margin=2", "lora.r=4"], {"seed": 5, "model": None})
    assert (found.ratio, found.margin, found.responses, found.worst) == (0.3, 2, 3, False)
    assert found.lora is not None and (found.lora.r, found.lora.alpha) == (4, 32)
    wanted = {
        "num_train_epochs": 7,
        "max_length": 360,
        "seed": 5,
        "data_seed": 5,
        "save_steps": 0.1,
    }
    assert wanted.items() <= found.arguments.items()
    assert found.arguments["learning_rate"] == "1e-4"  # YAML has no such number; the trainer does


def test_the_published_recipes() -> None:
    readme, card = (PRESETS[name][1] for name in ("liu-readme", "liu-model-card"))
    assert {key: readme[key] for key in readme if readme[key] != card[key]} == {
        "num_train_epochs": 7, "max_length": 360, "margin": 10.0,
    }  # fmt: skip
    found = load_settings(given={"method": "sft", "model": "m", "preset": "matrix"})
    assert found.lora is not None and (found.lora.r, found.lora.alpha, found.lora.dropout) == (
        8, 16, 0.05,
    )  # fmt: skip
    assert found.arguments["learning_rate"] == 2e-5 and found.ratio is None
    adapter = load_settings(settings=["lora={}"], given={"method": "sft", "model": "m"})
    assert adapter.arguments["learning_rate"] == 10 * DEFAULTS["sft"]["learning_rate"]


def test_a_folder_is_found_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_settings(given={"method": "sft", "model": "model"}).model == str(tmp_path / "model")
    assert load_settings(given={"method": "sft", "model": "org/model"}).model == "org/model"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": None}, "method: found none; expected one of sft, cpo, dpo, kto, reward"),
        ({"method": "ppo"}, "method: found 'ppo'; expected one of sft"),
        ({"model": None}, "model: missing; expected a value"),
        ({"preset": "x"}, "preset: found 'x'; expected one of liu-readme, liu-model-card, matrix"),
        ({"preset": "liu-readme"}, "preset: found liu-readme with method sft; expected method cpo"),
        ({"ratio": 0.2}, "ratio: found 0.2; expected: no such key with method sft"),
        ({"method": "cpo", "ratio": -1}, "ratio: found -1; expected: "),
        ({"method": "cpo", "responses": 0}, "responses: found 0; expected: "),
        ({"lora": True}, "lora: found true; expected: "),
        (
            {"lora": {"rank": 8}},
            "lora.rank: unknown key; expected a key that docs/training.md lists",
        ),
        ({"lora": {"dropout": 1}}, "lora.dropout: found 1; expected: "),
        ({"arguments": {}}, "arguments: unknown key; expected the arguments themselves"),
        ({"chat_template": ""}, 'chat_template: found ""; expected: '),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings(given={"method": "sft", "model": "m", **given})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a", r'found \["a"\], expected a YAML mapping'),
        (b"a: [", ":1: not YAML: "),
        (b"1: 2", "found the key 1; expected keys that are texts"),
        (b"\xff\xfe\xfd", "found a file that is not UTF-8 text"),
        (b"#" * 1_000_001, "found more than 1,000,000 bytes"),
    ],
)
def test_files_that_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_settings(file)
    for setting in ("x", "=1", "a=["):
        with pytest.raises(InputError, match=r"--set .*: expected "):
            load_settings(settings=[setting])


# Queries


def test_the_chat_template_renders_a_query() -> None:
    render = jinja2.Environment().from_string(CHAT_TEMPLATE).render
    for instruction, text in (("Why?", ""), (COMMENT, "Question: Why?\n\nAnswer: So.\n\nYes.")):
        query = template(instruction, text)
        assert parts(query) == (instruction, text) and question_of(query) == "Why?"
        assert message_of(query) == "\n\n".join(part for part in (instruction, text) if part)
    user, said = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    assert render(messages=[user], eos_token="</s>") == template("Why?")
    assert render(messages=[user, said], eos_token="</s>") == f"{template('Why?')} So.</s>"
    asked = render(messages=[user, said, user], eos_token="</s>")
    assert asked == f"{template('Why?')} So.</s>\n\n{template('Why?')}"
    assert message_of("a plain text") == question_of("a plain text") == "a plain text"


# Rows


@pytest.mark.parametrize("method", ["sft", "cpo", "dpo", "kto", "reward"])
def test_rows_and_their_lineage(method: str, folder: Path) -> None:
    data = read_export(folder, method)
    assert data.train and data.test and data.scripted
    assert [run["run"] for run in data.runs] == ["run"] and len(data.runs[0]["digest"]) == 64
    assert data.written_by == data.rated_by == ["scripted"]
    assert data.choices.startswith("`ratings` observer; ")
    lines = (folder / "sft-test.jsonl").read_text().splitlines()
    asked = [json.loads(line)["messages"][0]["content"] for line in lines]
    assert not set(asked) & set(data.questions) and 1 < len(data.questions) < 8
    assert data.lineage()["questions"] == len(data.questions)


def test_the_json_file_alone(folder: Path, tmp_path: Path) -> None:
    whole, file = read_export(folder, "cpo"), folder / "stable_alignment-train.json"
    alone = read_export(file, "cpo")
    assert alone.digest == whole.digest and alone.runs == whole.runs and not alone.test
    moved = Path(shutil.copy(file, tmp_path / "moved.json"))
    other = read_export(moved, "cpo")
    assert other.digest == whole.digest and other.runs == [] and other.scripted
    with pytest.raises(InputError, match=r"no export: found no README\.md"):
        read_export(file, "sft")


def test_parquet_has_the_same_rows(run: str, tmp_path: Path) -> None:
    for files in ("jsonl", "parquet"):
        api.export(run, "sft", tmp_path / files, choices={"files": files})
    first, second = (read_export(tmp_path / files, "sft") for files in ("jsonl", "parquet"))
    assert first.digest == second.digest


def test_exports_that_do_not_fit(run: str, tmp_path: Path) -> None:
    out = tmp_path / "sft"
    api.export(run, "sft", out, choices={"splits": {"a": 0.5, "b": 0.5}})
    with pytest.raises(InputError, match="found the splits a, b; expected one named train"):
        read_export(out, "sft")
    with pytest.raises(InputError, match=r"the formats sft; expected kto for kto: .*export RUN"):
        read_export(out, "kto")
    with pytest.raises(InputError, match=r"none: found no README\.md; expected a folder that"):
        read_export(tmp_path / "none", "sft")
    (out / "README.md").write_text("# mine\n")
    with pytest.raises(InputError, match="found no list of its files"):
        read_export(out, "sft")
    other = tmp_path / "other"
    api.export(run, "preference", other, choices={"target": "llama-factory"})
    with pytest.raises(InputError, match=r"jsonl:1: found .*`chosen` and `rejected`, as TRL reads"):
        read_export(other, "dpo")
    (other / "preference.jsonl").unlink()
    with pytest.raises(InputError, match=r"names preference\.jsonl, which is not there"):
        read_export(other, "dpo")


BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "sft": lambda row: row["messages"].pop(),
    "preference": lambda row: row.update(chosen=[]),
    "kto": lambda row: row.update(label=None),
}


@pytest.mark.parametrize("format", BAD)
def test_damaged_rows(format: str, folder: Path) -> None:
    method = {"preference": "dpo"}.get(format, format)
    path = folder / f"{format}-train.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    BAD[format](row)
    path.write_text("\n".join([lines[0], json.dumps(row), *lines[2:]]))
    with pytest.raises(InputError, match=rf"{path.name}:2: found .*; expected "):
        read_export(folder, method)
    path.write_text("\n".join([lines[0], "{"]))
    with pytest.raises(InputError, match=rf"{path.name}:2: not JSON"):
        read_export(folder, method)
    path.write_text("")
    with pytest.raises(InputError, match="found no rows; expected some to train on"):
        read_export(folder, method)


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "responses": ["a"], "scores": []},
        {"query": "q", "responses": ["a"], "scores": [8]},
        {"query": "q", "responses": [], "scores": []},
        {"query": "q", "responses": [None], "scores": [1]},
        {"responses": ["a"], "scores": [1]},
        [],
    ],
)
def test_damaged_queries(row: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row]))
    with pytest.raises(InputError, match=r"rows.json:1: found .*; expected "):
        read_export(file, "cpo")


# The folder


RECORD: dict[str, Any] = {
    "settings": {"method": "sft", "model": "m", "arguments": {"max_steps": 3}},
    "data": {"digest": "abc"},
}


def checkpoint(place: Place, step: int, complete: bool = True) -> Path:
    path = place.checkpoints / f"checkpoint-{step}"
    path.mkdir()
    (path / "weights").write_text(str(step))
    if complete:
        place.completed(step)
    return path


def test_a_training_goes_on_from_the_last_complete_checkpoint(tmp_path: Path) -> None:
    place = Place(tmp_path / "out")
    with place.locked():
        place.check(RECORD)
        assert place.start(RECORD) is None
        for step in (2, 4, 10):
            checkpoint(place, step)
        checkpoint(place, 12, complete=False)
    with place.locked():
        place.check(RECORD)
        assert place.start(RECORD) == place.checkpoints / "checkpoint-10"
    names = sorted(path.name for path in place.checkpoints.iterdir())
    assert names == ["checkpoint-10", "started.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("settings", "method", "dpo"),
            "with method sft; found dpo; expected the same, or another",
        ),
        (("settings", "arguments", {"max_steps": 4}), "with max_steps 3; found 4"),
        (("settings", "arguments", {}), "with max_steps 3; found None"),
        (("data", "digest", "abd"), "with digest of the data abc; found abd"),
    ],
)
def test_other_trainings_are_refused(
    change: tuple[str, str, Any], message: str, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out")
    part, key, value = change
    other = {**RECORD, part: {**RECORD[part], key: value}}
    place.start(other)  # without a checkpoint nothing is lost
    place.check(RECORD)
    place.start(RECORD)
    (place.checkpoints / "checkpoint-1").mkdir()
    place.completed(1)
    with pytest.raises(InputError, match=message):
        place.check(other)
    place.check(RECORD)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path / "out")
    place.out.mkdir()
    (place.out / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"contains 'mine.txt', which no training wrote"):
        place.check(RECORD)
    (place.out / "training.json").write_text("{}")
    with pytest.raises(InputError, match="found no record of a training"):
        place.finished()
    file = Place(place.out / "mine.txt")
    with pytest.raises(InputError, match="expected an empty or a new folder"), file.locked():
        pass
    below = Place(place.out / "mine.txt" / "out")
    with pytest.raises(InputError, match="cannot be written"), below.locked():
        pass
    with place.locked(), pytest.raises(InputError, match="another process trains into"):
        Place(place.out).locked().__enter__()


def finished(place: Place) -> None:
    place.partial.mkdir()
    (place.partial / "model").write_text("weights")
    (place.partial / "training.json").write_text(json.dumps(RECORD))


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_a_killed_process_leaves_the_old_folder_or_the_new_one(steps: int, tmp_path: Path) -> None:
    """What `publish` does, up to a step."""
    place = Place(tmp_path / "out")
    place.start(RECORD)
    checkpoint(place, 3)
    finished(place)
    hidden = {name: tmp_path / f".out.{name}" for name in ("finished", "replaced")}
    moves = [
        lambda: place.partial.rename(hidden["finished"]),
        lambda: place.out.rename(hidden["replaced"]),
        lambda: hidden["finished"].rename(place.out),
        lambda: shutil.rmtree(hidden["replaced"]),
    ]
    for move in moves[:steps]:
        move()
    with place.locked():
        if steps:
            assert place.finished() == RECORD and (place.out / "model").read_text() == "weights"
        else:
            place.check(RECORD)
            assert place.finished() is None
            assert place.start(RECORD) == place.checkpoints / "checkpoint-3"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_model_takes_the_place_of_the_checkpoints(tmp_path: Path) -> None:
    place = Place(tmp_path / "out")
    with place.locked():
        place.start(RECORD)
        finished(place)
        place.publish()
    assert sorted(path.name for path in place.out.iterdir()) == ["model", "training.json"]


# The verb


def test_the_verb_names_what_is_missing(folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("trl"):
        pytest.skip("TRL is installed")
    line = ["train", str(folder), "--method", "sft", "--model", "m", "--out", "out", "--json"]
    done = program(tmp_path, *line)
    assert done.returncode == 2
    assert done.stderr.startswith("error: train: ") and "[train]" in done.stderr
    assert json.loads(done.stdout)["error"].startswith("train: ")


def test_the_page_has_the_presets_and_the_defaults() -> None:
    page = Path("docs/training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` | `{method}` |" in page for name, (method, _) in PRESETS.items())
    assert yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["method"] == "cpo"
