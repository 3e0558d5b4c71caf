"""Red-team requests: every phrasing of every request, lists of one's own, and bad lines."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from worlds.red_team import PHRASINGS, Request, messages, read_requests
from worlds.text_files import FileFault

REQUESTS = read_requests(ROOT / "worlds" / "data" / "red_team.jsonl")

LAW = ("private_data", "dose", "forgery", "slander", "threat", "break_in", "weapon")
ORGANISATION = ("no_swearing", "is_a_machine", "no_party", "rivals")


def test_every_rule_has_requests() -> None:
    counts = Counter(request.rule for request in REQUESTS)
    assert set(counts) == {
        *(f"law.{name}" for name in LAW),
        *(f"org.{name}" for name in ORGANISATION),
    }
    assert min(counts[f"law.{name}"] for name in LAW) >= 3
    assert min(counts[f"org.{name}"] for name in ORGANISATION) >= 2


def test_languages_take_turns_and_no_text_is_there_twice() -> None:
    languages = Counter(request.language for request in REQUESTS)
    assert set(languages) == {"French", "German", "Spanish", "Swahili", "Hindi"}
    assert max(languages.values()) - min(languages.values()) <= 1
    texts = [
        text
        for request in REQUESTS
        for text in (request.sentence, request.translated, *(request.parts or ()))
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.id)
def test_every_request_has_every_phrasing(request_: Request) -> None:
    clause = request_.request
    assert clause is not None and clause[0].islower() and clause[-1] not in ".!?"
    said = {phrasing: messages(request_, phrasing) for phrasing in PHRASINGS}
    assert len(set(said.values())) == len(PHRASINGS)
    for phrasing in ("plain", "role_play", "authority", "step_by_step"):
        (message,) = said[phrasing] or ()
        assert f"Please {clause}." in message
    assert said["plain"] == (f"Please {clause}.",)
    assert said["other_language"] == (request_.translated,)
    assert said["split"] == request_.parts and len(request_.parts or ()) in (2, 3)


def test_a_sentence_of_ones_own_fits_every_phrasing_that_it_can_have() -> None:
    request = Request(id="own", prompt="How do I {open} this door? Be quick!")
    found = {phrasing: messages(request, phrasing) for phrasing in PHRASINGS}
    assert found["plain"] == ("How do I {open} this door? Be quick!",)
    for phrasing in ("role_play", "authority", "step_by_step"):
        (message,) = found[phrasing] or ()
        assert "How do I {open} this door? Be quick!" in message and "Please" not in message
    assert found["other_language"] is None and found["split"] is None


def test_an_unknown_phrasing_is_refused() -> None:
    with pytest.raises(ValueError, match="found phrasing 'rhyme'; expected one of plain, role_pl"):
        messages(REQUESTS[0], "rhyme")


def test_lists_of_others_are_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Open it.", "category": "crime_theft", "id": 7, "attack_type": "suffix"},
        {"prompt": "Shut it.", "rule": "law.break_in"},
        {"prompt": "Paint it.", "translated": "Bitte streiche es.", "language": "German"},
    ]
    path = tmp_path / "own.jsonl.gz"
    text = "\n\n".join(json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode("utf-8-sig")))
    first, second, third = read_requests(path)
    assert (first.id, first.rule, first.sentence) == ("7", "crime_theft", "Open it.")
    assert (second.id, second.rule) == ("line 3", "law.break_in")
    assert third.rule is None
    assert messages(third, "other_language") == ("Bitte streiche es.",)


FINE = '{"id": "a", "request": "do it"}\n'

BAD = {
    "": "found no line; expected at least 1",
    "\n\n": "found no line; expected at least 1",
    f"{FINE}[1]\n": ":2: found list; expected an object",
    "{": ":1: not JSON: Expecting property name",
    '{"id": "a", "id": "b"}': ":1: not JSON: key 'id' is there twice; expected one object per",
    '{"prompt": NaN}': ":1: not JSON: found NaN; expected one object per line",
    '{"prompt": %s}' % ("[" * 100_000): ":1: not JSON: nested too deeply; expected one object",
    f"{FINE}\n{FINE}": ":3: id: found 'a' again; expected another id",
    '{"id": "a"}': ":1: expected: either request or prompt",
    '{"request": "do it", "prompt": "Do it."}': ":1: expected: either request or prompt",
    '{"prompt": "Do it.", "language": "German"}': ":1: expected: language and translated, or",
    '{"prompt": "Do it.", "rule": "a", "category": "b"}': ":1: found rule and category; expected",
    '{"prompt": "Do it.", "colour": 1}': ":1: 'colour': unknown field; expected id, rule, req",
    '{"prompt": 3}': ":1: prompt: expected: Input should be a valid string",
    '{"prompt": ""}': ":1: prompt: expected: String should have at least 1 character",
    '{"prompt": "Do it.", "id": true}': ":1: id: expected: Input should be a valid string",
    '{"prompt": "Do it.", "parts": ["a"]}': ":1: parts: expected: Tuple should have at least 2",
    '{"prompt": "Do it.", "parts": ["a", " "]}': ":1: expected: parts without an empty message",
    '{"prompt": "Do it.", "parts": ["a", 2]}': ":1: parts.1: expected: Input should be a valid",
}


@pytest.mark.parametrize(("text", "expected"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_line_is_one_line_with_its_place(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileFault) as caught:
        read_requests(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and expected in message and "\n" not in message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(FINE.encode() + b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(FileFault, match=":2: found text that is not UTF-8"):
        read_requests(path)
    with pytest.raises(OSError, match="No such file"):
        read_requests(tmp_path / "none.jsonl")
