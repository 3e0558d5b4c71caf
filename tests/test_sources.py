"""Questions, personas and prior pairs from files: one meaning, or one line with the place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Make, small
from stored import lines

from agents.persona import Persona
from sandbox import api
from sandbox.datasets import export
from sandbox.engine.run import prepare
from sandbox.reading.agents import agent, agents
from sandbox.sources import read_pairs, read_personas, read_questions
from storage.errors import InputError


def _write(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _rows(*rows: Any) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _chat(*said: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(said)]


COMMAS = ["Should I, after all, tell her?", "May I skip the vote, or not?"]

GOOD: dict[str, tuple[str | bytes, list[str], str]] = {
    "onecol.csv": (
        f"question\n{COMMAS[0]}\n{COMMAS[1]}\n",
        COMMAS,
        "column question; 2 rejoined at commas without quotation marks",
    ),
    "quoted.csv": (f'Question\r\n"{COMMAS[0]}"\r\n\r\n{COMMAS[1]}\r\n', COMMAS, "1 rejoined"),
    "headless.csv": (f"{COMMAS[0]}\n{COMMAS[1]}\n", COMMAS, "no header, every row is a question"),
    "headless2.csv": (f'"{COMMAS[0]}"\n"{COMMAS[1]}"\n', COMMAS, "no header"),
    "excel.csv": (f"question,,\n{COMMAS[0]},,\n{COMMAS[1]},,\n,,\n", COMMAS, "column question"),
    "numbers.csv": ("question\nAre 1,000 euros, or 2,5, enough?\n",
                    ["Are 1,000 euros, or 2,5, enough?"], "1 rejoined"),
    "semicolons.csv": (
        f"id;question;topic\n1;{COMMAS[0]};x\n2;{COMMAS[1]};y\n",
        COMMAS,
        "column question; topics from topic; not used: id",
    ),
    "tabs.tsv": (f"id\tprompt\n1\t{COMMAS[0]}\n2\t{COMMAS[1]}\n", COMMAS, "not used: id"),
    "spaces.csv": (f'id, question\n1, "{COMMAS[0]}"\n2, "{COMMAS[1]}"\n', COMMAS, "id"),
    "index.csv": (f',question\n0,"{COMMAS[0]}"\n1,"{COMMAS[1]}"\n', COMMAS, "question"),
    "packed.csv.gz": (f"question\n{COMMAS[0]}\n{COMMAS[1]}\n", COMMAS, "2 rejoined"),
    "packed.txt.gz": ("\n".join(COMMAS), COMMAS, "2 questions from packed.txt.gz"),
    "utf16.txt": ("\r\n".join(COMMAS).encode("utf-16"), COMMAS, "2 questions"),
    "old.txt": ("\r".join(COMMAS), COMMAS, "2 questions"),
    "twice.txt": ("A?\nB?\nA?\n", ["A?", "B?", "A?"], "1 repeated"),
    "array.json": ('[\n {"question": "A?"},\n "B?"\n]\n', ["A?", "B?"], "2 questions"),
    "lines.json": (_rows({"text": "A?"}, {"text": "B?"}), ["A?", "B?"], "column text"),
    "pairs.jsonl": (r'{"question": "Fine \ud83d\ude00?"}', ["Fine \U0001f600?"], "1 question"),
    "alpaca.jsonl": (
        _rows({"instruction": "Sum up.", "input": "The dog ran.", "output": "x"},
              {"instruction": "Say hello.", "input": "", "output": "y"},
              {"instruction": "Say bye.", "input": None}),
        ["Sum up.\n\nThe dog ran.", "Say hello.", "Say bye."],
        "columns instruction, input; not used: output",
    ),
    "alpaca.csv": ('instruction,input,output\nSum up.,"The dog, he ran.",x\nHello.,,y\n',
                   ["Sum up.\n\nThe dog, he ran.", "Hello."], "columns instruction, input"),
    "dolly.jsonl": (_rows({"instruction": "Who?", "context": "Anna came.", "category": "qa"}),
                    ["Who?\n\nAnna came."], "topics from category"),
    "messages.jsonl": (
        _rows({"messages": _chat("A?", "Yes.")},
              {"messages": [{"role": "system", "content": "Be kind."}, *_chat("B?")]}),
        ["A?", "B?"],
        "column messages; not used: 1 system turn",
    ),
    "prompts.jsonl": (_rows({"prompt": _chat("A?"), "id": 3}, {"prompt": "B?", "id": 4}),
                      ["A?", "B?"], "column prompt; not used: id"),
    "sharegpt.json": (
        json.dumps([{"id": "x", "conversations": [{"from": "human", "value": "A?"},
                                                  {"from": "gpt", "value": "Yes."}]}]),
        ["A?"],
        "column conversations",
    ),
    "parts.jsonl": (
        _rows({"messages": [{"role": "user", "content": [{"type": "text", "text": "A?"}]}]}),
        ["A?"],
        "column messages",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_questions(tmp_path: Path, name: str) -> None:
    content, expected, told = GOOD[name]
    notes: list[str] = []
    questions = read_questions(_write(tmp_path / name, content), notes=notes)
    assert [question.text for question in questions] == expected
    assert len(notes) == 1
    assert f"from {name}" in notes[0]
    assert told in notes[0]


def test_places_of_questions(tmp_path: Path) -> None:
    path = _write(tmp_path / "q.csv", 'id,question\n1,"Two\nlines?"\n\n2,One?\n')
    assert [question.source for question in read_questions(path)] == ["q.csv:2", "q.csv:5"]
    path = _write(tmp_path / "q.json", '[\n {"question": "A?"},\n\n {"question":\n "B?"}]')
    assert [question.source for question in read_questions(path)] == ["q.json:2", "q.json:4"]


def test_chats_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"id": [1], "messages": [_chat("A?", "Yes.")]}), path)
    notes: list[str] = []
    assert [question.text for question in read_questions(path, notes=notes)] == ["A?"]
    assert notes == ["1 question from q.parquet (column messages; not used: id)"]


BAD: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "many.csv": ("id,question\n1,Should I, after all?\n", (":2", "3 cells", "quotation marks")),
    "last.csv": ("question,topic\nShould I, or not?\n", (":2", "part of the question")),
    "cells.csv": ("question\nShould I?,ethics\n", (":2", "Should I?, ethics", "one cell")),
    "numbered.csv": ("question\n1,Should I?\n", (":2", "1, Should I?")),
    "partly.csv": ('question\nShould I, "really", go?\n', (":2", "one cell")),
    "unclosed.csv": ('question\n"Should I?\nMay I?\n', (":2", "not CSV")),
    "inner.csv": ('question\n"Yes" or "no"?\n', (":2", "not CSV", "doubled")),
    "noheader.csv": ("Should I?,ethics\nMay I?,law\n", (":1", "header", "question")),
    "noheader2.csv": ("1;Should I?\n2;May I?\n", (":1", "header")),
    "unknown.csv": ("queries\nShould I?\n", (":1", "queries", "question")),
    "twice.csv": ("question,question\nA?,B?\n", (":1", "question twice")),
    "null.csv": ("id,question\n1,\n", (":2", "expected a question")),
    "nul.csv": ("question\nA\0?\n", (":2", "control characters")),
    "wide.txt": ("A?\n".encode("utf-16-le"), (":1", "control characters")),
    "latin.txt": ("Fine?\nSch\u00f6n?\n".encode("latin-1"), (":2", "UTF-8", "0xf6")),
    "wider.txt": ("A?\n".encode("utf-32"), ("UTF-32",)),
    "half.jsonl": (r'{"question": "A \ud800?"}', (":1", "surrogate")),
    "key.jsonl": ('{"question": "A?", "question": "B?"}', (":1", "question", "twice")),
    "more.jsonl": ('{"question": "A?"} {"question": "B?"}', (":1", "follows")),
    "open.json": ('[{"question": "A?"}', (":1", "not closed")),
    "comma.json": ('[{"question": "A?"},\n]', (":2", "not JSON")),
    "third.json": ('[\n{"question": "A?"},\n{"question": 3}]', (":3", "found 3")),
    "input.jsonl": (_rows({"instruction": "A?", "input": ["x"]}), (":1", "input", "text")),
    "history.jsonl": (_rows({"instruction": "A?", "history": [["a", "b"]]}), (":1", "history")),
    "turns.jsonl": (_rows({"messages": _chat("A?", "B.", "C?")}), (":1", "2 user turns")),
    "none.jsonl": (_rows({"messages": []}), (":1", "0 user turns")),
    "tool.jsonl": (_rows({"messages": [{"role": "tool", "content": "x"}]}), (":1", "'tool'")),
    "begins.jsonl": (_rows({"messages": _chat("A?", "B.")[::-1]}), (":1", "'assistant'")),
    "image.jsonl": (
        _rows({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (":1", "no text"),
    ),
    "list.jsonl": (_rows({"prompt": ["A?"]}), (":1", "role")),
    "q.parquet.gz": ("x", (".gz", "expected")),
}


@pytest.mark.parametrize("name", BAD)
def test_doubtful_questions_are_refused(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    with pytest.raises(InputError) as error:
        read_questions(_write(tmp_path / name, content))
    message = str(error.value)
    assert message.count("\n") == 0
    assert all(word in message for word in (name, *words))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"A?\n" * 999)
    for data in (b"plain", whole[:-9], whole[:20] + b"\0\0\0\0" + whole[24:]):
        (tmp_path / "q.txt.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"q.txt.gz: not gzip"):
            read_questions(tmp_path / "q.txt.gz")


def test_lists_to_keep_out_mean_what_questions_mean(tmp_path: Path, make: Make) -> None:
    asked = _write(tmp_path / "kq.txt", f"{COMMAS[0]}\n{COMMAS[1]}\nIs it fair?\n")
    address, _ = make(f"questions={asked}", "world.size=2", "rounds=2", "question_count=null")
    written = {}
    for name, text in {
        "ka.csv": f"question\n{COMMAS[0]}\n",
        "kb.csv": f'question\n"{COMMAS[0]}"\n',
        "kc.jsonl": _rows({"messages": _chat(COMMAS[0])}),
    }.items():
        kept = [question.text for question in read_questions(_write(tmp_path / name, text))]
        out = tmp_path / name.replace(".", "_")
        with api.open_run(address) as reader:
            export([reader], ["prompts"], out, keep_out=kept)
        written[name] = {row["prompt"][0]["content"] for row in lines(out, "prompts.jsonl")}
    assert list(written.values()) == [{COMMAS[1], "Is it fair?"}] * 3


def test_our_own_prompts_can_be_asked_again(tmp_path: Path, make: Make) -> None:
    address, _ = make("question_count=3")
    with api.open_run(address) as reader:
        export([reader], ["prompts"], tmp_path / "out")
    rows = lines(tmp_path / "out", "prompts.jsonl")
    asked = [question.text for question in read_questions(tmp_path / "out" / "prompts.jsonl")]
    assert asked == [row["prompt"][0]["content"] for row in rows]
    assert len(asked) == 3


HUB = ["A nurse who collects stamps", "A retired judge."]


def test_personas_with_free_descriptions(tmp_path: Path, make: Make) -> None:
    path = _write(tmp_path / "hub.jsonl", _rows(*({"persona": text} for text in HUB)))
    notes: list[str] = []
    first, second = read_personas(path, notes)
    assert notes == ["2 personas from hub.jsonl"]
    assert (first.name, first.description, first.about) == ("Persona 1", HUB[0], HUB[0])
    assert second.introduction("neutral") == "You are Persona 2. A retired judge."
    assert first.introduction("good").endswith("You are Persona 1. A nurse who collects stamps.")
    address, outcome = make(f"personas={path}")
    assert outcome.status == "done"
    assert outcome.inputs[1] == "2 personas from hub.jsonl"
    with api.open_run(address) as reader:
        assert {row.description for row in agents(reader)} == set(HUB)
        assert {row.agent for row in agents(reader, search="stamps")} == {
            row.agent for row in agents(reader) if row.description == HUB[0]
        }
        assert agent(reader, 0).introduction.split("You are Persona ")[1][3:].startswith("A ")
    free = {"name": "Ada", "age": 30, "description": "Writes poems", "goal": "You want to win."}
    array = _write(tmp_path / "free.json", json.dumps([free]))
    assert read_personas(array)[0].introduction("neutral") == (
        "You are Ada, 30 years old. Writes poems."
    )


def test_personas_with_all_fields_are_introduced_as_before() -> None:
    persona = Persona(
        name="Ada", age=30, place="Ulm", occupation="smith", values=("calm", "care"), voice="Hums."
    )
    assert persona.introduction("neutral") == (
        "You are Ada, 30 years old, from Ulm. Occupation: smith. You value calm and care. Hums."
    )
    assert persona.about == "30, smith, from Ulm"
    assert persona.profile == "smith Ulm calm care "


BAD_PERSONAS = {
    "unknown": ({"persona": "A nurse", "pronouns": "they"}, "'pronouns': unknown field; expected "
                "name, age, place, occupation, values, voice, goal, adapter, description"),
    "both": ({"persona": "A nurse", "description": "A judge"}, "persona and description"),
    "half": ({"name": "Ada", "age": 3}, "place, or a free description"),
    "empty": ({"persona": ""}, "description"),
    "number": ({"persona": 3}, "description"),
    "list": (["A nurse"], "found list; expected an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PERSONAS)
def test_bad_personas(tmp_path: Path, case: str) -> None:
    row, expected = BAD_PERSONAS[case]
    path = _write(tmp_path / "p.jsonl", "\n" + _rows(row))
    with pytest.raises(InputError) as error:
        read_personas(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert expected in str(error.value)


def test_bad_pairs(tmp_path: Path) -> None:
    pair = {"question": "A?", "answer": "B.", "label": "good"}
    path = _write(tmp_path / "p.jsonl.gz", _rows(pair))
    notes: list[str] = []
    assert len(read_pairs(path, notes)) == 1
    assert notes == ["1 prior pair from p.jsonl.gz"]
    _write(path, _rows(pair, {**pair, "source": "x"}))
    with pytest.raises(InputError) as error:
        read_pairs(path)
    assert str(error.value) == (
        f"{path}:2: 'source': unknown field; expected question, answer, label"
    )


def test_a_run_tells_what_it_read(tmp_path: Path, make: Make) -> None:
    forms = _write(tmp_path / "forms.yaml", "draft: {system: Be brief.}\n")
    blueprint = prepare(small(f"forms={forms}"))
    assert blueprint.notes == [
        "the first 8 questions from questions.jsonl (column question; topics from topic; "
        "not used: id)",
        "40 personas from personas.jsonl",
        "240 prior pairs from prior.jsonl",
        "1 prompt template from forms.yaml (draft)",
    ]
    assert make(f"forms={forms}")[1].inputs == blueprint.notes
