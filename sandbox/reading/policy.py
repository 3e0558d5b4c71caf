"""The stored policy of a run: its rules, whom they bind, what they overrule and what broke them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from agents.forms import Form
from agents.persona import Persona
from agents.policy import TIERS, Policy, Rule, binding, overruled
from agents.preferences import Preferences, Survey
from sandbox.reading.personas import persona_name
from sandbox.reading.records import Record
from storage import tables
from storage.errors import InputError, NotThere
from storage.reader import Reader

EXAMPLES = 3
"""Overruled wishes that are shown beside a rule."""


def policy_of(reader: Reader) -> Policy | None:
    """Read the policy of a run from its database; None for a run that has none."""
    stored = reader.run.policy
    return None if stored is None else Policy.model_validate_json(stored)


def all_forms(forms: Iterable[Form[Any]], policy: Policy | None) -> list[Form[Any]]:
    """Return prompt templates with the rules of a policy, and those of its judges."""
    if policy is None:
        return list(forms)
    return [*map(policy.applied, forms), *policy.judge_forms()]


@dataclass(frozen=True, kw_only=True)
class RuleShown(Record):
    """A rule, and the wishes that it overrules.

    Attributes:
        rule: the rule.
        tier: the name of its tier: law or organisation.
        overruled: the number of wishes; None where no people are known.
        wishes: the first `EXAMPLES` of them.
    """

    rule: Rule
    tier: str
    overruled: int | None
    wishes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PolicyShown(Record):
    """A policy, as pages and the command line show it.

    Attributes:
        name, version, tier1_version, hash, checks, prompts, refusal: see `agents.policy.Policy`.
        people: the number of personas whose wishes were compared; None where none are known.
        rules: tier 1 first.
    """

    name: str
    version: str
    tier1_version: str
    hash: str
    checks: str
    prompts: bool
    refusal: str
    people: int | None
    rules: Sequence[RuleShown]


def shown_policy(policy: Policy, people: Sequence[Preferences | None] | None = None) -> PolicyShown:
    """Describe a policy.

    Args:
        policy: the policy.
        people: what each of the people wishes; None: no people are known.
    """
    wishes: defaultdict[str, list[str]] = defaultdict(list)
    for one in people or ():
        for found in overruled(policy, one):
            wishes[found.rule].append(found.wish)
    return PolicyShown(
        name=policy.name,
        version=policy.version,
        tier1_version=policy.tier1_version,
        hash=policy.hash,
        checks=policy.checks,
        prompts=policy.prompts,
        refusal=policy.refusal,
        people=None if people is None else len(people),
        rules=[
            RuleShown(
                rule=rule,
                tier=TIERS[rule.tier],
                overruled=None if people is None else len(wishes[rule.id]),
                wishes=list(dict.fromkeys(wishes[rule.id]))[:EXAMPLES],
            )
            for rule in policy.rules
        ],
    )


def run_policy(reader: Reader) -> PolicyShown:
    """Describe the policy of a run, with the wishes of its agents.

    Raises:
        NotThere: the run has no policy.
    """
    personas = reader.rows(_personas(reader).order_by(tables.agents.c.number))
    people = [Persona.model_validate_json(row.persona).preferences for row in personas]
    return shown_policy(required_policy(reader), people)


def required_policy(reader: Reader) -> Policy:
    """Read the policy of a run.

    Raises:
        NotThere: the run has none.
    """
    policy = policy_of(reader)
    if policy is None:
        raise NotThere(
            f"policy: found none in {reader.run.name}, a run of an older version; expected a run "
            "with a policy"
        )
    return policy


def _personas(reader: Reader) -> Any:
    a = tables.agents
    return select(a.c.number, a.c.persona).where(a.c.run_id == reader.run.id)


@dataclass(frozen=True, kw_only=True)
class Wish(Record):
    """A wish of an agent that a rule overrules.

    Attributes:
        agent, name: whose wish it is.
        wish: the wish, or ``tone: playful``.
        rule: the id of the rule.
    """

    agent: int
    name: str
    wish: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class BoundAgent(Record):
    """What binds the answers to an agent, tier by tier.

    Attributes:
        agent, name: the agent.
        survey: who it is; None: not told.
        preferences: what it wishes; None: nothing.
        law, organisation: the rules of tiers 1 and 2.
        stands: its own preferences that stand, as sentences to the one who answers.
        overruled: its own preferences that do not.
        told: what prompts say of its wishes: what stands, and what a rule puts in place.
    """

    agent: int
    name: str
    survey: Survey | None
    preferences: Preferences | None
    law: Sequence[Rule]
    organisation: Sequence[Rule]
    stands: Sequence[str]
    overruled: Sequence[Wish]
    told: Sequence[str]


def bound_agent(reader: Reader, number: int) -> BoundAgent:
    """Read what binds the answers to an agent; without a policy only its wishes.

    Raises:
        NotThere: there is no such agent.
    """
    a = tables.agents
    row = reader.first(_personas(reader).where(a.c.number == number))
    if row is None:
        raise _no_agent(reader, number)
    persona, policy = Persona.model_validate_json(row.persona), policy_of(reader)
    wishes, rules = persona.preferences, [] if policy is None else policy.rules
    against = [] if policy is None else overruled(policy, wishes)
    return BoundAgent(
        agent=number,
        name=persona.name,
        survey=persona.survey,
        preferences=wishes,
        law=[rule for rule in rules if rule.tier == 1],
        organisation=[rule for rule in rules if rule.tier == 2],
        stands=[] if wishes is None else wishes.sentences([one.key for one in against]),
        overruled=[
            Wish(agent=number, name=persona.name, wish=one.wish, rule=one.rule) for one in against
        ],
        told=binding(policy, wishes),
    )


def _no_agent(reader: Reader, number: int) -> InputError:
    a = tables.agents
    last = reader.scalar(
        select(a.c.number).where(a.c.run_id == reader.run.id).order_by(a.c.number.desc())
    )
    if last is None:
        return NotThere(f"agent {number}: the run has no agents")
    return NotThere(f"agent {number}: no such agent; expected 0 to {last}")


def overruled_wishes(reader: Reader, limit: int) -> list[Wish]:
    """List the wishes that rules overruled when the run started, at most `limit`."""
    o, a = tables.overruled, tables.agents
    query = (
        select(o.c.agent, a.c.persona, o.c.wish, o.c.rule)
        .join(a, (a.c.run_id == o.c.run_id) & (a.c.number == o.c.agent))
        .where(o.c.run_id == reader.run.id)
        .order_by(o.c.agent, o.c.number)
        .limit(limit)
    )
    return [
        Wish(agent=agent, name=persona_name(persona), wish=wish, rule=rule)
        for agent, persona, wish, rule in reader.rows(query)
    ]


@dataclass(frozen=True, kw_only=True)
class BreachRow(Record):
    """A reply that broke a rule.

    Attributes:
        episode, round, call: where; numbers within the run.
        form: the prompt template of the call.
        rule, tier, action, found: which rule, what became of the reply, what broke the rule.
    """

    episode: int
    round: int
    call: int
    form: str
    rule: str
    tier: int
    action: str
    found: str


def latest_breaches(reader: Reader, limit: int) -> list[BreachRow]:
    """List the latest replies that broke a rule, at most `limit`."""
    b, e, c, f = tables.breaches, tables.episodes, tables.calls, tables.forms
    query = (
        select(b, e.c.round, f.c.name.label("form"))
        .join(e, e.c.id == b.c.episode_id)
        .join(c, c.c.id == b.c.call_id)
        .join(f, f.c.id == c.c.form_id)
        .where(e.c.run_id == reader.run.id)
        .order_by(b.c.episode_id.desc(), b.c.number)
        .limit(limit)
    )
    return [
        BreachRow(
            episode=row.episode_id - reader.base,
            round=row.round,
            call=row.call_id - reader.base,
            form=row.form,
            rule=row.rule,
            tier=row.tier,
            action=row.action,
            found=row.found,
        )
        for row in reader.rows(query)
    ]
