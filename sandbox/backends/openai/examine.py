"""What a server can do, found out with a few short calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import NamedTuple

from agents.forms import CallName, Rating
from sandbox.backends.addresses import Address
from sandbox.backends.base import BackendDown, Call, CallFailed, Reply, Unavailable
from sandbox.backends.openai.backend import PROBE_SECONDS, OpenAIBackend
from sandbox.backends.openai.config import DEFAULT_KEY, OpenAIConfig
from sandbox.backends.openai.constrain import Constraint, Probe
from sandbox.backends.openai.models import ModelList
from sandbox.backends.openai.request import Habits

_CONSTRAINTS = {
    Constraint.VLLM: "regular expressions (vllm)",
    Constraint.SGLANG: "regular expressions (sglang)",
    Constraint.JSON_SCHEMA: "JSON schemas (json_schema)",
}


class Trait(NamedTuple):
    """Something that a server can do.

    Attributes:
        what: the ability.
        found: what was found; None if the server lacks it.
        needed: whether a run needs it.
        advice: what it means that it is missing.
    """

    what: str
    found: str | None
    needed: bool = False
    advice: str = ""


_log = logging.getLogger(__name__)


async def examine_server(
    base_url: str, model: str | None = None, api_key_env: str = DEFAULT_KEY
) -> AsyncGenerator[Trait]:
    """Examine a server with at most 5 short calls; yield what is found, at once.

    What is waited for is logged.

    Args:
        base_url: its address.
        model: the model to call; None: the first that it lists.
        api_key_env: the environment variable with the API key.

    Raises:
        ValueError: the address or the name of the variable is invalid.
    """
    config = OpenAIConfig(
        backend="openai",
        model=model or "?",
        base_url=base_url,
        api_key_env=api_key_env,
        expected_rating=True,
    )
    backend = OpenAIBackend(config)
    try:
        [address] = await backend.open()
        listed = await backend.list_models(address)
        names = list(listed.owners) if listed else []
        yield Trait("reachable", address.url, True)
        yield _models(listed, model)
        if model is None and not names:
            yield Trait("chat/completions", None, True, "name a model with --model")
            return
        if model is None:
            await backend.close()
            backend = OpenAIBackend(config.model_copy(update={"model": names[0]}))
            [address] = await backend.open()
        async with aclosing(_calls(backend, address)) as traits:
            async for trait in traits:
                yield trait
    except BackendDown as error:
        yield Trait("reachable", None, True, str(error))
    finally:
        await backend.close()


def _models(listed: ModelList | None, model: str | None) -> Trait:
    if listed is None:
        return Trait("models", None, False, "the server lists no models")
    lacks = model is not None and not listed.has(model)
    return Trait("models", listed.words() + (f", but not {model}" if lacks else ""))


async def _calls(backend: OpenAIBackend, address: Address) -> AsyncGenerator[Trait]:
    name = f"chat/completions with {backend.model}"
    _log.info(
        "asking %s for two replies of %s (up to %g s each)",
        address.url,
        backend.model,
        PROBE_SECONDS,
    )
    try:
        first = await backend.ask_at(_rating_call(), address)
        again = await backend.ask_at(_rating_call(), address)
    except (CallFailed, Unavailable, BackendDown) as error:
        yield Trait(name, None, True, str(error))
        return
    yield Trait(name, repr(first.text[:60]), True)
    for trait in _traits(backend.habits(address), first, again):
        yield trait
    _log.info(
        "asking %s whether it constrains replies (up to %g s a call)", address.url, PROBE_SECONDS
    )
    for kind, what in _CONSTRAINTS.items():
        try:
            reply = await backend.probe(address, kind)
        except (Unavailable, BackendDown) as error:
            yield Trait(what, None, False, str(error))
            continue
        obeyed = reply is not None and Probe().parse(reply.text, reply.cut).value is not None
        ignored = "refused" if reply is None else "ignored"
        yield Trait(what, "obeyed" if obeyed else None, False, ignored)


def _rating_call() -> Call:
    system = "You rate how true a sentence is, from 1 (false) to 7 (true)."
    user = (
        "Grass is green.\n\nReply with two lines:\n"
        "Rating: a whole number from 1 to 7\nReason: a few words"
    )
    return Call(CallName(0, 0, "doctor", None), 2**62 + 7, system, user, Rating(), 160, 1.0)


def _traits(habits: Habits, first: Reply, again: Reply) -> Iterator[Trait]:
    """What the replies to one call, sent twice, show."""
    dropped = habits.dropped
    yield _taken("system message", "system" in dropped, "it is put before the user's message")
    yield _taken("temperature", "temperature" in dropped, "replies are sampled as it likes")
    if "seed" in dropped:
        yield Trait("seed", None, False, "refused: replies cannot be reproduced")
    else:
        same = "the same text twice" if first.text == again.text else "another text each time"
        yield Trait("seed", f"{same}, with {habits.seed_bits} bits")
    yield Trait("limit of tokens", habits.limit)
    missing = "refused" if "logprobs" in dropped else "none in the reply"
    expected = None if first.expected is None else "of the labels of a rating"
    yield Trait("log-probabilities", expected, False, f"{missing}: no expected_rating")
    thinking = None if first.thinking is None else f"{len(first.thinking.split()):,} words"
    yield Trait("thinking", thinking, False, "none before the reply")
    counted = None if first.tokens_out is None else f"{first.tokens_in} in, {first.tokens_out} out"
    yield Trait("token counts", counted, False, "tokens count as 0")
    cached = None if again.cached_tokens is None else f"{again.cached_tokens} of the prompt"
    yield Trait("tokens from the prefix cache", cached, False, "not reported")
    if first.raw is not None:
        yield Trait("understood", None, False, first.raw[:160])


def _taken(what: str, refused: bool, advice: str) -> Trait:
    return Trait(what, None if refused else "taken", False, f"refused: {advice}")
