"""Runs in the terminal: summary, scores by round, calls by template, and the list of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agents.scale import Declaration, Scale
from sandbox.reading.metrics import FormCalls, RoundScores
from sandbox.reading.runs import RunState, ScaleScore, Society, Unreadable
from sandbox.reading.sessions import Environment, Session
from sandbox.terminal.style import SCRIPTED, Fitting, change, dash, number, plain, rounded, table
from sandbox.text import duration, printable


def society_view(shown: Society) -> RenderableType:
    """A run in summary: status, agents, models, and scores by round."""
    head = plain(f"{shown.run}: {shown.status}", "bold")
    if shown.message:
        head.append(f" ({printable(shown.message)})")
    labels = ", ".join(f"{count} {label}" for label, count in shown.agents.items()) or "none"
    models = ", ".join(f"{name} ({role})" for role, name in shown.models.items())
    lines = [
        head,
        plain(f"world {shown.world}, seed {shown.seed}; agents: {labels}"),
        plain(f"models: {models}"),
        plain(f"digest {shown.digest or '-'}", "dim"),
    ]
    lines += [warned(text) for text in shown.warnings]
    if shown.scripted:
        lines.append(Text(SCRIPTED, style="italic"))
    legend = plain(_legend(shown.declaration), "dim")
    return Group(*lines, Text(), round_table(shown.rounds, shown.declaration), legend)


def _legend(declared: Declaration) -> str:
    parts = []
    alike: dict[tuple[str, tuple[str, ...]], list[Scale]] = {}
    for scale in declared.observed:
        alike.setdefault((scale.whose, declared.stages_of(scale)), []).append(scale)
    for (whose, stages), scales in alike.items():
        ends = " \u2192 ".join(dict.fromkeys((*stages[:1], *stages[-1:])))
        parts.append(f"{', '.join(scale.title for scale in scales)}: {whose} means, {ends}")
    if declared.peers is not None:
        parts.append(f"peers: their means, {', '.join(declared.stages_of(declared.peers))}")
    if parts:
        parts.append("missing: ratings without a value, of all raters")
    return "; ".join(parts)


def round_table(rows: Sequence[RoundScores], declared: Declaration) -> Table:
    """Scores by round: a column for each observer scale, the peers' ratings, missing ones."""
    peers = declared.peers
    scales = [scale.title for scale in declared.observed]
    rated = [] if peers is None else ["peers"]
    missing = ["missing"] if declared.scales else []
    columns = ("round", "episodes", "failed", *scales, *rated, *missing)
    rounds = table(*columns, right=columns)
    for row in rows:
        cells = [_means(row, scale, declared) for scale in declared.observed]
        if peers is not None:
            cells.append(number(row.means[peers.name], peers))
        if missing:
            cells.append(Text(f"{row.missing_ratings:,}"))
        rounds.add_row(str(row.round), f"{row.episodes:,}", f"{row.failed:,}", *cells)
    return rounds


def _means(row: RoundScores, scale: Scale, declared: Declaration) -> Text:
    names = [f"{stage}_{scale.name}" for stage in declared.stages_of(scale)]
    return change([row.means[name] for name in names], scale, 2)


def form_table(rows: Sequence[FormCalls]) -> RenderableType:
    """Calls and tokens by prompt template, and the share of prompts from the prefix cache."""
    figures = ("calls", "failed", "unparsed", "tokens in", "out", "prefix share")
    templates = table("form", *figures, right=figures)
    for row in rows:
        templates.add_row(
            row.form,
            f"{row.calls:,}",
            f"{row.failed:,}",
            f"{row.unparsed:,}",
            _millions(row.tokens_in),
            _millions(row.tokens_out),
            dash() if row.prefix_share is None else Text(f"{row.prefix_share:.0%}"),
        )
    words = "prefix share: share of tokens in from the prefix cache; -: not reported"
    lenient = sum(row.lenient for row in rows)
    if lenient:
        words += f"\n{lenient:,} read leniently: not in the form asked, but certain"
    shortened = sum(row.shortened for row in rows)
    if shortened:
        words += f"\n{shortened:,} shortened: truncated, and kept to their last whole sentence"
    return Group(templates, Text(words, style="dim"))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"


