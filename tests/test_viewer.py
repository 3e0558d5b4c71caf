"""The viewer: summaries, pages, filters, errors, and security."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import yaml
from conftest import ROOT, Make, small
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text
from stored import Run
from stored import make as make_stored
from test_migrations import stored
from viewing import (
    HOSTILE,
    Site,
    Tags,
    addresses,
    hostile,
    link,
    listed,
    rebuild_summaries,
    serving,
)

from agents.forms import READ
from agents.scale import Declaration, Scale
from sandbox.config import load_config
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.calls import call
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import ExchangeFilter, stream_exchanges
from sandbox.reading.influence import Bands, clusters, influences, new_words, uptake, words
from sandbox.reading.recall import candidates, recall, recall_rule
from sandbox.reading.text_diff import changed_words, words_kept
from sandbox.reading.trends import agent_trends
from sandbox.study.fork import fork
from sandbox.text import escape_controls
from sandbox.viewer import downloads
from sandbox.viewer.guard import root_path
from storage.database import Address, open_for_reading, parse_url
from storage.errors import InputError
from storage.exchanges import Exchange, GivenRating, Observation, exchange, exchanges
from storage.reader import Reader, parse_further
from worlds.scales import ALIGNMENT, ENGAGEMENT, PEER_RATING, STAGES

LATENCY = "models.social.latency={first_token: 0.004, per_token: 0.0001, capacity: 16}"

# Summaries


def _ask(engine: Engine, query: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]


MINE = "SELECT id FROM episodes WHERE run_id = :run AND observed"
COUNTS = {
    "outcomes": "SELECT round, label, measure, outcome, n FROM outcomes WHERE run_id = :run",
    "raters": "SELECT rater, label, ratings, missing, total, compared, deviation, "
    "deviation_squares FROM rater_sums WHERE run_id = :run",
    "agents": "SELECT s.agent, m.name, s.n, s.total, s.squares, s.rounds, s.round_squares, "
    "s.products FROM agent_sums s JOIN measures m ON m.id = s.measure_id WHERE m.run_id = :run",
    "calls": "SELECT form_id, model_id, status, calls, tokens_in, tokens_out, cached_tokens, "
    "told, tokens_told, took FROM call_sums WHERE run_id = :run AND calls <> 0",
    "episodes": "SELECT id, ratings_read, ratings_missing FROM episodes WHERE run_id = :run",
    "scores": "SELECT m.name, s.episode_id, s.value FROM scores s "
    "JOIN measures m ON m.id = s.measure_id WHERE m.run_id = :run",
}


def _close(rows: Any) -> Any:
    """Sort rows and round their floats, for comparison."""
    return sorted(
        tuple(round(float(value), 6) if isinstance(value, int | float) else value for value in row)
        for row in rows
    )


def _held(engine: Engine, run: int) -> dict[str, Any]:
    found = {name: _ask(engine, query, run=run) for name, query in COUNTS.items()}
    found["episodes"] = [tuple(-99 if x is None else x for x in row) for row in found["episodes"]]
    return {name: _close(rows) for name, rows in found.items()}


def _expected(engine: Engine, run: int) -> dict[str, Any]:
    """Compute the summaries from the rows."""
    one = {"run": run}
    played = _ask(
        engine,
        "SELECT e.id, e.round, e.failed_at, e.observed, coalesce(a.label, ''), e.author "
        "FROM episodes e LEFT JOIN agents a ON a.run_id = e.run_id AND a.number = e.author "
        "WHERE e.run_id = :run",
        **one,
    )
    seen, given = defaultdict(dict), defaultdict(list)
    for episode, stage, scale, rating, status in _ask(
        engine,
        "SELECT episode_id, stage, scale, rating, status FROM observations "
        f"WHERE episode_id IN ({MINE})",
        **one,
    ):
        seen[episode][f"{stage}_{scale}"] = (rating, status)
    for episode, *row in _ask(
        engine,
        f"SELECT episode_id, rater, rating, status FROM ratings WHERE episode_id IN ({MINE})",
        **one,
    ):
        given[episode].append(row)
    outcomes: Counter[Any] = Counter()
    raters: dict[Any, list[float]] = defaultdict(lambda: [0] * 6)
    agents: dict[Any, list[float]] = defaultdict(lambda: [0] * 6)
    counts, means = [], []
    for episode, number, failed_at, observed, label, author in played:
        scores = {name: rating for name, (rating, _) in seen[episode].items()}
        read = [rating for _, rating, _ in given[episode] if rating is not None]
        lost = len(given[episode]) - len(read)
        mean = sum(read) / len(read) if read else None
        counts.append((episode, len(read), lost) if observed else (episode, -99, -99))
        if not observed:
            continue
        means += [(name, episode, rating) for name, rating in scores.items() if rating is not None]
        means += [("peer_rating", episode, mean)] if mean is not None else []
        outcomes[number, label, "episode", "failed" if failed_at else "played"] += 1
        for name, (rating, status) in seen[episode].items():
            outcomes[number, label, name, status if rating is None else f"{rating:g}"] += 1
        for _, rating, status in given[episode]:
            outcomes[number, label, "peer_rating", status if rating is None else f"{rating:g}"] += 1
        for scale in ("alignment", "engagement"):
            before, after = (scores.get(f"{stage}_{scale}") for stage in ("draft", "revision"))
            if None not in (before, after):
                outcomes[number, label, f"{scale}_gain", f"{after - before:g}"] += 1
                means.append((f"{scale}_gain", episode, after - before))
        if read:
            outcomes[number, label, "mean_rating", f"{sum(read):g}/{len(read)}"] += 1
        if read and scores.get("draft_alignment") is not None:
            halves_up = int(sum(read) / len(read) + 0.5)
            outcomes[number, label, "agreement", f"{halves_up}/{scores['draft_alignment']:g}"] += 1
        for name, other, value in means if author is not None else ():
            if other == episode:
                n = len(read) if name == "peer_rating" else 1
                row = (1, value, value**2, number, number**2, value * number)
                sums = agents[author, name]
                agents[author, name] = [a + n * b for a, b in zip(sums, row, strict=True)]
        for rater, rating, _ in given[episode]:
            others = [r for other, r, _ in given[episode] if other != rater and r is not None]
            apart = rating - sum(others) / len(others) if others and rating is not None else None
            row = (1, rating is None, rating or 0, apart is not None, apart or 0, (apart or 0) ** 2)
            sums = raters[rater, label]
            raters[rater, label] = [a + b for a, b in zip(sums, row, strict=True)]
    calls = _ask(
        engine,
        "SELECT form_id, model_id, status, count(*), coalesce(sum(tokens_in), 0), "
        "coalesce(sum(tokens_out), 0), coalesce(sum(cached_tokens), 0), count(cached_tokens), "
        "coalesce(sum(tokens_in) FILTER (WHERE cached_tokens IS NOT NULL), 0), sum(took) "
        "FROM calls WHERE id >= :low AND id < :high GROUP BY form_id, model_id, status",
        low=(run - 1) << 32,
        high=run << 32,
    )
    return {
        "outcomes": _close((*key, n) for key, n in outcomes.items()),
        "raters": _close((*key, *sums) for key, sums in raters.items()),
        "agents": _close((*key, *sums) for key, sums in agents.items()),
        "calls": _close(calls),
        "episodes": _close(counts),
        "scores": _close(means),
    }


def agree(address: Address | Run) -> dict[str, Any]:
    """Check all summaries of a database against its rows; return those of the last run."""
    url = parse_url(str(address.path)) if isinstance(address, Run) else address.url
    engine = create_engine(url)
    try:
        runs = [row[0] for row in _ask(engine, "SELECT id FROM runs ORDER BY id")]
        for run in runs:
            held = _held(engine, run)
            for name, rows in _expected(engine, run).items():
                assert held[name] == rows, name
        return held
    finally:
        engine.dispose()


def test_summaries_equal_the_rows(messy: Run, tidy: Run) -> None:
    for run in (messy, tidy):
        held = agree(run)
        assert all(held.values())
    outcomes = {(measure, outcome) for *_, measure, outcome, _ in agree(messy)["outcomes"]}
    assert ("episode", "failed") in outcomes and ("peer_rating", "unreadable") in outcomes


def test_summaries_of_a_run_without_episodes(tmp_path: Path) -> None:
    run = make_stored(tmp_path / "run.db", "rounds=2", play=False)
    assert not any(agree(run).values())


@pytest.mark.filterwarnings("ignore::storage.errors.IncompleteWarning")
def test_summaries_survive_a_kill(tmp_path: Path) -> None:
    config = small("rounds=4", LATENCY, "models.social.misbehave=0.2", "name=killed")
    path, database = tmp_path / "config.yaml", tmp_path / "runs" / "killed.db"
    path.write_text(yaml.safe_dump(json.loads(config.as_json())), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    run = Run(database, "killed")
    while process.poll() is None:
        try:
            if run.sql("SELECT count(*) FROM episodes WHERE observed")[0][0] > 10:
                break
        except sqlite3.OperationalError:
            time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    address = Address(parse_url(str(database)), "killed")
    assert agree(address)["outcomes"]
    assert resume(address).status == "done"
    agree(address)


def test_summaries_of_a_fork_and_of_retried_calls(tmp_path: Path, make: Make) -> None:
    address, _ = make("models.social.misbehave=0.2", "rounds=3")
    beside = fork(address, 1, ["world.score_only=true"], name="beside", db=str(address.url))
    before = agree(beside)
    assert before["outcomes"] and {row[0] for row in before["outcomes"]} == {0, 1}
    assert resume(beside).status == "done"
    agree(beside)
    anew = create(prepare(small("schedule.order=sequential")), str(tmp_path / "anew.db"))
    assert resume(anew, budget=Budget(calls=100)).status == "interrupted"
    agree(anew)
    with closing(sqlite3.connect(tmp_path / "anew.db")) as connection, connection:
        connection.execute("UPDATE forms SET system = 'Changed.' WHERE name = 'rate'")
    assert resume(anew, accept_changes=True).status == "done"
    agree(anew)


def test_summaries_can_be_rebuilt(messy: Run, tmp_path: Path) -> None:
    copy = messy.copy(tmp_path)
    before = agree(messy)
    for statement in (
        "DELETE FROM outcomes WHERE round = 1",
        "UPDATE rater_sums SET total = total + 1",
        "UPDATE call_sums SET calls = 7 * calls",
        "UPDATE episodes SET ratings_read = 1, ratings_missing = NULL",
        "UPDATE scores SET value = value + 1",
    ):
        copy.sql(statement)
    rebuild_summaries(copy)
    assert agree(copy) == before
    assert words_found(copy.reader, "the") == words_found(messy.reader, "the") != set()


# Search


def words_found(reader: Reader, said: str) -> set[int]:
    return {one.episode for one in stream_exchanges(reader, ExchangeFilter(search=said))}


def _said(reader: Reader) -> dict[int, list[str]]:
    """All texts of each exchange, by its number."""
    found = {}
    for one in exchanges(reader):
        parts = [one.question, *one.texts.values()]
        parts += [given.reason for given in one.ratings]
        parts += [seen.reason for seen in one.observations]
        if one.scene:
            parts += [t for act in one.scene.acts for t in (act.text, act.why, act.critique)]
            parts += [t for part in one.scene.parts for t in (part.name, part.about)]
            parts += [note.text for note in one.scene.notes]
        calls = reader.journal(one.episode)
        parts += [call.reply for call in calls if call.status not in READ]
        parts += [call.thinking for call in calls]
        found[one.episode] = [part.lower() for part in parts if part]
    return found


def _sample(said: dict[int, list[str]], n: int) -> list[str]:
    every = {
        word for texts in said.values() for part in texts for word in re.findall(r"[a-z]{3,}", part)
    }
    return random.Random(5).sample(sorted(every), min(n, len(every)))


def _with(said: dict[int, list[str]], pattern: str) -> set[int]:
    return {number for number, texts in said.items() if any(re.search(pattern, t) for t in texts)}


def test_search_finds_exactly_the_matching_exchanges(messy: Run, tmp_path: Path) -> None:
    scene = tmp_path / "scene.db"
    preset = ROOT / "worlds" / "presets" / "scene.yaml"
    play = load_config(preset, ["world.scenes=4", "models.social.misbehave=0.1", "name=scene"])
    assert resume(create(prepare(play), str(scene))).status == "done"
    for run in (messy, Run(scene, "scene")):
        reader = run.reader
        said = _said(reader)
        for word in _sample(said, 60):
            assert words_found(reader, word) == _with(said, rf"\b{word}"), word
        assert words_found(reader, "xylophone zebra") == set()
        assert words_found(reader, '"" ... AND') == _with(said, r"\band")
        some = random.Random(2).choice(
            [t for texts in said.values() for t in texts if len(t.split()) > 5]
        )
        phrase = re.findall(r"\w+", some)[2:5]
        wanted = _with(said, r"\b" + r"\W+".join(phrase) + r"\b")
        found = words_found(reader, f'"{" ".join(phrase)}"')
        assert wanted and found == wanted, (phrase, some)
        first, second = _sample(said, 2)
        both = words_found(reader, f"{first} {second}")
        assert both == words_found(reader, first) & words_found(reader, second)
        assert words_found(reader, first.upper()) == words_found(reader, first)


def test_exchanges_in_progress_are_not_found(tmp_path: Path) -> None:
    address = create(prepare(small("schedule.order=lock_step")), str(tmp_path / "run.db"))
    assert resume(address, budget=Budget(calls=60)).status == "interrupted"
    run = Run(tmp_path / "run.db", "quickstart")
    reader = Reader.find(open_for_reading(address.url), None, "")
    begun = {row[0] for row in run.sql("SELECT id FROM episodes WHERE NOT observed")}
    said = _said(reader)
    for word in _sample(said, 20):
        assert words_found(reader, word) == _with(said, rf"\b{word}") - begun


def test_postgresql_gives_the_same_results(server: str) -> None:
    both = []
    for name in ("one", "two"):
        config = small("rounds=2", "models.social.misbehave=0.2", f"name={name}")
        both.append(create(prepare(config), server))
    for address in both:
        assert resume(address).status == "done"
        agree(address)
    reader = Reader.find(open_for_reading(both[1].url), "two", "")
    said = _said(reader)
    for word in _sample(said, 40):
        assert words_found(reader, word) == _with(said, rf"\b{word}\b"), word
    assert words_found(reader, "xylophone") == set()
    with serving(f"{server}#one", f"{server}#two") as site:
        numbers = listed(site.page("/r/two/exchanges", q=_sample(said, 1)[0]), "exchanges")
        assert set(numbers) == words_found(reader, _sample(said, 1)[0])
        for page in ("", "/agents", "/agents/1", "/exchanges/1", "/ratings", "/calls", "/calls/3",
                     "/about", "/search?q=the", "/frames/1.json", "/advice/1",
                     "/by-round?split=topic", "/by-round?split=rater_label",
                     "/exchanges?spread_min=1&alignment_gain_max=0&question=1&model=scripted",
                     "/exchanges?kind=fell&scale=engagement&order=-engagement_gain",
                     "/exchanges/1?order=alignment_gain", "/calls?tokens_out_min=1",
                     "/calls/3?form=draft", "/agents?order=-change",
                     "/agents/1?only=changed",
                     "/frames/1.json?count=asked_again", "/neighbours", "/card/3/1", "/map/1.csv",
                     "/spread?q=the", "/spread.json?q=the", "?q=the&agent=3"):  # fmt: skip
            site.page(f"/r/two{page}")
        assert len(site.ask("/r/two/exchanges.jsonl").lines) == len(said)
    reader.engine.dispose()


def test_figures_of_many_rounds_come_after_their_page(
    tidy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tidy) as site:
        whole = {path: site.page(f"/r/small{path}") for path in ("", "/ratings")}
        monkeypatch.setattr("sandbox.viewer.pages.MANY_ROUNDS", 1)
        for path, later, name in (
            ("", "/by-round?split=label", "alignment-by-label"),
            ("/ratings", "/ratings/figures", "alignment-ratings"),
        ):
            page, figures = site.page(f"/r/small{path}"), site.page(f"/r/small{later}")
            assert f'id="{name}"' in whole[path] and f'id="{name}"' not in page
            assert f'data-load="/r/small{later}"' in page
            assert f'id="{name}"' in figures


# Hostile texts


@pytest.fixture(scope="module")
def hostile_run(messy: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return hostile(messy, tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def there(hostile_run: Run) -> Iterator[Site]:
    with serving(hostile_run) as site:
        yield site


SAFE = {
    *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "div", "nav"),
    *("ol", "ul", "li", "span", "form", "input", "button", "output", "main", "h1", "h2", "h3"),
    *("p", "footer", "kbd", "dialog", "dl", "dt", "dd", "strong", "code", "pre", "table", "thead"),
    *("tbody", "tr", "th", "td", "details", "summary", "section", "figure", "figcaption"),
    *("label", "select", "option", "optgroup", "progress", "del", "ins", "mark", "fieldset"),
    *("legend", "small", "time", "br"),
    *("svg", "polyline"),  # without handlers: sparklines
}
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LINKED = re.compile(r"(?:/|\?|#[\w-]+$)")


def _harmless(page: str) -> Tags:
    """Check that every tag, link and script of a page comes from the viewer."""
    found = Tags(page)
    for tag, has in found.tags:
        assert tag in SAFE, tag
        assert not [name for name in has if name.startswith("on") or name == "style"], has
        for name in {"href", "src", "action"} & has.keys():
            assert LINKED.match(str(has[name])) and not str(has[name]).startswith("//"), has
        if tag == "script":
            assert str(has.get("src")).startswith("/static/") or has == {"type": "application/json"}
    for data in found.scripts:
        if data.strip():
            found.words += _texts(json.loads(data))
    assert not UNSEEN.search(found.shown)
    return found


def _texts(value: Any) -> list[str]:
    """All strings in the data of a chart."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for part in parts for t in _texts(part)] if isinstance(value, dict | list) else []


