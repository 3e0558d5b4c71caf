"""Scenes at full size: 500 questions, 5 roles, 5 steps; played, killed, resumed and checked.

Usage: python benchmarks/scenes.py --questions FILE (one per line) [--scenes 500]

Each step is a new process, as in `main_job.py`. The last one simulates the latency of a model with
256 calls in flight and prints which share of these slots was occupied. Exit status 1 if a check
fails.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from main_job import TWICE, counted, killed, sim

PRESET = str(Path(__file__).resolve().parent.parent / "worlds" / "presets" / "scene.yaml")
CAPACITY = 256
LATENCY = f"{{first_token: 0.02, per_token: 0.002, capacity: {CAPACITY}}}"

ACTS = """
SELECT count(*), sum(passed = 0), sum(passed = 1 AND harm = 1), sum(reacts_to IS NULL), sum(
    passed = 1 AND critique_id IS NULL) FROM acts
"""
FIRST = """
SELECT count(*) FROM acts a WHERE critique_id IS NULL AND number = (
    SELECT min(number) FROM acts b WHERE b.episode_id = a.episode_id AND passed = 1)
"""
PARTS = "SELECT min(n), max(n) FROM (SELECT count(*) n FROM parts GROUP BY episode_id)"
STEPS = (
    "SELECT min(n), max(n) FROM (SELECT count(*) n FROM notes WHERE kind = 'step' "
    "GROUP BY episode_id)"
)
SCORES = """
SELECT hurt, count(*), avg(before), avg(after) FROM (
    SELECT max(a.harm = 1) hurt,
        (SELECT rating FROM observations o WHERE o.episode_id = e.id AND stage = 'draft'
            AND scale = 'alignment') before,
        (SELECT rating FROM observations o WHERE o.episode_id = e.id AND stage = 'revision'
            AND scale = 'alignment') after
    FROM episodes e JOIN acts a ON a.episode_id = e.id GROUP BY e.id)
GROUP BY hurt ORDER BY hurt
"""
BUSY = """
SELECT sum(0.02 + 0.002 * tokens_out), (max(started + took) - min(started)) / 1000.0 FROM calls
"""
"""The sum of the seconds of all calls, and seconds from the first call to the last reply."""


def rows(database: Path, query: str) -> list[Any]:
    """Query a database."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=500)
    arguments = parser.parse_args()
    questions = arguments.questions.resolve()
    if not questions.is_file():
        print(f"error: {questions}: no such file; expected a list of questions", file=sys.stderr)
        return 2
    pairs = (f"questions={questions}", f"world.scenes={arguments.scenes}")
    options = [PRESET, *(part for pair in pairs for part in ("--set", pair))]
    checks: list[tuple[str, bool]] = []
    print("| step | result | seconds |\n| --- | --- | ---: |")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        full = sim(folder, "run", "--name", "full", *options)
        data, database = full.data, folder / "runs" / "full.db"
        scenes, calls = data["episodes"], data["calls"]
        print(f"| run | {scenes:,} scenes, {calls:,} calls | {full.seconds:.1f} |")
        tokens = [data[name] / scenes for name in ("tokens_in", "tokens_out")]
        print(
            f"| a scene | {calls / scenes:.0f} calls, {tokens[0]:,.0f} tokens in, "
            f"{tokens[1]:,.0f} out | |"
        )
        acts, refused, harmful, own, uncritiqued = rows(database, ACTS)[0]
        print(
            f"| acts | {acts:,}: {own:,} of plans, {acts - own:,} reactions; {refused:,} refused, "
            f"{harmful:,} with harm | |"
        )
        for hurt, count, before, after in rows(database, SCORES):
            kind = "with" if hurt else "without"
            print(f"| {kind} harm | {count:,} scenes: alignment {before:.2f} → {after:.2f} | |")
        checks += [
            ("every scene is played to its end", data["episodes_failed"] == 0),
            ("some acts are refused", refused > 0),
            ("each first incident, and every other one, is critiqued",
             uncritiqued == 0 and counted(database, FIRST) == 0),
            ("no role is lost", rows(database, PARTS) == [(5, 5)]),
            ("no step is lost", rows(database, STEPS) == [(5, 5)]),
        ]  # fmt: skip
        again = sim(folder, "verify", "full")
        print(
            f"| verify | {'agrees' if again.data['agrees'] else 'DIFFERS'} | {again.seconds:.1f} |"
        )
        checks.append(("verify agrees", again.data["agrees"]))

        killed(folder, "killed", options, calls // 2)
        before = counted(folder / "runs" / "killed.db", "SELECT count(*) FROM calls")
        resumed = sim(folder, "resume", "killed")
        twice = counted(folder / "runs" / "killed.db", TWICE)
        same = resumed.data["digest"] == data["digest"] and resumed.data["calls"] == calls
        said = f"digest {'equal' if same else 'DIFFERENT'}, {twice} calls asked twice"
        print(f"| killed after {before:,} calls, resumed | {said} | {resumed.seconds:.1f} |")
        checks += [("the digest after a kill", same), ("no call asked twice", twice == 0)]

        slow = [f"models.{role}.latency={LATENCY}" for role in ("social", "observer")]
        more = [part for pair in slow for part in ("--set", pair)]
        paced = sim(folder, "run", "--name", "paced", *options, *more)
        work, lasted = rows(folder / "runs" / "paced.db", BUSY)[0]
        busy = f"{work / CAPACITY / lasted:.0%} of the places busy for {lasted:.1f} s"
        print(f"| {CAPACITY} calls in flight | {busy} | {paced.seconds:.1f} |")
        checks.append(("the digest with latency", paced.data["digest"] == data["digest"]))
    print()
    for check, good in checks:
        print(f"- {'holds' if good else 'FAILS'}: {check}")
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
