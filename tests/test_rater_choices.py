"""Conversations as training rows, choosing and balancing raters, and whom data is aligned to."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from program import program
from stored import Run, lines, removals
from talks import AGES, breach, make_talks

from agents.preferences import GROUPS
from sandbox.datasets import export
from sandbox.datasets.formats.preference import DIMENSIONS
from sandbox.datasets.groups import majority
from sandbox.datasets.rater_choices import matches, parse_raters
from storage.errors import InputError


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_talks(tmp_path_factory.mktemp("talks"))


def rows_of(run: Run, out: Path, format: str, **choices: Any) -> list[Any]:
    export([run.reader], [format], out, overwrite=True, **choices)
    return lines(out, f"{format}.jsonl")


UTTERANCES = """SELECT u.*, p.text AS prompt, t.text AS text FROM utterances u
    JOIN texts p ON p.id = prompt_id JOIN texts t ON t.id = text_id
    WHERE kind = 'answer' ORDER BY episode_id, number"""


def by_turn(run: Run) -> dict[tuple[int, int], list[Any]]:
    turns = defaultdict(list)
    for row in run.sql(UTTERANCES):
        turns[row["episode_id"], row["turn"]].append(row)
    return turns


# Conversations as rows.


def test_pairs_are_the_chosen_answer_with_each_worse_one(talks: Run, tmp_path: Path) -> None:
    rows = rows_of(talks, tmp_path / "out", "preference", min_margin=0, near_duplicates=1)
    expected = {}
    turns = by_turn(talks)
    for (episode, turn), own in turns.items():
        chosen = next(one for one in own if one["chosen"])
        for one in own:
            if one["score"] is not None and one["score"] < chosen["score"]:
                expected[episode, turn, one["text"]] = (chosen, one)
    found = {}
    for row in rows:
        turn = len(row["prompt"]) // 2
        found[row["chosen_episode"], turn, row["rejected"][0]["content"]] = row
    assert found.keys() == expected.keys() and len(rows) > 20
    for key, row in found.items():
        chosen, rejected = expected[key]
        assert row["chosen"][0]["content"] == chosen["text"]
        assert row["prompt"][-1] == {"role": "user", "content": chosen["prompt"]}
        assert (row["score_chosen"], row["score_rejected"]) == (chosen["score"], rejected["score"])
        assert row["chosen_rated_by"] == "user" and row["chosen_policy"].startswith("tier 1")
        if key[1]:
            before = next(one for one in turns[key[0], 0] if one["chosen"])
            assert [one["content"] for one in row["prompt"][:2]] == [
                before["prompt"],
                before["text"],
            ]


def test_pairs_have_the_labels_and_groups_of_their_user(talks: Run, tmp_path: Path) -> None:
    run = talks.copy(tmp_path)
    run.sql("DELETE FROM verdicts WHERE kind = 'dimension'")
    rows = rows_of(run, tmp_path / "out", "preference", min_margin=0)
    assert all(row[f"label_{name}"] is None for row in rows for name in DIMENSIONS)
    first = next(row for row in rows if len(row["prompt"]) == 1)
    worst = int(first["id"].rpartition("~")[2])
    run.sql(
        "INSERT INTO verdicts VALUES (?, 80, 'dimension', 'style', ?, 'rejected', NULL)",
        first["chosen_episode"],
        worst,
    )
    rows = rows_of(run, tmp_path / "out", "preference", min_margin=0)
    labelled = [row for row in rows if row["label_style"] is not None]
    assert [(row["id"], row["label_style"]) for row in labelled] == [(first["id"], "rejected")]
    assert labelled[0]["label_expertise"] is None
    assert {f"group_{name}" for name in GROUPS} <= set(first)
    assert {(row["group_age"], row["group_gender"]) for row in rows} == {
        (AGES[0], "Female"),
        (AGES[1], "Male"),
    }
    assert all(row["group_education"] is None for row in rows)


def test_chosen_answers_become_conversations(talks: Run, tmp_path: Path) -> None:
    chosen = [row for row in talks.sql(UTTERANCES) if row["chosen"]]
    rows = rows_of(talks, tmp_path / "out", "sft", min_rating=1, near_duplicates=1)
    assert len(rows) == len([one for one in chosen if one["score"] is not None])
    assert {row["messages"][-1]["content"] for row in rows} == {one["text"] for one in chosen}
    assert {len(row["messages"]) for row in rows} == {2, 4}
    every = rows_of(talks, tmp_path / "out", "sft", min_rating=1, near_duplicates=1, pick="all")
    assert len(every) > 2 * len(rows)
    labels = Counter(row["label"] for row in rows_of(talks, tmp_path / "out", "kto"))
    assert labels[True] and labels[False]
    rated = rows_of(talks, tmp_path / "out", "rated", near_duplicates=1)
    assert len(rated) == 16 and all(len(row["generations"]) == 4 for row in rated)
    with pytest.raises(InputError, match="target axolotl: found format kto with conversations"):
        export([talks.reader], ["kto"], None, target="axolotl")


# The policy.


def test_stages_that_broke_a_rule_stay_out(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql(
        "UPDATE stage_texts SET rules = 'law.dose,law.threat' "
        "WHERE episode_id = 0 AND stage = 'revision'"
    )
    run.sql(
        "UPDATE stage_texts SET rules = 'law.dose', refused = 1 "
        "WHERE episode_id = 1 AND stage = 'draft'"
    )
    report = export([run.reader], ["sft"], tmp_path / "sft", pick="all", min_rating=1)
    assert removals(report)["answer: broke law.dose, law.threat"] == 1
    assert removals(report)["answer: refused for law.dose"] == 1
    rows = lines(tmp_path / "sft", "sft.jsonl")
    assert all(row["policy"].startswith("tier 1") for row in rows)
    assert not {(0, "revision"), (1, "draft")} & {(row["episode"], row["stage"]) for row in rows}
    first, second, *_ = rows_of(run, tmp_path / "all", "exchanges")
    assert first["revision"] is not None and second["draft"] is not None
    assert first["broken"] == [
        {"stage": "revision", "rules": ["law.dose", "law.threat"], "refused": False}
    ]
    assert second["broken"] == [{"stage": "draft", "rules": ["law.dose"], "refused": True}]
    report = export([run.reader], ["stable-alignment"], None)
    assert removals(report)["imitation: refused for law.dose"] == 1
    assert removals(report)["realignment: broke law.dose, law.threat"] == 1


def test_the_card_tells_what_became_of_replies(talks: Run, tmp_path: Path) -> None:
    run = talks.copy(tmp_path)
    run.sql("DELETE FROM breaches")
    breach(run, 0, 0, "refused")
    breach(run, 0, 1, "recorded")
    breach(run, 0, 2, "recorded")
    export([run.reader], ["preference"], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if "| `law.dose` |" in line]
    assert line.startswith("| 1 (law) |") and line.endswith("| 2 | 0 | 1 |")
    run.sql("UPDATE runs SET policy = NULL")
    export([run.reader], ["preference"], tmp_path / "out", overwrite=True)
    assert "has no policy" in (tmp_path / "out" / "README.md").read_text()


# Choosing raters.

YOUNG: dict[str, Any] = {"name": "A", "survey": {"age": AGES[0], "gender": "Female"}}
OLD: dict[str, Any] = {"name": "B", "age": 31, "survey": {"age": "65+ years old"}}


@pytest.mark.parametrize(
    ("texts", "young", "old"),
    [
        (["age<30"], True, False),
        (["age < 24"], False, False),
        (["age>=31"], False, True),
        (["age!=31"], True, False),
        ([f"age={AGES[0]}"], True, False),
        (["gender=female"], True, False),
        (["gender!=Male"], True, False),
        (["age>17,gender=Female"], True, False),
        (["age>17", "name=B"], False, True),
    ],
)
def test_conditions(texts: list[str], young: bool, old: bool) -> None:
    conditions = parse_raters(texts)
    assert (matches(conditions, YOUNG), matches(conditions, OLD)) == (young, old)


def test_an_open_band_has_no_upper_end_below_a_long_life() -> None:
    eldest = {"survey": {"age": "65+ years old"}}
    assert matches(parse_raters(["age>=65"]), eldest)
    assert not matches(parse_raters(["age<90"]), eldest)
    assert not matches(parse_raters(["age>0"]), {"survey": {"age": "Prefer not to say"}})


def test_a_value_may_have_a_comma() -> None:
    (one,) = parse_raters(["place=Cork, Ireland"])
    assert (one.field, one.value) == ("place", "Cork, Ireland")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("shoe=43", "found field 'shoe'; expected one of name, age"),
        ("gender<Male", "found '<' after gender; expected one of =, !="),
        ("age~30", "found '~' after age; expected one of"),
        ("age<old", "found 'old' after age<; expected a number"),
        ("gender=", "found '' after gender=; expected a value"),
        ("young", "found 'young'; expected a condition such as age<30"),
        ("", "found ''; expected a condition"),
        ("age==30", "found '==' after age"),
        ("age>99", "holds for no agent of the runs"),
    ],
)
def test_bad_conditions_are_one_line(talks: Run, text: str, problem: str) -> None:
    done = program(
        talks.path.parent,
        "export",
        str(talks.path),
        "--format",
        "sft",
        "--explain",
        "--raters",
        text,
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert problem in done.stderr and "raters: " in done.stderr


def test_rows_are_those_of_the_chosen_users(talks: Run, tmp_path: Path) -> None:
    every = rows_of(talks, tmp_path / "out", "preference", min_margin=0)
    young = rows_of(talks, tmp_path / "out", "preference", min_margin=0, raters=["age<30"])
    assert {row["group_age"] for row in young} == {AGES[0]}
    assert [row["id"] for row in young] == [
        row["id"] for row in every if row["group_age"] == AGES[0]
    ]
    report = export([talks.reader], ["preference"], None, min_margin=0, raters=["age<30"])
    assert removals(report)["pair: its rater is left out by raters"] == len(every) - len(young)
    export([talks.reader], ["prism"], tmp_path / "prism", raters=["gender=Male"])
    assert len(lines(tmp_path / "prism", "survey.jsonl")) == 2


def test_peers_are_chosen_by_the_model_that_plays_them(tidy: Run, tmp_path: Path) -> None:
    """Three agents are played by another model than the rest."""
    run = tidy.copy(tmp_path)
    ((role, settings),) = run.sql("SELECT role, settings FROM models WHERE role = 'social'")
    run.sql("INSERT INTO models (id, run_id, role, name, settings) VALUES (99, 1, 'strong', "
            "'strong', ?)", settings)  # fmt: skip
    run.sql("UPDATE calls SET model_id = 99 WHERE agent IN (1, 2, 3) AND model_id = "
            "(SELECT id FROM models WHERE role = ?)", role)  # fmt: skip
    strong = rows_of(run, tmp_path / "out", "raters", raters=["model=strong"])
    others = rows_of(run, tmp_path / "out", "raters", raters=["model!=strong"])
    every = rows_of(run, tmp_path / "out", "raters")
    assert {row["rater"] for row in strong} == {1, 2, 3} and others
    assert not {row["rater"] for row in others} & {1, 2, 3}
    assert len(strong) + len(others) == len([row for row in every if row["rater"] is not None])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "model" in card
    good = rows_of(run, tmp_path / "out", "raters", raters=["label=good", "model=scripted"])
    labels = dict(run.sql("SELECT number, label FROM agents"))
    assert {labels[row["rater"]] for row in good} == {"good"}


def test_peers_are_chosen_among(tidy: Run, tmp_path: Path) -> None:
    people = dict(tidy.sql("SELECT number, json_extract(persona, '$.age') FROM agents"))
    middle = sorted(people.values())[len(people) // 2]
    kept = {number for number, age in people.items() if age < middle}
    rows = rows_of(tidy, tmp_path / "out", "raters", raters=[f"age<{middle}"])
    assert rows and {row["rater"] for row in rows} <= kept
    drafts = rows_of(tidy, tmp_path / "out", "sft", ratings="peers", raters=[f"age<{middle}"])
    assert drafts and all(set(row["raters"]) <= kept for row in drafts)
    with pytest.raises(InputError, match=r"raters: found for sft .* the peers' ratings"):
        export([tidy.reader], ["sft"], None, raters=["age<50"])
    with pytest.raises(InputError, match="balance: found with run"):
        export([tidy.reader], ["sft"], None, balance="age")


def test_groups_are_balanced(talks: Run, tmp_path: Path) -> None:
    rows = rows_of(talks, tmp_path / "out", "preference", min_margin=0, balance="gender")
    counts = Counter(row["group_gender"] for row in rows)
    assert counts["Male"] == counts["Female"] > 0
    report = export([talks.reader], ["preference"], None, min_margin=0, balance="gender")
    assert removals(report)["pair: left out by the balance of groups"] > 0
    report = export([talks.reader], ["preference"], None, min_margin=0, balance="politics")
    assert removals(report)["pair: its rater told no politics"] > 0
    with pytest.raises(InputError, match="balance: found 'shoe'; expected one of age"):
        export([talks.reader], ["preference"], None, balance="shoe")


# Whom it is aligned to.


def test_the_card_shows_groups_and_hides_small_ones(talks: Run, tmp_path: Path) -> None:
    export([talks.reader], ["preference"], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    section = text.partition("## Whom it is aligned to")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    cells = {row[1]: row[2:] for row in rows}
    assert cells["Male"][0] == "fewer than 5" and not "".join(cells["Male"][1:]).strip("| ")
    assert cells["Female"][:2] == ["6", "12"]
    assert cells["Female"][2] == "factuality 42, values 20"
    scores = [row["score"] for row in talks.sql(UTTERANCES) if row["score"] is not None]
    mean = sum(scores) / len(scores)
    assert cells["Christian"][:2] == ["8", "16"]
    assert cells["Christian"][3].startswith(f"{mean:.1f} ± ")
    assert " to " in cells["Christian"][5] and "Krippendorff" in section
    assert (
        "Whom it is aligned to"
        not in _card_of_young(talks, tmp_path, "name=P7").partition("| Female")[2]
    )


def _card_of_young(run: Run, tmp_path: Path, condition: str) -> str:
    export([run.reader], ["preference"], tmp_path / "young", raters=[condition], overwrite=True)
    return (tmp_path / "young" / "README.md").read_text()


def test_the_usual_label_of_a_group() -> None:
    own = [{"style": "chosen", "expertise": "chosen"}, {"style": "chosen"}]
    assert majority(own) == {"style": "chosen", "expertise": "chosen"}
    assert majority([{"style": "chosen"}, {"style": "rejected"}]) == {}
