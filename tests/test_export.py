"""Exchanges and exports: contents, atomic writing, memory use, and metadata."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
import tracemalloc
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from stored import GENERAL, SPOILT, Run, aligned, lines, make, stored

import storage.exchanges
from sandbox.config import QUICKSTART
from sandbox.datasets import export
from sandbox.datasets.source import Source
from sandbox.datasets.survey import Survey
from sandbox.engine.run import resume
from sandbox.study.fork import fork
from storage.database import parse_run
from storage.digest import digest
from storage.errors import InputError
from storage.exchanges import exchange, exchanges, snapshot

COPY = """
INSERT INTO texts SELECT t.id + {n} * 1000000, text || {n} FROM texts t, questions q
    WHERE t.id = text_id AND q.id < 600;
INSERT INTO questions SELECT id + {n} * 600, run_id, source, text_id + {n} * 1000000, topic, NULL
    FROM questions WHERE id < 600;
INSERT INTO calls (id, episode_id, form_id, agent, turn, attempt, model_id, prompt, prompt_hash,
    cut, status, started, took) SELECT id + {n} * 1000000, episode_id + {n} * 600, form_id, agent,
    turn, attempt, model_id, '', x'', cut, status, started, took
    FROM calls WHERE episode_id < 600;
INSERT INTO episodes (id, run_id, round, author, question_id, failed_at, observed)
    SELECT id + {n} * 600, run_id, round + {n} * 6, author, {n} * 600 + question_id, failed_at,
    observed FROM episodes WHERE id < 600;
INSERT INTO stage_texts SELECT episode_id + {n} * 600, stage, text_id, shortened, rules, refused
    FROM stage_texts WHERE episode_id < 600;
INSERT INTO ratings SELECT episode_id + {n} * 600, rater, rating, reason_id, status, call_id
    FROM ratings WHERE episode_id < 600;
INSERT INTO observations SELECT episode_id + {n} * 600, stage, scale, agent, other, rating,
    reason_id, status, call_id FROM observations WHERE episode_id < 600
"""
HOSTILE = (
    'a\u2028b\u2029c\x85d\x0be\x1cf\r\ng\ufeff"\\ </script> ### Response:\n\U0001f9c0 \u202e\ud7ff'
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """600 exchanges about 600 questions, and a copy of each about another question."""
    folder = tmp_path_factory.mktemp("wide")
    questions = folder / "questions.txt"
    questions.write_text("".join(f"How do I keep {n} bees?\n" for n in range(600)))
    few = "world.raters=1", "memory.prior_pairs=0", f"questions={questions}", "question_count=null"
    run = make(folder / "run.db", "world.size=10", "rounds=6", *few)
    for sql in COPY.format(n=1).split(";"):
        run.sql(sql)
    return run


@pytest.fixture(scope="module")
def said(wide: Run, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The total size of its texts, in bytes."""
    out = tmp_path_factory.mktemp("said") / "out"
    export([wide.reader], ["exchanges"], out)
    return (out / "exchanges.jsonl").stat().st_size


def test_the_exchanges_are_what_the_database_holds(messy: Run, tmp_path: Path) -> None:
    report = export([messy.reader], ["exchanges"], tmp_path / "out")
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
    with Source.of([tidy.reader]) as source:
        told = list(source.by_question(range(10)))
        assert [one.exchange for one in source.by_round()] == everyone
    assert sorted((one.exchange for one in told), key=lambda one: one.episode) == everyone
    groups = [list(group) for _, group in groupby(told, lambda one: one.exchange.question)]
    assert len(groups) == 10
    for group in groups:
        assert group == sorted(group, key=lambda one: one.exchange.episode)
    picked = list(exchanges(tidy.reader, round=1, author=4))
    assert picked == [everyone[29]] == [exchange(tidy.reader, 29)]
    assert exchange(tidy.reader, 75) is None and exchange(tidy.reader, -1) is None
    assert len(list(exchanges(tidy.reader, author=4))) == 3


