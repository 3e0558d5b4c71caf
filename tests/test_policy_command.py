"""`policy show` and `inspect RUN policy`, each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT
from personal_runs import make_personal
from program import program
from stored import Run

POLICY = ROOT / "worlds" / "policies" / "public_service.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_personal(tmp_path_factory.mktemp("command"), rounds=1)


def _said(folder: Path, *arguments: object, status: int = 0) -> str:
    done = program(folder, *map(str, arguments))
    assert done.returncode == status, done.stdout + done.stderr
    if status:
        assert done.stderr.count("\n") == 1
    return done.stderr if status else done.stdout


def test_a_policy_file_is_shown_by_tier(tmp_path: Path) -> None:
    said = _said(tmp_path, "policy", "show", POLICY)
    assert said.index("tier 1: law") < said.index("law.dose") < said.index("tier 2: organisation")
    assert "org.rivals  restriction, checked by judge, refuse" in said
    assert "wishes of" not in said
    data = json.loads(_said(tmp_path, "policy", "show", POLICY, "--json"))
    assert data["people"] is None and {one["overruled"] for one in data["rules"]} == {None}
    law = json.loads(_said(tmp_path, "policy", "show", POLICY.with_name("tier1.yaml"), "--json"))
    assert {one["tier"] for one in law["rules"]} == {"law"}


def test_a_config_shows_which_wishes_are_overruled(run: Run, tmp_path: Path) -> None:
    preset = ROOT / "worlds" / "presets" / "personal.yaml"
    people = f"personas={run.path.parent / 'people.jsonl'}"
    said = _said(tmp_path, "policy", "show", preset, "--set", people)
    assert "overrules 1 wish: Swear a little." in said
    assert "wishes of 4 people were compared" in said
    plain = json.loads(_said(tmp_path, "policy", "show", "--json"))
    assert {one["tier"] for one in plain["rules"]} == {"law"}  # the quickstart has tier 1 alone


def test_the_policy_of_a_run_is_inspected(run: Run, tmp_path: Path) -> None:
    said = _said(tmp_path, "inspect", run.path, "policy")
    assert "law.dose" in said and "overrules 1 wish" in said and "no verdict" in said
    data = json.loads(_said(tmp_path, "inspect", run.path, "policy", "--json"))
    assert data["leakage"]["total"]["n"] + data["leakage"]["total"]["missing"] == 4
    (ama,) = run.sql("SELECT agent FROM overruled")[0]
    said = _said(tmp_path, "inspect", run.path, "policy", ama)
    assert "overruled by org.no_swearing: Swear a little." in said
    assert "stands: Use short words." in said
    bound = json.loads(_said(tmp_path, "inspect", run.path, "policy", ama, "--json"))
    assert bound["law"][0]["tier"] == 1 and bound["overruled"][0]["rule"] == "org.no_swearing"


def test_bad_input_is_one_line(run: Run, tmp_path: Path) -> None:
    said = _said(tmp_path, "inspect", run.path, "policy", 99, status=2)
    assert said == "error: agent 99: no such agent; expected 0 to 3\n"
    assert "--search" in _said(tmp_path, "inspect", run.path, "policy", "--search", "x", status=2)
    assert "nowhere.yaml" in _said(tmp_path, "policy", "show", "nowhere.yaml", status=2)
    assert "--set" in _said(tmp_path, "policy", "show", POLICY, "--set", "seed=1", status=2)
    broken = tmp_path / "broken.yaml"
    broken.write_text("rules: [{id: a.b}]")
    assert "broken.yaml: a.b" in _said(tmp_path, "policy", "show", broken, status=2)
    older = run.copy(tmp_path)
    older.sql("UPDATE runs SET policy = NULL")
    assert "found none" in _said(tmp_path, "inspect", older.path, "policy", status=2)
    assert "found none" in _said(tmp_path, "inspect", older.path, "policy", 0, status=2)
