"""Converts query parameters to filters of the read model."""

from __future__ import annotations

from agents.scale import Declaration
from sandbox.reading.agents import agent_orders
from sandbox.reading.calls import STATUSES, CallFilter
from sandbox.reading.exchanges import ExchangeFilter, kinds, orders
from sandbox.reading.memory import Origin
from sandbox.reading.raters import RATER_ORDERS
from sandbox.viewer.addresses import Query
from storage.errors import InputError


def page_of(query: Query) -> int:
    """The requested page of a list, from 1."""
    return query.number("page", 1) or 1


MOST_RUNS = 20
"""Maximum number of runs that one page compares."""


def compared_runs(keys: list[str]) -> list[str]:
    """The runs that a comparison names, each once.

    Raises:
        InputError: there are too many of them.
    """
    distinct = list(dict.fromkeys(keys))
    if len(distinct) > MOST_RUNS:
        raise InputError(f"run: found {len(distinct)} runs; expected at most {MOST_RUNS}")
    return distinct


def exchange_filter(query: Query, declared: Declaration) -> ExchangeFilter:
    """The filter of a list of exchanges: q, round, author, rater, label, kind, order.

    Raises:
        InputError: a value is not one that the run has.
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
        InputError: a value is not allowed.
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
    """The sort order of a list of agents.

    Raises:
        InputError: the run has no such order.
    """
    return query.choice("order", agent_orders(declared)) or "number"


def rater_order(query: Query) -> str:
    """The sort order of the table of raters.

    Raises:
        InputError: there is no such order.
    """
    return query.choice("order", RATER_ORDERS) or "-deviation"


def memory_origin(query: Query) -> Origin | None:
    """The filter of memories: only changed, learned or prior ones; None for all.

    Raises:
        InputError: the value is none of these.
    """
    allowed: tuple[Origin, ...] = ("changed", "learned", "prior")
    query.choice("only", allowed)
    return next((origin for origin in allowed if origin == query.values.get("only")), None)
