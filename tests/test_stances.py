"""The words of a label belong to the run: rewording them in the program changes no older run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from conftest import Make, small

from agents.persona import STANCE
from sandbox import api
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare
from sandbox.reading.agents import agent
from sandbox.reading.calls import call


@pytest.mark.long
def test_reworded_stances_change_no_older_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, calm = make()
    part = create(prepare(small("name=part")), str(tmp_path / "part.db"))
    api.resume(part, budget=Budget(calls=150))
    with api.open_run(address) as reader:
        before = {number: agent(reader, number).introduction for number in range(16)}
        prompt = call(reader, 0).prompt
    for label in ("good", "bad"):
        monkeypatch.setitem(cast(Any, STANCE), label, f"You are a {label} person.")
    with api.open_run(address) as reader:
        assert {number: agent(reader, number).introduction for number in range(16)} == before
        assert call(reader, 0).prompt == prompt
    verdict = api.verify(address)
    assert verdict.agrees
    assert verdict.of_replay == calm.digest
    # The scripted model reads stances, so only the prompts can be compared, not the replies.
    assert api.resume(part).status == "done"
    assert api.verify(part).agrees
    fork = api.fork(address, 1, name="fork", db=tmp_path / "fork.db")
    assert api.resume(fork).status == "done"
    assert api.verify(fork).agrees
    new, _ = make(name="new")
    with api.open_run(new) as reader:
        assert any(
            agent(reader, number).introduction.startswith("You are a good person.")
            for number in range(16)
        )
