"""The main job at full size: a grid of 10 x 10, 50 rounds, 4 raters: 5,000 episodes, 50,000 calls.

Usage: python benchmarks/main_job.py --questions FILE (one per line, 5,000 or more)

Each step runs a command in a new process; time and peak memory are those that the operating system
reports. Exit status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Step(NamedTuple):
    """The JSON output, time and peak memory of one process."""

    data: dict[str, Any]
    seconds: float
    peak_mib: float


def sim(folder: Path, *arguments: str) -> Step:
    """Run one verb in a new process and parse its output."""
    code = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], "
        "capture_output=True, text=True); print(json.dumps([done.stdout, done.stderr, "
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    program = [sys.executable, str(ROOT / "run_sim.py"), *arguments, "--json"]
    began = time.perf_counter()
    out = subprocess.check_output([sys.executable, "-c", code, *program], cwd=folder, text=True)
    seconds = time.perf_counter() - began
    stdout, stderr, peak = json.loads(out)
    if not stdout.strip():
        raise SystemExit(f"{' '.join(arguments)}: {stderr}")
    return Step(json.loads(stdout), seconds, peak / 1024)


def killed(folder: Path, name: str, options: list[str], after: int) -> None:
    """Start a run and kill it after at least `after` calls."""
    program = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", name, *options]
    process = subprocess.Popen(program, cwd=folder, stderr=subprocess.DEVNULL)
    database = folder / "runs" / f"{name}.db"
    while counted(database, "SELECT count(*) FROM calls") < after:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def counted(database: Path, query: str) -> int:
    """Query a number; 0 while the database does not exist."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute(query).fetchone()[0] or 0)
    except sqlite3.OperationalError:
        return 0


TWICE = (
    "SELECT count(*) FROM (SELECT 1 FROM calls "
    "GROUP BY episode_id, form_id, agent, turn, attempt HAVING count(*) > 1)"
)
MISHAPS = ["--set", "models.social.misbehave=0.1", "--set", "models.observer.misbehave=0.1"]


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    questions = arguments.questions.resolve()
    if not questions.is_file():
        print(f"error: {questions}: no such file; expected a list of questions", file=sys.stderr)
        return 2
    options = [
        "--rounds",
        str(arguments.rounds),
        "--set",
        f"questions={questions}",
        "--set",
        "question_count=null",
        "--set",
        "world.size=10",
    ]
    checks: list[tuple[str, bool]] = []
    print("| step | result | seconds | peak memory, MiB |\n| --- | --- | ---: | ---: |")

    def line(step: str, result: str, done: Step | None = None) -> None:
        figures = f"{done.seconds:.1f} | {done.peak_mib:.0f}" if done else " | "
        print(f"| {step} | {result} | {figures} |", flush=True)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        full = sim(folder, "run", "--name", "full", *options)
        calls, digest = full.data["calls"], full.data["digest"]
        line("run", f"{full.data['episodes']:,} episodes, {calls:,} calls", full)
        database = folder / "runs" / "full.db"
        texts = counted(database, "SELECT sum(length(CAST(text AS BLOB))) FROM texts")
        size = database.stat().st_size
        line("database", f"{size:,} bytes, {size / texts:.2f} a byte of text")
        again = sim(folder, "verify", "full")
        line("verify", "agrees" if again.data["agrees"] else "DIFFERS", again)
        checks.append(("verify agrees", again.data["agrees"]))

        for width in (1, 1024):
            other = sim(
                folder,
                "run",
                "--name",
                f"width-{width}",
                *options,
                "--set",
                f"schedule.max_in_flight={width}",
            )
            same = other.data["digest"] == digest
            line(f"max_in_flight {width}", f"digest {'equal' if same else 'DIFFERENT'}", other)
            checks.append((f"the digest with max_in_flight {width}", same))

        killed(folder, "killed", options, calls // 2)
        before = counted(folder / "runs" / "killed.db", "SELECT count(*) FROM calls")
        resumed = sim(folder, "resume", "killed")
        twice = counted(folder / "runs" / "killed.db", TWICE)
        same = resumed.data["digest"] == digest and resumed.data["calls"] == calls
        line(
            f"killed after {before:,} calls, resumed",
            f"digest {'equal' if same else 'DIFFERENT'}, {twice} calls asked twice",
            resumed,
        )
        checks += [("the digest after a kill", same), ("no call asked twice", twice == 0)]

        for form in ("exchanges", "stable-alignment"):
            out = sim(folder, "export", "full", "--format", form, "--out", form)
            files = ", ".join(f"{name} {rows:,}" for name, rows in out.data["files"].items())
            line(f"export {form}", files, out)
        exported = out_lines(folder / "exchanges" / "exchanges.jsonl")
        checks.append(("the export holds what the journal holds", agrees(database, exported)))

        rough = sim(folder, "run", "--name", "rough", *options, *MISHAPS)
        data = rough.data
        line(
            "10 % misbehaving",
            f"{data['status']}: {data['calls_failed']:,} failed, {data['unparsed']:,} unparsed, "
            f"{data['episodes_failed']:,} of {data['episodes']:,} episodes failed",
            rough,
        )
        off = counted(folder / "runs" / "rough.db", OFF_SCALE)
        textless = counted(folder / "runs" / "rough.db", TEXTLESS)
        checks += [
            ("with misbehaving replies the run is done", data["status"] == "done"),
            ("no unusable reply is a number", off == 0),
            ("every unusable reply is a row with its text or its error", textless == 0),
        ]
    print()
    for check, good in checks:
        print(f"- {'holds' if good else 'FAILS'}: {check}")
    return 0 if all(good for _, good in checks) else 1


OFF_SCALE = """
SELECT (SELECT count(*) FROM ratings WHERE rating NOT BETWEEN 1 AND 7
        OR (rating IS NOT NULL AND status NOT IN ('ok', 'cut', 'lenient')))
     + (SELECT count(*) FROM observations WHERE rating NOT BETWEEN 1 AND 7
        OR (rating IS NOT NULL AND status NOT IN ('ok', 'cut', 'lenient')))
"""
TEXTLESS = """
SELECT count(*) FROM calls WHERE (status = 'failed' AND error IS NULL)
    OR (status != 'failed' AND reply IS NULL)
"""
JOURNAL = """
SELECT e.id,
    (SELECT text FROM texts JOIN stage_texts s ON s.text_id = texts.id
        WHERE s.episode_id = e.id AND s.stage = 'draft'),
    (SELECT text FROM texts JOIN stage_texts s ON s.text_id = texts.id
        WHERE s.episode_id = e.id AND s.stage = 'revision'),
    (SELECT sum(rating) FROM ratings WHERE episode_id = e.id),
    (SELECT sum(rating) FROM observations WHERE episode_id = e.id)
FROM episodes e ORDER BY e.id
"""
SCORES = ("alignment_before", "engagement_before", "alignment_after", "engagement_after")


def out_lines(path: Path) -> list[tuple[Any, ...]]:
    """The exported exchanges, in the columns of `JOURNAL`."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [
        (
            row["episode"],
            row["draft"],
            row["revision"],
            sum(one["rating"] or 0 for one in row["ratings"]),
            sum(row[name] or 0 for name in SCORES),
        )
        for row in rows
    ]


def agrees(database: Path, exported: list[tuple[Any, ...]]) -> bool:
    """Whether an export equals the result of an SQL query on the database."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(JOURNAL).fetchall() == exported


if __name__ == "__main__":
    sys.exit(main())
