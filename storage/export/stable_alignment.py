"""The format `stable-alignment`: rated responses for contrastive preference optimisation.

The three kinds of samples and their mix are those of Liu et al., "Training Socially Aligned
Language Models in Simulated Human Society" (arXiv 2305.16960); the wording is our own. Other than
in the authors' code, a rating that could not be read makes no sample, feedback stays with the peer
who gave it, and equal responses are removed only where they answer the same query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from math import gcd
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from storage.errors import InputError
from storage.exchanges import Exchange, GivenRating
from storage.export.folder import Source, Written, create_text, json_line

FILE = "stable_alignment.json"
LINEAGE = "stable_alignment_lineage.jsonl"
FILES = (FILE, LINEAGE)

IMITATION, SELF_CRITIC, REALIGNMENT = KINDS = ("imitation", "self_critic", "realignment")

Mix = tuple[int, int, int]
MIX: Mix = (5, 1, 1)
"""The authors' weights of imitation, self-critic and realignment."""

ABOUT = f"""\
Rated responses from a society of agents, for contrastive preference optimisation after Liu et al.,
"Training Socially Aligned Language Models in Simulated Human Society" (arXiv 2305.16960).
`{FILE}` is one JSON array of objects with `query` (a short Alpaca template), and under
`responses`, `scores` (1 to 7, higher is better) and `models` one entry a response. Line n of
`{LINEAGE}` tells where element n is from (`row` counts from 0): its kind, the
run, and for each response the episode, the author, the stage or the peer, and the observer's model.
`models` names what the author of a draft or a revision or the commenting peer spoke with.

- `imitation`: a question; all drafts and revisions that answer it, scored by the observer.
- `self_critic`: a question, a draft and a request to comment; one peer's comment, scored with the
  rating that this peer gave the draft.
- `realignment`: a question, a draft and a request to comment and revise; the peers' comments, the
  harshest last, and the revision, scored by the observer. Only where the revision scores higher
  than the draft and higher than 4.

What was not said or could not be read is nowhere in it. Of equal responses to one query the first
is kept, by episode, the draft before the revision, peers by number; equal responses to different
queries all stay. A kind is counted in elements of the array, and a removal in responses. Where
fewer rows are written than found, the mix left out the others, by chance and by the seed."""

COMMENT = (
    "Here is a question and what somebody answered. Comment on the answer: say how well it is "
    "aligned with what a good society would want, and what is right or wrong with it."
)
REVISE = (
    "Here is a question and what somebody answered. First comment on the answer, and end with "
    "what is worst about it. Then write the answer anew, and take up what is right in the comments."
)

NO_TEXT = "no such text"
NO_SCORE = "no readable alignment score"
NO_RATING = "no readable rating"
NO_REASON = "no comment"
NO_RISE = "alignment did not rise"
LOW = "alignment is 4 or less in the end"
REPEATED = "repeats a response to the same query"


class Response(NamedTuple):
    """A response with its score, 1 to 7, the model that spoke, and where it is from."""

    text: str
    score: int
    model: str
    origin: dict[str, Any]


class Candidate(NamedTuple):
    """What may become a response to a query: the response, or the rule that removes it."""

    kind: str
    query: str
    outcome: Response | str


class Sample(NamedTuple):
    """An element of the array."""

    kind: str
    query: str
    responses: tuple[Response, ...]


def template(instruction: str, text: str = "") -> str:
    """The short Alpaca template, without an input where there is none."""
    given = f"### Input:\n{text}\n\n" if text else ""
    return f"### Instruction:\n{instruction}\n\n{given}### Response:"


def write(
    source: Source, folder: Path, mix: Sequence[int] | None = MIX, seed: int | None = None
) -> Written:
    """Write the samples, and for each of them where it is from.

    Two passes: the first counts, the second writes what chance takes. Memory holds the responses
    to one question at a time.

    Args:
        source: the run.
        folder: where the files go.
        mix: weights of imitation, self-critic and realignment, in elements of the array. The
            largest mix in this ratio is drawn without replacement; a kind that the run does not
            hold is left out of it. None takes everything.
        seed: of that draw; the default is the run's seed.

    Raises:
        InputError: the mix is not three whole numbers, none negative, one at least positive.
        OSError: a file cannot be written.
    """
    weights = _weights(mix)
    removed: Counter[str] = Counter()
    found = Counter(sample.kind for sample in samples(source, removed))
    shares = _shares(found, weights)
    draw_seed = source.reader.run.seed if seed is None else seed
    count = _write(source, folder, drawn(samples(source, Counter()), found, shares, draw_seed))
    return Written(
        files=dict.fromkeys(FILES, count),
        found={kind: found[kind] for kind in KINDS},
        written=shares,
        removed=dict(sorted(removed.items())),
        notes=tuple(_notes(found, weights, count)),
    )


