"""The pages: each gathers what it shows and fills in its template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from sandbox.reading import charts
from sandbox.reading.figures import RANGES, SCALES, STAGES, Figure, biases, ratings, scores
from sandbox.reading.metrics import outcomes
from sandbox.viewer import listing, people, sidebyside, society, telling
from sandbox.viewer.addresses import Links, Query
from sandbox.viewer.filters import environment
from sandbox.viewer.overview import about, forms, overview
from sandbox.viewer.shelf import Entry, Shelf
from storage.errors import InputError
from storage.exchanges import Exchange, exchange, exchanges_of, snapshot
from storage.reader import Journalled, Reader
from storage.search import terms

Row = dict[str, Any]

TABS = (
    ("Society", "society", ()),
    ("Agents", "agents", ("agents",)),
    ("Exchanges", "exchanges", ("exchanges",)),
    ("Ratings", "ratings", ("ratings",)),
    ("Calls", "calls", ("calls",)),
    ("About", "about", ("about",)),
)

_HITS = 15  # of a search, on a page

FIGURE_FILES = ("SVG", "PNG", "CSV")


class Pages:
    """Makes pages of the runs on a shelf.

    Args:
        shelf: the runs.
        links: where links lead.
    """

    def __init__(self, shelf: Shelf, links: Links) -> None:
        self._shelf = shelf
        self._links = links
        self._templates = environment()

    def _fill(self, template: str, **values: Any) -> str:
        common: Row = {"run": None, "tabs": [], "search_href": None, "pulse": None, "mark": None}
        common |= {"q": None, "root": self._links.root, "static": self._links.static}
        return self._templates.get_template(template).render(
            {**common, "links": self._links, **values}
        )

    def _page(self, key: str, tab: str, template: str, reader: Reader, **values: Any) -> str:
        """A page of a run: what is above each of them, and its own part."""
        links, here = self._links, overview(reader, self._shelf.entry(key).address)
        tabs = [(label, links.run(key, *path), name, name == tab) for label, name, path in TABS]
        tabs = [tab for tab in tabs if tab[2] != "calls" or not links.static]
        live = not (here["over"] or links.static)
        frame: Row = {
            **{"run": here["name"], "key": key, "tabs": tabs, "here": here, "mark": here["mark"]},
            "search_href": None if links.static else links.run(key, "search"),
            "pulse": links.run(key, "pulse.json") if live else None,
        }
        return self._fill(template, **{**frame, **values})

    def runs(self, query: Query) -> str:
        """All runs, with their progress and failures."""
        rows = [self._run_row(entry) for entry in self._shelf.entries()]
        rows.sort(key=lambda row: row["here"]["created"] if row["here"] else "", reverse=True)
        pulse = None if self._links.static else f"{self._links.root}pulse.json"
        return self._fill("runs.html", rows=rows, mark=_mark(rows), pulse=pulse)

    def runs_pulse(self) -> Row:
        """What tells the list of runs that one of them has gone on."""
        rows = [self._run_row(entry) for entry in self._shelf.entries()]
        return {"mark": _mark(rows), "over": False, "status": "running"}

    def _run_row(self, entry: Entry) -> Row:
        row: Row = {"key": entry.key, "here": None, "problem": None}
        row["file"] = Path(str(entry.address.url.database)).name
        try:
            return row | {"here": overview(self._shelf.reader(entry), entry.address)}
        except InputError as error:
            return row | {"problem": str(error)}

    def pulse(self, key: str) -> Row:
        """What tells a page that its run has gone on."""
        here = overview(self._shelf.open(key), self._shelf.entry(key).address)
        return {"mark": here["mark"], "over": here["over"], "status": here["status"]}

    def society(self, key: str, query: Query, frames: list[Row] | None = None) -> str:
        """The map, the curves, the Pareto plane."""
        reader = self._shelf.open(key)
        last = society.last_round(reader)
        at = query.number("round", 0, 2**31)
        at = last if at is None or last is None else min(at, last)
        shape: Literal["grid", "graph"] = "grid" if society.is_grid(reader) else "graph"
        return self._page(
            key,
            "society",
            "society.html",
            reader,
            last=last,
            at=at,
            by=query.choice("by", society.MEASURES) or society.MEASURES[0],
            map=charts.society([], [], RANGES, {"change": RANGES["alignment"]}, shape),
            shape=shape,
            frames=frames,
            first=frames[0]["round"] if frames else 0,
            frames_href=f"{self._links.run(key, 'frames')}/{{round}}.json",
            advice_href=f"{self._links.run(key, 'advice')}/{{round}}",
            advice=society.advice(reader, last) if frames and last is not None else None,
            figures=self._figures(key, scores(outcomes(reader))),
        )

    def frame(self, key: str, round: int) -> Row:
        """A round of the map, for its script."""
        return society.frame(self._shelf.open(key), round, key, self._links)

    def advice(self, key: str, round: int) -> str:
        """The part of the society's page that belongs to a round."""
        found = society.advice(self._shelf.open(key), round)
        return self._fill("advice.html", key=key, advice=found)

    def _figures(self, key: str, figures: list[Figure]) -> list[Row]:
        return [
            {"figure": one, "links": self._figure_links(key, one)} for one in figures if one.rows
        ]

    def _figure_links(self, key: str, figure: Figure) -> list[tuple[str, str]]:
        if self._links.static:
            return []
        return [
            (kind, self._links.run(key, "figures", f"{figure.name}.{kind.lower()}"))
            for kind in FIGURE_FILES
        ]

    def agents(self, key: str, query: Query) -> str:
        """All agents."""
        reader = self._shelf.open(key)
        return self._page(
            *(key, "agents", "agents.html", reader),
            found=people.agent_page(reader, query),
            query=query,
            orders=people.ORDERS,
        )

    def agent(self, key: str, number: int, query: Query) -> str:
        """One agent."""
        reader = self._shelf.open(key)
        person, history = people.one(reader, number), people.history(reader, number)
        gives = next((row for row in biases(reader) if row["agent"] == number), None)
        return self._page(
            *(key, "agents", "agent.html", reader),
            person=person,
            number=number,
            query=query,
            round=query.number("round"),
            beliefs=people.beliefs(reader, number, query),
            told=people.told(reader, number, query.number("round")),
            gave=people.gave(reader, number),
            gives=gives,
            rated_by=people.rated_by(reader, number),
            charts=[
                (scale, charts.history(rows, RANGES[scale], charts.stage_colours(STAGES)))
                for scale in SCALES
                for rows in [[row for row in history if row["scale"] == scale]]
                if rows
            ],
        )

    def exchanges(self, key: str, query: Query) -> str:
        """A list of exchanges."""
        reader = self._shelf.open(key)
        return self._page(
            *(key, "exchanges", "exchanges.html", reader),
            found=listing.exchange_page(reader, query),
            query=query,
            kinds=list(listing.KINDS),
            most=listing.MOST,
            orders=list(listing.ORDERS),
            q=query.text("q"),
        )

    def exchange(self, key: str, number: int, query: Query) -> str:
        """One exchange, or one scene."""
        reader = self._shelf.open(key)
        found = telling.exchange_page(reader, number)
        return self._page(
            *(key, "exchanges", "exchange.html", reader),
            **found,
            number=number,
            said=terms(query.text("q") or ""),
        )

    def ratings(self, key: str, query: Query) -> str:
        """How ratings are distributed, who rates high, what is missing."""
        reader = self._shelf.open(key)
        shown = ratings(reader, outcomes(reader))
        return self._page(
            *(key, "ratings", "ratings.html", reader), figures=self._figures(key, shown)
        )

    def calls(self, key: str, query: Query) -> str:
        """A list of calls."""
        reader = self._shelf.open(key)
        return self._page(
            *(key, "calls", "calls.html", reader),
            found=listing.call_stretch(reader, query),
            query=query,
            forms=[form["name"] for form in forms(reader)],
            statuses=(*listing.STATUSES, "not ok"),
        )

    def call(self, key: str, number: int, query: Query) -> str:
        """One call, and why it shows the memory that it does."""
        reader = self._shelf.open(key)
        found = telling.call_page(reader, number)
        return self._page(*(key, "calls", "call.html", reader), **found, number=number)

    def about(self, key: str, query: Query) -> str:
        """What a run was asked to be, what it has cost, what to type."""
        reader = self._shelf.open(key)
        shown = about(reader, self._shelf.entry(key).address)
        return self._page(*(key, "about", "about.html", reader), about=shown)

    def search(self, key: str, query: Query) -> str:
        """Everything that says something: exchanges, agents, prior memories."""
        reader, said = self._shelf.open(key), query.text("q") or ""
        found = listing.exchange_page(reader, query, _HITS)
        with snapshot(reader) as connection:
            ids = [row["id"] for row in found.rows] if said else []
            hits = list(exchanges_of(reader, connection, ids))
        calls = reader.calls_of([one.episode for one in hits])
        return self._page(
            *(key, "search", "search.html", reader),
            q=said,
            query=query,
            said=terms(said),
            found=found,
            hits=hits,
            agents=people.found_agents(reader, said, 20) if terms(said) else [],
            most=listing.MOST,
            priors=people.priors(reader, said)[:20] if terms(said) else [],
            places=lambda one: chain(places(one), unused(calls.get(one.episode, ()))),
        )

    def compare(self, keys: list[str], query: Query) -> str:
        """Runs side by side, or a choice of runs."""
        entries = [entry for entry in self._shelf.entries() if entry.problem is None]
        measure = query.choice("by", sidebyside.CURVES) or sidebyside.CURVES[0]
        readers = {key: self._shelf.open(key) for key in keys}
        number = query.number("episode")
        sides = [(key, self._side(reader, number)) for key, reader in readers.items()]
        parts = self._links.compare(*keys)
        return self._fill(
            "compare.html",
            keys=keys,
            entries=entries,
            measure=measure,
            measures={one: sidebyside.NAMES[one] for one in sidebyside.CURVES},
            figure=sidebyside.curves(readers, measure) if len(keys) > 1 else None,
            differences_href=parts.replace("compare", "compare/differences", 1),
            number=number,
            sides=sides if number is not None else [],
        )

    def _side(self, reader: Reader, number: int | None) -> Exchange | None:
        return None if number is None else exchange(reader, number)

    def differences(self, keys: list[str], query: Query) -> str:
        """The part of a comparison that takes a while."""
        scope = query.choice("scope", ("all", "last")) or "all"
        found = sidebyside.differences([self._shelf.entry(key).address for key in keys], scope)
        one, two = (self._shelf.open(key) for key in keys[:2])
        return self._fill(
            "differences.html",
            keys=keys,
            found=found,
            furthest=sidebyside.furthest(one, two),
        )

    def left_out(self) -> str:
        """Where links of a copy lead to what it does not hold."""
        return self._fill("leftout.html")

    def note(self, message: str) -> str:
        """A piece of a page for what could not be shown in it."""
        return self._fill("note.html", message=message)

    def fault(self, code: int, message: str) -> str:
        """A page for what could not be shown."""
        return self._fill("fault.html", code=code, message=message)


def unused(calls: Iterable[Journalled]) -> Iterator[tuple[str, str | None]]:
    """What models said that no exchange holds: replies that cannot be used, and thoughts."""
    for call in calls:
        if call.status != "ok":
            yield f"{call.form}, {call.status}", call.reply
        yield f"{call.form}, thought", call.thinking


def places(one: Exchange) -> Iterator[tuple[str, str | None]]:
    """Everything that is said in an exchange, each with where it is said."""
    yield from (("question", one.question), ("draft", one.draft))
    yield from ((f"rating by {given.rater}", given.reason) for given in one.ratings)
    yield "revision", one.revision
    yield from ((f"observer, {seen.stage}, {seen.scale}", seen.reason) for seen in one.observations)
    if one.scene is not None:
        for part in one.scene.parts:
            yield from (("part", part.name), ("part", part.about))
        for act in one.scene.acts:
            yield from (("act", act.text), ("modulator", act.why), ("critic", act.critique))
        yield from ((note.kind, note.text) for note in one.scene.notes)


def _mark(rows: Iterable[Row]) -> str:
    """What changes when any of these runs does."""
    return " ".join(f"{row['key']} {row['here']['mark']}" for row in rows if row["here"])
