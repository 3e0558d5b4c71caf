"""How often a reward model orders pairs of answers as their raters do.

python benchmarks/reward_accuracy.py MODEL EXPORT/preference-test.jsonl OUT.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sandbox.evaluation.answering import Answer
from sandbox.evaluation.rewards import rewards_of


def main() -> None:
    """Score both answers of each pair; write how many pairs there are, and how many are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.pairs.read_text(encoding="utf-8").splitlines()]
    answers = [
        Answer(0, place, side, "pairs", place, row[name][-1]["content"], False)
        for place, row in enumerate(rows)
        for side, name in enumerate(("chosen", "rejected"))
    ]
    questions = [row["prompt"][-1]["content"] for row in rows]
    kept = given.out.with_suffix(".rewards.jsonl")
    found = rewards_of("reward", given.model, answers, questions, kept)
    scores = [found[one.origin] for one in answers]
    right = sum(map(float.__gt__, scores[::2], scores[1::2]))
    given.out.write_text(json.dumps({"pairs": len(rows), "right": right}), encoding="utf-8")


if __name__ == "__main__":
    main()
