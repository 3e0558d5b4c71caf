"""The format `preference`: pairs of answers to one question, for DPO and reward models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.datasets.answers import (
    LINEAGE,
    RATED_BY,
    STAGES,
    Answer,
    answer,
    answers,
    best,
    completion,
    prompt,
    worst,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.near import plain
from sandbox.datasets.rows import MESSAGES, Columns, Format, Removed, Row
from sandbox.datasets.source import Told

PAIR = "pair"

EQUAL = "equal texts"
TIE = "equal ratings"
ALONE = "no second rated answer"

_SIDES = ("chosen", "rejected")
_SIDE_COLUMNS: Columns = {name: LINEAGE[name] for name in LINEAGE if name != "scripted"}


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """The pairs that rules leave."""
    for pair in _pairs(about, choices):
        if isinstance(pair, Removed):
            yield pair
            continue
        chosen, rejected = pair
        rule = _rule(chosen, rejected, choices)
        other = rejected.stage if chosen.told is rejected.told else rejected.id
        made = f"{chosen.id}~{other}"
        yield _row(made, chosen, rejected) if rule is None else Removed(PAIR, rule, made)


def _pairs(about: Sequence[Told], choices: Choices) -> Iterator[tuple[Answer, Answer] | Removed]:
    if choices.pick == "exchange":
        for told in about:
            yield _of_exchange(told, choices)
    else:
        yield from _of_question(about, choices)


def _of_exchange(told: Told, choices: Choices) -> tuple[Answer, Answer] | Removed:
    """The draft and the revision, the better rated one first."""
    both = [answer(told, stage, choices) for stage in STAGES]
    missing = [one for one in both if isinstance(one, str)]
    if missing:
        return Removed(PAIR, missing[0], told.id())
    found = [one for one in both if not isinstance(one, str)]
    return best(found), worst(found)


def _of_question(
    about: Sequence[Told], choices: Choices
) -> Iterator[tuple[Answer, Answer] | Removed]:
    """The best answer with the worst one, or with every other one."""
    found = [one for one in answers(about, PAIR, choices) if isinstance(one, Answer)]
    if len(found) < 2:
        yield Removed(PAIR, ALONE, about[0].id())
        return
    top = best(found)
    others = [worst(found)] if choices.pick == "question" else found
    yield from ((top, one) for one in others if one is not top)


def _rule(chosen: Answer, rejected: Answer, choices: Choices) -> str | None:
    margin = chosen.score - rejected.score
    if plain(chosen.text) == plain(rejected.text):
        return EQUAL
    if margin == 0:
        return TIE
    if margin < (choices.min_margin or 0):
        return f"margin below {choices.min_margin:g}"
    low = chosen.score < (choices.min_rating or 0)
    return f"chosen is rated below {choices.min_rating:g}" if low else None


def _row(made: str, chosen: Answer, rejected: Answer) -> Row:
    margin = chosen.score - rejected.score
    data: dict[str, Any] = {
        "prompt": prompt(chosen.asked),
        "chosen": completion(chosen.text),
        "rejected": completion(rejected.text),
        "margin": margin,
        "id": made,
    }
    sides = (chosen.lineage(), rejected.lineage())
    for side, told in zip(_SIDES, sides, strict=True):
        data |= {f"{side}_{name}": told[name] for name in _SIDE_COLUMNS}
    return Row(
        kind=PAIR,
        id=made,
        told=chosen.told,
        question=chosen.question,
        data=data | {"scripted": any(told["scripted"] for told in sides)},
        prompt=chosen.asked,
        answers=(chosen.text, rejected.text),
        like=f"{chosen.text}\n{rejected.text}",
        rating=chosen.rating,
        margin=margin,
    )


PREFERENCE = Format(
    name="preference",
    about=(
        "Pairs for DPO and reward models: two answers to one question, of which `chosen` is rated "
        "higher than `rejected`, by `margin`. Reward trainers use the column `margin` where it is "
        "there: drop it to train without. The columns that begin with `chosen_` and `rejected_` "
        "say where each answer is from."
    ),
    kinds=(PAIR,),
    columns={
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "margin": "float64",
        "id": "string",
        **{f"{side}_{name}": one for side in _SIDES for name, one in _SIDE_COLUMNS.items()},
        "scripted": "bool",
    },
    rows=rows,
    uses=RATED_BY | {"pick", "min_rating", "min_margin", "max_per_agent"},
    defaults={"min_rating": 1.0},
)
