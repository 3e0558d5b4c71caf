"""Runs of the personal world for tests of what is read and shown of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stored import Run

from sandbox.config import PRESETS, load_config
from sandbox.engine.run import create, prepare, resume

PEOPLE: tuple[dict[str, Any], ...] = (
    {
        "name": "Ama",
        "description": "You run a small shop.",
        "survey": {"gender": "Female", "politics": "left", "age": "25-34 years old"},
        "preferences": {"tone": "friendly", "wishes": ["Swear a little.", "Use short words."]},
    },
    {
        "name": "Ben",
        "description": "You run a small shop.",
        "survey": {"gender": "Male", "politics": "right", "age": "35-44 years old"},
        "preferences": {"stated": {"safety": 90}, "tone": "formal"},
    },
    {
        "name": "Chi",
        "description": "You drive a bus.",
        "survey": {"gender": "Female"},
        "preferences": {"length": "short"},
    },
    {
        "name": "Dov",
        "description": "You drive a bus.",
        "survey": {"gender": "Male"},
        "preferences": {"length": "long"},
    },
)


def make_personal(folder: Path, *settings: str, rounds: int = 2, name: str = "bounds") -> Run:
    """Play a run of four users with the scripted model."""
    people = folder / "people.jsonl"
    people.write_text("".join(json.dumps(one) + "\n" for one in PEOPLE))
    config = load_config(
        PRESETS / "personal.yaml",
        [f"personas={people}", "world.users=4", *settings],
        name=name,
        rounds=rounds,
    )
    path = folder / f"{name}.db"
    assert resume(create(prepare(config), str(path))).status == "done"
    return Run(path, name)


def replace_verdicts(run: Run, kind: str, *rows: tuple[str, str | None, str | None]) -> None:
    """Replace all verdicts of a kind by rows (subject, value, expected), one for each exchange.

    A verdict about a request belongs to the last message of the exchange's request.
    """
    run.sql("DELETE FROM verdicts WHERE kind = ?", kind)
    episodes = [row[0] for row in run.sql("SELECT id FROM episodes ORDER BY id")]
    for place, (subject, value, expected) in enumerate(rows):
        episode = episodes[place % len(episodes)]
        run.sql(
            "INSERT INTO verdicts (episode_id, number, kind, subject, utterance, value, expected) "
            "VALUES (?, (SELECT coalesce(max(number), -1) + 1 FROM verdicts WHERE episode_id = ?), "
            "?, ?, (SELECT max(number) FROM utterances WHERE episode_id = ? "
            "AND kind = 'red_team' AND ? = 'obeyed'), ?, ?)",
            *(episode, episode, kind, subject, episode, kind, value, expected),
        )
