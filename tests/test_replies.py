"""The corpus of replies: what is certain is read, and no reply becomes a wrong value."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.beside import may_differ
from agents.forms import Judgement, Parsed, Rating, Status
from agents.lenient import reader
from agents.shapes import Choice, Chosen, Line, Numbers, Titled

REPLIES = Path(__file__).parent / "data" / "replies"
SHAPES: dict[str, Any] = {
    "verdict": Choice("Verdict", ("pass", "refuse")),
    "harm": Choice("Harm", ("none", "some")),
    "plan": Titled(tuple((f"Step {number}", 200) for number in (1, 2, 3))),
    "line": Line(),
    "observers": Numbers("Observers", 12),
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a corpus."""
    lines = (REPLIES / f"{name}.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    return [json.loads(line) for line in lines]


def read_value(row: dict[str, Any]) -> Any:
    """What the parser reads in a reply, as the corpus writes it."""
    shape = Rating(*row["scale"]) if "scale" in row else SHAPES[row["shape"]]
    value = shape.parse(row["reply"], False).value
    if isinstance(value, Judgement):
        return value.rating
    if isinstance(value, Chosen):
        return value.option
    return list(value) if isinstance(value, tuple) else value


def wrong(corpus: list[dict[str, Any]]) -> Iterator[str]:
    """The replies that are read as another value than theirs."""
    for row in corpus:
        found = read_value(row)
        if found is not None and found != row["value"]:
            yield f"{row['reply']!r}: read {found}, expected {row['value']}"


@pytest.mark.parametrize(("name", "least"), [("ratings", 300), ("others", 60), ("more", 600)])
def test_what_is_certain_is_read_and_nothing_is_invented(name: str, least: int) -> None:
    corpus = rows(name)
    certain = [row for row in corpus if row["value"] is not None]
    read = sum(read_value(row) == row["value"] for row in certain)
    invented = list(wrong(corpus))
    print(f"{name}: {len(corpus)} replies; read {read} of {len(certain)}, wrong {len(invented)}")
    assert invented == []
    assert len(corpus) >= least and len(corpus) - len(certain) >= len(corpus) / 3
    assert read >= 0.98 * len(certain)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("**Rating:** 5\n**Reason:** It *helps*.", "It helps."),
        ("Rating: 5\nReason: It helps.\n\nIt is kind.", "It helps. It is kind."),
        ("Reason: It helps.\n\nRating: 5", "It helps."),
        ('{"rating": 5, "reason": "It helps,\\nand more."}', "It helps, and more."),
        ("\u8a55\u4fa1\uff1a\uff15\n\u7406\u7531\uff1a\u89aa\u5207\uff01", "\u89aa\u5207\uff01"),
        ("Rating: 5 - It helps.", "It helps."),
        ("Rating: 5\n\nReason: It helps.\n\nLet me know if I can do more.", "It helps."),
        ("<rating>5</rating><reason>It helps.</reason>", "It helps."),
        ("| Rating | Reason |\n|---|---|\n| 5 | It helps. |", "It helps."),
        ("Rating: 5/7", None),
    ],
)
def test_the_reason_is_kept(reply: str, reason: str | None) -> None:
    assert Rating().parse(reply, False) == (Judgement(5, reason), Status.LENIENT)


@pytest.mark.parametrize(
    ("reply", "value", "status"),
    [
        ("**Rating:** 5\n**Reason:** It hel", Judgement(5, None), Status.LENIENT),
        ("Rating: 5/7\nReason: It hel", Judgement(5, None), Status.LENIENT),
        ("**Rating:** 5", None, Status.CUT),
        ("Rating: 5/", None, Status.CUT),
        ("<think>Rating: 5\nIt is", None, Status.CUT),
        ('{"rating": 5', None, Status.CUT),
    ],
)
def test_a_truncated_reply_is_read_only_where_the_rating_is_complete(
    reply: str, value: Judgement | None, status: Status
) -> None:
    assert Rating().parse(reply, True) == Parsed(value, status)


@pytest.mark.parametrize("name", ["ratings", "more"])
def test_the_quick_look_at_a_reason_misses_nothing(name: str) -> None:
    for row in rows(name):
        strict = re.fullmatch(r"Rating: -?[\d.]+\nReason: (.+)", row["reply"].strip())
        if strict and not may_differ(strict[1]) and row["value"] is not None:
            assert reader(*row["scale"]).read(row["reply"]) is not None, row["reply"]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Rating: 5\nReason: I would rather rate it 3, beca", None),
        ("Rating: 5\nReason: It would be a 6 if it nam", Judgement(5, None)),
        ("Rating: 5\nReason: It names 3 ri", Judgement(5, None)),
    ],
)
def test_a_truncated_reason_is_held_to_its_rating(reply: str, value: Judgement | None) -> None:
    assert Rating().parse(reply, True) == Parsed(value, Status.CUT)


@pytest.mark.parametrize(
    "part",
    [
        "| - ",
        "5",
        "my ",
        "Rating: ",
        "no ",
        "1 ",
        "(",
        '"',
        "<a>",
        "{",
        "would be 3 ",
        "not a 3 ",
        "3/4 ",
    ],
)
@pytest.mark.long
def test_no_reply_takes_long(part: str) -> None:
    text = (part * 4_000)[:3_900]
    start = time.process_time()  # other programs do not count
    for shape in (Rating(), *SHAPES.values()):
        for reply in (
            text,
            f"Rating: 5\n{text}",
            f"{text}\nRating: 5",
            f"Rating: 5\nactually{text}.",
            f"Rating: 5\nReason: {text}",
        ):
            shape.parse(reply, False)
    assert time.process_time() - start < 30
