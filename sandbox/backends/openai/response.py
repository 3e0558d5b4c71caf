"""What a response says: its text, its thoughts, why it ended, and what could not be understood."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import orjson

from agents.thoughts import split_thoughts

COMPLETE = frozenset(
    (
        "stop",
        "stop_sequence",
        "eos",
        "eos_token",
        "end_turn",
        "end",
        "complete",
        "completed",
        "finished",
        "done",
    )
)
"""The reasons, in lower case, with which a reply is complete."""

TRUNCATED = frozenset(
    (
        "length",
        "max_length",
        "model_length",
        "max_tokens",
        "max_output_tokens",
        "max_new_tokens",
        "token_limit",
        "incomplete",
        "model_context_window_exceeded",
    )
)
"""The reasons with which a reply was truncated by a limit."""

ABORTED = frozenset(("abort", "aborted", "error", "cancelled", "canceled"))
"""The reasons with which a server gave up a reply, which is then requested again."""

_REASONS = ("finish_reason", "native_finish_reason", "done_reason", "stop_reason")
_TEXT_PARTS = frozenset(("text", "output_text", "input_text"))
_THOUGHTS = frozenset(
    ("thinking", "reasoning", "thought", "thoughts", "summary", "reasoning_text", "summary_text")
)
_NO_PARTS = frozenset(("redacted_thinking", "reasoning.encrypted"))


class Said(NamedTuple):
    """What a response says.

    Attributes:
        text: the reply without thoughts; empty if there is none.
        thinking: the thoughts, if any.
        reason: why it ended, in lower case; None if the response does not tell.
        choice: the part of the response with the reply.
        unclear: what was not understood, in words.
        unended: a thought in the text never ends.
    """

    text: str
    thinking: str | None
    reason: str | None
    choice: Mapping[str, Any]
    unclear: tuple[str, ...] = ()
    unended: bool = False

    def is_truncated(self, tokens: int | None, limit: int | None) -> bool:
        """Whether the reply is not known to be complete.

        Args:
            tokens: of the reply, if known.
            limit: the most that were asked for, if any: it decides where no reason is told.
        """
        if self.reason is None and not self.unended:
            return tokens is not None and limit is not None and tokens >= limit
        return self.unended or self.reason not in COMPLETE


class Content(NamedTuple):
    """The JSON of a response; None if it is none.

    Attributes:
        value: the parsed JSON.
        unclear: what was not understood, in words.
    """

    value: Any
    unclear: tuple[str, ...] = ()


def parse_body(body: bytes, charset: str | None = None) -> Content:
    """Parse the body of a response: JSON, or a stream of events that nobody asked for.

    Args:
        body: the body, in UTF-8 unless it is another encoding of Unicode.
        charset: the character set that the response names; used where it is no UTF-8.
    """
    try:
        return Content(orjson.loads(body))
    except orjson.JSONDecodeError:  # the standard library reads more than the standard allows
        return _parse_leniently(body, charset)


def _parse_leniently(body: bytes, charset: str | None) -> Content:
    """Parse a body with NaN, control characters, another encoding, or events."""
    unclear: tuple[str, ...] = ()
    try:
        text = body.decode(json.detect_encoding(body)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        text, name = _decode(body, charset)
        unclear = (f"text that is not UTF-8, read as {name}",)
    if text.lstrip().startswith(("data:", "event:", "id:", ":")):
        return Content(_joined(text), unclear)
    try:
        return Content(json.loads(text, strict=False), unclear)
    except (ValueError, RecursionError):
        return Content(None, unclear)


def _decode(body: bytes, charset: str | None) -> tuple[str, str]:
    for name in (charset, "cp1252"):
        try:
            if name and name.lower() not in ("utf-8", "utf8"):
                return body.decode(name), name
        except (LookupError, UnicodeDecodeError):
            continue
    return body.decode("latin-1"), "latin-1"


def _joined(stream: str) -> Any:
    """Join the events of a stream to one response; None if the stream ended early."""
    message: dict[str, str] = {}
    whole: dict[str, Any] = {}
    choice: dict[str, Any] = {"message": message}
    tokens: list[Any] = []
    complete = False
    for event in _events(stream):
        if event is None:
            complete = True
            continue
        for key in ("usage", "error"):
            if event.get(key):
                whole[key] = event[key]
        for part in as_list(event.get("choices"))[:1]:
            part = as_mapping(part)
            _add(message, as_mapping(part.get("delta")) or as_mapping(part.get("message")), part)
            tokens.extend(as_list(as_mapping(part.get("logprobs")).get("content")))
            for key in _REASONS:
                if part.get(key):
                    choice[key], complete = part[key], True
            whole["choices"] = [choice]
    if tokens:
        choice["logprobs"] = {"content": tokens}
    return whole if complete or "error" in whole else None


def _events(stream: str) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a stream; None for its end."""
    for line in stream.splitlines():
        name, _, data = line.partition(":")
        if name.strip() != "data":
            continue
        if data.strip() == "[DONE]":
            yield None
            continue
        try:
            event = json.loads(data, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event


def _add(message: dict[str, str], delta: Mapping[str, Any], part: Mapping[str, Any]) -> None:
    """Add the text and the thoughts of an event to a message."""
    text, thoughts, _ = _parts(delta.get("content", part.get("text")))
    if text:
        message["content"] = message.get("content", "") + text
    for key in ("reasoning", "reasoning_content", "thinking"):
        if isinstance(delta.get(key), str):
            thoughts += delta[key]
            break
    if thoughts:
        message["reasoning"] = message.get("reasoning", "") + thoughts


def understand(content: Mapping[str, Any]) -> Said:
    """Read the first choice of a response.

    Args:
        content: the response; it has at least one choice.
    """
    choice = as_mapping(content["choices"][0])
    message = choice.get("message")
    if isinstance(message, str):
        message = {"content": message}
    message = as_mapping(message)
    said = message.get("content")
    if said is None:
        said = choice.get("text", message.get("text"))
    text, thoughts, unclear = _parts(said)
    apart = [thoughts, *_reasoning(message), *_reasoning(choice)]
    split = split_thoughts(text)
    thinking = [one for one in (*dict.fromkeys(apart), split.thinking) if one and one.strip()]
    reason = _reason(choice)
    problems = [*unclear]
    if isinstance(message.get("refusal"), str) and message["refusal"].strip():
        problems.append("a refusal in place of a reply")
    if message.get("tool_calls") or message.get("function_call"):
        problems.append("a call of a tool in place of a reply")
    if reason is not None and reason not in COMPLETE | TRUNCATED:
        problems.append(f"a reply that ended with {reason!r:.40}, which counts as truncated")
    if split.unended and split.text.strip():
        problems.append("a thought that never ends within a reply, which counts as truncated")
    if not split.text.strip() and not thinking and not problems:
        problems.append("no text")
    thought = "\n\n".join(thinking) or None
    return Said(split.text, thought, reason, choice, tuple(problems), split.unended)


def _reasoning(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the thoughts that a server keeps apart from the reply."""
    for key in ("reasoning", "reasoning_content", "thinking", "reasoning_details"):
        value = message.get(key)
        if value:
            text, thoughts, _ = _parts(value)
            yield thoughts or text
            return


def _reason(choice: Mapping[str, Any]) -> str | None:
    """Return why a reply ended, in lower case; None if no reason is told."""
    for key in _REASONS:
        reason = choice.get(key)
        if isinstance(reason, Mapping):
            reason = reason.get("type")
        if isinstance(reason, str) and reason.strip():
            return reason.strip().lower().removeprefix("finish_reason_")
        if isinstance(reason, int) and not isinstance(reason, bool) and key == "stop_reason":
            return "stop"  # the token that ended it
    return None


def _parts(content: Any, depth: int = 0) -> tuple[str, str, list[str]]:
    """Return the text, the thoughts, and what was not understood of a message's content."""
    if content is None or isinstance(content, str):
        return content or "", "", []
    if isinstance(content, list):
        found = [_part(part, depth) for part in content]
        texts, thoughts, unclear = zip(*found, strict=True) if found else ((), (), ())
        return "".join(texts), "\n\n".join(filter(None, thoughts)), [*chain(*unclear)]
    return _part(content, depth)


def _part(part: Any, depth: int) -> tuple[str, str, list[str]]:
    """Return the same of one part."""
    if isinstance(part, str):
        return part, "", []
    if not isinstance(part, dict) or depth > 4:
        return "", "", [f"a part that is {type(part).__name__}"]
    kind = str(part.get("type", "")).removeprefix("reasoning.")
    if part.get("type") in _NO_PARTS:
        return "", "", []
    keys = ("text", "parts", "content", "value", *sorted(_THOUGHTS))
    inner = next((part[key] for key in keys if part.get(key)), "")
    text, thoughts, unclear = _parts(inner, depth + 1)
    if kind in _THOUGHTS or part.get("thought") is True:
        return "", text + thoughts, unclear
    if kind in _TEXT_PARTS or (not kind and inner):
        return text, thoughts, unclear
    if kind == "refusal":
        return "", "", ["a refusal in place of a reply"]
    return "", "", [f"a part of the kind {kind!r:.40}"]


def error_message(content: Any, body: bytes) -> str:
    """Return the message of an error.

    Args:
        content: the body as JSON; None if it is none.
        body: the body.
    """
    mapping = as_mapping(content[0] if isinstance(content, list) and content else content)
    error = mapping.get("error", mapping)
    for one in (as_mapping(error), mapping):
        for key in ("message", "detail", "msg"):
            if one.get(key):
                return str(one[key])
    return error if isinstance(error, str) else body.decode("utf-8", "replace")


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


class Usage(NamedTuple):
    """The tokens that a response counts; None where it does not."""

    tokens_in: int | None
    tokens_out: int | None
    cached: int | None


def usage_of(content: Mapping[str, Any]) -> Usage:
    """Read the tokens of a response."""
    usage = as_mapping(content.get("usage"))
    details = as_mapping(usage.get("prompt_tokens_details"))
    return Usage(
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(usage, "completion_tokens", "output_tokens"),
        _count({**usage, **details}, "cached_tokens", "prompt_cache_hit_tokens"),
    )


def _count(values: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return None
