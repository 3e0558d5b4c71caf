"""The terminal at 80 columns: no number and no name is split."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from conftest import Make
from program import program
from rich.console import Console

from sandbox.reading.runs import RunState, states
from sandbox.terminal.live import in_lines
from sandbox.terminal.runs import status_table
from sandbox.terminal.style import rounded, show
from storage.database import parse_url


def lines(state: RunState, names: list[str], width: int, terminal: bool) -> list[str]:
    page = StringIO()
    console = Console(file=page, width=width, force_terminal=terminal, no_color=True)
    show(console, status_table([(name, state) for name in names]))
    return page.getvalue().splitlines()


@pytest.mark.parametrize("width", [140, 100, 80, 60])
def test_status_splits_no_number_and_no_name(make: Make, tmp_path: Path, width: int) -> None:
    make("rounds=1", name="run")
    (state,) = states(parse_url(str(tmp_path / "run.db")))
    large = RunState(**{**vars(state), "episodes": 20_000, "episodes_total": 20_000,
                        "calls": 1_234_567, "calls_failed": 12_345})  # fmt: skip
    names = ["quickstart", "scores-only-seed7"]
    shown = lines(large, names, width, terminal=True)
    for name in names:
        (row,) = [line for line in shown if line.startswith(name)]
        expected = "20,000/20,000" if width >= 100 else "20k/20k"
        assert f" {expected} " in row, "rounded where columns are left out"
        assert len(row.rstrip()) <= width
    piped = lines(large, names, 80, terminal=False)
    assert all("1,234,567" in row and "20,000/20,000" in row for row in piped[1:3])


def test_counts_are_rounded() -> None:
    given = (0, 9_999, 10_000, 20_400, 999_499, 1_250_000, 3_000_000_000)
    assert [rounded(count) for count in given] == [
        "0", "9,999", "10k", "20k", "999k", "1.2M", "3.0G"]  # fmt: skip
    assert rounded(999_600) == "1.0M"


def test_parts_of_the_live_line_stay_whole() -> None:
    parts = ["round 7 of 30", "episodes 3,000/3,000 (12 failed)", "calls 261,000 (1,227/s)", "x"]
    assert in_lines(parts, 70) == ["   ".join(parts[:2]), "   ".join(parts[2:])]
    assert in_lines(parts, 10) == parts
    assert "   ".join(in_lines(parts, 200)) == "   ".join(parts)


@pytest.mark.long
def test_a_report_is_named_like_its_run_and_the_viewer_is_named_first(tmp_path: Path) -> None:
    done = program(tmp_path, "run", "--name", "mine", "--rounds", "1", "--set", "world.size=2",
                   "--set", "world.radius=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = done.stdout.strip().splitlines()[-5:]
    assert steps[0].split("  ")[0] == "open it in a browser" and steps[0].endswith("view mine")
    assert steps[1].endswith("report mine")
    assert program(tmp_path, "report", "mine").returncode == 0
    assert (tmp_path / "mine.html").read_text(encoding="utf-8").startswith("<!doctype html>")
