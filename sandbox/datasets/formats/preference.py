"""The format `preference`: pairs of answers to one question, for DPO and reward models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from agents.preferences import GROUPS
from agents.scale import Declaration, plain_number
from sandbox.datasets.answers import (
    RATED_BY,
    Answer,
    answer,
    answers,
    best,
    candidates,
    completion,
    lineage_columns,
    needs_answers,
    needs_ratings,
    worst,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.format import MESSAGES, Columns, Format, Removed, Row, Settings
from sandbox.datasets.near_duplicates import normalized
from sandbox.datasets.schema import Schema, below
from sandbox.datasets.source import SourcedExchange

PAIR = "pair"

EQUAL = "equal texts"
TIE = "equal ratings"
ALONE = "no second rated answer"
UNCHOSEN = "no chosen answer with a score in its turn"
NOT_WORSE = "not scored below the chosen answer"

DIMENSIONS = ("expertise", "informativeness", "style")
"""The preference dimensions by which pairs of conversations are labelled, after Personalized Soups
(Jang et al., arXiv 2310.11564)."""

_SIDES = ("chosen", "rejected")
_ROUNDING = 1e-9  # tolerance for differences of ratings with decimals


def needs(declaration: Declaration, choices: Choices) -> str | None:
    """What a run lacks of two rated answers to a question; None if it has them."""
    if choices.pick != "exchange":
        return needs_ratings(declaration, choices)
    missing = needs_answers(2, declaration)
    if missing is not None:
        return missing if not declaration.answers else f"{missing}, or --pick question"
    return needs_ratings(declaration, choices)


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the pairs that no rule removes."""
    for pair in _pairs(same_question, settings):
        if isinstance(pair, Removed):
            yield pair
            continue
        chosen, rejected = pair
        rule = _rule(chosen, rejected, settings)
        other = _other(chosen, rejected)
        name = f"{chosen.id}~{other}"
        yield _row(name, chosen, rejected, settings) if rule is None else Removed(PAIR, rule, name)


def _other(chosen: Answer, rejected: Answer) -> str:
    """The rejected answer, as the second part of the id of a pair."""
    if chosen.sourced is not rejected.sourced:
        return rejected.id
    return rejected.stage if rejected.number is None else str(rejected.number)


def _pairs(
    same_question: Sequence[SourcedExchange], settings: Settings
) -> Iterator[tuple[Answer, Answer] | Removed]:
    others = []
    for sourced in same_question:
        if sourced.origin.schema.conversations:
            yield from _of_conversation(sourced, settings)
        else:
            others.append(sourced)
    if settings.choices.pick == "exchange":
        for sourced in others:
            yield _of_exchange(sourced, settings)
    elif others:
        yield from _of_question(others, settings)


def _of_conversation(
    sourced: SourcedExchange, settings: Settings
) -> Iterator[tuple[Answer, Answer] | Removed]:
    """In each turn the chosen answer with each one that is scored worse."""
    scored: list[Answer] = []
    for found in candidates(sourced, PAIR, settings):
        if isinstance(found, Removed):
            yield found
        else:
            scored.append(found)
    for _, group in groupby(scored, key=lambda one: one.turn):
        turn = list(group)
        chosen = next((one for one in turn if one.candidate and one.candidate.chosen), None)
        for other in turn:
            if chosen is None:
                yield Removed(PAIR, UNCHOSEN, other.id)
            elif other is not chosen:
                worse = other.goodness < chosen.goodness
                yield (chosen, other) if worse else Removed(PAIR, NOT_WORSE, other.id)


def _of_exchange(sourced: SourcedExchange, settings: Settings) -> tuple[Answer, Answer] | Removed:
    """The best and the worst of an exchange's rated answers."""
    found = [answer(sourced, stage, settings) for stage in sourced.origin.declaration.answers]
    rated = [rated for rated in found if isinstance(rated, Answer)]
    if len(rated) < 2:
        missing = next(rule for rule in found if isinstance(rule, str))
        return Removed(PAIR, missing, sourced.id())
    return best(rated), worst(rated)


