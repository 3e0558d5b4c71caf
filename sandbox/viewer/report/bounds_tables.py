"""Tables of personalisation within bounds, for reports and for the page of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sandbox.reading.bounds import Bounds, GroupResults
from sandbox.reading.statistics import Interval, Share
from sandbox.viewer.filters import decimal, integer, signed
from sandbox.viewer.report.tables import Cell, Table, percent


def bounds_tables(measured: Bounds) -> list[Table]:
    """Build the tables of a run, without empty ones."""
    found = (
        leakage(measured),
        breaches(measured),
        refusals(measured),
        gains(measured),
        spreads(measured),
        rounds(measured),
        profiling(measured),
    )
    return [table for table in found if table.rows]


def _shares(named: Iterable[tuple[str, str, Share]]) -> list[list[Cell]]:
    return [
        [
            Cell(name, detail),
            _share(share),
            Cell(integer(share.count)),
            Cell(integer(share.n)),
            Cell(integer(share.missing)),
        ]
        for name, detail, share in named
    ]


def _share(share: Share) -> Cell:
    return Cell(percent(share.share, 1), _ends(percent(share.low), percent(share.high), share.low))


def _ends(low: str, high: str, known: float | None) -> str:
    return "" if known is None else f"{low}\xa0to\xa0{high}"


def leakage(measured: Bounds) -> Table:
    """The share of red-team requests that were obeyed, in all, by tier, rule and phrasing."""
    found = measured.leakage
    named = [("All requests", "", found.total)]
    named += [(f"Tier {tier}", "", share) for tier, share in found.by_tier.items()]
    named += [
        (one.rule, "" if one.tier is None else f"tier {one.tier}", one.obeyed)
        for one in found.by_rule
    ]
    named += [
        (phrasing.replace("_", " "), "phrasing", share)
        for phrasing, share in found.by_phrasing.items()
    ]
    asked = found.total.n + found.total.missing
    return Table(
        "leakage",
        "Leakage",
        "The share of red-team requests that were obeyed, by the judge's verdict, with its 95 % "
        "interval (Wilson's score). Requests without a verdict are counted apart.",
        ["Requests", "obeyed", "n obeyed", "n", "without a verdict"],
        _shares(named) if asked else [],
    )


def breaches(measured: Bounds) -> Table:
    """Replies that broke a rule, by rule and by what became of them; and overruled wishes."""
    actions = ("recorded", "asked_again", "refused")
    counts = {(one.rule, one.action): one.n for one in measured.breaches}
    tiers = {one.rule: f"tier {one.tier}" for one in measured.breaches}
    wishes = {one.rule: one for one in measured.overruled}
    rows = [
        [
            Cell(rule, tiers.get(rule, "")),
            *(Cell(integer(counts.get((rule, action), 0))) for action in actions),
            Cell(integer(wishes[rule].wishes if rule in wishes else 0)),
            Cell(integer(wishes[rule].users if rule in wishes else 0)),
        ]
        for rule in dict.fromkeys((*tiers, *wishes))
    ]
    return Table(
        "breaches",
        "Breaches and overruled wishes",
        "Replies whose check found a rule broken, by what became of them, and the wishes that "
        "each rule overrules; rules with neither are left out.",
        ["Rule", "recorded", "asked again", "refused", "wishes overruled", "of users"],
        rows,
    )


def refusals(measured: Bounds) -> Table:
    """The share of replies in whose place the policy's refusal stands."""
    titles = {
        "answer": "Answers of conversations",
        "aggregate": "Answers of one policy for all",
        "red_team": "Answers to red-team requests",
    }
    named = [(titles.get(kind, kind), "", share) for kind, share in measured.refusals.items()]
    return Table(
        "refusals",
        "Refusals",
        "The share of replies in whose place the policy's refusal stands, with its 95 % interval; "
        "a refusal of the model's own is not among them.",
        ["Replies", "refused", "n refused", "n", "without a reply"],
        _shares(named),
    )


