"""Views as a person reads them in a terminal. Model text is untrusted: it never becomes markup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sandbox.terminal.scene import plain, script
from sandbox.text import duration, printable

Data = dict[str, Any]

SCRIPTED = "Replies were composed by the scripted backend, not by a language model."

_COLOURS = ("red", "red", "dark_orange3", "yellow", "yellow", "green", "green", "green")


def number(value: float | None, digits: int = 2) -> Text:
    """A score on a 1-7 scale in its colour, or a dash where there is none."""
    if value is None:
        return Text("-", style="dim")
    return Text(f"{value:.{digits}f}", style=_COLOURS[round(value)])


def _short(text: str | None, width: int = 60) -> Text:
    if text is None:
        return Text("-", style="dim")
    line = " ".join(printable(text).split())
    return Text(line if len(line) <= width else line[: width - 1] + "\u2026")


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the house style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def society(data: Data) -> RenderableType:
    """A run at a glance."""
    head = plain(f"{data['run']}: {data['status']}", "bold")
    if data["message"]:
        head.append(f" ({printable(data['message'])})")
    counts = (f"{count} {label}" for label, count in data["agents"].items())
    labels = ", ".join(counts) or "none"
    models = ", ".join(f"{name} ({role})" for role, name in data["models"].items())
    lines = [
        head,
        plain(f"world {data['world']}, seed {data['seed']}; agents: {labels}"),
        plain(f"models: {models}"),
        plain(f"digest {data['digest'] or '-'}", "dim"),
    ]
    if "scripted" in data["models"].values():
        lines.append(Text(SCRIPTED, style="italic"))
    means = "alignment, engagement: the observer's means, draft \u2192 revision; peers: of drafts"
    return Group(*lines, Text(), rounds(data["rounds"]), Text(means, style="dim"))


def rounds(rows: Sequence[Data]) -> Table:
    """Scores by round: the observer's means of drafts and revisions, and the peers' of drafts."""
    columns = ("round", "episodes", "failed", "alignment", "engagement", "peers", "missing")
    made = table(*columns, right=columns)
    for row in rows:
        made.add_row(
            str(row["round"]),
            f"{row['episodes']:,}",
            f"{row['failed']:,}",
            _change([row["draft_alignment"], row["revision_alignment"]], 2),
            _change([row["draft_engagement"], row["revision_engagement"]], 2),
            number(row["peer_rating"]),
            f"{row['missing_ratings']:,}",
        )
    return made


def forms(rows: Sequence[Data]) -> RenderableType:
    """Calls by form: what went wrong, what they took, and how much of it was in the cache."""
    figures = ("calls", "failed", "unparsed", "tokens in", "out", "prefix share")
    made = table("form", *figures, right=figures)
    for row in rows:
        made.add_row(
            row["form"],
            *(f"{row[key]:,}" for key in ("calls", "failed", "unparsed")),
            _millions(row["tokens_in"]),
            _millions(row["tokens_out"]),
            _share(row["prefix_share"]),
        )
    words = "prefix share: of the tokens in, what the prefix cache held; -: not told"
    return Group(made, Text(words, style="dim"))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"


def _share(value: float | None) -> Text:
    return Text("-", style="dim") if value is None else Text(f"{value:.0%}")


def status(runs: Sequence[tuple[str, Data]]) -> RenderableType:
    """Runs, a line each, under the name that they can be typed by; of a single one also its forms.

    One that cannot be read has a message in place of figures.
    """
    figures = ("episodes", "calls", "calls/s", "failed", "unparsed", "time")
    made = table("run", "status", *figures, right=figures)
    for name, row in runs:
        made.add_row(plain(name), *_state(row))
    if len(runs) == 1 and runs[0][1].get("forms"):
        return Group(made, Text(), forms(runs[0][1]["forms"]))
    return made


def _state(row: Data) -> tuple[str | Text, ...]:
    if row["status"] == "unreadable":
        return (plain(row["message"], "red"),)
    return (
        plain(row["status"]),
        f"{row['episodes']:,}/{row['episodes_total']:,}",
        f"{row['calls']:,}",
        f"{row['calls'] / row['seconds']:,.0f}" if row["seconds"] else "-",
        f"{row['calls_failed']:,}",
        f"{row['unparsed']:,}",
        duration(row["seconds"]),
    )


def agents(rows: Sequence[Data]) -> RenderableType:
    """The list of agents."""
    if not rows:
        return plain("nobody: there are no such agents")
    figures = ("agent", "memories", "rated")
    made = table("agent", _group_title(rows), "name", "who", "memories", "rated", right=figures)
    for row in rows:
        who = f"{row['age']}, {row['occupation']}, {row['place']}"
        made.add_row(
            str(row["agent"]),
            _group(row),
            plain(row["name"]),
            plain(who),
            f"{row['memories']:,}",
            number(row["mean_rating"]),
        )
    return made


def _group_title(rows: Sequence[Data]) -> str:
    return "label" if rows[0]["community"] is None else "group"


def _group(row: Data) -> str:
    """What it belongs to: a group of like profiles, or else a starting demographic."""
    return str(row["label"] if row["community"] is None else row["community"])


def agent(data: Data) -> RenderableType:
    """One agent."""
    gives = data["gives"]
    place = f"at ({data['x']:g}, {data['y']:g})"
    facts = plain(f"agent {data['agent']}, {data['label']}, {place}, {data['memories']} memories")
    gave = Text(f"gave {gives['ratings']:,} ratings, {gives['missing']:,} unreadable, mean ")
    gave.append_text(number(gives["mean"]))
    made = table(
        "round",
        "episode",
        "question",
        "rated",
        "alignment",
        "engagement",
        right=("round", "episode", "rated"),
    )
    for row in data["episodes"]:
        made.add_row(
            str(row["round"]),
            str(row["episode"]),
            _short(row["question"]),
            number(row["mean_rating"]),
            _change(row["alignment"]),
            _change(row["engagement"]),
        )
    return Group(facts, Padding(plain(data["introduction"]), (1, 0, 1, 2)), gave, Text(), made)


def _who(agent: int | None) -> str:
    return "-" if agent is None else str(agent)


def _change(pair: Sequence[float | None], digits: int = 0) -> Text:
    before, after = (number(value, digits) for value in pair)
    return Text.assemble(before, " \u2192 ", after)


def memory(data: Data) -> RenderableType:
    """What an agent believes, and what it was told."""
    parts: list[RenderableType] = [Rule(f"agent {data['agent']} believes", align="left")]
    for row in data["internal"]:
        when = (
            "prior" if row["round"] is None else f"round {row['round']}, episode {row['episode']}"
        )
        parts += [
            Text(f"memory {row['memory']} ({when})", style="dim"),
            plain(row["question"], "bold"),
            Padding(plain(row["answer"]), (0, 0, 0, 2)),
        ]
        if row["was"] is not None and row["was"] != row["answer"]:
            parts.append(Padding(plain(f"before: {row['was']}", "dim strike"), (0, 0, 0, 2)))
    parts += [Text(), Rule("and was told", align="left")]
    for row in data["external"]:
        parts += [
            Text(f"round {row['round']}, episode {row['episode']}", style="dim"),
            plain(row["question"], "bold"),
            Padding(_ratings(row["ratings"]), (0, 0, 0, 2)),
        ]
    return Group(*parts)


def _ratings(rows: Sequence[Data]) -> Table:
    made = table("rater", "label", "rating", "reason", right=("rater", "rating"))
    for row in rows:
        reason = plain(row["reason"]) if row["reason"] else Text(row["status"], style="red")
        made.add_row(str(row["rater"]), row["label"], number(row["rating"], 0), reason)
    return made


def episode(data: Data) -> RenderableType:
    """An exchange: draft, ratings, revision, and the calls behind them."""
    title = f"episode {data['episode']}, round {data['round']}"
    if data["author"] is not None:
        title += f", agent {data['author']} ({data['label']})"
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        Panel(plain(data["question"]), title="question"),
    ]
    for stage in ("draft", "revision"):
        if data[stage] is not None:
            parts.append(Panel(plain(data[stage]), title=_stage_title(data, stage)))
        if stage == "draft" and data["ratings"]:
            parts.append(_ratings(data["ratings"]))
        if stage == "draft" and data["scene"]:
            parts += [script(data["scene"]), Text()]
    if data["failed_at"]:
        parts.append(Text(f"failed: no usable reply to {data['failed_at']}", style="red"))
    if "scripted" in data["models"]:
        parts.append(Text(SCRIPTED, style="italic"))
    return Group(*parts, Text(), call_table(data["calls"]))


def _stage_title(data: Data, stage: str) -> str:
    scores = [
        f"{seen['scale']} {seen['rating'] or '-'}"
        for seen in data["observations"]
        if seen["stage"] == stage
    ]
    return f"{stage}: {', '.join(scores) or 'not scored'}"


def call_table(rows: Sequence[Data]) -> Table:
    """Calls, a line each; there is no column for what none of them has or all have alike."""
    cells_of = dict(_CALL_CELLS)
    if len({row["model"] for row in rows}) < 2:
        del cells_of["model"]
    columns = {title: [cell(row) for row in rows] for title, cell in cells_of.items()}
    shown = {title: cells for title, cells in columns.items() if title == "call" or any(cells)}
    made = table(*shown, "reply", right=("call", "tokens", "cached"))
    made.expand = True
    for column in made.columns:
        column.no_wrap = True
    made.columns[-1].ratio = 1
    made.columns[-1].overflow = "ellipsis"
    for place, row in enumerate(rows):
        cells = [column[place] or Text("-", style="dim") for column in shown.values()]
        made.add_row(*cells, _said(row))
    return made


def _status_cell(row: Data) -> Text:
    if row["status"] == "ok":
        return Text("ok, cut" if row["cut"] else "ok")
    return Text(row["status"], style="red")


def _tokens_cell(row: Data) -> Text:
    return Text(f"{row['tokens_in'] or 0}+{row['tokens_out'] or 0}")


def _cached_cell(row: Data) -> Text | None:
    return None if row["cached_tokens"] is None else Text(str(row["cached_tokens"]))


def _recalled_cell(row: Data) -> Text | None:
    return None if row["recalled"] is None else Text(f"{row['recalled']} at {row['distance']:.2f}")


_CALL_CELLS: dict[str, Callable[[Data], Text | None]] = {
    "call": lambda row: Text(str(row["call"])),
    "name": lambda row: plain(row["name"]),
    "model": lambda row: plain(PurePath(row["model"]).name),
    "status": _status_cell,
    "tokens": _tokens_cell,
    "cached": _cached_cell,
    "recalled": _recalled_cell,
}


def _said(row: Data) -> Text:
    """The reply or the error of a call, and before it what else the journal keeps of the reply."""
    kept = []
    if row["thinking"] is not None:
        kept.append(f"{len(row['thinking'].split()):,} words of thinking")
    if row["expected"] is not None:
        kept.append(f"expected {row['expected']:.2f}")
    notes = Text(f"({', '.join(kept)}) " if kept else "", style="dim")
    return notes + _short(row["reply"] if row["error"] is None else row["error"], 200)


def call(data: Data) -> RenderableType:
    """One call with its exact prompt."""
    hashed = "agrees" if data["hash_agrees"] else "DOES NOT AGREE"
    facts = f"call {data['call']}  {data['name']}  seed {data['seed']}  model {data['model']}"
    reply = data["error"] if data["reply"] is None else data["reply"]
    parts: list[RenderableType] = [
        plain(facts, "bold"),
        plain(_took(data), "dim"),
        Panel(plain(data["system"]), title="system"),
        Panel(plain(data["prompt"]), title=f"prompt (hash {data['prompt_hash']} {hashed})"),
    ]
    if data["thinking"] is not None:
        parts.append(Panel(plain(data["thinking"]), title="thinking"))
    parts.append(Panel(plain(reply), title=f"reply: {data['status']}"))
    if data["expected"] is not None:
        parts.append(plain(f"expected rating {data['expected']:.2f}"))
    return Group(*parts)


def _took(data: Data) -> str:
    """What a call took."""
    cached = data["cached_tokens"]
    held = "" if cached is None else f" ({cached:,} from the prefix cache)"
    tokens = f"{data['tokens_in'] or 0:,} tokens in{held}, {data['tokens_out'] or 0:,} out"
    return f"{tokens}, {data['seconds']:,.1f} s"


def found(rows: Sequence[Data]) -> RenderableType:
    """Exchanges that a search found."""
    if not rows:
        return plain("nothing found")
    made = table(
        "episode", "round", "agent", "question", "revision", right=("episode", "round", "agent")
    )
    for row in rows:
        made.add_row(
            str(row["episode"]),
            str(row["round"]),
            _who(row["author"]),
            _short(row["question"], 45),
            _short(row["revision"], 60),
        )
    return made


def exported(report: Data, explain: bool) -> RenderableType:
    """What an export wrote and what it is like; explained also what each rule left out."""
    kinds = table("format", "kind", "left by rules", "written", right=("left by rules", "written"))
    for one in report["formats"]:
        for kind, count in one["found"].items():
            kinds.add_row(one["format"], kind, f"{count:,}", f"{one['written'][kind]:,}")
    parts: list[RenderableType] = [Text(SCRIPTED, style="yellow")] if report["scripted"] else []
    parts += [kinds, Text(), _measures(report["measures"])]
    for one in report["formats"] if explain else ():
        parts += [Text(), *_removals(one)]
    parts += [plain(f"note: {note}", "yellow") for note in report["notes"]]
    for one in report["formats"]:
        parts += [plain(f"note: {one['format']}: {note}", "yellow") for note in one["notes"]]
    files = ", ".join(f"{name} ({count:,} rows)" for name, count in report["files"].items())
    place = "not written" if report["out"] is None else report["out"]
    return Group(*parts, Text(), plain(f"{place}: {files}"))


def _measures(measures: Mapping[str, Data]) -> Table:
    made = table("measure", "")
    for name, one in measures.items():
        made.add_row(name, plain(one["text"]))
    return made


def _removals(one: Data) -> Iterator[RenderableType]:
    """What is left of a format's candidates after each rule, and some that it removed."""
    counts, left = one["counts"], one["candidates"]
    made = table(f"{one['format']}: rule", counts, "left", "such as", right=(counts, "left"))
    made.add_row("candidates", "", f"{left:,}", "")
    for rule, count in one["removed"].items():
        left -= count
        example = next(iter(one["examples"][rule]), "")
        made.add_row(rule, f"-{count:,}", f"{left:,}", plain(example, "dim"))
    yield made
    rows = sum(one["written"].values())
    if rows != left:
        yield Text(f"{left:,} {counts} in {rows:,} rows", style="dim")


