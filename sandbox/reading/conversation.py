"""The conversation of an exchange: its turns, one policy for all, and the red-team request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import select

from sandbox.reading.records import Record
from storage import tables
from storage.exchanges import int_if_whole
from storage.reader import Reader

_ANSWER = "answer"  # the prompt template of the calls of utterances
_TITLES = {"aggregate": "answer of one policy for all", "red_team": "answer to the request"}


@dataclass(frozen=True, kw_only=True)
class Breach(Record):
    """A reply that broke a rule of the policy.

    Attributes:
        rule: the id of the rule.
        tier: its tier.
        action: recorded, asked_again or refused.
        found: what broke the rule.
        call: the number of the call within the run.
        form: the prompt template of the call.
    """

    rule: str
    tier: int
    action: str
    found: str
    call: int
    form: str


@dataclass(frozen=True, kw_only=True)
class Answer(Record):
    """What the model answers.

    Attributes:
        number: of the utterance within the conversation.
        text: None without a usable reply.
        refused: the text is the policy's refusal.
        chosen: the conversation goes on from it.
        score: the user's; None where it was not asked for or has no usable reply.
        breaches: the rules that replies to this prompt broke.
    """

    number: int
    text: str | None
    refused: bool
    chosen: bool
    score: float | None
    breaches: Sequence[Breach]


@dataclass(frozen=True, kw_only=True)
class Turn(Record):
    """What the user says, and the answers to it."""

    turn: int
    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True, kw_only=True)
class Attack(Record):
    """A red-team request.

    Attributes:
        request: its id.
        rule: the rule that forbids it; None: not told.
        phrasing: how it is put.
        turns: its messages, each with one answer.
        obeyed: what the judge says, yes or no; None without a verdict.
    """

    request: str | None
    rule: str | None
    phrasing: str
    turns: Sequence[Turn]
    obeyed: str | None


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What a judge or the user says about a conversation; the columns of the table `verdicts`."""

    kind: str
    subject: str
    value: str | None
    expected: str | None


@dataclass(frozen=True, kw_only=True)
class Conversation(Record):
    """A conversation of a user with the model.

    Attributes:
        manner: the type of the conversation.
        turns: with one chosen answer each.
        aggregate: the answer of one policy for all to the first prompt; None: not asked for.
        attack: the red-team request; None: there is none.
        verdicts: all others than of the request.
    """

    manner: str
    turns: Sequence[Turn]
    aggregate: Answer | None
    attack: Attack | None
    verdicts: Sequence[Verdict]


def conversation(reader: Reader, number: int) -> Conversation | None:
    """Read the conversation of an exchange, by its number within the run; None: there is none."""
    rows = _utterances(reader, [number])
    if not rows:
        return None
    broken = breaches(reader, number)
    verdicts = _verdicts(reader, number)
    by_kind: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_kind[row.kind].append(row)
    aggregate = next((_answer(row, broken) for row in by_kind["aggregate"]), None)
    return Conversation(
        manner=rows[0].manner,
        turns=_turns(by_kind["answer"], broken),
        aggregate=aggregate,
        attack=_attack(by_kind["red_team"], broken, verdicts),
        verdicts=[one for one in verdicts if one.kind != "obeyed"],
    )


def _utterances(reader: Reader, numbers: Sequence[int]) -> list[Any]:
    u, said, text = tables.utterances, tables.texts.alias(), tables.texts.alias()
    query = (
        select(u, said.c.text.label("prompt"), text.c.text.label("answer"))
        .join(said, said.c.id == u.c.prompt_id)
        .outerjoin(text, text.c.id == u.c.text_id)
        .where(u.c.episode_id.in_([reader.base + number for number in numbers]))
        .order_by(u.c.episode_id, u.c.number)
    )
    return list(reader.rows(query))


def breaches(reader: Reader, number: int) -> dict[tuple[str, int], list[Breach]]:
    """Read the breaches of an exchange, by prompt template and turn of the call."""
    b, c, f = tables.breaches, tables.calls, tables.forms
    query = (
        select(b, f.c.name.label("form"), c.c.turn)
        .join(c, c.c.id == b.c.call_id)
        .join(f, f.c.id == c.c.form_id)
        .where(b.c.episode_id == reader.base + number)
        .order_by(b.c.number)
    )
    found: defaultdict[tuple[str, int], list[Breach]] = defaultdict(list)
    for row in reader.rows(query):
        breach = Breach(
            rule=row.rule,
            tier=row.tier,
            action=row.action,
            found=row.found,
            call=row.call_id - reader.base,
            form=row.form,
        )
        found[row.form, row.turn].append(breach)
    return found


def _verdicts(reader: Reader, number: int) -> list[Verdict]:
    v = tables.verdicts
    query = select(v).where(v.c.episode_id == reader.base + number).order_by(v.c.number)
    return [
        Verdict(kind=row.kind, subject=row.subject, value=row.value, expected=row.expected)
        for row in reader.rows(query)
    ]


def _answer(row: Any, broken: Mapping[tuple[str, int], Sequence[Breach]]) -> Answer:
    return Answer(
        number=row.number,
        text=row.answer,
        refused=row.refused,
        chosen=row.chosen,
        score=int_if_whole(row.score),
        breaches=broken.get((_ANSWER, row.number), ()),
    )


def _turns(rows: Sequence[Any], broken: Mapping[tuple[str, int], Sequence[Breach]]) -> list[Turn]:
    return [
        Turn(turn=turn, prompt=each[0].prompt, answers=[_answer(row, broken) for row in each])
        for turn, group in groupby(rows, key=lambda row: int(row.turn))
        for each in [list(group)]
    ]


def _attack(
    rows: Sequence[Any],
    broken: Mapping[tuple[str, int], Sequence[Breach]],
    verdicts: Sequence[Verdict],
) -> Attack | None:
    if not rows:
        return None
    obeyed = next((one.value for one in verdicts if one.kind == "obeyed"), None)
    return Attack(
        request=rows[0].request,
        rule=rows[0].rule,
        phrasing=rows[0].manner,
        turns=_turns(rows, broken),
        obeyed=obeyed,
    )


def conversation_texts(
    reader: Reader, numbers: Sequence[int]
) -> dict[int, list[tuple[str, str | None]]]:
    """Read all texts of conversations by exchange, each with the name of its part."""
    found: defaultdict[int, list[tuple[str, str | None]]] = defaultdict(list)
    for row in _utterances(reader, numbers):
        number = row.episode_id - reader.base
        found[number] += _named(row)
    return found


def _named(row: Any) -> Iterator[tuple[str, str | None]]:
    if row.candidate == 0 and row.kind != "aggregate":
        who = "user" if row.kind == "answer" else "red-team request"
        yield f"{who}, turn {row.turn}", row.prompt
    if row.kind == "answer":
        yield f"answer {row.candidate + 1}, turn {row.turn}", row.answer
    else:
        yield _TITLES[row.kind], row.answer
