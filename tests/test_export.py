"""Exchanges and exports: exactly what the database holds, whole or not at all."""

from __future__ import annotations

import json
import re
import resource
import shutil
import sqlite3
import tracemalloc
from collections import Counter
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from storage.export.stable_alignment import COMMENT, REVISE, template

from sandbox.config import QUICKSTART, load_config
from sandbox.forking import fork
from sandbox.run import create, prepare, resume
from storage.database import open_for_reading, parse_run, parse_url
from storage.digest import digest
from storage.errors import InputError
from storage.exchanges import Exchange, exchange, exchanges, snapshot
from storage.export import FORMATS, ExportReport, export
from storage.reader import Reader

SPOILT = "attempts=1", "models.social.misbehave=0.3", "models.observer.misbehave=0.3"
COPY = """
INSERT INTO texts SELECT t.id + {n} * 1000000, text || {n} FROM texts t, questions q
    WHERE t.id = text_id AND q.id < 600;
INSERT INTO questions SELECT id + {n} * 600, run_id, source, text_id + {n} * 1000000, NULL
    FROM questions WHERE id < 600;
INSERT INTO calls (id, episode_id, form_id, agent, turn, attempt, model_id, prompt, prompt_hash,
    cut, status, started, took) SELECT id + {n} * 1000000, episode_id + {n} * 600, form_id, agent,
    turn, attempt, model_id, '', x'', cut, status, started, took
    FROM calls WHERE episode_id < 600;
INSERT INTO episodes SELECT id + {n} * 600, run_id, round + {n} * 6, author, {n} * 600 +
    question_id, failed_at, draft_id, revision_id, observed FROM episodes WHERE id < 600;
INSERT INTO ratings SELECT episode_id + {n} * 600, rater, rating, reason_id, status, call_id
    FROM ratings WHERE episode_id < 600;
INSERT INTO observations SELECT episode_id + {n} * 600, stage, scale, rating, reason_id, status,
    call_id FROM observations WHERE episode_id < 600
"""
HOSTILE = (
    'a\u2028b\u2029c\x85d\x0be\x1cf\r\ng\ufeff"\\ </script> ### Response:\n\U0001f9c0 \u202e\ud7ff'
)


class Run(NamedTuple):
    """A run in a database file, and ways to look into it."""

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


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """75 exchanges about 10 questions; every reply can be used."""
    return make(tmp_path_factory.mktemp("tidy") / "run.db", "rounds=3")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """150 exchanges about as many questions; three replies in ten are spoilt."""
    folder = tmp_path_factory.mktemp("messy")
    return make(folder / "run.db", "rounds=6", "question_count=null", *SPOILT)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """600 exchanges about as many questions, and three copies of each, about others again."""
    folder = tmp_path_factory.mktemp("wide")
    questions = folder / "questions.txt"
    questions.write_text("".join(f"How do I keep {n} bees?\n" for n in range(600)))
    few = "world.raters=1", "memory.prior_pairs=0", f"questions={questions}", "question_count=null"
    run = make(folder / "run.db", "world.size=10", "rounds=6", *few)
    for n in (1, 2, 3):
        for sql in COPY.format(n=n).split(";"):
            run.sql(sql)
    return run


def lines(out: Path, name: str) -> list[Any]:
    with (out / name).open() as file:
        return [json.loads(line) for line in file]


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
    report = export(run.reader, "stable-alignment", out, **options)
    array = json.loads((out / "stable_alignment.json").read_bytes())
    return Aligned(report, array, lines(out, "stable_alignment_lineage.jsonl"))


QUERY = "Question: {question}\n\nAnswer: {draft}"
EPISODE = """SELECT id AS episode, round, author, failed_at,
    (SELECT text FROM texts WHERE id = draft_id) AS draft,
    (SELECT text FROM texts WHERE id = revision_id) AS revision,
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
    (SELECT name FROM models WHERE id =
        (SELECT model_id FROM calls WHERE id = call_id)) AS model
    FROM ratings WHERE episode_id = ? ORDER BY rater"""
OBSERVATIONS = """SELECT stage, scale, rating,
    (SELECT text FROM texts WHERE id = reason_id) AS reason, status
    FROM observations WHERE episode_id = ?"""


