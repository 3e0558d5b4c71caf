"""PRISM: conversations in its files, and its people as personas."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stored import Run, lines, removals
from talks import breach, make_talks, person

from agents.preferences import ATTRIBUTES
from sandbox.datasets import export
from sandbox.sources import read_personas
from storage.errors import InputError

FIELDS = {
    "survey": (
        "user_id survey_only num_completed_conversations consent consent_age lm_familiarity "
        "lm_indirect_use lm_direct_use lm_frequency_use lm_usecases order_lm_usecases stated_prefs "
        "order_stated_prefs self_description system_string age gender employment_status education "
        "marital_status english_proficiency study_id study_locale religion ethnicity location "
        "generated_datetime timing_duration_s timing_duration_mins included_in_UK_REP "
        "included_in_US_REP included_in_balanced_subset"
    ),
    "conversations": (
        "conversation_id user_id included_in_balanced_subset conversation_type opening_prompt "
        "conversation_turns conversation_history performance_attributes choice_attributes "
        "open_feedback generated_datetime timing_duration_s timing_duration_mins"
    ),
    "utterances": (
        "utterance_id interaction_id conversation_id user_id turn within_turn_id "
        "included_in_balanced_subset conversation_type user_prompt model_response model_name "
        "model_provider score if_chosen"
    ),
}
TYPES = ("unguided", "values guided", "controversy guided")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_talks(tmp_path_factory.mktemp("talks"))


def prism(run: Run, out: Path, **choices: Any) -> tuple[list[Any], list[Any], list[Any]]:
    export([run.reader], ["prism"], out, **choices)
    survey, conversations, utterances = (lines(out, f"{name}.jsonl") for name in FIELDS)
    return survey, conversations, utterances


def test_users_have_the_fields_of_the_survey(talks: Run, tmp_path: Path) -> None:
    survey, _, _ = prism(talks, tmp_path / "out")
    assert all(list(row) == FIELDS["survey"].split() for row in survey)
    assert sorted(row["user_id"] for row in survey) == [f"user{number}" for number in range(8)]
    names = dict(talks.sql("SELECT number, persona FROM agents"))
    for row in survey:
        name = json.loads(names[int(row["user_id"].removeprefix("user"))])["name"]
        own = person(int(name[1:]))
        stated = {key: value for key, value in row["stated_prefs"].items() if value is not None}
        assert stated == own["preferences"]["stated"]
        assert row["system_string"] == "Use short words. Name a source."
        assert row["self_description"] == own["description"]
        assert row["age"] == own["survey"]["age"] and row["education"] is None
        assert row["religion"]["categorised"] == "Christian"
        same = "No" if own["survey"]["reside_country"] == "Chile" else "Yes"
        assert row["location"]["same_birth_reside_country"] == same
        assert row["num_completed_conversations"] == 2 and row["survey_only"] is False
        assert row["generated_datetime"] is None and row["consent"] is None


def test_candidates_are_utterances_and_messages(talks: Run, tmp_path: Path) -> None:
    _, conversations, utterances = prism(talks, tmp_path / "out")
    assert all(list(row) == FIELDS["utterances"].split() for row in utterances)
    assert all(list(row) == FIELDS["conversations"].split() for row in conversations)
    stored = talks.sql("SELECT * FROM utterances WHERE kind = 'answer' AND text_id IS NOT NULL")
    assert len(utterances) == len(stored) == 16 * 6
    assert len({row["utterance_id"] for row in utterances}) == len(utterances)
    assert Counter(row["interaction_id"] for row in utterances).keys() >= {"int0", "int1"}
    for row in utterances:
        assert row["model_name"] == row["model_provider"] == "scripted"
        assert row["conversation_type"] in TYPES and row["turn"] in (0, 1)
        assert row["score"] is None or 1 <= row["score"] <= 100
    by_id = {row["conversation_id"]: row for row in conversations}
    assert set(by_id) == {f"c{number}" for number in range(16)}
    for number, row in by_id.items():
        own = [one for one in utterances if one["conversation_id"] == number]
        history = row["conversation_history"]
        assert [one["content"] for one in history if one["role"] == "model"] == [
            one["model_response"] for one in own
        ]
        assert [one["turn"] for one in history if one["role"] == "user"] == [0, 1]
        assert row["conversation_turns"] == 2
        assert row["opening_prompt"] == own[0]["user_prompt"]
        assert tuple(row["performance_attributes"]) == ATTRIBUTES
        per_turn = Counter(one["turn"] for one in own if one["if_chosen"])
        assert per_turn == {0: 1, 1: 1}


def test_unusable_numbers_are_null_and_empty_texts_are_named(talks: Run, tmp_path: Path) -> None:
    run = talks.copy(tmp_path)
    run.sql("UPDATE verdicts SET value = '73' WHERE kind = 'performance'")
    run.sql("UPDATE verdicts SET value = 'n/a' WHERE kind = 'performance' AND subject = 'safety'")
    run.sql("UPDATE verdicts SET value = NULL WHERE kind = 'choice'")
    run.sql("UPDATE utterances SET score = NULL WHERE number = 1")
    prompt = run.sql("SELECT prompt_id FROM utterances WHERE episode_id = 0 AND number = 0")[0][0]
    run.sql("UPDATE texts SET text = '' WHERE id = ?", prompt)
    _, conversations, utterances = prism(run, tmp_path / "out")
    for row in conversations:
        given = dict.fromkeys(ATTRIBUTES, 73) | {"safety": None}
        assert row["performance_attributes"] == given
        assert row["choice_attributes"] == dict.fromkeys(ATTRIBUTES)
    assert conversations[0]["opening_prompt"] == "EMPTY STRING"
    assert sum(row["score"] is None for row in utterances) == 16


def test_answers_that_broke_a_rule_stay_out(talks: Run, tmp_path: Path) -> None:
    run = talks.copy(tmp_path)
    chosen = {
        row["episode_id"]: row["number"]
        for row in run.sql("SELECT * FROM utterances WHERE chosen AND turn = 0 AND kind = 'answer'")
    }
    other = next(number for number in range(4) if number != chosen[1])
    breach(run, 0, chosen[0], "refused")
    breach(run, 1, other, "recorded", "law.threat")
    breach(run, 2, chosen[2], "asked_again")
    report = export([run.reader], ["prism"], tmp_path / "out")
    by_format = {one.format.name: one for one in report.results}
    counted = {rule: one.removed for rule, one in by_format["utterances"].removed.items()}
    assert counted == {
        "utterance: refused for law.dose": 1,
        "utterance: follows an answer that was refused for law.dose": 2,
        "utterance: broke law.threat": 1,
    }
    first, second, *_ = lines(tmp_path / "out", "conversations.jsonl")
    assert first["conversation_turns"] == 1 and len(first["conversation_history"]) == 1 + 3
    assert second["conversation_turns"] == 2 and len(second["conversation_history"]) == 2 + 5
    breach(run, 3, 0, "recorded")
    run.sql("UPDATE utterances SET refused = 1 WHERE episode_id = 3")
    report = export([run.reader], ["prism"], None)
    assert report.results[1].removed["conversation: refused for law.dose"].removed == 1


STRUCTS = {
    "lm_usecases": "int64",
    "order_lm_usecases": "int64",
    "stated_prefs": "int64",
    "order_stated_prefs": "int64",
    "performance_attributes": "int64",
    "choice_attributes": "int64",
    "religion": "string",
    "ethnicity": "string",
    "location": "string",
}
"""The type of the parts of a struct; parts called `other_text` are strings in all of them."""

INTEGERS = {"num_completed_conversations", "conversation_turns", "turn", "within_turn_id", "score"}


def kind_of(name: str) -> str:
    """The type of a plain field of PRISM."""
    if name in INTEGERS:
        return "int64"
    if name.startswith("timing_"):
        return "float64"
    flag = name.startswith("included_in") or name in ("survey_only", "if_chosen")
    return "bool" if flag else "string"


def test_datasets_reads_the_files_with_the_types_of_prism(talks: Run, tmp_path: Path) -> None:
    from datasets import Value, load_dataset

    out, cache = tmp_path / "out", str(tmp_path / "cache")
    prism(talks, out)
    read = {name: load_dataset(str(out), name, cache_dir=cache)["train"] for name in FIELDS}
    for name, described in read.items():
        files = str(out / f"{name}.jsonl")
        alone = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "alone"))["train"]
        assert alone.column_names == described.column_names == FIELDS[name].split()
        assert len(alone) == len(described)
        for field, feature in described.features.items():
            if field in STRUCTS:
                parts = {part: STRUCTS[field] for part in feature if part != "other_text"}
                assert {part: feature[part].dtype for part in parts} == parts, field
                assert feature.get("other_text", Value("string")) == Value("string")
            elif field != "conversation_history":
                assert feature == Value(kind_of(field)), field
                assert alone.features[field] in (feature, Value("null")), field
    history = read["conversations"].features["conversation_history"].feature
    fields = "turn role content model_name model_provider score if_chosen within_turn_id"
    assert history == {field: Value(kind_of(field)) for field in fields.split()}
    messages = read["conversations"][0]["conversation_history"]
    assert messages[0]["score"] is None and messages[1]["role"] == "model"


def test_the_card_says_what_it_is_not(talks: Run, tmp_path: Path) -> None:
    prism(talks, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "compatible with PRISM, and it is not PRISM" in text
    assert "`law.dose` | restriction" in text


def test_what_does_not_fit_is_refused(talks: Run, tidy: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"format: \w+ does not fit run .*conversations of users"):
        export([tidy.reader], ["prism"], None)
    for format in ("prompts", "raters", "stable-alignment"):
        with pytest.raises(InputError, match="users write their own messages"):
            export([talks.reader], [format], None)
    with pytest.raises(InputError, match="splits: found with the format prism"):
        export([talks.reader], ["prism"], None, splits={"a": 0.5, "b": 0.5})
    other = Run(talks.copy(tmp_path).path, "other")
    other.sql("UPDATE runs SET name = 'other'")
    with pytest.raises(InputError, match="format prism: found 2 runs; expected 1"):
        export([talks.reader, other.reader], ["prism"], None)


# People of PRISM as personas. The rows are made up: no text of PRISM is here.

PEOPLE = [
    {
        "user_id": "user7",
        "survey_only": False,
        "lm_familiarity": "Very familiar",
        "stated_prefs": {
            "values": 30,
            "safety": 90,
            "other": 5,
            "other_text": "n",
            "fluency": None,
        },
        "self_description": "I paint fences. I like rain.",
        "system_string": "Answer in plain words. Tell me when you are not sure!",
        "age": "45-54 years old",
        "gender": "Female",
        "religion": {"self_described": "x", "categorised": "y", "simplified": "No Affiliation"},
        "ethnicity": {"self_described": "x", "categorised": "White", "simplified": "White"},
        "location": {"reside_country": "Chile", "reside_region": "Americas", "special_region": "z"},
    },
    {
        "user_id": "user8",
        "stated_prefs": {},
        "self_description": "EMPTY STRING",
        "system_string": None,
        "age": None,
    },
]


def _file(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_people_of_prism_are_personas(tmp_path: Path) -> None:
    notes: list[str] = []
    first, second = read_personas(_file(tmp_path / "survey.jsonl", *PEOPLE), notes)
    assert first.name == "user7" and first.description == "I paint fences. I like rain."
    assert first.preferences is not None and first.survey is not None
    assert first.preferences.stated == {"values": 30, "safety": 90}
    assert first.preferences.wishes == ("Answer in plain words.", "Tell me when you are not sure!")
    assert first.survey.groups() == {
        "age": "45-54 years old",
        "gender": "Female",
        "religion": "No Affiliation",
        "ethnicity": "White",
        "reside_region": "Americas",
    }
    assert first.survey.lm_familiarity == "Very familiar"
    assert second.preferences is not None and second.preferences.wishes == ()
    assert notes[0] == "2 personas from survey.jsonl"
    assert "CC-BY-4.0" in notes[1] and "forbid" in notes[1]


def test_long_wishes_are_parted(tmp_path: Path) -> None:
    row = PEOPLE[0] | {"system_string": f"{'Be kind and clear ' * 30}. " + "Be brief. " * 30}
    (one,) = read_personas(_file(tmp_path / "survey.jsonl", row))
    assert one.preferences is not None
    assert len(one.preferences.wishes) <= 20 and max(map(len, one.preferences.wishes)) <= 200


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"user_id": "user1"}, "survey.jsonl:1: stated_prefs: found none"),
    "stated": (PEOPLE[0] | {"stated_prefs": {"values": 101}}, "preferences.stated.values"),
    "object": (PEOPLE[0] | {"religion": "a"}, "religion: found str; expected an object"),
    "age": (PEOPLE[0] | {"age": "50"}, "survey.age"),
    "wishes": (PEOPLE[0] | {"system_string": 3}, "system_string: found int; expected a text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_people_are_one_line(tmp_path: Path, case: str) -> None:
    row, expected = BAD[case]
    with pytest.raises(InputError, match=expected):
        read_personas(_file(tmp_path / "survey.jsonl", row))


def test_pairs_of_conversations_are_counted_by_rule(talks: Run, tmp_path: Path) -> None:
    run = talks.copy(tmp_path)
    breach(run, 0, 0, "recorded")
    report = export([run.reader], ["preference"], None, min_margin=0)
    assert removals(report)["pair: broke law.dose"] == 1
