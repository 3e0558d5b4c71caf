"""Odd inputs of every kind end with one line, in bounded time, and change nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzzing import INPUTS, Fuzz


@pytest.mark.parametrize("kind", INPUTS)
def test_odd_inputs(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first = int(request.config.getoption("--fuzz-from"))
    count = int(request.config.getoption("--fuzz"))
    fuzz = Fuzz(tmp_path)
    failures = []
    for number in range(first, first + count):
        given = INPUTS[kind](random.Random(f"{kind} {number}"))
        failures += [f"{kind} {number}: {fault}\n  {given}" for fault in fuzz.faults(given)]
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures[:40])