def _of_question(
    same_question: Sequence[SourcedExchange], settings: Settings
) -> Iterator[tuple[Answer, Answer] | Removed]:
    """The best answer with the worst one, or with each of the others."""
    rated = [found for found in answers(same_question, PAIR, settings) if isinstance(found, Answer)]
    if len(rated) < 2:
        yield Removed(PAIR, ALONE, same_question[0].id())
        return
    top = best(rated)
    others = [worst(rated)] if settings.choices.pick == "question" else rated
    yield from ((top, other) for other in others if other is not top)


def _rule(chosen: Answer, rejected: Answer, settings: Settings) -> str | None:
    margin = chosen.goodness - rejected.goodness
    if normalized(chosen.text) == normalized(rejected.text):
        return EQUAL
    if margin == 0:
        return TIE
    if margin < settings.min_margin - _ROUNDING:
        return f"margin below {plain_number(settings.min_margin)}"
    if chosen.at_least(settings.min_rating):
        return None
    return f"chosen is rated {below(settings.rated_on)} {plain_number(settings.min_rating)}"


def _row(name: str, chosen: Answer, rejected: Answer, settings: Settings) -> Row:
    margin = chosen.goodness - rejected.goodness
    data: dict[str, Any] = {
        "prompt": chosen.prompt,
        "chosen": completion(chosen.text),
        "rejected": completion(rejected.text),
        "margin": margin,
        "id": name,
    }
    lineages = (chosen.lineage(), rejected.lineage())
    for side, lineage in zip(_SIDES, lineages, strict=True):
        data |= {f"{side}_{key}": value for key, value in lineage.items() if key != "scripted"}
    if settings.schema.conversations:
        data |= _of_user(chosen, rejected)
    return Row(
        kind=PAIR,
        id=name,
        sourced=chosen.sourced,
        question=chosen.question,
        data=data | {"scripted": any(lineage["scripted"] for lineage in lineages)},
        prompt=chosen.prompt_text,
        answers=(chosen.text, rejected.text),
        dedup_text=f"{chosen.text}\n{rejected.text}",
        rating=chosen.rating,
        margin=margin,
    )


def _of_user(chosen: Answer, rejected: Answer) -> dict[str, Any]:
    """The scores, labels and groups of a pair of a conversation; null for other pairs."""
    talk, rater = chosen.sourced.conversation, chosen.sourced.rater
    survey = {} if rater is None else rater.get("survey") or {}
    scores = (None, None) if talk is None else (float(chosen.score), float(rejected.score))
    labels = {
        name: talk.label(name, chosen.candidate, rejected.candidate)
        for name in DIMENSIONS
        if talk and chosen.candidate and rejected.candidate
    }
    return {
        "score_chosen": scores[0],
        "score_rejected": scores[1],
        **{f"label_{name}": labels.get(name) for name in DIMENSIONS},
        **{f"group_{name}": survey.get(name) for name in GROUPS},
    }


def _user_columns() -> Columns:
    return {
        "score_chosen": "float64",
        "score_rejected": "float64",
        **{f"label_{name}": "string" for name in DIMENSIONS},
        **{f"group_{name}": "string" for name in GROUPS},
    }


def columns(schema: Schema) -> Columns:
    """The columns: a question with two answers, the lineage of each, and the user's groups."""
    lineage = {key: kind for key, kind in lineage_columns(schema).items() if key != "scripted"}
    return {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "margin": "float64",
        "id": "string",
        **{f"{side}_{key}": kind for side in _SIDES for key, kind in lineage.items()},
        **(_user_columns() if schema.conversations else {}),
        "scripted": "bool",
    }


PREFERENCE = Format(
    name="preference",
    about=(
        "Pairs for DPO and reward models: two answers to one question, where `chosen` is rated "
        "better than `rejected`, by `margin`. Reward trainers use the column `margin` if it is "
        "present: drop it to train without. The columns that begin with `chosen_` and `rejected_` "
        "are the lineage of each answer. In a conversation the chosen answer of a turn is paired "
        "with each one that its user scored worse; `prompt` is the conversation so far, "
        "`group_...` are the groups of the user, and `label_...` says which of the pair is simpler "
        "(expertise), shorter (informativeness) or friendlier (style): `chosen`, `rejected`, or "
        "null where nobody was asked."
    ),
    kinds=(PAIR,),
    columns=columns,
    rows=rows,
    needs=needs,
    uses=RATED_BY | {"pick", "min_rating", "min_margin", "max_per_agent"},
    least=0,
    conversations="also",
)