def test_pages_escape_hostile_texts(there: Site, hostile_run: Run) -> None:
    pages = [path for path in addresses(hostile_run) if not path.endswith((".csv", ".jsonl"))]
    pages += [f"/r/small/exchanges/{row[0]}" for row in hostile_run.sql("SELECT id FROM episodes "
              "WHERE id IN (SELECT episode_id FROM stage_texts) ORDER BY id LIMIT 20")]  # fmt: skip
    pages += [
        f"/r/small/calls/{row[0]}" for row in hostile_run.sql("SELECT id FROM calls LIMIT 12")
    ]
    pages += [f"/r/small/agents/{number}" for number in range(12)]
    pages += ["/r/small/exchanges?" + urlencode({"q": one[:900]}) for one in HOSTILE]
    pages += ["/r/small/search?" + urlencode({"q": one[:900]}) for one in HOSTILE]
    pages += ["/r/small/agents?" + urlencode({"q": one[:900]}) for one in HOSTILE]
    pages += ["/compare?" + urlencode([("run", "small"), ("run", "small"), ("episode", "3")])]
    shown = ""
    for path in pages:
        page = there.page(path)
        if "/frames/" in path:
            page = "".join(node["name"] for node in json.loads(page)["nodes"])
        assert not UNSEEN.search(re.sub('value="[^"]*"', "", page)), path
        if not path.split("?")[0].endswith(".json"):
            shown += _harmless(page).shown
    for one in HOSTILE:
        seen = escape_controls(one) if len(one) < 1000 else one[:50_000]
        assert seen.strip() in shown, "texts must be shown verbatim"
    for point in (0x202E, 0x202C, 0x2066, 0x2069, 0x07, 0x1B, 0x7F, 0x85):
        assert f"\u27e8U+{point:04X}\u27e9" in shown
    assert "more characters" in shown


