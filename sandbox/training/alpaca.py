"""The Alpaca prompt template, in which the format `stable-alignment` writes its queries."""

from __future__ import annotations

import re

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\n' + message['content'] + '\n\n### Response:' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token + ('' if loop.last else '\n\n') }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
)
"""The short template (Taori et al., Stanford Alpaca, 2023) as a chat template.

With one message of the user it is the text of a query in an export. It needs no generation prompt.
"""

_QUERY = re.compile(
    r"### Instruction:\n(?P<instruction>.*?)(?:\n\n### Input:\n(?P<input>.*))?\n\n### Response:\Z",
    re.DOTALL,
)


def parts(query: str) -> tuple[str, str]:
    """The instruction and the input of a query; of another text, itself and nothing."""
    found = _QUERY.match(query)
    return (query, "") if found is None else (found["instruction"], found["input"] or "")


def message_of(query: str) -> str:
    """A query as a user's message for a model with a chat template of its own."""
    return "\n\n".join(part for part in parts(query) if part)


def question_of(query: str) -> str:
    """The question that a query is about: its instruction, or what the input begins with."""
    instruction, given = parts(query)
    if not given.startswith("Question: "):
        return message_of(query) if given else instruction
    return given.removeprefix("Question: ").partition("\n\nAnswer: ")[0]
