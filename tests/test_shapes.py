"""Shapes of structured replies: the parser accepts exactly what the expression allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forms import FreeText, JsonShape, Parsed, Rating, Status
from agents.shapes import Choice, Chosen, Line, Numbers, Sliders, Titled

VERDICT = Choice("Verdict", ("pass", "refuse"))
CAST = Titled((("Name 1", 40), ("About 1", 240), ("Name 2", 40), ("About 2", 240)))
SEEN = Numbers("Observers", 12)
DID = Sliders(("Values", "Fluency"))
SHAPES = (VERDICT, CAST, SEEN, DID, Line(60))


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


@pytest.mark.parametrize(
    ("shape", "value", "text"),
    [
        (VERDICT, {"Verdict": "pass", "Reason": "It\n fits."}, "Verdict: pass\nReason: It fits."),
        (Rating(), {"Rating": 5, "Reason": "Kind."}, "Rating: 5\nReason: Kind."),
        (Rating(), {"Rating": 5.0, "Reason": "Kind."}, "Rating: 5\nReason: Kind."),
        (
            Rating(0, 1, integer=False),
            {"Rating": 0.25, "Reason": "Kind."},
            "Rating: 0.25\nReason: Kind.",
        ),
        (SEEN, {"Observers": [3, 1, 3]}, "Observers: 1, 3"),
        (SEEN, {"Observers": []}, "Observers: none"),
        (Line(60), {"line": " one\nline "}, "one line"),
        (
            CAST,
            {"Name 1": "A", "About 1": "b", "Name 2": "C", "About 2": "d"},
            "Name 1: A\nAbout 1: b\nName 2: C\nAbout 2: d",
        ),
    ],
)
def test_an_object_is_written_as_the_text_that_is_read(
    shape: JsonShape, value: Mapping[str, Any], text: str
) -> None:
    assert isinstance(shape, JsonShape)
    assert list(shape.json_schema["properties"]) == list(value)
    assert shape.from_json(value) == text
    assert shape.parse(text, False).status is Status.OK


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        (VERDICT, {"Verdict": True, "Reason": "It fits."}),
        (Rating(), {"Rating": "5", "Reason": "Kind."}),
        (Rating(), {"Rating": True, "Reason": "Kind."}),
        (Rating(), {"Rating": 5}),
        (SEEN, {"Observers": ["1"]}),
        (Line(60), {}),
        (CAST, {"Name 1": "A"}),
    ],
)
def test_an_object_that_does_not_fit_is_refused(shape: JsonShape, value: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="found no"):
        shape.from_json(value)


def test_schemas_name_every_value() -> None:
    assert Rating().json_schema == {
        "type": "object",
        "properties": {
            "Rating": {"type": "integer", "enum": [1, 2, 3, 4, 5, 6, 7]},
            "Reason": {"type": "string"},
        },
        "required": ["Rating", "Reason"],
        "additionalProperties": False,
    }
    wide = Rating(0, 1000).json_schema["properties"]["Rating"]
    assert wide == {"type": "integer", "minimum": 0, "maximum": 1000}
    assert not isinstance(FreeText(), JsonShape)


@pytest.mark.parametrize(
    ("text", "value", "status"),
    [
        ("Values: 73\nFluency: n/a", (73, None), Status.OK),
        ("Values: 100\nFluency: 1", (100, 1), Status.OK),
        ("Values: 73/100\nFluency: not applicable.", (73, None), Status.LENIENT),
        ("- **Values:** 73\n- **Fluency:** 5", (73, 5), Status.LENIENT),
        ("Values: 0\nFluency: 5", None, Status.UNREADABLE),
        ("Values: 101\nFluency: 5", None, Status.UNREADABLE),
        ("Values: high\nFluency: 5", None, Status.UNREADABLE),
        ("Values: 73", None, Status.UNREADABLE),
    ],
)
def test_sliders_are_read_or_missing(
    text: str, value: tuple[int | None, ...] | None, status: Status
) -> None:
    assert DID.parse(text, False) == (value, status)
