"""Lists of questions: plain text, CSV, JSON, Parquet, chat messages and Alpaca's instructions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from agents.forms import clean
from sandbox.sources.json_files import json_values
from storage.errors import InputError
from worlds.text_files import (
    DELIMITERS,
    CsvRow,
    FileFault,
    cells_of,
    csv_rows,
    first_line,
    kind_of_file,
    lines,
    listed,
)

LONGEST = 8_000
"""Maximum length of a question, in characters."""

_COLUMNS = ("question", "prompt", "instruction", "text")
_CHATS = ("messages", "conversations")
_CONTEXTS = ("input", "context")
"""What belongs to an instruction: `input` in Alpaca's rows, `context` in Dolly's."""

_TOPICS = ("topic", "category")
"""Columns by which figures of a run can be split; the first one that a row has."""

_LONGEST_TOPIC = 120  # characters

_ROLES = {
    "user": ("user", "human", "prompter"),
    "system": ("system", "developer"),
    "assistant": ("assistant", "gpt", "model", "chatgpt", "bot"),
}
_EXPECTED = (
    "expected .txt (one question per line), .csv, .tsv, .jsonl or .json, also with .gz, or .parquet"
)
_NAMES = " or ".join((*_COLUMNS, *_CHATS))


class Question(NamedTuple):
    """A question.

    Attributes:
        text: the question.
        source: where it was read, as ``file:line``.
        topic: what it is about, from the column `topic` or `category`; None where there is none.
    """

    text: str
    source: str
    topic: str | None = None


@dataclass
class _Told:
    """What is told about a file besides the number of its questions.

    Attributes:
        used: the columns with questions.
        unused: other columns.
        headless: whether a CSV file has no header.
        joined: number of rows that were joined at their commas.
        systems: number of system turns, which are not used.
        labels: further columns that are read.
        topics: the columns with topics.
    """

    used: dict[str, None] = field(default_factory=dict)
    unused: dict[str, None] = field(default_factory=dict)
    headless: bool = False
    joined: int = 0
    systems: int = 0
    labels: Collection[str] = ()
    topics: dict[str, None] = field(default_factory=dict)


Rows = Iterator[tuple[int, Any]]


def read_questions(
    path: Path, limit: int | None = None, notes: list[str] | None = None
) -> list[Question]:
    """Read a list of questions, in order; blank lines are skipped.

    Args:
        path: a .txt, .csv, .tsv, .jsonl or .json file, which may also end in .gz, or .parquet.
        limit: read at most this many questions.
        notes: a line about what was read is appended to it.

    Raises:
        InputError: the file cannot be read, has no question, or has an invalid one.
    """
    told = _Told()
    questions: list[Question] = []
    ended = True
    for question, _ in _read(path, told):
        if limit is not None and len(questions) == limit:
            ended = False
            break
        questions.append(question)
    if notes is not None:
        notes.append(_note(path, questions, told, ended))
    return questions


def read_labelled(path: Path, names: Collection[str]) -> list[tuple[Question, dict[str, Any]]]:
    """Read a list of questions with further columns, such as `category`.

    Args:
        path: as for `read_questions`.
        names: the columns; a question has those that its row has and that are not empty.

    Raises:
        InputError: as for `read_questions`.
    """
    return [
        (question, {name: row[name] for name in names if row.get(name) not in (None, "")})
        for question, row in _read(path, _Told(labels=names))
    ]


def _read(path: Path, told: _Told) -> Iterator[tuple[Question, Mapping[str, Any]]]:
    """The questions of a file, each with its row; an empty one where rows have no columns."""
    kind = kind_of_file(path)
    reader = _READERS.get(kind)
    if reader is None or (kind == ".parquet" and path.suffix.lower() == ".gz"):
        raise InputError(f"questions: {path}: found {path.suffix or 'no suffix'}; {_EXPECTED}")
    empty = True
    try:
        for line, value in reader(path, told):
            empty = False
            row = value if isinstance(value, dict) else {}
            yield _question(path, line, value, told), row
    except OSError as error:
        raise InputError(f"questions: {path}: {error.strerror or error}; {_EXPECTED}") from None
    except FileFault as fault:
        raise InputError(f"questions: {fault}") from None
    if empty:
        raise InputError(f"questions: {path}: found no question; expected at least 1")


def _note(path: Path, questions: Sequence[Question], told: _Told, ended: bool) -> str:
    count = len(questions)
    details = []
    if told.used:
        details.append(f"column{'s' * (len(told.used) > 1)} {listed(told.used)}")
    elif told.headless:
        details.append("no header, every row is a question")
    if told.joined:
        details.append(f"{told.joined:,} rejoined at commas without quotation marks")
    if told.systems:
        details.append(f"not used: {told.systems:,} system turn{'s' * (told.systems > 1)}")
    if told.topics:
        details.append(f"topics from {listed(told.topics)}")
    unused = [name for name in told.unused if name not in told.topics]
    if unused:
        details.append(f"not used: {listed(unused)}")
    repeated = count - len({question.text for question in questions})
    if repeated:
        details.append(f"{repeated:,} repeated")
    noun = "question" if count == 1 else "questions"
    number = f"{count:,} {noun}" if ended else f"the first {count:,} {noun}"
    return f"{number} from {path.name}" + (f" ({'; '.join(details)})" if details else "")


def _question(path: Path, line: int, value: Any, told: _Told) -> Question:
    place = f"{path}:{line}"
    topic = None
    if isinstance(value, dict):
        topic = _topic(value, told)
        value = _text_of(value, place, told)
    if not isinstance(value, str) or not value.strip():
        shown = json.dumps(value, default=str, ensure_ascii=False)[:60]
        raise InputError(f"{place}: found {clean(shown)}; expected a question")
    text = value.strip()
    if len(text) > LONGEST:
        raise InputError(f"{place}: found {len(text):,} characters; expected at most {LONGEST:,}")
    if any(char < " " and char not in "\t\r\n" for char in text):
        raise InputError(f"{place}: found control characters; expected text, not a binary file")
    return Question(clean(text), f"{path.name}:{line}", topic)


def _topic(record: Mapping[str, Any], told: _Told) -> str | None:
    """The topic of a row with named columns, in one line; None where it is no short text."""
    for column in _TOPICS:
        name = next((key for key in record if str(key).strip().casefold() == column), None)
        value = None if name is None else record[name]
        if isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_TOPIC:
            told.topics[str(name)] = None
            return " ".join(clean(value).split())
    return None


def _text_of(record: Mapping[str, Any], place: str, told: _Told) -> Any:
    """The question of a row with named columns."""
    names = {str(name).strip().casefold(): name for name in record}
    column = next((name for name in (*_COLUMNS, *_CHATS) if name in names), None)
    if column is None:
        raise InputError(
            f"{place}: found {listed(map(str, record)) or 'nothing'}; expected a column named "
            f"{_NAMES}"
        )
    value = record[names[column]]
    used = [column]
    if column == "instruction":
        used += [name for name in _CONTEXTS if name in names]
        value = _with_context({name: record[names[name]] for name in used}, place)
        if record.get(names.get("history", "")):
            raise InputError(f"{place}: found earlier turns (history); expected one user turn")
    if isinstance(value, list):
        value = _user_turn(value, f"{place}: {column}", told)
    told.used.update(dict.fromkeys(used))
    told.unused.update((str(name), None) for key, name in names.items() if key not in used)
    return value


def _with_context(values: Mapping[str, Any], place: str) -> str:
    """An instruction with its input, as in Alpaca's template: with a blank line between them."""
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            shown = json.dumps(value, default=str)[:60]
            raise InputError(f"{place}: {name}: found {shown}; expected a text")
    parts = [value.strip() for value in values.values() if value]
    return "\n\n".join(part for part in parts if part)