def test_error_pages_escape_the_url(there: Site) -> None:
    for path in (
        "/r/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/r/small/exchanges?round=%3Cimg+src%3Dx%3E",
        "/r/small/exchanges?kind=%3Cimg+src%3Dx%3E",
        "/r/small/%3Cimg%20src=x%3E",
        "/%E2%80%AE%00",
    ):
        answer = there.ask(path)
        assert answer.status in (400, 404), path
        _harmless(answer.text)
        assert "\u202e" not in answer.text


def test_downloads_contain_texts_verbatim(there: Site, hostile_run: Run) -> None:
    texts = {row[0] for row in hostile_run.sql("SELECT text FROM texts")}
    for name, columns in (("exchanges", ("draft", "revision", "question")), ("calls", ())):
        lines = there.ask(f"/r/small/{name}.jsonl").lines
        rows = there.ask(f"/r/small/{name}.csv").rows
        assert len(lines) == len(rows) > 100
        for line, row in zip(lines, rows, strict=True):
            for column in columns:
                assert line[column] is None or line[column] in texts
            for column, value in line.items():
                cell = row[column]
                if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
                    float(cell)
                if isinstance(value, str):
                    assert cell in (value, f"'{value}"), column
                    assert (cell == value) == (not value.startswith(("=", "+", "-", "@", "\t")))
    said = "".join(str(line) for line in there.ask("/r/small/exchanges.jsonl").lines)
    assert all(str([one])[2:-2] in said for one in HOSTILE)
    agents = there.ask("/r/small/agents.csv").rows
    assert len(agents) == len(there.ask("/r/small/agents.jsonl").lines) == 25
    assert {row["name"] for row in agents} >= {"'@SUM(1)", "<script>alert(1)</script>"}


# Routes and filters


@pytest.fixture(scope="module")
def site(messy: Run) -> Iterator[Site]:
    with serving(messy) as site:
        yield site


def _all_pages(site: Site, path: str, query: dict[str, Any], kind: str) -> list[int]:
    """The row numbers on all pages of a list, by following the pager."""
    page, found = site.page(path, **query), []
    while True:
        found += listed(page, kind)
        further = link(page, "next")
        if further is None:
            return found
        page = site.page(path + further)


SCORES = """SELECT e.*, a.label,
    (SELECT rating FROM observations WHERE episode_id = e.id AND stage = 'draft'
        AND scale = 'alignment') AS before,
    (SELECT rating FROM observations WHERE episode_id = e.id AND stage = 'revision'
        AND scale = 'alignment') AS after,
    (SELECT avg(rating) FROM ratings WHERE episode_id = e.id) AS peers,
    (SELECT max(rating) - min(rating) FROM ratings WHERE episode_id = e.id) AS spread,
    (SELECT sum(CASE stage WHEN 'revision' THEN rating ELSE -rating END) FROM observations
        WHERE episode_id = e.id AND scale = 'engagement' HAVING count(rating) = 2) AS engaged,
    (SELECT text_id FROM questions WHERE id = e.question_id) AS asked,
    (SELECT count(*) FROM ratings WHERE episode_id = e.id AND rating IS NULL) AS lost
    FROM episodes e JOIN agents a ON a.number = e.author"""
FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "1 ORDER BY id DESC"),
    ({"order": "number"}, "1 ORDER BY id"),
    ({"order": "-alignment_gain"}, "1 ORDER BY after - before DESC NULLS LAST, id"),
    ({"order": "alignment_gain"}, "1 ORDER BY after - before NULLS LAST, id"),
    ({"order": "-revision_alignment"}, "1 ORDER BY after DESC NULLS LAST, id"),
    ({"order": "revision_alignment", "rows": 200}, "1 ORDER BY after NULLS LAST, id"),
    ({"order": "-peer_rating", "rows": 25}, "1 ORDER BY peers DESC NULLS LAST, id"),
    ({"round": 2}, "round = 2 ORDER BY id DESC"),
    ({"author": 7}, "author = 7 ORDER BY id DESC"),
    ({"author": 7, "round": 0}, "author = 7 AND round = 0 ORDER BY id DESC"),
    ({"from_round": 2, "to_round": 3}, "round BETWEEN 2 AND 3 ORDER BY id DESC"),
    ({"from_round": 4}, "round >= 4 ORDER BY id DESC"),
    ({"question": 130}, "asked = (SELECT text_id FROM questions WHERE id = 130) ORDER BY id DESC"),
    ({"model": "scripted"}, "1 ORDER BY id DESC"),
    ({"model": "no such"}, "0"),
    ({"alignment_gain_min": 1}, "after - before >= 1 ORDER BY id DESC"),
    ({"alignment_gain_max": -1, "draft_alignment_min": 5.5, "order": "number"},
     "after - before <= -1 AND before >= 5.5 ORDER BY id"),
    ({"spread_min": 3, "spread_max": 4}, "spread BETWEEN 3 AND 4 ORDER BY id DESC"),
    ({"kind": "fell", "scale": "engagement"}, "engaged < 0 ORDER BY id DESC"),
    ({"rater": 3, "order": "number"},
     "id IN (SELECT episode_id FROM ratings WHERE rater = 3) ORDER BY id"),
    ({"label": "bad"}, "label = 'bad' ORDER BY id DESC"),
    ({"label": "none such"}, "0"),
    ({"kind": "rose"}, "after > before ORDER BY id DESC"),
    ({"kind": "equal"}, "after = before ORDER BY id DESC"),
    ({"kind": "fell"}, "after < before ORDER BY id DESC"),
    ({"kind": "failed"}, "failed_at IS NOT NULL ORDER BY id DESC"),
    ({"kind": "missing ratings", "label": "good", "order": "-revision_alignment"},
     "lost > 0 AND label = 'good' ORDER BY after DESC NULLS LAST, id"),
    ({"kind": "in play"}, "0"),
    ({"q": "", "round": ""}, "1 ORDER BY id DESC"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "where"), FILTERS, ids=[str(query) for query, _ in FILTERS])
