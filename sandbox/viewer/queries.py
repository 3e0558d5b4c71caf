"""Converts query parameters to filters of the read model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from agents.scale import Declaration, Measure
from sandbox.reading.agents import agent_orders
from sandbox.reading.calls import STATUSES, CallFilter
from sandbox.reading.exchanges import (
    PAGE,
    ExchangeFilter,
    Limits,
    gain_scales,
    kinds,
    limited_measures,
    orders,
)
from sandbox.reading.memory import Origin
from sandbox.viewer.addresses import Chip, Query
from storage.errors import InputError


def page_of(query: Query) -> int:
    """The requested page of a list, from 1."""
    return query.number("page", 1) or 1


MOST_RUNS = 20
"""Maximum number of runs that one page compares."""


def compared_runs(keys: list[str]) -> list[str]:
    """The runs that a comparison names, each once; a form sends an empty one for no choice.

    Raises:
        InputError: there are too many of them.
    """
    distinct = list(dict.fromkeys(filter(None, keys)))
    if len(distinct) > MOST_RUNS:
        raise InputError(f"run: found {len(distinct)} runs; expected at most {MOST_RUNS}")
    return distinct


ROWS = (25, PAGE, 200)
"""How many rows a page of a list can have."""

KINDS = {"rose": "improved", "equal": "unchanged", "fell": "got worse", "in play": "in progress"}
"""The kinds of exchanges for display, where their names are others."""


_ORDER_WORDS = {
    "received": "mean rating received",
    "given": "mean rating given",
    "deviation": "leniency",
    "first": "first rounds",
    "last": "last rounds",
    "change": "change from the first to the last rounds",
    "slope": "trend per round",
}


def page_size(query: Query) -> int:
    """The number of rows on a page of a list.

    Raises:
        InputError: it is none of `ROWS`.
    """
    return int(query.choice("rows", map(str, ROWS)) or PAGE)


def order_of(query: Query, names: Iterable[str], default: str) -> str:
    """The sort order of a list: a name, with a minus before it if high values come first.

    Raises:
        InputError: the list has no such order.
    """
    allowed = list(names)
    return query.choice("order", [*allowed, *(f"-{name}" for name in allowed)]) or default


def exchange_filter(query: Query, declared: Declaration) -> ExchangeFilter:
    """The filter of a list of exchanges; its parameters are those of `exchange_chips`.

    Raises:
        InputError: a value is not one that the run has.
    """
    return ExchangeFilter(
        round=query.number("round"),
        first_round=query.number("from_round"),
        last_round=query.number("to_round"),
        author=query.number("author"),
        rater=query.number("rater"),
        label=query.text("label"),
        question=query.number("question"),
        model=query.text("model"),
        kind=query.choice("kind", kinds(declared)),
        scale=query.choice("scale", gain_scales(declared)),
        limits=tuple(_limits(query, declared)),
        search=query.text("q"),
        order=order_of(query, orders(declared), ExchangeFilter.order),
    )


def _limits(query: Query, declared: Declaration) -> Iterator[Limits]:
    for name in limited_measures(declared):
        low, high = query.decimal(f"{name}_min"), query.decimal(f"{name}_max")
        if low is not None or high is not None:
            yield Limits(name, low, high)


def exchange_chips(query: Query, declared: Declaration) -> list[Chip]:
    """The active filters and the order of a list of exchanges."""
    words = {
        "q": "contains “{}”",
        "round": "round {}",
        "from_round": "from round {}",
        "to_round": "up to round {}",
        "author": "author #{}",
        "rater": "rated by #{}",
        "label": "starting label {}",
        "question": "question {}",
        "model": "model {}",
        "kind": "{}",
        "scale": "judged by {}",
    }
    for name in limited_measures(declared):
        title = "spread of raters" if name == "spread" else name.replace("_", " ")
        words |= {f"{name}_min": f"{title} ≥ {{}}", f"{name}_max": f"{title} ≤ {{}}"}
    return chips(query, words)


def chips(query: Query, words: Mapping[str, str]) -> list[Chip]:
    """The active filters and the order of a list, each with the query string without it.

    Args:
        query: the query.
        words: by parameter, what it selects, with ``{}`` for its value.
    """
    found = [
        Chip(
            pattern.format(KINDS.get(value, value.replace("_", " ")) if name == "kind" else value),
            query.changed(**{name: None, "page": None, "before": None, "after": None}),
        )
        for name, pattern in words.items()
        for value in [query.text(name)]
        if value is not None
    ]
    order = query.text("order")
    if order is not None:
        way = "highest first" if order.startswith("-") else "lowest first"
        name = order.removeprefix("-")
        text = f"by {_ORDER_WORDS.get(name, name).replace('_', ' ')}, {way}"
        found.append(Chip(text, query.changed(order=None, page=None)))
    return found


def call_filter(query: Query) -> CallFilter:
    """The filter of a list of calls; its parameters are those of `call_chips`, before and after.

    Raises:
        InputError: a value is not allowed.
    """
    return CallFilter(
        form=query.text("form"),
        agent=query.number("agent"),
        round=query.number("round"),
        status=query.choice("status", STATUSES),
        tokens_in_min=query.number("tokens_in_min"),
        tokens_in_max=query.number("tokens_in_max"),
        tokens_out_min=query.number("tokens_out_min"),
        tokens_out_max=query.number("tokens_out_max"),
        before=query.number("before"),
        after=query.number("after"),
    )


def call_chips(query: Query) -> list[Chip]:
    """The active filters of a list of calls."""
    words = {
        "form": "{}",
        "agent": "agent #{}",
        "round": "round {}",
        "status": "status {}",
        "tokens_in_min": "tokens in ≥ {}",
        "tokens_in_max": "tokens in ≤ {}",
        "tokens_out_min": "tokens out ≥ {}",
        "tokens_out_max": "tokens out ≤ {}",
    }
    return chips(query, words)


def agent_order(query: Query, declared: Declaration) -> str:
    """The sort order of a list of agents.

    Raises:
        InputError: the run has no such order.
    """
    return order_of(query, agent_orders(declared), "number")


def agent_trend(query: Query, declared: Declaration) -> Measure | None:
    """The measure whose trend a list of agents shows: by default the first of the main scale.

    Raises:
        InputError: the run has no such measure.
    """
    measures = {one.name: one for one in declared.measures if one.kind == "score"}
    name = query.choice("trend", measures) or next(iter(measures), None)
    return None if name is None else measures[name]


def agent_chips(query: Query) -> list[Chip]:
    """The active filters and the order of a list of agents."""
    return chips(query, {"q": "persona contains “{}”", "label": "starting label {}"})


def memory_origin(query: Query) -> Origin | None:
    """The filter of memories: see `sandbox.reading.memory.Origin`; None for all.

    Raises:
        InputError: the value is none of these.
    """
    allowed: tuple[Origin, ...] = ("changed", "again", "learned", "prior")
    query.choice("only", allowed)
    return next((origin for origin in allowed if origin == query.values.get("only")), None)
