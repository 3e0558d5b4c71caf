"""Studies of generations: their settings, what a control is trained on, and the tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from program import program

from agents.scale import Scale
from sandbox.datasets.choices import Choices
from sandbox.generations import Generation, Study, read_plan
from sandbox.generations.study import _Work, control_choices
from sandbox.generations.table import HEADS, markdown, rows
from storage.errors import InputError

EXAMPLES = ROOT / "examples" / "generations"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples, with empty folders in place of their models."""
    folder = tmp_path / "examples" / "generations"
    shutil.copytree(EXAMPLES, folder)
    (tmp_path / "worlds").symlink_to(ROOT / "worlds")
    for name in ("small", "reward"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    return folder


@pytest.fixture
def study(examples: Path) -> Path:
    """The example for two cores."""
    return examples / "small.yaml"


@pytest.mark.parametrize("name", ["small", "gpu"])
def test_the_examples_are_valid(examples: Path, name: str) -> None:
    plan = read_plan(examples / f"{name}.yaml")
    assert plan.format == "sft" and plan.control is not None
    held_out = (ROOT / "worlds" / "data" / "held_out.jsonl").read_text().splitlines()
    assert plan.choices["keep_out"] == [json.loads(line)["question"] for line in held_out]
    Choices(**plan.choices)


def test_a_generation_has_the_model_of_the_one_before_and_another_seed(study: Path) -> None:
    plan = read_plan(study, ["settings.rounds=3"])
    assert plan.first == str(study.parents[2] / "models" / "small") and plan.config.rounds == 3
    assert plan.society(3, "/m/generation-2") == [
        "rounds=3",
        'models.groups.learners.model.model="/m/generation-2"',
        "seed=13",
    ]
    assert plan.section("/m/x") == {**plan.learner, "model": "/m/x"}


def test_an_adapter_is_merged_so_that_the_next_society_loads_it(study: Path) -> None:
    plan = read_plan(study, ["train.lora={r: 4}"])
    assert plan.train["lora"] == {"r": 4, "alpha": 32, "dropout": 0.05, "merge": True}
    preset = read_plan(study, ["train={method: sft, preset: matrix}"])
    assert preset.train["lora"]["merge"] is True


REFUSED = [
    ("learner=models.social", "models.social.backend: found scripted; expected vllm"),
    ("learner=models.groups.nobody.model", "learner: found no such key"),
    ("train.method=spo", "method: found 'spo'; expected one of sft"),
    ("train.model=x", "train: found "),
    ("control={method: nothing}", "control: method"),
    ("train={method: dpo}", "control: found true; expected: a mapping with settings of an sft"),
    ("export.min_rat=5", "export.min_rat: not a choice of sft; expected"),
    ("export.min_rating=99", "export.min_rating: found 99; expected a number, 1 to 7"),
    ("export.min_margin=1", "export.min_margin: not a choice of sft; expected"),
    ("export.raters=[shoe=3]", "export.raters: found field 'shoe'"),
    ("export.keep_out=[a]", "export: found "),
    ("evaluate={}", "evaluate: found {}; expected: a mapping with questions"),
    ("evaluate.questions=none.txt", "questions"),
    ("evaluate.observers={}", "observers"),
    ("evaluate.models={a: scripted}", "evaluate: found "),
    ("society=none.yaml", "none.yaml: cannot be read"),
    ("settings={world.sise: 3}", "world.sise"),
    ("learnr=x", "learnr: unknown key; expected a key that docs/generations.md lists; did you"),
    ("name=a b", "name: found"),
]


@pytest.mark.parametrize(("setting", "line"), REFUSED)
def test_bad_settings_are_one_line(study: Path, setting: str, line: str) -> None:
    done = program(study.parent, "generations", str(study), "--out", "out", "--set", setting)
    told = done.stderr.strip().splitlines()
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert told[0].startswith("error: ") and line in told[0]
    assert not (study.parent / "out").exists()


def test_a_count_below_1_is_refused(study: Path) -> None:
    done = program(study.parent, "generations", str(study), "--out", "out", "--count", "0")
    assert done.returncode == 2 and "--count: found 0; expected 1 or more" in done.stderr


def test_a_folder_with_other_files_is_refused(study: Path) -> None:
    (study.parent / "out").mkdir()
    (study.parent / "out" / "thesis.txt").write_text("mine")
    done = program(study.parent, "generations", str(study), "--out", "out")
    assert done.returncode == 2 and "thesis.txt" in done.stderr


def stored(study: Path, out: Path, phases: list[str]) -> None:
    """The folder of a study with these phases finished in its first generation."""
    (out / "generation-1" / "data").mkdir(parents=True)
    state = {"settings": read_plan(study).as_dict(), "seconds": {"1": dict.fromkeys(phases, 1.0)}}
    (out / "study.json").write_text(json.dumps(state))


def test_what_nothing_rests_on_may_change(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stored(study, out, ["society"])
    _Work(
        read_plan(study, ["export.min_rating=4", "train.max_steps=9", "launch=python"]), out, print
    )
    assert not (out / "generation-1" / "data").exists()  # it was exported by other choices
    kept = json.loads((out / "study.json").read_text())
    assert (kept["settings"]["train"]["max_steps"], kept["seconds"]) == (9, {"1": {"society": 1.0}})
    with pytest.raises(
        InputError, match=r"has a study with settings.rounds|with config.rounds 20; found 3"
    ):
        _Work(read_plan(study, ["settings.rounds=3"]), out, print)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"seconds": {}}', '{"seconds": 1, "settings": 2}']
)
def test_a_damaged_study_is_refused(study: Path, tmp_path: Path, text: str) -> None:
    stored(study, tmp_path / "out", [])
    (tmp_path / "out" / "study.json").write_text(text)
    with pytest.raises(InputError, match=r"study.json: cannot be read: .*; expected the file of a"):
        _Work(read_plan(study), tmp_path / "out", print)


