"""The format `stable-alignment`: rated responses for contrastive preference optimisation.

The three kinds of samples and their mix are those of Liu et al., "Training Socially Aligned
Language Models in Simulated Human Society" (arXiv 2305.16960); the prompts are our own. Unlike in
the authors' code, an unparseable rating gives no sample, feedback is attributed to its rater, and
equal responses are removed only if they answer the same query.

The paper's scores run from 1 to 7, and its loss takes higher ones as better. Ratings on another
scale are mapped to that range linearly, the better end to 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.scale import Declaration, Scale, plain_number
from sandbox.datasets.answers import (
    NO_RATING,
    RATED_BY,
    answer,
    needs_answers,
    needs_ratings,
    no_rating,
    no_text,
    peer_stage,
)
from sandbox.datasets.choices import Choices
from sandbox.datasets.format import TOO_LONG, Columns, Format, Removed, Row, Settings
from sandbox.datasets.near_duplicates import NEAR, NearDuplicates
from sandbox.datasets.sampling import PER_QUESTION
from sandbox.datasets.schema import Schema, goodness, worst_end
from sandbox.datasets.source import SourcedExchange
from storage.exchanges import GivenRating

LOWEST, HIGHEST = 1, 7
"""The range of the paper's scores."""

MIDDLE = (LOWEST + HIGHEST) / 2
"""The score that a revision has to exceed for realignment."""

IMITATION, SELF_CRITIC, REALIGNMENT = KINDS = ("imitation", "self_critic", "realignment")

MIX = (5, 1, 1)
"""The authors' weights of imitation, self-critic and realignment."""

COMMENT = (
    "Here is a question and what somebody answered. Comment on the answer: say how well it is "
    "aligned with what a good society would want, and what is right or wrong with it."
)
REVISE = (
    "Here is a question and what somebody answered. First comment on the answer, and end with "
    "what is worst about it. Then write the answer anew, and take up what is right in the comments."
)

NO_REASON = "no comment"

_FEW = 2  # a draft and its revision


class Response(NamedTuple):
    """A response with its score from 1 to 7, the name of its model, and its lineage."""

    sourced: SourcedExchange
    text: str
    score: float
    model: str
    origin: dict[str, Any]


def needs(declaration: Declaration, choices: Choices) -> str | None:
    """What a run lacks of two rated answers, before and after the comments; None if it has them."""
    return needs_answers(2, declaration) or needs_ratings(declaration, choices)


def score(rating: float, scale: Scale) -> float:
    """Map a rating to the paper's range: the worse end of its scale to 1, the better one to 7."""
    share = (goodness(rating, scale) - goodness(worst_end(scale), scale)) / (scale.high - scale.low)
    mapped = round(LOWEST + share * (HIGHEST - LOWEST), 4)
    return int(mapped) if mapped == int(mapped) else mapped


def template(instruction: str, text: str = "") -> str:
    """The short Alpaca template; without text it has no input section."""
    given = f"### Input:\n{text}\n\n" if text else ""
    return f"### Instruction:\n{instruction}\n\n{given}### Response:"


def rows(same_question: Sequence[SourcedExchange], settings: Settings) -> Iterator[Row | Removed]:
    """Yield the samples about one question: a row for each query, with all its responses.

    They are from all agents, rounds and runs. The loss compares the responses to one query, so the
    score of a response that is alone in its row is never used. Repeated responses to the same query
    are removed, then those that are too long; `max_per_question` bounds the responses in a row.
    """
    near: dict[str, NearDuplicates] = {}
    grouped: dict[tuple[str, str], list[Response]] = {}
    for sourced in same_question:
        for kind, query, name, outcome in _candidates(sourced, settings):
            if isinstance(outcome, str):
                yield Removed(kind, outcome, name)
                continue
            known = near.setdefault(query, NearDuplicates(settings.choices.near))
            if known.add(outcome.text).any:
                yield Removed(kind, NEAR, name)
            else:
                grouped.setdefault((kind, query), []).append(outcome)
    for (kind, query), responses in grouped.items():
        yield from _bounded(kind, query, responses, settings)


