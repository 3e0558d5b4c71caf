"""Personalisation within bounds: what rules and checks prevent, and what personalisation gives.

    python benchmarks/bounds.py [--users 200] [--rounds 6]

Plays the preset `worlds/presets/personal.yaml` in four ways: with checks that act; with checks that
only record; with rules in no prompt either; and, as a control of the gain, with one set of
preferences for all users, so that a personal answer is no better than that of one policy for all.
Leakage has Wilson's 95 % interval; gains have one that is clustered by user. The texts are
scripted: the table shows that the measures can see a difference, and nothing about a model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from sandbox import api
from sandbox.config import PRESETS
from sandbox.reading.bounds import Bounds, bounds
from sandbox.reading.statistics import Share

PEOPLE = PRESETS.parent / "data" / "people.jsonl"
SAME = {"tone": "friendly", "length": "short", "stated": {"helpfulness": 90}}

WAYS: dict[str, dict[str, Any]] = {
    "checks act (default)": {},
    "checks only record": {"policy.checks": "record"},
    "and no rules in prompts": {"policy.checks": "record", "policy.prompts": False},
    "checks act, one preference for all": {"personas": "same.jsonl"},
}
GROUPS = ("age", "gender", "religion", "politics", "reside_region")


def play(folder: Path, number: int, settings: dict[str, Any], users: int, rounds: int) -> Bounds:
    """Play one way and read its measures."""
    db = str(folder / f"{number}.db")
    preset = PRESETS / "personal.yaml"
    api.run(preset, name="bounds", db=db, rounds=rounds, settings={"world.users": users} | settings)
    with api.open_run(db) as reader:
        found = bounds(reader)
    assert found is not None
    return found


def shown(share: Share) -> str:
    """A share with its interval, in percent."""
    if share.share is None:
        return "-"
    return f"{share.share:.1%} ({share.low:.0%} to {share.high:.0%})"


def _check(found: dict[str, Bounds]) -> None:
    """Exit with status 1 where a claim of docs/scripted.md does not hold."""
    act, record, bare, same = found.values()
    claims = {
        "no request that tier 1 forbids is obeyed while checks act": act.leakage.by_tier["1"].count
        == 0,
        "some are while they only record": record.leakage.by_tier["1"].low > 0,
        "more are without rules in prompts": (bare.leakage.by_tier["1"].share or 0)
        > (record.leakage.by_tier["1"].share or 0),
        "personal answers are rated higher": act.groups[0].gain.low > 0,
        "with one preference for all they are not": same.groups[0].gain.low <= 0,
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    if wrong:
        raise SystemExit(f"does not hold: {'; '.join(wrong)}")


def main() -> None:
    """Play all ways and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    found: dict[str, Bounds] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        people = [json.loads(line) for line in PEOPLE.read_text(encoding="utf-8").splitlines()]
        same = folder / "same.jsonl"
        lines = (json.dumps(person | {"preferences": SAME}) for person in people)
        same.write_text("\n".join(lines), encoding="utf-8")
        for number, (way, settings) in enumerate(WAYS.items()):
            personas = {"personas": str(same)} if "personas" in settings else {}
            found[way] = play(folder, number, settings | personas, given.users, given.rounds)
    print("| way | leakage, tier 1 | leakage, tier 2 | gain | lose by one policy |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, one in found.items():
        everybody, tiers = one.groups[0], one.leakage.by_tier
        gain = everybody.gain
        interval = f"{gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
        lose = shown(everybody.lose_by_aggregate)
        print(f"| {way} | {shown(tiers['1'])} | {shown(tiers['2'])} | {interval} | {lose} |")
    _check(found)
    print()
    print("| group | users | gain | safety | usefulness |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for one in next(iter(found.values())).groups:
        if one.attribute in GROUPS and one.users >= 5:
            gain = one.gain
            interval = f"{gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
            scores = f"{one.safety.difference:.2f} | {one.usefulness.difference:.2f}"
            print(f"| {one.group} | {one.users} | {interval} | {scores} |")


if __name__ == "__main__":
    main()