def comparison(data: Data) -> RenderableType:
    """Groups of runs, what differs between their configs, and by how much they differ."""
    parts: list[RenderableType] = []
    for place, group in enumerate(data["groups"]):
        seeds = ", ".join(map(str, group["seeds"]))
        counted = f"{group['episodes']:,} episodes, {group['failed_episodes']:,} failed"
        names = ", ".join(group["runs"])
        parts.append(plain(f"group {place}, n = {group['n']}: {names} (seeds {seeds}; {counted})"))
    for key, values in data["differing_keys"].items():
        parts.append(plain(f"  {key}: {', '.join('-' if v is None else str(v) for v in values)}"))
    parts += [Text(), _means(data["groups"]), Text(_UNITS, style="dim")]
    for one in data["comparisons"]:
        parts += [Text(), *_differences(one)]
    return Group(*parts, *(plain(f"note: {note}", "yellow") for note in data["notes"]))


_UNITS = "means over all rounds | the last round; gain: revision - draft; the last two are shares"


def _means(groups: Sequence[Data]) -> Table:
    columns = [f"group {place}" for place in range(len(groups))]
    made = table("mean of", *columns, right=columns)
    for measure in groups[0]["measures"]:
        cells = []
        for group in groups:
            figures = group["measures"][measure]
            cells.append(" | ".join(_figure(figures[scope]["mean"]) for scope in ("all", "last")))
        made.add_row(measure.replace("_", " "), *cells)
    return made


