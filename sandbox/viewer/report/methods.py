"""The methods section of a report: how every number is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agents.scale import Declaration, Scale, plain_number
from sandbox.reading.figures import capitalized
from sandbox.reading.influence import Bands
from sandbox.reading.neighbours import SHUFFLES
from sandbox.viewer.report.tables import stage_title


class Method(NamedTuple):
    """A term that a report uses, and what it means."""

    term: str
    text: str


_FAILED = Method(
    "Failed",
    "An exchange fails if a call has no usable reply after all attempts. It is counted as "
    "failed; the texts and ratings recorded before the failure count, the others are missing.",
)

_MISSING = Method(
    "Missing",
    "A rating is missing if the reply was truncated by the token limit (cut), empty or unparseable "
    "(unreadable), or if the call failed. Missing ratings are excluded from all means, shares and "
    "figures; they are never imputed.",
)

_INTERVALS = (
    Method(
        "Intervals of one round",
        "95 %, by Student's t over the exchanges of the round, treated as independent; not defined "
        "for fewer than two. The bands of the curves are computed in the same way from "
        "individual ratings.",
    ),
    Method(
        "Intervals over all rounds",
        "95 %, with standard errors clustered by author, because the exchanges of one author are "
        "correlated, and Student's t with one degree of freedom less than there are authors; "
        "exchanges without an author are treated as independent. Intervals describe this run, not "
        "the variation between seeds, and are not corrected for multiple comparisons.",
    ),
)

_LAST = (
    Method(
        "Calls and tokens",
        "A call is one request to a model; a retry after an unusable reply is another call. Tokens "
        "are counted by the backend. The share from the prefix cache is computed over the prompts "
        "for which the backend reports it.",
    ),
    Method(
        "Digest",
        "A SHA-256 over all texts and ratings of a finished run, without times: two runs with the "
        "same digest are identical. Paths in the config are reduced to their last component, and "
        "URLs are removed.",
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
        " After the first stage, a model simulates its consequences in a scene." if scenes else ""
    )
    peers = (
        ""
        if declared.peers is None
        else f" Other agents rate {_listed(declared, declared.peers)} and give reasons."
    )
    return (
        f"One episode of the world, about one question; it records {stages}.{scene}{peers} Only "
        "complete exchanges are counted; an exchange in progress is not."
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
            f"{better}, given to {what} by other agents, with persona and memory in the prompt; "
            "the question is part of the world's prompt template."
        )
    if scale.rater == "author":
        return (
            f"{better}, given to {what} by the user whose conversation it is, without knowing "
            "which stage is shown; the question is part of the world's prompt template."
        )
    several = (
        ""
        if scale.subject == "stage"
        else " The score of an exchange is the mean of these ratings."
    )
    return (
        f"{better}, given to {what} by the observer, a model without persona or memory. "
        f"Question: \u201c{scale.question}\u201d{several}"
    )


def _gains(declared: Declaration) -> Iterator[Method]:
    gains = [one for one in declared.measures if one.kind == "gain"]
    if not gains:
        return
    pairs = dict.fromkeys((one.stage, one.base or "") for one in gains)
    which = " or ".join(
        f"the {stage_title(declared, last)} minus that of the {stage_title(declared, first)}"
        for last, first in pairs
    )
    low = any(one.scale.better == "low" for one in gains)
    sign = " If lower is better, the sign is reversed, so that a positive gain is an improvement."
    yield Method(
        "Gain; better, equal, worse",
        f"The gain is the rating of {which}, over exchanges in which both were parsed."
        f"{sign if low else ''} The shares are those of gains above, equal to and below 0. The "
        "mean of a stage is over all its ratings, so the difference of two means can differ from "
        "the mean gain.",
    )


def _front(declared: Declaration) -> Iterator[Method]:
    if len(declared.observed) > 1:
        x, y = declared.observed[:2]
        yield Method(
            "Pareto front",
            f"The rounds that no other round dominates: none has means of {x.title} and {y.title} "
            "that are at least as good on both scales and better on one.",
        )


def _of_peers(declared: Declaration, peers: Scale) -> Iterator[Method]:
    rated = _listed(declared, peers)
    answer = stage_title(declared, declared.answers[-1]) if declared.answers else ""
    yield Method(
        "Rater leniency",
        f"An agent's rating minus the mean of the other peers' ratings of the same text ({rated}), "
        "averaged over the texts that others rated too; the interval treats texts as independent.",
    )
    yield Method(
        "Krippendorff's alpha",
        "Agreement beyond chance of ratings of the same text (Krippendorff 2011, interval data), "
        "over texts with at least two ratings; below 0 raters disagree more than by chance. In "
        "\u201cpeers and the observer\u201d the observer counts as an additional rater. The "
        "interval is a percentile bootstrap over texts (1,000 samples).",
    )
    if answer:
        yield Method(
            "Advice adopted, PageRank",
            f"Advice adopted is the share of the new words of the {answer} (at least four letters, "
            "not in the text that was rated) that occur in the rater's reason; paraphrases are not "
            "detected. PageRank is computed in the graph from authors to raters, weighted by that "
            "share. The authors' gain is the mean gain of the exchanges that an agent rated; it "
            "does not show that the rater caused it.",
        )


def _of_main(declared: Declaration) -> Iterator[Method]:
    main = declared.main
    final = None if main is None else declared.final(main)
    if main is None or final is None:
        return
    stage, bands = stage_title(declared, final.stage), Bands.of(main)
    yield Method(
        "Neighbourhood statistics",
        "Assortativity of the graph of neighbours (Newman, 2003): 1 if all neighbours are "
        "alike, about 0 by chance, \u22121 if they are opposites. Chance: the 95 % band of "
        f"{SHUFFLES} shuffles of the values over the agents; p is two-sided and counts the "
        "observed arrangement (Phipson & Smyth, 2010). Scores are the ratings of "
        f"{main.title} of the {stage} in the last round. A cluster is a connected component of "
        "neighbours whose scores are all low (up to "
        f"{plain_number(bands.low)}), middle or high (above {plain_number(bands.middle)}); those "
        "are listed that are larger than the largest one of their band in 95 % of the shuffles "
        "(Nichols & Holmes, 2002; Bonferroni over the bands).",
    )
    yield Method(
        f"Length and {main.title}",
        f"Pearson's correlation between the number of characters of a text and {main.whose} "
        f"rating of its {main.title}, over all rated stages.",
    )
    yield Method("Selection of example exchanges", _shown(declared, main))


def _shown(declared: Declaration, main: Scale) -> str:
    extremes = (
        f"The largest gain and the largest loss in {main.title}"
        if declared.gain(main) is not None
        else f"The best and the worst rated exchange in {main.title}"
    )
    return (
        f"{extremes}, and the exchange whose ratings of {main.title} are closest to their means; "
        "ties are resolved by the fewest missing ratings, then by the exchange number."
    )
