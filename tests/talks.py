"""A small run of the personal world for tests of exports, and changes to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stored import Run

from sandbox.config import PRESETS, load_config
from sandbox.engine.run import create, prepare, resume

AGES = ("18-24 years old", "25-34 years old")


def person(number: int) -> dict[str, Any]:
    """A user: six women of the younger group, two men of the older one."""
    older = number >= 6
    return {
        "name": f"P{number}",
        "description": f"A baker of village {number}",
        "survey": {
            "age": AGES[older],
            "gender": "Male" if older else "Female",
            "religion": "Christian",
            "birth_country": "Peru",
            "reside_country": "Chile" if older else "Peru",
        },
        "preferences": {
            "stated": {"factuality": 40 + number, "values": 20},
            "wishes": ["Use short words.", "Name a source."],
        },
    }


def make_talks(folder: Path) -> Run:
    """Play two rounds of eight users, with the rules of tier 1 alone."""
    people = folder / "people.jsonl"
    people.write_text("\n".join(json.dumps(person(number)) for number in range(8)))
    config = load_config(
        PRESETS / "personal.yaml",
        [
            "rounds=2",
            "world.users=8",
            "world.turns=[2,2]",
            "world.profiling=false",
            "policy.file=null",
        ],
        name="talks",
    ).model_copy(update={"personas": people})
    assert resume(create(prepare(config), str(folder / "talks.db"))).status == "done"
    return Run(folder / "talks.db", "talks")


def breach(run: Run, episode: int, number: int, action: str, rule: str = "law.dose") -> None:
    """Let the reply of an utterance break a rule."""
    run.sql(
        """INSERT INTO breaches SELECT episode_id, 90 + turn, ?, 1, ?, 'a word', id FROM calls
        WHERE episode_id = ? AND turn = ? AND agent IS NULL
        AND form_id = (SELECT id FROM forms WHERE name = 'answer')""",
        rule,
        action,
        episode,
        number,
    )
