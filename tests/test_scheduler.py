"""The scheduler, the stopping rule and the gate."""

from __future__ import annotations

import asyncio
import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.scale import Measure, Scale
from sandbox.concurrency import Gate
from sandbox.config import Schedule
from sandbox.engine.scheduler import Planned, Scheduler
from sandbox.engine.stopping import ParetoRule
from worlds.base import Meeting

Order = Literal["out_of_order", "lock_step", "sequential"]


def _meetings(seed: int, agents: int, raters: int, round: int) -> list[Meeting]:
    draw = random.Random(f"{seed}/{round}")
    others = range(agents)
    return [
        Meeting(
            a,
            tuple(p for p in draw.sample(others, min(raters, agents)) if p != a),
            round * agents + a,
        )
        for a in range(agents)
    ]


def _play(
    order: Order, agents: int, raters: int, rounds: int, seed: int, ahead: int
) -> list[Planned]:
    """Finish started episodes in random order; returns the order in which they were started."""
    schedule = Schedule(order=order, max_ahead=ahead)
    scheduler = Scheduler(schedule, lambda r: _meetings(seed, agents, raters, r), agents, 0, rounds)
    chance = random.Random(seed)
    played: dict[int, set[int]] = {round: set() for round in range(-1, rounds)}
    played[-1] = set(range(agents))
    playing: list[Planned] = []
    observing: list[Planned] = []
    started = []
    while not scheduler.over:
        while (planned := scheduler.next()) is not None:
            agents_in_it = {planned.meeting.author, *planned.meeting.peers}
            assert agents_in_it <= played[planned.round - 1], (
                "an episode started before its agents had finished the previous round"
            )
            slowest = next(r for r in range(rounds) if len(played[r]) < agents)
            assert planned.round - slowest <= ahead
            playing.append(planned)
            started.append(planned)
        assert playing or observing, "deadlock: no episode is in progress and none may start"
        group = playing if playing and (not observing or chance.random() < 0.5) else observing
        done = group.pop(chance.randrange(len(group)))
        if group is playing:
            played[done.round].add(done.meeting.author)
            scheduler.mark_played(done)
            observing.append(done)
        else:
            scheduler.mark_complete(done)
    return started


@settings(max_examples=60)
@given(
    st.sampled_from(["out_of_order", "lock_step", "sequential"]),
    st.integers(2, 12),
    st.integers(0, 5),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.integers(1, 4),
)
def test_every_episode_is_played_once(
    order: Order, agents: int, raters: int, rounds: int, seed: int, ahead: int
) -> None:
    started = _play(order, agents, raters, rounds, seed, ahead)
    assert sorted(planned.number for planned in started) == list(range(agents * rounds))
    if order != "out_of_order":
        assert [planned.round for planned in started] == sorted(
            planned.round for planned in started
        )
    if order == "sequential":
        assert [planned.number for planned in started] == list(range(agents * rounds))


def test_a_slow_agent_does_not_delay_the_others() -> None:
    """Agents 0 and 1 rate each other, and so do 2 and 3: a slow 3 does not delay 0 and 1."""
    pairs = {0: 1, 1: 0, 2: 3, 3: 2}
    meetings = [Meeting(a, (b,), 0) for a, b in pairs.items()]
    scheduler = Scheduler(Schedule(), lambda _round: meetings, 4, 0, 9)
    playing = {}
    while (planned := scheduler.next()) is not None:
        playing[planned.meeting.author] = planned
    for author in (0, 1, 2):
        scheduler.mark_played(playing[author])
    started = []
    while (planned := scheduler.next()) is not None:
        started.append((planned.round, planned.meeting.author))
    assert started == [(1, 0), (1, 1)]


def test_earlier_rounds_run_first() -> None:
    meetings = [Meeting(a, (), a) for a in range(3)]
    scheduler = Scheduler(Schedule(), lambda _round: meetings, 3, 0, 3)
    first = scheduler.next()
    assert first is not None
    scheduler.mark_played(first)
    order = []
    while (planned := scheduler.next()) is not None:
        order.append((planned.round, planned.meeting.author))
    assert order == [(0, 1), (0, 2), (1, 0)]


FINALS = [
    Measure(f"after_{name}", "score", Scale(name=name), "after") for name in ("quality", "interest")
]


@pytest.mark.parametrize(
    ("products", "patience", "last"),
    [
        ([4, 5, 6, 6, 6, 6, 6], 2, 5),  # no rise in rounds 3 and 4: round 5 is the last
        ([4, 5, 6, 7, 8, 9, 10], 2, None),
        ([9, 5, 6, 7, 8, 9, 10], 3, 4),
    ],
)
def test_the_pareto_rule(products: list[int], patience: int, last: int | None) -> None:
    rule = ParetoRule(patience, FINALS)
    assert rule.horizon == 2
    for round, product in enumerate(products):
        rule.score(round, "after", "quality", product * 3, 3)
        rule.score(round, "after", "interest", 2, 2)
        rule.score(round, "before", "quality", 100)  # not the last stage
        rule.score(round, "after", "honesty", 1 - round)  # not one of its scales
        rule.mark_complete(round)
    assert rule.stopped_after == last


def test_a_round_without_ratings_is_not_judged() -> None:
    rule = ParetoRule(1, FINALS)
    rule.score(0, "after", "quality", 4)
    rule.score(0, "after", "interest", 4)
    rule.score(1, "after", "quality", 2)  # nothing for the other scale
    for round in (1, 0, 2):
        rule.mark_complete(round)
    assert rule.stopped_after is None
    rule.score(3, "after", "quality", 4)
    rule.score(3, "after", "interest", 4)
    rule.mark_complete(3)
    assert rule.stopped_after == 4


def test_the_gate_admits_the_lowest_priority_first() -> None:
    """Callers are admitted in the order of their priorities, whenever they arrived."""

    async def play() -> list[tuple[int, int, int]]:
        gate = Gate(1)
        await gate.enter((0, 0, 0))
        order: list[tuple[int, int, int]] = []

        async def call(priority: tuple[int, int, int]) -> None:
            await gate.enter(priority)
            order.append(priority)
            gate.leave()

        priorities = [(1, 0, 9), (0, 2, 3), (2, 3, 1), (0, 0, 5), (0, 2, 1), (1, 3, 0)]
        tasks = [asyncio.create_task(call(priority)) for priority in priorities]
        late = asyncio.create_task(call((0, 0, 1)))
        await asyncio.sleep(0)
        late.cancel()
        gate.leave()
        await asyncio.gather(*tasks)
        assert late.cancelled()
        await asyncio.wait_for(gate.enter((9, 9, 9)), 1)
        return order

    assert asyncio.run(play()) == [(0, 0, 5), (0, 2, 1), (0, 2, 3), (1, 0, 9), (1, 3, 0), (2, 3, 1)]
