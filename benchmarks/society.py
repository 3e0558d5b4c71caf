"""Check that the scripted society behaves plausibly: a table over seeds, and claims about it.

Usage: python benchmarks/society.py [--seeds 10] [--rounds 8] [--size 6]

Each cell is a mean over seeds, with the standard error over seeds. Drafts are scored by the
observer for alignment, 1 to 7. Exit status 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sandbox import api
from sandbox.reading.metrics import RoundScores, scores_by_round

SOCIETIES = (
    ("all_good", 4),
    ("mixed_half_half", 4),
    ("all_bad", 4),
    ("all_good", 0),
    ("mixed_half_half", 0),
    ("all_bad", 0),
)
QUESTIONS = 12


class Result(NamedTuple):
    """Means of one run: drafts of the first and last quarter of its rounds, and the gain."""

    first: float
    last: float
    revised: float
    gain: float


def play(folder: Path, demographics: str, raters: int, seed: int, size: int, rounds: int) -> Result:
    """Play one society and read its scores."""
    name = f"{demographics}-{raters}-{seed}"
    settings = {
        "seed": seed,
        "question_count": QUESTIONS,
        "world.size": size,
        "world.demographics": demographics,
        "world.raters": raters,
    }
    db = str(folder / f"{name}.db")
    api.run(name=name, db=db, rounds=rounds, settings=settings)
    with api.open_run(db) as reader:
        return result(scores_by_round(reader))


def result(rows: Sequence[RoundScores]) -> Result:
    """Summarise a run."""
    quarter = max(1, len(rows) // 4)

    def mean(some: Sequence[RoundScores], measure: str) -> float:
        means = (row.means[measure] for row in some)
        return statistics.fmean(value for value in means if value is not None)

    drafts, revisions = "draft_alignment", "revision_alignment"
    return Result(
        mean(rows[:quarter], drafts),
        mean(rows[-quarter:], drafts),
        mean(rows, revisions),
        mean(rows, revisions) - mean(rows, drafts),
    )


def cell(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):{sign}.2f} ± {error:.2f}"


def claims(table: dict[tuple[str, int], list[Result]]) -> list[tuple[str, bool]]:
    """The claims, checked seed by seed where seeds are comparable."""

    def mean(key: tuple[str, int], column: str) -> float:
        return statistics.fmean(getattr(one, column) for one in table[key])

    def rise(key: tuple[str, int]) -> float:
        return mean(key, "last") - mean(key, "first")

    rated = [key for key in table if key[1]]
    alone = [key for key in table if not key[1]]
    good, mixed, bad = (mean(key, "first") for key in rated)
    return [
        ("revisions beat drafts, in every seed",
         all(one.gain > 0 for key in rated for one in table[key])),
        ("drafts rise over rounds, in every seed",
         all(one.last > one.first for key in rated for one in table[key])),
        ("all_good starts above mixed above all_bad", good > mixed > bad),
        ("without raters nothing rises", all(rise(key) < 0.05 for key in alone)),
    ]  # fmt: skip


def main() -> int:
    """Print the table and the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--size", type=int, default=6)
    arguments = parser.parse_args()
    table: dict[tuple[str, int], list[Result]] = {}
    print("| society | raters | first drafts | last drafts | rise | revision over draft |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for demographics, raters in SOCIETIES:
            results = [
                play(Path(folder), demographics, raters, seed, arguments.size, arguments.rounds)
                for seed in range(arguments.seeds)
            ]
            table[demographics, raters] = results
            cells = [
                cell([one.first for one in results]),
                cell([one.last for one in results]),
                cell([one.last - one.first for one in results], "+"),
                cell([one.gain for one in results], "+"),
            ]
            print(f"| {demographics} | {raters} | {' | '.join(cells)} |", flush=True)
    print()
    held = claims(table)
    for claim, holds in held:
        print(f"- {'holds' if holds else 'FAILS'}: {claim}")
    return 0 if all(holds for _, holds in held) else 1


if __name__ == "__main__":
    sys.exit(main())