def stored(run: Run, number: int) -> dict[str, Any]:
    """An exchange of the only run in a database, as plain SQL tells it."""
    row = dict(run.sql(EPISODE, number)[0])
    row["persona"] = json.loads(row["persona"])["name"]
    row["ratings"] = [dict(given) for given in run.sql(RATINGS, number)]
    scores = [f"{scale}_{w}" for scale in ("alignment", "engagement") for w in ("before", "after")]
    row |= {score + end: None for score in scores for end in ("", "_reason", "_status")}
    for stage, scale, rating, reason, status in run.sql(OBSERVATIONS, number):
        score = f"{scale}_{'before' if stage == 'draft' else 'after'}"
        row |= {score: rating, f"{score}_reason": reason, f"{score}_status": status}
    return row


def test_the_exchanges_are_what_the_database_holds(messy: Run, tmp_path: Path) -> None:
    report = export(messy.reader, "exchanges", tmp_path / "out")
    rows = lines(tmp_path / "out", "exchanges.jsonl")
    assert report.files == {"exchanges.jsonl": 150} and len(rows) == 150
    for row in rows:
        expected = stored(messy, row["episode"])
        assert {key: row[key] for key in expected} == expected
        assert row["run"] == "small" and row["scripted"] is True
        assert row["observer_model"] == ("scripted" if row["draft"] else None)
    assert {row["digest"] for row in rows} == {messy.reader.run.digest} != {None}
    assert [row["episode"] for row in rows] == list(range(150))
    assert {row["failed_at"] for row in rows} == {None, "draft", "revise"}


def test_exchanges_come_in_order_and_can_be_picked(tidy: Run) -> None:
    everyone = tidy.all()
    assert [(one.round, one.author) for one in everyone] == [
        (round, author) for round in range(3) for author in range(25)
    ]
    by_question = list(exchanges(tidy.reader, by="question"))
    assert sorted(by_question, key=lambda one: one.episode) == everyone
    groups = [list(group) for _, group in groupby(by_question, lambda one: one.question)]
    assert len(groups) == 10 and all(group == sorted(group) for group in groups)
    picked = list(exchanges(tidy.reader, round=1, author=4))
    assert picked == [everyone[29]] == [exchange(tidy.reader, 29)]
    assert exchange(tidy.reader, 75) is None and exchange(tidy.reader, -1) is None
    assert len(list(exchanges(tidy.reader, by="question", author=4))) == 3


def test_what_is_missing_is_none(messy: Run) -> None:
    everyone = messy.all()
    ratings = [given for one in everyone for given in one.ratings]
    assert {given.rating for given in ratings} == {None, 1, 2, 3, 4, 5, 6, 7}
    assert all(given.rating is None for given in ratings if given.status not in ("ok", "cut"))
    assert any(given.rating and given.reason is None for given in ratings)  # cut after the rating
    unread = next(one for one in everyone if one.failed_at == "draft")
    assert (unread.draft, unread.mean_rating, unread.revision) == (None, None, None)
    assert (
        unread.ratings == ()
        and unread.score("draft", "alignment") is None
        and unread.observations == ()
    )
    nobody = unread._replace(ratings=(ratings[0]._replace(rating=None),))
    assert nobody.mean_rating is None


def test_self_critic_credits_feedback_to_its_rater(messy: Run, tmp_path: Path) -> None:
    found = aligned(messy, tmp_path / "out", mix=None)
    seen = set()
    for row, (origin,) in found.of("self_critic"):
        one = stored(messy, origin["episode"])
        (given,) = (given for given in one["ratings"] if given["rater"] == origin["rater"])
        assert row["query"] == template(COMMENT, QUERY.format_map(one))
        assert (row["responses"], row["scores"]) == ([given["reason"]], [given["rating"]])
        seen.add((origin["episode"], origin["rater"]))
    ((usable,),) = messy.sql(
        "SELECT count(*) FROM ratings WHERE rating IS NOT NULL AND reason_id IS NOT NULL"
    )
    repeated = found.report.removed.get("self_critic: repeats a response to the same query", 0)
    assert len(seen) == found.report.found["self_critic"] == usable - repeated > 100


def test_imitation_holds_every_scored_text_once(messy: Run, tidy: Run, tmp_path: Path) -> None:
    for run in (messy, tidy):
        export_of = aligned(run, tmp_path / run.path.parent.name, mix=None)
        expected: dict[str, dict[str, int]] = {}
        for row in (stored(run, one.episode) for one in run.all()):
            for text, when in ((row["draft"], "before"), (row["revision"], "after")):
                if text is not None and row[f"alignment_{when}"] is not None:
                    query = f"### Instruction:\n{row['question']}\n\n### Response:"
                    expected.setdefault(query, {}).setdefault(text, row[f"alignment_{when}"])
        found = {
            row["query"]: dict(zip(row["responses"], row["scores"], strict=True))
            for row, _ in export_of.of("imitation")
        }
        assert found == expected
    assert len(found) == 10 and max(map(len, found.values())) >= 12  # a question, many responses


