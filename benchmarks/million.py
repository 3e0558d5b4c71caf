"""A run with a million calls: time, memory, size of the database, and latency of commands on it.

Usage: python benchmarks/million.py --questions FILE [--calls 1000000] [--agents 400]

The backend replies at once, so that only the program itself is measured. Each command on the
finished run is a new process, start-up included. The database is in a temporary folder unless
`--keep FOLDER` is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from driver import Cost, play

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = (
    ("status", ["status", "{run}"]),
    ("resume, nothing to do", ["resume", "{run}"]),
    ("inspect", ["inspect", "{run}"]),
    ("inspect agents", ["inspect", "{run}", "agents"]),
    ("inspect agent 7", ["inspect", "{run}", "agent", "7"]),
    ("inspect memory 7", ["inspect", "{run}", "memory", "7"]),
    ("inspect episode {episode}", ["inspect", "{run}", "episode", "{episode}"]),
    ("inspect call {call}", ["inspect", "{run}", "call", "{call}"]),
)


def timed(arguments: list[str]) -> float:
    """Run a command; returns its seconds."""
    program = [sys.executable, str(ROOT / "run_sim.py"), *arguments, "--json"]
    began = time.perf_counter()
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    json.loads(done.stdout)
    return seconds


def report(cost: Cost) -> None:
    """Print the cost of the run."""
    print(f"- {cost.calls:,} calls in {cost.seconds:,.0f} s of one core: "
          f"{cost.calls / cost.seconds:,.0f} per second")  # fmt: skip
    print(f"- peak memory: {cost.peak_mib:,.0f} MiB")
    print(f"- database: {cost.database:,} bytes, {cost.database / cost.texts:.2f} per byte of text")


def main() -> None:
    """Play the run, then run the commands on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", required=True)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=400)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        database = folder / "million.db"
        questions = str(Path(arguments.questions).resolve())
        cost = play(arguments.agents, arguments.calls, questions, False, database)
        report(cost)
        there = {"run": database, "episode": cost.calls // 20, "call": cost.calls // 2}
        print("\n| command | seconds |\n| --- | ---: |")
        for name, words in COMMANDS:
            seconds = timed([word.format(**there) for word in words])
            print(f"| {name.format(**there)} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
