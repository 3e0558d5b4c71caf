"""Faults in the code of a world or a backend: one line with its place, or a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import scripted_backends, small
from talk import WORLD

from sandbox.backends.base import Call, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.calls import calls
from sandbox.reading.runs import open_run, states
from storage.errors import InputError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the world of two who talk, with one text in it replaced."""

    def written(old: str, new: str) -> Path:
        assert old in WORLD, f"the world has no {old!r}"
        file = tmp_path / "talk.py"
        file.write_text(WORLD.replace(old, new, 1), encoding="utf-8")
        return file

    return written


RECORD = 'episode.record("small_talk", talk)'
MEET = "return [Meeting(n, ((n + 1) % 6,), round * 6 + n) for n in range(6)]"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("settings_type = Settings", "", "the class World has no settings_type"),
        ("async def play", "async def played", "the class World has no play"),
        ("    prompts = (SAY,)\n", "", "the class World has no prompts"),
        ("class World(base.World)", "class World", "no class World"),
        ("class World(base.World)", "class World(base.World", r"line \d+: "),
        ('"""Two agents', 'raise SystemExit(0)\n"""Two agents', "SystemExit: 0"),
        ('"neutral"', '"odd"', "populate: KeyError: 'odd'"),
        ("return [Agent", "return 1 / 0, [Agent", r"populate: ZeroDivisionError.*talk\.py:\d+"),
        (MEET, "return []", "meet, round 0: found 0 meetings; expected 6"),
        (MEET, MEET.replace("% 6", "% 7 + 1"), "found agent 6; expected 0 to 5"),
        (MEET, MEET.replace("Meeting(n,", "Meeting(0,"), "author twice"),
        ("How calm is {{ name }}?", "{% for %}", "its prompts: ValueError: form observe_calm"),
    ],
)
def test_a_world_that_cannot_work_is_refused(write: Write, old: str, new: str, words: str) -> None:
    file = write(old, new)
    with pytest.raises(InputError, match=words) as error:
        prepare(small(f"world={{kind: {file}}}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("raise KeyError('x')", r"play, episode \d+: KeyError: 'x' \(talk\.py:\d+\)"),
        ('episode.record("end", talk)', "stage end is not declared; expected small_talk"),
        (f"{RECORD}; {RECORD}", "stage small_talk is recorded twice"),
        ('episode.record("small_talk", 7)', "TypeError: the text of stage small_talk is int"),
        (
            'episode.observe("small_talk", agent=two[0], name="", talk=talk)',
            "stage small_talk is observed twice",
        ),
        ('await episode.ask(two[0], SAY, question="")', "expected a distinct `turn`"),
    ],
)
def test_a_world_that_fails_in_play_ends_the_run_with_one_line(
    write: Write, tmp_path: Path, new: str, words: str
) -> None:
    file = write(RECORD, new)
    address = create(prepare(small(f"world={{kind: {file}}}")), str(tmp_path / "run.db"))
    with pytest.raises(InputError, match=words) as error:
        resume(address, allow=[file])
    assert "\n" not in str(error.value)
    (state,) = states(address.url)
    assert (state.status, state.message) == ("failed", str(error.value))


class Odd(ScriptedBackend):
    """Raises, or returns what is no reply, to every fourth call."""

    value: Any = ValueError("odd\nprompt")

    async def answer(self, call: Call) -> Reply:
        """Answer three calls in four."""
        if call.seed % 4:
            return await super().answer(call)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (ValueError("odd\nprompt"), "the backend raised ValueError: odd prompt"),
        (None, "the backend returned NoneType; expected Reply"),
        ("Rating: 5", "the backend returned str; expected Reply"),
        (Reply(7), "the backend returned a text of int"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_of_a_backend_is_a_row(tmp_path: Path, value: Any, error: str) -> None:
    backend = type("Backend", (Odd,), {"value": value})
    config = small("rounds=1")
    backends = scripted_backends(config, backend)
    address = create(prepare(config), str(tmp_path / "run.db"), backends)
    outcome = resume(address, backends=backends)
    assert outcome.status == "done" and 0 < outcome.calls_failed < outcome.calls
    with open_run(str(address)) as reader:
        assert {call.error for call in calls(reader, failures=True) if call.error} == {error}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('scales={x: {low: 1, high: 7, ask: "{% for %}"}}', "scales.x.ask: form observe_x"),
        ("scales={x: {low: 1, high: 7, ask: y, subject: agent}}", "x.subject: found agent"),
        ("scales={x: {low: 1.005, high: 7, ask: y, integer: false}}", "two decimals"),
        ("scales={x: {low: 1, high: 7, ask: y, stages: []}}", "scales.x.stages: found"),
        ("scales={missing: {low: 1, high: 7, ask: y}}", "another name than missing"),
    ],
)
def test_a_scale_that_cannot_be_rated_is_refused(setting: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        prepare(small(setting))
    assert "\n" not in str(error.value)


def test_a_scale_is_rated_of_what_the_world_has_rated(tmp_path: Path, write: Write) -> None:
    """In a world that has agents and pairs rated, an added scale rates agents by default."""
    file = write(RECORD, RECORD)
    scale = "scales={wit: {low: 0, high: 3, ask: How witty is it}}"
    address = create(prepare(small(f"world={{kind: {file}}}", scale)), str(tmp_path / "run.db"))
    resume(address, allow=[file])
    (state,) = states(address.url)
    scores = {score.measure: score.last for score in state.scores}
    assert 0 <= (scores["small_talk_wit"] or -1) <= 3
