"""The recipes of the docs work: each example is built in a scratch copy and driven to its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
FILES = re.findall(r"```\w+ title=(\S+)\n(.*?)```", RECIPES, re.DOTALL)
DIFFS = re.findall(r"```diff\n(.*?)```", RECIPES, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", RECIPES, re.DOTALL)

SCALES = ("warmth", "openness")


class Scratch:
    """A copy of the code in which the recipes are followed.

    Args:
        folder: where the copy is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def bash(self, script: str) -> str:
        """Run commands as the recipes print them; returns what they print."""
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def verbs(self, *lines: str) -> list[tuple[int, str, str]]:
        """Run verbs one after the other in one process; returns status, output and errors."""
        (self.folder / "verbs.json").write_text(json.dumps([shlex.split(line) for line in lines]))
        found: list[tuple[int, str, str]] = json.loads(self.bash("python verbs.py"))
        return [(status, output, errors) for status, output, errors in found]

    def json(self, *lines: str) -> list[Any]:
        """Run verbs with --json."""
        done = self.verbs(*(f"{line} --json" for line in lines))
        assert [status for status, _, _ in done] == [0] * len(lines), done
        return [json.loads(output) for _, output, _ in done]

    def refused(self, *lines: str) -> list[str]:
        """The one line of each verb that refuses its input."""
        done = self.verbs(*lines)
        assert [status for status, _, _ in done] == [2] * len(lines), done
        assert all(len(errors.strip().splitlines()) == 1 for _, _, errors in done), done
        return [errors.strip() for _, _, errors in done]


