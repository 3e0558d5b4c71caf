"""Agents in the terminal: the list, one of them, and its memory."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from agents.scale import Declaration
from sandbox.reading.agents import AgentDetail, AgentRow
from sandbox.reading.memory import AgentMemory, Belief
from sandbox.terminal.exchanges import rating_table
from sandbox.terminal.style import change, number, plain, short, table


def agent_table(rows: Sequence[AgentRow], declared: Declaration) -> RenderableType:
    """A table of agents."""
    if not rows:
        return plain("no agents found")
    group = "label" if rows[0].community is None else "group"
    columns = ("agent", group, "name", "who", "memories", "rated")
    agents = table(*columns, right=("agent", "memories", "rated"))
    for row in rows:
        agents.add_row(
            str(row.agent),
            str(row.label if row.community is None else row.community),
            plain(row.name),
            short(", ".join(str(fact) for fact in _facts(row) if fact), 120),
            f"{row.memories:,}",
            number(row.mean_rating, declared.peers),
        )
    return agents


def _facts(row: AgentRow) -> tuple[int | str | None, ...]:
    return row.age, row.occupation, row.place, row.description


def agent_view(shown: AgentDetail, declared: Declaration) -> RenderableType:
    """One agent, and its episodes with a column for each observer scale."""
    gives = shown.gives
    place = f"at ({shown.x:g}, {shown.y:g})"
    facts = plain(f"agent {shown.agent}, {shown.label}, {place}, {shown.memories} memories")
    given = Text(f"gave {gives.ratings:,} ratings, {gives.missing:,} unparsed, mean ")
    given.append_text(number(gives.mean, declared.peers))
    scales = [scale.title for scale in declared.observed]
    columns = ("round", "episode", "question", "rated", *scales)
    episodes = table(*columns, right=("round", "episode", "rated"))
    for row in shown.episodes:
        episodes.add_row(
            str(row.round),
            str(row.episode),
            short(row.question),
            number(row.mean_rating, declared.peers),
            *(change(row.scores[scale.name], scale) for scale in declared.observed),
        )
    return Group(facts, Padding(plain(shown.introduction), (1, 0, 1, 2)), given, Text(), episodes)


def memory_view(shown: AgentMemory, declared: Declaration) -> RenderableType:
    """Internal memory (what an agent believes), and external memory (the ratings it received)."""
    parts: list[RenderableType] = [Rule(f"agent {shown.agent}: internal memory", align="left")]
    for belief in shown.internal:
        parts += _belief(belief)
    parts += [Text(), Rule("external memory: ratings received", align="left")]
    for received in shown.external:
        parts += [
            Text(f"round {received.round}, episode {received.episode}", style="dim"),
            plain(received.question, "bold"),
            Padding(rating_table(received.ratings, declared), (0, 0, 0, 2)),
        ]
    return Group(*parts)


def _belief(belief: Belief) -> list[RenderableType]:
    learned = f"round {belief.round}, episode {belief.episode}"
    when = "prior" if belief.round is None else learned
    parts: list[RenderableType] = [
        Text(f"memory {belief.memory} ({when})", style="dim"),
        plain(belief.question, "bold"),
        Padding(plain(belief.answer), (0, 0, 0, 2)),
    ]
    if belief.changed:
        parts.append(Padding(plain(f"before: {belief.was}", "dim strike"), (0, 0, 0, 2)))
    return parts
