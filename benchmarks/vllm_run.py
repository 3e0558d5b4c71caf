"""Play a society on the real vLLM, in process and served; compare with the engine's batch speed.

Usage: python benchmarks/vllm_run.py [--model FOLDER] [--size 20] [--rounds 3] [--raters 4] ...

It ends with status 1 unless every step has the calls of the first and no unreadable rating, and in
single precision (`--extra '{"dtype": "float32"}'`) the digest of the first.

Without `--model` it creates a tiny model with random weights, so that it also runs on a machine
without a GPU. Each step is a new process; the time to load the model is not counted.

- *in process*: backend `vllm`, out of order.
- *lock step*: the same with a barrier between rounds.
- *engine killed*: the same, with the engine's process killed half-way.
- *served*: backend `openai`, and a vLLM server on this machine with the same engine arguments.
- *at once*: one call of `LLM.generate` with the prompts, seeds and limits of the first run: the
  bound to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from agents.chance import seed_of
from agents.forms import CallName
from sandbox import api
from worlds.grid import Settings, World

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("in-process", "lock-step", "killed", "served", "at-once")


class Measured(NamedTuple):
    """The measurements of one step.

    `seconds` is from the first call sent to the last reply; `cached` is the share of the prompts'
    tokens that the engine had in its prefix cache.
    """

    seconds: float
    calls: int
    tokens_in: int
    tokens_out: int
    cached: float
    unreadable: int = 0
    digest: str | None = None


def quiet(command: list[str]) -> str:
    """Run a command and return its output; standard error is shown only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def program(*arguments: str) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, str(ROOT / "run_sim.py"), *arguments]


def run(folder: Path, name: str, settings: list[str], kill_after: int | None = None) -> Measured:
    """Play a run in a new process, and optionally kill its engine after some calls."""
    pairs = [part for pair in settings for part in ("--set", pair)]
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            program("run", "--json", "--name", name, *pairs),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        if kill_after is not None:
            _kill_engine(folder / "runs" / f"{name}.db", kill_after, process)
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name}: {output}{log.read_text()}")
    return measured(folder / "runs" / f"{name}.db", json.loads(output))