VERBS = """\
import contextlib, io, json, sys
from pathlib import Path
from sandbox.cli.main import main

found = []
for arguments in json.loads(Path("verbs.json").read_text()):
    sys.argv = ["run_sim.py", *arguments]
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    found.append([status, output.getvalue(), errors.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """The code with every recipe followed: files written, diffs applied, commands run."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("sandbox", "agents", "worlds", "storage"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_sim.py", folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    for name, text in FILES:
        (folder / name).write_text(text, encoding="utf-8")
    for diff in DIFFS:
        (folder / "recipe.diff").write_text(diff, encoding="utf-8")
        apply = ["git", "apply", "--unidiff-zero", "recipe.diff"]
        done = subprocess.run(apply, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{diff}\n{done.stderr}"
    (folder / "verbs.py").write_text(VERBS, encoding="utf-8")
    made = Scratch(folder)
    for commands in COMMANDS:
        made.bash(commands)
    return made


def test_every_recipe_has_an_example() -> None:
    assert len(re.findall(r"^## Add a", RECIPES, re.MULTILINE)) == 6
    names = {name.rsplit("/", 1)[-1] for name, _ in FILES}
    assert names >= {"talk.py", "honest.yaml", "lengths.py", "words.py", "longest.html"}
    assert "models.md#a-backend-of-your-own" in RECIPES, "tests/test_backends.py runs that one"


@pytest.mark.long
def test_a_world_of_two_who_talk_shows_up_with_its_scales(scratch: Scratch) -> None:
    """A pair on -5 to 5 and each agent on 0 to 10: in every place where a run is looked at."""
    status, inspected, episode = scratch.json(
        "status talk", "inspect talk", "inspect talk episode 3"
    )
    (state,) = status["runs"]
    assert (state["status"], state["episodes"]) == ("done", 18)
    assert {form["form"] for form in state["forms"]} >= {f"observe_{name}" for name in SCALES}
    ranges = {score["measure"]: (score["low"], score["high"]) for score in state["scores"]}
    assert ranges == {"talk_warmth": (-5, 5), "talk_openness": (0, 10)}
    last = inspected["rounds"][-1]
    assert -5 <= last["talk_warmth"] <= 5 and 0 <= last["talk_openness"] <= 10
    rated = {(seen["scale"], seen["agent"], seen["other"]) for seen in episode["observations"]}
    assert rated == {("warmth", 3, 4), ("openness", 3, None), ("openness", 4, None)}
    assert episode["talk"].count("\n") == 3
    ((_, shown, _),) = scratch.verbs("inspect talk")
    assert "warmth" in shown and "openness" in shown


@pytest.mark.long
def test_the_world_is_compared_reported_and_shown(scratch: Scratch) -> None:
    _, compared, _, _ = scratch.json(
        "run talk.yaml --name again --set seed=8",
        "compare talk again",
        "report talk --out talk.html",
        "view talk --static pages",
    )
    measures = compared["groups"][0]["measures"]
    assert {"talk_warmth", "talk_openness"} <= set(measures)
    report = (scratch.folder / "talk.html").read_text(encoding="utf-8")
    assert all(f"{name.capitalize()} by round" in report for name in SCALES)
    assert "-5 to 5" in report.replace("\u2212", "-") and "0 to 10" in report
    society = (scratch.folder / "pages" / "talk.html").read_text(encoding="utf-8")
    assert all(name in society.lower() for name in SCALES)


@pytest.mark.long
def test_formats_take_the_world_or_say_why_not(scratch: Scratch) -> None:
    rows = [
        json.loads(line)
        for line in (scratch.folder / "data/talk/exchanges.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(rows) == 18 and all(-5 <= row["warmth_talk"] <= 5 for row in rows)
    seen = {(one["scale"], one["agent"]) for row in rows for one in row["observations"]}
    assert ("openness", 0) in seen and ("warmth", 0) in seen
    names = ("sft", "preference", "kto", "prompts", "rated", "raters", "stable-alignment")
    lines = scratch.refused(*(f"export talk --format {name} --out data/no" for name in names))
    for name, line in zip(names, lines, strict=True):
        assert f"{name} does not fit run talk" in line
    assert not (scratch.folder / "data" / "no").exists()


@pytest.mark.long
def test_resuming_such_a_run_wants_its_file_named(scratch: Scratch) -> None:
    for line in scratch.refused("verify talk", "fork talk --at 0"):
        assert "talk.py" in line and "--world" in line
    verified, forked, status = scratch.json(
        "verify talk --world talk.py",
        "fork talk --at 0 --name forked --world talk.py",
        "status talk",
    )
    assert verified["agrees"] and forked["digest"] == status["runs"][0]["digest"]
    talk = scratch.folder / "talk.py"
    text = talk.read_text(encoding="utf-8")
    try:
        talk.write_text("raise SystemExit('this file was run')\n", encoding="utf-8")
        scratch.json("inspect talk", "status talk", "export talk --format exchanges --explain")
    finally:
        talk.write_text(text, encoding="utf-8")


@pytest.mark.long
def test_a_scale_of_a_config_shows_up(scratch: Scratch) -> None:
    (inspected,) = scratch.json("inspect honest")
    last = inspected["rounds"][-1]
    assert -5 <= last["draft_honesty"] <= 5 and "revision_honesty" in last
    rows = (scratch.folder / "data/honest/sft.jsonl").read_text("utf-8").splitlines()
    ratings = [json.loads(line)["rating"] for line in rows]
    assert ratings and all(1 < rating <= 5 for rating in ratings)
    card = (scratch.folder / "data/honest/README.md").read_text("utf-8")
    assert "How honest is the answer?" in card


@pytest.mark.long
def test_a_format_a_verb_and_a_page_of_ones_own(scratch: Scratch) -> None:
    text = (scratch.folder / "data/lengths/lengths.jsonl").read_text("utf-8")
    stages = {json.loads(line)["stage"] for line in text.splitlines()}
    assert stages == {"draft", "revision", "talk"}
    (found,) = scratch.json("words honest")
    counts = found["words"]
    assert set(counts) == {"draft", "revision"} and all(count > 100 for count in counts.values())
    code = (
        "from starlette.testclient import TestClient\n"
        "from sandbox.viewer.app import application\n"
        "from sandbox.viewer.catalog import RunCatalog\n"
        "client = TestClient(application(RunCatalog()), base_url='http://127.0.0.1')\n"
        "print(client.get('/r/honest/longest').text)\n"
    )
    (scratch.folder / "look.py").write_text(code, encoding="utf-8")
    page = scratch.bash("python look.py")
    assert page.count("characters</li>") == 10 and 'href="/r/honest/longest"' in page
