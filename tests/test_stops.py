"""Models that do not stop: stop strings, truncated replies, and runs whose episodes fail."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import small
from test_openai import KEY, Server, ask, call

from agents.forms import Form, FreeText, Rating, Status
from agents.sentences import whole_sentences
from agents.shapes import Line
from agents.stops import Stops, template_stops
from benchmarks.vllm_run import engines_of
from sandbox import api
from sandbox.backends.base import Call, ModelSettings, Reply
from sandbox.datasets import export
from sandbox.engine.run import create, prepare, resume
from sandbox.failing import Cause, failing
from sandbox.progress import Clock, Counts, Progress
from sandbox.reading.runs import open_run
from storage.database import Address
from worlds.grid import DRAFT, RATE, REVISE

PROGRAM = [sys.executable, str(Path(__file__).resolve().parent.parent / "run_sim.py")]
GRID = [form.user for form in (DRAFT, RATE, REVISE)]
OWN = template_stops("<case>\n{{ x }}\n</case>\n\nWhat you say:", ["<log>{{ y }}</log>"])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("I would go. Then I would", "I would go."),
        ("All done.", "All done."),
        ("Really?! Yes, b", "Really?!"),
        ('He said "go." Then', 'He said "go."'),
        ("I said (twice!) that", "I said (twice!)"),
        ("See e.g. the", ""),
        ("Ask Dr. Smith. He kn", "Ask Dr. Smith."),
        ("It costs 3.", ""),
        ("In 1999. Then we", "In 1999."),
        ("I agree.\n\n2. And", "I agree."),
        ("Wait... what", ""),
        ("他走了\u3002然后他", "他走了\u3002"),
        ("行く\uff01でも", "行く\uff01"),
        ("هل تذهب؟ ربما", "هل تذهب؟"),
        ("وہ گیا\u06d4 پھر", "وہ گیا\u06d4"),
        ("यह ठीक है। और फिर", "यह ठीक है।"),
        ("Գնա\u0589 Հետո", "Գնա\u0589"),
        ("ሂድ። ከዚያ", "ሂድ።"),
        ("ទៅ។ បន្ទាប់", "ទៅ។"),
        ("no end at all", ""),
        ("", ""),
    ],
)
def test_a_truncated_text_is_kept_to_its_last_whole_sentence(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("I go.</case>\n\nWhat you say: more", "I go."),
        ("I go.\n<log>", "I go."),
        ("I go. <log> x", "I go. "),
        ("I go.\nWhat you say: more", "I go."),
        ("<case>I go.</case> x", "I go."),
        ("<think>a </case> b</think>I go.</log>x", "<think>a </case> b</think>I go."),
        ("<think>a </case> b", "<think>a </case> b"),
        ("</case>", ""),
        (
            "1 < 2 and <answer> is no tag of this world",
            "1 < 2 and <answer> is no tag of this world",
        ),
    ],
)
def test_a_reply_ends_before_the_markup_of_its_world(text: str, kept: str) -> None:
    assert OWN.end(text).text == kept


def test_stop_strings_follow_from_the_templates() -> None:
    assert OWN.strings == ("\nWhat you say:", "</case>", "\n<case>", "</log>", "\n<log>")
    grid = template_stops(DRAFT.user, GRID).strings
    assert grid[0] == "\nYour answer:"
    assert {"</answer>", "</you>", "</question>", "</memory>", "\n<you>", "</comments>"} < {*grid}


@pytest.mark.parametrize("value", [[""], ["  "], ["a", ""], "</a>", [5], 5, {"a": 1}, ["x"] * 33])
def test_bad_stop_strings_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="a list of at most 32 texts"):
        ModelSettings(backend="scripted", stop=value)


def test_bad_stop_strings_are_one_line(tmp_path: Path) -> None:
    command = [*PROGRAM, "run", "--set", 'models.social.stop=["a", ""]']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert 'models.social.stop: found ["a", ""]; expected: a list of' in done.stderr


STOP = Stops(tuple(f"</{name}>" for name in "abcdef"))


def prose(**fields: Any) -> Call:
    return call(shape=FreeText())._replace(stop=STOP, **fields)


def test_a_server_gets_stop_strings_for_prose_alone() -> None:
    server = Server()
    ask(server, prose())
    assert server.asked[-1][1]["stop"] == list(STOP.strings)
    server = Server()
    ask(server, prose(shape=Line()), constrain="vllm")
    assert "stop" not in server.asked[-1][1]
    server = Server()
    ask(server, prose(), thinking=True)
    assert "stop" not in server.asked[-1][1]


TOO_MANY = (
    "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array "
    "with length 6 instead."
)


@pytest.mark.parametrize(
    ("message", "param", "left"),
    [
        (TOO_MANY, "stop", 4),
        ("stop: at most 5 sequences are allowed", None, 5),
        ("too many stop sequences", "stop", 4),
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop", 0),
        ("unknown field stop", None, 0),
    ],
)
def test_a_refused_stop_is_learned(message: str, param: str | None, left: int) -> None:
    from aiohttp import web

    server = Server()
    seen = []

    async def handler(request: Any) -> Any:
        body = await request.json()
        seen.append(body.get("stop", []))
        if len(seen[-1]) > left:
            error = {"message": message, "type": "invalid_request_error", "param": param}
            return web.json_response({"error": error}, status=400)
        said = {"choices": [{"message": {"content": "Go."}, "finish_reason": "stop"}]}
        return web.json_response(said)

    server.handler = handler
    assert ask(server, prose()).text == "Go."
    assert seen == [list(STOP.strings), list(STOP.strings[:left])]


def test_a_thought_that_a_stop_string_ended_is_asked_again() -> None:
    from aiohttp import web

    server = Server()
    seen = []

    async def handler(request: Any) -> Any:
        body = await request.json()
        seen.append("stop" in body)
        said = "<think>in </a> it says" if seen[-1] else "<think>in </a> it says so</think>Go."
        return web.json_response(
            {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        )

    server.handler = handler
    reply = ask(server, prose())
    assert (reply.text, reply.thinking, reply.cut) == ("Go.", "in </a> it says so", False)
    assert seen == [True, False]


class Leaking:
    """A backend that never stops: it goes on with the markup of the prompt until the limit."""

    model = "leaking"

    def __init__(self, cuts: bool) -> None:
        self.cuts = cuts

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def answer(self, call: Call) -> Reply:
        await asyncio.sleep(0)
        if isinstance(call.shape, Rating):
            return Reply(f"Rating: {1 + call.seed % 7}\nReason: </answer> is there.")
        text = f"I would wait {call.seed % 9} days.</answer>\n\nYour answer: and"
        if self.cuts and call.stop.strings:
            return Reply(text[: min(text.find(one) for one in call.stop.strings if one in text)])
        return Reply(text, cut=True)


def leaked(folder: Path, name: str, cuts: bool, *settings: str) -> tuple[Address, Any]:
    config = small(f"name=x-{name}", "rounds=2", *settings)
    backends = {role: Leaking(cuts) for role in ("social", "observer")}
    address = create(prepare(config), str(folder / f"{name}.db"), backends=backends)
    return address, resume(address, backends=backends)


def test_all_backends_agree_where_prose_ends(tmp_path: Path) -> None:
    address, ours = leaked(tmp_path, "ours", cuts=False)
    _, theirs = leaked(tmp_path, "theirs", cuts=True)
    assert (ours.episodes_failed, ours.unparsed, ours.digest) == (0, 0, theirs.digest)
    with open_run(address) as reader:
        from storage.exchanges import exchanges

        for exchange in exchanges(reader):
            assert all(text and text.endswith(" days.") for text in exchange.texts.values())
            assert {given.reason for given in exchange.ratings} <= {"</answer> is there."}
    assert api.verify(str(tmp_path / "ours.db")).agrees


def test_no_stop_strings_turn_it_off(tmp_path: Path) -> None:
    _, off = leaked(tmp_path, "off", False, "models.social.stop=[]")
    assert off.episodes_failed == off.episodes
    assert off.warnings[0].startswith(f"{off.episodes} of {off.episodes} episodes failed: ")


CUT = ("models.social.max_tokens=20", "rounds=2")


def cut_run(folder: Path, name: str, *settings: str) -> Any:
    config = small(f"name={name}", *CUT, *settings)
    address = create(prepare(config), str(folder / f"{name}.db"))
    return address, resume(address)


def test_truncated_prose_is_missing_by_default(tmp_path: Path) -> None:
    _, done = cut_run(tmp_path, "missing")
    drafts = next(form for form in done.forms if form.form == "draft")
    assert done.episodes_failed == done.episodes > 0
    assert (drafts.cut, drafts.shortened, done.shortened) == (drafts.calls, 0, 0)
    assert done.warnings[0] == (
        f"{done.episodes} of {done.episodes} episodes failed: {drafts.calls} replies of draft were "
        "truncated at max_tokens 20; raise models.social.max_tokens, or see docs/models.md, "
        "Models that do not stop"
    )


def test_truncated_prose_is_kept_and_marked_by_choice(tmp_path: Path) -> None:
    address, done = cut_run(tmp_path, "kept", "truncated=sentence")
    assert done.shortened > 0 and done.episodes_failed < done.episodes
    with open_run(address) as reader:
        from storage.exchanges import exchanges

        played = [exchange for exchange in exchanges(reader) if exchange.failed_at is None]
        assert played and all(one.shortened == ("draft", "revision") for one in played)
        assert all(
            text is not None and text == whole_sentences(text)
            for one in played
            for text in one.texts.values()
        )
    assert api.verify(str(tmp_path / "kept.db")).agrees
    rows = {}
    for shortened in (None, True):
        with open_run(address) as reader:
            out = tmp_path / f"out-{shortened}"
            report = export([reader], ["sft", "exchanges"], out, shortened=shortened)
        first, every = report.results
        rows[shortened] = sum(first.written.values())
        assert sum(every.written.values()) == done.episodes
        if shortened is None:
            rule = "answer: truncated, and kept to its last whole sentence"
            assert first.removed[rule].removed >= 2 * len(played)
    assert rows[None] == 0 < rows[True]
    lines = (tmp_path / "out-None" / "exchanges.jsonl").read_text("utf-8").splitlines()
    assert ["draft", "revision"] in [json.loads(line)["shortened"] for line in lines]


def test_a_fork_reads_old_replies_as_they_were_read(tmp_path: Path) -> None:
    _, done = cut_run(tmp_path, "before")
    fork = api.fork(
        str(tmp_path / "before.db"),
        at=0,
        settings=["truncated=sentence"],
        db=str(tmp_path / "f.db"),
    )
    after = resume(fork)
    with open_run(fork) as reader:
        from sandbox.reading.metrics import scores_by_round

        old, new = scores_by_round(reader)
    assert old.failed == old.episodes and new.failed < new.episodes
    assert after.shortened > 0 == done.shortened
    assert api.verify(str(tmp_path / "f.db")).agrees


@pytest.mark.long
def test_the_program_says_that_its_episodes_fail(tmp_path: Path) -> None:
    settings = [part for pair in CUT for part in ("--set", pair)]
    command = [*PROGRAM, "run", "--json", "--name", "bad", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert said["warnings"][0].startswith("50 of 50 episodes failed: 100 replies of draft were")
    assert done.stderr.rstrip().splitlines()[-1] == said["warnings"][0]
    assert "episodes 50/50 (50 failed)" in done.stderr
    status = [*PROGRAM, "status", "bad"]
    shown = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "50 of 50 episodes failed" in shown and "raise models.social.max_tokens" in shown


def test_causes_are_put_together() -> None:
    causes = [
        Cause("draft", Status.CUT, 39),
        Cause("revise", Status.CUT, 30),
        Cause("draft", Status.EMPTY, 2),
        Cause("rate", Status.UNREADABLE, 90),
    ]
    limits = {"models.social.max_tokens": 200, "models.groups.a.model.max_tokens": 300}
    assert failing(32, 32, causes, {"draft", "revise"}, limits) == (
        "32 of 32 episodes failed: 39 replies of draft and 30 of revise were truncated at "
        "max_tokens 200 or 300; 2 replies of draft were empty; raise models.social.max_tokens and "
        "models.groups.a.model.max_tokens, or see docs/models.md, Models that do not stop"
    )
    assert failing(32, 15, causes, {"draft"}, limits) is None
    assert failing(0, 0, [], (), limits) is None
    down = failing(4, 4, [Cause("draft", Status.FAILED, 8)], {"draft"}, limits, "no such key")
    assert down is not None and "the last one: no such key" in down


def simulated(total: int, width: int, slots: int, fails: float, seed: int) -> list[float]:
    """Estimated by true seconds left, of a run of `width` episodes at a time on a server.

    The server answers `slots` calls at a time. An episode has 12 calls, or 2 if it fails.
    """
    rng = random.Random(seed)
    progress = Progress("run", 9, 1, total, Counts(), Clock())
    lengths = [2 if rng.random() < fails else 12 for _ in range(total)]
    waiting = list(range(min(width, total)))
    started, now = len(waiting), 0.0
    answered: list[tuple[float, int]] = []
    told = []
    while waiting or answered:
        while waiting and len(answered) < slots:
            heapq.heappush(answered, (now + rng.uniform(0.5, 1.5), waiting.pop(0)))
        now, number = heapq.heappop(answered)
        progress.counts.calls += 1
        progress.counts.open[number] += 1
        if progress.counts.open[number] < lengths[number]:
            waiting.append(number)
        else:
            progress.end(number, None)
            if started < total:
                waiting.append(started)
                started += 1
        calls = progress.calls_left()
        if calls is not None and progress.episodes < 0.6 * total:
            told.append((calls / (progress.counts.calls / now), now))
    return [estimate / (now - at) for estimate, at in told]


@pytest.mark.parametrize("fails", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("total", "width", "slots"), [(32, 32, 4), (32, 8, 8), (400, 64, 32), (1000, 600, 50)]
)
def test_time_left_can_be_believed(total: int, width: int, slots: int, fails: float) -> None:
    ratios = simulated(total, width, slots, fails, 5)
    assert ratios
    assert min(ratios) > 1 / 1.6 and max(ratios) < 1.6


def test_no_time_is_told_before_there_is_enough_to_go_by() -> None:
    progress = Progress("run", 9, 1, 100, Counts(), Clock())
    assert progress.calls_left() is None
    for number in range(3):
        progress.counts.open[number] = 5
        progress.end(number, None)
        assert progress.calls_left() is None
    progress.counts.open[3] = 5
    progress.end(3, None)
    assert progress.calls_left() == 96 * 5
    progress.counts.open[4] = 2
    assert progress.calls_left() == 95 * 5 + 3
    progress.counts.open.update(dict.fromkeys(range(5, 10), 6))  # longer than any that ended
    assert progress.calls_left() is None


def test_only_own_engines_are_found() -> None:
    script = "exec -a VLLM::EngineCore sleep 60"
    other = subprocess.Popen(["bash", "-c", script])
    mine = subprocess.Popen(["bash", "-c", f"bash -c '{script}' & echo $!; wait"], stdout=-1)
    try:
        assert mine.stdout is not None
        engine = int(mine.stdout.readline())
        while not Path(f"/proc/{engine}/cmdline").read_bytes().startswith(b"VLLM"):
            pass  # until the shell, whose command line names it as well, has become it
        assert engines_of(mine.pid) == [engine]
        assert other.pid not in engines_of(mine.pid)
    finally:
        os.kill(engine, signal.SIGKILL)
        for process in (other, mine):
            process.kill()
            process.communicate()


def test_form_with_tags_of_its_own() -> None:
    form = Form("say", "", "<letter>{{ x }}</letter>\nYour reply:", FreeText())
    assert template_stops(form.user, [form.user]).end("Dear.</letter>\nYour").text == "Dear."
