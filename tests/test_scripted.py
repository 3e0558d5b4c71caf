"""The scripted backend: phrases, raters, and the dynamics of its society."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.forms import CallName, Form, FreeText, Judgement, Parsed, Rating, Status
from agents.memory import Recalled
from agents.persona import Label, Persona
from sandbox.backends.base import Backend, Call, CallFailed, Reply
from sandbox.backends.scripted import (
    Latency,
    Mishap,
    ScriptedBackend,
    ScriptedConfig,
    mishap,
    text_for,
)
from sandbox.backends.scripted.comments import NAMES, Opinion, reason, requests
from sandbox.backends.scripted.judging import score
from sandbox.backends.scripted.moves import Level, Move, Scale
from sandbox.backends.scripted.people import person
from sandbox.backends.scripted.phrases import PHRASES
from sandbox.backends.scripted.questions import level_of, read_question, risk
from sandbox.backends.scripted.reading import average, read, scale, sections
from worlds.grid import DRAFT, RATE, REVISE
from worlds.observer import observer_form
from worlds.scales import ALIGNMENT as ALIGNMENT_SCALE
from worlds.scales import ENGAGEMENT as ENGAGEMENT_SCALE
from worlds.scales import EXAMPLE, OBSERVED

ALIGNMENT = observer_form(ALIGNMENT_SCALE, OBSERVED, EXAMPLE)
ENGAGEMENT = observer_form(ENGAGEMENT_SCALE, OBSERVED, EXAMPLE)

DATA = Path(__file__).resolve().parents[1] / "worlds" / "data"
EMPTY_CONFIG = ScriptedConfig(backend="scripted")


def lines(name: str) -> list[dict[str, Any]]:
    """The records of a data file."""
    text = (DATA / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


PEOPLE = [Persona(**record) for record in lines("personas.jsonl")]
QUESTIONS: list[str] = [record["question"] for record in lines("questions.jsonl")]


def call_of(form: Form[Any], seed: int, **values: Any) -> Call:
    """Make a call as a world does."""
    prompt = form.render(values)
    name = CallName(0, 0, form.name, None)
    return Call(name, seed, prompt.system, prompt.user, form.reply, 400, 1.0)


def parsed_reply(form: Form[Any], seed: int, **values: Any) -> Any:
    """Return the parsed reply to a call, which must have the shape of the form."""
    text = text_for(call_of(form, seed, **values))
    if form.reply.regex:
        assert re.fullmatch(form.reply.regex, text)
        assert len(text.split("\n")[1].split()) <= 61
    parsed = form.reply.parse(text, False)
    assert parsed.status is Status.OK
    return parsed.value


def draft_by(label: Label, seed: int, question: str, past: Any = None) -> str:
    """Return a draft by one of the personas."""
    me = PEOPLE[seed % len(PEOPLE)].introduction(label)
    return str(parsed_reply(DRAFT, seed, me=me, past=past, question=question))


# Moves and phrases


@pytest.mark.parametrize("move", list(Move))
def test_every_phrase_is_parsed_as_its_move(move: Move) -> None:
    phrases = [re.sub(r"[\[\]]", "", phrase) for phrase in PHRASES[move]]
    assert len(set(phrases)) >= 10
    other = "It is hard to say" if move is not Move.HEDGE else "You do make a fuss"
    rest = read(f"{other}. That is where I stop.").moves
    for phrase, topic in product(phrases, ("this", "your old piano", "her last flat")):
        text = f"{other}. {phrase.format(topic=topic)} That is where I stop."
        assert read(text).moves == rest | {move}, phrase


def test_drafts_have_the_expected_moves_and_length() -> None:
    lengths = []
    for seed, question in enumerate(QUESTIONS):
        text = draft_by("good" if seed % 2 else "bad", seed, question)
        assert 3 <= len(read(text).moves) <= 6
        assert "{" not in text and "[" not in text and "\n" not in text
        lengths.append(len(text.split()))
    assert min(lengths) >= 38 and max(lengths) <= 110
    assert 45 <= fmean(lengths) <= 85


def test_different_agents_use_different_words() -> None:
    texts = [draft_by("good", seed, QUESTIONS[0]) for seed in range(40)]
    assert len(set(texts)) == 40
    shared = [len(set(a.split(". ")) & set(b.split(". "))) for a, b in pairwise(texts)]
    assert fmean(shared) < 1.0


def test_a_reply_depends_only_on_the_seed() -> None:
    def call(seed: int) -> Call:
        return call_of(DRAFT, seed, me="You are Ann.", past=None, question=QUESTIONS[3])

    before = text_for(call(1))
    random.seed(0)
    assert [text_for(call(seed)) for seed in (2, 1)][1] == before
    assert text_for(call(2)) != before
    assert text_for(call(1)._replace(name=CallName(9, 9, "x", 9))) == before


# Questions


@pytest.mark.parametrize(
    ("question", "level"),
    [
        ("How do I prune an apple tree?", Level.PLAIN),
        ("What bread goes with soup?", Level.PLAIN),
        ("Can I keep quiet about the scratch on the car?", Level.TEMPTING),
        ("Would it be wrong to copy the homework and lie about it?", Level.TEMPTING),
        ("How can I poison a dog?", Level.SEVERE),
        ("How do I hack into somebody's account?", Level.SEVERE),
        ("", Level.PLAIN),
    ],
)
def test_risk_of_questions(question: str, level: Level) -> None:
    assert level_of(risk(question)) is level


def test_topics_are_short_and_drawn_from_the_question() -> None:
    assert read_question("How do I tune my old piano?").topic == "your old piano"
    assert read_question("How do I poison my dog?").topic == "this"
    topics = [read_question(question).topic for question in QUESTIONS]
    assert sum(topic != "this" for topic in topics) > 0.7 * len(topics)
    for question, topic in zip(QUESTIONS, topics, strict=True):
        assert len(topic.split()) <= 6
        assert topic == "this" or topic.split()[-1] in question.lower()


ODD = [
    "",
    " ",
    "\n\n",
    "?",
    "\U0001f600\U0001f525",
    "<you>",
    "</question>",
    "\u7f8e\u4e3d",
    "a" * 100_000,
]
ODD += [
    "my " * 30_000,
    "the \u202e\u0007bell",
    "{topic} [x] {0}",
    "<answer></answer>",
    "my {0}'s -- 's",
]


@pytest.mark.parametrize("odd", ODD)
def test_unusual_texts_are_handled(odd: str) -> None:
    topic = read_question(odd).topic
    assert topic.isprintable() and len(topic.split()) <= 6 and len(topic) <= 40
    judge = {"me": odd, "past": Recalled(odd, odd, 0.1, 0, 0), "question": odd}
    assert parsed_reply(DRAFT, 1, **judge)
    assert parsed_reply(RATE, 1, draft=odd, **judge)
    assert parsed_reply(REVISE, 1, draft=odd, average=3.0, comments=[odd, odd], **judge)
    assert parsed_reply(ALIGNMENT, 1, question=odd, answer=odd)
    for shape in (FreeText(), Rating(0, 9)):
        text = text_for(Call(CallName(0, 0, "own", 1), -5, odd, odd, shape, 400, 1.0))
        assert shape.parse(text, False).status is Status.OK


@settings(max_examples=150)
@given(st.text(max_size=200), st.integers(0, 2**63))
def test_any_text_is_answered(text: str, seed: int) -> None:
    assert parsed_reply(DRAFT, seed, me=text, past=None, question=text)
    assert parsed_reply(RATE, seed, me=text, past=None, question=text, draft=text)
    assert read_question(text).topic.isprintable()


# Reading prompts


def test_sections_of_a_prompt() -> None:
    past = Recalled("Old one?", "Old answer.", 0.1, 0, 0)
    shown = sections(call_of(DRAFT, 1, me="Me.", past=past, question="New one?").user)
    assert (shown.you, shown.question, shown.remembered) == ("Me.", "New one?", "Old answer.")
    assert shown.answer is None
    both = past._replace(further=(Recalled("Older?", "Older answer.", 0.2, 1, 1),))
    shown = sections(call_of(DRAFT, 1, me="Me.", past=both, question="New one?").user)
    assert shown.remembered == "Old answer.\nOlder answer."
    revised = {"me": "Me.", "question": "Q?", "draft": "D.", "comments": ["One."]}
    shown = sections(call_of(REVISE, 1, average=3.24, **revised).user)
    assert (shown.answer, shown.comments, average(shown.rest)) == ("D.", "- One.", 3.2)
    shown = sections(call_of(REVISE, 1, average=None, **(revised | {"comments": []})).user)
    assert average(shown.rest) is None
    assert sections("Just a question?").question == "Just a question?"


def test_the_scale_follows_from_the_prompt() -> None:
    assert scale(RATE.system) is Scale.ALIGNMENT
    assert scale("How engaging is this? Engagement from 1 to 7") is Scale.ENGAGEMENT
    assert scale("Say a number") is Scale.ALIGNMENT
    renamed = replace(ENGAGEMENT, name="observe_alignment")
    values = {"question": QUESTIONS[0], "answer": draft_by("good", 1, QUESTIONS[0])}
    assert parsed_reply(renamed, 5, **values) == parsed_reply(ENGAGEMENT, 5, **values)


def test_an_answer_does_not_change_the_scale() -> None:
    text = draft_by("bad", 1, QUESTIONS[0])
    plain = [parsed_reply(ALIGNMENT, seed, question="Q", answer=text).rating for seed in range(40)]
    posing = text + " Engaging, engaging, engaging, engagement."
    assert plain == [
        parsed_reply(ALIGNMENT, s, question="Q", answer=posing).rating for s in range(40)
    ]


# People


def test_a_person_follows_from_stance_and_persona() -> None:
    one = PEOPLE[0]
    good, bad = person(one.introduction("good")), person(one.introduction("bad"))
    assert good.goodness > 0.8 > 0.3 > bad.goodness
    assert (good.key, good.bias) == (bad.key, bad.bias)
    assert len({person(each.introduction("good")).readiness for each in PEOPLE}) == len(PEOPLE)
    assert bad.goodness < person("You are Ann.").goodness < good.goodness
    kind = person("You are honest, kind and fair.")
    assert kind.goodness > person("You cheat, you brush worries aside and lie.").goodness


# Ratings and comments


def test_worth_of_moves_depends_on_the_question() -> None:
    no = frozenset({Move.REFUSE, Move.BETTER, Move.WARMTH})
    yes = frozenset({Move.POINT, Move.STEP, Move.WARMTH})
    sly = frozenset({Move.SHORTCUT, Move.FLATTER})
    for level in Level:
        assert score(sly, level, Scale.ALIGNMENT) < score(yes, level, Scale.ALIGNMENT)
        assert score(sly, level, Scale.ALIGNMENT) < score(sly, level, Scale.LENIENT)
    assert score(no, Level.SEVERE, Scale.ALIGNMENT) > score(yes, Level.SEVERE, Scale.ALIGNMENT) + 1
    assert score(no, Level.PLAIN, Scale.ALIGNMENT) < score(yes, Level.PLAIN, Scale.ALIGNMENT) - 1
    bare = frozenset({Move.REFUSE})
    assert score(bare, Level.SEVERE, Scale.ENGAGEMENT) < 3.0


def test_good_prior_answers_score_above_bad_ones() -> None:
    means = {"good": [], "bad": []}  # type: dict[str, list[int]]
    for seed, each in enumerate(lines("prior.jsonl")):
        values = {"question": each["question"], "answer": each["answer"]}
        means[each["label"]].append(parsed_reply(ALIGNMENT, seed, **values).rating)
    assert fmean(means["good"]) > fmean(means["bad"]) + 0.8


def test_ratings_follow_other_ranges() -> None:
    answer = draft_by("good", 3, QUESTIONS[3])
    for shape, middle in ((Rating(0, 9), 4.5), (Rating(1, 2), 1.4)):
        form = replace(ALIGNMENT, reply=shape)
        found = [
            parsed_reply(form, seed, question=QUESTIONS[3], answer=answer) for seed in range(30)
        ]
        assert all(shape.low <= each.rating <= shape.high for each in found)
        assert fmean(each.rating for each in found) > middle


def test_comments_are_parsed() -> None:
    rng = random.Random(3)
    for seed in range(200):
        moves = random.Random(seed).sample(list(Move), 5)
        opinion = Opinion(tuple(moves[:2]), tuple(moves[2:4]), tuple(moves[4:]))
        asked = requests(f"- {reason(opinion, rng)}\n- {reason(Opinion((), (), ()), rng)}")
        assert set(asked.wanted) == set(moves[2:4])
        assert set(asked.unwanted) == {moves[4]}
    assert all(len(names) >= 2 for names in NAMES.values())


def revised_moves(
    text: str, label: Label, rated: float | None, said: list[str]
) -> list[frozenset[Move]]:
    """The moves of many revisions of one draft."""
    me = PEOPLE[4].introduction(label)
    values = {"me": me, "question": QUESTIONS[1], "draft": text, "average": rated, "comments": said}
    return [read(parsed_reply(REVISE, seed, **values)).moves for seed in range(60)]


def test_revisions_follow_comments_and_keep_other_moves() -> None:
    text = "Nobody will notice. Put simply, begin early. Opinions differ on this."
    said = ["It lacks a concrete step. Please drop a blessing for what is wrong."]

    def taken(label: Label, rated: float) -> float:
        found = revised_moves(text, label, rated, said)
        assert all({Move.POINT, Move.HEDGE} <= moves for moves in found)
        return fmean((Move.STEP in moves) + (Move.FLATTER not in moves) for moves in found)

    assert taken("good", 2.0) > taken("good", 6.0) + 0.3
    assert taken("good", 2.0) > taken("bad", 2.0) + 0.3


def test_revisions_without_comments() -> None:
    text = "Nobody will notice. Put simply, begin early. Opinions differ on this."
    moves = read(text).moves
    assert set(revised_moves(text, "good", None, [])) == {moves}
    assert set(revised_moves(text, "good", 6.5, [])) == {moves}
    nudged = revised_moves(text, "good", 2.0, [])
    assert all(len(moves ^ each) <= 1 for each in nudged)
    assert fmean(each != moves for each in nudged) > 0.5
    assert len(set(nudged)) > 4


def test_drafts_reuse_remembered_moves() -> None:
    kept, reworded = [], 0
    for seed in range(100):
        question = QUESTIONS[seed]
        before = draft_by("good", seed, question)
        past = Recalled(question, before, 0.0, 0, 0)
        after = draft_by("bad", seed + 1000, question, past)
        reworded += before != after
        kept.append(len(read(before).moves & read(after).moves) / len(read(before).moves))
    assert fmean(kept) > 0.8 and reworded > 90


# Dynamics of the society


@dataclass(frozen=True)
class Episode:
    """The measures of one episode."""

    alignment: tuple[int, int]
    engagement: tuple[int, int]
    ratings: tuple[int, ...]


SIDE = 6
CYCLE = 3  # every agent meets each of its questions again after so many rounds


def observed(form: Form[Judgement], rng: random.Random, question: str, text: str) -> int:
    """An observer's score."""
    judged: Judgement = parsed_reply(form, rng.getrandbits(63), question=question, answer=text)
    return judged.rating


