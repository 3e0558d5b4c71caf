"""Memory: recall as of the end of the previous round, and only of the nearest question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.memory import PRIOR, Memory, QuestionIndex


def _unit(*angles: float) -> NDArray[np.float32]:
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def _index(threshold: float = 0.3, *angles: float) -> QuestionIndex:
    index = QuestionIndex(threshold)
    index.add([f"q{number}" for number in range(len(angles))], _unit(*angles))
    return index


def test_near_is_sorted_bounded_and_symmetric() -> None:
    index = _index(0.3, 0.0, 0.1, 0.7, 0.9, 3.0)
    assert [near.question for near in index.near(0)] == [0, 1, 2]
    assert index.near(0)[0].distance == 0.0
    assert index.near(0)[2].distance == pytest.approx(1 - np.cos(0.7), abs=1e-5)
    assert [near.question for near in index.near(4)] == [4]


@given(st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_near_agrees_with_a_plain_search(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = QuestionIndex(0.4)
    index.add([str(number) for number in range(count)], vectors)
    question = seed % count
    distances = 1 - vectors.astype(np.float64) @ vectors[question].astype(np.float64)
    expected = {int(n) for n in np.nonzero(distances < 0.4 - 1e-5)[0]}
    allowed = {int(n) for n in np.nonzero(distances < 0.4 + 1e-5)[0]}
    found = [near.question for near in index.near(question)]
    assert expected <= set(found) <= allowed
    assert len(found) == len(set(found))


def test_new_questions_are_found_too() -> None:
    index = _index(0.3, 0.0)
    assert len(index.near(0)) == 1
    index.add(["late"], _unit(0.05))
    assert [near.question for near in index.near(0)] == [0, 1]


def test_vectors_must_fit() -> None:
    index = _index(0.3, 0.0)
    with pytest.raises(ValueError, match="vectors: found"):
        index.add(["a"], np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="vectors: found"):
        index.add(["a", "b"], _unit(0.0))


def test_recall_is_as_of_the_round_before() -> None:
    index = _index(0.3, 0.0, 0.2)
    memory = Memory()
    memory.remember(PRIOR, 1, "prior", 10, 0)
    memory.remember(0, 0, "first", 11, 0)
    memory.remember(2, 0, "second", 12, 0)
    near = index.near(0)
    answers = {}
    for round in range(5):
        recalled = memory.recall(near, index, round)
        assert recalled is not None
        answers[round] = recalled.answer
    assert answers == {0: "prior", 1: "first", 2: "first", 3: "second", 4: "second"}


def test_the_nearest_wins_and_a_stranger_is_not_recalled() -> None:
    index = _index(0.3, 0.0, 0.2, 0.4, 2.0)
    memory = Memory()
    memory.remember(PRIOR, 2, "far", 1, 0)
    memory.remember(PRIOR, 1, "near", 2, 0)
    memory.remember(PRIOR, 3, "stranger", 3, 0)
    recalled = memory.recall(index.near(0), index, 0)
    assert recalled is not None
    assert (recalled.answer, recalled.question, recalled.memory_id) == ("near", "q1", 2)
    assert Memory().recall(index.near(0), index, 0) is None


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40),
    st.one_of(st.none(), st.integers(1, 6)),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_keeping_and_forgetting_agree_with_a_plain_list(
    steps: list[tuple[int, int]], keep: int | None, floor: int, ahead: int
) -> None:
    """`prune` never changes what a round from the floor on can recall."""
    index = _index(0.5, 0.0, 0.3, 1.2, 1.5, 3.0)
    memory, plain, round = Memory(keep), [], PRIOR
    for place, (gap, question) in enumerate(steps):
        round += gap
        memory.remember(round, question, f"a{place}", place, 0)
        plain.append((round, question, f"a{place}"))
    memory.prune(floor)
    reading = floor + ahead
    visible = [item for item in plain if item[0] < reading]
    visible = visible[-keep:] if keep else visible
    for asked in range(5):
        expected = None
        for near in index.near(asked):
            same = [answer for _, question, answer in visible if question == near.question]
            if same:
                expected = same[-1]
                break
        recalled = memory.recall(index.near(asked), index, reading)
        assert (recalled.answer if recalled else None) == expected