def test_exchanges_are_filtered(site: Site, messy: Run, query: dict[str, Any], where: str) -> None:
    wanted = [row["id"] for row in messy.sql(f"SELECT * FROM ({SCORES}) WHERE {where}")]
    assert _all_pages(site, "/r/small/exchanges", query, "exchanges") == wanted
    asked = "?" + urlencode(query)
    lines = site.ask(f"/r/small/exchanges.jsonl{asked}").lines
    assert [line["episode"] for line in lines] == sorted(wanted)
    rows = site.ask(f"/r/small/exchanges.csv{asked}").rows
    assert [int(row["episode"]) for row in rows] == sorted(wanted)


def test_words_that_a_revision_took_up_are_marked(site: Site, messy: Run) -> None:
    """In each reason, and in the revision: the words that the measure of uptake counts."""
    checked = 0
    for number in range(0, 150, 7):
        shown = exchange(messy.reader, number)
        assert shown is not None
        new = new_words(shown.texts["draft"], shown.texts["revision"])
        if new is None:
            continue
        page = site.page(f"/r/small/exchanges/{number}")
        shares, marked = [], set()
        for rating in shown.ratings:
            taken = new & words(rating.reason or "")
            marked |= taken
            shares += [f"{100 * uptake(new, rating.reason or ''):.0f} %"] if taken else []
        assert re.findall(r"advice adopted (\d+ %)", page) == shares
        assert set(re.findall(r'data-word="([^"]+)"', page)) == marked
        inserted = " ".join(re.findall(r"<ins>(.*?)</ins>", page, re.DOTALL))
        assert set(re.findall(r'data-word="([^"]+)"', inserted)) == marked
        checked += bool(shares)
    assert checked > 3


def test_words_kept() -> None:
    before, after = "One two three four five six.", "One two three four, and seven."
    assert words_kept(changed_words(before, after)) == pytest.approx(3 / 6)
    assert words_kept(changed_words(before, before)) == 1
    assert words_kept(changed_words(before, "")) == 0
    assert words_kept(None) is None and words_kept(changed_words("", after)) is None


def test_results_are_walked_in_order(site: Site) -> None:
    """The page of an exchange leads through the list that links to it, and back."""
    query = {"kind": "fell", "order": "alignment_gain", "rows": "25"}
    wanted = _all_pages(site, "/r/small/exchanges", query, "exchanges")
    page = site.page("/r/small/exchanges", **query)
    found = re.findall(r'data-row href="([^"]*)"', page)
    assert len(wanted) > 2 and len(found) == min(25, len(wanted))
    path, walked = unescape(found[0]), []
    for position in range(1, len(wanted) + 1):
        page = site.page(path)
        walked.append(int(path.partition("?")[0].rpartition("/")[2]))
        shown = Tags(page).shown
        assert f"{position} of {len(wanted)} \u00b7 got worse \u00b7 by alignment gain" in shown
        before = link(page, "prev")
        assert (before is None) == (position == 1)
        if before is not None:
            assert before.startswith(f"/r/small/exchanges/{walked[-2]}?")
        path = link(page, "next") or ""
    assert walked == wanted and not path
    back = re.findall(r'href="([^"]*)">Back to results', page)
    assert wanted[-1] in listed(site.page(unescape(back[0])), "exchanges")
    elsewhere = next(number for number in range(150) if number not in wanted)
    said = Tags(site.page(f"/r/small/exchanges/{elsewhere}", **query)).shown
    assert f"not among the {len(wanted)} results" in said


def test_active_filters_can_be_removed(site: Site) -> None:
    query = {"round": 3, "label": "bad", "spread_min": 1.5, "order": "-number"}
    page = site.page("/r/small/exchanges", **query)
    links = re.findall(r'<li>([^<]+) <a href="([^"]*)"><span aria-hidden', page)
    assert [text for text, _ in links] == ["round 3", "starting label bad",
        "spread of raters \u2265 1.5", "by number, highest first"]  # fmt: skip
    for (_, href), name in zip(links, query, strict=True):
        left = {key: str(value) for key, value in query.items() if key != name}
        assert dict(parse_qsl(unescape(href)[1:])) == left
    assert '<a href="?">Clear all</a>' in page


def test_choices_are_counted(site: Site, messy: Run) -> None:
    page = site.page("/r/small/exchanges")
    for kind, where in (
        ("improved", "after > before"),
        ("unchanged", "after = before"),
        ("got worse", "after < before"),
        ("failed", "failed_at IS NOT NULL"),
    ):
        n = messy.sql(f"SELECT count(*) FROM ({SCORES}) WHERE {where}")[0][0]
        assert f">{kind} ({n})</option>" in page


