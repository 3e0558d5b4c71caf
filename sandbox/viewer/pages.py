"""Renders the pages: reads what a page shows and fills in its template."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from agents.scale import Scale
from sandbox.reading import (
    agents,
    bounds,
    calls,
    charts,
    conversation,
    exchange_detail,
    exchanges,
    memory,
    raters,
    runs,
)
from sandbox.reading import map as society_map
from sandbox.reading import policy as policies
from sandbox.reading.agreement import agreements
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import PAGE, SEARCHED
from sandbox.reading.figures import Figure, of_bounds, rater_agreement, ratings, scores
from sandbox.reading.metrics import outcomes
from sandbox.reading.recall import Recall, recall
from sandbox.reading.records import Page
from sandbox.reading.sessions import sessions
from sandbox.text import escape_controls
from sandbox.viewer import comparison
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.catalog import Entry, RunCatalog
from sandbox.viewer.figure_files import figure_links
from sandbox.viewer.filters import environment
from sandbox.viewer.queries import (
    agent_order,
    call_filter,
    exchange_filter,
    memory_origin,
    page_of,
    rater_order,
)
from sandbox.viewer.report import bounds_tables
from sandbox.viewer.report import tables as report_tables
from storage.errors import InputError, StorageFault, damage_reported
from storage.exchanges import Exchange, exchange
from storage.reader import Reader
from storage.search import terms

Row = dict[str, Any]

TABS = (
    ("Society", "society", ()),
    ("Agents", "agents", ("agents",)),
    ("Exchanges", "exchanges", ("exchanges",)),
    ("Ratings", "ratings", ("ratings",)),
    ("Policy", "policy", ("policy",)),
    ("Calls", "calls", ("calls",)),
    ("About", "about", ("about",)),
)

_HITS = 15  # search results on a page
_LATEST = 6  # exchanges and ratings listed on the page of an agent
_MEMORIES = 10  # memories on a page
_AGENT_HITS = 20
_BREACHES = 50  # breaches listed on the page of the policy
_WISHES = 100  # overruled wishes listed there
_RATERS = 25  # raters on a page
_COPIED_RATERS = 500  # raters listed in a static copy


class Pages:
    """Renders pages of the runs of a catalog.

    Args:
        catalog: the runs.
        links: builds the URLs of links.
    """

    def __init__(self, catalog: RunCatalog, links: Links) -> None:
        self._catalog = catalog
        self._links = links
        self._templates = environment()
        self._agreements: dict[str, tuple[str, Row]] = {}

    def _fill(self, template: str, **values: Any) -> str:
        common: Row = {"run": None, "tabs": [], "search_href": None, "pulse": None, "mark": None}
        common |= {"q": None, "root": self._links.root, "static": self._links.static}
        return self._templates.get_template(template).render(
            {**common, "links": self._links, **values}
        )

    def _page(self, key: str, tab: str, template: str, reader: Reader, **values: Any) -> str:
        """Render a page of a run with the header and tabs that all of them have."""
        links = self._links
        here = runs.overview(reader, self._catalog.entry(key).address)
        tabs = [(label, links.run(key, *path), name, name == tab) for label, name, path in TABS]
        left_out = {"calls"} if links.static else set()
        left_out |= {"policy"} if reader.run.policy is None else set()
        tabs = [tab for tab in tabs if tab[2] not in left_out]
        live = not (here.finished or links.static)
        frame: Row = {
            "run": here.run,
            "key": key,
            "tabs": tabs,
            "here": here,
            "mark": here.mark,
            "declared": declaration_of(reader),
            "search_href": None if links.static else links.run(key, "search"),
            "pulse": links.run(key, "pulse.json") if live else None,
        }
        return self._fill(template, **{**frame, **values})

    def runs(self, query: Query) -> str:
        """The list of runs."""
        rows = [self._run_row(entry) for entry in self._catalog.entries()]
        rows.sort(key=lambda row: row["here"].created if row["here"] else "", reverse=True)
        pulse = None if self._links.static else f"{self._links.root}pulse.json"
        return self._fill("runs.html", rows=rows, mark=_change_marker(rows), pulse=pulse)

    def runs_pulse(self) -> Row:
        """The change marker that the list of runs polls."""
        rows = [self._run_row(entry) for entry in self._catalog.entries()]
        return {"mark": _change_marker(rows), "over": False, "status": "running"}

    def _run_row(self, entry: Entry) -> Row:
        row: Row = {"key": entry.key, "here": None, "problem": None}
        row["file"] = Path(str(entry.address.url.database)).name
        try:
            with damage_reported(str(entry.address)):
                return row | {"here": runs.overview(self._catalog.reader(entry), entry.address)}
        except (InputError, StorageFault) as error:
            return row | {"problem": str(error)}

    def pulse(self, key: str) -> Row:
        """The change marker that the pages of a run poll."""
        here = runs.overview(self._catalog.open(key), self._catalog.entry(key).address)
        return {"mark": here.mark, "over": here.finished, "status": here.status}

    def society(self, key: str, query: Query, frames: list[Row] | None = None) -> str:
        """The map of the society, and figures by round."""
        reader = self._catalog.open(key)
        measures = society_map.map_measures(declaration_of(reader))
        last = society_map.last_round(reader)
        at = query.number("round", 0, 2**31)
        at = last if at is None or last is None else min(at, last)
        shape: Literal["grid", "graph"] = "grid" if society_map.is_grid(reader) else "graph"
        finals = {one.name: one.scale for one in measures if one.kind == "score"}
        gains = {one.name: one.scale for one in measures if one.kind == "gain"}
        by = query.choice("by", [one.name for one in measures])
        return self._page(
            key,
            "society",
            "society.html",
            reader,
            last=last,
            at=at,
            measures=measures,
            by=by or next((one.name for one in measures), None),
            map=charts.society([], [], finals, gains, shape),
            shape=shape,
            frames=frames,
            first=frames[0]["round"] if frames else 0,
            frames_href=f"{self._links.run(key, 'frames')}/{{round}}.json",
            advice_href=f"{self._links.run(key, 'advice')}/{{round}}",
            advice=society_map.advice(reader, last) if frames and last is not None else None,
            figures=self._figures(key, scores(outcomes(reader), declaration_of(reader))),
        )

    def frame(self, key: str, round: int) -> Row:
        """The map of one round, as data for its script."""
        return frame_data(society_map.frame(self._catalog.open(key), round), key, self._links)

    def advice(self, key: str, round: int) -> str:
        """Neighbourhood statistics of a round, an HTML fragment of the society page."""
        reader = self._catalog.open(key)
        return self._fill(
            "advice.html",
            key=key,
            advice=society_map.advice(reader, round),
            declared=declaration_of(reader),
        )

    def _figures(self, key: str, figures: list[Figure]) -> list[Row]:
        return [
            {"figure": figure, "links": self._figure_links(key, figure)}
            for figure in figures
            if figure.rows
        ]

    def _figure_links(self, key: str, figure: Figure) -> list[tuple[str, str]]:
        if self._links.static:
            return []
        return list(figure_links(self._links.run(key, "figures", figure.name)))

    def agents(self, key: str, query: Query) -> str:
        """The list of agents."""
        reader = self._catalog.open(key)
        declared = declaration_of(reader)
        order = agent_order(query, declared)
        rows = agents.agents(reader, query.text("q"), query.text("label"), order)
        return self._page(
            key,
            "agents",
            "agents.html",
            reader,
            found=Page.of(rows, page_of(query), PAGE),
            query=query,
            measures=agents.agent_measures(declared),
            orders=agents.agent_orders(declared),
        )

    def agent(self, key: str, number: int, query: Query) -> str:
        """An agent: persona, memory, and ratings received and given."""
        reader = self._catalog.open(key)
        agent, round = agents.read_agent(reader, number), query.number("round")
        origin = memory_origin(query)
        memories = memory.internal_memory(reader, number, round, query.text("q"), origin)
        return self._page(
            key,
            "agents",
            "agent.html",
            reader,
            agent=agent,
            bound=policies.bound_agent(reader, number),
            number=number,
            query=query,
            round=round,
            memories=Page.of(memories, page_of(query), _MEMORIES),
            received=memory.latest_exchanges(reader, number, round, _LATEST),
            given=raters.ratings_given(reader, number).get(number),
            latest_given=raters.latest_ratings_given(reader, number, _LATEST),
            raters=raters.raters_of(reader, number),
            charts=_history_charts(reader, number),
        )

    def exchanges(self, key: str, query: Query) -> str:
        """The list of exchanges."""
        reader = self._catalog.open(key)
        declared = declaration_of(reader)
        wanted = exchange_filter(query, declared)
        return self._page(
            key,
            "exchanges",
            "exchanges.html",
            reader,
            found=exchanges.exchange_page(reader, wanted, page_of(query)),
            query=query,
            kinds=exchanges.kinds(declared),
            limit=SEARCHED,
            orders=exchanges.orders(declared),
            q=query.text("q"),
        )

    def exchange(self, key: str, number: int, query: Query) -> str:
        """An exchange with its texts, ratings, scene and calls."""
        reader = self._catalog.open(key)
        shown = exchange_detail.read_exchange(reader, number)
        return self._page(
            key,
            "exchanges",
            "exchange.html",
            reader,
            exchange=shown.exchange,
            shown=shown,
            number=number,
            terms=terms(query.text("q") or ""),
        )

    def ratings(self, key: str, query: Query) -> str:
        """Ratings and raters: agreement, leniency, distributions, missing ratings."""
        reader, order = self._catalog.open(key), rater_order(query)
        counts, declared = outcomes(reader), declaration_of(reader)
        rows = raters.raters(reader) if declared.peers is not None else []
        shown = {one.name: one for one in ratings(reader, counts, declared)}
        apart = ("bias", "matrix", "missing")
        *beside, absent = (self._figures(key, self._linked(key, shown.get(name))) for name in apart)
        listed = _COPIED_RATERS if self._links.static else _RATERS
        return self._page(
            key,
            "ratings",
            "ratings.html",
            reader,
            finding=report_tables.rater_summary(rows) if rows else None,
            agreement_href=self._links.run(key, "ratings", "agreement"),
            agreement=self._agreement(key) if self._links.static else None,
            found=Page.of(raters.sorted_raters(rows, order), page_of(query), listed),
            query=query,
            order=order,
            beside=[item for one in beside for item in one],
            figures=self._figures(key, [one for one in shown.values() if one.name not in apart]),
            absent=absent,
            missing=report_tables.missing(counts, declared)._replace(title="Missing ratings"),
        )

    def _linked(self, key: str, figure: Figure | None) -> list[Figure]:
        """A figure of agents whose marks lead to their pages; an empty list for None."""
        if figure is None or figure.name != "bias":
            return [] if figure is None else [figure]
        linked = [
            {**row, "href": self._links.run(key, "agents", row["agent"])} for row in figure.rows
        ]
        return [figure._replace(rows=linked)]

    def rater_agreement(self, key: str) -> str:
        """The agreement of raters, an HTML fragment that the page of ratings loads afterwards."""
        return self._fill("agreement.html", **self._agreement(key))

    def _agreement(self, key: str) -> Row:
        """What the fragment shows; kept until the run changes, since it reads all ratings."""
        reader = self._catalog.open(key)
        mark = runs.overview(reader, self._catalog.entry(key).address).mark
        if self._agreements.get(key, ("", {}))[0] != mark:
            found, drawn = agreements(reader), rater_agreement(reader)
            self._agreements[key] = mark, {"alphas": found.overall, "drawn": drawn}
        kept = self._agreements[key][1]
        return {"alphas": kept["alphas"], "figures": self._figures(key, kept["drawn"])}

    def policy(self, key: str, query: Query) -> str:
        """The policy of a run: rules, wishes that they overrule, breaches, and measures."""
        reader = self._catalog.open(key)
        measured = bounds.measure(reader, policies.required_policy(reader))
        return self._page(
            key,
            "policy",
            "policy.html",
            reader,
            policy=policies.run_policy(reader),
            breaches=policies.latest_breaches(reader, _BREACHES),
            wishes=policies.overruled_wishes(reader, _WISHES),
            operational=bounds.OPERATIONAL,
            tables=bounds_tables.bounds_tables(measured),
            figures=self._figures(key, of_bounds(measured)),
        )

    def calls(self, key: str, query: Query) -> str:
        """The list of calls."""
        reader = self._catalog.open(key)
        return self._page(
            key,
            "calls",
            "calls.html",
            reader,
            found=calls.call_page(reader, call_filter(query)),
            query=query,
            forms=[one.name for one in runs.templates(reader)],
            statuses=calls.STATUSES,
        )

    def call(self, key: str, number: int, query: Query) -> str:
        """A call, and why its memory was recalled."""
        reader = self._catalog.open(key)
        shown = recall(reader, number)
        return self._page(
            key,
            "calls",
            "call.html",
            reader,
            call=calls.call(reader, number),
            recall=shown,
            recall_chart=None if shown is None else _recall_chart(shown),
            number=number,
        )

    def about(self, key: str, query: Query) -> str:
        """Config, scales, prompt templates and costs of a run, and commands for it."""
        reader = self._catalog.open(key)
        address = self._catalog.entry(key).address
        shown, history = runs.about(reader, address), sessions(reader, address)
        return self._page(key, "about", "about.html", reader, about=shown, sessions=history)

    def search(self, key: str, query: Query) -> str:
        """Search results: exchanges, agents and prior memories."""
        reader, text = self._catalog.open(key), query.text("q") or ""
        found, hits = exchanges.search_page(reader, text, page_of(query), _HITS)
        parsed = terms(text)
        numbers = [exchange.episode for exchange in hits]
        replies, said = reader.calls_of(numbers), conversation.conversation_texts(reader, numbers)
        return self._page(
            key,
            "search",
            "search.html",
            reader,
            q=text,
            query=query,
            terms=parsed,
            found=found,
            hits=hits,
            agents=agents.agents(reader, text)[:_AGENT_HITS] if parsed else [],
            limit=SEARCHED,
            priors=memory.prior_memories(reader, text)[:_AGENT_HITS] if parsed else [],
            texts=lambda exchange: chain(
                exchange_detail.text_parts(exchange),
                said.get(exchange.episode, ()),
                exchange_detail.unused_texts(replies.get(exchange.episode, ())),
            ),
        )

    def compare(self, keys: list[str], query: Query) -> str:
        """The comparison of runs, or a form to choose them."""
        entries = [entry for entry in self._catalog.entries() if entry.problem is None]
        readers = {key: self._catalog.open(key) for key in keys}
        measures = comparison.all_measures(list(readers.values()))
        by = query.choice("by", measures) if measures else None
        measure = measures.get(by or next(iter(measures), ""))
        number = query.number("episode")
        sides = [(key, self._side(reader, number)) for key, reader in readers.items()]
        parts = self._links.compare(*keys)
        enough = len(keys) > 1 and measure is not None
        return self._fill(
            "compare.html",
            keys=keys,
            entries=entries,
            measure=measure,
            measures=measures,
            figure=comparison.curves(readers, measure) if enough and measure is not None else None,
            differences_href=parts.replace("compare", "compare/differences", 1),
            number=number,
            sides=sides if number is not None else [],
            declarations={key: declaration_of(reader) for key, reader in readers.items()},
        )

    def _side(self, reader: Reader, number: int | None) -> Exchange | None:
        return None if number is None else exchange(reader, number)

    def differences(self, keys: list[str], query: Query) -> str:
        """The table of differences, an HTML fragment that the comparison page loads afterwards."""
        scope = query.choice("scope", ("all", "last")) or "all"
        found = comparison.differences([self._catalog.entry(key).address for key in keys], scope)
        one, two = (self._catalog.open(key) for key in keys[:2])
        return self._fill(
            "differences.html",
            keys=keys,
            found=found,
            declared=declaration_of(one),
            furthest=exchanges.furthest_apart(one, two),
        )

    def not_copied(self) -> str:
        """The page for links to pages outside a static copy."""
        return self._fill("not_copied.html")

    def note(self, message: str) -> str:
        """An HTML fragment with a message, in place of one that cannot be shown."""
        return self._fill("note.html", message=message)

    def error(self, code: int, message: str) -> str:
        """An error page."""
        return self._fill("error.html", code=code, message=message)


def frame_data(frame: society_map.Frame, key: str, links: Links) -> Row:
    """The map of a round for its script, with names escaped and a link for each agent."""
    data = frame.as_dict()
    for node in data["nodes"]:
        node["name"] = escape_controls(node["name"])
        node["href"] = links.run(key, "agents", node["agent"])
    return data


def _history_charts(reader: Reader, number: int) -> list[tuple[Scale, charts.Spec]]:
    """An agent's scores by round: a chart for each scale of stages with any."""
    declared, history = declaration_of(reader), agents.history(reader, number)
    titled = []
    for scale in declared.observed:
        rows = [score.as_dict() for score in history if score.scale == scale.name]
        if rows:
            colours = charts.stage_colours(declared.stages_of(scale))
            titled.append((scale, charts.history(rows, scale, colours)))
    return titled


def _recall_chart(shown: Recall) -> charts.Spec | None:
    rows = [
        {
            "rank": rank,
            "question": one.question,
            "distance": one.distance,
            "chosen": one.memory in shown.chosen,
        }
        for rank, one in enumerate(shown.candidates, 1)
    ]
    return charts.recall(rows, shown.threshold) if rows else None


def _change_marker(rows: Iterable[Row]) -> str:
    """A value that changes whenever any of these runs does."""
    return runs.marker(
        *((row["key"], row["here"].mark if row["here"] else row["problem"]) for row in rows)
    )
