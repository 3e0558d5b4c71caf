"""The format `stable-alignment`: rated responses for contrastive preference optimisation.

The three kinds of samples and their mix are those of Liu et al., "Training Socially Aligned
Language Models in Simulated Human Society" (arXiv 2305.16960); the wording is our own. Other than
in the authors' code, a rating that could not be read makes no sample, feedback stays with the peer
who gave it, and equal responses are removed only where they answer the same query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sandbox.datasets.answers import NO_RATING, NO_TEXT, RATED_BY, STAGES, answer
from sandbox.datasets.choices import Choices
from sandbox.datasets.near import NEAR, Near
from sandbox.datasets.rows import Format, Removed, Row
from sandbox.datasets.source import Told
from storage.exchanges import GivenRating

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
NO_RISE = "alignment did not rise"
LOW = "alignment is 4 or less in the end"


class Response(NamedTuple):
    """A response with its score, 1 to 7, the model that spoke, and where it is from."""

    told: Told
    text: str
    score: float
    model: str
    origin: dict[str, Any]


def template(instruction: str, text: str = "") -> str:
    """The short Alpaca template, without an input where there is none."""
    given = f"### Input:\n{text}\n\n" if text else ""
    return f"### Instruction:\n{instruction}\n\n{given}### Response:"


def rows(about: Sequence[Told], choices: Choices) -> Iterator[Row | Removed]:
    """The samples about one question; what repeats a response to the same query is left out."""
    heard: dict[str, Near] = {}
    rated: list[Response] = []
    for told in about:
        for kind, query, made, outcome in _candidates(told, choices):
            if isinstance(outcome, str):
                yield Removed(kind, outcome, made)
            elif heard.setdefault(query, Near(choices.near)).add(outcome.text).any:
                yield Removed(kind, NEAR, made)
            elif kind == IMITATION:
                rated.append(outcome)
            else:
                yield _row(kind, query, [outcome])
    if rated:
        yield _row(IMITATION, template(about[0].exchange.question), rated)


def _row(kind: str, query: str, responses: Sequence[Response]) -> Row:
    told, scores = responses[0].told, [one.score for one in responses]
    return Row(
        kind=kind,
        id=responses[0].origin["id"],
        told=told,
        question=told.question,
        data={
            "query": query,
            "responses": [one.text for one in responses],
            "scores": [int(score) if score == int(score) else score for score in scores],
            "models": [one.model for one in responses],
        },
        prompt=query,
        answers=tuple(one.text for one in responses),
        rating=max(scores),
        margin=max(scores) - min(scores) if len(scores) > 1 else None,
        size=len(responses),
        lineage={"kind": kind, "responses": [one.origin for one in responses]},
    )


def _candidates(told: Told, choices: Choices) -> Iterator[tuple[str, str, str, Response | str]]:
    """What may become a response: its kind, query and id, and the rule that removes it if any."""
    one, asked = told.exchange, template(told.exchange.question)
    for stage in STAGES:
        yield IMITATION, asked, told.id(stage), _imitated(told, stage, choices)
    given = f"Question: {one.question}\n\nAnswer: {one.draft or ''}"
    for rating in one.ratings:
        made = told.id("draft", "peer", rating.rater)
        yield SELF_CRITIC, template(COMMENT, given), made, _comment(told, made, rating)
    made = told.id("revision", "realigned")
    yield REALIGNMENT, template(REVISE, given), made, _realigned(told, made)


def _origin(told: Told, made: str, **what: Any) -> dict[str, Any]:
    run, one = told.origin.reader.run, told.exchange
    where = {"id": made, "run": run.name, "digest": run.digest}
    return {**where, "episode": one.episode, "round": one.round, "author": one.author, **what}


def _imitated(told: Told, stage: str, choices: Choices) -> Response | str:
    found = answer(told, stage, choices)
    if isinstance(found, str):
        return found
    origin = _origin(told, found.id, stage=stage, scored_by=found.rated_by)
    return Response(told, found.text, found.score, told.exchange.model, origin)


def _comment(told: Told, made: str, given: GivenRating) -> Response | str:
    if told.exchange.draft is None:
        return NO_TEXT
    if given.rating is None:
        return NO_RATING
    if given.reason is None:
        return NO_REASON
    origin = _origin(told, made, stage="draft", rater=given.rater)
    return Response(told, given.reason, given.rating, given.model, origin)


def _realigned(told: Told, made: str) -> Response | str:
    one = told.exchange
    before, after = (one.score(stage, "alignment") for stage in STAGES)
    if one.draft is None or one.revision is None:
        return NO_TEXT
    if before is None or after is None:
        return NO_RATING
    if after <= before:
        return NO_RISE
    if after <= 4:
        return LOW
    comments = harshest_last(one.ratings)
    return _revised(told, made, comments, after) if comments else NO_REASON


def _revised(told: Told, made: str, comments: Sequence[GivenRating], score: int) -> Response:
    """What the peers say, and the revision."""
    one = told.exchange
    listed = "\n".join(f"- {given.reason}" for given in comments)
    origin = _origin(
        told,
        made,
        stage="revision",
        raters=[given.rater for given in comments],
        rater_models=[given.model for given in comments],
        scored_by=one.observations[0].model,
    )
    text = f"{listed}\n\nRevised answer: {one.revision}"
    return Response(told, text, score, one.model, origin)


def harshest_last(ratings: Iterable[GivenRating]) -> list[GivenRating]:
    """The ratings that can be read and have a reason, kindest first, equal ones as they come."""
    whole = [given for given in ratings if given.rating is not None and given.reason is not None]
    return sorted(whole, key=lambda given: -(given.rating or 0))


STABLE_ALIGNMENT = Format(
    name="stable-alignment",
    about=(
        "Rated responses for contrastive preference optimisation: one JSON array of objects with "
        "`query` (a short Alpaca template), and under `responses`, `scores` (1 to 7, higher is "
        "better) and `models` one entry a response. Line n of the file of lineage tells where "
        "element n is from. `imitation`: a question, and all drafts and revisions that answer it. "
        "`self_critic`: a question, a draft and a request to comment; one peer's comment, scored "
        "with the rating that this peer gave. `realignment`: a question, a draft and a request to "
        "comment and revise; the peers' comments, the harshest last, and the revision, only where "
        "the observer scores it higher than the draft and higher than 4. Of equal responses to "
        "one query the first is kept; equal responses to different queries all stay."
    ),
    kinds=KINDS,
    columns={
        "query": "string",
        "responses": ["string"],
        "scores": ["float64"],
        "models": ["string"],
    },
    rows=rows,
    uses=RATED_BY | {"mix"},
    defaults={"mix": MIX, "near_duplicates": 1.0},
    array=True,
    counts="responses",
)
