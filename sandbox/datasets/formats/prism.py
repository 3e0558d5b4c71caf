"""The format `prism`: conversations and their scores in the files and fields of PRISM.

The fields are those of Kirk et al., "The PRISM Alignment Dataset" (arXiv 2404.16019), so that
programs that read PRISM read these files. The texts are our own: nothing of PRISM is in them. What
a simulated user was never asked is null, an empty text is written as `EMPTY STRING`, and turns
count from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from sqlalchemy import func, select

from agents.preferences import ATTRIBUTES, Attribute
from sandbox.datasets.answers import CANDIDATE
from sandbox.datasets.conversations import Candidate
from sandbox.datasets.format import Columns, Format, Removed, Row, Settings, Type
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SourcedExchange
from storage import tables
from storage.errors import InputError

PERSON, CONVERSATION, UTTERANCE = "person", "conversation", "utterance"

EMPTY = "EMPTY STRING"
"""What PRISM writes for an empty text, since null means that nobody was asked."""

NOTHING_LEFT = "no turn is left"

_NUMBERS = 100
"""Ids of utterances and interactions: this many for each conversation."""

_STATED = (*get_args(Attribute), "other")
_USECASES = (
    "homework_assistance",
    "research",
    "source_suggestions",
    "professional_work",
    "creative_writing",
    "casual_conversation",
    "personal_recommendations",
    "daily_productivity",
    "technical_or_programming_help",
    "travel_guidance",
    "lifestyle_and_hobbies",
    "well-being_guidance",
    "medical_guidance",
    "financial_guidance",
    "games",
    "historical_or_news_insight",
    "relationship_advice",
    "language_learning",
    "other",
)
_CATEGORIES: Type = dict.fromkeys(("self_described", "categorised", "simplified"), "string")
_LOCATION = (
    "birth_country",
    "birth_countryISO",
    "birth_region",
    "birth_subregion",
    "reside_country",
    "reside_countryISO",
    "reside_region",
    "reside_subregion",
    "same_birth_reside_country",
    "special_region",
)
_TIMES: Columns = {
    "generated_datetime": "string",
    "timing_duration_s": "float64",
    "timing_duration_mins": "float64",
}
_NO_TIMES = dict.fromkeys(_TIMES)


def _one_run(columns: Columns, schema: Schema) -> Columns:
    if len(schema.runs) > 1:
        raise InputError(
            f"format prism: found {len(schema.runs)} runs; expected 1, since its ids count from 0"
        )
    return columns


# survey.jsonl

_SURVEY: Columns = {
    "user_id": "string",
    "survey_only": "bool",
    "num_completed_conversations": "int64",
    "consent": "string",
    "consent_age": "string",
    "lm_familiarity": "string",
    "lm_indirect_use": "string",
    "lm_direct_use": "string",
    "lm_frequency_use": "string",
    "lm_usecases": {**dict.fromkeys(_USECASES, "int64"), "other_text": "string"},
    "order_lm_usecases": dict.fromkeys(_USECASES, "int64"),
    "stated_prefs": {**dict.fromkeys(_STATED, "int64"), "other_text": "string"},
    "order_stated_prefs": dict.fromkeys(_STATED, "int64"),
    "self_description": "string",
    "system_string": "string",
    "age": "string",
    "gender": "string",
    "employment_status": "string",
    "education": "string",
    "marital_status": "string",
    "english_proficiency": "string",
    "study_id": "string",
    "study_locale": "string",
    "religion": _CATEGORIES,
    "ethnicity": _CATEGORIES,
    "location": dict.fromkeys(_LOCATION, "string"),
    **_TIMES,
    "included_in_UK_REP": "bool",
    "included_in_US_REP": "bool",
    "included_in_balanced_subset": "bool",
}
_TOLD = (
    "lm_familiarity",
    "lm_frequency_use",
    "age",
    "gender",
    "employment_status",
    "education",
    "marital_status",
    "english_proficiency",
)


def people(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row]:
    """Yield each user once, with the conversation of the first round."""
    for sourced in same_question:
        if sourced.exchange.round == sourced.origin.first_round:
            data = _person(sourced)
            yield _row(PERSON, sourced.id(PERSON), sourced, data)


def _person(sourced: SourcedExchange) -> dict[str, Any]:
    person = sourced.origin.people[sourced.exchange.author or 0]
    told, wanted = person.get("survey") or {}, person.get("preferences") or {}
    stated, run = wanted.get("stated") or {}, sourced.origin.reader.run
    return {
        **_nulls(_SURVEY),
        "user_id": _user(sourced),
        "survey_only": False,
        "num_completed_conversations": _completed(sourced),
        "stated_prefs": {
            **{name: stated.get(name) for name in _STATED},
            "other_text": None,
        },
        "self_description": _text(person.get("description")),
        "system_string": " ".join(wanted.get("wishes") or ()) or None,
        **{name: told.get(name) for name in _TOLD},
        "study_id": run.name,
        "religion": _categories(told.get("religion")),
        "ethnicity": _categories(told.get("ethnicity")),
        "location": _location(told),
        "included_in_UK_REP": False,
        "included_in_US_REP": False,
        "included_in_balanced_subset": False,
    }


def _nulls(columns: Columns) -> dict[str, Any]:
    """A null for every column, also within structs."""
    return {
        name: _nulls(kind) if isinstance(kind, dict) else None for name, kind in columns.items()
    }


def _completed(sourced: SourcedExchange) -> int:
    e, origin = tables.episodes, sourced.origin
    query = select(func.count()).where(
        e.c.run_id == origin.reader.run.id,
        e.c.author == sourced.exchange.author,
        e.c.failed_at.is_(None),
    )
    return int(origin.connection.scalar(query) or 0)


def _categories(told: str | None) -> dict[str, str | None]:
    return {"self_described": None, "categorised": told, "simplified": told}


def _location(told: dict[str, Any]) -> dict[str, str | None]:
    born, lives = told.get("birth_country"), told.get("reside_country")
    same = None if born is None or lives is None else "Yes" if born == lives else "No"
    return {name: told.get(name) for name in _LOCATION} | {"same_birth_reside_country": same}


# conversations.jsonl

_ATTRIBUTES: Type = dict.fromkeys(ATTRIBUTES, "int64")
_CONVERSATIONS: Columns = {
    "conversation_id": "string",
    "user_id": "string",
    "included_in_balanced_subset": "bool",
    "conversation_type": "string",
    "opening_prompt": "string",
    "conversation_turns": "int64",
    "conversation_history": [
        {
            "turn": "int64",
            "role": "string",
            "content": "string",
            "model_name": "string",
            "model_provider": "string",
            "score": "int64",
            "if_chosen": "bool",
            "within_turn_id": "int64",
        }
    ],
    "performance_attributes": _ATTRIBUTES,
    "choice_attributes": _ATTRIBUTES,
    "open_feedback": "string",
    **_TIMES,
}


def conversations(
    same_question: Sequence[SourcedExchange], settings: Settings
) -> Iterator[Row | Removed]:
    """Yield a conversation up to the turn whose chosen answer broke a rule."""
    for sourced in same_question:
        turns = _turns(sourced)
        name = sourced.id(CONVERSATION)
        if turns:
            yield _row(CONVERSATION, name, sourced, _conversation(sourced, turns))
        else:
            found = [] if sourced.conversation is None else sourced.conversation.candidates
            yield Removed(
                CONVERSATION,
                next((one.rule for one in found if one.rule), None) or NOTHING_LEFT,
                name,
            )


def _turns(sourced: SourcedExchange) -> list[list[Candidate]]:
    """The candidates that no rule leaves out, turn by turn; turns without one are left out."""
    if sourced.conversation is None:
        return []
    kept = ([one for one in turn if one.rule is None] for turn in sourced.conversation.turns())
    return [turn for turn in kept if turn]


def _conversation(sourced: SourcedExchange, turns: Sequence[Sequence[Candidate]]) -> dict[str, Any]:
    talk = sourced.conversation
    assert talk is not None
    return {
        "conversation_id": _id(sourced),
        "user_id": _user(sourced),
        "included_in_balanced_subset": False,
        "conversation_type": talk.manner,
        "opening_prompt": _text(turns[0][0].prompt),
        "conversation_turns": len(turns),
        "conversation_history": [message for turn in turns for message in _messages(sourced, turn)],
        "performance_attributes": _numbers(talk.values("performance")),
        "choice_attributes": _numbers(talk.values("choice")),
        "open_feedback": None,
        **_NO_TIMES,
    }


def _messages(sourced: SourcedExchange, turn: Sequence[Candidate]) -> Iterator[dict[str, Any]]:
    yield {"turn": turn[0].turn, "role": "user", "content": _text(turn[0].prompt)}
    for one in turn:
        yield {
            "turn": one.turn,
            "role": "model",
            "content": _text(one.text),
            **_scored(sourced, one),
        }


def _scored(sourced: SourcedExchange, one: Candidate) -> dict[str, Any]:
    model = sourced.exchange.model
    return {
        "model_name": model,
        "model_provider": sourced.origin.backends.get(model),
        "score": None if one.score is None else round(one.score),
        "if_chosen": one.chosen,
        "within_turn_id": one.place,
    }


def _numbers(said: dict[str, str | None]) -> dict[str, int | None]:
    """The attributes as numbers; null where they do not apply, or nothing usable was said."""
    values = {name: said.get(name) or "" for name in ATTRIBUTES}
    return {name: int(value) if value.isdecimal() else None for name, value in values.items()}


# utterances.jsonl

_UTTERANCES: Columns = {
    "utterance_id": "string",
    "interaction_id": "string",
    "conversation_id": "string",
    "user_id": "string",
    "turn": "int64",
    "within_turn_id": "int64",
    "included_in_balanced_subset": "bool",
    "conversation_type": "string",
    "user_prompt": "string",
    "model_response": "string",
    "model_name": "string",
    "model_provider": "string",
    "score": "int64",
    "if_chosen": "bool",
}


def utterances(
    same_question: Sequence[SourcedExchange], settings: Settings
) -> Iterator[Row | Removed]:
    """Yield each candidate of each turn."""
    for sourced in same_question:
        talk = sourced.conversation
        for one in () if talk is None else talk.candidates:
            name = sourced.id(CANDIDATE, one.number)
            if one.rule is not None:
                yield Removed(UTTERANCE, one.rule, name)
                continue
            data = _utterance(sourced, one, talk.manner if talk else "")
            yield _row(UTTERANCE, name, sourced, data, one)


def _utterance(sourced: SourcedExchange, one: Candidate, manner: str) -> dict[str, Any]:
    first = sourced.exchange.episode * _NUMBERS
    data = {
        "utterance_id": f"ut{first + one.number}",
        "interaction_id": f"int{first + one.turn}",
        "conversation_id": _id(sourced),
        "user_id": _user(sourced),
        "turn": one.turn,
        "included_in_balanced_subset": False,
        "conversation_type": manner,
        "user_prompt": _text(one.prompt),
        "model_response": _text(one.text),
        **_scored(sourced, one),
    }
    return {name: data[name] for name in _UTTERANCES}


# all three


def _row(
    kind: str,
    name: str,
    sourced: SourcedExchange,
    data: dict[str, Any],
    one: Candidate | None = None,
) -> Row:
    return Row(
        kind=kind,
        id=name,
        sourced=sourced,
        question=sourced.question,
        data=data,
        prompt="" if one is None else one.prompt,
        answers=() if one is None else (one.answer,),
        rating=None if one is None else one.score,
    )


def _user(sourced: SourcedExchange) -> str:
    return f"user{sourced.exchange.author}"


def _id(sourced: SourcedExchange) -> str:
    return f"c{sourced.exchange.episode}"


def _text(text: str | None) -> str | None:
    return EMPTY if text == "" else text


_NOT_PRISM = (
    "The fields are those of PRISM (Kirk et al., arXiv 2404.16019): this is compatible with PRISM, "
    "and it is not PRISM. Its people are personas played by a model, and no text of PRISM is in "
    "it. What they were never asked is null (consent, uses, orders, dates and durations); no "
    "subsets are drawn, so all `included_in_...` are false."
)
SURVEY = Format(
    name="survey",
    about=(
        f"One user per row. {_NOT_PRISM} `stated_prefs` run from 0 to 100, `system_string` has the "
        "user's wishes in the user's own words, and `study_id` is the name of the run."
    ),
    kinds=(PERSON,),
    columns=lambda schema: _one_run(_SURVEY, schema),
    rows=people,
    compares=False,
    by_round=True,
    conversations="only",
)
CONVERSATIONS = Format(
    name="conversations",
    about=(
        f"One conversation per row. {_NOT_PRISM} An answer that broke a rule of the policy is left "
        "out; where it was the chosen one, the conversation ends before it."
    ),
    kinds=(CONVERSATION,),
    columns=lambda schema: _one_run(_CONVERSATIONS, schema),
    rows=conversations,
    compares=False,
    by_round=True,
    conversations="only",
)
UTTERANCES = Format(
    name="utterances",
    about=(
        f"One candidate per row: a turn has several. {_NOT_PRISM} Answers that broke a rule of the "
        "policy, and all that follows on them, are left out."
    ),
    kinds=(UTTERANCE,),
    columns=lambda schema: _one_run(_UTTERANCES, schema),
    rows=utterances,
    compares=False,
    by_round=True,
    conversations="only",
)
PRISM = Format(
    name="prism",
    about=_NOT_PRISM,
    kinds=(PERSON, CONVERSATION, UTTERANCE),
    columns=lambda schema: _UTTERANCES,
    rows=utterances,
    refuses=frozenset(
        {
            "splits",
            "keep_out",
            "rows",
            "max_per_question",
            "tokenizer",
            "max_tokens",
            "target",
            "balance",
        }
    ),
    conversations="only",
    parts=(SURVEY, CONVERSATIONS, UTTERANCES),
)
