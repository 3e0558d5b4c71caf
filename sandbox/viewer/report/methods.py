"""How the numbers of a report came about: every measure, interval and exclusion, in plain words."""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """What a word in a report stands for."""

    term: str
    text: str


_EXCHANGE = Method(
    "Exchange",
    "One author answers one question (the draft), peers rate the draft and say why, and the author "
    "answers again (the revision). In a round every agent is author once. Only complete exchanges "
    "count, about which nothing more will be written.",
)

_SCENE = Method(
    "Exchange",
    "A model answers a question (the first answer, which stands where other worlds have a draft), "
    "plays out in a scene what that would lead to, and answers again with that in mind (the second "
    "answer, where others have a revision). Only complete exchanges count, about which nothing "
    "more will be written.",
)

_SHARED = (
    Method(
        "Failed",
        "An exchange fails where a form gets no reply that can be used, after all attempts. "
        "It is counted as one that failed; what was said before still counts, and what was "
        "not said is missing.",
    ),
    Method(
        "Alignment and engagement",
        "Whole numbers from 1 (worst) to 7 (best) by the observer, a model with neither a "
        "persona nor a memory, once for the draft and once for the revision.",
    ),
    Method(
        "Missing",
        "A rating that cannot be read (the reply was cut off by the token limit, empty, "
        "unreadable, or the call failed) is missing. It enters no mean, no share and no "
        "figure, and no number stands for it.",
    ),
    Method(
        "Rise; better, equal, worse",
        "The rise is the rating of a revision less that of its draft, over exchanges where "
        "both can be read; the shares say how many of these rises are above, at and below 0. "
        "Means of drafts and revisions are over all that can be read, so that their "
        "difference need not be exactly the rise.",
    ),
    Method(
        "Intervals of one round",
        "95 %, by Student's t over the exchanges of the round, taken as independent; there is "
        "none where there are fewer than two. The bands of the curves are the same.",
    ),
    Method(
        "Intervals over all rounds",
        "95 %, with a standard error that is cluster-robust by author, since an author "
        "resembles itself from round to round, and Student's t with as many degrees of "
        "freedom as authors, less one; exchanges that are nobody's count as independent. All "
        "intervals are about this run and not about other seeds, and nothing corrects for "
        "looking at several.",
    ),
    Method(
        "Pareto front",
        "The rounds whose revisions have means of alignment and engagement that no other "
        "round reaches on both scales and beats on one.",
    ),
)

_PEERS = (
    Method(
        "Peers' ratings",
        "Whole numbers from 1 to 7 that other agents give a draft, as the persona that they "
        "are and with what they remember. They are not the observer's scale.",
    ),
    Method(
        "Who rates high",
        "An agent's rating less the mean of the other peers' ratings of the same draft, in "
        "the mean over its drafts that others rated too; the interval takes drafts as "
        "independent.",
    ),
    Method(
        "Krippendorff's alpha",
        "Agreement beyond chance for ordinal ratings of the same drafts, those with two "
        "ratings or more; below 0 raters disagree more than by chance. In “peers and the "
        "observer” the observer is one more rater. Of more than 20,000 drafts as many or "
        "fewer, evenly spread, are looked at.",
    ),
    Method(
        "Taken up, centrality",
        "Advice is taken up by the share of a revision's new words (of four letters or more, "
        "not in the draft) that stand in a rater's reason; other wordings of the same thought "
        "are not seen. Centrality is PageRank in the graph from authors to raters, weighted "
        "by what was taken up. The rise is that of the exchanges that an agent rated, and no "
        "proof that it caused it.",
    ),
    Method(
        "Resemblance",
        "Assortativity of the graph of neighbours (Newman, 2003): 1 where all neighbours are "
        "alike, 0 as by chance, \u22121 where they are opposites. Scores are those of "
        "revisions in the last round. A cluster is a connected group of neighbours whose "
        "scores are all low (1 to 3), middle (4) or high (5 to 7).",
    ),
)

_LAST = (
    Method(
        "Length and alignment",
        "Pearson's correlation of the number of characters of an answer, draft or revision, "
        "and the observer's rating of its alignment.",
    ),
    Method(
        "Calls and tokens",
        "A call is one request to a model; asking again after a reply that cannot be used is "
        "another one. Tokens are as the backend counts them, and the share from the prefix "
        "cache is that of prompts of which the backend told it.",
    ),
    Method(
        "Exchanges that are shown",
        "The largest rise and the largest fall in alignment, and the exchange whose two "
        "ratings of alignment are nearest to their means; of several alike the one with the "
        "fewest missing ratings, then the first.",
    ),
    Method(
        "Digest",
        "A SHA-256 over all that was said in a finished run, without times: two runs with the "
        "same digest are the same. Config paths are shown by their last part, and addresses "
        "not at all.",
    ),
)


def methods(scenes: bool, peers: bool) -> list[Method]:
    """What the words in a report stand for.

    Args:
        scenes: exchanges are scenes.
        peers: agents rate each other.
    """
    return [_SCENE if scenes else _EXCHANGE, *_SHARED, *(_PEERS if peers else ()), *_LAST]
