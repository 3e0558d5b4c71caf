"""The body of a request, and what the refusals of a server teach about it.

Servers differ in the fields that they take. A refusal that names a field is understood once for an
address: from then on its requests are without the field, or with another value. Fields that the
config itself sets (`sampling`, `extra_body`) are never changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agents.forms import Rating
from sandbox.backends.base import Call, chat, plain_prompt
from sandbox.backends.expected_rating import LABELS_SHOWN
from sandbox.backends.openai.config import OpenAIConfig
from sandbox.backends.openai.constrain import FIELDS, JSON_TOKENS, Constraint, constraint_fields

END_OF_THINKING = 64
"""Tokens between the end of a thinking budget and the answer."""

REFUSED = frozenset((400, 413, 422))
"""Statuses with which a server refuses a request."""

LEARNED_FROM = frozenset((400, 422, 500, 501))
"""Statuses whose messages may name a field that a server does not take."""

_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"  # OpenAI's newer models want the last
_TOGETHER = ((_LIMIT, _NEWER_LIMIT), ("logprobs", "top_logprobs"))
_SEED_BITS, _NARROW_SEED_BITS = 63, 31

_UNSUPPORTED = re.compile(
    r"not (?:be )?(?:currently )?(?:supported|permitted|allowed|enabled|available|recogni[sz]ed"
    r"|implemented|accepted|valid)|unsupported|unrecogni[sz]ed|unknown|unexpected|unavailable"
    r"|forbidden|(?:does|do)(?:n't| not) (?:support|accept|allow|permit|have)|isn't supported"
    r"|invalid (?:argument|parameter|field|request argument)|no such|cannot find field"
    r"|cannot be (?:used|set)|additional propert|only the default|not a valid|extra field",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"(?:system|developer)\b.{0,60}\b(?:role|message|instruction|prompt)"
    r"|\brole\b.{0,60}\b(?:system|developer)",
    re.IGNORECASE | re.DOTALL,
)
_ROLES = re.compile(
    r"roles? must alternate|only .{0,40}roles? (?:are|is) (?:supported|allowed)", re.IGNORECASE
)
_CONSTRAINT_WORDS = re.compile(
    r"response_format|json_schema|json schema|structured|guided|grammar|regex|schema",
    re.IGNORECASE,
)


_TOO_MANY = re.compile(
    r"too (?:many|long|large)|at most|up to|maximum|more than|less than|fewer|exceed|limit|max\b"
    r"|max_?length|no longer than",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?![\w]|\.\d)")
_FEW_STOPS = 4  # as many as OpenAI takes


@dataclass
class Habits:
    """What is known about the requests that a server takes.

    Attributes:
        constraint: how its replies are constrained.
        priority: whether it takes priorities.
        limit: its name for the limit of a reply's tokens.
        seed_bits: bits of the largest seed that it takes.
        dropped: fields that it refuses; `system` stands for the role of the system message.
        unconstrained: constraints that it refuses, as JSON.
        most_stops: the number of stop strings that it takes; None for any number.
        thinks: its replies have thoughts, which a stop string would end, too.
    """

    constraint: Constraint = Constraint.NONE
    priority: bool = False
    limit: str = _LIMIT
    seed_bits: int = _SEED_BITS
    dropped: set[str] = field(default_factory=set)
    unconstrained: set[str] = field(default_factory=set)
    most_stops: int | None = None
    thinks: bool = False


def request_body(config: OpenAIConfig, habits: Habits, call: Call) -> dict[str, Any]:
    """Return the body of a request, without the fields that the config or the server drops."""
    free = config.free_parameters()
    dropped = _dropped(habits, free)
    constraint = constraint_fields(habits.constraint, call.shape)
    if habits.unconstrained and json.dumps(constraint) in habits.unconstrained:
        constraint = {}
    body = {
        "model": call.adapter or config.model,
        "seed": call.seed % 2**habits.seed_bits,
        habits.limit: _limit(config, call, constraint),
        "temperature": call.temperature,
        **_prompt(config, call, merged="system" in dropped),
        **_logprobs(config, call),
        **_stop(config, habits, call, constraint),
        **constraint,
        **({"priority": call.priority} if config.priority and habits.priority else {}),
        **free,
    }
    if config.thinking_budget is not None:
        body["thinking_token_budget"] = config.thinking_budget
    return {key: value for key, value in body.items() if key not in dropped} if dropped else body


def _dropped(habits: Habits, free: Mapping[str, Any]) -> set[str]:
    """Return the fields that the config or the server drops, each with those that belong to it."""
    dropped = habits.dropped | {key for key, value in free.items() if value is None}
    for names in _TOGETHER if dropped else ():
        if dropped.intersection(names):
            dropped |= {*names}
    return dropped


def _stop(
    config: OpenAIConfig, habits: Habits, call: Call, constraint: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the stop strings of a request; none where they would end thoughts or a constraint."""
    stops = list(call.stop.strings[: habits.most_stops])
    if not stops or constraint or config.thinking or habits.thinks:
        return {}
    return {"stop": stops}


def _limit(config: OpenAIConfig, call: Call, constraint: Mapping[str, Any]) -> int:
    """Return the most tokens of a reply, with those of its thinking and of its JSON."""
    thinking = 0 if config.thinking_budget is None else config.thinking_budget + END_OF_THINKING
    return call.max_tokens + thinking + JSON_TOKENS * ("response_format" in constraint)


def _prompt(config: OpenAIConfig, call: Call, merged: bool) -> dict[str, Any]:
    if not config.chat:
        return {"prompt": plain_prompt(call.system, call.user)}
    return {"messages": chat(call.system, call.user, system_role=not merged)}


