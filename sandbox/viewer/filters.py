"""What templates do with values: untrusted text made visible, numbers, what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from sandbox.text import command, duration, escape_controls, short
from storage.search import Term

_AROUND = 80  # characters on either side of what was found
_SPREAD = 2 * _AROUND  # a text of so many characters is shown whole
_SHOWN = 2  # texts that say something, where one says all of it


def clear(value: Any) -> Any:
    """What a chart is made of, with every text in it `visible`."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, dict):
        return {name: clear(part) for name, part in value.items()}
    return [clear(part) for part in value] if isinstance(value, list | tuple) else value


def marked(text: str, said: Sequence[Term]) -> Markup:
    """A text with what was searched for marked."""
    shown, found, at = escape_controls(text), [], 0
    for start, end in _places(shown, said):
        found += [escape(shown[at:start]), Markup("<mark>{}</mark>").format(shown[start:end])]
        at = end
    return Markup("").join([*found, escape(shown[at:])])


def explained(
    texts: Iterable[tuple[str, str | None]], said: Sequence[Term]
) -> list[tuple[str, Markup]]:
    """Why something was found: some of the texts, cut and marked, that say all of it together.

    Args:
        texts: where something is said, and what.
        said: what was searched for.
    """
    shown = [(where, escape_controls(text)) for where, text in texts if text]
    says = [{term for term in said if term.pattern.search(text)} for _, text in shown]
    order = sorted(range(len(shown)), key=lambda place: -len(says[place]))
    found: list[tuple[str, Markup]] = []
    missing = set(said)
    for place in order:
        news = [term for term in said if term in says[place] & missing]
        if news or (says[place] and not missing and len(found) < _SHOWN):
            where, text = shown[place]
            found.append((where, _snippet(text, news or said, said)))
            missing -= says[place] if len(text) <= _SPREAD else set(news[:1])
    return found


def _snippet(text: str, about: Sequence[Term], said: Sequence[Term]) -> Markup:
    """The neighbourhood of the first thing that it is about, with all that was sought marked."""
    first, last = _places(text, about)[0]
    start, end = max(0, first - _AROUND), last + _AROUND
    parts = ["\u2026" if start else "", text[start:end], "\u2026" if end < len(text) else ""]
    return marked("".join(parts), said)


def _places(text: str, said: Sequence[Term]) -> list[tuple[int, int]]:
    """Where something is said, in order, without overlaps."""
    spans = sorted(found.span() for term in said for found in term.pattern.finditer(text))
    places: list[tuple[int, int]] = []
    for start, end in spans:
        if not places or start >= places[-1][1]:
            places.append((start, end))
    return places


def decimal(value: Any, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "\u2013" if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def plain(value: Any) -> str:
    """A rating for people, with at most two decimals; a dash where there is none."""
    return "\u2013" if value is None else f"{round(value, 2) + 0.0:g}".replace("-", "\u2212")


def signed(value: Any, digits: int = 2) -> str:
    """A difference for people; a dash where there is none."""
    if value is None:
        return "\u2013"
    return f"{round(value, digits) + 0.0:+,.{digits}f}".replace("-", "\u2212")


def whole(value: Any) -> str:
    """A count for people."""
    return "\u2013" if value is None else f"{value:,}"


def environment() -> Environment:
    """The templates, which escape everything that they are given."""
    made = Environment(
        loader=PackageLoader("sandbox.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        escape_controls,
        clear,
        marked,
        explained,
        decimal,
        plain,
        signed,
        whole,
        short,
        duration,
    )
    made.filters.update({one.__name__: one for one in filters})
    made.globals["command"] = command
    return made