def _bounded(
    kind: str, query: str, responses: Sequence[Response], settings: Settings
) -> Iterator[Row | Removed]:
    """Yield the responses to a query that are too long or too many, and the row of the others."""
    long = settings.too_long(query, [response.text for response in responses])
    fitting = [place for place, too_long in enumerate(long) if not too_long]
    limit = settings.choices.max_per_question or len(fitting)
    random = Random(f"{settings.choices.seed}/{query}")
    taken = {
        fitting[place]
        for place in spread([responses[place].score for place in fitting], limit, random)
    }
    for place, response in enumerate(responses):
        if place not in taken:
            rule = TOO_LONG if long[place] else PER_QUESTION
            yield Removed(kind, rule, response.origin["id"])
    if taken:
        yield _row(kind, query, [responses[place] for place in sorted(taken)], settings.rated_on)


def spread(scores: Sequence[float], count: int, random: Random) -> set[int]:
    """Choose the places of `count` scores, evenly from the best to the worst.

    The best and the worst are among them (of one alone, the best), and the others are spread as all
    scores are; equal scores are drawn at random. If there are no more than `count`, all are chosen.
    """
    draws = [random.random() for _ in scores]
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], draws[place]))
    if len(ranked) <= count:
        return set(ranked)
    steps = max(1, count - 1)
    return {ranked[number * (len(ranked) - 1) // steps] for number in range(count)}


def _row(kind: str, query: str, responses: Sequence[Response], scale: Scale) -> Row:
    """A row; its margin is on the scale of the rating that counts."""
    width = scale.high - scale.low
    sourced, scores = responses[0].sourced, [response.score for response in responses]
    margin = (max(scores) - min(scores)) * width / (HIGHEST - LOWEST)
    return Row(
        kind=kind,
        id=responses[0].origin["id"],
        sourced=sourced,
        question=sourced.question,
        data={
            "query": query,
            "responses": [response.text for response in responses],
            "scores": scores,
            "models": [response.model for response in responses],
        },
        prompt=query,
        answers=tuple(response.text for response in responses),
        rating=max(scores),
        margin=margin if len(scores) > 1 else None,
        size=len(responses),
        lineage={"kind": kind, "responses": [response.origin for response in responses]},
    )


def _candidates(
    sourced: SourcedExchange, settings: Settings
) -> Iterator[tuple[str, str, str, Response | str]]:
    """Yield candidates: kind, query, id, and the response or the rule that removes it."""
    exchange, declaration = sourced.exchange, sourced.origin.declaration
    stages = declaration.answers
    for stage in stages:
        query = template(exchange.question)
        yield IMITATION, query, sourced.id(stage), _imitated(sourced, stage, settings)
    rated = peer_stage(declaration)
    if declaration.peers is not None and rated in stages:
        query = template(COMMENT, _shown(sourced, rated))
        for given in exchange.ratings:
            name = sourced.id(rated, "peer", given.rater)
            comment = _comment(sourced, name, rated, given, declaration.peers)
            yield SELF_CRITIC, query, name, comment
    first, last = stages[0], stages[-1]
    name = sourced.id(last, "realigned")
    query = template(REVISE, _shown(sourced, first))
    yield REALIGNMENT, query, name, _realigned(sourced, name, first, last, settings)


def _shown(sourced: SourcedExchange, stage: str) -> str:
    """The question with the answer of a stage, as part of a query."""
    exchange = sourced.exchange
    return f"Question: {exchange.question}\n\nAnswer: {exchange.texts.get(stage) or ''}"


def _origin(sourced: SourcedExchange, name: str, **more: Any) -> dict[str, Any]:
    run, exchange = sourced.origin.reader.run, sourced.exchange
    return {
        "id": name,
        "run": run.name,
        "digest": run.digest,
        "episode": exchange.episode,
        "round": exchange.round,
        "author": exchange.author,
        "policy": sourced.origin.policy,
        **more,
    }


def _imitated(sourced: SourcedExchange, stage: str, settings: Settings) -> Response | str:
    found = answer(sourced, stage, settings)
    if isinstance(found, str):
        return found
    origin = _origin(sourced, found.id, stage=stage, scored_by=found.rated_by)
    scored = score(found.score, settings.rated_on)
    return Response(sourced, found.text, scored, sourced.exchange.model, origin)


def _comment(
    sourced: SourcedExchange, name: str, stage: str, given: GivenRating, peers: Scale
) -> Response | str:
    if sourced.exchange.texts.get(stage) is None:
        return no_text(sourced, stage)
    if given.rating is None:
        return no_rating([given])
    if given.reason is None:
        return NO_REASON
    origin = _origin(sourced, name, stage=stage, rater=given.rater)
    return Response(sourced, given.reason, score(given.rating, peers), given.model, origin)


def _realigned(
    sourced: SourcedExchange, name: str, first: str, last: str, settings: Settings
) -> Response | str:
    exchange = sourced.exchange
    scale = settings.schema.scale(str(settings.choices.scale))
    missing = next((stage for stage in (first, last) if exchange.texts.get(stage) is None), None)
    if missing is not None:
        return no_text(sourced, missing)
    if scale is None:
        return NO_RATING
    before, after = (exchange.score(stage, scale.name) for stage in (first, last))
    if before is None or after is None:
        return no_rating(exchange.observations)
    if goodness(after, scale) <= goodness(before, scale):
        return f"{scale.name} did not {'rise' if scale.better == 'high' else 'fall'}"
    scored = score(after, scale)
    if scored <= MIDDLE:
        middle, side = (scale.low + scale.high) / 2, "less" if scale.better == "high" else "more"
        return f"{scale.name} is {plain_number(middle)} or {side} in the end"
    comments = harshest_last(exchange.ratings, sourced.origin.declaration.peers)
    return _revised(sourced, name, last, comments, scored) if comments else NO_REASON


def _revised(
    sourced: SourcedExchange, name: str, stage: str, comments: Sequence[GivenRating], scored: float
) -> Response:
    """The peers' comments, then the revised answer."""
    exchange = sourced.exchange
    listed = "\n".join(f"- {given.reason}" for given in comments)
    origin = _origin(
        sourced,
        name,
        stage=stage,
        raters=[given.rater for given in comments],
        rater_models=[given.model for given in comments],
        scored_by=exchange.observations[0].model,
    )
    text = f"{listed}\n\nRevised answer: {exchange.texts[stage]}"
    return Response(sourced, text, scored, exchange.model, origin)


def harshest_last(ratings: Iterable[GivenRating], peers: Scale | None) -> list[GivenRating]:
    """The parsed ratings with a reason, best first; ties in their order."""
    usable = [given for given in ratings if given.rating is not None and given.reason is not None]
    if peers is None:
        return usable
    return sorted(usable, key=lambda given: -goodness(given.rating or 0, peers))


def columns(schema: Schema) -> Columns:
    """The columns, the same for all runs."""
    return {
        "query": "string",
        "responses": ["string"],
        "scores": ["float64"],
        "models": ["string"],
    }


def advice(figures: Mapping[str, npt.NDArray[Any]]) -> Iterator[str]:
    """Warn if most questions have one draft and one revision only, so that the loss compares two.

    Args:
        figures: the numeric columns of the rows that are written.
    """
    sizes = figures["size"][figures["kind"] == KINDS.index(IMITATION)]
    if len(sizes) and float(np.median(sizes)) <= _FEW:
        yield (
            f"most {IMITATION} rows hold {_FEW} responses or fewer, for most questions were asked "
            "once; more come from a smaller question_count, more rounds, or several runs with the "
            "same questions"
        )


STABLE_ALIGNMENT = Format(
    name="stable-alignment",
    about=(
        "Rated responses for contrastive preference optimisation: one JSON array of objects with "
        "`query` (a short Alpaca template), and under `responses`, `scores` and `models` an entry "
        "for each response. Scores run from 1 to 7, higher is better; ratings on another scale are "
        "mapped to that range linearly, the better end to 7. Line n of the lineage file is the "
        "lineage of element n. `imitation`: a question, and all its rated answers. `self_critic`: "
        "a question, the answer that peers rate and a request to comment; the peers' comments, "
        "each scored with the rating that this peer gave. `realignment`: a question, the first "
        "answer and a request to comment and revise; the peers' comments, the harshest last, and "
        "the last answer, only where the observer rates it better than the first one and better "
        "than the middle of the scale (4 on 1 to 7). Responses to the same query form one row, "
        "since the loss compares them: those of all agents, rounds and runs. Of equal responses to "
        "one query the first is kept; equal responses to different queries all stay. "
        "`max_per_question` limits the responses in a row: they are taken evenly from the best to "
        "the worst rated, both included."
    ),
    kinds=KINDS,
    columns=columns,
    rows=rows,
    needs=needs,
    uses=RATED_BY | {"mix"},
    own=frozenset({"max_per_question"}),
    defaults={"mix": MIX, "near_duplicates": 1.0},
    array=True,
    counts="responses",
    advice=advice,
)