def _kill_engine(database: Path, after: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and _count(database) < after:
        time.sleep(0.1)
    engines = engines_of(process.pid)
    if not engines and process.poll() is None:
        raise SystemExit(f"process {process.pid} has no engine; expected VLLM::EngineCore below it")
    for engine in engines:
        os.kill(engine, signal.SIGKILL)


def engines_of(process: int) -> list[int]:
    """The ids of the engines' processes below a process; those of others are not its."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    below = {process}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(child for child in below - {process} if _is_engine(child))


def _is_engine(process: int) -> bool:
    try:
        return b"VLLM::EngineCore" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _count(database: Path) -> int:
    try:
        return int(rows(database, "SELECT count(*) FROM calls")[0][0])
    except sqlite3.OperationalError:
        return 0


def rows(database: Path, query: str) -> list[Any]:
    """Query a database."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


CACHED_BY_FORM = """
SELECT forms.name, 1.0 * sum(cached_tokens) / sum(tokens_in)
FROM calls JOIN forms ON forms.id = form_id GROUP BY forms.name ORDER BY forms.id
"""
UNREADABLE = """
SELECT (SELECT count(*) FROM ratings WHERE rating IS NULL)
     + (SELECT count(*) FROM observations WHERE rating IS NULL)
"""
TOTALS = """
SELECT min(started), max(started + took), sum(tokens_in), sum(tokens_out), sum(cached_tokens)
FROM calls
"""


def measured(database: Path, outcome: dict[str, Any]) -> Measured:
    """The measurements of a finished run, from its journal."""
    first, last, tokens_in, tokens_out, cached = rows(database, TOTALS)[0]
    return Measured(
        (last - first) / 1000,
        outcome["calls"],
        tokens_in,
        tokens_out,
        (cached or 0) / tokens_in,
        rows(database, UNREADABLE)[0][0],
        outcome["digest"],
    )


@contextmanager
def server(model: str, extra: dict[str, Any], log: Path) -> Iterator[str]:
    """Start a vLLM server with the engine arguments that the in-process backend would use."""
    code = (
        "import json, sys; from sandbox.backends.vllm_config import VllmConfig, engine_arguments; "
        "print(json.dumps(engine_arguments(VllmConfig.model_validate_json(sys.argv[1]))))"
    )
    config = json.dumps({"backend": "vllm", "model": model, "extra": extra})
    output = quiet([sys.executable, "-c", code, config])
    arguments = json.loads(output.splitlines()[-1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [flag for key, value in arguments.items() for flag in _flag(key, value)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
    command += ["--port", str(port), "--enable-prompt-tokens-details"]
    command += ["--disable-uvicorn-access-log"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def _flag(key: str, value: Any) -> list[str]:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server did not start: {log.read_text()[-3000:]}")


def at_once(database: Path, settings: dict[str, Any]) -> Measured:
    """Run `LLM.generate` on every call of a run, in journal order, in this process."""
    from vllm import LLM

    from sandbox.backends.vllm_config import VllmConfig, engine_arguments

    config = VllmConfig.model_validate(settings)
    engine = LLM(**engine_arguments(config))
    tokenizer = engine.get_tokenizer()
    prompts, params = [], []
    for system, user, shape, seed in calls_of(database):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompts.append({"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)})
        params.append(
            config.params(
                seed, shape.regex, shape.max_tokens or config.max_tokens, config.temperature, 0
            )
        )
    began = time.perf_counter()
    outputs = engine.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    tokens_in = sum(len(one.prompt_token_ids) for one in outputs)
    tokens_out = sum(len(one.outputs[0].token_ids) for one in outputs)
    cached = sum(one.num_cached_tokens or 0 for one in outputs)
    return Measured(seconds, len(outputs), tokens_in, tokens_out, cached / tokens_in)


def calls_of(database: Path) -> list[tuple[str, str, Any, int]]:
    """System message, user message, shape and seed of every call, in journal order."""
    shapes = {form.name: form.reply for form in World(Settings(), 0).forms}
    systems = dict(rows(database, "SELECT name, system FROM forms"))
    found = []
    with api.open_run(str(database)) as reader:
        for number in sorted(reader.episodes_with_calls()):
            for call in reader.journal(number):
                name = CallName(
                    number // reader.run.per_round,
                    *(number, call.form, call.agent, call.turn, call.attempt),
                )
                seed = seed_of(reader.run.seed, name)
                shown = (systems[call.form], call.prompt, shapes[call.form], seed)
                found.append((call.call_id, shown))
    return [shown for _, shown in sorted(found, key=lambda one: one[0])]


def in_another_process(database: Path, settings: dict[str, Any]) -> Measured:
    """Run `at_once` in a new process, so that it frees all memory."""
    answer = database.with_suffix(".json")
    quiet([sys.executable, __file__, "--at-once", str(database), json.dumps(settings), str(answer)])
    return Measured(*json.loads(answer.read_text()))


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder or name on the hub; default: a tiny model")
    parser.add_argument("--extra", type=json.loads, default={}, help="engine arguments, as JSON")
    parser.add_argument("--size", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raters", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], help="a further setting: KEY=VALUE")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--at-once", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.at_once:
        database, settings, answer = arguments.at_once
        done = at_once(Path(database), json.loads(settings))
        Path(answer).write_text(json.dumps(done))
        return 0
    os.environ |= {"VLLM_NO_USAGE_STATS": "1"}
    with tempfile.TemporaryDirectory() as place:
        return measure(Path(place), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> int:
    """Run all steps; the others are compared with the first."""
    extra = {"max_num_seqs": 256, **arguments.extra}
    model = arguments.model
    if model is None:
        model = str(folder / "model")
        quiet([sys.executable, str(ROOT / "tests" / "tiny_model.py"), str(folder)])
        extra = {"dtype": "float32", "max_model_len": 2048, **extra}
    limit = {"max_tokens": arguments.max_tokens}
    inside = {"backend": "vllm", "model": model, "extra": extra, **limit}
    shared = [
        f"world.size={arguments.size}",
        f"world.raters={arguments.raters}",
        f"rounds={arguments.rounds}",
        "question_count=null",
        *arguments.set,
    ]

    def society(name: str, settings: dict[str, Any], *more: str, kill: int | None = None) -> Any:
        spoken = json.dumps(settings)
        both = [f"models.social={spoken}", f"models.observer={spoken}"]
        return run(folder, name, [*shared, *both, *more], kill)

    table = Table(society("in-process", inside), exact=extra.get("dtype") == "float32")
    database = folder / "runs" / "in-process.db"
    if "at-once" in arguments.steps:
        table.add("at once", in_another_process(database, inside))
    if "lock-step" in arguments.steps:
        table.add("lock step", society("lock-step", inside, "schedule.order=lock_step"))
    if "served" in arguments.steps:
        with server(model, extra, folder / "server.log") as address:
            outside = {"backend": "openai", "base_url": address, "model": model, **limit}
            table.add("served", society("served", outside))
    if "killed" in arguments.steps:
        half = table.first.calls // 2
        table.add("engine killed half-way", society("killed", inside, kill=half))
    print()
    for form, share in rows(database, CACHED_BY_FORM):
        print(f"- from the prefix cache, in process, {form}: {100 * share:.0f} %")
    print(f"- unreadable ratings, in all runs: {table.unreadable}")
    return 0 if table.good else 1


class Table:
    """Prints a row for each step, compared with the first.

    Attributes:
        good: every step has the calls of the first, no unreadable rating, and, if `exact`, the
            same digest.

    Args:
        first: the first step.
        exact: replies do not depend on what else is in a batch, as in single precision.
    """

    def __init__(self, first: Measured, exact: bool) -> None:
        self._exact = exact
        self.first = first
        self.unreadable = 0
        self.good = True
        print(
            "| step | calls | seconds | tokens/s | of them written | from the prefix cache "
            "| time against in process | digest |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
        )
        self.add("in process", first)

    def add(self, step: str, one: Measured) -> None:
        """Print a row."""
        same = one.digest == self.first.digest
        agrees = "" if one.digest is None else "equal" if same else "different"
        print(
            f"| {step} | {one.calls:,} | {one.seconds:.0f} "
            f"| {(one.tokens_in + one.tokens_out) / one.seconds:,.0f} "
            f"| {one.tokens_out / one.seconds:,.0f} | {100 * one.cached:.0f} % "
            f"| {one.seconds / self.first.seconds:.2f} | {agrees} |",
            flush=True,
        )
        self.unreadable += one.unreadable
        self.good &= one.unreadable == 0 and one.calls == self.first.calls
        self.good &= same or one.digest is None or not self._exact


if __name__ == "__main__":
    sys.exit(main())
