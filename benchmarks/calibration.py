"""Compare what a calibrated estimate says of runs with the time that these runs take.

Usage, with vLLM installed: python benchmarks/calibration.py [--model FOLDER] [--extra JSON]

`calibrate` measures one engine; `estimate --rates` then simulates each run from a sample of its
episodes; then the runs are played. Seconds of a run are those from its first call to the end of its
last one. Without a model it is the tests' tiny one, with random weights, on whatever vLLM runs on.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "64 agents, 4 raters, 4 rounds": ("world.size=8", "world.raters=4", "rounds=4"),
    "196 agents, 2 raters, 2 rounds": ("world.size=14", "world.raters=2", "rounds=2"),
    "100 agents, 8 raters, 2 rounds": ("world.size=10", "world.raters=8", "rounds=2"),
    "25 agents, lock step, 4 rounds": ("world.size=5", "schedule.order=lock_step", "rounds=4"),
}
TIMES = "SELECT min(started), max(started + took), count(*) FROM calls"


def program(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a verb of the program; returns the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_sim.py"), *arguments, "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(done.stdout))


def seconds_of(database: Path) -> tuple[float, int]:
    """Seconds from the first call of a run to the end of its last one, and the number of calls."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        first, last, calls = connection.execute(TIMES).fetchone()
    return (last - first) / 1000, calls


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder or name on the hub; default: a tiny model")
    parser.add_argument("--extra", type=json.loads, default={}, help="engine arguments, as JSON")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--seconds", default="5", help="least time of a step of calibrate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Calibrate, estimate and play the runs."""
    extra, model = {"max_num_seqs": 64, **arguments.extra}, arguments.model
    if model is None:
        subprocess.run(
            [sys.executable, str(ROOT / "tests" / "tiny_model.py"), str(folder), "--end", "2.8"],
            check=True,
            capture_output=True,
        )
        model = str(folder / "model")
        extra = {"dtype": "float32", "max_model_len": 2048, **extra}
    spoken = json.dumps(
        {"backend": "vllm", "model": model, "max_tokens": arguments.max_tokens, "extra": extra}
    )
    models = ["--set", f"models.social={spoken}", "--set", f"models.observer={spoken}"]
    program(folder, "calibrate", *models, "--seconds", arguments.seconds)
    print("| run | calls | estimated s | engine busy | real s | estimated / real |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for number, (name, settings) in enumerate(RUNS.items()):
        chosen = [*models, *(word for one in settings for word in ("--set", one))]
        chosen += ["--set", "question_count=null"]
        expected = program(folder, "estimate", *chosen, "--rates", "rates.json")["time"]
        program(folder, "run", *chosen, "--name", f"run-{number}")
        seconds, calls = seconds_of(folder / "runs" / f"run-{number}.db")
        estimated = expected["seconds"]["estimate"]
        print(
            f"| {name} | {calls:,} | {estimated:.0f} | {expected['busy']:.0%} | {seconds:.0f} "
            f"| {estimated / seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