def status_table(runs: Sequence[tuple[str, RunState | Unreadable]]) -> RenderableType:
    """A table with a line for each run; for a single run also its scores and its calls.

    Args:
        runs: the name for the command line, and the state or why the run cannot be read.
    """
    parts: list[RenderableType] = [Fitting(*(_states(runs, left_out) for left_out in _LEFT_OUT))]
    for name, state in runs:
        if isinstance(state, Unreadable):
            parts.append(plain(f"{name}: {state.message}", "red"))
        else:
            parts += [plain(f"{name}: {row.words()}", "yellow") for row in state.waiting]
            parts += [warned(text, f"{name}: ") for text in state.warnings]
    only = runs[0][1] if len(runs) == 1 else None
    if not isinstance(only, RunState):
        return Group(*parts)
    if only.scores:
        parts += [Text(), score_table(only.scores)]
    if only.forms:
        parts += [Text(), form_table(only.forms)]
    return Group(*parts)


_LEFT_OUT = ((), ("calls/s",), ("calls/s", "calls"), ("calls/s", "calls", "unparsed"))
"""Columns that the list of runs does without in narrow terminals, from the widest to the narrowest.

Where any is left out, large counts are rounded."""


def _states(runs: Sequence[tuple[str, RunState | Unreadable]], left_out: Sequence[str]) -> Table:
    """The list of runs without some columns; only a name that is too long is cut off."""
    figures = ("episodes", "failed", "calls", "calls/s", "no reply", "unparsed", "time")
    kept = [column for column in ("status", *figures) if column not in left_out]
    states = table("run", *kept, right=figures)
    states.columns[0].overflow = "ellipsis"
    for column in states.columns[1:]:
        column.no_wrap = True
    for name, state in runs:
        cells = _state(state, rounded if left_out else "{:,}".format)
        states.add_row(plain(name), *(cells.get(column, "") for column in kept))
    return states


def session_table(sessions: Sequence[Session]) -> Table:
    """The history of a run: a line for each session."""
    figures = ("session", "calls", "lasted")
    rows = table("session", "started (UTC)", "lasted", "calls", "end", "changed", right=figures)
    for one in sessions:
        end = f"{one.status}: {one.message}" if one.message else one.status
        rows.add_row(
            str(one.number),
            one.started[:19].replace("T", " "),
            dash() if one.seconds is None else Text(duration(one.seconds)),
            f"{one.calls:,}",
            plain(end),
            plain("; ".join(one.changed)),
        )
    return rows


def environment_table(environment: Environment) -> Table:
    """What some sessions of a run were played with."""
    rows = table(environment.title, "")
    for what, value in environment.words:
        rows.add_row(plain(what), plain(value))
    return rows


def warned(text: str, before: str = "") -> Text:
    """A warning, on lines of its own."""
    return plain(f"{before}warning: {printable(text)}", "yellow")


def score_table(scores: Sequence[ScaleScore]) -> Table:
    """The score on each scale in the first and the last complete round."""
    columns = ("first round", "last round")
    means = table("mean of", "range", *columns, right=columns)
    for score in scores:
        means.add_row(
            score.measure.replace("_", " "),
            score.scale.range,
            number(score.first, score.scale),
            number(None if score.difference is None else score.last, score.scale),
        )
    return means


def _state(state: RunState | Unreadable, count: Callable[[int], str]) -> dict[str, str | Text]:
    """The cells of a run by column; `count` formats counts."""
    if isinstance(state, Unreadable):
        return {"status": plain(state.status, "red")}
    failed = Text(count(state.episodes_failed), style="red" if state.episodes_failed else "")
    return {
        "status": plain(state.status),
        "episodes": f"{count(state.episodes)}/{count(state.episodes_total)}",
        "failed": failed,
        "calls": count(state.calls),
        "calls/s": f"{state.calls / state.seconds:,.0f}" if state.seconds else "-",
        "no reply": count(state.calls_failed),
        "unparsed": count(state.unparsed),
        "time": duration(state.seconds),
    }
