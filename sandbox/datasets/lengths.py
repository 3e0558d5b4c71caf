"""Lengths in tokens of a named tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storage.errors import InputError

_FILE = "tokenizer.json"


def token_counter(name: str) -> Callable[[str], int]:
    """What counts the tokens of a text, without those that a chat template adds.

    Args:
        name: a folder with a `tokenizer.json`, such a file, or a model on the Hugging Face Hub.

    Raises:
        InputError: there is no such tokenizer.
    """
    from tokenizers import Tokenizer

    place = Path(name).expanduser()
    file = place / _FILE if place.is_dir() else place
    try:
        if file.is_file():
            made = Tokenizer.from_file(str(file))
        elif place.exists() or name.startswith(("/", ".", "~")):
            raise InputError(f"tokenizer: {name}: holds no {_FILE}; expected a tokenizer's folder")
        else:
            made = Tokenizer.from_pretrained(name)
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exceptions
        said = str(error).strip().splitlines() or [type(error).__name__]
        expected = f"expected a folder with a {_FILE}, or a model's name"
        raise InputError(f"tokenizer: {name}: {said[0]}; {expected}") from None
    made.no_truncation()
    made.no_padding()
    return lambda text: len(made.encode(text, add_special_tokens=False).ids)
