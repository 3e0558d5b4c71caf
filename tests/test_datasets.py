"""Datasets: contents of formats, effects of choices, and loading with `datasets`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from program import program
from stored import GENERAL, SAME_TEXTS, SPOILT, Run, lines, make, removals, stored

from sandbox import api
from sandbox.config import PRESETS, load_config
from sandbox.datasets import FORMATS, export
from sandbox.datasets.card import public
from sandbox.datasets.choices import Choices, parse_shares, parse_weights
from sandbox.datasets.ids import origin_of
from sandbox.datasets.near_duplicates import NearDuplicates
from sandbox.datasets.questions import Questions
from sandbox.datasets.sampling import sample
from sandbox.engine.run import create, prepare, resume
from storage.errors import InputError


def rows_of(run: Run, tmp_path: Path, format: str, **choices: Any) -> list[Any]:
    out = tmp_path / f"{format}-{len(list(tmp_path.iterdir()))}"
    export([run.reader], [format], out, **choices)
    return lines(out, f"{FORMATS[format].stem}.jsonl")


def scored(run: Run) -> list[tuple[Any, str, str, int]]:
    """All texts that the observer rated for alignment: (exchange, stage, text, score)."""
    found = []
    for one in (stored(run, number) for number in range(len(run.all()))):
        for stage, when in (("draft", "before"), ("revision", "after")):
            if one[stage] is not None and one[f"alignment_{when}"] is not None:
                found.append((one, stage, one[stage], one[f"alignment_{when}"]))
    return found


# What each format holds.


def test_sft_takes_the_better_answer_of_each_exchange(messy: Run, tmp_path: Path) -> None:
    expected: dict[int, tuple[int, bool, str]] = {}
    for one, stage, text, score in scored(messy):
        rank = (score, stage == "revision", text)
        expected[one["episode"]] = max(rank, expected.get(one["episode"], rank))
    rows = rows_of(messy, tmp_path, "sft", near_duplicates=1)
    found = {row["episode"]: row for row in rows}
    assert len(found) == len(rows) > 40
    assert found.keys() == {number for number, best in expected.items() if best[0] >= 5}
    for number, row in found.items():
        one, best = stored(messy, number), expected[number]
        assert row["messages"] == [
            {"role": "user", "content": one["question"]},
            {"role": "assistant", "content": best[2]},
        ]
        assert (row["rating"], row["stage"] == "revision") == best[:2]
        assert (row["agent"], row["round"], row["model"]) == (
            one["author"],
            one["round"],
            "scripted",
        )
        assert row["form"] == {"draft": "draft", "revision": "revise"}[row["stage"]]
        assert row["raters"] == [given["rater"] for given in one["ratings"]]
        assert row["draft_ratings"] == [given["rating"] for given in one["ratings"]]
        assert row["scripted"] is True and "prompt" not in row


@pytest.mark.parametrize(("least", "count"), [(1, 9), (6, 7), (7, 4)])
def test_pick_and_min_rating(tidy: Run, tmp_path: Path, least: int, count: int) -> None:
    best: dict[str, int] = defaultdict(int)
    for one, _, _, score in scored(tidy):
        best[one["question"]] = max(best[one["question"]], score)
    rows = rows_of(tidy, tmp_path, "sft", pick="question", min_rating=least)
    found = {row["messages"][0]["content"]: row["rating"] for row in rows}
    assert found == {asked: score for asked, score in best.items() if score >= least}
    everything = rows_of(tidy, tmp_path, "sft", pick="all", min_rating=least, near_duplicates=1)
    assert len(everything) == sum(score >= least for *_, score in scored(tidy))


def test_pairs_are_of_one_exchange_and_never_tied(messy: Run, tmp_path: Path) -> None:
    scores: dict[int, dict[str, tuple[int, str]]] = defaultdict(dict)
    for one, stage, text, score in scored(messy):
        scores[one["episode"]][stage] = (score, text)
    expected = {}
    for number, of in scores.items():
        if len(of) == 2 and of["draft"][0] != of["revision"][0]:
            low, high = sorted(of.values())
            expected[number] = (high[1], low[1], high[0] - low[0])
    rows = rows_of(messy, tmp_path, "preference", near_duplicates=1)
    found = {
        row["chosen_episode"]: (
            row["chosen"][0]["content"],
            row["rejected"][0]["content"],
            row["margin"],
        )
        for row in rows
    }
    assert found == expected and len(rows) == len(found) > 30
    for row in rows:
        assert row["prompt"] == [{"role": "user", "content": row["prompt"][0]["content"]}]
        assert [len(row[side]) for side in ("chosen", "rejected")] == [1, 1]
        assert row["chosen_rating"] - row["rejected_rating"] == row["margin"] >= 1
        assert row["chosen_episode"] == row["rejected_episode"]
    wide = rows_of(messy, tmp_path, "preference", near_duplicates=1, min_margin=3)
    assert [row["id"] for row in wide] == [row["id"] for row in rows if row["margin"] >= 3]
    good = rows_of(messy, tmp_path, "preference", near_duplicates=1, min_rating=6)
    assert [row["id"] for row in good] == [row["id"] for row in rows if row["chosen_rating"] >= 6]


def test_equal_texts_and_equal_ratings_make_no_pair(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql(f"{SAME_TEXTS} AND episode_id < 10")
    run.sql("UPDATE observations SET rating = 4 WHERE episode_id BETWEEN 10 AND 19")
    report = export([run.reader], ["preference"], tmp_path / "out")
    rows = lines(tmp_path / "out", "preference.jsonl")
    assert all(row["chosen_episode"] >= 20 for row in rows) and rows
    assert removals(report)["pair: equal texts"] == 10
    assert removals(report)["pair: equal ratings"] >= 10
    report = export([run.reader], ["preference"], None, min_margin=0)
    assert removals(report)["pair: equal ratings"] >= 10


def test_best_and_worst_of_a_question_across_agents(tidy: Run, tmp_path: Path) -> None:
    by_question: dict[str, list[int]] = defaultdict(list)
    for one, _, _, score in scored(tidy):
        by_question[one["question"]].append(score)
    rows = rows_of(tidy, tmp_path, "preference", pick="question")
    found = {
        row["prompt"][0]["content"]: (row["chosen_rating"], row["rejected_rating"]) for row in rows
    }
    assert found == {asked: (max(of), min(of)) for asked, of in by_question.items()}
    assert any(row["chosen_agent"] != row["rejected_agent"] for row in rows)
    everyone = rows_of(tidy, tmp_path, "preference", pick="all", near_duplicates=1)
    counts = Counter(row["prompt"][0]["content"] for row in everyone)
    assert counts == {
        asked: sum(score < max(of) for score in of) for asked, of in by_question.items()
    }


def test_kto_labels_what_is_good_or_bad_enough(messy: Run, tmp_path: Path) -> None:
    choices = {"min_rating": 6, "max_rating": 2, "near_duplicates": 1}
    rows = rows_of(messy, tmp_path, "kto", **choices)
    expected = Counter(
        (one["episode"], stage, score >= 6)
        for one, stage, _, score in scored(messy)
        if score >= 6 or score <= 2
    )
    assert Counter((row["episode"], row["stage"], row["label"]) for row in rows) == expected
    assert {row["label"] for row in rows} == {True, False}


def test_an_equal_text_has_one_label(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql(SAME_TEXTS)
    run.sql("UPDATE observations SET rating = CASE stage WHEN 'draft' THEN 1 ELSE 7 END")
    rows = rows_of(run, tmp_path, "kto")
    assert {row["label"] for row in rows} == {False} and len(rows) > 50


def test_prompts_are_the_questions_each_once(tidy: Run, tmp_path: Path) -> None:
    rows = rows_of(tidy, tmp_path, "prompts")
    asked = Counter(one.question for one in tidy.all())
    assert {row["prompt"][0]["content"]: row["asked"] for row in rows} == asked
    assert len(rows) == 10 and all(row["source"].startswith("questions.jsonl:") for row in rows)
    drafts: dict[str, list[int]] = defaultdict(list)
    for one, stage, _, score in scored(tidy):
        if stage == "draft":
            drafts[one["question"]].append(score)
    for row in rows:
        of = drafts[row["prompt"][0]["content"]]
        assert row["draft_rating"] == pytest.approx(sum(of) / len(of))


def test_rated_holds_every_scored_answer(messy: Run, tidy: Run, tmp_path: Path) -> None:
    rows = rows_of(tidy, tmp_path, "rated", near_duplicates=1)
    found = Counter(
        (row["instruction"], text, score)
        for row in rows
        for text, score in zip(row["generations"], row["ratings"], strict=True)
    )
    expected = Counter((one["question"], text, score) for one, _, text, score in scored(tidy))
    assert found.keys() == expected.keys() and len(rows) == 10
    assert all(len(row["generations"]) > 10 for row in rows)
    for row in rows:
        many = {len(value) for value in row.values() if isinstance(value, list)}
        assert many == {len(row["generations"])}
    few = rows_of(tidy, tmp_path, "rated", max_per_question=3)
    assert [len(row["ratings"]) for row in few] == [3] * 10
    report = export([messy.reader], ["rated"], None)
    assert removals(report)["answer: no second rated answer"] > 0


def test_raters_are_one_row_a_rating(messy: Run, tmp_path: Path) -> None:
    rows = rows_of(messy, tmp_path, "raters")
    people = {n: json.loads(p) for n, p in messy.sql("SELECT number, persona FROM agents")}
    peers = {(row["episode"], row["rater"]): row for row in rows if row["kind"] == "peer"}
    count = 0
    for one in (stored(messy, number) for number in range(150)):
        for given in one["ratings"]:
            row = peers.get((one["episode"], given["rater"]))
            assert (row is None) == (given["rating"] is None)
            if row is not None:
                count += 1
                assert (row["rating"], row["reason"]) == (given["rating"], given["reason"])
                assert row["response"][0]["content"] == one["draft"]
                assert row["rater_name"] == people[given["rater"]]["name"]
                assert row["rater_values"] == people[given["rater"]]["values"]
                assert row["rater_label"] == given["label"]
    assert count == len(peers) > 200
    ((seen,),) = messy.sql("SELECT count(*) FROM observations WHERE rating IS NOT NULL")
    assert sum(row["kind"] == "observer" for row in rows) == seen


def test_peers_ratings_count_for_drafts_alone(messy: Run, tmp_path: Path) -> None:
    rows = rows_of(messy, tmp_path, "sft", ratings="peers", min_rating=1, near_duplicates=1)
    means = {one.episode: one.mean_rating for one in messy.all() if one.texts["draft"]}
    assert {row["episode"]: row["rating"] for row in rows} == {
        number: pytest.approx(mean) for number, mean in means.items() if mean is not None
    }
    assert {(row["stage"], row["rated_by"]) for row in rows} == {("draft", "peers")}
    report = export([messy.reader], ["preference"], None, ratings="peers")
    assert report.results[0].notes[0].startswith("nothing is left: rules removed all 150 rows")
    assert removals(report)["pair: peers rate drafts alone"] > 50


def test_expected_ratings_count_where_the_backend_told_them(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    report = export([run.reader], ["sft"], None, ratings="observer-expected")
    assert removals(report) == {"answer: the backend told no expected rating": 150}
    run.sql("UPDATE calls SET expected = 5.25 WHERE id % 2 = 0 AND agent IS NULL")
    rows = rows_of(
        run, tmp_path, "sft", ratings="observer-expected", pick="all", scale="engagement"
    )
    ((count,),) = run.sql(
        "SELECT count(*) FROM observations WHERE scale = 'engagement' AND call_id % 2 = 0"
    )
    assert 0 < len(rows) <= count and {row["rating"] for row in rows} == {5.25}


def test_nothing_that_failed_is_in_any_format(messy: Run, tmp_path: Path) -> None:
    """No null in columns that trainers read, and no invented ratings."""
    read = {
        "sft": ("messages",),
        "preference": ("prompt", "chosen", "rejected", "margin"),
        "kto": ("prompt", "completion", "label"),
        "prompts": ("prompt",),
        "rated": ("instruction", "generations", "ratings"),
        "raters": ("prompt", "response", "rating"),
    }
    for format, columns in read.items():
        rows = rows_of(messy, tmp_path, format)
        assert rows
        for row in rows:
            text = json.dumps([row[column] for column in columns])
            assert "null" not in text and '"content": ""' not in text
            for rating in (value for key, value in row.items() if key.endswith("rating")):
                assert rating is None or 1 <= rating <= 7


# What each choice does.


def test_splits_keep_a_question_and_what_is_near_it_together(tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    asked = [f"How does one {verb} a {thing}?" for verb in VERBS for thing in THINGS]
    questions.write_text("\n".join(asked + [f"{one[:-1]} ?" for one in asked[:20]]))
    run = make(
        tmp_path / "run.db", "rounds=4", f"questions={questions}", "question_count=null",
        "memory.prior_pairs=0",
    )  # fmt: skip
    shares = {"train": 0.7, "validation": 0.2, "test": 0.1}
    formats = ["sft", "preference", "kto", "rated", "raters", "exchanges", "stable-alignment"]
    out = tmp_path / "out"
    report = export([run.reader], formats, out, splits=shares, near_questions=0.6)
    placed: dict[str, set[str]] = defaultdict(set)
    for path in out.glob("*-*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            conversation = row.get("messages") or row.get("prompt") or [{}]
            text = conversation[0].get("content") or row.get("instruction") or row.get("question")
            if text is not None:
                placed[text].add(path.stem.rpartition("-")[2])
    assert len(placed) >= 90 and all(len(splits) == 1 for splits in placed.values())
    near = NearDuplicates(0.6)
    texts, number = list(placed), {}
    for text in texts:
        likes = near.add(text)
        for other in likes.near if likes.same is None else (likes.same,):
            assert placed[number[other]] == placed[text], (number[other], text)
        number.setdefault(len(number), text) if likes.same is None else None
    for one in report.results:
        sizes = list(one.files.values())
        assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0


VERBS = (
    "paint",
    "carry",
    "repair",
    "measure",
    "borrow",
    "describe",
    "wash",
    "insure",
    "sell",
    "tune",
)
THINGS = ("piano", "canoe", "wardrobe", "telescope", "lawn", "violin", "greenhouse", "tractor")


def test_near_answers_and_near_questions_are_told_apart(tidy: Run, tmp_path: Path) -> None:
    """Another threshold for answers moves no question to another split."""
    asked = tidy.all()[0].question
    for near in ({}, {"near_duplicates": 1}, {"near_duplicates": 0.5}):
        report = export([tidy.reader], ["raters"], None, keep_out=[f"{asked} Please."], **near)
        assert any(rule.endswith("a question to keep out") for rule in removals(report))
    chosen = {"keep_out": [f"{asked} Please."], "near_questions": 1}
    report = export([tidy.reader], ["raters"], None, **chosen)
    assert removals(report) == {}


def test_an_empty_split_is_told_and_the_others_load(tidy: Run, tmp_path: Path) -> None:
    from datasets import load_dataset

    asked = sorted({one.question for one in tidy.all()})
    out = tmp_path / "out"
    chosen = {"keep_out": asked[1:], "splits": HALVES}
    report = export([tidy.reader], ["sft", "prompts"], out, min_rating=1, **chosen)
    empty = [name for name, count in report.files.items() if not count]
    assert len(empty) == 2
    for one, name in zip(report.results, empty, strict=True):
        assert f"{name} is empty" in one.notes
        assert len(load_dataset(str(out), one.format.name, cache_dir=str(tmp_path / "c"))) == 1
    export([tidy.reader], ["sft", "prompts"], out, overwrite=True, min_rating=7, keep_out=asked)
    assert "config_name" not in (out / "README.md").read_text()


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "run.db", "rounds=2")
    run.sql("UPDATE runs SET digest = NULL, status = 'interrupted'")
    run.sql("DELETE FROM observations WHERE episode_id >= 40")
    run.sql("DELETE FROM ratings WHERE episode_id >= 45")
    run.sql("DELETE FROM episodes WHERE id >= 45")
    report = export([run.reader], ["sft"], tmp_path / "out")
    told = "the run small is not finished: 45 of 50 exchanges have been played"
    assert report.notes == (told,)
    assert told[1:] in (tmp_path / "out" / "README.md").read_text()
    assert removals(report)["answer: not scored by the observer"] == 10


def test_splits_have_the_shares_that_were_asked_for() -> None:
    chance = np.random.default_rng(0)
    words = ["".join(chance.choice(list("abcdefghijklmnopqrstuvwxyz"), 30)) for _ in range(500)]
    questions = Questions(words, 0.8)
    found = Counter(questions.splits({"train": 0.8, "dev": 0.15, "test": 0.05}, 1))
    assert found == {"train": 400, "dev": 75, "test": 25}
    assert questions.splits({"a": 0.5, "b": 0.5}, 1) != questions.splits({"a": 0.5, "b": 0.5}, 2)
    some = Questions(words[:250], 0.8).splits({"train": 0.8, "test": 0.2}, 1)
    assert Counter(some) == {"train": 200, "test": 50}
    few = Questions(words[:3], 0.8).splits({"train": 0.98, "dev": 0.01, "test": 0.01}, 1)
    assert sorted(few) == ["dev", "test", "train"]
    assert Questions(["one"], 0.8).splits({"train": 0.5, "test": 0.5}, 1) == ["train"]
    assert Questions([], 0.8).splits({"train": 1.0}, 1) == []


def test_near_is_near_by_the_true_similarity() -> None:
    """Estimates from 128 hashes agree with exact similarities, and no pair is missed."""
    chance = np.random.default_rng(1)
    base = "".join(chance.choice(list("abcdefgh "), 300))
    texts = [base]
    for place in chance.permutation(290)[:60]:
        texts.append(texts[-1][:place] + "Z" + texts[-1][place + 1 :])
    runs = [{t.casefold()[n : n + 5] for n in range(len(t) - 4)} for t in texts]
    found = set()
    near = NearDuplicates(0.8)
    for number, text in enumerate(texts):
        found |= {(other, number) for other in near.add(text).near}
    wrong = 0
    for one, other in combinations(range(len(texts)), 2):
        truth = len(runs[one] & runs[other]) / len(runs[one] | runs[other])
        if abs(truth - 0.8) > 0.1:
            wrong += (truth > 0.8) != ((one, other) in found)
    assert wrong <= 5 and len(found) > 100


@pytest.mark.parametrize("text", ["Hello  there", "hello there.", " HELLO\nthere ?!"])
def test_case_blanks_and_the_end_make_no_other_text(text: str) -> None:
    near = NearDuplicates(1)
    assert not near.add("Hello there").any
    assert near.add(text).same == near.find(text).same == 0
    assert not near.add("Hello, there").any


def test_near_duplicates_are_left_out_but_for_the_first(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    first = run.all()[0]
    same = [one.episode for one in run.all() if one.question == first.question]
    ids = ", ".join(map(str, same))
    ((last,),) = run.sql("SELECT max(id) FROM texts")
    long = " ".join(f"word{n}" for n in range(200))
    for made, episode in enumerate(same, last + 1):
        run.sql("INSERT INTO texts VALUES (?, ?)", made, long.replace("word7 ", f"other{made} "))
        run.sql(
            "UPDATE stage_texts SET text_id = ? WHERE episode_id = ? AND stage = 'revision'",
            made,
            episode,
        )
    revised = f"stage = 'revision' AND episode_id IN ({ids})"
    run.sql(f"UPDATE observations SET rating = 7 WHERE {revised}")
    report = export([run.reader], ["sft"], tmp_path / "out")
    kept = [row for row in lines(tmp_path / "out", "sft.jsonl") if row["episode"] in same]
    assert [row["episode"] for row in kept] == same[:1]
    assert removals(report)["answer: equal or near to one before"] == len(same) - 1
    equal = rows_of(run, tmp_path, "sft", near_duplicates=1)
    assert len([row for row in equal if row["episode"] in same]) == len(same)


def test_evaluation_questions_stay_out(tidy: Run, tmp_path: Path) -> None:
    asked = tidy.all()[0].question
    out = tmp_path / "out"
    for kept_out in ([asked], [f"  {asked.upper()[:-1]} "], [asked.replace("a", "e", 1)]):
        report = export([tidy.reader], list(GENERAL), out, keep_out=kept_out, overwrite=True)
        for path in out.glob("*.json*"):
            text = path.read_text().replace("\\n", " ")
            assert json.dumps(asked)[1:-1] not in text, path.name
        for one in report.results:
            assert any(rule.endswith("a question to keep out") for rule in one.removed)
    report = export([tidy.reader], ["prompts"], None, keep_out=["What is the capital of Peru?"])
    assert report.files == {"prompts.jsonl": 10}


def test_rows_longer_than_so_many_tokens_are_left_out(tidy: Run, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "words").mkdir()
    made.save(str(tmp_path / "words" / "tokenizer.json"))
    everything = rows_of(tidy, tmp_path, "preference", near_duplicates=1)

    def words(row: Any) -> int:
        of = {
            side: len(row[side][0]["content"].split()) for side in ("prompt", "chosen", "rejected")
        }
        return of["prompt"] + max(of["chosen"], of["rejected"])

    limit = int(np.median([words(row) for row in everything]))
    for place in (tmp_path / "words", tmp_path / "words" / "tokenizer.json"):
        chosen = {"tokenizer": str(place), "max_tokens": limit, "near_duplicates": 1}
        rows = rows_of(tidy, tmp_path, "preference", **chosen)
        assert [row["id"] for row in rows] == [
            row["id"] for row in everything if words(row) <= limit
        ]
        assert 0 < len(rows) < len(everything)


def test_balance_and_size_are_drawn_by_the_seed(tidy: Run, tmp_path: Path) -> None:
    many = {"pick": "all", "min_rating": 1, "near_duplicates": 1}
    everything = rows_of(tidy, tmp_path, "sft", **many)
    for name, key in (("max_per_question", QUESTION), ("max_per_agent", AGENT)):
        rows = rows_of(tidy, tmp_path, "sft", **many, **{name: 2})
        counts, before = Counter(map(key, rows)), Counter(map(key, everything))
        assert counts == {one: min(2, count) for one, count in before.items()}
    drawn = [
        [row["id"] for row in rows_of(tidy, tmp_path, "sft", **many, rows=20, **seed)]
        for seed in ({}, {"seed": 7}, {"seed": 8})
    ]
    assert drawn[0] == drawn[1] != drawn[2] and {len(one) for one in drawn} == {20}
    ids = [row["id"] for row in everything]
    assert all(set(one) < set(ids) for one in drawn)
    assert drawn[0] == sorted(drawn[0], key=ids.index)
    fewer = [row["id"] for row in rows_of(tidy, tmp_path, "sft", **many, rows=10)]
    assert set(fewer) < set(drawn[0])


def QUESTION(row: Any) -> Any:  # noqa: N802
    return row["messages"][0]["content"]


def AGENT(row: Any) -> Any:  # noqa: N802
    return row["agent"]


def test_mixes_of_kinds_and_runs_hold_together() -> None:
    chance = np.random.default_rng(2)
    size = 5000
    columns = {
        "kind": chance.choice(3, size, p=(0.6, 0.3, 0.1)),
        "run": chance.choice(2, size, p=(0.8, 0.2)),
        "question": chance.integers(0, 50, size),
        "agent": chance.integers(0, 20, size),
        "draw": chance.integers(0, 2**63, size).astype(np.uint64),
    }
    choices = Choices(mix=(5, 2, 1), mix_runs=(2, 1))
    taken = sample(columns, choices, ("a", "b", "c"), ("one", "two"), True).taken
    cells = Counter(
        zip(columns["kind"][taken].tolist(), columns["run"][taken].tolist(), strict=True)
    )
    times = cells[2, 1]
    assert cells == {
        (kind, run): times * weight * share
        for kind, weight in enumerate((5, 2, 1))
        for run, share in enumerate((2, 1))
    }
    there = Counter(zip(columns["kind"].tolist(), columns["run"].tolist(), strict=True))
    more = times + 1
    assert any(
        more * weight * share > there[kind, run]
        for kind, weight in enumerate((5, 2, 1))
        for run, share in enumerate((2, 1))
    )
    limited = sample(columns, Choices(mix=(5, 2, 1), rows=100), ("a", "b", "c"), ("x",) * 2, True)
    assert np.bincount(columns["kind"][limited.taken]).tolist() == [60, 24, 12]
    balanced = sample(
        columns, Choices(max_per_question=3, max_per_agent=5, rows=60), ("a",) * 3, ("x",) * 2, True
    )
    assert balanced.taken.sum() == 60
    assert max(Counter(columns["question"][balanced.taken].tolist()).values()) <= 3
    assert max(Counter(columns["agent"][balanced.taken].tolist()).values()) <= 5
    gone = sum(int(rows.sum()) for rows in balanced.removed.values())
    assert gone == size - 60


def test_every_candidate_is_written_or_removed(messy: Run, tmp_path: Path) -> None:
    for format in GENERAL:
        report = export([messy.reader], [format], None, max_per_question=1)
        (one,) = report.results
        left = int(one.figures["size"].sum())
        assert one.candidates == left + sum(removals(report).values()) > 0, format
        assert sum(one.files.values()) == sum(one.written.values()) == len(one.figures["size"])


def test_several_runs_become_one_set(tidy: Run, messy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE runs SET name = 'other'")
    other = Run(run.path, "other")
    out = tmp_path / "out"
    export([messy.reader, other.reader], ["sft", "exchanges"], out, mix_runs=(1, 1), splits=HALVES)
    rows = [row for split in HALVES for row in lines(out, f"exchanges-{split}.jsonl")]
    assert Counter(row["run"] for row in rows) == {"small": 75, "other": 75}
    with pytest.raises(InputError, match="RUN: found small twice; expected different runs"):
        export([tidy.reader, tidy.reader], ["sft"], tmp_path / "twice")
    assert "| small |" in (out / "README.md").read_text()
    assert "| other |" in (out / "README.md").read_text()


HALVES = {"train": 0.5, "test": 0.5}


def test_what_a_fork_took_over_counts_once(tmp_path: Path) -> None:
    from sandbox.study.fork import fork
    from storage.database import parse_run

    run = make(tmp_path / "run.db", "rounds=4")
    for name, setting in (("early", "world.raters=2"), ("late", "world.raters=3")):
        source = parse_run(f"{run.path}#small")
        address = fork(source, 1, [setting], name=name, db=str(tmp_path / f"{name}.db"))
        assert resume(address).status == "done"
    early, late = (Run(tmp_path / f"{name}.db", name) for name in ("early", "late"))
    for runs, expected in (
        ([run, early], {"small": 100, "early": 50}),
        ([early, run], {"small": 100, "early": 50}),
        ([early, late], {"early": 100, "late": 50}),
        ([late], {"late": 100}),
    ):
        report = export([one.reader for one in runs], ["exchanges"], tmp_path / "o", overwrite=True)
        rows = lines(tmp_path / "o", "exchanges.jsonl")
        assert Counter(row["run"] for row in rows) == expected
        assert report.results[0].candidates == len(rows)


# Scenes.


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("scenes") / "run.db"
    config = load_config(PRESETS / "population.yaml", ["rounds=1"], name="scenes")
    assert resume(create(prepare(config), str(path))).status == "done"
    return Run(path, "scenes")


def test_scenes_have_rows_in_every_format(scenes: Run, tmp_path: Path) -> None:
    notes = [
        note
        for one in scenes.all()
        for note in one.scene.notes  # type: ignore[union-attr]
        if note.kind in ("instruction", "answer")
    ]
    drawn = [(one.text, other.text) for one, other in zip(notes[::2], notes[1::2], strict=True)]
    assert len(drawn) > 10
    rows = rows_of(scenes, tmp_path, "sft")
    assert rows and {row["kind"] for row in rows} == {"answer"}
    both = rows_of(scenes, tmp_path, "sft", mix=(), near_duplicates=1)
    found = [
        tuple(one["content"] for one in row["messages"])
        for row in both
        if row["kind"] == "instruction"
    ]
    assert set(found) == set(drawn)
    assert all(row["rating"] is None for row in both if row["kind"] == "instruction")
    prompts = rows_of(scenes, tmp_path, "prompts", near_duplicates=1)
    asked = {row["prompt"][0]["content"] for row in prompts if row["kind"] == "instruction"}
    assert asked == {one for one, _ in drawn}
    for format in ("preference", "kto", "rated", "raters"):
        assert rows_of(scenes, tmp_path, format)
    whole = rows_of(scenes, tmp_path, "exchanges")
    assert all(len(row["scene"]["parts"]) > 1 for row in whole)


def test_an_instruction_is_in_the_split_of_its_scene(scenes: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export([scenes.reader], ["sft", "exchanges"], out, splits=HALVES, mix=(), min_rating=1)
    episodes = {
        split: {row["episode"] for row in lines(out, f"exchanges-{split}.jsonl")}
        for split in HALVES
    }
    for split in HALVES:
        rows = lines(out, f"sft-{split}.jsonl")
        assert {row["episode"] for row in rows} <= episodes[split]
        assert {row["kind"] for row in rows} == {"answer", "instruction"}


# That it loads, is described, and leads back.


@pytest.mark.parametrize("files", [pytest.param("jsonl", marks=pytest.mark.long), "parquet"])
def test_every_format_loads(messy: Run, scenes: Run, tmp_path: Path, files: str) -> None:
    from datasets import load_dataset

    formats = [name for name in GENERAL if files == "jsonl" or name != "stable-alignment"]
    for run in (messy, scenes):
        out = tmp_path / run.name
        report = export([run.reader], formats, out, files=files, splits=HALVES)
        for one in report.results:
            read = load_dataset(str(out), one.format.name, cache_dir=str(tmp_path / "cache"))
            assert list(read) == ["train", "test"]
            assert [len(read[split]) for split in read] == list(one.files.values())
            for split, name in zip(read, one.files, strict=True):
                assert set(read[split].column_names) == set(one.columns)
                if files == "jsonl" and not one.format.array:
                    assert [dict(row) for row in read[split]] == lines(out, name)
        default = load_dataset(str(out), cache_dir=str(tmp_path / "default"))
        assert "messages" in default["train"].column_names


def test_a_target_without_rows_still_loads(tidy: Run, tmp_path: Path) -> None:
    from datasets import load_dataset

    for target, formats in (("llama-factory", ["preference", "kto"]), ("axolotl", ["kto"])):
        out = tmp_path / target
        export([tidy.reader], formats, out, target=target)
        for format in formats:
            assert len(load_dataset(str(out), format, cache_dir=str(tmp_path / "cache"))["train"])


def text_of(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [text_of(one) for one in value] if isinstance(value, list | np.ndarray) else value


def said(row: Any) -> dict[str, Any]:
    contents = {"messages": [one["content"] for one in row["messages"]]}
    return contents | {key: row[key] for key in ("id", "rating", "scripted", "raters")}


def heard(row: Any) -> dict[str, Any]:
    contents = {key: [row[key][0]["content"]] for key in ("prompt", "response")}
    return contents | {key: row[key] for key in ("id", "rating", "reason")}


@pytest.mark.filterwarnings("default")  # of what mlcroissant uses
def test_croissant_validates_and_reads(tidy: Run, tmp_path: Path) -> None:
    import mlcroissant

    for files in ("jsonl", "parquet"):
        formats = ["sft", "raters"] + (["stable-alignment"] if files == "jsonl" else [])
        out = tmp_path / files
        report = export([tidy.reader], formats, out, files=files, license="cc-by-4.0")
        dataset = mlcroissant.Dataset(str(out / "croissant.json"))
        assert not dataset.metadata.issues.errors
        for name in ("sft", "raters"):
            records = list(dataset.records(name))
            assert len(records) == report.files[f"{name}.{files}"] > 40
            told = said if name == "sft" else heard
            for row, record in zip(rows_of(tidy, tmp_path, name), records, strict=True):
                read = {key.partition("/")[2]: value for key, value in record.items()}
                read = {key: text_of(value) for key, value in read.items()}
                assert told(row) == {key: read[key] for key in told(row)}


def test_an_id_leads_back_to_the_exchange(messy: Run, tmp_path: Path) -> None:
    for format in ("sft", "preference", "kto", "prompts", "rated", "raters", "exchanges"):
        for row in rows_of(messy, tmp_path, format)[:20]:
            for made in row.get("ids") or [row["id"]]:
                origin = origin_of(made)
                assert origin is not None and origin.run == "small"
                assert origin.agrees(messy.reader.run.digest)
                one = stored(messy, origin.episode)
                assert one["question"] in json.dumps(row, ensure_ascii=False)
    for text in ("quickstart", "runs/a.db", "postgresql://me@host/db#run", "a@b/1", "a@0123abcd/x"):
        assert origin_of(text) is None


def test_inspect_takes_an_id(tmp_path: Path) -> None:
    def sim(*words: str) -> subprocess.CompletedProcess[str]:
        return program(tmp_path, *words)

    assert sim("run", "--rounds", "1").returncode == 0
    done = sim("export", "quickstart", "--format", "preference", "--out", "d", "--json")
    assert json.loads(done.stdout)["files"] == {"preference.jsonl": 20}
    row = json.loads((tmp_path / "d" / "preference.jsonl").read_text().splitlines()[3])
    shown = json.loads(sim("inspect", row["id"], "--json").stdout)
    assert shown["episode"] == row["chosen_episode"]
    assert row["chosen"][0]["content"] in (shown["draft"], shown["revision"])
    other = sim("inspect", re.sub("@.{8}/", "@00000000/", row["id"]), "--json")
    assert json.loads(other.stdout) == shown and "the run is now" in other.stderr
    assert sim("inspect", "quickstart@00000000/999").returncode == 2


def test_explain_tells_what_is_left_after_each_rule(tmp_path: Path, messy: Run) -> None:
    words = ["export", str(messy.path), "--format", "sft", "--explain", "--min-rating", "7"]
    command = [sys.executable, str(ROOT / "run_sim.py"), *words]
    wide = {"COLUMNS": "160", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=wide, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"candidates\s+300\s*\n", done.stdout)
    assert re.search(r"answer: rated below 7\s+-\d+\s+\d+\s+small@", done.stdout)
    assert "not written: sft.jsonl" in done.stdout and list(tmp_path.iterdir()) == []


def test_why_nothing_is_left(tidy: Run) -> None:
    asked = sorted({one.question for one in tidy.all()})
    report = export([tidy.reader], ["sft"], None, keep_out=asked)
    (note,) = report.results[0].notes
    assert note.startswith("nothing is left: rules removed all 150 rows, most of them (")


# The card and the figures.


def test_the_card_tells_how_it_came_about(messy: Run, tmp_path: Path) -> None:
    report = export([messy.reader], ["sft", "preference"], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    everyone = messy.all()
    pairs = [
        (one.score("draft", "alignment"), one.score("revision", "alignment")) for one in everyone
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    better = sum(b > a for a, b in both) / len(both)
    assert f"better {better:.0%}, equal" in text
    lengths, scores = zip(
        *((len(one[2]), one[3]) for one in scored(messy)),
        strict=True,
    )
    bias = np.corrcoef(lengths, scores)[0, 1]
    assert f"| length and alignment, correlation of answers | {bias:+.2f} |" in text
    given = sum(r.rating is not None for one in everyone for r in one.ratings)
    assert f"agents gave {given:,} parsed ratings" in text
    unread = Counter(r.status for one in everyone for r in one.ratings if r.rating is None)
    for status, count in unread.items():
        assert f"| ratings of peers that are {status} | {count:,} |" in text
    for form, count in Counter(one.failed_at for one in everyone if one.failed_at).items():
        assert f"| exchanges that failed at `{form}` | {count:,} |" in text
    for rule, one in report.results[0].removed.items():
        assert f"| {rule} | {one.removed:,} |" in text
    assert "misbehave: 0.3" in text and "license: unknown" in text
    for name in ("ratings", "margins", "lengths", "agreement"):
        drawn = (tmp_path / "out" / "figures" / f"{name}.svg").read_text()
        assert drawn.startswith("<svg") and "composed without a language model" in drawn


def test_agreement_is_krippendorffs(tidy: Run, tmp_path: Path) -> None:
    """Alpha equals that of the library for the full matrix of raters and drafts."""
    import krippendorff

    table = np.full((25, 75), np.nan)
    for one in tidy.all():
        for given in one.ratings:
            if given.rating is not None:
                table[given.rater, one.episode] = given.rating
    alpha = krippendorff.alpha(table, level_of_measurement="interval")
    report = export([tidy.reader], ["sft"], None)
    told = report.as_dict()["measures"]["alpha of peers, alignment"]
    assert told["alpha"] == pytest.approx(alpha) and told["n"] == 75
    low, high = told["low"], told["high"]
    assert low < alpha < high
    interval = f"95 % interval {low:.2f} to {high:.2f}"
    assert report.measures["alpha of peers, alignment"].text == (
        f"{alpha:.2f} ({interval}; 75 drafts)"
    )


def test_equal_ratings_have_no_agreement_to_tell(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE ratings SET rating = 4")
    run.sql("UPDATE observations SET rating = 4")
    report = export([run.reader], ["sft", "preference"], tmp_path / "out")
    assert report.measures["alpha of peers, alignment"].text == "not defined (75 drafts)"
    assert "length and alignment, correlation of answers" not in report.measures


def doubts(run: Run) -> list[str]:
    return [note for note in export([run.reader], ["sft"], None).notes if "information" in note]


def test_ratings_by_chance_are_told(tidy: Run, tmp_path: Path) -> None:
    """One line, at the export and in the card; not for ratings that agree, nor for few."""
    run = tidy.copy(tmp_path)
    assert doubts(run) == []
    run.sql("UPDATE ratings SET rating = 1 + (episode_id * 7919 + rater * 104729) % 97 % 7")
    report = export([run.reader], ["sft"], tmp_path / "out")
    alpha = report.measures["alpha of peers, alignment"].values["alpha"]
    assert alpha is not None and alpha < 0.1
    expected = (
        f"peers hardly agree more than by chance (Krippendorff's alpha {alpha:.2f}, 75 drafts): "
        "their ratings carry little or no information"
    )
    assert doubts(run) == [expected] and expected in report.notes
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count(f"**{expected[0].upper()}{expected[1:]}.**") == 1
    few = "UPDATE ratings SET rating = NULL, status = 'unparsed' WHERE episode_id >= 49"
    run.sql(few)
    assert doubts(run) == []


def test_ratings_that_contradict_each_other_are_told(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql(
        "UPDATE ratings SET rating = 1 + 6 * (SELECT count(*) % 2 FROM ratings r WHERE "
        "r.episode_id = ratings.episode_id AND r.rater < ratings.rater)"
    )
    (told,) = doubts(run)
    assert "(Krippendorff's alpha -0." in told


def test_equal_ratings_are_told(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE ratings SET rating = 4")
    ((given,),) = run.sql("SELECT count(*) FROM ratings")
    peers = f"all {given} ratings of peers on alignment are 4: they carry no information"
    assert doubts(run) == [peers]
    run.sql("UPDATE observations SET rating = 7 WHERE stage = 'draft' AND scale = 'alignment'")
    observer = "all 75 ratings of observer, draft on alignment are 7: they carry no information"
    assert sorted(doubts(run)) == sorted([peers, observer])


def test_a_long_answer_leaves_a_row_of_several(tidy: Run, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    everything = rows_of(tidy, tmp_path, "rated", near_duplicates=1)
    lengths = sorted(
        len(f"{row['instruction']} {text}".split())
        for row in everything
        for text in row["generations"]
    )
    limit = lengths[len(lengths) * 2 // 3]
    fitting = {
        row["instruction"]: [
            text
            for text in row["generations"]
            if len(f"{row['instruction']} {text}".split()) <= limit
        ]
        for row in everything
    }
    rows = rows_of(
        tidy, tmp_path, "rated", near_duplicates=1, tokenizer=str(tmp_path), max_tokens=limit
    )
    found = {row["instruction"]: row["generations"] for row in rows}
    assert found == {asked: texts for asked, texts in fitting.items() if len(texts) > 1}
    assert sum(map(len, fitting.values())) < len(lengths)


def test_hostile_names_are_no_markup(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE runs SET name = 'a|b`<script>'")
    run.sql("UPDATE agents SET persona = json_set(persona, '$.occupation', '<b>x</b>|\n# y')")
    hostile = Run(run.path, "a|b`<script>")
    export([hostile.reader], ["sft"], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    body = text.split("\n---\n", 1)[1]
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|b)>", prose) and "\n# y" not in prose
    from datasets import load_dataset

    assert len(load_dataset(str(tmp_path / "out"), "sft", cache_dir=str(tmp_path / "c"))["train"])


def test_a_config_is_shown_without_places() -> None:
    config = {
        "a": "/home/me/x.jsonl",
        "base_url": "http://10.0.0.1",
        "b": ["C:\\me\\y", "~/z"],
        "c": 1,
    }
    assert public(config) == {"a": "x.jsonl", "b": ["y", "z"], "c": 1}


@pytest.mark.parametrize("text", ["", "a", "5:", "5:-1:1", "1.5:1", "1" * 12])
def test_weights_as_typed(text: str) -> None:
    assert parse_weights("--mix", "5:1:1") == (5, 1, 1) and parse_weights("--mix", "all") == ()
    with pytest.raises(InputError, match="--mix: found"):
        parse_weights("--mix", text)


@pytest.mark.parametrize("text", ["train", "train=x", "train=0.5,train=0.5", "", "="])
def test_shares_as_typed(text: str) -> None:
    assert parse_shares("--splits", "train=0.9, test=0.1") == {"train": 0.9, "test": 0.1}
    with pytest.raises(InputError, match="--splits: found"):
        parse_shares("--splits", text)


def test_from_python(tmp_path: Path) -> None:
    place = tmp_path / "run.db"
    api.run(db=place, rounds=1)
    report = api.export(str(place), "sft", tmp_path / "out", choices={"min_rating": 6})
    assert report.files["sft.jsonl"] == len(lines(tmp_path / "out", "sft.jsonl")) > 0
    assert api.export([str(place)], ["sft"], None).out is None


def test_a_run_in_postgresql_is_exported_as_well(server: str, tmp_path: Path) -> None:
    settings = ["rounds=2", "world.size=3", "memory.prior_pairs=5", *SPOILT]
    config = load_config(PRESETS / "quickstart.yaml", settings, name="exported")
    assert resume(create(prepare(config), server)).status == "done"
    local = make(tmp_path / "exported.db", *settings, name="exported")
    api.export(f"{server}#exported", list(GENERAL), tmp_path / "server")
    report = export([local.reader], list(GENERAL), tmp_path / "local")
    for name in report.files:
        assert (tmp_path / "server" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