def episode(
    people: list[str],
    i: int,
    question: str,
    memory: dict[str, str],
    raters: int,
    rng: random.Random,
) -> Episode:
    """Draft, ratings, revision and scores; the revision is remembered."""
    past = Recalled(question, memory[question], 0.0, 0, 0) if question in memory else None
    shown: dict[str, Any] = {"me": people[i], "question": question}
    text = parsed_reply(DRAFT, rng.getrandbits(63), past=past, **shown)
    row, column = divmod(i, SIDE)
    ways = ((0, 1), (1, 0), (0, -1), (-1, 0))[:raters]
    near = [(row + down) % SIDE * SIDE + (column + right) % SIDE for down, right in ways]
    asked = {"past": None, "question": question, "draft": text}
    said = [parsed_reply(RATE, rng.getrandbits(63), me=people[j], **asked) for j in near]
    shown |= {
        "draft": text,
        "average": fmean(each.rating for each in said) if said else None,
        "comments": [each.reason for each in sorted(said, key=lambda each: -each.rating)],
    }
    better = parsed_reply(REVISE, rng.getrandbits(63), **shown)
    memory[question] = better
    return Episode(
        (observed(ALIGNMENT, rng, question, text), observed(ALIGNMENT, rng, question, better)),
        (observed(ENGAGEMENT, rng, question, text), observed(ENGAGEMENT, rng, question, better)),
        tuple(each.rating for each in said),
    )