def _weights(mix: Sequence[int] | None) -> dict[str, int] | None:
    """The weight of each kind in lowest terms; None to take everything."""
    if mix is None:
        return None
    whole = all(isinstance(weight, int) and weight >= 0 for weight in mix)
    if len(mix) != len(KINDS) or not whole or not any(mix):
        raise InputError(f"mix: found {_ratio(mix)}; expected 3 whole numbers such as 5:1:1")
    return {kind: weight // gcd(*mix) for kind, weight in zip(KINDS, mix, strict=True)}


def _ratio(weights: Iterable[object]) -> str:
    return ":".join(map(str, weights))


def _shares(found: Mapping[str, int], weights: Mapping[str, int] | None) -> dict[str, int]:
    """How many rows of each kind make the largest mix."""
    if weights is None:
        return {kind: found[kind] for kind in KINDS}
    there = {kind: weights[kind] if found[kind] else 0 for kind in KINDS}
    times = min((found[kind] // weight for kind, weight in there.items() if weight), default=0)
    return {kind: times * weight for kind, weight in there.items()}


def _notes(
    found: Mapping[str, int], weights: Mapping[str, int] | None, count: int
) -> Iterator[str]:
    wanted = weights or dict.fromkeys(KINDS, 1)
    for kind, weight in wanted.items():
        if not weight:
            yield f"{kind}: left out by the mix {_ratio(wanted.values())}"
        elif not found[kind]:
            yield f"{kind}: the run has no row of this kind; the export goes without it"
    scarce = [kind for kind, weight in wanted.items() if weight and found[kind]]
    if weights and 0 < count < sum(found.values()) / 2 and scarce:
        least = min(scarce, key=lambda kind: found[kind] // wanted[kind])
        yield (
            f"the mix {_ratio(wanted.values())} is limited by {found[least]} rows of {least} (one "
            "row of imitation holds all responses to a question); `all` takes every row"
        )
    if count:
        return
    yield _why_nothing(found, wanted)


def _why_nothing(found: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    for kind, weight in wanted.items():
        if 0 < found[kind] < weight:
            mix = _ratio(wanted.values())
            return (
                f"nothing is left: the mix {mix} needs at least {weight} rows of {kind}, and the "
                f"run has {found[kind]}"
            )
    return "nothing is left: no exchange has what a row needs; the removals tell what is missing"


def drawn(
    rows: Iterable[Sample], found: Mapping[str, int], shares: Mapping[str, int], seed: int
) -> Iterator[Sample]:
    """Draw the given number of each kind without replacement, in the order of the rows.

    Selection sampling (Knuth, The Art of Computer Programming, vol. 2, algorithm 3.4.2 S): a row
    is taken with the chance (still wanted) / (still to come), which needs no list of rows.
    """
    chances = {kind: Random(f"{seed}/{kind}") for kind in KINDS}
    to_come, wanted = dict(found), dict(shares)
    for row in rows:
        if chances[row.kind].random() * to_come[row.kind] < wanted[row.kind]:
            wanted[row.kind] -= 1
            yield row
        to_come[row.kind] -= 1


def _write(source: Source, folder: Path, rows: Iterable[Sample]) -> int:
    """Write the array and its lineage; returns the number of elements."""
    count = 0
    with create_text(folder / FILE) as file, create_text(folder / LINEAGE) as lineage:
        file.write("[")
        for row in rows:
            file.write(",\n" if count else "\n")
            file.write(json_line(_element(row)))
            lineage.write(json_line(_lineage(source, row, count)) + "\n")
            count += 1
        file.write("\n]\n")
    return count


def _element(row: Sample) -> dict[str, Any]:
    return {
        "query": row.query,
        "responses": [response.text for response in row.responses],
        "scores": [response.score for response in row.responses],
        "models": [response.model for response in row.responses],
    }


def _lineage(source: Source, row: Sample, number: int) -> dict[str, Any]:
    run = source.reader.run
    where = {"run": run.name, "digest": run.digest}
    origins = [{**where, **response.origin} for response in row.responses]
    return {"row": number, "kind": row.kind, "responses": origins}


def samples(source: Source, removed: Counter[str]) -> Iterator[Sample]:
    """All samples of a run, question by question; counts in `removed` what each rule removes."""
    for question, group in groupby(source.exchanges("question"), key=lambda one: one.question):
        rated: list[Response] = []
        candidates = (candidate for exchange in group for candidate in _candidates(exchange))
        for kind, query, response in _sifted(candidates, removed):
            if kind == IMITATION:
                rated.append(response)
            else:
                yield Sample(kind, query, (response,))
        if rated:
            yield Sample(IMITATION, template(question), tuple(rated))


def _sifted(
    candidates: Iterable[Candidate], removed: Counter[str]
) -> Iterator[tuple[str, str, Response]]:
    """The responses about one question that no rule removes, and of equal ones the first."""
    seen: set[bytes] = set()
    for kind, query, outcome in candidates:
        if isinstance(outcome, str):
            removed[f"{kind}: {outcome}"] += 1
            continue
        mark = blake2b(f"{query}\0{outcome.text}".encode(), digest_size=16).digest()
        if mark in seen:
            removed[f"{kind}: {REPEATED}"] += 1
            continue
        seen.add(mark)
        yield kind, query, outcome


def _candidates(exchange: Exchange) -> Iterator[Candidate]:
    asked = template(exchange.question)
    yield Candidate(IMITATION, asked, _imitated(exchange, "draft", exchange.draft))
    yield Candidate(IMITATION, asked, _imitated(exchange, "revision", exchange.revision))
    given = f"Question: {exchange.question}\n\nAnswer: {exchange.draft or ''}"
    for rating in exchange.ratings:
        yield Candidate(SELF_CRITIC, template(COMMENT, given), _comment(exchange, rating))
    yield Candidate(REALIGNMENT, template(REVISE, given), _realigned(exchange))


def _origin(exchange: Exchange, **what: Any) -> dict[str, Any]:
    return {"episode": exchange.episode, "author": exchange.author, **what}


def _imitated(exchange: Exchange, stage: str, text: str | None) -> Response | str:
    seen = exchange.observation(stage, "alignment")
    if text is None:
        return NO_TEXT
    if seen is None or seen.rating is None:
        return NO_SCORE
    origin = _origin(exchange, stage=stage, scored_by=seen.model)
    return Response(text, seen.rating, exchange.model, origin)


def _comment(exchange: Exchange, given: GivenRating) -> Response | str:
    if exchange.draft is None:
        return NO_TEXT
    if given.rating is None:
        return NO_RATING
    if given.reason is None:
        return NO_REASON
    origin = _origin(exchange, rater=given.rater)
    return Response(given.reason, given.rating, given.model, origin)


def _realigned(exchange: Exchange) -> Response | str:
    before, after = (exchange.score(stage, "alignment") for stage in ("draft", "revision"))
    if exchange.draft is None or exchange.revision is None:
        return NO_TEXT
    if before is None or after is None:
        return NO_SCORE
    if after <= before:
        return NO_RISE
    if after <= 4:
        return LOW
    comments = harshest_last(exchange.ratings)
    if not comments:
        return NO_REASON
    listed = "\n".join(f"- {given.reason}" for given in comments)
    text = f"{listed}\n\nRevised answer: {exchange.revision}"
    origin = _origin(
        exchange,
        stage="revision",
        raters=[given.rater for given in comments],
        rater_models=[given.model for given in comments],
        scored_by=exchange.observations[0].model,
    )
    return Response(text, after, exchange.model, origin)


def harshest_last(ratings: Iterable[GivenRating]) -> list[GivenRating]:
    """The ratings that can be read and have a reason, kindest first, equal ones as they come."""
    whole = [given for given in ratings if given.rating is not None and given.reason is not None]
    return sorted(whole, key=lambda given: -(given.rating or 0))
