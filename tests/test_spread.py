"""The spread of an idea: who says it, since when, and what its prompts showed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored import Run
from stored import make as make_stored
from viewing import Site, rebuild_summaries, serving

from sandbox.reading.exchanges import found_exchanges
from sandbox.reading.spread import FirstUse, spread

WORD = "quokka"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("plain") / "run.db"
    return make_stored(path, "world.size=4", "rounds=3", "question_count=8", name="run")


def plant(run: Run, query: str, *values: int | str, word: str = WORD) -> None:
    """Add a word to one text, which only its row refers to afterwards."""
    table, key, where = query.split(" ", 2)
    column, number = run.sql(f"SELECT '{key}', {key} FROM {table} WHERE {where}", *values)[0]
    text = run.sql("SELECT text FROM texts WHERE id = ?", number)[0][0]
    new = run.sql("SELECT max(id) + 1 FROM texts")[0][0]
    run.sql("INSERT INTO texts (id, text) VALUES (?, ?)", new, f"{text} A {word}, they say.")
    run.sql(f"UPDATE {table} SET {column} = {new} WHERE {where}", *values)


def episode(run: Run, author: int, round: int) -> int:
    query = "SELECT id FROM episodes WHERE author = ? AND round = ?"
    return int(run.sql(query, author, round)[0][0])


@pytest.fixture(scope="module")
def planted(plain: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Agent 1 unprompted in round 0, agent 2 from a rater in 1, agent 3 from a memory in 2."""
    run = Run(Path(shutil.copy(plain.path, tmp_path_factory.mktemp("run") / "run.db")), "run")
    said = "stage_texts text_id episode_id = ? AND stage = ?"
    plant(run, said, episode(run, 1, 0), "draft")
    plant(run, said, episode(run, 1, 2), "draft")
    second = episode(run, 2, 1)
    plant(run, said, second, "revision")
    rater = _rater(run, second)
    plant(run, "ratings reason_id episode_id = ? AND rater = ?", second, rater)
    agent, third, memory = run.sql(
        "SELECT c.agent, c.episode_id, c.memory_id FROM calls c JOIN forms f ON f.id = c.form_id "
        "JOIN episodes e ON e.id = c.episode_id WHERE f.name = 'draft' AND e.round = 2 "
        "AND c.memory_id IS NOT NULL AND c.agent > 3"
    )[0]
    plant(run, "memories text_id id = ?", memory)
    plant(run, said, third, "draft")
    others = [number for number in range(4, 16) if number != agent]
    asked = episode(run, others[0], 1)
    plant(run, "questions text_id id = (SELECT question_id FROM episodes WHERE id = ?)", asked)
    plant(run, said, asked, "draft")
    reviewed = episode(run, others[1], 0)  # others say it of the answer; the author does not
    plant(run, "ratings reason_id episode_id = ? AND rater = ?", reviewed, _rater(run, reviewed))
    rebuild_summaries(run)
    return run


def _rater(run: Run, number: int) -> int:
    query = "SELECT rater FROM ratings WHERE episode_id = ? AND reason_id IS NOT NULL"
    return int(run.sql(query, number)[0][0])


def test_first_uses_have_their_origins(planted: Run) -> None:
    found = spread(planted.reader, WORD)
    by_origin: dict[str, list[FirstUse]] = {}
    for use in found.uses:
        by_origin.setdefault(use.origin, []).append(use)
    assert {origin: len(uses) for origin, uses in by_origin.items()} == {
        "unprompted": 1, "reason": 1, "memory": 1, "question": 1,
    }  # fmt: skip
    (unprompted,), (reason,), (memory,) = (
        by_origin[name] for name in ("unprompted", "reason", "memory")
    )
    assert (unprompted.agent, unprompted.round, unprompted.stage) == (1, 0, "draft")
    assert (reason.agent, reason.round, reason.stage) == (2, 1, "revision")
    assert reason.raters == [_rater(planted, reason.episode)] and reason.memory is None
    recalled = planted.sql("SELECT agent FROM memories WHERE id = ?", memory.memory)
    assert recalled[0][0] == memory.agent and memory.raters == ()
    assert found.uses[0] == unprompted and found.limit is None
    assert found.exchanges == 5 < len(found_exchanges(planted.reader, WORD, None, 99))


def test_rounds_add_up(planted: Run) -> None:
    found = spread(planted.reader, WORD)
    assert [row.round for row in found.rounds] == [0, 0, 1, 1, 2, 2]
    assert sum(row.exchanges for row in found.rounds) == found.exchanges
    assert sum(row.first for row in found.rounds) == len(found.uses) == 4
    assert sum(row.agents for row in found.rounds[:2]) == found.agents == 16
    last = found.rounds[-2:]
    assert sum(row.so_far for row in last) == 4
    assert last[0].share == last[0].so_far / last[0].agents


def test_a_cut_search_says_so(planted: Run) -> None:
    found = spread(planted.reader, WORD, limit=2)
    assert found.limit == 2 and found.exchanges <= 2
    assert not spread(planted.reader, "xylophone").uses
    assert spread(planted.reader, "").exchanges == 0


def test_scripts_without_spaces(plain: Run, tmp_path: Path) -> None:
    run = plain.copy(tmp_path)
    said = "stage_texts text_id episode_id = ? AND stage = ?"
    plant(run, said, episode(run, 3, 1), "draft", word="ここで仲直りしよう")
    rebuild_summaries(run)
    assert [use.agent for use in spread(run.reader, "仲直り").uses] == [3]


@pytest.fixture(scope="module")
def site(planted: Run) -> Iterator[Site]:
    with serving(planted) as site:
        yield site


def test_pages_show_the_spread(site: Site) -> None:
    panel = site.page("/r/run/spread", q=WORD)
    assert "4 of 16 agents" in panel and "reason of <a" in panel and "a recalled memory" in panel
    assert site.ask(f"/r/run/spread.json?q={WORD}").lines[0]["1"] == 0
    rows = site.ask(f"/r/run/figures/spread-agents.csv?q={WORD}").rows
    assert [row["round"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert site.ask(f"/r/run/figures/spread-exchanges.svg?q={WORD}").text.startswith("<svg")
    assert "No agent says it" in site.page("/r/run/spread", q="xylophone")
    assert 'value="said"' in site.page("/r/run", q=WORD)
    assert 'value="said"' not in site.page("/r/run")
    assert f"/r/run/spread?q={WORD}" in site.page("/r/run/search", q=WORD)
