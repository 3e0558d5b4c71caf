"""URLs of pages: building links, and parsing query parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode

from storage.errors import InputError


class Query:
    """The query parameters of a URL: filters, sort order, page number.

    Args:
        values: the parameters by name, as the browser sent them; empty ones are ignored.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = {name: value for name, value in values.items() if value.strip()}

    def text(self, name: str) -> str | None:
        """A text parameter, stripped and truncated to 1,000 characters; None if absent."""
        value = self.values.get(name)
        return None if value is None else value.strip()[:1000]

    def number(self, name: str, low: int = 0, high: int = 2**40) -> int | None:
        """An integer parameter; None if absent.

        Raises:
            InputError: it is not an integer between `low` and `high`.
        """
        value = self.values.get(name)
        if value is None:
            return None
        try:
            number = int(value[:20])
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise InputError(
                f"{name}: found {value[:40]}; expected a number from {low} to {high:,}"
            )
        return number

    def decimal(self, name: str) -> float | None:
        """A parameter that is a number with or without decimals; None if absent.

        Raises:
            InputError: it is not a finite number.
        """
        value = self.values.get(name)
        if value is None:
            return None
        try:
            number = float(value[:40].replace("\u2212", "-"))
        except ValueError:
            number = math.inf
        if not math.isfinite(number):
            raise InputError(f"{name}: found {value[:40]}; expected a number")
        return number

    def choice(self, name: str, allowed: Iterable[str]) -> str | None:
        """A parameter with a fixed set of values; None if absent.

        Raises:
            InputError: it is not one of `allowed`.
        """
        value, options = self.values.get(name), list(allowed)
        if value is not None and value not in options:
            raise InputError(f"{name}: found {value[:40]}; expected {', '.join(options)}")
        return value

    def changed(self, **changes: object) -> str:
        """The query string with some parameters replaced (None removes one)."""
        values = {**self.values, **changes}
        kept = {name: value for name, value in values.items() if value is not None}
        return f"?{urlencode(kept)}" if kept else "?"


class Chip(NamedTuple):
    """An active filter: what it selects, and the query string without it."""

    text: str
    href: str


class Links:
    """URLs of the pages that the server serves.

    Args:
        root: the prefix of every URL.
    """

    static = False

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def asset(self, name: str) -> str:
        """The URL of a static file: a script, a style sheet or an image."""
        return f"{self.root}static/{name}"

    def runs(self) -> str:
        """The URL of the list of runs."""
        return self.root

    def search(self, **query: object) -> str | None:
        """The URL of the search across all runs."""
        parameters = {name: value for name, value in query.items() if value is not None}
        return f"{self.root}search" + (f"?{urlencode(parameters)}" if parameters else "")

    def run(self, key: str, *parts: object, **query: object) -> str:
        """The URL of a page of a run: ``run("demo", "agents", 3)`` is agent 3."""
        segments = (str(p) if isinstance(p, int) else quote(str(p), safe="") for p in (key, *parts))
        path = "/".join(segments)
        parameters = {name: value for name, value in query.items() if value is not None}
        return f"{self.root}r/{path}" + (f"?{urlencode(parameters)}" if parameters else "")

    def compare(self, *keys: str, part: str = "", **query: object) -> str:
        """The URL of a comparison of runs, or of a part of it, such as ``figures/versus.svg``."""
        parameters = [("run", key) for key in keys]
        parameters += [(name, str(value)) for name, value in query.items() if value is not None]
        path = f"{self.root}compare" + (f"/{part}" if part else "")
        return path + (f"?{urlencode(parameters)}" if parameters else "")
