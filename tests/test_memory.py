"""Memory: recall as of the end of the previous round, and only of the nearest question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.memory import PRIOR, Memory, Near, QuestionIndex, RecallRule


def _unit(*angles: float) -> NDArray[np.float32]:
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def _index(*angles: float) -> QuestionIndex:
    index = QuestionIndex()
    index.add([f"q{number}" for number in range(len(angles))], _unit(*angles))
    return index


def _near(index: QuestionIndex, question: int, rule: RecallRule) -> list[Near]:
    return index.nearest(question, np.arange(len(index.texts)), rule)


BELOW = RecallRule(99, 0.3)


def test_near_is_sorted_and_bounded() -> None:
    index = _index(0.0, 0.1, 0.7, 0.9, 3.0)
    near = _near(index, 0, BELOW)
    assert [item.question for item in near] == [0, 1, 2]
    assert near[0].distance == 0.0
    assert near[2].distance == pytest.approx(1 - np.cos(0.7), abs=1e-5)
    assert [item.question for item in _near(index, 4, BELOW)] == [4]
    assert [item.question for item in _near(index, 4, RecallRule(3))] == [4, 3, 2]


@given(
    st.integers(1, 700),
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.sampled_from((None, 0.4)),
    st.integers(1, 4),
)
def test_near_agrees_with_a_plain_search(
    count: int, seed: int, top_k: int, threshold: float | None, repeats: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    vectors[count // 2 :] = vectors[0]  # ties go to the first question
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = QuestionIndex()
    index.add([str(number) for number in range(count)], vectors)
    question = seed % count
    plain = vectors.astype(np.float64) @ vectors[question].astype(np.float64)
    distances = [max(0.0, round(1 - float(one), 6)) for one in plain]
    expected = sorted(range(count), key=lambda number: (distances[number], number))[:top_k]
    if threshold is not None:
        expected = [number for number in expected if distances[number] < threshold]
    others = np.tile(np.arange(count), repeats)
    found = index.nearest(question, others, RecallRule(top_k, threshold))
    assert [distances[near.question] for near in found] == pytest.approx(
        [distances[number] for number in expected], abs=2e-6
    )
    assert found == sorted(found) and len({near.question for near in found}) == len(found)


def test_new_questions_are_found_too() -> None:
    index = _index(0.0)
    assert len(_near(index, 0, BELOW)) == 1
    index.add(["late"], _unit(0.05))
    assert [near.question for near in _near(index, 0, BELOW)] == [0, 1]


def test_vectors_must_fit() -> None:
    index = _index(0.0)
    with pytest.raises(ValueError, match="vectors: found"):
        index.add(["a"], np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="vectors: found"):
        index.add(["a", "b"], _unit(0.0))


def test_recall_is_as_of_the_round_before() -> None:
    index = _index(0.0, 0.2)
    memory = Memory()
    memory.remember(PRIOR, 1, "prior", 10, 0)
    memory.remember(0, 0, "first", 11, 0)
    memory.remember(2, 0, "second", 12, 0)
    answers = {}
    for round in range(5):
        recalled = memory.recall(index, 0, round)
        assert recalled is not None
        answers[round] = recalled.answer
    assert answers == {0: "prior", 1: "first", 2: "first", 3: "second", 4: "second"}


def test_the_nearest_wins_and_a_stranger_is_not_recalled() -> None:
    index = _index(0.0, 0.2, 0.4, 2.0)
    memory = Memory()
    memory.remember(PRIOR, 2, "far", 1, 0)
    memory.remember(PRIOR, 1, "near", 2, 0)
    memory.remember(PRIOR, 3, "stranger", 3, 0)
    recalled = memory.recall(index, 0, 0, BELOW)
    assert recalled is not None
    assert (recalled.answer, recalled.question, recalled.memory_id) == ("near", "q1", 2)
    assert [one.answer for one in recalled.all] == ["near", "far"]
    assert Memory().recall(index, 0, 0) is None


def test_nearest_recalls_whatever_the_distance() -> None:
    index = _index(0.0, 2.0, 2.5)
    memory = Memory()
    memory.remember(PRIOR, 1, "a stranger's question", 1, 0)
    memory.remember(0, 1, "asked again", 2, 0)
    memory.remember(0, 2, "farther", 3, 0)
    assert memory.recall(index, 0, 9, BELOW) is None
    one = memory.recall(index, 0, 9)
    assert one is not None and (one.answer, one.further) == ("asked again", ())
    both = memory.recall(index, 0, 9, RecallRule(3))
    assert both is not None and [item.memory_id for item in both.all] == [2, 3]


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
    index = _index(0.0, 0.3, 1.2, 1.5, 3.0)
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
        for near in _near(index, asked, RecallRule(99, 0.5)):
            same = [answer for _, question, answer in visible if question == near.question]
            if same:
                expected = same[-1]
                break
        recalled = memory.recall(index, asked, reading, RecallRule(1, 0.5))
        assert (recalled.answer if recalled else None) == expected