def _user_turn(turns: Sequence[Any], place: str, told: _Told) -> str:
    """The text of the only user turn of a chat."""
    said: list[str] = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            shown = json.dumps(turn, default=str)[:60]
            raise InputError(f"{place}: found {shown}; expected turns with role and content")
        role = turn.get("role", turn.get("from"))
        kind = next((kind for kind, names in _ROLES.items() if role in names), None)
        content = _content(turn.get("content", turn.get("value")))
        if kind is None or (kind == "assistant" and not said):
            raise InputError(
                f"{place}: turn {number}: found the role {role!r}; expected user first, "
                "then assistant; before them at most system"
            )
        if kind == "user" and content is None:
            raise InputError(f"{place}: turn {number}: found no text; expected the user's text")
        if kind == "user":
            said.append(content or "")
        elif kind == "system":
            told.systems += bool(content)
    if len(said) != 1:
        raise InputError(f"{place}: found {len(said)} user turns; expected 1")
    return said[0]


def _content(content: Any) -> str | None:
    """The text of a turn, which may come in parts; None if a part is no text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
        for part in content
    ]
    said = [text for text in texts if isinstance(text, str)]
    return "\n".join(said) if len(said) == len(texts) else None


def _lines(path: Path, told: _Told) -> Rows:
    return ((number, line) for number, line in lines(path) if line.strip())


def _json(path: Path, told: _Told) -> Rows:
    return json_values(path)


def _csv(path: Path, told: _Told) -> Rows:
    beginning = first_line(path, _is_nothing)
    delimiter = _delimiter(path, beginning)
    rows = csv_rows(path, delimiter, _is_nothing)
    header = [name.casefold() for name in cells_of(beginning, delimiter)]
    while header and not header[-1]:
        header.pop()
    if not set(header) & {*_COLUMNS, *_CHATS}:
        yield from _without_header(path, rows, header, told)
        return
    names = next(rows).cells
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise FileFault(f"{path}:1: found the column {twice} twice; expected it once")
    one = f"expected one cell ({names[0]}): put a text with commas in quotation marks"
    for row in rows:
        if len(names) == 1:
            yield row.line, {names[0]: _one_cell(path, row, one, told)}
        else:
            yield row.line, _record(path, row, names)


def _is_nothing(line: str) -> bool:
    return not line.strip()


def _delimiter(path: Path, beginning: str) -> str:
    """What separates the cells: what makes a column with questions in the first line."""
    if kind_of_file(path) == ".tsv":
        return "\t"
    known = {*_COLUMNS, *_CHATS}
    for delimiter in DELIMITERS:
        if known & {name.casefold() for name in cells_of(beginning, delimiter)}:
            return delimiter
    return ","


def _record(path: Path, row: CsvRow, names: Sequence[str]) -> dict[str, str | None]:
    """A row of several columns; refused where a comma may be part of a text."""
    place = f"{path}:{row.line}"
    if len(row.cells) > len(names):
        raise FileFault(
            f"{place}: found {len(row.cells)} cells; expected {len(names)} ({listed(names)}): put "
            "a text with commas in quotation marks"
        )
    cells = [*row.cells, *[None] * (len(names) - len(row.cells))]
    record = dict(zip(names, cells, strict=True))
    asked = next(
        number
        for name in (*_COLUMNS, *_CHATS)
        for number, known in enumerate(names)
        if known.casefold() == name
    )
    if any(row.spaced[asked + 1 : asked + 2]):
        raise FileFault(
            f"{place}: found {row.raw[:60]!r}, where a comma may be part of the question; expected "
            "quotation marks around a text with commas"
        )
    record.pop("", None)
    return record


def _one_cell(path: Path, row: CsvRow, expected: str, told: _Told) -> str:
    """The only cell of a row; a text with commas that are not in quotation marks is rejoined.

    Such commas are punctuation: white space follows them, or they stand between digits.
    """
    if len(row.cells) == 1:
        return row.cells[0]
    text = row.raw.rstrip(",;\t ")
    if row.quoted or len(re.findall(_SEPARATOR, text)) > len(_PUNCTUATION.findall(text)):
        raise FileFault(f"{path}:{row.line}: found {listed(row.cells)}; {expected}")
    told.joined += 1
    return text


_SEPARATOR = r"[,;\t]"
_PUNCTUATION = re.compile(rf"{_SEPARATOR}(?=\s)|(?<=\d),(?=\d)")
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w.-]*( [\w.-]+){0,2}")


def _without_header(path: Path, rows: Iterator[CsvRow], header: Sequence[str], told: _Told) -> Rows:
    """Rows of a file without a header: each must clearly be one question."""
    told.headless = True
    expected = f"expected a header with a column named {_NAMES}"
    if all(_COLUMN_NAME.fullmatch(name) for name in header):
        raise FileFault(f"{path}:1: found {listed(header)}; {expected}")
    for row in rows:
        text = _one_cell(path, row, expected, told)
        if not row.quoted and re.search(r"[;\t](?!\s)", text):
            raise FileFault(f"{path}:{row.line}: found {text[:60]!r}; {expected}")
        yield row.line, text


def _parquet(path: Path, told: _Told) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {*_COLUMNS, *_CHATS, *_CONTEXTS, *_TOPICS, "history", *told.labels}
    try:
        with pq.ParquetFile(path) as file:
            all_names = file.schema_arrow.names
            names = [name for name in all_names if name.strip().casefold() in wanted]
            told.unused.update((name, None) for name in all_names if name not in names)
            number = 0
            for batch in file.iter_batches(columns=names or None):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the operating system
        raise FileFault(f"{path}: not Parquet: {str(error).partition(chr(10))[0]}") from None


_READERS = {
    ".txt": _lines,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
