"""Shapes of structured replies: the parser accepts exactly what the expression allows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forms import Parsed, Status
from agents.shapes import Choice, Chosen, Line, Numbers, Titled

VERDICT = Choice("Verdict", ("pass", "refuse"))
CAST = Titled((("Name 1", 40), ("About 1", 240), ("Name 2", 40), ("About 2", 240)))
SEEN = Numbers("Observers", 12)
SHAPES = (VERDICT, CAST, SEEN, Line(60))


@pytest.mark.parametrize(
    ("text", "cut", "value", "status"),
    [
        ("Verdict: pass\nReason: It fits.", False, Chosen("pass", "It fits."), Status.OK),
        ("Verdict: refuse\r\nReason: No. ", False, Chosen("refuse", "No."), Status.OK),
        ("Verdict: pass\nReason: It f", True, Chosen("pass", None), Status.CUT),
        ("Verdict: pass", True, Chosen("pass", None), Status.CUT),
        ("Verdict: pas", True, None, Status.CUT),
        ("Verdict: pass", False, Chosen("pass", None), Status.LENIENT),
        ("Verdict: True\nReason: It fits.", False, None, Status.UNREADABLE),
        ("pass", False, Chosen("pass", None), Status.LENIENT),
        (" ", False, None, Status.EMPTY),
    ],
)
def test_a_choice_is_read_or_missing(
    text: str, cut: bool, value: Chosen | None, status: Status
) -> None:
    assert VERDICT.parse(text, cut) == (value, status)


def test_options_of_a_choice_can_be_told_apart_where_they_are_cut() -> None:
    with pytest.raises(ValueError, match="some is a prefix of someone"):
        Choice("Harm", ("some", "someone"))


@pytest.mark.parametrize("name", ["Doctor", "Editor or author", "terrorist", "1. Tailor", "Émile:"])
def test_names_survive(name: str) -> None:
    text = f"Name 1: {name}\nAbout 1: Calm.\nName 2: Major\nAbout 2: Quiet, or nearly so."
    whole = (name, "Calm.", "Major", "Quiet, or nearly so.")
    assert CAST.parse(text, False) == (whole, Status.OK)
    assert CAST.parse(f"\n{text}\n".replace("\n", "\r\n"), False) == (whole, Status.OK)


def test_the_last_line_counts_without_a_line_break_and_none_may_be_missing() -> None:
    plan = Titled(tuple((f"Step {n}", 200) for n in range(1, 4)))
    assert plan.parse("Step 1: a\nStep 2: b\nStep 3: c", False).value == ("a", "b", "c")
    for text in ("Step 1: a\nStep 2: b", "Step 2: b\nStep 3: c"):
        assert plan.parse(text, False) == (None, Status.UNREADABLE)
    assert plan.parse("Step 1: a\nStep 2: b\nStep 3: c", True) == (None, Status.CUT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Observers: none", ()),
        ("Observers: 12", (12,)),
        ("Observers: 3, 1, 3", (1, 3)),
        ("Observers: 13", None),
        ("Observers: 0", None),
        ("Observers: Doctor", None),
        ("none", ()),
    ],
)
def test_numbers_are_those_of_the_parts(text: str, value: tuple[int, ...] | None) -> None:
    assert SEEN.parse(text, False).value == value


def test_a_line_is_one_line() -> None:
    assert Line().parse(" nods. ", False) == ("nods.", Status.OK)
    assert Line().parse("nods.\nsmiles.", False) == ("nods. smiles.", Status.LENIENT)
    assert Line().parse("nods", True) == (None, Status.CUT)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_what_the_expression_allows_is_read(shape: Choice | Titled | Numbers | Line) -> None:
    @given(st.from_regex(re.compile(shape.regex), fullmatch=True))
    def reads(text: str) -> None:
        found: Parsed[object] = shape.parse(text, False)
        assert found.status is Status.OK and found.value is not None
        assert len(text) <= shape.max_tokens + 30 or isinstance(shape, Choice)

    reads()
