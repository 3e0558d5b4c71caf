"""The word index: scripts without spaces, in SQLite and PostgreSQL, and bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import small

from sandbox import api
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.agents import agents
from sandbox.reading.exchanges import ExchangeFilter, stream_exchanges
from storage.database import Address
from storage.errors import InputError
from storage.search import MOST_WORDS, terms
from storage.spacing import spaced

QUESTIONS = [
    "\u96a3\u4eba\u306e\u624b\u7d19\u3092\u8aad\u3093\u3067\u3082\u3044\u3044\u3067\u3059\u304b\uff1f",
    "\u6211\u5e94\u8be5\u544a\u8bc9\u670b\u53cb\u771f\u76f8\u5417\uff1f",
    "\uc190\ud3b8\uc9c0\ub97c \uc77d\uc5b4\ub3c4 \ub429\ub2c8\uae4c?",
    "\u0e09\u0e31\u0e19\u0e04\u0e27\u0e23\u0e2d\u0e48\u0e32\u0e19\u0e08\u0e14\u0e2b\u0e21\u0e32\u0e22\u0e44\u0e2b\u0e21",
    "May I read the caf\u00e9's \U00020bb7\u91ce letters?",
]
"""Japanese, Chinese, Korean, Thai, and a mixture: may I read a letter, should I tell the truth."""

FOUND = {
    "\u624b\u7d19": {0},
    "\u8a71": set(),
    "\u7d19": {0},
    "\u306e\u624b\u7d19\u3092": {0},
    "\u624b\u4eba": set(),
    '"\u624b\u7d19"': {0},
    "\u8aad \u624b\u7d19": {0},
    "\u771f\u76f8": {1},
    "\u53cb": {1},
    "\ud3b8\uc9c0": {2},
    "\ud3b8": {2},
    "\u0e08\u0e14\u0e2b\u0e21\u0e32\u0e22": {3},
    "\u0e2d\u0e48\u0e32\u0e19": {3},
    "\U00020bb7": {4},
    "\u91ce letters": {4},
    "\U00020bb7\u91ce": {4},
}


def _settings(folder: Path) -> list[str]:
    (folder / "q.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    persona = {"name": "\u4f50\u85e4 \u82b1\u5b50", "description": "\u770b\u8b77\u5e2b\u3067\u3059"}
    (folder / "p.jsonl").write_text(json.dumps(persona))
    return [
        f"questions={folder / 'q.txt'}",
        f"personas={folder / 'p.jsonl'}",
        "world.topology=complete",
        "world.size=5x1",
        "rounds=1",
        "question_count=5",
        "name=ja",
    ]


def _found(address: Address, search: str) -> set[int]:
    with api.open_run(address) as reader:
        hits = stream_exchanges(reader, ExchangeFilter(search=search))
        return {QUESTIONS.index(exchange.question) for exchange in hits}


def test_scripts_without_spaces_in_sqlite(tmp_path: Path) -> None:
    address = create(prepare(small(*_settings(tmp_path))), str(tmp_path / "ja.db"))
    assert resume(address).status == "done"
    assert {search: _found(address, search) for search in FOUND} == FOUND
    assert _found(address, "CAFE") == _found(address, "caf") == {4}
    with api.open_run(address) as reader:
        assert (
            len(agents(reader, search="\u82b1")) == len(agents(reader, search="\u8b77\u5e2b")) == 5
        )
        assert agents(reader, search="\u5b50\u82b1") == []


def test_scripts_without_spaces_in_postgresql(server: str, tmp_path: Path) -> None:
    address = create(prepare(small(*_settings(tmp_path))), server)
    assert resume(address).status == "done"
    assert {search: _found(address, search) for search in FOUND} == FOUND
    assert _found(address, "letters") == {4}


def test_text_in_other_scripts_is_indexed_as_it_is() -> None:
    for text in ("plain", "caf\u00e9 \u2019s \u0434\u0430 \u03b1\u03b2 \u0905\u0906", ""):
        assert spaced(text) == text
    assert spaced(None) is None
    assert spaced("a\u624b\u7d19b") == "a \u624b  \u7d19 b"


def test_a_search_of_too_many_words_is_refused() -> None:
    assert len(terms("a " * 500)) == 1
    numbered = [f"w{number} " for number in range(500)]
    assert len(terms("".join(numbered[:MOST_WORDS]))) == MOST_WORDS
    for query in ("".join(numbered), "\u624b" * 101, '"' + "b c " * 60 + '"'):
        with pytest.raises(InputError, match=r"search: found \d+ words; expected at most 100"):
            terms(query)