def _logprobs(config: OpenAIConfig, call: Call) -> dict[str, Any]:
    """Return the fields that request log-probabilities, if an expected rating is needed."""
    if not config.expected_rating or not isinstance(call.shape, Rating):
        return {}
    if not config.chat:
        return {"logprobs": LABELS_SHOWN}
    return {"logprobs": True, "top_logprobs": LABELS_SHOWN}


class Refusal(NamedTuple):
    """Why a server refuses a request.

    Attributes:
        message: its words.
        fields: the names in the fields that it says to refuse, if it lists them.
    """

    message: str
    fields: frozenset[str]

    def position(self, name: str) -> int:
        """Return where a field is named, lower is earlier; -1: it is not."""
        if self.fields:
            return 0 if name in self.fields else -1
        found = re.search(rf"(?<![A-Za-z0-9_-]){name}(?![A-Za-z0-9_-])", self.message)
        return -1 if found is None else found.start()


def refusal(content: Any, body: bytes) -> Refusal:
    """Read a refusal: the messages of a response, and the fields that it lists.

    Args:
        content: the body of the response as JSON; None if it is none.
        body: the body itself.
    """
    messages: list[str] = []
    fields: set[str] = set()
    for key, value in _told(content):
        if key in ("param", "loc"):
            fields.update(re.findall(r"\w+", value))
        else:
            messages.append(value)
    message = " ".join(messages) or body.decode("utf-8", "replace")
    return Refusal(message, frozenset(fields - {"body", "None"}))


_MESSAGES = frozenset(
    ("message", "msg", "detail", "error", "errors", "type", "code", "reason", "status")
)


def _told(content: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the messages and names of fields in an error, but not what the request had."""
    if isinstance(content, str):
        yield "message", content
    elif isinstance(content, list) and depth <= 6:
        for item in content[:20]:
            yield from _told(item, depth + 1)
    elif isinstance(content, dict) and depth <= 6:
        for key, value in content.items():
            if key in ("loc", "param"):
                yield key, " ".join(map(str, value)) if isinstance(value, list) else str(value)
            elif key in _MESSAGES:
                yield from _told(value, depth + 1)


def learn(habits: Habits, refused: Refusal, body: Mapping[str, Any], fixed: bool) -> str | None:
    """Learn from a refusal what a server does not take.

    Args:
        habits: of the server; they are changed.
        refused: its refusal.
        body: the request that it refused.
        fixed: whether the config fixes how replies are constrained.

    Returns:
        What was learned, as the end of a sentence about the server; None if nothing.
    """
    unsupported = _UNSUPPORTED.search(refused.message) is not None
    about_roles = (unsupported and _SYSTEM.search(refused.message)) or _ROLES.search(
        refused.message
    )
    if "messages" in body and (about_roles or refused.fields >= {"messages", "role"}):
        return _drop(habits, "system", "a system message: it is put before the user's message")
    named = [(refused.position(name), name) for name in body if refused.position(name) >= 0]
    for _, name in sorted(named):
        learned = _learn_field(habits, name, refused.message, body, unsupported)
        if learned is not None:
            return learned
    constrained = {name: body[name] for name in FIELDS if name in body}
    if constrained and not fixed and _CONSTRAINT_WORDS.search(refused.message):
        text = json.dumps(constrained)
        if text not in habits.unconstrained:
            habits.unconstrained.add(text)
            return f"a constraint by {next(iter(constrained))}: such replies are not constrained"
    return None


def _learn_field(
    habits: Habits, name: str, message: str, body: Mapping[str, Any], unsupported: bool
) -> str | None:
    """Learn from the refusal of one field, or of its value."""
    if name == "seed":
        if unsupported and not re.search("int32|2147483647", message, re.IGNORECASE):
            return _drop(habits, "seed", "a seed: its replies cannot be reproduced")
        if body["seed"] >= 2**_NARROW_SEED_BITS and habits.seed_bits == _SEED_BITS:
            habits.seed_bits = _NARROW_SEED_BITS
            return f"seeds of more than {_NARROW_SEED_BITS} bits: they are shortened"
    elif name == _LIMIT and habits.limit == _LIMIT:
        if unsupported or (_NEWER_LIMIT in message and "instead" in message):
            habits.limit = _NEWER_LIMIT
            return f"{_LIMIT}: it gets {_NEWER_LIMIT}"
    elif name == "temperature" and unsupported:
        return _drop(habits, name, "a temperature: its replies are sampled as it likes")
    elif name in ("logprobs", "top_logprobs"):
        return _drop(habits, "logprobs", "log-probabilities: there are no expected ratings")
    elif name == "priority":
        return _drop(habits, name, "priorities")
    return _learn_stops(habits, message, body["stop"]) if name == "stop" else None


def _learn_stops(habits: Habits, message: str, sent: Any) -> str | None:
    """Learn how many stop strings a server takes, or that it takes none; the rest is cut here."""
    if isinstance(sent, list) and len(sent) > 1 and _TOO_MANY.search(message):
        allowed = [number for number in map(int, _NUMBER.findall(message)) if number < len(sent)]
        habits.most_stops = max([number for number in allowed if number > 0], default=_FEW_STOPS)
        if habits.most_stops < len(sent):
            return (
                f"more than {habits.most_stops} stop strings: what follows the others is cut off "
                "afterwards"
            )
    return _drop(habits, "stop", "stop strings: what follows one is cut off afterwards")


def _drop(habits: Habits, name: str, meaning: str) -> str | None:
    if name in habits.dropped:
        return None
    habits.dropped.add(name)
    return meaning
