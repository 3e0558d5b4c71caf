"""Runs for tests of exports, and plain SQL queries to check exports against."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sandbox.config import QUICKSTART, load_config
from sandbox.datasets import FORMATS, ExportReport, export
from sandbox.engine.run import create, prepare, resume
from storage.database import open_for_reading, parse_url
from storage.exchanges import Exchange, exchanges
from storage.reader import Reader

SPOILT = "attempts=1", "models.social.misbehave=0.3", "models.observer.misbehave=0.3"

GENERAL = tuple(name for name, format in FORMATS.items() if format.conversations != "only")
"""The formats that fit worlds without conversations of users."""


class Run(NamedTuple):
    """A run in a database file, with accessors."""

    path: Path
    name: str

    @property
    def reader(self) -> Reader:
        return Reader.find(open_for_reading(parse_url(str(self.path))), self.name, str(self.path))

    def sql(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()

    def all(self) -> list[Exchange]:
        return list(exchanges(self.reader))

    def copy(self, folder: Path) -> Run:
        return Run(Path(shutil.copy(self.path, folder / "copy.db")), self.name)


def make(path: Path, *settings: str, name: str = "small", play: bool = True, **top: Any) -> Run:
    config = load_config(QUICKSTART, settings, name=name, **top)
    address = create(prepare(config), str(path))
    if play:
        assert resume(address).status == "done"
    return Run(path, name)


def lines(out: Path, name: str) -> list[Any]:
    with (out / name).open() as file:
        return [json.loads(line) for line in file]


def removals(report: ExportReport) -> dict[str, int]:
    """The number of candidates removed by each rule, for an export of one format."""
    return {rule: one.removed for rule, one in report.results[0].removed.items()}


EPISODE = """SELECT id AS episode, round, author, failed_at,
    (SELECT text FROM texts WHERE id = (SELECT text_id FROM stage_texts
        WHERE episode_id = e.id AND stage = 'draft')) AS draft,
    (SELECT text FROM texts WHERE id = (SELECT text_id FROM stage_texts
        WHERE episode_id = e.id AND stage = 'revision')) AS revision,
    (SELECT text FROM texts WHERE id =
        (SELECT text_id FROM questions WHERE id = question_id)) AS question,
    (SELECT label FROM agents WHERE number = author) AS label,
    (SELECT persona FROM agents WHERE number = author) AS persona,
    (SELECT name FROM models WHERE id = (SELECT model_id FROM calls WHERE episode_id = e.id
        AND agent = author LIMIT 1)) AS model,
    (SELECT avg(rating) FROM ratings WHERE episode_id = e.id) AS mean_rating
    FROM episodes e WHERE id = ?"""
RATINGS = """SELECT rater, (SELECT label FROM agents WHERE number = rater) AS label, rating,
    (SELECT text FROM texts WHERE id = reason_id) AS reason, status,
    (SELECT expected FROM calls WHERE id = call_id) AS expected,
    (SELECT name FROM models WHERE id =
        (SELECT model_id FROM calls WHERE id = call_id)) AS model
    FROM ratings WHERE episode_id = ? ORDER BY rater"""
OBSERVATIONS = """SELECT stage, scale, rating,
    (SELECT text FROM texts WHERE id = reason_id) AS reason, status,
    (SELECT expected FROM calls WHERE id = call_id) AS expected
    FROM observations WHERE episode_id = ?"""


def stored(run: Run, number: int) -> dict[str, Any]:
    """Read an exchange of the only run in a database with plain SQL."""
    row = dict(run.sql(EPISODE, number)[0])
    row["persona"] = json.loads(row["persona"])["name"]
    row["ratings"] = [dict(given) for given in run.sql(RATINGS, number)]
    scores = [f"{scale}_{w}" for scale in ("alignment", "engagement") for w in ("before", "after")]
    row |= {
        score + end: None for score in scores for end in ("", "_reason", "_status", "_expected")
    }
    for stage, scale, rating, reason, status, expected in run.sql(OBSERVATIONS, number):
        score = f"{scale}_{'before' if stage == 'draft' else 'after'}"
        row |= {score: rating, f"{score}_reason": reason, f"{score}_status": status}
        row[f"{score}_expected"] = expected
    return row


SAME_TEXTS = """UPDATE stage_texts SET text_id = (SELECT text_id FROM stage_texts d
    WHERE d.episode_id = stage_texts.episode_id AND d.stage = 'draft') WHERE stage = 'revision'"""
"""Sets revisions equal to their drafts."""


class Aligned(NamedTuple):
    """An export in the format stable-alignment."""

    report: ExportReport
    array: list[Any]
    lineage: list[Any]

    def of(self, kind: str) -> list[tuple[Any, list[Any]]]:
        """The elements of a kind, each with the origins of its responses."""
        both = zip(self.array, self.lineage, strict=True)
        return [(row, line["responses"]) for row, line in both if line["kind"] == kind]


def aligned(run: Run, out: Path, **options: Any) -> Aligned:
    report = export([run.reader], ["stable-alignment"], out, **options)
    array = json.loads((out / "stable_alignment.json").read_bytes())
    return Aligned(report, array, lines(out, "stable_alignment_lineage.jsonl"))
