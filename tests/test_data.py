"""The questions that come with the project."""

from __future__ import annotations

import json
from typing import Any

from conftest import ROOT

from sandbox.datasets.near_duplicates import NearDuplicates


def rows(name: str) -> list[dict[str, Any]]:
    text = (ROOT / "worlds" / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_held_out_questions_are_in_no_other_list() -> None:
    """Neither equal nor near (half of the threshold of an export's `keep_out`)."""
    seen = NearDuplicates(0.5)
    for name in ("questions", "prior"):
        for row in rows(name):
            seen.add(row["question"])
    held_out = rows("held_out")
    assert [row["question"] for row in held_out if seen.add(row["question"]).any] == []
    assert len({row["id"] for row in held_out}) == len(held_out) == 120


def test_a_sixth_of_the_held_out_questions_measure_refusals() -> None:
    marked = [row for row in rows("held_out") if "harmful" in row]
    assert [sum(row["harmful"] is value for row in marked) for value in (True, False)] == [10, 10]
    assert all(row["category"] for row in marked)
