"""Addresses of pages: where links lead, and what an address asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

from storage.errors import InputError


class Query:
    """What stands behind the question mark of an address: filters, an order, a page.

    Args:
        values: by name, as the browser sent them; empty ones count as not given.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = {name: value for name, value in values.items() if value.strip()}

    def text(self, name: str) -> str | None:
        """Free text, of a sensible length."""
        value = self.values.get(name)
        return None if value is None else value.strip()[:1000]

    def number(self, name: str, low: int = 0, high: int = 2**40) -> int | None:
        """A whole number.

        Raises:
            InputError: it is none, or not between `low` and `high`.
        """
        value = self.values.get(name)
        if value is None:
            return None
        try:
            number = int(value[:20])
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise InputError(f"{name}: found {value[:40]}; expected a number of {low} to {high:,}")
        return number

    def choice(self, name: str, allowed: Iterable[str]) -> str | None:
        """One of several words.

        Raises:
            InputError: it is another one.
        """
        value, words = self.values.get(name), list(allowed)
        if value is not None and value not in words:
            raise InputError(f"{name}: found {value[:40]}; expected {', '.join(words)}")
        return value

    def changed(self, **changes: object) -> str:
        """The same with some values changed (None: taken away), as it stands in an address."""
        values = {**self.values, **changes}
        rest = {name: value for name, value in values.items() if value is not None}
        return f"?{urlencode(rest)}" if rest else "?"


class Links:
    """Addresses of pages, as the pages of a server link to each other.

    Args:
        root: what all of them begin with.
    """

    static = False

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def asset(self, name: str) -> str:
        """A script, a style sheet or a picture of the program."""
        return f"{self.root}static/{name}"

    def runs(self) -> str:
        """The list of runs."""
        return self.root

    def run(self, key: str, *parts: object, **query: object) -> str:
        """A page of a run: ``run("demo", "agents", 3)`` is agent 3."""
        words = (str(p) if isinstance(p, int) else quote(str(p), safe="") for p in (key, *parts))
        path = "/".join(words)
        asked = {name: value for name, value in query.items() if value is not None}
        return f"{self.root}r/{path}" + (f"?{urlencode(asked)}" if asked else "")

    def compare(self, *keys: str, **query: object) -> str:
        """Runs side by side."""
        asked = [("run", key) for key in keys]
        asked += [(name, str(value)) for name, value in query.items() if value is not None]
        return f"{self.root}compare" + (f"?{urlencode(asked)}" if asked else "")