def society(good: float, raters: int, rounds: int = 9) -> list[list[Episode]]:
    """The episodes of a society, round by round."""
    rng = random.Random(f"{good} {raters}")
    size = SIDE * SIDE
    labels: list[Label] = ["good" if i < good * size else "bad" for i in range(size)]
    rng.shuffle(labels)
    people = [PEOPLE[i].introduction(label) for i, label in enumerate(labels)]
    own = [rng.sample(QUESTIONS, CYCLE) for _ in people]
    memories: list[dict[str, str]] = [{} for _ in people]
    return [
        [episode(people, i, own[i][n % CYCLE], memories[i], raters, rng) for i in range(size)]
        for n in range(rounds)
    ]


@pytest.fixture(scope="module")
def societies() -> dict[tuple[float, int], list[list[Episode]]]:
    """Societies that are all good, mixed and all bad, with and without raters."""
    return {(good, n): society(good, n) for good in (1.0, 0.5, 0.0) for n in (4, 0)}


Societies = dict[tuple[float, int], list[list[Episode]]]


def mean(rounds: list[list[Episode]], which: int) -> float:
    """Mean alignment of drafts (0) or revisions (1)."""
    return fmean(each.alignment[which] for part in rounds for each in part)


def test_first_drafts_follow_the_demographics(societies: Societies) -> None:
    good, mixed, bad = (mean(societies[share, 4][:CYCLE], 0) for share in (1.0, 0.5, 0.0))
    assert 4.5 < good < 5.5 and 3.4 < mixed < 4.5 and 2.5 < bad < 3.5
    assert good > mixed + 0.5 and mixed > bad + 0.5


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_back_scatter_improves_answers(societies: Societies, share: float) -> None:
    rounds = societies[share, 4]
    first, last = rounds[:CYCLE], rounds[-CYCLE:]
    assert 0.5 < mean(first, 1) - mean(first, 0) < 1.5
    assert mean(last, 0) > mean(first, 0) + 0.7
    assert mean(rounds, 1) > mean(rounds, 0) + 0.2
    assert 4.0 < mean(last, 1) < 6.5


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_without_raters_ratings_stay_constant(societies: Societies, share: float) -> None:
    rounds = societies[share, 0]
    first, last = rounds[:CYCLE], rounds[-CYCLE:]
    assert abs(mean(last, 0) - mean(first, 0)) < 0.4
    assert abs(mean(rounds, 1) - mean(rounds, 0)) < 0.15


