"""Two sections of the dataset card: the policy of the runs, and whom conversations align to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from sqlalchemy import select

from agents.policy import TIERS, Policy
from sandbox.datasets.groups import FEWEST, Group, Groups
from sandbox.datasets.source import Origin, Source
from sandbox.reading.policy import policy_of
from storage import tables

Lines = Iterator[str]
Plain = Callable[[object], str]
"""Escapes a text for a line of Markdown."""

_ACTIONS = {"recorded": "passed", "asked_again": "asked for again", "refused": "replaced"}

_Counts = Counter[tuple[str, str]]


def policies(source: Source, plain: Plain) -> Lines:
    """Describe each policy: its rules, how many replies broke each, and what became of them."""
    yield "## Policy\n"
    found: dict[str, tuple[Policy, list[Origin]]] = {}
    for origin in source.origins:
        policy = policy_of(origin.reader)
        if policy is None:
            name = plain(origin.reader.run.name)
            yield f"The run {name} has no policy: nothing in it was checked.\n"
        else:
            found.setdefault(policy.title, (policy, []))[1].append(origin)
    for title, (policy, origins) in found.items():
        yield from _policy(title, policy, origins, plain)
    if found:
        yield (
            "A reply can break several rules. Texts that broke a rule are in no row but those of "
            "the format `exchanges`; the rules of each format below count what was left out.\n"
        )


def _policy(title: str, policy: Policy, origins: list[Origin], plain: Plain) -> Lines:
    runs = ", ".join(plain(origin.reader.run.name) for origin in origins)
    shown = "show the rules" if policy.prompts else "do not show the rules"
    acts = (
        "replies that break a rule are acted on"
        if policy.checks == "enforce"
        else "replies that break a rule are recorded and pass"
    )
    yield f"{plain(title)}, of {runs}: prompts {shown}, and {acts}.\n"
    yield f"| tier | rule | kind | text | source | {' | '.join(_ACTIONS.values())} |"
    yield f"|{' --- |' * 5}{' ---: |' * len(_ACTIONS)}"
    counts = sum((_breaches(origin) for origin in origins), _Counts())
    for rule in policy.rules:
        numbers = " | ".join(f"{counts[rule.id, action]:,}" for action in _ACTIONS)
        yield (
            f"| {rule.tier} ({TIERS[rule.tier]}) | `{rule.id}` | {rule.kind} | {plain(rule.text)} "
            f"| {plain(rule.source)} | {numbers} |"
        )
    yield ""


def _breaches(origin: Origin) -> _Counts:
    """The number of replies that broke a rule, by rule and what became of them."""
    b = tables.breaches
    query = (
        select(b.c.rule, b.c.action, b.c.call_id)
        .where(origin.reader.belongs_to_run(b.c.episode_id))
        .distinct()
    )
    return Counter((rule, action) for rule, action, _ in origin.connection.execute(query))


def aligned_to(groups: Groups, plain: Plain) -> Lines:
    """Describe the users of conversations group by group; nothing without conversations."""
    if not groups.any:
        return
    yield "## Whom it is aligned to\n"
    yield (
        "The users who scored the answers, by what they told in their survey. The scores run from "
        "1 to 100, with the standard deviation of all of them; disagreement is the standard "
        "deviation of the users' mean scores, since every answer has one rater, and Krippendorff's "
        "alpha needs two. Gain is the mean of a user's blind rating of a personal answer minus "
        "that of the answer of one policy for all, with a 95 % interval that takes the "
        "conversations of one user as a cluster. Flips is the share of the labelled pairs of all "
        "users that would turn round under the group: those of whose labels most differ from the "
        "label that the group's own pairs have most often on that dimension. Of groups with fewer "
        f"than {FEWEST} users nothing more is told.\n"
    )
    columns = (
        "| | group | raters | conversations | mean stated preferences | score | disagreement "
        "| gain | flips |"
    )
    yield columns
    yield "| --- | --- | ---: | ---: | --- | --- | ---: | --- | --- |"
    last = None
    for group in groups.groups():
        kind = "" if group.kind == last else group.kind
        last = group.kind
        yield f"| {kind} | {plain(group.name)} | {' | '.join(_cells(group))} |"
    yield ""


def _cells(group: Group) -> Iterator[str]:
    if group.raters < FEWEST:
        yield f"fewer than {FEWEST}"
        yield from [""] * 6
        return
    yield f"{group.raters:,}"
    yield f"{group.conversations:,}"
    yield _stated(group.stated)
    spread = "" if group.spread is None else f" ± {group.spread:.1f}"
    yield "" if group.score is None else f"{group.score:.1f}{spread}"
    yield "" if group.disagreement is None else f"{group.disagreement:.1f}"
    gain = group.gain
    ends = "" if gain.low is None else f" ({gain.low:+.1f} to {gain.high:+.1f})"
    yield "" if gain.difference is None else f"{gain.difference:+.1f}{ends}"
    yield "" if group.flips is None else f"{group.flips:.0%} of {group.labelled:,}"


def _stated(stated: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.0f}" for name, weight in stated.items())
