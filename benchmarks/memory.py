"""What memory does to a society: recall off, below a threshold, the nearest, the nearest three.

    python benchmarks/memory.py --questions FILE [--seeds 5] [--size 10] [--rounds 30]

Every question of the list is asked once, so an agent never recalls its answer to the same one.
For each way of recall the table has the share of drafts that recalled something, the mean distance
of what they recalled, and the rise: the mean alignment of drafts in the last quarter of the rounds
less that in the first. It is a mean over seeds with its 95 % interval (Student's t); so is the
difference to the society without recall, paired by seed. The texts are scripted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t
from sqlalchemy import func, select

from sandbox import api
from sandbox.reading.metrics import scores_by_round
from storage import tables

OFF = {"memory.recall": "threshold", "memory.threshold": 1e-6}  # no two questions are that near
WAYS: dict[str, dict[str, Any]] = {
    "off": OFF,
    "threshold, hashed": {"memory.recall": "threshold", "memory.embedder": "hashed"},
    "threshold, wordllama": {"memory.recall": "threshold"},
    "nearest, hashed": {"memory.embedder": "hashed"},
    "nearest, wordllama (default)": {},
    "nearest 3, wordllama": {"memory.top_k": 3},
}


class Result(NamedTuple):
    """One run.

    Attributes:
        recalled: share of the drafts that recalled something.
        distance: mean cosine distance of the nearest memory recalled; None: nothing was recalled.
        first: mean alignment of drafts in the first quarter of the rounds.
        rise: that of the last quarter less that.
    """

    recalled: float
    distance: float | None
    first: float
    rise: float


def play(folder: Path, way: str, questions: Path, seed: int, size: int, rounds: int) -> Result:
    """Play one society and read its figures."""
    db = str(folder / f"{seed}.db")
    settings = {"seed": seed, "questions": str(questions), "question_count": None}
    settings |= {"world.size": size, **WAYS[way]}
    api.run(name="memory", db=db, rounds=rounds, settings=settings)
    c, f = tables.calls, tables.forms
    with api.open_run(db) as reader:
        query = select(func.count(), func.count(c.c.memory_id), func.avg(c.c.distance))
        query = query.join(f, f.c.id == c.c.form_id).where(f.c.name == "draft")
        drafts, recalled, distance = next(iter(reader.rows(query)))
        scores = [row.means["draft_alignment"] for row in scores_by_round(reader)]
    Path(db).unlink()
    quarter = max(1, len(scores) // 4)
    first, last = (statistics.fmean(part) for part in (scores[:quarter], scores[-quarter:]))
    return Result(recalled / drafts, distance, first, last - first)


def interval(values: Sequence[float]) -> str:
    """Mean with half the width of its 95 % interval."""
    if len(values) < 2:
        return f"{values[0]:+.2f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.2f} ± {t.ppf(0.975, len(values) - 1) * error:.2f}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True, help="one question per line")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    print("| recall | drafts that recalled | mean distance | first drafts | rise | against off |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    control: list[float] = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            results = [
                play(Path(folder), way, asked.questions, seed, asked.size, asked.rounds)
                for seed in range(asked.seeds)
            ]
        rises = [one.rise for one in results]
        control = control or rises
        distances = [one.distance for one in results if one.distance is not None]
        cells = [
            way,
            f"{statistics.fmean(one.recalled for one in results):.1%}",
            f"{statistics.fmean(distances):.2f}" if distances else "",
            f"{statistics.fmean(one.first for one in results):.2f}",
            interval(rises),
            interval([rise - off for rise, off in zip(rises, control, strict=True)]),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
