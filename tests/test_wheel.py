"""The wheel: it has every data file, and its command works without a clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, missing

PACKAGES = ("agents", "sandbox", "storage", "worlds")
COMMAND = """
import sys
from sandbox.cli.main import main
sys.argv[0] = "sandbox-society"
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without network access."""
    if find_spec("hatchling") is None:
        missing("hatchling is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps",
               "--disable-pip-version-check", "-w", str(folder), str(ROOT)]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    (path,) = folder.glob("sandbox_society-*.whl")
    return path


def test_it_has_every_file_that_is_not_python(wheel: Path) -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    expected = {
        path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".py", ".pyc")
    }
    assert "sandbox/viewer/static/colours.css" in expected
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= packed
    assert {name.split("/")[0] for name in packed if "dist-info" not in name} == set(PACKAGES)


@pytest.mark.long
def test_its_command_runs_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def society(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "sandbox-society inspect quickstart memory 3" in society("run", "--rounds", "1")
    assert json.loads(society("inspect", "quickstart", "--json"))["rounds"]
    society("view", "quickstart", "--static", "pages", "--exchanges", "2")
    about = (folder / "pages" / "quickstart-about.html").read_text(encoding="utf-8")
    assert "sandbox-society verify quickstart" in about
    society("report", "quickstart", "--out", "report.html")
    society("export", "quickstart", "--format", "exchanges", "--out", "data")
    findings = {one["what"]: one for one in json.loads(society("doctor", "--json"))["findings"]}
    assert "pip install 'sandbox-society[vllm]'" in findings["vllm"]["advice"]