def test_realignment_is_where_alignment_rose_above_4(messy: Run, tmp_path: Path) -> None:
    found = {
        origin["episode"]: (row["query"], row["responses"], row["scores"], origin["raters"])
        for row, (origin,) in aligned(messy, tmp_path / "out", mix=None).of("realignment")
    }
    expected = {}
    for row in (stored(messy, number) for number in range(150)):
        before, after = row["alignment_before"], row["alignment_after"]
        reasons = [given for given in row["ratings"] if given["rating"] and given["reason"]]
        if before is None or after is None or not before < after > 4 or not reasons:
            continue
        reasons.sort(key=lambda given: (-given["rating"], given["rater"]))
        told = "\n".join(f"- {given['reason']}" for given in reasons)
        text = f"{told}\n\nRevised answer: {row['revision']}"
        query = template(REVISE, QUERY.format_map(row))
        raters = [given["rater"] for given in reasons]
        expected[row["episode"]] = query, [text], [after], raters
    assert found == expected and len(found) > 10


def test_rows_are_well_formed_and_traceable(messy: Run, tmp_path: Path) -> None:
    report, array, lineage = aligned(messy, tmp_path / "out", mix=None)
    everyone, digest = messy.all(), messy.reader.run.digest
    for number, (row, line) in enumerate(zip(array, lineage, strict=True)):
        assert list(row) == ["query", "responses", "scores", "models"]
        sizes = {len(row[key]) for key in ("responses", "scores", "models")}
        assert sizes == {len(line["responses"])} and line["row"] == number
        assert all(type(score) is int and 1 <= score <= 7 for score in row["scores"])
        assert all(text and isinstance(text, str) for text in row["responses"])
        assert set(row["models"]) == {"scripted"} and "None" not in row["query"]
        for text, origin in zip(row["responses"], line["responses"], strict=True):
            one = everyone[origin["episode"]]
            assert (origin["run"], origin["digest"]) == ("small", digest)
            assert origin["author"] == one.author
            if line["kind"] == "imitation":
                assert text == {"draft": one.draft, "revision": one.revision}[origin["stage"]]
    assert report.files == dict.fromkeys(FORMATS["stable-alignment"].files, len(array))
    assert report.found == report.written == Counter(line["kind"] for line in lineage)


def test_every_candidate_is_written_or_removed_by_a_rule(messy: Run, tmp_path: Path) -> None:
    report, _, lineage = aligned(messy, tmp_path / "out", mix=None)
    counts = Counter(line["kind"] for line in lineage for _ in line["responses"])
    for rule, count in report.removed.items():
        counts[rule.partition(":")[0]] += count
    ((ratings,),) = messy.sql("SELECT count(*) FROM ratings")
    assert counts == {"imitation": 300, "self_critic": ratings, "realignment": 150}
    ((unread,),) = messy.sql("SELECT count(*) FROM ratings WHERE rating IS NULL")
    assert report.removed["self_critic: no readable rating"] == unread > 0


