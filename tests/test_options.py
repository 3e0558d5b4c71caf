"""Options that would have no effect are refused, and output that is piped is not wrapped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from program import program
from stored import Run

from sandbox.reading.excerpts import excerpt, find_excerpt
from storage.search import terms

Words = Callable[..., str]


@pytest.fixture
def refused(tidy: Run, tmp_path: Path) -> Words:
    """Run the program; what it says, in one line, about bad input."""

    def run(verb: str, *options: str, run: bool = True) -> str:
        done = program(tmp_path, verb, *([str(tidy.path)] if run else []), *options)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        return done.stderr

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--failures", "inspect RUN: found --failures, an option of `inspect RUN calls`; expected"),
        ("--status ok", "inspect RUN: found --status, an option of `inspect RUN calls`; expected"),
        ("agents --status ok", "inspect RUN agents: found --status, an option of"),
        ("agents --round 0", "found --round, an option of `inspect RUN`, `inspect RUN memory`"),
        ("call 0 --limit 3", "inspect RUN call: found --limit, an option of"),
        ("--limit 3", "found --limit; expected it with --search or --round"),
        ("calls --failures --status ok", "found --failures and --status; expected one of them"),
        ("calls --status odd", "--status: found 'odd'; expected one of"),
    ],
)
def test_options_of_other_views_are_refused(refused: Words, options: str, words: str) -> None:
    assert words in refused("inspect", *options.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("view --static pages --port 0", "--port: expected no --static"),
        ("view --static pages --host ::1", "--host: expected no --static"),
        ("view --overwrite", "--overwrite: expected it with --static DIR"),
        ("view --exchanges 3", "--exchanges: expected it with --static DIR"),
        ("export --format sft --explain --overwrite", "--overwrite: found no --out"),
        ("resume --world odd.py", "--world: found odd.py; expected no file: the run names none"),
        ("verify --backend odd.py", "--backend: found odd.py; expected no file"),
        ("fork --at 0 --backend odd.py", "--backend: found odd.py; expected no file"),
    ],
)
def test_options_without_effect_are_refused(refused: Words, line: str, words: str) -> None:
    verb, *options = line.split()
    assert words in refused(verb, *options)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run --rounds 2 --set rounds=3", "--set rounds=3: found --rounds as well"),
        ("run --name mine --set name=yours", "--set name=yours: found --name as well"),
        ("run --rounds 0", "error: --rounds: rounds: found 0; expected"),
        ("estimate --gpus 2", "--gpus: found 2 for scripted replies"),
        ("doctor --model m", "--model: found no BASE_URL"),
    ],
)
def test_options_that_contradict_are_refused(refused: Words, line: str, words: str) -> None:
    verb, *options = line.split()
    assert words in refused(verb, *options, run=False)


def test_piped_tables_are_not_wrapped(tidy: Run, tmp_path: Path) -> None:
    name = "a_run_whose_name_is_longer_than_a_line_of_a_terminal_" + "x" * 40
    program(tmp_path, "run", "--name", name, "--rounds", "1")
    (row,) = [line for line in program(tmp_path, "status").stdout.splitlines() if "a_run" in line]
    assert row.split()[:3] == [name, "done", "25/25"]
    agents = program(tmp_path, "inspect", name, "agents").stdout.splitlines()
    assert [line.split()[0] for line in agents[1:]] == [str(number) for number in range(25)]
    reply = "inspect", name, "calls", "--limit", "9"
    assert len(program(tmp_path, *reply).stdout.splitlines()) == 10


def test_a_search_shows_where_it_found_something(tidy: Run, tmp_path: Path) -> None:
    (exchange, *_) = [one for one in tidy.all() if any(given.reason for given in one.ratings)]
    given = next(given for given in exchange.ratings if given.reason)
    words = " ".join(str(given.reason).split()[-3:]).strip(".")
    run = str(tidy.path)
    found = json.loads(program(tmp_path, "inspect", run, "--search", f'"{words}"', "--json").stdout)
    (first,) = [one for one in found["episodes"] if one["episode"] == exchange.episode]
    assert words in first["found"]["text"], "the part that matches, not the beginning"
    assert words in program(tmp_path, "inspect", run, "--search", f'"{words}"').stdout
    by_round = json.loads(program(tmp_path, "inspect", run, "--round", "0", "--json").stdout)
    assert {one["found"] for one in by_round["episodes"]} == {None}


def test_excerpts_begin_before_the_first_match() -> None:
    text = "word " * 40 + "the Caf\u00e9 closes " + "word " * 40
    assert excerpt(text, terms("cafe"), 60) == (
        "\u2026word word word the Caf\u00e9 closes word word word word word wo\u2026"
    )
    assert excerpt("the caf\u00e9", terms("caf\u00e9"), 60) == "the caf\u00e9"
    assert excerpt("nothing", terms("cafe"), 60) is None
    parts = [("question", "Nothing?"), ("draft", None), ("revision", "Tea, at last.")]
    assert str(find_excerpt(parts, terms("last tea"), 60)) == "revision: Tea, at last."
