"""Renders the pages: reads what a page shows and fills in its template."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import replace
from itertools import chain
from typing import Any

from agents.scale import Declaration
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
    scenes,
)
from sandbox.reading import map as society_map
from sandbox.reading import policy as policies
from sandbox.reading.agreement import agreements
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchanges import PAGE, SEARCHED, ExchangeFilter
from sandbox.reading.figures import (
    Figure,
    bias,
    histories,
    neighbours_alike,
    of_bounds,
    of_spread,
    rater_agreement,
    ratings,
    scores,
)
from sandbox.reading.live import live
from sandbox.reading.metrics import (
    calls_by_form,
    complete_rounds,
    merged,
    outcomes,
    outcomes_by_label,
    settled,
)
from sandbox.reading.recall import Recall, recall
from sandbox.reading.records import Page
from sandbox.reading.sessions import environments, sessions
from sandbox.reading.split_figures import split_figures
from sandbox.reading.splits import LABEL, split_outcomes, splits
from sandbox.reading.spread import IdeaSpread, spread
from sandbox.reading.trends import agent_points, all_trends, trend_measures, window_of
from sandbox.viewer import maps, search_pages
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.comparison_pages import ComparisonPages
from sandbox.viewer.exchange_text import as_json, markdown
from sandbox.viewer.figure_files import figure_links
from sandbox.viewer.filters import environment
from sandbox.viewer.findings import findings
from sandbox.viewer.queries import (
    KINDS,
    ROWS,
    agent_chips,
    agent_order,
    agent_trend,
    call_chips,
    call_filter,
    exchange_chips,
    exchange_filter,
    memory_origin,
    page_of,
    page_size,
    rater_order,
)
from sandbox.viewer.report import bounds_tables
from sandbox.viewer.report import tables as report_tables
from sandbox.viewer.report.trend_tables import trend_table
from sandbox.viewer.results import ResultLists, Walk, walk
from sandbox.viewer.run_list import RunList, RunReader, change_marker
from storage.reader import Reader
from storage.search import ignored_signs, terms

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

MANY_ROUNDS = 100
"""Of runs with more rounds, figures that count by round come after their page."""

NO_SPLIT = "none"
"""The value of `split` for figures of all exchanges alone."""
_SPREADS = 50  # searches whose spread is kept
_USES = 200  # first uses listed
_ORIGINS = {
    "memory": "a recalled memory",
    "reason": "a rater\u2019s reason",
    "question": "the question",
    "persona": "its persona",
    "unprompted": "unprompted",
}

VIEWS = ("auto", "inline", "side", "revision")
"""How an exchange shows its revision: with changes inline, beside the draft, or alone."""

_FEW_KEPT = 0.4  # share of the words: below it changes inline are not legible


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
        self._results = ResultLists()
        self._runs = RunReader(catalog)
        self.comparison = ComparisonPages(catalog, links, self._fill)
        self._spreads: dict[tuple[str, str], tuple[str, IdeaSpread]] = {}

    def at(self, root: str) -> Pages:
        """The same pages, with links that begin with another prefix."""
        pages = copy(self)
        pages._links = Links(root)
        pages.comparison = ComparisonPages(self._catalog, pages._links, pages._fill)
        return pages

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
        left_out |= set() if here.labels else {"agents", "ratings"}
        tabs = [tab for tab in tabs if tab[2] not in left_out]
        followed = not (here.finished or links.static)
        running = followed and here.status == "running"
        frame: Row = {
            "run": here.run,
            "key": key,
            "tabs": tabs,
            "here": here,
            "mark": here.mark,
            "declared": declaration_of(reader),
            "search_href": None if links.static else links.run(key, "search"),
            "pulse": links.run(key, "pulse.json") if followed else None,
            "live": live(reader, here) if running and tab == "society" else None,
        }
        return self._fill(template, **{**frame, **values})

    def runs(self, query: Query) -> str:
        """The list of runs."""
        listed = self._runs.listed()
        shown = RunList.of(listed, query)
        pulse = None if self._links.static else f"{self._links.root}pulse.json"
        return self._fill(
            "runs.html",
            listed=shown,
            total=len(listed),
            query=query,
            mark=change_marker(listed),
            pulse=pulse,
            search_href=self._links.search(),
        )

    def search_runs(self, query: Query) -> str:
        """Search results of all runs."""
        text = query.text("q") or ""
        result = search_pages.search_runs(self._catalog, text) if terms(text) else None
        return self._fill(
            "search_runs.html",
            q=text,
            ignored=ignored_signs(text),
            result=result,
            limit=search_pages.LIMIT,
            seconds=int(search_pages.SECONDS),
            search_href=self._links.search(),
        )

    def runs_pulse(self) -> Row:
        """The change marker that the list of runs polls."""
        mark = change_marker(self._runs.listed())
        return {"mark": mark, "over": False, "status": "running"}

    def pulse(self, key: str) -> Row:
        """The change marker that the pages of a run poll."""
        reader = self._catalog.open(key)
        here = runs.overview(reader, self._catalog.entry(key).address)
        pulse: Row = {"mark": here.mark, "over": here.finished, "status": here.status}
        if here.status == "running":
            shown = live(reader, here)
            waiting = [row.words() for row in here.waiting]
            pulse |= {"percent": shown.percent, "live": {**shown.as_dict(), "waiting": waiting}}
        return pulse

    def society(self, key: str, query: Query, frames: list[Row] | None = None) -> str:
        """The map of the society, and figures by round."""
        reader = self._catalog.open(key)
        return self._page(
            key,
            "society",
            "society.html",
            reader,
            scenes=scenes.latest_scenes(reader, PAGE),
            **maps.map_values(reader, key, query, self._links, frames),
            findings=findings(reader),
            **self._by_round(key, reader, query),
        )

    def _by_round(self, key: str, reader: Reader, query: Query) -> Row:
        """The values of `by_round.html`.

        Figures of many rounds, or of a split other than by label, come after the page.
        """
        offered = splits(reader)
        names = [one.name for one in offered]
        split = query.choice("split", [NO_SPLIT, *names]) or next(iter(names), NO_SPLIT)
        values: Row = {"splits": offered, "split": split, "query": query, "later": None}
        if split not in (NO_SPLIT, LABEL) or reader.run.rounds > MANY_ROUNDS:
            values["later"] = self._links.run(key, "by-round", split=split)
        if values["later"] and not self._links.static:
            return values
        return {**values, "later": None, **self._split_values(key, reader, split)}

    def _split_values(self, key: str, reader: Reader, split: str) -> Row:
        declared, by_label = declaration_of(reader), outcomes_by_label(reader)
        counts = settled(merged(by_label.values()), complete_rounds(reader))
        drawn = self._figures(key, scores(counts, declared))
        if split != NO_SPLIT:
            groups = by_label if split == LABEL else split_outcomes(reader, split)
            drawn = self._figures(key, split_figures(reader, split, groups), split=split) + drawn
        grouped = None if split == NO_SPLIT else split
        found = all_trends(reader, trend_measures(declared), grouped)
        return {"figures": drawn, "trends": trend_table(found)}

    def by_round(self, key: str, query: Query) -> str:
        """The figures by round of a split, an HTML fragment of the society page."""
        reader = self._catalog.open(key)
        names = [NO_SPLIT, *(one.name for one in splits(reader))]
        values = self._split_values(key, reader, query.choice("split", names) or NO_SPLIT)
        return self._fill("by_round_figures.html", key=key, **values)

    def frame(self, key: str, round: int, query: Query) -> Row:
        """The map of one round, as data for its script."""
        count = query.choice("count", (society_map.MEMORIES, society_map.ASKED_AGAIN))
        reader = self._catalog.open(key)
        maps.check_round(reader, round)
        frame = society_map.frame(reader, round, count)
        return maps.frame_data(frame, key, self._links)

    def card(self, key: str, number: int, round: int) -> str:
        """An agent in a round, an HTML fragment that the map shows beside it."""
        reader = self._catalog.open(key)
        card, declared = maps.agent_card(reader, number, round), declaration_of(reader)
        return self._fill("card.html", key=key, card=card, declared=declared)

    def advice(self, key: str, round: int) -> str:
        """Neighbourhood statistics of a round, an HTML fragment of the society page."""
        reader = self._catalog.open(key)
        return self._fill(
            "advice.html",
            key=key,
            advice=society_map.advice(reader, round),
            declared=declaration_of(reader),
        )

    def neighbours(self, key: str) -> str:
        """Whether neighbours are alike, by round: an HTML fragment of the society page."""
        figure = neighbours_alike(self._catalog.open(key))
        return self._fill("figures.html", figures=self._figures(key, [figure]))

    def _spread(self, key: str, query: Query) -> IdeaSpread:
        """The spread of what is searched for, computed again when the run has changed."""
        q, reader = query.text("q") or "", self._catalog.open(key)
        mark = runs.overview(reader, self._catalog.entry(key).address).mark
        if self._spreads.get((key, q), ("",))[0] != mark:
            while len(self._spreads) >= _SPREADS:
                self._spreads.pop(next(iter(self._spreads)), None)
            self._spreads[key, q] = mark, spread(reader, q)
        return self._spreads[key, q][1]

    def spread(self, key: str, query: Query) -> str:
        """The spread of what is searched for: a fragment of the pages of search and society."""
        found = self._spread(key, query)
        return self._fill(
            "spread.html",
            key=key,
            spread=found,
            origins=Counter(use.origin for use in found.uses).most_common(),
            origin_words=_ORIGINS,
            shown=_USES,
            figures=self._figures(key, of_spread(found), q=found.query),
        )

    def said(self, key: str, query: Query) -> Row:
        """The round in which each agent first said what is searched for, for the map."""
        return {str(use.agent): use.round for use in self._spread(key, query).uses}

    def spread_figures(self, key: str, query: Query) -> list[Figure]:
        """The figures of the spread of what is searched for."""
        return of_spread(self._spread(key, query))

    def _figures(self, key: str, figures: list[Figure], **query: str | None) -> list[Row]:
        return [
            {"figure": figure, "links": self._figure_links(key, figure, **query)}
            for figure in figures
            if figure.rows
        ]

    def _figure_links(self, key: str, figure: Figure, **query: str | None) -> list[tuple[str, str]]:
        if self._links.static:
            return []
        return list(figure_links(self._links.run(key, "figures", figure.name), **query))

    def agents(self, key: str, query: Query) -> str:
        """The list of agents."""
        reader = self._catalog.open(key)
        declared = declaration_of(reader)
        order, trend = agent_order(query, declared), agent_trend(query, declared)
        rows = agents.agents(reader, query.text("q"), query.text("label"), order, trend)
        found = Page.of(rows, page_of(query), page_size(query))
        shown = [row.agent for row in found.rows]
        return self._page(
            key,
            "agents",
            "agents.html",
            reader,
            found=found,
            query=query,
            order=order,
            chips=agent_chips(query),
            sizes=ROWS,
            measures=agents.agent_measures(declared),
            trend=trend,
            points={} if trend is None else agent_points(reader, trend, shown),
            window=window_of(complete_rounds(reader)),
        )

    def agent(self, key: str, number: int, query: Query) -> str:
        """An agent: persona, memory, and ratings received and given."""
        reader = self._catalog.open(key)
        agent, round = agents.read_agent(reader, number), query.number("round")
        origin = memory_origin(query)
        beliefs = memory.internal_memory(reader, number, round, query.text("q"), origin)
        memories = Page.of(beliefs, page_of(query), _MEMORIES)
        again = memory.answered_again(reader, memories.rows)
        received = memory.latest_exchanges(reader, number, round, _LATEST)
        given = [rating for one in received for rating in one.ratings]
        given += [rating for one in again.values() for rating, _ in one.advice]
        main = declaration_of(reader).main
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
            memories=memories,
            again=again,
            main=main,
            threshold=None if main is None else memory.mind_threshold(main),
            received=received,
            names=agents.agent_names(reader, {rating.rater for rating in given}),
            given=raters.ratings_given(reader, number).get(number),
            latest_given=raters.latest_ratings_given(reader, number, _LATEST),
            raters=raters.raters_of(reader, number),
            charts=[
                {
                    "figure": figure,
                    "links": ()
                    if self._links.static
                    else list(
                        figure_links(self._links.run(key, "agents", number, "figures", figure.name))
                    ),
                }
                for figure in histories(reader, number)
            ],
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
            found=exchanges.exchange_page(reader, wanted, page_of(query), page_size(query)),
            query=query,
            order=wanted.order,
            chips=exchange_chips(query, declared),
            sizes=ROWS,
            kinds=exchanges.kinds(declared),
            kind_words=_counted_kinds(reader, declared, wanted),
            scales=exchanges.gain_scales(declared),
            limited=exchanges.limited_measures(declared),
            more=_has_more_filters(wanted),
            limit=SEARCHED,
            q=query.text("q"),
        )

    def exchange(self, key: str, number: int, query: Query) -> str:
        """An exchange with its texts, ratings, scene and calls."""
        reader = self._catalog.open(key)
        shown = exchange_detail.read_exchange(reader, number)
        wanted = exchange_filter(query, shown.declaration)
        view = query.choice("view", VIEWS) or "auto"
        return self._page(
            key,
            "exchanges",
            "exchange.html",
            reader,
            exchange=shown.exchange,
            shown=shown,
            number=number,
            query=query,
            views=VIEWS,
            view=_view(shown, view),
            few_kept=_few_kept(shown),
            chosen_view=view,
            names=agents.agent_names(reader, {given.rater for given in shown.exchange.ratings}),
            titles=calls.call_titles(reader, shown.calls),
            walk=self._walk(key, reader, wanted, number),
            chips=exchange_chips(query, shown.declaration),
            script=None if shown.scene is None else scenes.script(shown.scene),
            copies={"markdown": markdown(shown), "json": as_json(shown)},
            terms=terms(query.text("q") or ""),
        )

    def _walk(self, key: str, reader: Reader, wanted: ExchangeFilter, number: int) -> Walk | None:
        """The place of an exchange in the results of a filter; None without a filter."""
        if self._links.static or wanted == ExchangeFilter():
            return None
        mark = runs.overview(reader, self._catalog.entry(key).address).mark
        return walk(
            self._results.of(
                (key, mark, wanted), lambda: exchanges.exchange_numbers(reader, wanted)
            ),
            number,
        )

    def ratings(self, key: str, query: Query) -> str:
        """Ratings and raters: agreement, leniency, distributions, missing ratings."""
        reader, order = self._catalog.open(key), rater_order(query)
        rows = raters.raters(reader) if declaration_of(reader).peers is not None else []
        listed = _COPIED_RATERS if self._links.static else _RATERS
        later = reader.run.rounds > MANY_ROUNDS and not self._links.static
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
            leniency=self._figures(key, self._linked(key, bias(reader))) if rows else [],
            later=self._links.run(key, "ratings", "figures") if later else None,
            **({} if later else self._rating_figures(key, reader)),
        )

    def rating_figures(self, key: str) -> str:
        """The figures of ratings, an HTML fragment of the page of ratings."""
        return self._fill(
            "rating_figures.html", **self._rating_figures(key, self._catalog.open(key))
        )

    def _rating_figures(self, key: str, reader: Reader) -> Row:
        counts, declared = outcomes(reader), declaration_of(reader)
        shown = {one.name: one for one in ratings(reader, counts, declared)}
        shown.pop("bias", None)
        absent = shown.pop("missing", None)
        return {
            "figures": self._figures(key, list(shown.values())),
            "absent": self._figures(key, [] if absent is None else [absent]),
            "missing": report_tables.missing(counts, declared)._replace(title="Missing ratings"),
        }

    def _linked(self, key: str, figure: Figure) -> list[Figure]:
        """A figure of agents whose marks lead to their pages."""
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
        found = calls.call_page(reader, call_filter(query), page_size(query))
        return self._page(
            key,
            "calls",
            "calls.html",
            reader,
            found=found,
            titles=calls.call_titles(reader, found.rows),
            matching=calls.matching_calls(
                reader, replace(call_filter(query), before=None, after=None)
            ),
            query=query,
            chips=call_chips(query),
            sizes=ROWS,
            totals=calls_by_form(reader),
            statuses=calls.STATUSES,
        )

    def call(self, key: str, number: int, query: Query) -> str:
        """A call, and why its memory was recalled."""
        reader = self._catalog.open(key)
        shown, one = recall(reader, number), calls.call(reader, number)
        older, newer = calls.call_neighbours(reader, number, call_filter(query))
        return self._page(
            key,
            "calls",
            "call.html",
            reader,
            call=one,
            title=calls.call_titles(reader, [one])[number],
            query=query,
            chips=call_chips(query),
            older=older,
            newer=newer,
            recall=shown,
            recall_chart=None if shown is None else _recall_chart(shown),
            number=number,
        )

    def about(self, key: str, query: Query) -> str:
        """Config, scales, prompt templates and costs of a run, and commands for it."""
        reader = self._catalog.open(key)
        address = self._catalog.entry(key).address
        return self._page(
            key,
            "about",
            "about.html",
            reader,
            about=runs.about(reader, address),
            sessions=sessions(reader, address),
            environments=environments(reader),
        )

    def search(self, key: str, query: Query) -> str:
        """Search results: exchanges, agents and prior memories."""
        reader, text = self._catalog.open(key), query.text("q") or ""
        found, hits = exchanges.search_page(reader, text, page_of(query), _HITS)
        parsed = terms(text)
        numbers = [exchange.episode for exchange in hits]
        raters_of_hits = {given.rater for hit in hits for given in hit.ratings}
        replies, said = reader.calls_of(numbers), conversation.conversation_texts(reader, numbers)
        return self._page(
            key,
            "search",
            "search.html",
            reader,
            q=text,
            query=query,
            terms=parsed,
            ignored=ignored_signs(text),
            found=found,
            hits=hits,
            raters={f"rating by {rater}": rater for rater in raters_of_hits},
            names=agents.agent_names(reader, raters_of_hits),
            agents=agents.agents(reader, text)[:_AGENT_HITS] if parsed else [],
            limit=SEARCHED,
            priors=memory.prior_memories(reader, text)[:_AGENT_HITS] if parsed else [],
            texts=lambda exchange: chain(
                exchange_detail.text_parts(exchange),
                said.get(exchange.episode, ()),
                exchange_detail.unused_texts(replies.get(exchange.episode, ())),
            ),
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


def _few_kept(shown: exchange_detail.ExchangeDetail) -> bool:
    """Whether a stage kept so few words that what was kept is marked, not what changed."""
    return any(share is not None and share < _FEW_KEPT for share in shown.kept.values())


def _view(shown: exchange_detail.ExchangeDetail, chosen: str) -> str:
    """How the revision is shown; `auto`: beside the draft where the window has room for both."""
    return "side" if chosen == "auto" and _few_kept(shown) else chosen


def _has_more_filters(wanted: ExchangeFilter) -> bool:
    """Whether a filter is set that lists fold away."""
    folded = (wanted.first_round, wanted.last_round, wanted.rater, wanted.question, wanted.model)
    return bool(wanted.limits) or any(value is not None for value in folded)


def _counted_kinds(reader: Reader, declared: Declaration, wanted: ExchangeFilter) -> dict[str, str]:
    """The kinds of exchanges for display, with their number in the whole run where it is known."""
    counts = exchanges.kind_counts(reader)
    scale = wanted.scale or next(iter(exchanges.gain_scales(declared)), None)
    words = {}
    for kind in exchanges.kinds(declared):
        n = counts.get((kind, None if kind == "failed" else scale))
        words[kind] = KINDS.get(kind, kind) + ("" if n is None else f" ({n:,})")
    return words


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
