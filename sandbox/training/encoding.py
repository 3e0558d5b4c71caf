"""Texts as a model reads them: token ids of a conversation and of the answer that is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from agents.plugins import exception_line
from sandbox.text import short
from sandbox.training.alpaca import CHAT_TEMPLATE, message_of
from storage.errors import InputError

Messages = Sequence[dict[str, str]]

IGNORED = -100
"""The label of a token that is not learnt."""

_PROBE = "a short answer"


class Encoded(NamedTuple):
    """Token ids of a prompt, and of what the assistant says to it, up to the end of its turn."""

    prompt: list[int]
    said: list[int]

    def cut(self, length: int | None) -> tuple[list[int], list[int]]:
        """The first `length` tokens (None: all) and their labels: the prompt's are ignored."""
        tokens = [*self.prompt, *self.said]
        labels = [*[IGNORED] * len(self.prompt), *self.said]
        return tokens[:length], labels[:length]


def encode(tokenizer: Any, prompt: Messages, answer: str) -> Encoded:
    """Encode a conversation and its answer as a chat template renders them.

    The prompt has the tokens that a server gives the model; those of the answer follow. What a
    template writes after the end of the turn is not learnt.

    Raises:
        InputError: the chat template cannot render the conversation.
    """
    asked = _rendered(tokenizer, prompt, add_generation_prompt=True)
    whole = _rendered(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    if not whole.startswith(asked):
        asked = _rendered(tokenizer, prompt)
    if not whole.startswith(asked):
        raise InputError(
            "model: its chat template renders a question alone in another way than before an "
            "answer; expected one that adds the answer to it"
        )
    return _encoded(tokenizer, asked, whole[len(asked) :])


def encode_query(tokenizer: Any, query: str, response: str) -> Encoded:
    """Encode a query of the format `stable-alignment` with a response.

    With the Alpaca template, in which queries are written, it is taken as it stands.
    """
    if tokenizer.chat_template == CHAT_TEMPLATE:
        return _encoded(tokenizer, query, f" {response}{tokenizer.eos_token}")
    return encode(tokenizer, [{"role": "user", "content": message_of(query)}], response)


def check_template(tokenizer: Any) -> None:
    """Check that a chat template renders what the assistant says.

    Raises:
        InputError: it does not, so that nothing would be learnt.
    """
    question = {"role": "user", "content": "a short question"}
    if _PROBE not in _rendered(tokenizer, [question, {"role": "assistant", "content": _PROBE}]):
        raise InputError(
            "model: its chat template leaves out what the assistant says, so that nothing would "
            "be learnt; expected one that renders it"
        )


def _rendered(tokenizer: Any, messages: Messages, **options: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))
    except Exception as error:  # a template may raise anything
        reason = short(exception_line(error), 200)
        raise InputError(f"model: its chat template cannot render a row: {reason}") from None


def _encoded(tokenizer: Any, asked: str, said: str) -> Encoded:
    prompt, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, said))
    end = tokenizer.eos_token_id
    turn = ids[: len(ids) - ids[::-1].index(end)] if end in ids else [*ids, end]
    return Encoded(list(prompt), list(turn))
