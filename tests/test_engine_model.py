"""The modelled engine does what can be worked out by hand, and nothing beats the oracle."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from engine_model import (
    DRAFT,
    OBSERVE_DRAFT,
    OBSERVE_REVISION,
    RATE,
    REVISE,
    EngineModel,
    FormModel,
    Order,
    Player,
    Workload,
    bounds,
    play_by_phases,
    simulate,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.config import Schedule
from sandbox.engine.scheduler import Scheduler
from sandbox.study.engine_model import Engine
from worlds.base import Meeting

ORDERS: tuple[Order, ...] = ("out_of_order", "lock_step", "by_phases")
ALONE = [[Meeting(0, (), 0)]]


def _form(prompt: int, reply: float, sigma: float = 0) -> FormModel:
    return FormModel(prompt=prompt, median=reply, sigma=sigma, max_tokens=500)


def _engine(**changes: Any) -> EngineModel:
    """Drafts and revisions take 0.1 s to read and 2 s to decode, the rest 0.1 s and 1 s."""
    long, short = _form(100, 60), _form(100, 30)
    forms = {"draft": long, "revise": long, "rate": short, "observe": short}
    return EngineModel(**{"prefill_rate": 1000, "decode_rate": 30, **forms, **changes})


def _meetings(seed: int, agents: int, raters: int, rounds: int) -> list[list[Meeting]]:
    draw = random.Random(seed)
    return [
        [
            Meeting(
                a, tuple(p for p in draw.sample(range(agents), min(raters, agents)) if p != a), 0
            )
            for a in range(agents)
        ]
        for _ in range(rounds)
    ]


def _times(engine: EngineModel, calls: list[int], width: int = 99) -> dict[int, float]:
    """When each of the calls is done that are all submitted at the start; drafts of 20 episodes."""
    machine = Engine(Workload([[Meeting(a, (), 0) for a in range(20)]], engine, 0), width, float)
    for call in calls:
        machine.submit(call)
    return {machine.next(): machine.now for _ in calls}


def test_one_call_is_read_and_decoded() -> None:
    assert _times(_engine(), [DRAFT]) == {DRAFT: pytest.approx(0.1 + 2)}


def test_what_is_cached_is_not_read() -> None:
    form = FormModel(prompt=100, cached=0.75, median=60, max_tokens=500)
    assert _times(_engine(draft=form), [DRAFT]) == {DRAFT: pytest.approx(0.025 + 2)}


def test_two_calls_below_the_knee_share_only_the_reading() -> None:
    done = _times(_engine(), [DRAFT, OBSERVE_DRAFT[0]])
    assert done == {OBSERVE_DRAFT[0]: pytest.approx(0.2 + 1), DRAFT: pytest.approx(0.2 + 2)}


def test_beyond_the_knee_they_share_the_rate() -> None:
    """Both decode at 15 a second until the short one is done, then the long one at 30."""
    done = _times(_engine(knee=1), [DRAFT, OBSERVE_DRAFT[0]])
    assert done == {OBSERVE_DRAFT[0]: pytest.approx(0.2 + 2), DRAFT: pytest.approx(0.2 + 3)}


def test_a_gradual_bend_slows_everybody_a_little() -> None:
    """With a knee of 2, two calls get 2/3 of the rate each; at the end the long one has it all."""
    done = _times(_engine(knee=2, bend="gradual"), [DRAFT, OBSERVE_DRAFT[0]])
    assert done == {OBSERVE_DRAFT[0]: pytest.approx(0.2 + 1.5), DRAFT: pytest.approx(0.2 + 2.5)}


@pytest.mark.parametrize("limit", [{"max_batch": 1}, {"kv_tokens": 500 + 100}])
def test_who_does_not_fit_waits(limit: dict[str, int]) -> None:
    form = FormModel(prompt=100, median=400, max_tokens=500)
    done = _times(_engine(draft=form, **limit), [DRAFT, 6 + DRAFT])
    alone = 0.1 + 400 / 30
    assert done == {DRAFT: pytest.approx(alone), 6 + DRAFT: pytest.approx(2 * alone)}


def test_a_call_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="kv_tokens: found 599, a call may need 600"):
        Workload(ALONE, _engine(kv_tokens=599), 0)


def test_reading_in_makes_the_others_stand_still() -> None:
    machine = Engine(Workload(ALONE, _engine(), 0), 2, float)
    machine.submit(DRAFT)
    machine.submit(OBSERVE_DRAFT[0])
    assert machine.next() == OBSERVE_DRAFT[0]
    assert machine.now == pytest.approx(1.2)
    machine.submit(REVISE)
    assert machine.next() == DRAFT
    assert machine.now == pytest.approx(0.1 + 0.1 + 2 + 0.1)


def test_calls_go_to_the_server_with_the_fewest() -> None:
    done = _times(_engine(servers=2, knee=1), [DRAFT, 6 + DRAFT])
    assert done == {DRAFT: pytest.approx(2.1), 6 + DRAFT: pytest.approx(2.1)}


def test_the_earliest_episode_goes_first_at_the_gate() -> None:
    calls = [6 * episode + DRAFT for episode in (7, 3, 9, 1)]
    assert list(_times(_engine(), calls, width=1)) == [6 * e for e in (7, 1, 3, 9)]


def test_keys_change_what_goes_first() -> None:
    work = Workload([[Meeting(a, (), 0) for a in range(4)]], _engine(), 0)
    machine = Engine(work, 1, lambda call: -call)
    for episode in range(4):
        machine.submit(6 * episode)
    assert [machine.next() // 6 for _ in range(4)] == [0, 3, 2, 1]


def test_an_episode_by_hand() -> None:
    """Draft, two ratings beside two scores, revision, two scores: reading holds everybody up."""
    work = Workload([[Meeting(0, (1, 2), 0), Meeting(1, (), 0), Meeting(2, (), 0)]], _engine(), 0)
    work.replies[0, 1:] = 0
    machine = Engine(work, 99, float)
    calls = list(play_by_phases(work, machine))
    assert calls[:4] == [DRAFT, RATE, RATE + 1, REVISE]
    assert machine.now == pytest.approx(2.1 + 1.2 + 2.1 + 1.4)
    assert bounds(work).path == pytest.approx(2 + 1 + 2 + 1 + 8 * 0.1)
    assert bounds(work).work == pytest.approx(8 * 0.1 + (2 + 2 + 6) / 128)


def test_the_longest_path_goes_through_the_raters() -> None:
    """Agent 0 rates nobody and is slow; 1 waits for it in round 1, 2 does not."""
    plan = [
        [Meeting(a, (), 0) for a in range(3)],
        [Meeting(0, (), 0), Meeting(1, (0,), 0), Meeting(2, (), 0)],
    ]
    work = Workload(plan, _engine(prefill_rate=1e12), 0)
    work.replies[0, 0, DRAFT] = 300
    assert bounds(work).path == pytest.approx(10 + 2 + (2 + 1 + 2) + 1)


def test_lengths_are_log_normal_and_cut() -> None:
    form = FormModel(prompt=10, median=100, sigma=0.5, max_tokens=150)
    work = Workload([_meetings(0, 3000, 0, 1)[0]], _engine(draft=form), 0)
    drafts = work.replies[0, :, DRAFT]
    assert drafts.max() == 150
    assert np.median(drafts) == pytest.approx(100, rel=0.05)
    assert np.mean(drafts < 100 * np.exp(-0.5)) == pytest.approx(0.159, abs=0.03)


def _played(work: Workload, order: Order, width: int, ahead: int) -> tuple[list[int], Engine]:
    engine = Engine(work, width, float)
    if order == "by_phases":
        return list(play_by_phases(work, engine)), engine
    schedule = Schedule(order=order, max_ahead=ahead)
    rounds = len(work.plan)
    scheduler = Scheduler(schedule, work.plan.__getitem__, work.per_round, 0, rounds)
    calls = list(Player(work, engine, scheduler, width).play())
    assert scheduler.over
    return calls, engine


_works = st.builds(
    lambda agents, raters, rounds, seed, **engine: Workload(
        _meetings(seed, agents, raters, rounds),
        EngineModel(prefill_rate=5000, kv_tokens=4000, **engine),
        seed,
    ),
    st.integers(2, 12),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(0, 10**6),
    servers=st.integers(1, 3),
    knee=st.integers(1, 12),
    max_batch=st.integers(1, 20),
    bend=st.sampled_from(["sharp", "gradual"]),
)


@settings(max_examples=60)
@given(_works, st.sampled_from(ORDERS), st.integers(1, 40), st.integers(1, 4))
def test_every_call_is_made_once_and_in_its_time(
    work: Workload, order: Order, width: int, ahead: int
) -> None:
    calls, engine = _played(work, order, width, ahead)
    assert sorted(calls) == np.flatnonzero(work.replies).tolist()
    place = {call: number for number, call in enumerate(calls)}
    for number in range(len(work.plan) * work.per_round):
        draft, revise = (place[number * work.stride + p] for p in (DRAFT, REVISE))
        ratings = [place.get(number * work.stride + p, draft) for p in range(RATE, work.stride)]
        assert draft <= min(ratings, default=draft) and max(ratings, default=draft) < revise
        assert all(draft < place[number * work.stride + p] for p in OBSERVE_DRAFT)
        assert all(revise < place[number * work.stride + p] for p in OBSERVE_REVISION)
    assert engine.waited() >= -1e-6


@settings(max_examples=80)
@given(_works, st.sampled_from(ORDERS), st.integers(1, 40), st.one_of(st.none(), st.integers()))
def test_nothing_beats_the_oracle(
    work: Workload, order: Order, width: int, shuffle: int | None
) -> None:
    keys = None
    if shuffle is not None:
        draw = random.Random(shuffle)
        keys = [draw.random() for _ in range(work.replies.size)]
    result = simulate(work, order, width, 2, keys)
    assert result.makespan >= bounds(work).oracle * (1 - 1e-9)
    assert result.stretch >= 1 - 1e-9


@settings(max_examples=40)
@given(_works, st.sampled_from(ORDERS), st.integers(1, 40))
def test_used_and_unused_capacity_add_up(work: Workload, order: Order, width: int) -> None:
    result = simulate(work, order, width)
    engine = work.engine
    prefill = work.alone().sum() - work.replies.sum() / engine.decode_rate
    used = prefill + work.replies.sum() / engine.best
    assert result.busy * result.makespan * engine.servers == pytest.approx(used)
    assert result.busy + result.starved + result.tail == pytest.approx(1)


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_seed_gives_the_same_run(order: Order) -> None:
    first, again, other = (
        simulate(Workload(_meetings(1, 30, 4, 3), EngineModel(servers=2, knee=8), seed), order, 50)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.makespan != other.makespan
    assert first.calls == other.calls


def test_out_of_order_beats_lock_step_beats_phases() -> None:
    work = Workload(_meetings(1, 60, 4, 6), EngineModel(knee=64), 1)
    free, lock_step, phases = (simulate(work, order, 128) for order in ORDERS)
    assert free.makespan < lock_step.makespan < phases.makespan
    assert bounds(work).oracle / free.makespan > 0.85
