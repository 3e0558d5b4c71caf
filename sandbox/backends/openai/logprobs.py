"""The log-probabilities in a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.backends.openai.response import as_list, as_mapping

_MIN_LOGPROB = -700.0  # servers write -9999 or less for a probability of about 0

Tokens = list[tuple[str, dict[str, float]]]
"""The tokens of a reply: the text of each, and the log-probability of each alternative."""


def tokens_of(choice: Mapping[str, Any], chat: bool) -> Tokens:
    """Return the tokens of a choice, of a chat completion or of a text completion."""
    logprobs = as_mapping(choice.get("logprobs"))
    return _chat_tokens(logprobs) if chat else _completion_tokens(logprobs)


def _chat_tokens(logprobs: Mapping[str, Any]) -> Tokens:
    tokens: Tokens = []
    for entry in map(as_mapping, as_list(logprobs.get("content"))):
        alternatives = [as_mapping(item) for item in as_list(entry.get("top_logprobs"))]
        pairs = [(item.get("token"), item.get("logprob")) for item in (*alternatives, entry)]
        tokens.append((str(entry.get("token", "")), _log_probabilities(pairs)))
    return tokens


def _completion_tokens(logprobs: Mapping[str, Any]) -> Tokens:
    columns = [as_list(logprobs.get(key)) for key in ("tokens", "token_logprobs", "top_logprobs")]
    return [
        (str(text), _log_probabilities([*as_mapping(alternatives).items(), (text, logprob)]))
        for text, logprob, alternatives in zip(*columns, strict=False)
    ]


def _log_probabilities(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    return {
        str(text): min(0.0, max(_MIN_LOGPROB, float(logprob)))
        for text, logprob in pairs
        if isinstance(logprob, int | float)
    }


def without_thinking(tokens: Tokens, reply: str) -> Tokens:
    """Return the tokens of the reply, without those of the thinking before it."""
    line, joined = reply.strip().split("\n")[0], ""
    for start in range(len(tokens) - 1, -1, -1):
        joined = tokens[start][0] + joined
        if line in joined:
            return tokens[start:]
    return []