@pytest.mark.parametrize("mix", [(5, 1, 1), (10, 2, 2), (1, 2, 3), (1, 0, 0), (0, 1, 1)])
def test_the_mix_is_exact_and_the_largest(messy: Run, tmp_path: Path, mix: Any) -> None:
    report, _, lineage = aligned(messy, tmp_path / "out", mix=mix)
    kinds = Counter(line["kind"] for line in lineage)
    lowest = (5, 1, 1) if mix == (10, 2, 2) else mix
    written, found = [kinds[kind] for kind in report.found], list(report.found.values())
    times = min(there // weight for there, weight in zip(found, lowest, strict=True) if weight)
    assert written == list(report.written.values()) == [times * weight for weight in lowest]
    assert times > 0
    notes = [note for note in report.notes if not note.startswith("the mix ")]
    left_out = [note.partition(":")[0] for note in notes]
    assert left_out == [kind for kind, weight in zip(report.found, mix, strict=True) if not weight]


def test_the_draw_is_seeded(messy: Run, tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{}, {}, {"seed": 7}, {"seed": 8}, {"mix": None}]
    drawn = [aligned(messy, tmp_path / str(n), **chosen) for n, chosen in enumerate(options)]
    for path in (tmp_path / "0").iterdir():
        for same in "12":  # the run's seed is 7
            assert path.read_bytes() == (tmp_path / same / path.name).read_bytes()
    assert drawn[0].array != drawn[3].array
    origins = [[json.dumps(line["responses"]) for line in one.lineage] for one in drawn]
    for one in (origins[0], origins[3]):
        assert len(set(one)) == len(one) and set(one) < set(origins[4])


def test_equal_responses_are_removed_within_a_query_only(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    same = [one.episode for one in tidy.all() if one.question == tidy.all()[0].question]
    other = next(one.episode for one in tidy.all() if one.episode not in same)
    ids = ", ".join(map(str, (*same, other)))
    (row,) = run.sql(f"SELECT revision_id FROM episodes WHERE id = {same[0]}")
    run.sql(f"UPDATE episodes SET draft_id = ? WHERE id IN ({ids})", *row)
    found, first = aligned(run, tmp_path / "out", mix=None), run.all()[same[0]]
    kept = [
        (origin["episode"], origin["stage"], score)
        for row, origins in found.of("imitation")
        for text, score, origin in zip(row["responses"], row["scores"], origins, strict=True)
        if text == first.draft
    ]
    assert [(episode, stage) for episode, stage, _ in kept] == [
        (same[0], "draft"),
        (other, "draft"),
    ]
    assert kept[0][2] == first.score("draft", "alignment")
    assert found.report.removed["imitation: repeats a response to the same query"] == len(same)


def test_hostile_texts_stay_one_line_a_row(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    for column in ("draft_id", "revision_id"):
        where = f"WHERE id = (SELECT {column} FROM episodes WHERE id = 5)"
        run.sql(f"UPDATE texts SET text = ? {where}", f"{column}{HOSTILE}")
    run.sql("UPDATE agents SET persona = ? WHERE number = 5", '{"name": "\\ud800\\u2028"}')
    export(run.reader, "exchanges", tmp_path / "a")
    rows = lines(tmp_path / "a", "exchanges.jsonl")
    assert len(rows) == 75
    assert rows[5]["draft"] == f"draft_id{HOSTILE}" and rows[5]["persona"] == "\ud800\u2028"
    array = aligned(run, tmp_path / "b", mix=None).array
    assert f"draft_id{HOSTILE}" in [text for row in array for text in row["responses"]]
    assert any(f"Answer: draft_id{HOSTILE}\n\n###" in row["query"] for row in array)
    for name, count in (("a/exchanges.jsonl", 75), ("b/stable_alignment.json", len(array) + 2)):
        text = (tmp_path / name).read_bytes().decode("utf-8")
        assert len(text.splitlines()) == text.count("\n") == count


def test_a_kind_without_rows_is_told_and_left_out(tmp_path: Path) -> None:
    run = make(tmp_path / "run.db", "rounds=1", "world.raters=0")
    report = export(run.reader, "stable-alignment", tmp_path / "out")
    assert report.written == {"imitation": 10, "self_critic": 0, "realignment": 0}
    assert [note.partition(":")[0] for note in report.notes] == ["self_critic", "realignment"]
    assert report.removed["realignment: no comment"] > 0
    assert report.notes[0][1:] in (tmp_path / "out" / "README.md").read_text()


def test_an_export_with_nothing_in_it_says_why(tidy: Run, tmp_path: Path) -> None:
    report, array, lineage = aligned(tidy, tmp_path / "mix", mix=(11, 1, 1))
    assert array == lineage == [] and not any(report.written.values())
    assert report.notes == (
        "nothing is left: the mix 11:1:1 needs at least 11 rows of imitation, and the run has 10",
    )
    unplayed = make(tmp_path / "run.db", play=False)
    exported = export(unplayed.reader, "exchanges", tmp_path / "exchanges")
    for one in (exported, aligned(unplayed, tmp_path / "aligned").report):
        assert not any(one.files.values()) and one.notes[-1].startswith("nothing is left: ")
    assert lines(tmp_path / "exchanges", "exchanges.jsonl") == []


def test_two_runs_in_one_database_do_not_mix(tmp_path: Path) -> None:
    small = "rounds=2", "world.size=3", "memory.prior_pairs=5", *SPOILT
    shared = [make(tmp_path / "both.db", *small, name=f"run{seed}", seed=seed) for seed in (1, 2)]
    for seed, run in zip((1, 2), shared, strict=True):
        alone = make(tmp_path / f"{seed}.db", *small, name=run.name, seed=seed)
        assert run.all() == alone.all() and len(run.all()) == 18
        for format in FORMATS:
            for one in (run, alone):
                export(one.reader, format, tmp_path / one.path.stem / run.name / format)
            for path in (tmp_path / alone.path.stem / run.name / format).iterdir():
                twin = tmp_path / "both" / run.name / format / path.name
                assert twin.read_bytes() == path.read_bytes()
    first, second = shared
    second.sql("UPDATE models SET name = 'another' WHERE run_id = 2")
    assert [run.all()[0].models for run in shared] == [{"scripted"}, {"another"}]
    assert exchange(first.reader, 1 << 32) is None and exchange(second.reader, -(1 << 32)) is None


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_export_leaves_nothing(tidy: Run, tmp_path: Path, format: str) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE agents SET persona = 'not JSON' WHERE number = 24")
    for overwrite in (False, True):
        before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        with pytest.raises(json.JSONDecodeError):
            export(run.reader, format, tmp_path / "out", overwrite=overwrite)
        after = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        assert after == before
        export(tidy.reader, format, tmp_path / "out", overwrite=overwrite)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_one_clear_line(tidy: Run, tmp_path: Path, format: str) -> None:
    reader, out = tidy.reader, tmp_path / "out"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
    try:
        with pytest.raises(InputError, match=f"^out: {out}: cannot be written: File too large$"):
            export(reader, format, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_export_is_replaced(tidy: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    export(tidy.reader, "exchanges", out)
    refusal = f"out: {out} exists; expected an empty or a new folder, or --overwrite"
    with pytest.raises(InputError, match=re.escape(refusal)):
        export(tidy.reader, "exchanges", out)
    export(tidy.reader, "stable-alignment", out, overwrite=True)
    expected = {"README.md", "stable_alignment.json", "stable_alignment_lineage.jsonl"}
    assert {path.name for path in out.iterdir()} == expected
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds 'thesis\.tex', which no export wrote"):
        export(tidy.reader, "exchanges", out, overwrite=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    export(tidy.reader, "exchanges", empty)
    assert (empty / "exchanges.jsonl").exists()


def test_bad_input_is_one_clear_line(tidy: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "out"):
        with pytest.raises(InputError, match=f"out: {file} is not a folder"):
            export(tidy.reader, "exchanges", out)
    out = tmp_path / "out"
    for format, options, problem in (
        ("csv", {}, "format: found 'csv'; expected one of exchanges, stable-alignment"),
        ("exchanges", {"mix": None}, "format exchanges: unknown option mix; expected none"),
        ("stable-alignment", {"mix": (0, 0, 0)}, "mix: found 0:0:0; expected 3 whole numbers"),
        ("stable-alignment", {"mix": (5, 1)}, "mix: found 5:1; expected 3"),
        ("stable-alignment", {"mix": (5, -1, 1)}, "mix: found 5:-1:1; expected 3"),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            export(tidy.reader, format, out, **options)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("format", FORMATS)
def test_the_readme_tells_what_it_is(tidy: Run, tmp_path: Path, format: str) -> None:
    run = tidy.copy(tmp_path)
    export(run.reader, format, tmp_path / "scripted")
    text = (tmp_path / "scripted" / "README.md").read_text()
    first = text.splitlines()[0]
    assert first.startswith("**") and first.endswith("**") and "not by a language model" in first
    row = "| exchange | 75 | 75 |" if format == "exchanges" else "| imitation | 10 | 10 |"
    for told in (run.name, "seed 7", run.reader.run.digest, "`scripted`", row):
        assert told in text
    run.sql("UPDATE models SET name = '/data/of/somebody/llama-9b'")
    export(run.reader, format, tmp_path / "model")
    text, created = (tmp_path / "model" / "README.md").read_text(), run.reader.run.created[:10]
    assert "`llama-9b`" in text and "**" not in text
    for path in tmp_path.glob("*/*"):
        for hidden in ("/data/of", str(tmp_path), str(QUICKSTART.parent), created):
            assert hidden not in path.read_text()


GROUPS = "models.groups={half: {share: 0.5, model: {backend: scripted}}}"


def test_every_text_names_the_model_that_said_it(tmp_path: Path) -> None:
    """A mixed society, renamed so that the models can be told apart; one agent has an adapter."""
    run = make(tmp_path / "run.db", "rounds=2", GROUPS)
    names = {"social": "/data/of/somebody/first", "half": "org/second", "observer": "scripted"}
    for role, name in names.items():
        run.sql("UPDATE models SET name = ? WHERE role = ?", name, role)
    run.sql("UPDATE agents SET persona = json_set(persona, '$.adapter', 'kind') WHERE number = 3")
    said = "SELECT name FROM models JOIN calls ON models.id = model_id WHERE episode_id = ? AND "

    def model(episode: int, agent: int) -> str:
        (name,) = {row[0] for row in run.sql(f"{said} agent = ?", episode, agent)}
        return name.replace("/data/of/somebody/", "") + (" + kind" if agent == 3 else "")

    export(run.reader, "exchanges", tmp_path / "out")
    seen = set()
    for row in lines(tmp_path / "out", "exchanges.jsonl"):
        assert row["model"] == model(row["episode"], row["author"])
        seen.add(row["model"])
        for given in row["ratings"]:
            assert given["model"] == model(row["episode"], given["rater"])
        assert (row["observer_model"], row["scripted"]) == ("scripted", True)
    assert {name.removesuffix(" + kind") for name in seen} == {"first", "org/second"}
    assert any(name.endswith(" + kind") for name in seen)
    for kind, speaker in (("imitation", "author"), ("self_critic", "rater")):
        for row, origins in aligned(run, tmp_path / kind, mix=None).of(kind):
            spoke = [model(origin["episode"], origin[speaker]) for origin in origins]
            assert row["models"] == spoke
    told = (tmp_path / "out" / "README.md").read_text()
    for role, name in (("social", "first"), ("half", "org/second")):
        count = "SELECT count(*) FROM calls WHERE model_id = (SELECT id FROM models WHERE role = ?)"
        ((calls,),) = run.sql(count, role)
        assert f"- {role} model: `{name}`, {calls} calls\n" in told and calls > 0
    run.sql("UPDATE models SET name = '/data/of/another/first' WHERE role = 'half'")
    assert {one.model for one in run.all()} > {"first (half)", "first (social)"}
    run.sql("UPDATE models SET name = 'real' WHERE role = 'observer'")
    export(run.reader, "exchanges", tmp_path / "real")
    assert not any(row["scripted"] for row in lines(tmp_path / "real", "exchanges.jsonl"))


def test_the_digest_is_of_what_was_said_and_not_of_names_of_models(
    tidy: Run, tmp_path: Path
) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE models SET name = 'another'")
    assert digest(run.reader) == run.reader.run.digest
    run.sql("UPDATE texts SET text = 'else' WHERE id = (SELECT draft_id FROM episodes LIMIT 1)")
    assert digest(run.reader) != run.reader.run.digest


def test_a_fork_with_another_model_keeps_who_said_what(tmp_path: Path) -> None:
    run = make(tmp_path / "run.db", "rounds=3")
    run.sql("UPDATE models SET name = 'old' WHERE role = 'social'")
    source = parse_run(f"{run.path}#{run.name}")
    changed = ["models.social.temperature=0.5"]
    address = fork(source, 1, changed, name="fork", db=str(run.path), accept_changes=True)
    assert resume(address).status == "done"
    assert {(one.round, one.model) for one in Run(run.path, "fork").all()} == {
        (0, "old"),
        (1, "old"),
        (2, "scripted"),
    }


def test_a_snapshot_stays_as_it_was(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("PRAGMA journal_mode = WAL")
    reader = run.reader
    with snapshot(reader) as connection:
        first = list(exchanges(reader, connection=connection))
        run.sql("UPDATE ratings SET rating = NULL")
        assert list(exchanges(reader, by="round", connection=connection)) == first
    assert all(one.mean_rating is None for one in exchanges(reader))


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_run(wide: Run, tmp_path: Path, format: str) -> None:
    run = wide.copy(tmp_path)
    peaks = []
    for rounds in (24, 6):
        run.sql("DELETE FROM episodes WHERE round >= ?", rounds)
        reader = run.reader
        export(reader, format, tmp_path / f"warm{rounds}")
        tracemalloc.start()
        report = export(reader, format, tmp_path / str(rounds))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.found["exchange" if format == "exchanges" else "imitation"] == rounds * 100
    assert peaks[0] < 1.2 * peaks[1]
