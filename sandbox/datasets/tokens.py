"""Token counts with a given tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storage.errors import InputError

_FILE = "tokenizer.json"


def token_counter(name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, without those of a chat template.

    Args:
        name: a `tokenizer.json`, a folder with one, or the name of a model on the Hugging Face Hub.

    Raises:
        InputError: there is no such tokenizer.
    """
    from tokenizers import Tokenizer

    place = Path(name).expanduser()
    file = place / _FILE if place.is_dir() else place
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        elif place.exists() or name.startswith(("/", ".", "~")):
            raise InputError(f"tokenizer: {name}: found no {_FILE}; expected a tokenizer's folder")
        else:
            tokenizer = Tokenizer.from_pretrained(name)
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exceptions
        message = str(error).strip().splitlines() or [type(error).__name__]
        expected = f"expected a folder with a {_FILE}, or a model's name"
        raise InputError(f"tokenizer: {name}: {message[0]}; {expected}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