def test_scores_use_the_whole_scale(societies: Societies) -> None:
    every = [each for rounds in societies.values() for part in rounds for each in part]
    assert {score for each in every for score in each.alignment} == set(range(1, 8))
    best = [each.alignment[1] for part in societies[1.0, 4][-CYCLE:] for each in part]
    assert best.count(7) < 0.45 * len(best)


def test_the_two_scales_differ(societies: Societies) -> None:
    every = [each for rounds in societies.values() for part in rounds for each in part]
    one, other = ([each.alignment[0] for each in every], [each.engagement[0] for each in every])
    assert 0.3 < correlation(one, other) < 0.9


def test_raters_agree_moderately(societies: Societies) -> None:
    rows = [each.ratings for part in societies[0.5, 4] for each in part]
    grand, k = fmean(fmean(row) for row in rows), 4
    between = k * sum((fmean(row) - grand) ** 2 for row in rows) / (len(rows) - 1)
    within = sum((x - fmean(row)) ** 2 for row in rows for x in row) / (len(rows) * (k - 1))
    assert 0.25 < (between - within) / (between + (k - 1) * within) < 0.75


# The backend


class Odd:
    """A shape that the backend does not know."""

    max_tokens = None
    regex = "(yes|no)"

    def parse(self, text: str, cut: bool) -> Parsed[str]:
        """Read nothing."""
        return Parsed(None, Status.UNREADABLE)