def gains(measured: Bounds) -> Table:
    """What personalisation gives each group."""
    return Table(
        "gains",
        "Gain of personalisation",
        "Gain: the user's own blind rating of the personal answer minus that of the answer of one "
        "policy for all. Lose by one policy: users whose mean gain is above 0; lose by "
        "personalisation: below 0. Safety and usefulness: the observer's ratings of the personal "
        "answer. Intervals are clustered by user.",
        [
            "Group",
            "users",
            "gain",
            "lose by one policy",
            "lose by personalisation",
            "safety",
            "usefulness",
        ],
        [
            [
                _group(one),
                Cell(integer(one.users)),
                _mean(one.gain, sign=True),
                _part(one.lose_by_aggregate),
                _part(one.lose_by_personalisation),
                _mean(one.safety),
                _mean(one.usefulness),
            ]
            for one in measured.groups
        ],
    )


def _group(one: GroupResults) -> Cell:
    if one.attribute is None or one.group is None:
        return Cell("All users")
    return Cell(one.group, one.attribute.replace("_", " "))


def _mean(interval: Interval, sign: bool = False) -> Cell:
    shown = signed if sign else decimal
    return Cell(
        shown(interval.difference),
        _ends(shown(interval.low), shown(interval.high), interval.low),
    )


def _part(share: Share) -> Cell:
    return Cell(percent(share.share), f"{integer(share.count)}\xa0of\xa0{integer(share.n)}")


def spreads(measured: Bounds) -> Table:
    """How far the groups of each attribute lie apart."""
    return Table(
        "spreads",
        "Spread between groups",
        "The highest mean of a group minus the lowest, in points, over groups of at least two "
        "users; that safety and usefulness depend on who asks is what \u201cExploring "
        "Safety-Utility Trade-Offs in Personalized Language Models\u201d describes.",
        ["Attribute", "groups", "gain", "safety", "usefulness"],
        [
            [
                Cell(one.attribute.replace("_", " ")),
                Cell(integer(one.groups)),
                *(Cell(decimal(value)) for value in (one.gain, one.safety, one.usefulness)),
            ]
            for one in measured.spreads
        ],
    )


def rounds(measured: Bounds) -> Table:
    """Homogenisation and polarisation: diversity and stances by round, and the change."""
    rows = [
        [
            Cell(str(one.round)),
            Cell(integer(one.answers)),
            Cell(integer(one.refused)),
            Cell(decimal(one.distinct2, 3)),
            Cell(decimal(one.distance, 3)),
            Cell(integer(one.stances), f"{integer(one.unusable)} unusable" if one.unusable else ""),
            Cell(decimal(one.stance, 1)),
            Cell(decimal(one.sd, 1)),
            Cell(decimal(one.bimodality)),
        ]
        for one in measured.rounds
    ]
    if len(measured.rounds) > 1:
        blank = [Cell("")] * 4
        change = [Cell(signed(measured.change[name], 3)) for name in ("distinct2", "distance")]
        rows.append([Cell("change"), Cell(""), Cell(""), *change, *blank])
    return Table(
        "homogenisation",
        "Homogenisation and polarisation",
        "Of the chosen answers that are no refusal: the share of distinct pairs of words in "
        "samples as large as the round with the fewest pairs, and the mean distance of answers "
        "(1 \u2212 cosine of counts of word pairs); a fall is homogenisation. Of the users' "
        "stances, 1 to 100: standard deviation (SD) and bimodality coefficient (above 5/9: "
        "perhaps two camps).",
        [
            "Round",
            "answers",
            "refused",
            "distinct pairs",
            "distance",
            "stances",
            "mean",
            "SD",
            "bimodality",
        ],
        rows,
    )


def profiling(measured: Bounds) -> Table:
    """How well a judge guesses attributes that are not mentioned."""
    columns: Sequence[str] = (
        "Attribute",
        "right",
        "by always guessing one",
        "n",
        "left out: mentioned",
        "left out: unusable",
    )
    return Table(
        "profiling",
        "Profiling",
        "The share of a judge's guesses of an attribute of the user, from answers in which it is "
        "not mentioned, that are right, with its 95 % interval (Wilson's score); and the share of "
        "somebody who always guesses the most frequent category.",
        columns,
        [
            [
                Cell(one.attribute.replace("_", " ")),
                _share(one.right),
                Cell(percent(one.baseline, 1), one.category or ""),
                Cell(integer(one.right.n)),
                Cell(integer(one.mentioned)),
                Cell(integer(one.unusable)),
            ]
            for one in measured.profiling
        ],
    )
