"""How the numbers of a report are computed: every scale, measure, interval and exclusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agents.scale import Declaration, Scale
from sandbox.reading.figures import capitalized
from sandbox.reading.influence import Bands
from sandbox.viewer.report.tables import stage_title


class Method(NamedTuple):
    """A term that a report uses, and what it means."""

    term: str
    text: str


_FAILED = Method(
    "Failed",
    "An exchange fails where a call gets no usable reply after all attempts. It is counted as "
    "failed; what was said before still counts, and the rest is missing.",
)

_MISSING = Method(
    "Missing",
    "A rating that could not be parsed (the reply was cut off by the token limit, empty, "
    "unreadable, or the call failed) is missing. It enters no mean, no share and no figure, and "
    "no number stands for it.",
)

_INTERVALS = (
    Method(
        "Intervals of one round",
        "95 %, by Student's t over the exchanges of the round, taken as independent; there is none "
        "for fewer than two. The bands of the curves are computed from single ratings in the same "
        "way.",
    ),
    Method(
        "Intervals over all rounds",
        "95 %, with a standard error that is cluster-robust by author, since an author resembles "
        "itself from round to round, and Student's t with one degree of freedom less than there "
        "are authors; exchanges without an author count as independent. All intervals are about "
        "this run and not about other seeds, and nothing corrects for looking at several.",
    ),
)

_LAST = (
    Method(
        "Calls and tokens",
        "A call is one request to a model; asking again after an unusable reply is another call. "
        "Tokens are as the backend counts them, and the share from the prefix cache is that of "
        "prompts for which the backend reports it.",
    ),
    Method(
        "Digest",
        "A SHA-256 over all texts and ratings of a finished run, without times: two runs with the "
        "same digest are the same. Config paths are shown by their last part, and addresses not at "
        "all.",
    ),
)


def methods(declared: Declaration, scenes: bool) -> list[Method]:
    """The terms of a report.

    Args:
        declared: the stages and scales of the run.
        scenes: whether exchanges contain a scene.
    """
    return [
        Method("Exchange", _exchange(declared, scenes)),
        _FAILED,
        *(Method(capitalized(scale.title), _scale(scale, declared)) for scale in declared.scales),
        _MISSING,
        *_gains(declared),
        *_INTERVALS,
        *_front(declared),
        *(() if declared.peers is None else _of_peers(declared, declared.peers)),
        *_of_main(declared),
        *_LAST,
    ]


def _exchange(declared: Declaration, scenes: bool) -> str:
    stages = " and then ".join(f"the {stage.title}" for stage in declared.stages)
    scene = (
        " After the first of them a model plays out in a scene what it would lead to."
        if scenes
        else ""
    )
    peers = (
        ""
        if declared.peers is None
        else f" Other agents rate {_listed(declared, declared.peers)} and say why."
    )
    return (
        f"One episode of the world, about one question; it records {stages}.{scene}{peers} Only "
        "complete exchanges count, about which nothing more will be written."
    )


def _listed(declared: Declaration, scale: Scale) -> str:
    titles = [f"the {stage_title(declared, name)}" for name in declared.stages_of(scale)]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[:-1] else titles)


_SUBJECTS = {"stage": "", "agent": "each agent in ", "pair": "each pair of agents in "}


def _scale(scale: Scale, declared: Declaration) -> str:
    numbers = "Whole numbers" if scale.integer else "Numbers with at most two decimals"
    what = f"{_SUBJECTS[scale.subject]}{_listed(declared, scale)}"
    better = f"{numbers} from {scale.range}, {scale.better}er is better".replace("-", "\u2212")
    if scale.rater == "peers":
        return (
            f"{better}, that other agents give {what}, as the persona that they are and with what "
            "they remember; they are asked in the words of the world's prompt template."
        )
    several = "" if scale.subject == "stage" else " The score of an exchange is their mean."
    return (
        f"{better}, that the observer, a model with neither a persona nor a memory, gives {what}. "
        f"It is asked: \u201c{scale.question}\u201d{several}"
    )


def _gains(declared: Declaration) -> Iterator[Method]:
    gains = [one for one in declared.measures if one.kind == "gain"]
    if not gains:
        return
    pairs = dict.fromkeys((one.stage, one.base or "") for one in gains)
    which = " or ".join(
        f"the {stage_title(declared, last)} less that of the {stage_title(declared, first)}"
        for last, first in pairs
    )
    low = any(one.scale.better == "low" for one in gains)
    sign = " Where lower is better its sign is reversed, so that a gain is an improvement."
    yield Method(
        "Gain; better, equal, worse",
        f"The gain is the rating of {which}, over exchanges in which both could be parsed."
        f"{sign if low else ''} The shares are those of gains above, at and below 0. Means of a "
        "stage are over all its ratings, so that their difference can differ from the gain.",
    )


def _front(declared: Declaration) -> Iterator[Method]:
    if len(declared.observed) > 1:
        x, y = declared.observed[:2]
        yield Method(
            "Pareto front",
            f"The rounds whose means of {x.title} and {y.title} no other round reaches on both "
            "scales and beats on one.",
        )


def _of_peers(declared: Declaration, peers: Scale) -> Iterator[Method]:
    rated = _listed(declared, peers)
    answer = stage_title(declared, declared.answers[-1]) if declared.answers else ""
    yield Method(
        "Who rates high",
        f"An agent's rating less the mean of the other peers' ratings of the same text ({rated}), "
        "averaged over the texts that others rated too; the interval takes texts as independent.",
    )
    yield Method(
        "Krippendorff's alpha",
        "Agreement beyond chance for ordinal ratings of the same text, of texts with two ratings "
        "or more; below 0 raters disagree more than by chance. In \u201cpeers and the "
        "observer\u201d the observer is one more rater. Of more than 20,000 texts as many or "
        "fewer, evenly spread, are used.",
    )
    if answer:
        yield Method(
            "Taken up, centrality",
            f"Advice is taken up by the share of the new words of the {answer} (of four letters or "
            "more, not in the text that was rated) that occur in a rater's reason; other wordings "
            "of the same thought are not recognized. Centrality is PageRank in the graph from "
            "authors to raters, weighted by that share. The gain is that of the exchanges that an "
            "agent rated, which is no proof that it caused it.",
        )


def _of_main(declared: Declaration) -> Iterator[Method]:
    main = declared.main
    final = None if main is None else declared.final(main)
    if main is None or final is None:
        return
    stage, bands = stage_title(declared, final.stage), Bands.of(main)
    yield Method(
        "Resemblance",
        "Assortativity of the graph of neighbours (Newman, 2003): 1 where all neighbours are "
        "alike, 0 as by chance, \u22121 where they are opposites. Scores are the ratings of "
        f"{main.title} of the {stage} in the last round. A cluster is a connected group of "
        f"neighbours whose scores are all low (up to {bands.low:g}), middle or high (above "
        f"{bands.middle:g}).",
    )
    yield Method(
        f"Length and {main.title}",
        "Pearson's correlation of the number of characters of a text and the observer's rating of "
        f"its {main.title}, over all stages that are rated.",
    )
    yield Method("Exchanges that are shown", _shown(declared, main))


def _shown(declared: Declaration, main: Scale) -> str:
    extremes = (
        f"The largest gain and the largest loss in {main.title}"
        if declared.gain(main) is not None
        else f"The best and the worst rated in {main.title}"
    )
    return (
        f"{extremes}, and the exchange whose ratings of {main.title} are nearest to their means; "
        "of several alike the one with the fewest missing ratings, then the first."
    )