def test_what_a_finished_phase_rests_on_may_not(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stored(study, out, ["society", "training"])
    with pytest.raises(InputError, match=r"has a study with export.min_rating 5; found 4"):
        _Work(read_plan(study, ["export.min_rating=4"]), out, print)
    _Work(read_plan(study, ["control=false", "evaluate.samples=1", "launch=python"]), out, print)
    assert (out / "generation-1" / "data").exists()


@pytest.mark.parametrize(("better", "worst"), [("high", 1), ("low", 7)])
def test_a_control_takes_answers_of_any_rating(better: Any, worst: int) -> None:
    scale = Scale(name="kind", low=1, high=7, better=better)
    choices = {
        "min_rating": 6,
        "pick": "question",
        "ratings": "peers",
        "max_rating": 2,
        "mix": (1,),
    }
    assert control_choices(choices, scale, 40) == {
        "ratings": "peers",
        "min_rating": worst,
        "pick": "all",
        "rows": 40,
    }


def score(model: str, mean: float | None) -> dict[str, Any]:
    return {"observer": "judge", "scale": "alignment", "model": model, "mean": mean}


def difference(model: str, against: str, low: float, middle: float, high: float) -> dict[str, Any]:
    paired = {"difference": middle, "low": low, "high": high}
    return {"observer": "judge", "scale": "alignment", "model": model, "against": against,
            "paired": paired}  # fmt: skip


def test_the_table_tells_each_difference_from_the_side_of_its_row() -> None:
    names = ("start", "control-1", "generation-1", "generation-2")
    generations = [
        Generation(
            number=number,
            run=f"s-{number}",
            measures={"draft_alignment": 4.0, "peer_rating": None},
            rows=30,
            control_rows=30 if number == 1 else None,
            seconds={"society": 60.0},
        )
        for number in (1, 2)
    ]
    evaluation = {
        "models": [{"name": name, "lost": place} for place, name in enumerate(names)],
        "scores": [score(name, 4.0 + place) for place, name in enumerate(names)],
        "differences": [
            difference("start", "control-1", -2, -1, 0.5),  # told from the other side
            difference("generation-1", "start", 1, 2, 3),
            difference("generation-1", "control-1", 0, 1, 2),
            difference("generation-2", "generation-1", 0.5, 1, 1.5),
        ],
        "notes": ["A note."],
    }
    study = Study(name="s", out="o", generations=generations, evaluation=evaluation)
    found = {row[0]: row[1:] for row in rows(study)}
    judged = "judge, alignment"
    assert found == {
        "start": ("", judged, "4.00", "0", "", "", ""),
        "generation-1": ("30", judged, "6.00", "2", "+2.00 (+1.00 to +3.00)", "",
                         "+1.00 (+0.00 to +2.00)"),
        "control-1": ("30", judged, "5.00", "1", "+1.00 (-0.50 to +2.00)", "", ""),
        "generation-2": ("30", judged, "7.00", "3", "-", "+1.00 (+0.50 to +1.50)", ""),
    }  # fmt: skip
    text = markdown(study)
    assert f"| {' | '.join(HEADS)} |" in text and "- A note." in text
    assert "| 1 | s-1 | 0 | 0 | draft_alignment 4.00 | 1 min 00 s |" in text


def test_settings_must_be_a_file_with_keys(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(["a"]))
    with pytest.raises(InputError, match="expected a YAML mapping"):
        read_plan(path)
