"""What becomes of replies that break a rule of the run's policy, before anybody sees them.

A reply is checked once it is in the journal. What a regular expression or a function says follows
from the reply, and what a judge says is a call of its own, so a replay comes to the same result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

from agents.checks import NO_VERDICT, Broken, Checker
from agents.forms import CallName, Form, FreeText, Judgement, Parsed
from agents.policy import Action, Bounded, Policy, Rule
from agents.shapes import Chosen

T = TypeVar("T")

AskJudge = Callable[[Rule, str], Awaitable[Parsed[Chosen]]]
"""Asks the judge of a rule about a text."""

_STRENGTH: tuple[Action, ...] = ("record", "ask_again", "refuse")
_DONE = {"record": "recorded", "ask_again": "asked_again", "refuse": "refused"}


class Breach(NamedTuple):
    """A reply that broke a rule, and what became of it.

    Attributes:
        name: the call.
        call_id: its row.
        rule: the id of the rule.
        tier: its tier.
        action: recorded, asked_again or refused.
        found: what broke the rule.
    """

    name: CallName
    call_id: int
    rule: str
    tier: int
    action: str
    found: str


class Bounds:
    """The policy of a run, as it acts on replies.

    Args:
        policy: the rules.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._checker = Checker(policy)

    async def broken(self, form: Form[Any], value: Any, ask_judge: AskJudge) -> list[Broken]:
        """Return the rules that a reply breaks.

        Args:
            form: the prompt template of the call.
            value: its parsed reply.
            ask_judge: asks the judges, about prose only.
        """
        text = "\n".join(_texts(value))
        found = await self._checker.broken(text)
        if isinstance(form.reply, FreeText):
            for rule in self._checker.judged:
                verdict = (await ask_judge(rule, text)).value
                if verdict is None:
                    found.append(Broken(rule, NO_VERDICT))
                elif verdict.option == "yes":
                    found.append(Broken(rule, verdict.reason or "the judge says so"))
        return found

    def action(self, broken: Iterable[Broken], last: bool) -> Action:
        """Return what becomes of a reply: the strongest action of the rules that it breaks.

        Args:
            broken: these rules, at least one.
            last: the reply cannot be asked for again.
        """
        if self.policy.checks == "record":
            return "record"
        action = max((found.rule.action for found in broken), key=_STRENGTH.index)
        return "refuse" if action == "ask_again" and last else action

    def replaced(self, parsed: Parsed[T], broken: Iterable[Broken], action: Action) -> Parsed[T]:
        """Return what is seen in place of a reply that broke rules.

        Of a rating or a choice the reason is left out; prose becomes the policy's refusal; other
        texts have no value. A reply that is only recorded stays, and is marked.
        """
        rules = [found.rule.id for found in broken]
        value: Any = parsed.value
        if action == "record":
            kept = Bounded(value, rules, refused=False) if isinstance(value, str) else value
            return Parsed(cast(T, kept), parsed.status)
        if isinstance(value, Judgement | Chosen):
            return Parsed(cast(T, value._replace(reason=None)), parsed.status)
        if isinstance(value, str):
            refusal = Bounded(self.policy.refusal, rules, refused=True)
            return Parsed(cast(T, refusal), parsed.status)
        return Parsed(None, parsed.status)


def breaches(
    name: CallName, call_id: int, broken: Iterable[Broken], action: Action
) -> list[Breach]:
    """Return a row for each rule that a reply broke."""
    return [
        Breach(name, call_id, found.rule.id, found.rule.tier, _DONE[action], found.found[:200])
        for found in broken
    ]


def _texts(value: Any) -> Iterable[str]:
    """The texts of a parsed reply that others see."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Judgement | Chosen):
        yield value.reason or ""
    elif isinstance(value, tuple | list):
        yield from (part for part in value if isinstance(part, str))
