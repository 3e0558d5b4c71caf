"""Regular expressions of users, matched by RE2: in linear time, whatever they and the text are.

RE2 has no look-around and no back-references; a pattern with either does not compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2


class PatternError(ValueError):
    """Raised for a pattern that does not compile."""


@lru_cache(maxsize=1024)
def pattern(source: str) -> Any:
    """Compile a pattern, without regard to case.

    Raises:
        PatternError: it does not compile.
    """
    try:
        return re2.compile(source, _options())
    except re2.error as error:
        reason = error.args[0] if error.args else error
        shown = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        expected = "expected a regular expression that RE2 can compile"
        raise PatternError(f"found {source[:60]!r}, {shown[:100]}; {expected}") from None


def search(source: str, text: str) -> str | None:
    """Return the first match of a pattern in a text; None if there is none.

    Raises:
        PatternError: it does not compile.
    """
    found = pattern(source).search(text)
    return None if found is None else str(found[0])


class Patterns:
    """Several patterns, of which one pass over a text tells which match.

    Args:
        sources: patterns that compile.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._set = re2.Set.SearchSet(_options())
        for source in sources:
            self._set.Add(source)
        self._set.Compile()

    def matching(self, text: str) -> list[int]:
        """Return the places, in `sources`, of the patterns that match a text."""
        return sorted(self._set.Match(text) or ())


def _options() -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return options
