"""The map of a society in pages and files: its values, colours, rounds, and an agent's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from agents.persona import Persona
from agents.scale import Declaration, Measure
from sandbox.reading import charts
from sandbox.reading.agents import read_agent
from sandbox.reading.charts import Spec
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import Figure
from sandbox.reading.influence import Bands
from sandbox.reading.map import (
    Frame,
    Trait,
    advice,
    author_episode,
    complete_round,
    frame,
    is_grid,
    last_round,
    map_measures,
    map_traits,
)
from sandbox.text import escape_controls, short
from sandbox.viewer.addresses import Links, Query
from storage.errors import InputError, NotThere
from storage.exchanges import Exchange, exchange
from storage.reader import Reader
from storage.search import terms

Row = dict[str, Any]

SAID = "said"
"""The measure that colours agents by the round in which they first said what is searched for."""


class Colouring(NamedTuple):
    """An option of what colours the map.

    Attributes:
        name: in the address, and the key of the value in the rows of a frame.
        title: the displayed name.
        group: `score`, `category`, `count` or `said`.
        data: attributes for the script: `kind`; of a score also `better`, `base` (of a gain: the
            measure that it ends at), `low` and `middle` (the bands of scores).
    """

    name: str
    title: str
    group: Literal["score", "category", "count", "said"]
    data: Mapping[str, object]


def colourings(
    declared: Declaration, traits: Sequence[Trait], searched: bool = False
) -> list[Colouring]:
    """What can colour the map of a run; first its measures.

    Args:
        declared: the declaration of the run.
        traits: its traits.
        searched: whether there is a query, so that agents can be coloured by who has said it.
    """
    scores = [
        Colouring(one.name, one.title, "score", _score_data(one, declared))
        for one in map_measures(declared)
    ]
    others = [
        Colouring(
            trait.name,
            trait.title,
            "category" if trait.values else "count",
            {"kind": "category" if trait.values else "count"},
        )
        for trait in traits
    ]
    said = [Colouring(SAID, "has said it (round of first use)", "said", {"kind": SAID})]
    return [*scores, *others, *(said if searched else [])]


def _score_data(measure: Measure, declared: Declaration) -> Row:
    bands, scale = Bands.of(measure.scale), measure.scale
    data: Row = {"kind": measure.kind, "better": scale.better, "scale": scale.title}
    if measure.kind == "score":
        gain = declared.gain(scale)
        gained = declared.main is not None and gain is not None and scale == declared.main
        return {**data, "low": bands.low, "middle": bands.middle} | (
            {"gain": gain.name} if gained and gain is not None else {}
        )
    return data


def map_values(
    reader: Reader, key: str, query: Query, links: Links, frames: list[Row] | None
) -> Row:
    """The values of `map.html`, of `advice.html` in a static copy, and of the chosen agent's card.

    Args:
        reader: the run.
        key: its name in URLs.
        query: `round` (one after the latest: the latest, and `beyond` is the one asked for), `by`,
            `agent`, `q`.
        links: builds the URLs of links.
        frames: the rounds that a static copy embeds; None where they are fetched.

    Raises:
        InputError: a parameter is not allowed.
    """
    q, traits = query.text("q"), map_traits(reader)
    if links.static:  # its frames have no counts
        traits = [trait for trait in traits if trait.values]
    searched = bool(terms(q or ""))
    offered = colourings(declaration_of(reader), traits, searched)
    names = [one.name for one in offered]
    last, complete = last_round(reader), complete_round(reader)
    asked = query.number("round", 0, 2**31)
    at = (last if complete is None else complete) if asked is None else min(asked, last or 0)
    labels = next((one.values for one in traits if one.name == "label"), ())
    return {
        "q": q,
        "first": frames[0]["round"] if frames else 0,
        "last": last,
        "complete": complete,
        "at": at,
        "beyond": asked if at is not None and asked is not None and asked > at else None,
        "colourings": offered,
        "by": query.choice("by", names) or next(iter(names), None),
        "map": map_chart(reader, traits, searched),
        "labels": charts.group_colours(labels),
        "shape": "grid" if is_grid(reader) else "graph",
        "frames": frames,
        "hrefs": _hrefs(key, links, q),
        "card": None if links.static else _chosen_card(reader, query, at),
        "advice": advice(reader, last) if frames and last is not None else None,
    }


def _hrefs(key: str, links: Links, q: str | None) -> dict[str, str]:
    """URLs of what the map fetches; its script replaces {round} and {agent}."""
    run = partial(links.run, key)
    return {
        "frames": f"{run('frames')}/{{round}}.json",
        "card": f"{run('card')}/{{agent}}/{{round}}",
        "files": f"{run('map')}/{{round}}",
        "advice": f"{run('advice')}/{{round}}",
        "neighbours": run("neighbours"),
        "said": run("spread.json", q=q),
        "spread": run("spread", q=q),
    }


def _chosen_card(reader: Reader, query: Query, round: int | None) -> AgentCard | None:
    chosen = query.number("agent", 0, 2**31)
    if chosen is None or round is None:
        return None
    try:
        return agent_card(reader, chosen, round)
    except NotThere as error:
        raise InputError(str(error)) from None


def check_round(reader: Reader, round: int) -> None:
    """Check that a round has begun.

    Raises:
        NotThere: it has not.
    """
    last = last_round(reader) or 0
    if round > last:
        raise NotThere(f"round {round}: no such round; expected 0 to {last}")


def map_chart(reader: Reader, traits: Sequence[Trait], searched: bool = False) -> Spec:
    """The map of a run without agents; see `charts.society`."""
    declared = declaration_of(reader)
    measures = map_measures(declared)
    counts = [trait.name for trait in traits if not trait.values]
    return charts.society(
        {one.name: one.scale for one in measures if one.kind == "score"},
        {one.name: one.scale for one in measures if one.kind == "gain"},
        {trait.name: trait.values for trait in traits if trait.values},
        [*counts, SAID] if searched else counts,
        shape="grid" if is_grid(reader) else "graph",
        peers=declared.peers,
    )


def frame_data(shown: Frame, key: str, links: Links) -> Row:
    """The map of one round for its script, with texts escaped and a link for each agent.

    A question is a position in `questions`, because many agents may be asked the same.
    """
    questions: dict[str, int] = {}
    nodes = []
    for node in shown.nodes:
        traits = {name: value for name, value in node.traits.items() if value is not None}
        data = {
            "agent": node.agent,
            "name": escape_controls(node.name),
            "label": node.label,
            "x": node.x,
            "y": node.y,
            **node.scores,
            **traits,
            "href": links.run(key, "agents", node.agent),
        }
        if node.question is not None:
            data["question"] = questions.setdefault(node.question, len(questions))
        nodes.append(data)
    return {
        "round": shown.round,
        "complete": shown.complete,
        "nodes": nodes,
        "edges": shown.edges,
        "questions": [short(escape_controls(question), 80) for question in questions],
    }


def map_figure(reader: Reader, round: int, query: Query) -> Figure:
    """A round of the map as a figure; its rows are the agents.

    Args:
        reader: the run.
        round: the round.
        query: `by`, the name of a `Colouring`.

    Raises:
        InputError: the run has no such colouring.
        NotThere: there is no such round.
    """
    check_round(reader, round)
    traits = map_traits(reader)
    options = colourings(declaration_of(reader), traits)
    names = [one.name for one in options]
    by = query.choice("by", names) or names[0]
    counts = [one.name for one in options if one.group == "count"]
    found = frame(reader, round, by if by in counts else None)
    title = next(one.title for one in options if one.name == by)
    return Figure(
        f"map-{round}",
        f"Agents by {title}, round {round}",
        f"Each mark is an agent, coloured by {title}; hollow: no value.",
        _agent_rows(found),
        partial(_drawn, map_chart(reader, traits), by),
    )


def _agent_rows(shown: Frame) -> list[Row]:
    received: dict[int, list[float]] = {}
    for _, author, rating in shown.edges:
        received.setdefault(author, []).append(rating)
    rows = []
    for node in shown.nodes:
        given = received.get(node.agent, [])
        ratings = {"mean_rating": sum(given) / len(given) if given else None, "ratings": len(given)}
        rows.append({"round": shown.round, **node.as_dict(), **ratings})
    return rows


def _drawn(spec: Spec, by: str, rows: charts.Rows) -> Spec:
    numbers = [value for row in rows if isinstance(value := row[by], int | float)]
    low, width = min(numbers, default=0), (max(numbers, default=0) - min(numbers, default=0)) or 1
    nodes: list[Row] = []
    for row in rows:
        value = row[by]
        node = {name: row[name] for name in ("agent", "label", "x", "y")}
        node |= {"value": value, "text": ""}
        if isinstance(value, int | float):
            few = len(rows) <= charts.MANY_NUMBERS
            node["text"] = f"{value:.3g}".replace("-", "\u2212") if few else ""
            node["share"] = (value - low) / width  # the ink on counts follows it
        nodes.append(node)
    return charts.with_nodes(spec, nodes, by)


class AgentCard(NamedTuple):
    """A chosen agent in a round of the map.

    Attributes:
        agent, label: its number and starting demographic.
        persona: who it is.
        round: the round.
        exchange: its exchange in that round; None: none.
    """

    agent: int
    label: str
    persona: Persona
    round: int
    exchange: Exchange | None


def agent_card(reader: Reader, number: int, round: int) -> AgentCard:
    """Read an agent and its exchange in a round.

    Raises:
        NotThere: there is no such agent.
    """
    agent = read_agent(reader, number)
    episode = author_episode(reader, number, round)
    shown = None if episode is None else exchange(reader, episode)
    return AgentCard(number, agent.label, agent.persona, round, shown)
