"""Policies in the terminal: rules by tier, leakage and breaches of a run, what binds an agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agents.policy import Rule
from sandbox.reading.bounds import OPERATIONAL, Bounds
from sandbox.reading.policy import BoundAgent, PolicyShown, RuleShown
from sandbox.reading.statistics import Share
from sandbox.terminal.style import dash, plain, table

_TIER_TITLES = {1: "tier 1: law", 2: "tier 2: organisation"}


def policy_view(shown: PolicyShown) -> RenderableType:
    """A policy: its rules by tier, and the wishes that they overrule."""
    effect = "act on replies" if shown.checks == "enforce" else "record replies"
    prompts = "prompts show the rules" if shown.prompts else "prompts do not show the rules"
    parts: list[RenderableType] = [
        plain(f"{shown.name} {shown.version}", "bold"),
        plain(f"tier 1 version {shown.tier1_version}; checks {effect}; {prompts}"),
        plain(f"hash {shown.hash}", "dim"),
        plain(f"refusal: {shown.refusal}"),
    ]
    for tier, title in _TIER_TITLES.items():
        rules = [one for one in shown.rules if one.rule.tier == tier]
        parts += [Text(), Text(title, style="bold")]
        parts += [line for one in rules for line in _rule(one)] or [Padding("none", (0, 0, 0, 2))]
    if shown.people is not None:
        parts += [Text(), plain(f"wishes of {shown.people:,} people were compared", "dim")]
    return Group(*parts)


def _rule(one: RuleShown) -> Iterator[RenderableType]:
    rule = one.rule
    check = "no check" if rule.check is None else f"checked by {rule.check.kind}"
    head = plain(f"{rule.id}  ", "bold")
    head.append_text(plain(f"{rule.kind}, {check}, {rule.action.replace('_', ' ')}"))
    yield Padding(head, (0, 0, 0, 2))
    yield Padding(plain(rule.text), (0, 0, 0, 4))
    yield Padding(plain(f"source: {rule.source}", "dim"), (0, 0, 0, 4))
    if one.overruled:
        plural = "" if one.overruled == 1 else "es"
        listed = "; ".join(one.wishes)
        more = "; ..." if one.overruled > len(one.wishes) else ""
        words = f"overrules {one.overruled:,} wish{plural}: {listed}{more}"
        yield Padding(plain(words, "yellow"), (0, 0, 0, 4))


def run_policy_view(shown: PolicyShown, measured: Bounds) -> RenderableType:
    """The policy of a run: rules, breaches, and the leakage of red-team requests."""
    parts = [policy_view(shown), Text(), _breach_table(measured)]
    if measured.leakage.total.n or measured.leakage.total.missing:
        parts += [Text(), _leakage_table(measured), plain(OPERATIONAL, "dim")]
    return Group(*parts)


def _breach_table(measured: Bounds) -> RenderableType:
    if not measured.breaches:
        return plain("breaches: none")
    rows = table("broken rule", "tier", "action", "replies", right=("tier", "replies"))
    for one in measured.breaches:
        rows.add_row(plain(one.rule), str(one.tier), one.action.replace("_", " "), f"{one.n:,}")
    return rows


def _leakage_table(measured: Bounds) -> Table:
    columns = ("requests", "obeyed", "95 % interval", "n obeyed", "n", "no verdict")
    found = measured.leakage
    rows = table(*columns, right=columns[1:])
    _add(rows, "all", found.total)
    for tier, share in found.by_tier.items():
        _add(rows, f"tier {tier}", share)
    for one in found.by_rule:
        _add(rows, one.rule, one.obeyed)
    for phrasing, share in found.by_phrasing.items():
        _add(rows, f"phrasing: {phrasing.replace('_', ' ')}", share)
    return rows


def _add(rows: Table, name: str, share: Share) -> None:
    known = share.share is not None and share.low is not None and share.high is not None
    rows.add_row(
        plain(name),
        Text(f"{100 * (share.share or 0):.1f} %") if known else dash(),
        Text(f"{100 * (share.low or 0):.0f} to {100 * (share.high or 0):.0f}") if known else dash(),
        f"{share.count:,}",
        f"{share.n:,}",
        f"{share.missing:,}",
    )


def bound_agent_view(shown: BoundAgent) -> RenderableType:
    """What binds the answers to an agent, tier by tier."""
    parts: list[RenderableType] = [plain(f"agent {shown.agent}, {shown.name}", "bold")]
    for title, rules in zip(_TIER_TITLES.values(), (shown.law, shown.organisation), strict=True):
        parts += [Text(), Text(title, style="bold"), *_short_rules(rules)]
    parts += [Text(), Text("tier 3: its own wishes", style="bold")]
    for stands in shown.stands:
        parts.append(Padding(plain(f"stands: {stands}"), (0, 0, 0, 2)))
    for one in shown.overruled:
        words = f"overruled by {one.rule}: {one.wish}"
        parts.append(Padding(plain(words, "yellow"), (0, 0, 0, 2)))
    if not (shown.stands or shown.overruled):
        parts.append(Padding("none", (0, 0, 0, 2)))
    return Group(*parts)


def _short_rules(rules: Sequence[Rule]) -> list[RenderableType]:
    lines: list[RenderableType] = [
        Padding(plain(f"{rule.id}: {rule.text}"), (0, 0, 0, 2)) for rule in rules
    ]
    return lines or [Padding("none", (0, 0, 0, 2))]
