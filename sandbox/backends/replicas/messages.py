"""Messages between a driver and a replica: batches of calls, and batches of results.

They are pickled: both sides are processes of one user with the same code. Errors of backends travel
with their attributes.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from agents.plugins import exception_line
from sandbox.backends.base import Call, CallFailed, Reply

Result = Reply | BaseException
"""What becomes of a call: its reply, or the error that `Backend.answer` raised."""


class Batch(NamedTuple):
    """What a driver sends at once.

    Attributes:
        calls: the calls, by number, and an error for those that cannot be read.
        cancelled: the numbers of calls that nobody waits for any more.
    """

    calls: Mapping[int, Call | CallFailed]
    cancelled: Sequence[int]


def encode_batch(calls: Mapping[int, Call], cancelled: Collection[int]) -> bytes:
    """Encode calls by number, and the numbers of calls that are cancelled.

    Raises:
        Exception: a call cannot be pickled.
    """
    return pickle.dumps((list(calls), pickle.dumps(list(calls.values()), 5), list(cancelled)), 5)


def decode_batch(data: bytes) -> Batch:
    """Decode a batch; where its calls cannot be read, each is an error."""
    numbers, calls, cancelled = pickle.loads(data)
    try:
        read: list[Any] = pickle.loads(calls)
    except Exception as error:  # a class of a file that cannot be loaded here
        reason = f"a replica cannot read the call: {exception_line(error)}"
        read = [CallFailed(reason) for _ in numbers]
    return Batch(dict(zip(numbers, read, strict=True)), cancelled)


def encode_results(results: Mapping[int, Any]) -> bytes:
    """Encode results by number; what cannot be pickled becomes a failed call."""
    try:
        return pickle.dumps(dict(results), 5)
    except Exception:  # the code of a backend can return anything
        return pickle.dumps({number: _portable(one) for number, one in results.items()}, 5)


def _portable(result: Any) -> Any:
    try:
        pickle.dumps(result, 5)
    except Exception:
        kind = type(result).__name__
        return CallFailed(f"the backend returned {kind}, which cannot be sent; expected Reply")
    return result


def decode_results(data: bytes) -> dict[int, Result]:
    """Decode results by number.

    Raises:
        Exception: they have a class of a file that is not loaded here.
    """
    results: dict[int, Result] = pickle.loads(data)
    return results