def test_what_is_missing_is_none(messy: Run) -> None:
    everyone = messy.all()
    ratings = [given for one in everyone for given in one.ratings]
    assert {given.rating for given in ratings} == {None, 1, 2, 3, 4, 5, 6, 7}
    assert all(
        given.rating is None for given in ratings if given.status not in ("ok", "cut", "lenient")
    )
    assert any(given.rating and given.reason is None for given in ratings)  # cut after the rating
    unread = next(one for one in everyone if one.failed_at == "draft")
    assert unread.texts == {"draft": None, "revision": None} and unread.mean_rating is None
    assert (
        unread.ratings == ()
        and unread.score("draft", "alignment") is None
        and unread.observations == ()
    )
    nobody = unread._replace(ratings=(ratings[0]._replace(rating=None),))
    assert nobody.mean_rating is None


def test_hostile_texts_stay_one_line_a_row(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    for stage in ("draft", "revision"):
        stored = "SELECT text_id FROM stage_texts WHERE episode_id = 5 AND stage = ?"
        run.sql(f"UPDATE texts SET text = ? WHERE id = ({stored})", f"{stage}{HOSTILE}", stage)
    run.sql("UPDATE agents SET persona = ? WHERE number = 5", '{"name": "\\ud800\\u2028"}')
    export([run.reader], ["exchanges"], tmp_path / "a")
    rows = lines(tmp_path / "a", "exchanges.jsonl")
    assert len(rows) == 75
    assert rows[5]["draft"] == f"draft{HOSTILE}" and rows[5]["persona"] == "\ufffd\u2028"
    export([run.reader], ["stable-alignment"], tmp_path / "b", mix=())
    array = json.loads((tmp_path / "b" / "stable_alignment.json").read_bytes())
    assert f"draft{HOSTILE}" in [text for row in array for text in row["responses"]]
    assert any(f"Answer: draft{HOSTILE}\n\n###" in row["query"] for row in array)
    for name, count in (("a/exchanges.jsonl", 75), ("b/stable_alignment.json", len(array) + 2)):
        text = (tmp_path / name).read_bytes().decode("utf-8")
        assert len(text.splitlines()) == text.count("\n") == count


def test_an_export_with_nothing_in_it_says_why(tidy: Run, tmp_path: Path) -> None:
    report, array, lineage = aligned(tidy, tmp_path / "mix", mix=(11, 1, 1))
    assert array == lineage == [] and not any(report.results[0].written.values())
    assert report.results[0].notes == (
        "nothing is left: the mix 11:1:1 needs at least 11 rows of imitation, and there are 10",
    )
    unplayed = make(tmp_path / "run.db", play=False)
    exported = export([unplayed.reader], ["exchanges"], tmp_path / "exchanges")
    for one in (exported, aligned(unplayed, tmp_path / "aligned").report):
        assert not any(one.files.values())
        assert one.results[0].notes[-1].startswith("nothing is left: ")
    assert lines(tmp_path / "exchanges", "exchanges.jsonl") == []


DATED = ("README.md", "croissant.json")
"""Files that contain the start date of a run."""


@pytest.mark.long
def test_two_runs_in_one_database_do_not_mix(tmp_path: Path) -> None:
    small = "rounds=2", "world.size=3", "memory.prior_pairs=5", *SPOILT
    shared = [make(tmp_path / "both.db", *small, name=f"run{seed}", seed=seed) for seed in (1, 2)]
    for seed, run in zip((1, 2), shared, strict=True):
        alone = make(tmp_path / f"{seed}.db", *small, name=run.name, seed=seed)
        assert run.all() == alone.all() and len(run.all()) == 18
        for one in (run, alone):
            export([one.reader], list(GENERAL), tmp_path / one.path.stem / run.name)
        place = tmp_path / alone.path.stem / run.name
        written = [path for path in place.rglob("*.*") if path.name not in DATED]
        assert len(written) == 13
        for path in written:
            twin = tmp_path / "both" / run.name / path.relative_to(place)
            assert twin.read_bytes() == path.read_bytes()
    first, second = shared
    second.sql("UPDATE models SET name = 'another' WHERE run_id = 2")
    assert [run.all()[0].models for run in shared] == [{"scripted"}, {"another"}]
    assert exchange(first.reader, 1 << 32) is None and exchange(second.reader, -(1 << 32)) is None


def state(folder: Path) -> dict[Path, Any]:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("format", ["sft", "stable-alignment", "exchanges"])
def test_an_interrupted_export_leaves_nothing(
    tidy: Run, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = Survey.add, iter(range(50))

    def interrupted(survey: Survey, told: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        add(survey, told)

    for overwrite in (False, True):
        before, left = state(tmp_path), iter(range(50))
        with monkeypatch.context() as patch:
            patch.setattr(Survey, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                export([tidy.reader], [format], tmp_path / "out", overwrite=overwrite)
        assert state(tmp_path) == before
        export([tidy.reader], [format], tmp_path / "out", overwrite=overwrite)


def test_a_killed_export_leaves_nothing_that_looks_whole(wide: Run, tmp_path: Path) -> None:
    """The next export with that name removes leftovers, except those of a live process."""
    formats = [part for name in GENERAL for part in ("--format", name)]
    command = [sys.executable, str(ROOT / "run_sim.py"), "export", str(wide.path)]
    process = subprocess.Popen([*command, *formats, "--out", str(tmp_path / "out")])
    while not (parts := [*tmp_path.glob(".out.partial-*/.*.rows")]) or not parts[0].stat().st_size:
        time.sleep(0.01)
        assert process.poll() is None, "the export was over before it could be killed"
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists() and [*tmp_path.iterdir()]
    other = tmp_path / f".out.partial-{socket.gethostname()}-{os.getpid()}-0123abcd"
    other.mkdir()
    export([wide.reader], ["prompts"], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", other.name}


@pytest.mark.parametrize("format", GENERAL)
def test_a_full_disk_is_one_clear_line(tidy: Run, tmp_path: Path, format: str) -> None:
    reader, out = tidy.reader, tmp_path / "out"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
    try:
        with pytest.raises(InputError, match=f"^out: {out}: cannot be written: File too large$"):
            export([reader], [format], out)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, usual[1]))
        with pytest.raises(InputError, match=r"^out: .*: cannot be written: File too large$"):
            export([reader], [format], None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_export_is_replaced(tidy: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    export([tidy.reader], ["exchanges"], out)
    refusal = f"out: {out} exists; expected an empty or a new folder, or --overwrite"
    with pytest.raises(InputError, match=re.escape(refusal)):
        export([tidy.reader], ["exchanges"], out)
    export([tidy.reader], ["stable-alignment"], out, overwrite=True)
    expected = {"stable_alignment.json", "stable_alignment_lineage.jsonl", "README.md"}
    expected |= {"croissant.json", "figures"}
    assert {path.name for path in out.iterdir()} == expected
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    for name in ("thesis.tex", "figures/mine.svg", "sft-mine.jsonl"):
        (out / name).touch()
        with pytest.raises(InputError, match=f"contains '{name}', which no export wrote"):
            export([tidy.reader], ["exchanges"], out, overwrite=True)
        (out / name).unlink()
    export([tidy.reader], list(GENERAL), out, overwrite=True, splits={"a": 0.5, "b": 0.5})
    export([tidy.reader], ["kto"], out, overwrite=True, target="llama-factory")
    export([tidy.reader], ["sft"], out, overwrite=True, files="parquet")
    for name in ("README.md", "preference.jsonl", "croissant.json"):
        mine = tmp_path / name.partition(".")[0]
        mine.mkdir()
        (mine / name).write_text("mine")
        with pytest.raises(InputError, match="which no export wrote"):
            export([tidy.reader], ["preference"], mine, overwrite=True)
        assert (mine / name).read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir()
    export([tidy.reader], ["exchanges"], empty)
    assert (empty / "exchanges.jsonl").exists()


def test_bad_input_is_one_clear_line(tidy: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "out"):
        with pytest.raises(InputError, match=f"out: {file} is not a folder"):
            export([tidy.reader], ["exchanges"], out)
    out = tmp_path / "out"
    for format, options, problem in (
        ("csv", {}, "format: found 'csv'; expected one of sft, preference"),
        (
            "exchanges",
            {"mix": ()},
            "mix: not a choice of exchanges; expected balance, files, keep_out",
        ),
        ("kto", {"pick": "all"}, "pick: not a choice of kto; expected"),
        ("sft", {"pick": "best"}, "pick: found 'best'; expected one of all, exchange, question"),
        ("sft", {"ratings": ""}, "ratings: found ''; expected one of observer"),
        ("sft", {"min_rating": 8}, "min_rating: found 8; expected a number, 1 to 7"),
        ("sft", {"min_rating": float("nan")}, "min_rating: found nan; expected a number"),
        ("sft", {"rows": 0}, "rows: found 0; expected a whole number, 1 or more"),
        ("sft", {"rows": 1.5}, "rows: found 1.5; expected a whole number, 1 or more"),
        ("sft", {"near_duplicates": 0.1}, "near_duplicates: found 0.1; expected a number, 0.5"),
        ("sft", {"splits": {"train": 0.5}}, "splits: found train=0.5; expected names with shares"),
        ("sft", {"splits": {"a/b": 1.0}}, "splits: found 'a/b'; expected names of letters"),
        ("sft", {"splits": {"all": 1.0}}, "splits: found 'all', which means every split"),
        ("sft", {"splits": {"a": 0.5, "A": 0.5}}, "splits: found a, A; expected names that differ"),
        ("sft", {"max_tokens": 9}, "max_tokens: found without tokenizer; expected both"),
        ("sft", {"tokenizer": "x"}, "tokenizer: found without max_tokens; expected both"),
        ("sft", {"tokenizer": "/no", "max_tokens": 9}, "tokenizer: /no: found no tokenizer.json"),
        (
            "sft",
            {"mix_runs": (1, 1)},
            "mix_runs: found 1:1 for sft; expected 1 whole number",
        ),
        ("sft", {"license": "a\nb"}, "license: found 'a\\nb'; expected an identifier"),
        ("sft", {"tokenizer": " ", "max_tokens": 9}, "tokenizer: found ''; expected"),
        (
            "kto",
            {"min_rating": 3},
            "max_rating: found 3 for kto; expected less than",
        ),
        ("kto", {"target": "verl"}, "target verl: found format kto; expected sft or prompts"),
        ("stable-alignment", {"files": "parquet"}, "files: found parquet for stable-alignment"),
        ("stable-alignment", {"mix": (0, 0, 0)}, "mix: found 0:0:0; expected whole numbers"),
        ("stable-alignment", {"mix": (5, 1)}, "mix: found 5:1 for stable-alignment; expected 3"),
        ("stable-alignment", {"mix": (5, -1, 1)}, "mix: found 5:-1:1; expected whole numbers"),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            export([tidy.reader], [format], out, **options)
    assert list(tmp_path.iterdir()) == [file]


ROWS = {
    "sft": "| answer: not the best of its exchange | 75 |",
    "preference": "Of 75 rows, rules removed:",
    "kto": "Of 150 rows, rules removed:",
    "prompts": "| question | 10 | 10 |",
    "rated": "| answer | 10 | 10 |",
    "raters": "| peer | 300 | 300 |",
    "stable-alignment": "| imitation | 10 | 10 |",
    "exchanges": "| exchange | 75 | 75 |",
}


@pytest.mark.parametrize("format", GENERAL)
def test_the_readme_tells_what_it_is(tidy: Run, tmp_path: Path, format: str) -> None:
    run = tidy.copy(tmp_path)
    export([run.reader], [format], tmp_path / "scripted")
    text = (tmp_path / "scripted" / "README.md").read_text()
    first = text.split("\n---\n\n", 1)[1].splitlines()[0]
    assert first.startswith("**") and first.endswith("**") and "not by a language model" in first
    for told in (run.name, " 7 |", run.reader.run.digest, "`scripted`", ROWS[format]):
        assert told in text
    run.sql("UPDATE models SET name = '/data/of/somebody/llama-9b'")
    export([run.reader], [format], tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "`llama-9b`" in text and "**" not in text
    for path in tmp_path.glob("*/**/*.*"):
        for hidden in ("/data/of", str(tmp_path), str(QUICKSTART.parent)):
            assert hidden not in path.read_text()


GROUPS = "models.groups={half: {share: 0.5, model: {backend: scripted}}}"


def test_every_text_names_the_model_that_said_it(tmp_path: Path) -> None:
    """A mixed society with distinct model names; one agent has an adapter."""
    run = make(tmp_path / "run.db", "rounds=2", GROUPS)
    names = {"social": "/data/of/somebody/first", "half": "org/second", "observer": "scripted"}
    for role, name in names.items():
        run.sql("UPDATE models SET name = ? WHERE role = ?", name, role)
    run.sql("UPDATE agents SET persona = json_set(persona, '$.adapter', 'kind') WHERE number = 3")
    said = "SELECT name FROM models JOIN calls ON models.id = model_id WHERE episode_id = ? AND "

    def model(episode: int, agent: int) -> str:
        (name,) = {row[0] for row in run.sql(f"{said} agent = ?", episode, agent)}
        return name.replace("/data/of/somebody/", "") + (" + kind" if agent == 3 else "")

    export([run.reader], ["exchanges"], tmp_path / "out")
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
        for row, origins in aligned(run, tmp_path / kind, mix=()).of(kind):
            spoke = [model(origin["episode"], origin[speaker]) for origin in origins]
            assert row["models"] == spoke
    told = (tmp_path / "out" / "README.md").read_text()
    for role, name in (("social", "first"), ("half", "org/second")):
        count = "SELECT count(*) FROM calls WHERE model_id = (SELECT id FROM models WHERE role = ?)"
        ((calls,),) = run.sql(count, role)
        assert f"| small | {role} | `{name}` | {calls} |\n" in told and calls > 0
    run.sql("UPDATE models SET name = '/data/of/another/first' WHERE role = 'half'")
    assert {one.model for one in run.all()} > {"first (half)", "first (social)"}
    run.sql("UPDATE models SET name = 'real' WHERE role = 'observer'")
    export([run.reader], ["exchanges"], tmp_path / "real")
    assert not any(row["scripted"] for row in lines(tmp_path / "real", "exchanges.jsonl"))


def test_the_digest_is_of_what_was_said_and_not_of_names_of_models(
    tidy: Run, tmp_path: Path
) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE models SET name = 'another'")
    assert digest(run.reader) == run.reader.run.digest
    run.sql("UPDATE texts SET text = 'else' WHERE id = (SELECT text_id FROM stage_texts LIMIT 1)")
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


@pytest.mark.filterwarnings("ignore::storage.errors.IncompleteWarning")
def test_a_snapshot_stays_as_it_was(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("PRAGMA journal_mode = WAL")
    reader = run.reader
    with snapshot(reader) as connection:
        first = list(exchanges(reader, connection=connection))
        run.sql("UPDATE ratings SET rating = NULL")
        assert list(exchanges(reader, connection=connection)) == first
    assert all(one.mean_rating is None for one in exchanges(reader))


@pytest.mark.parametrize(
    "format",
    ["exchanges", *(pytest.param(one, marks=pytest.mark.long) for one in ("raters", "rated"))],
)
@pytest.mark.long
def test_memory_hardly_grows_with_the_run(
    wide: Run, said: int, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory grows by some numbers per exchange and by the questions, not by other texts."""
    monkeypatch.setattr(storage.exchanges, "_BATCH", 100)  # no more on the way with 12
    run = wide.copy(tmp_path)
    first = export([run.reader], [format], tmp_path / "first")  # what is made once is not counted
    written = sum((tmp_path / "first" / name).stat().st_size for name in first.files)
    texts = max(written, said) / 1200
    peaks = []
    for rounds in (12, 6):
        run.sql("DELETE FROM episodes WHERE round >= ?", rounds)
        tracemalloc.start()
        report = export([run.reader], [format], tmp_path / str(rounds))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.results[0].candidates >= rounds * 100
    assert (peaks[0] - peaks[1]) / 600 < texts / 3