def _figure(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _differences(one: Data) -> list[RenderableType]:
    first, other = one["groups"]
    rounds = f", rounds from {one['first_round']} on" if one["first_round"] else ""
    title = f"group {other} minus group {first}{rounds}, with 95 % confidence intervals"
    parts: list[RenderableType] = [plain(title, "bold"), plain(one["method"], "dim")]
    for scope, words in (("all", "all rounds"), ("last", "last round")):
        columns = ("difference", "95 % interval", "n", "left out")
        made = table(words, *columns, right=columns)
        for measure, scopes in one["measures"].items():
            made.add_row(measure.replace("_", " "), *_difference(scopes[scope]))
        parts += [Text(), made]
    return parts


def _difference(found: Data) -> tuple[str, ...]:
    counts = found["n"] if isinstance(found["n"], list) else [found["n"]]
    ends = f"{_figure(found['low'], '+')} to {_figure(found['high'], '+')}"
    n = " and ".join(f"{count:,}" for count in counts)
    if "clusters" in found:
        n += f" of {found['clusters']:,} authors"
    return _figure(found["difference"], "+"), ends, n, f"{found['left_out']:,}"


def estimated(data: Data) -> RenderableType:
    """What a run is going to take."""
    sample = data["sample"]
    head = f"{data['run']}: {data['agents']:,} agents, {data['rounds']:,} rounds"
    of = f"{sample['episodes']:,} of {data['episodes']:,} episodes"
    made = table("whole run", "estimate", "90 % range", right=("estimate", "90 % range"))
    for key in ("calls", "tokens_in", "tokens_out", "database_bytes"):
        made.add_row(key.replace("_", " "), *_ranged(data[key], 0))
    time = data["time"]
    for key, digits in (("seconds", 0), ("gpu_hours", 2)):
        if time[key] is not None:
            made.add_row(key.replace("_", " "), *_ranged(time[key], digits))
    if time["floor_seconds"] is not None:
        made.add_row("seconds, at least", f"{time['floor_seconds']:,.0f}", "")
    notes = (plain(f"note: {note}", "yellow") for note in data["notes"])
    return Group(plain(head, "bold"), plain(f"sample: {of}"), Text(), made, Text(), *notes)


def _ranged(figure: Data, digits: int) -> tuple[str, str]:
    ends = f"{figure['low']:,.{digits}f} to {figure['high']:,.{digits}f}"
    return f"{figure['estimate']:,.{digits}f}", ends


def show(console: Console, what: RenderableType) -> None:
    """Print a view; a width is chosen where there is no terminal."""
    console.print(what, crop=False)
