"""Exchanges in the terminal: one exchange with ratings and calls, and search results."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agents.scale import Declaration, plain_number
from sandbox.reading.exchange_detail import ExchangeDetail
from sandbox.reading.exchanges import FoundExchange
from sandbox.reading.runs import SCRIPTED as SCRIPTED_MODEL
from sandbox.terminal.calls import call_table
from sandbox.terminal.scene import scene_view
from sandbox.terminal.style import SCRIPTED, number, plain, short, table
from storage.exchanges import GivenRating


def rating_table(rows: Sequence[GivenRating], declared: Declaration) -> Table:
    """The peers' ratings and reasons; the status of a reply where it has no reason."""
    ratings = table("rater", "label", "rating", "reason", right=("rater", "rating"))
    peers = declared.peers
    for row in rows:
        reason = plain(row.reason) if row.reason else Text(row.status, style="red")
        digits = 0 if peers is None or peers.integer else 2
        ratings.add_row(str(row.rater), row.label, number(row.rating, peers, digits), reason)
    return ratings


def exchange_view(shown: ExchangeDetail, calls: bool = False) -> RenderableType:
    """An exchange: the texts of its stages, the ratings, the scene, and the calls.

    Args:
        shown: the exchange.
        calls: list the calls also of a scene, which has many.
    """
    declared = shown.declaration
    title = f"episode {shown.episode}, round {shown.round}"
    if shown.author is not None:
        title += f", agent {shown.author} ({shown.label})"
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        Panel(plain(shown.question), title="question"),
    ]
    rated = declared.stages_of(declared.peers) if declared.peers is not None else ()
    for index, (stage, text) in enumerate(shown.texts.items()):
        if text is not None:
            parts.append(Panel(plain(text), title=_stage_title(shown, stage)))
        if stage in shown.shortened:
            parts.append(Text(f"{stage}: {SHORTENED}", style="yellow"))
        if shown.ratings and stage in rated[:1]:
            parts.append(rating_table(shown.ratings, declared))
        if shown.scene is not None and index == 0:
            parts += [scene_view(shown.scene), Text()]
    if shown.failed_at:
        parts.append(Text(f"failed: no usable reply to {shown.failed_at}", style="red"))
    if SCRIPTED_MODEL in shown.models:
        parts.append(Text(SCRIPTED, style="italic"))
    folded = shown.scene is not None and not calls
    hint = Text(f"{len(shown.calls):,} calls: --calls lists them")
    return Group(*parts, Text(), hint if folded else call_table(shown.calls))


SHORTENED = "truncated by max_tokens, and kept to its last whole sentence"


def _stage_title(shown: ExchangeDetail, stage: str) -> str:
    """The stage and its ratings; `#1`: a rating of agent 1, `#1-#2`: of a pair of agents."""
    scores = []
    for seen in shown.observations:
        if seen.stage == stage:
            agents = (agent for agent in (seen.agent, seen.other) if agent is not None)
            subject = "-".join(f"#{agent}" for agent in agents)
            rating = "-" if seen.rating is None else plain_number(seen.rating)
            scores.append(" ".join(filter(None, (seen.scale, subject, rating))))
    return f"{stage}: {', '.join(scores) or 'not scored'}"


def found_table(rows: Sequence[FoundExchange]) -> RenderableType:
    """A table of exchanges: of a search with where it found something, else with the last text."""
    if not rows:
        return plain("nothing found")
    last = list(rows[0].texts)[-1]
    searched = any(row.found is not None for row in rows)
    columns = ("episode", "round", "agent", "question", "found" if searched else last)
    matches = table(*columns, right=("episode", "round", "agent"))
    for row in rows:
        matches.add_row(
            str(row.episode),
            str(row.round),
            "-" if row.author is None else str(row.author),
            short(row.question, 45),
            plain(row.found) if row.found is not None else short(row.texts[last], 60),
        )
    return matches
