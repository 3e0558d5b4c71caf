"""Files of JSON: an array, or one value per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from worlds.text_files import FileFault, kind_of_file, lines

_EXPECTED = "one object per line, or an array in a .json file"
_SPACE = re.compile(r"\s*")
_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


def json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a file with the numbers of their lines.

    A ``.json`` file is an array, or has one value per line as all others.

    Raises:
        OSError: the file cannot be read.
        FileFault: it is not text or not JSON, or has a key twice or half of a surrogate pair.
    """
    if kind_of_file(path) == ".json":
        text = "".join(line for _, line in lines(path)).rstrip()
        if text.lstrip().startswith("["):
            yield from _array(path, text)
            return
    for number, line in lines(path):
        line = line.rstrip()
        if line:
            value, end = _decode(path, number, line, _skipped(line, 0))
            if line[end:].strip():
                raise _fault(path, number, "something follows the first value")
            yield number, value


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    position, counted, line = text.index("[") + 1, 0, 1
    closed = after_comma = False
    while not closed:
        position = _skipped(text, position)
        line += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]" and not after_comma:
            position += 1
            break
        value, position = _decode(path, line, text, position)
        yield line, value
        position = _skipped(text, position)
        ending = text[position : position + 1]
        if ending not in (",", "]"):
            raise _fault(path, line, "the array is not closed" if not ending else "no comma")
        after_comma, closed = ending == ",", ending == "]"
        position += 1
    if text[position:].strip():
        raise _fault(path, line, "something follows the array")


def _skipped(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _decode(path: Path, line: int, text: str, position: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _fault(path, line + error.doc.count("\n", position, error.pos), error.msg) from None
    except _DuplicateKey as error:
        raise _fault(path, line, str(error)) from None
    except (ValueError, RecursionError):
        raise _fault(path, line, "nested too deeply, or a number too long") from None
    if _SURROGATE.search(text, position, end):
        _refuse_surrogates(path, line, value)
    return value, end


def _refuse_surrogates(path: Path, line: int, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _fault(path, line, "half of a surrogate pair, \\ud800 to \\udfff") from None


def _fault(path: Path, line: int, problem: str) -> FileFault:
    return FileFault(f"{path}:{line}: not JSON: {problem}; expected {_EXPECTED}")


class _DuplicateKey(ValueError):
    pass


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _DuplicateKey(f"key {twice!r} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