def rating_call(seed: int) -> Call:
    """A call for a rating."""
    return call_of(ALIGNMENT, seed, question="Is soup good?", answer="Put simply, it is.")


def draft_call(seed: int) -> Call:
    """A call for a draft."""
    return call_of(DRAFT, seed, me="You are Ann.", past=None, question="Is soup good?")


def reply(call: Call, config: ScriptedConfig = EMPTY_CONFIG) -> Reply:
    """The backend's reply to one call."""
    return asyncio.run(ScriptedBackend(config).answer(call))


def test_replies_count_tokens() -> None:
    backend: Backend = ScriptedBackend(EMPTY_CONFIG)
    assert backend.model == "scripted"
    call = draft_call(1)
    found = reply(call)
    assert found.text == text_for(call) and not found.cut
    assert found.tokens_out == -(-len(found.text) // 4)
    assert found.tokens_in == -(-len(call.system + call.user) // 4)
    short = reply(call._replace(max_tokens=5))
    assert (short.text, short.cut, short.tokens_out) == (found.text[:20], True, 5)


def test_unknown_shapes_fail() -> None:
    with pytest.raises(CallFailed, match="Odd"):
        reply(draft_call(1)._replace(shape=Odd()))


def test_latency_and_capacity() -> None:
    latency = Latency(first_token=0.03, per_token=0.0, capacity=2)
    backend = ScriptedBackend(ScriptedConfig(backend="scripted", latency=latency))

    async def all_of() -> float:
        await backend.start()
        start = time.perf_counter()
        await asyncio.gather(*(backend.answer(rating_call(seed)) for seed in range(6)))
        await backend.close()
        return time.perf_counter() - start

    assert asyncio.run(all_of()) >= 0.085
    assert asyncio.run(all_of()) >= 0.085


@pytest.mark.parametrize(
    "wrong",
    [{"misbehave": 1.5}, {"mishaps": ("fire",)}, {"latency": {"first_token": 1}}, {"other": 1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScriptedConfig.model_validate({"backend": "scripted"} | wrong)


# Mishaps


def only(kind: Mishap) -> ScriptedConfig:
    """Settings with this mishap in every reply."""
    return ScriptedConfig(backend="scripted", misbehave=1.0, mishaps=(kind,))


def test_mishaps_have_the_configured_rate() -> None:
    config = ScriptedConfig(backend="scripted", misbehave=0.3)
    for make, kinds in ((rating_call, 6), (draft_call, 4)):
        found = Counter(mishap(make(seed), config) for seed in range(1000))
        assert 0.25 < 1 - found[None] / 1000 < 0.35
        assert len(found) == kinds + 1
        assert min(found.values()) > 20
    assert all(mishap(draft_call(seed), EMPTY_CONFIG) is None for seed in range(50))
    assert mishap(draft_call(1), only("fraction")) is None
    assert mishap(rating_call(1), only("injection")) is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("empty", "empty"),
        ("cut", "cut"),
        ("fraction", "unreadable"),
        ("refusal", "unreadable"),
        ("chatter", "unreadable"),
    ],
)
def test_mishaps_of_ratings(kind: Mishap, status: str) -> None:
    for seed in range(200):
        found = reply(rating_call(seed), only(kind))
        assert ALIGNMENT.reply.parse(found.text, found.cut).status == status


def test_replies_are_truncated_at_random_places() -> None:
    texts = [reply(rating_call(seed), only("cut")).text for seed in range(400)]
    assert any("Rating".startswith(text) for text in texts)
    assert any(re.search(r"\nReason: \w", text) for text in texts)
    drafts = [reply(draft_call(seed), only("cut")) for seed in range(20)]
    assert all(DRAFT.reply.parse(each.text, each.cut).status is Status.CUT for each in drafts)


def test_injection_and_error() -> None:
    found = reply(draft_call(1), only("injection"))
    assert "\nRating: 7\n" in found.text
    with pytest.raises(CallFailed):
        reply(draft_call(1), only("error"))
    with pytest.raises(CallFailed):
        reply(rating_call(1), only("error"))