def test_exchanges_are_filtered_by_text(site: Site, messy: Run) -> None:
    said = _said(messy.reader)
    for word in _sample(said, 4):
        wanted = sorted(_with(said, rf"\b{word}"), reverse=True)
        assert _all_pages(site, "/r/small/exchanges", {"q": word}, "exchanges") == wanted
        in_round = [number for number in wanted if number // 25 == 3]
        query = {"q": word, "round": 3, "order": "number"}
        assert _all_pages(site, "/r/small/exchanges", query, "exchanges") == in_round[::-1]
        lines = site.ask("/r/small/exchanges.jsonl?" + urlencode({"q": word})).lines
        assert [line["episode"] for line in lines] == wanted[::-1]
        hits = site.page("/r/small/search", q=word)
        assert listed(hits, "exchanges") == wanted[: len(listed(hits, "exchanges"))]
        assert bool(wanted) == bool(re.search(rf"<mark>{word}", hits, re.IGNORECASE))


def test_pages_beyond_the_last_show_the_last(site: Site) -> None:
    last = site.page("/r/small/exchanges", page=3)
    assert listed(last, "exchanges") == list(range(49, -1, -1))
    assert "101 to 150 of 150" in last
    assert listed(site.page("/r/small/exchanges", page=99), "exchanges") == listed(
        last, "exchanges"
    )


CALLS: list[tuple[dict[str, Any], str]] = [
    ({}, "1"),
    ({"form": "rate"}, "form = 'rate'"),
    ({"form": "no such form"}, "0"),
    ({"status": "ok", "round": 5}, "status = 'ok' AND episode_id / 25 = 5"),
    ({"status": "not ok"}, "status <> 'ok'"),
    ({"status": "unreadable", "form": "rate"}, "status = 'unreadable' AND form = 'rate'"),
    ({"status": "failed"}, "status = 'failed'"),
    ({"agent": 4}, "agent = 4"),
    ({"agent": 4, "form": "draft", "round": 1},
     "agent = 4 AND form = 'draft' AND episode_id / 25 = 1"),
    ({"round": 4}, "episode_id / 25 = 4"),
    ({"tokens_out_min": 40, "rows": "200"}, "tokens_out >= 40"),
    ({"tokens_in_min": 200, "tokens_in_max": 300, "form": "rate", "rows": "25"},
     "tokens_in BETWEEN 200 AND 300 AND form = 'rate'"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "where"), CALLS, ids=[str(query) for query, _ in CALLS])
def test_calls_are_filtered(site: Site, messy: Run, query: dict[str, Any], where: str) -> None:
    calls = "SELECT c.*, f.name AS form FROM calls c JOIN forms f ON f.id = c.form_id"
    rows = messy.sql(f"SELECT id FROM ({calls}) WHERE {where} ORDER BY id DESC")
    wanted = [row[0] for row in rows]
    page, found = site.page("/r/small/calls", **query), []
    if query and query.keys() <= {"form", "status"}:
        assert f"{len(wanted):,} of " in Tags(page).shown
    while True:
        found += listed(page, "calls")
        further = link(page, "next")
        if further is None:
            break
        page = site.page("/r/small/calls" + further)
    assert found == wanted, "forwards"
    back: list[int] = listed(page, "calls")
    while (before := link(page, "prev")) is not None:
        page = site.page("/r/small/calls" + before)
        back = listed(page, "calls") + back
    assert back == wanted, "and back"
    asked = "?" + urlencode(query)
    lines = site.ask(f"/r/small/calls.jsonl{asked}").lines
    assert [line["call"] for line in lines] == wanted
    assert [int(row["call"]) for row in site.ask(f"/r/small/calls.csv{asked}").rows] == wanted


def test_filtered_calls_are_walked(site: Site, messy: Run) -> None:
    wanted = [row[0] for row in messy.sql("SELECT c.id FROM calls c JOIN forms f ON f.id = form_id "
              "WHERE f.name = 'rate' AND c.status = 'unreadable' ORDER BY c.id DESC")]  # fmt: skip
    query = {"form": "rate", "status": "unreadable"}
    path: str | None = f"/r/small/calls/{wanted[0]}?" + urlencode(query)
    for number in wanted[:12]:
        assert path is not None and path.startswith(f"/r/small/calls/{number}?")
        page = site.page(path)
        path = link(page, "next")
    back = re.findall(r'href="([^"]*)">Back to results', page)
    assert listed(site.page(unescape(back[0])), "calls")[0] == number
    plain = site.page("/r/small/calls/30")
    assert link(plain, "prev") == "/r/small/calls/29"
    assert link(plain, "next") == "/r/small/calls/31"


def test_calls_say_what_they_were_for(site: Site, messy: Run) -> None:
    rows = messy.sql("SELECT call_id, stage, scale FROM observations ORDER BY call_id DESC LIMIT 9")
    page = Tags(site.page("/r/small/calls", before=rows[0]["call_id"] + 1)).shown
    for row in rows:
        title = f"observer: {row['scale']} of the {row['stage']}"
        assert title in page
        said = Tags(site.page(f"/r/small/calls/{row['call_id']}")).shown
        assert title.capitalize() in said and "temperature" in said and "verified" in said
    counts = messy.sql("SELECT f.name, count(*) AS n FROM calls c JOIN forms f ON f.id = form_id "
                       "WHERE c.status = 'unreadable' GROUP BY 1")  # fmt: skip
    page = site.page("/r/small/calls")
    for row in counts:
        address = f"/r/small/calls?form={row['name']}&amp;status=unreadable"
        assert f'<a href="{address}">{row["n"]:,}</a>' in page


def test_calls_are_paged_by_cursor(site: Site) -> None:
    assert listed(site.page("/r/small/calls", before=30), "calls") == list(range(29, -1, -1))
    assert listed(site.page("/r/small/calls", after=30), "calls") == list(range(80, 30, -1))
    assert listed(site.page("/r/small/calls", before=0), "calls") == []


def test_agents_are_filtered_and_sorted(site: Site, messy: Run) -> None:
    numbers = "SELECT number FROM agents a WHERE {} ORDER BY {}"
    got = "(SELECT avg(rating) FROM ratings WHERE episode_id IN (SELECT id FROM episodes WHERE "
    for query, where, order in (
        ({}, "1", "number"),
        ({"label": "good"}, "label = 'good'", "number"),
        ({"order": "name"}, "1", "persona ->> '$.name', number"),
        ({"order": "-name"}, "1", "persona ->> '$.name' DESC, number"),
        ({"order": "-received"}, "1", f"{got} author = a.number)) DESC NULLS LAST, number"),
        ({"q": "electrician"}, "persona LIKE '%electrician%'", "number"),
        ({"q": "occupation"}, "0", "1"),
    ):
        wanted = [row[0] for row in messy.sql(numbers.format(where, order))]
        assert listed(site.page("/r/small/agents", **query), "agents") == wanted, query
        asked = "?" + urlencode(query)
        lines = site.ask(f"/r/small/agents.jsonl{asked}").lines
        assert [line["agent"] for line in lines] == wanted, query


def test_a_change_of_mind_is_measured(tmp_path: Path) -> None:
    """Only where the score of the answer to the same question moved by two points or more."""
    run = make_stored(
        tmp_path / "again.db",
        *("world.size=3", "rounds=6", "question_count=3", "memory.prior_pairs=3"),
        name="again",
    )
    rows = run.sql(
        "SELECT m.agent, q.text_id AS asked, o.rating FROM memories m "
        "JOIN questions q ON q.id = m.question_id LEFT JOIN observations o ON "
        "o.episode_id = m.episode_id AND o.stage = 'revision' AND o.scale = 'alignment' "
        "ORDER BY m.agent, m.round, m.id"
    )
    latest: dict[tuple[int, int], float | None] = {}
    changed, again = [0] * 9, [0] * 9
    for row in rows:
        place = row["agent"], row["asked"]
        if place in latest:
            again[row["agent"]] += 1
            before, now = latest[place], row["rating"]
            changed[row["agent"]] += None not in (before, now) and abs(now - before) >= 2
        latest[place] = row["rating"]
    assert 0 < sum(changed) < sum(again)
    with serving(run) as site:
        for only, counts in (("changed", changed), ("again", again)):
            for agent in sorted(range(9), key=lambda one: counts[one])[-3:]:
                lines = site.ask(f"/r/again/memories.jsonl?agent={agent}&only={only}").lines
                assert len(lines) == counts[agent] > 0
                page = site.page(f"/r/again/agents/{agent}", only=only)
                assert page.count('class="before-now"') == min(10, counts[agent])
                said = page.count(">changed its mind</strong>")
                assert said == min(10, counts[agent]) if only == "changed" else said < counts[agent]


@pytest.mark.parametrize("path", ["", "/ratings", "/search?q=the"])
def test_ids_are_unique_also_in_what_is_loaded_afterwards(site: Site, path: str) -> None:
    page = site.page(f"/r/small{path}")
    later = re.findall(r'data-(?:load|fragment)="([^"{]+)"', page)
    parts = [page, *(site.page(unescape(address)) for address in later)]
    ids = [has["id"] for part in parts for _, has in Tags(part).tags if "id" in has]
    assert [one for one, n in Counter(ids).items() if n > 1] == []
    assert later or not path


def test_agents_are_sorted_by_their_change_over_rounds(site: Site, messy: Run) -> None:
    """The mean draft of an author in the last three of six rounds, less that in the first three."""
    halves = messy.sql(
        f"SELECT author, avg(CASE WHEN round < 3 THEN before END) AS first, "
        f"avg(CASE WHEN round >= 3 THEN before END) AS last FROM ({SCORES}) GROUP BY author"
    )
    means = {row["author"]: (row["first"], row["last"]) for row in halves}
    lines = site.ask("/r/small/agents.jsonl?order=-change").lines
    for line in lines:
        first, last = means[line["agent"]]
        assert (line["first"], line["last"]) == (pytest.approx(first), pytest.approx(last))
        both = first is not None and last is not None
        assert line["change"] == (pytest.approx(last - first) if both else None)
    changes = [line["change"] for line in lines if line["change"] is not None]
    assert all(line["change"] is None for line in lines[len(changes) :])
    assert changes == sorted(changes, reverse=True) and len(set(changes)) > 3
    page = site.page("/r/small/agents", order="-change")
    assert listed(page, "agents") == [line["agent"] for line in lines]
    assert page.count("<polyline") > 20
    other = site.ask("/r/small/agents.jsonl?trend=revision_engagement").lines
    assert [line["first"] for line in other] != [line["first"] for line in lines]


def test_an_agents_trend_is_coloured_only_where_its_interval_excludes_zero(
    site: Site, messy: Run
) -> None:
    declared = declaration_of(messy.reader)
    measure = next(one for one in declared.measures if one.kind == "score")
    found = agent_trends(messy.reader, measure)
    kinds = []
    for number in sorted(found):
        low, high = found[number].low, found[number].high
        sure = low is not None and high is not None and not low <= 0 <= high
        kinds.append((" up" if (low or 0) > 0 else " down") if sure else "")
    page = site.page("/r/small/agents")
    assert re.findall(r'<span class="change([^"]*)"', page) == kinds
    assert len(set(kinds)) > 1


def test_files_have_no_noise_of_floats() -> None:
    row = {"a": 5.2 - 4.6, "b": [0.1 + 0.2], "c": {"d": 1 / 3}, "e": 12345678901234567, "f": None}
    assert row["a"] != 0.6
    (line,) = downloads.lines([row], "jsonl", ())
    assert json.loads(line) == {
        "a": 0.6, "b": [0.3], "c": {"d": 0.333333333333}, "e": 12345678901234567, "f": None,
    }  # fmt: skip
    _, cells = downloads.lines([row], "csv", list(row))
    assert cells == '0.6,[0.3],"{""d"": 0.333333333333}",12345678901234567,\r\n'


def test_numbers_of_agents_and_of_the_map(site: Site, messy: Run) -> None:
    mine = "episode_id IN (SELECT id FROM episodes WHERE author = ?)"
    for line in site.ask("/r/small/agents.jsonl").lines:
        number = line["agent"]
        got, gave = (
            messy.sql(f"SELECT avg(rating) FROM ratings WHERE {where}", number)[0][0]
            for where in (mine, "rater = ?")
        )
        assert line["mean_rating"] == pytest.approx(got)
        assert line["mean_given"] == pytest.approx(gave)
        held = messy.sql("SELECT count(*) FROM memories WHERE agent = ?", number)[0][0]
        assert line["memories"] == held
    frame = json.loads(site.page("/r/small/frames/3.json"))
    scores = {row["author"]: row for row in messy.sql(f"{SCORES} WHERE e.round = 3")}
    assert {node["agent"]: node["revision_alignment"] for node in frame["nodes"]} == {
        number: row["after"] for number, row in scores.items()
    }
    edges = messy.sql(
        "SELECT rater, author, rating FROM ratings JOIN episodes e ON e.id = episode_id "
        "WHERE round = 3 AND rating IS NOT NULL"
    )
    assert sorted(map(tuple, frame["edges"])) == sorted(map(tuple, edges))


WRONG = [
    *("calls?tokens_in_min=few", "calls?rows=1"),
    *("agents?order=--change", "agents?trend=peer_rating", "agents?rows=all"),
    *("exchanges?order=--number", "exchanges?scale=height", "exchanges?rows=7"),
    *("exchanges?alignment_gain_min=much", "exchanges?spread_max=nan", "exchanges/3?view=upside"),
    *("exchanges?round=x", "exchanges?round=-1", "exchanges?author=1.5", "exchanges?rater=zero"),
    *("exchanges?kind=bad", "exchanges?order=up", "exchanges?page=0", "exchanges?page=x"),
    *(f"exchanges?round={10**30}", "exchanges?kind=no+such", "agents?order=height"),
    *("calls?status=good", "calls?before=x", "calls?after=-2", "calls?agent=me", "?round=x"),
    *("?by=height", "agents/1?round=x", "agents/1?only=some", "exchanges.csv?round=x"),
    *("exchanges.jsonl?kind=bad", "calls.csv?agent=x", "calls.jsonl?status=good"),
    *("agents.csv?order=height", "figures/plane.svg?theme=blue"),
]


@pytest.mark.parametrize("path", WRONG)
def test_invalid_parameters_are_reported(site: Site, path: str) -> None:
    answer = site.ask(f"/r/small{'' if path.startswith('?') else '/'}{path}")
    assert answer.status == 400
    said = Tags(answer.text).shown
    name = path.partition("?")[2].partition("=")[0]
    assert re.search(rf"{name}: found .+; expected [^\n]+", said), said


UNKNOWN = [
    *("/r/nobody", "/r/nobody/agents", "/r/nobody/exchanges.csv", "/r/nobody/pulse.json"),
    *("/r/small/agents/25", "/r/small/exchanges/150", "/r/small/calls/99999999", "/nothing"),
    *("/r/small/nothing", "/r/small/exchanges.txt", "/r/small/secrets.csv", "/static/no.js"),
    *("/r/small/figures/no.svg", "/r/small/figures/plane.gif", "/r/small/agents/x"),
    *(f"/r/small/{kind}/{10**30}" for kind in ("agents", "exchanges", "calls")),
    *(f"/r/small/{kind}/{2**63}" for kind in ("agents", "exchanges", "calls")),
    *("/static/../app.py", "/static/%2e%2e/app.py"),
    "/r/small/../../etc/passwd",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_paths_give_404(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 404
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", [
    *(f"frames/{number}.json" for number in (99, 2**63, 10**30)),
    *(f"advice/{number}" for number in (99, 2**63, 10**30)),
    *("?round=99", "exchanges?page=1099511627776", "calls?before=1099511627776"),
    *("calls?round=1099511627776", "exchanges?author=1099511627776", "exchanges?q=%00"),
    *("exchanges?q=%22", "search?q=%22%22", "search", "exchanges?q=a*+OR+NEAR("),
])  # fmt: skip
def test_unusual_urls_are_answered(site: Site, path: str) -> None:
    answer = site.ask(f"/r/small{'' if path.startswith('?') else '/'}{path}")
    assert answer.status in (200, 404), answer.text[-300:]


@pytest.mark.parametrize(
    "query", ["round=x", "round=-1", "agent=x", "agent=-1", "agent=25", "split=no", "by=no"]
)
def test_unknown_values_on_the_page_of_the_society_are_refused(site: Site, query: str) -> None:
    answer = site.ask(f"/r/small?{query}")
    name, _, value = query.partition("=")
    assert answer.status == 400 and name in Tags(answer.text).shown and value in answer.text


def test_a_round_that_does_not_exist(site: Site) -> None:
    assert "There is no round 99: round 5 is the latest." in site.page("/r/small", round="99")
    assert "There is no round" not in site.page("/r/small", round="5") + site.page("/r/small")
    for path in ("frames/{}.json", "map/{}.csv", "map/{}.svg"):
        assert site.ask(f"/r/small/{path.format(5)}").status == 200
        answer = site.ask(f"/r/small/{path.format(6)}")
        assert answer.status == 404 and "round 6: no such round; expected 0 to 5" in answer.text


def test_runs_that_do_not_exist_are_left_out_of_a_comparison(tidy: Run, messy: Run) -> None:
    with serving(tidy, messy) as site:
        both = "run=small&run=small~2"
        for query in (f"{both}&run=nobody", f"run=nobody&{both}&baseline=nobody"):
            answer = site.ask(f"/compare?{query}")
            assert answer.status == 200 and "nobody: no such run" in Tags(answer.text).shown
            assert 'id="versus"' in answer.text and "run=nobody" not in answer.text
        for query in ("run=small&run=nobody", "run=nobody&run=%3Cb%3E"):
            answer = site.ask(f"/compare?{query}")
            assert answer.status == 200 and "nobody: no such run" in Tags(answer.text).shown
            assert "Choose at least two runs" in answer.text and "<b>" not in answer.text
        assert "no such run" not in site.page(f"/compare?{both}")
        assert site.ask(f"/compare?{both}&baseline=nobody").status == 400


def test_incomparable_runs_are_reported(site: Site) -> None:
    for query in ("run=small", "run=small&run=small", ""):
        assert site.ask(f"/compare?{query}").status == 200
        answer = site.ask(f"/compare/differences?{query}")
        assert answer.status == 200 and 'class="note bad"' in answer.text, query


# Access control


OTHERS = [
    *("elsewhere.example", "127.0.0.1.elsewhere.example", "10.0.0.1", "[::2]", "0.0.0.0"),
    "localhost.elsewhere.example:80",
]


@pytest.mark.parametrize("host", OTHERS)
def test_requests_for_other_hosts_are_refused(site: Site, host: str) -> None:
    for path in ("/", "/r/small", "/static/app.css", "/nothing"):
        answer = site.ask(path, Host=host)
        assert answer.status == 421 and "small" not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:9", "127.9.9.9"]
)
def test_requests_for_this_machine_are_answered(site: Site, host: str) -> None:
    assert site.ask("/", Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_only_get_and_head_are_allowed(site: Site, method: str) -> None:
    for path in ("/", "/r/small", "/r/small/exchanges.csv", "/static/app.css", "/nothing"):
        refused = (400, 405) if method == "X" else (405,)  # no method of HTTP, to some parsers
        assert site.ask(path, method).status in refused


def test_every_response_has_security_headers(site: Site, messy: Run) -> None:
    kept = [path for path in addresses(messy) if "exchanges.csv" not in path]
    paths = [*kept[::2], "/nothing", "/r/nobody", "/static/app.css", "/static/charts.js",
             "/static/vega.js", "/static/none.css", "/r/small/figures/plane.svg",
             "/r/small/figures/plane.csv", "/r/small/exchanges?round=x"]  # fmt: skip
    answers = [site.ask(path) for path in paths]
    answers += [
        site.ask("/", "POST"),
        site.ask("/", Host="elsewhere.example"),
        site.ask("/", "HEAD"),
    ]
    for answer in answers:
        rules = dict(
            rule.strip().partition(" ")[::2]
            for rule in answer.headers["content-security-policy"].split(";")
        )
        assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'"
        assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
        assert rules["style-src"] == rules["connect-src"] == rules["form-action"] == "'self'"
        assert not re.search(r"unsafe|https?:|\*", answer.headers["content-security-policy"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    for answer, path in zip(answers, paths, strict=False):
        if path.endswith((".csv", ".jsonl", ".svg")):
            assert answer.headers["content-disposition"].startswith("attachment")


def test_a_token_is_required(messy: Run) -> None:
    with serving(messy, token="s3cret") as site:
        for path in ("/", "/r/small", "/static/app.css", "/?token=", "/?token=s3cre", "/nothing"):
            assert site.ask(path).status == 403
        for cookie in ("sandbox_token=", "sandbox_token=s3cre", "token=s3cret", "\xff", ";;="):
            assert site.ask("/", Cookie=cookie).status == 403
        entered = site.ask("/r/small/exchanges?round=2&token=s3cret&q=a+b", Host="elsewhere:80")
        assert entered.status == 303
        assert entered.headers["location"] == "/r/small/exchanges?round=2&q=a+b"
        cookie, *rules = entered.headers["set-cookie"].split("; ")
        assert {rule.lower() for rule in rules} >= {"httponly", "samesite=strict"}
        answer = site.ask(entered.headers["location"], Cookie=cookie, Host="elsewhere:80")
        assert answer.status == 200 and "s3cret" not in answer.text
        assert site.ask("/", "POST", Cookie=cookie).status == 405
        away = site.ask("//elsewhere.example/?token=s3cret")
        assert not away.headers.get("location", "").startswith("//")


def test_other_hosts_than_loopback_require_a_token(tmp_path: Path, messy: Run) -> None:
    command = [sys.executable, str(ROOT / "run_sim.py"), "view", str(messy.path), "--port", "0",
               "--json", "--host", "0.0.0.0"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        port = int(re.findall(r":(\d+)/", told["url"])[0])
        assert len(told["token"]) > 20 and told["url"].endswith(f"/?token={told['token']}")
        assert Site(port).ask("/").status == 403
        assert Site(port).ask(f"/?token={told['token']}").status == 303
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode in (0, 130)


# Read-only access


def test_reading_changes_no_file(messy: Run, tmp_path: Path) -> None:
    copy = messy.copy(tmp_path)
    copy.path.chmod(0o444)
    os.utime(copy.path, ns=(10**18, 10**18))
    before = copy.path.read_bytes()
    with serving(copy) as site:
        for path in addresses(copy):
            site.page(path)
    assert copy.path.read_bytes() == before and copy.path.stat().st_mtime_ns == 10**18
    assert [path.name for path in tmp_path.iterdir()] == [copy.path.name]


def test_a_run_finishes_while_it_is_viewed(tmp_path: Path, make: Make) -> None:
    _, calm = make("rounds=4", name="calm")
    address = create(prepare(small("rounds=4", LATENCY, "name=run")), str(tmp_path / "run.db"))
    stop, asked = threading.Event(), Counter[int]()
    with serving(tmp_path / "run.db") as site:

        def look() -> None:
            paths = ("", "/exchanges", "/exchanges/3", "/agents/3", "/calls", "/search?q=the",
                     "/pulse.json", "/exchanges.csv", "/frames/1.json", "/advice/1")  # fmt: skip
            while not stop.is_set():
                for path in paths:
                    asked[site.ask(f"/r/run{path}").status] += 1

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            outcome = resume(address)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert 'class="status done"' in site.page("/r/run")
    assert (outcome.status, outcome.digest) == ("done", calm.digest)
    assert asked[200] > 10 and set(asked) <= {200, 404}, asked
    agree(address)
    resume(address)
    assert not (tmp_path / "run.db-wal").exists(), "the next to write it takes it away"


_SERVER = """
import http.server, json, os, sys

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered = 0

    def do_GET(self):
        self.say({"data": [{"id": "m"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Server.answered += 1
        if Server.answered > 60:
            os._exit(0)
        said = {"content": "Rating: 5\\nReason: It is kind."}
        self.say({"choices": [{"message": said, "finish_reason": "stop"}]})

    def say(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.mark.long
def test_what_a_run_waits_for_is_shown(tmp_path: Path) -> None:
    """On the list of runs and on its page, while its server is away; both follow a marker."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        url = f"http://127.0.0.1:{int(it.stdout.readline())}/v1"
        model = json.dumps({"backend": "openai", "base_url": url, "model": "m"})
        model_settings = [f"models.{role}={model}" for role in ("social", "observer")]
        pairs = ["world.size=3", "rounds=9", "question_count=null", *model_settings]
        options = [part for pair in pairs for part in ("--set", pair)]
        run = [sys.executable, str(ROOT / "run_sim.py"), "run", "--name", "run", "--json", *options]
        with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.DEVNULL) as one:
            try:
                _follow_a_wait(tmp_path, url)
            finally:
                one.send_signal(signal.SIGINT)
                try:
                    one.wait(30)
                finally:
                    one.kill()
                    it.kill()
        assert one.returncode == 130
        with serving(tmp_path / "runs" / "run.db") as site:
            assert "waiting: " not in site.page("/") + site.page("/r/run")


def _follow_a_wait(folder: Path, url: str) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "runs/run.db").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    with serving(folder / "runs/run.db") as site:
        while "waiting: " not in (page := site.ask("/r/run").text):
            assert time.monotonic() < deadline, page[-2000:]
            time.sleep(0.2)
        listed = site.page("/")
        wait = re.search(r"waiting: [^<]*", listed)
        assert wait is not None and url in wait[0], listed
        assert re.search(r"until \d\d:\d\d:\d\d \(\d+ calls?\)$", wait[0])
        assert '<td colspan="14">waiting: ' in listed
        assert re.search(r'<p class="note bad">waiting: [^<]*until [^<]*</p>', page)
        marks = [_mark_of(listed), _mark_of(page), json.loads(site.page("/pulse.json"))["mark"]]
        assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in marks)


def _mark_of(page: str) -> str:
    found = re.search(r'data-mark="([^"]*)"', page)
    return found[1] if found else ""


# Recall


@pytest.mark.parametrize(
    "settings",
    [
        ("memory.keep=2", "memory.prior_pairs=0"),
        ("memory.recall=threshold",),
        ("memory.recall=threshold", "memory.embedder=hashed"),
        ("memory.top_k=3",),
        ("memory.top_k=3", "memory.recall=threshold", "memory.threshold=0.8"),
    ],
)
def test_recall_candidates_agree_with_the_recalled_memories(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    run = make_stored(tmp_path / "short.db", "rounds=4", "world.size=3", *settings)
    reader = run.reader
    rule = recall_rule(reader)
    asks = "SELECT id FROM forms WHERE template LIKE '%past%'"
    rows = run.sql(
        "SELECT c.id, c.agent, c.memory_id, c.distance, c.further, e.question_id, e.round "
        f"FROM calls c JOIN episodes e ON e.id = c.episode_id WHERE c.form_id IN ({asks}) "
        "AND c.agent IS NOT NULL"
    )
    recalled = [row for row in rows if row["memory_id"] is not None]
    assert len(recalled) > 10
    for row in rows[::3]:
        found = candidates(reader, row["agent"], row["question_id"], row["round"])
        assert found == sorted(found, key=lambda one: one.distance)
        near = [one for one in found if rule.threshold is None or one.distance < rule.threshold]
        shown = [] if row["memory_id"] is None else [(row["memory_id"], row["distance"])]
        shown += parse_further(row["further"])
        assert shown == [
            (one.memory, pytest.approx(one.distance, abs=1e-6)) for one in near[: rule.top_k]
        ]
    with serving(run) as site:
        for row in random.Random(3).sample(recalled, 4):
            explained = recall(reader, row["id"])
            assert explained and explained.chosen[0] == row["memory_id"] and explained.by_distance
            page = site.page(f"/r/small/calls/{row['id']}")
            assert page.count('aria-current="true"') == len(explained.chosen)
            assert f"{row['distance']:.4f}" in Tags(page).shown
            prompt = call(reader, row["id"]).prompt
            assert prompt.count("<memory>") == len(explained.chosen)


# Word diff


WORDS = st.lists(
    st.sampled_from(["a", "be", "c.", "d?\n", " ", "\n\n", "\u00a0", "e" * 40, "\u202e", "<b>"])
    | st.text(max_size=4),
    max_size=40,
).map(" ".join)


@given(WORDS, WORDS)
@settings(max_examples=300)
def test_diff_pieces_join_to_both_texts(before: str, after: str) -> None:
    _joins(before, after)
    _joins(before, before)
    _joins(before, f"{before} {after}")


def _joins(before: str, after: str) -> None:
    pieces = changed_words(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == after
    assert all(piece.text for piece in pieces)
    assert before != after or {piece.kind for piece in pieces} <= {"same"}
    assert not any(one.kind == two.kind for one, two in pairwise(pieces))


def test_long_texts_are_diffed() -> None:
    chance = random.Random(1)
    words = [f"word{chance.randrange(50)}" for _ in range(4000)]
    before = " ".join(words)
    sentences = re.sub(r"((?:\S+ ){9}\S+)", r"\1.", before)
    changed = sentences.replace("word7", "seven", 3)
    _joins(before, " ".join(words[:1000]))
    _joins(sentences, changed)
    kinds = Counter(piece.kind for piece in changed_words(sentences, changed))
    assert kinds["same"] and kinds["new"] <= 3


# Influence

GRID = Declaration(stages=STAGES, scales=(ALIGNMENT, ENGAGEMENT, PEER_RATING))


def _exchange(number: int, author: int, draft: str, revision: str | None,
              scores: tuple[int, int], ratings: dict[int, tuple[int | None, str | None]]
              ) -> Exchange:  # fmt: skip
    given = tuple(
        GivenRating(rater, "good", rating, reason, "ok", None, "m")
        for rater, (rating, reason) in ratings.items()
    )
    seen = tuple(
        Observation(stage, "alignment", None, None, score, None, "ok", None, "m")
        for stage, score in zip(("draft", "revision"), scores, strict=True)
    )
    texts = {"draft": draft, "revision": revision}
    return Exchange(number, 0, author, "good", "A", "Q?", None, texts, given, None, seen, "m", None)


def test_adopted_advice_determines_influence() -> None:
    some = [
        _exchange(0, 0, "lying hurts", "honesty matters greatly, lying hurts", (3, 5),
                  {1: (2, "Say that honesty matters"), 2: (None, "lying hurts")}),
        _exchange(1, 2, "wait", "wait patiently", (4, 3), {1: (6, "wait patiently"), 0: (7, None)}),
        _exchange(2, 1, "gone", None, (4, 4), {0: (1, "whatever")}),
    ]  # fmt: skip
    found = {one.agent: one for one in influences(some, GRID)}
    assert found[1].taken == pytest.approx((2 / 3 + 1) / 2)
    assert found[2].taken == 0 and found[0].taken is None
    assert (found[1].ratings, found[1].mean) == (2, 4)
    assert (found[2].ratings, found[2].mean, found[2].gain) == (0, None, 2)
    assert found[1].gain == pytest.approx(0.5)
    assert max(found.values(), key=lambda one: one.centrality).agent == 1
    assert influences([], GRID) == []
    assert new_words("one Twofold", "twofold threefold") == {"threefold"}
    assert new_words(None, "x") is None
    assert uptake(set(), "anything") == 0
    assert uptake({"kind", "words"}, "Kind deeds") == 0.5


BANDS = Bands.of(ALIGNMENT)


def test_clusters_are_connected_neighbours_in_one_band() -> None:
    line = [(number, number + 1) for number in range(7)]
    scores = {0: 1, 1: 3, 2: 4, 3: 6, 4: 5, 5: 7, 6: 2, 7: 4.4}
    assert [(one.band, one.agents) for one in clusters(line, scores, BANDS)] == [
        ("high", (3, 4, 5)),
        ("low", (0, 1)),
    ]
    assert clusters(line, {}, BANDS) == []


def test_bands_follow_from_the_range_of_a_scale() -> None:
    assert BANDS == (3.5, 4.5)
    honesty = Bands.of(Scale(name="honesty", low=-5, high=5))
    assert [honesty.band(score) for score in (-5, -1, 0, 1, 5)] == [
        *("low", "low", "middle", "high", "high"),
    ]


# The catalog


def test_duplicate_names_and_unreadable_files(
    tidy: Run, messy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(tidy.path, runs / "a.db")
    shutil.copy(messy.path, runs / "b.db")
    (runs / "broken.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    (runs / "text.db").write_text("no database")
    (runs / "empty.db").write_bytes(b"")
    (runs / "other.txt").write_text("no run")
    with closing(sqlite3.connect(runs / "foreign.db")) as connection, connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    stored(runs)
    with serving() as site:
        page = site.page("/")
        shown = Tags(page).shown
        assert set(re.findall(r'data-row href="/r/([^"]+)"', page)) == {"small", "small~2"}
        assert re.search(r"\b75\b.*\b150\b|\b150\b.*\b75\b", shown, re.DOTALL)
        assert 'class="status unreadable"' in page
        for name in ("broken", "text", "foreign", "grid", "scene"):
            assert name in shown, name
        assert "other.txt" not in shown
        old = site.ask("/r/grid")
        assert old.status == 400 and "resume" in old.text and "resume" in shown
        assert len(site.ask("/r/small/exchanges.jsonl").lines) == 75
        assert len(site.ask("/r/small~2/exchanges.jsonl").lines) == 150
        assert site.ask("/r/later").status == 404
        make_stored(runs / "later.db", "rounds=1", name="later")
        assert "later" in site.page("/") and "25 / 25" in site.page("/r/later")
        (runs / "later.db").unlink()
        assert site.ask("/r/later").status == 404 and "later" not in site.page("/")


def test_runs_given_on_the_command_line(tidy: Run, messy: Run, tmp_path: Path) -> None:
    with serving(messy, tidy) as site:
        assert "150 / 150" in site.page("/r/small") and "75 / 75" in site.page("/r/small~2")
    command = [sys.executable, str(ROOT / "run_sim.py"), "view", "nobody", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "no such run" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_name_can_equal_a_part_of_the_url(tmp_path: Path) -> None:
    name = "compare-ROUND"
    run = make_stored(tmp_path / "run.db", "world.size=2", "world.radius=1", "rounds=1", name=name)
    other = make_stored(
        tmp_path / "other.db", "world.size=2", "world.radius=1", "rounds=1", name="b"
    )
    with serving(run, other) as site:
        both = site.page(f"/compare?run={name}&run=b")
        assert f'data-load="/compare/differences?run={name}&amp;run=b"' in both
        society = site.page(f"/r/{name}")
        assert f'data-frames="/r/{name}/frames/{{round}}.json"' in society
        assert f'data-fragment="/r/{name}/advice/{{round}}"' in society


# Behind a reverse proxy


def test_a_forwarded_prefix_begins_all_links(tidy: Run) -> None:
    with serving(tidy) as site:
        for path in ("/r/small", "/hub/x/r/small"):  # whether or not the proxy removes it
            answer = site.ask(path, **{"X-Forwarded-Prefix": "/hub/x/"})
            assert answer.status == 200
            found = re.findall(r'(?:href|src|action|data-[a-z]+)="(/[^"]*)"', answer.text)
            assert len(found) > 20 and all(link.startswith("/hub/x/") for link in found), found
        asset = site.ask("/static/app.css", **{"X-Forwarded-Prefix": "/hub/x"})
        assert asset.status == 200


@pytest.mark.parametrize(
    "prefix",
    [
        *("//elsewhere.example", "/a//b", "javascript:alert(1)", "/../x", "/a/./b", '/"><b>'),
        *("https://elsewhere.example", "/a?b", "/a b", "/\u00e4", "/" + "a" * 501, "x"),
    ],
)
def test_a_prefix_that_is_no_path_is_ignored(tidy: Run, prefix: str) -> None:
    with serving(tidy) as site:
        page = site.ask("/", **{"X-Forwarded-Prefix": prefix.encode().decode("latin-1")}).text
        assert 'href="/r/small"' in page
    with pytest.raises(InputError, match="expected a path such as"):
        root_path(prefix)


def test_a_given_path_is_that_of_all_pages(tidy: Run) -> None:
    with serving(tidy, prefix="/x", token="secret") as site:
        first = site.ask("/?token=secret", **{"X-Forwarded-Prefix": "/other"})
        assert first.status == 303 and first.headers["location"] == "/x/"
        assert "Path=/x;" in first.headers["set-cookie"]
    with serving(tidy, prefix="/x") as site:
        for path in ("/x", "/x/", "/"):
            assert 'href="/x/r/small"' in site.page(path)


def test_allowed_hosts_are_answered(tidy: Run) -> None:
    with serving(tidy, hosts=["Hub.example.org"]) as site:
        for host in ("hub.example.org", "HUB.example.org:443", "localhost"):
            assert site.ask("/", Host=host).status == 200
        for host in ("other.example.org", "example.org", "hub.example.org.elsewhere.example"):
            answer = site.ask("/", Host=host)
            assert answer.status == 421 and "--allow-host" in answer.text
