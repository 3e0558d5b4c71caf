"""What an address asks for, as arguments of the read model."""

from __future__ import annotations

from agents.scale import Declaration
from sandbox.reading.agents import agent_orders
from sandbox.reading.calls import STATUSES, CallFilter
from sandbox.reading.exchanges import ExchangeFilter, kinds, orders
from sandbox.reading.memory import Origin
from sandbox.viewer.addresses import Query


def page_of(query: Query) -> int:
    """The page of a list that an address asks for, from 1."""
    return query.number("page", 1) or 1


def exchange_filter(query: Query, declared: Declaration) -> ExchangeFilter:
    """The filter of a list of exchanges: q, round, author, rater, label, kind, order.

    Raises:
        InputError: a value is none that the run has.
    """
    return ExchangeFilter(
        round=query.number("round"),
        author=query.number("author"),
        rater=query.number("rater"),
        label=query.text("label"),
        kind=query.choice("kind", kinds(declared)),
        search=query.text("q"),
        order=query.choice("order", orders(declared)) or "newest",
    )


def call_filter(query: Query) -> CallFilter:
    """The filter of a list of calls: form, agent, round, status, before, after.

    Raises:
        InputError: a value is none of those that are allowed.
    """
    return CallFilter(
        form=query.text("form"),
        agent=query.number("agent"),
        round=query.number("round"),
        status=query.choice("status", STATUSES),
        before=query.number("before"),
        after=query.number("after"),
    )


def agent_order(query: Query, declared: Declaration) -> str:
    """The order of a list of agents.

    Raises:
        InputError: it is none that the run has.
    """
    return query.choice("order", agent_orders(declared)) or "number"


def memory_origin(query: Query) -> Origin | None:
    """Which memories are asked for: only changed, learned or prior ones.

    Raises:
        InputError: it is another word.
    """
    allowed: tuple[Origin, ...] = ("changed", "learned", "prior")
    query.choice("only", allowed)
    return next((word for word in allowed if word == query.values.get("only")), None)
