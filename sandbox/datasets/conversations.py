"""What the table of exchanges does not hold: broken rules, and the conversations of users.

A conversation has turns with one or several candidates, of which one is chosen. A candidate stays
out of rows if it has no text, if its text broke a rule of the policy, or if an answer before it in
the conversation did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from storage import tables
from storage.exchanges import int_if_whole

ANSWER_FORM = "answer"
"""The name of the prompt template whose replies are the candidates of a conversation."""

NO_TEXT = "no such text"


class Broken(NamedTuple):
    """A text that broke rules of the policy.

    Attributes:
        rules: the ids of the rules.
        refused: the text is the policy's refusal, in place of the reply.
    """

    rules: tuple[str, ...]
    refused: bool

    @property
    def reason(self) -> str:
        """The rule of an export that leaves the text out."""
        named = ", ".join(self.rules) or "the policy"
        return f"refused for {named}" if self.refused else f"broke {named}"


class Candidate(NamedTuple):
    """An answer to a user's message.

    Attributes:
        number: its number within the conversation, also in ids.
        turn: of the conversation, from 0.
        place: among the candidates of its turn, from 0.
        prompt: what the user said.
        text: the answer; None where there was no usable reply.
        score: the user's; None where it is missing.
        chosen: the conversation went on from it.
        broken: the rules that it broke; None: none.
        history: the messages and chosen answers before its turn.
        rule: why it stays out of rows; None: it does not.
    """

    number: int
    turn: int
    place: int
    prompt: str
    text: str | None
    score: float | None
    chosen: bool
    broken: Broken | None
    history: tuple[tuple[str, str], ...] = ()
    rule: str | None = None

    @property
    def answer(self) -> str:
        """The text, which must exist."""
        assert self.text is not None
        return self.text


class Said(NamedTuple):
    """A verdict on a conversation, or of its user; see the table `verdicts`."""

    kind: str
    subject: str
    utterance: int | None
    value: str | None


class Conversation(NamedTuple):
    """A conversation of a user with the model.

    Attributes:
        manner: its type, such as ``values guided``.
        candidates: all answers, turn by turn.
        verdicts: all verdicts.
    """

    manner: str
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Said, ...]

    def turns(self) -> Iterator[tuple[Candidate, ...]]:
        """Yield the candidates of each turn."""
        for _, group in groupby(self.candidates, key=lambda one: one.turn):
            yield tuple(group)

    def values(self, kind: str) -> dict[str, str | None]:
        """The values of the verdicts of a kind by subject."""
        return {said.subject: said.value for said in self.verdicts if said.kind == kind}

    def label(self, dimension: str, chosen: Candidate, rejected: Candidate) -> str | None:
        """Which of a pair suits the first end of a dimension better: chosen, rejected, or None."""
        return next(
            (
                said.value
                for said in self.verdicts
                if (said.kind, said.subject, said.utterance)
                == ("dimension", dimension, rejected.number)
                and chosen.turn == rejected.turn
            ),
            None,
        )


class Aside(NamedTuple):
    """What belongs to an exchange beside its row.

    Attributes:
        broken: the texts of stages that broke rules, by stage.
        instructions: the rules that an instruction or its answer broke; None: none.
        conversation: its conversation; None in worlds without.
    """

    broken: Mapping[str, Broken]
    instructions: Broken | None
    conversation: Conversation | None


NOTHING = Aside({}, None, None)

_Breaches = Mapping[tuple[int, str, int], Broken]


def asides(connection: Connection, ids: Sequence[int], talks: bool) -> dict[int, Aside]:
    """Read what belongs to exchanges, by the ids of their episodes; `NOTHING` has no entry.

    Args:
        connection: the snapshot to read from.
        ids: the ids of the episodes.
        talks: whether their world has conversations.
    """
    stages = _broken_stages(connection, ids)
    breaches = _breaches(connection, ids)
    instructions = {
        number: broken
        for (number, form, _), broken in breaches.items()
        if form in ("instruct", ANSWER_FORM)
    }
    conversations = _conversations(connection, ids, breaches) if talks else {}
    return {
        number: Aside(stages.get(number, {}), instructions.get(number), conversations.get(number))
        for number in {*stages, *instructions, *conversations}
    }


def _broken_stages(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Broken]]:
    s = tables.stage_texts
    query = select(s.c.episode_id, s.c.stage, s.c.rules, s.c.refused).where(
        s.c.episode_id.in_(ids), s.c.rules.is_not(None) | s.c.refused
    )
    found: dict[int, dict[str, Broken]] = defaultdict(dict)
    for number, stage, rules, refused in connection.execute(query):
        found[number][stage] = Broken(tuple(rules.split(",")) if rules else (), bool(refused))
    return found


def _breaches(connection: Connection, ids: Sequence[int]) -> _Breaches:
    """The rules that replies broke which were not asked for again, by episode, form and turn."""
    b, c, f = tables.breaches, tables.calls, tables.forms
    query = (
        select(b.c.episode_id, f.c.name, c.c.turn, b.c.rule, b.c.action)
        .join(c, c.c.id == b.c.call_id)
        .join(f, f.c.id == c.c.form_id)
        .where(b.c.episode_id.in_(ids), b.c.action != "asked_again")
        .order_by(b.c.episode_id, b.c.number)
    )
    found: dict[tuple[int, str, int], Broken] = {}
    for *key, rule, action in connection.execute(query):
        place = (key[0], key[1], key[2])
        known = found.get(place, Broken((), False))
        found[place] = Broken((*known.rules, rule), known.refused or action == "refused")
    return found


def _conversations(
    connection: Connection, ids: Sequence[int], breaches: _Breaches
) -> dict[int, Conversation]:
    u = tables.utterances
    said, answered = tables.texts.alias(), tables.texts.alias()
    query = (
        select(u, said.c.text.label("prompt"), answered.c.text.label("text"))
        .join(said, said.c.id == u.c.prompt_id)
        .outerjoin(answered, answered.c.id == u.c.text_id)
        .where(u.c.episode_id.in_(ids), u.c.kind == "answer")
        .order_by(u.c.episode_id, u.c.turn, u.c.candidate)
    )
    verdicts = _verdicts(connection, ids)
    rows = connection.execute(query)
    found = {}
    for number, group in groupby(rows, key=lambda row: row.episode_id):
        utterances = list(group)
        candidates = [
            _candidate(row, breaches.get((number, ANSWER_FORM, row.number))) for row in utterances
        ]
        found[number] = Conversation(
            str(utterances[0].manner), tuple(_ruled(candidates)), verdicts.get(number, ())
        )
    return found


def _candidate(row: Any, broken: Broken | None) -> Candidate:
    if row.refused and (broken is None or not broken.refused):
        broken = Broken(() if broken is None else broken.rules, True)
    return Candidate(
        number=row.number,
        turn=row.turn,
        place=row.candidate,
        prompt=row.prompt,
        text=row.text,
        score=int_if_whole(row.score),
        chosen=bool(row.chosen),
        broken=broken,
    )


def _ruled(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield candidates with the conversation before them, and why they stay out of rows."""
    history: tuple[tuple[str, str], ...] = ()
    before: str | None = None
    for _, group in groupby(candidates, key=lambda one: one.turn):
        turn = list(group)
        for one in turn:
            yield one._replace(history=history, rule=before or _rule(one))
        chosen = next((one for one in turn if one.chosen and one.text is not None), None)
        if chosen is not None:
            history = (*history, (chosen.prompt, chosen.answer))
            if before is None and chosen.broken is not None:
                was = "was " if chosen.broken.refused else ""
                before = f"follows an answer that {was}{chosen.broken.reason}"


def _rule(one: Candidate) -> str | None:
    if one.text is None:
        return NO_TEXT
    return None if one.broken is None else one.broken.reason


def _verdicts(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[Said, ...]]:
    v = tables.verdicts
    query = (
        select(v.c.episode_id, v.c.kind, v.c.subject, v.c.utterance, v.c.value)
        .where(v.c.episode_id.in_(ids))
        .order_by(v.c.episode_id, v.c.number)
    )
    rows = connection.execute(query)
    return {
        number: tuple(Said(*row[1:]) for row in group)
        for number, group in groupby(rows, key=lambda row: row[0])
    }
