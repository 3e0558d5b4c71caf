"""Jinja filters: escaping of untrusted text, search snippets, number formats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from agents.scale import plain_number
from sandbox.reading.run_groups import yaml_value
from sandbox.text import command, duration, escape_controls, quoted, short
from storage.search import Term

_SNIPPET_CONTEXT = 80  # characters before and after a match
_MAX_WHOLE_TEXT = 2 * _SNIPPET_CONTEXT  # texts up to this length are shown whole
_LETTERS = re.compile(r"([^\W\d_]+)")
_ADOPTED = Markup('<mark class="adopted" data-word="{}">{}</mark>')
_MIN_SNIPPETS = 2  # number of snippets to aim for when one already contains all terms


def escape_spec(value: Any) -> Any:
    """A chart specification with control characters escaped in all its strings."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, dict):
        return {name: escape_spec(part) for name, part in value.items()}
    return [escape_spec(part) for part in value] if isinstance(value, list | tuple) else value


def highlight(text: str, terms: Sequence[Term]) -> Markup:
    """A text as HTML in which matches of the search terms are marked."""
    shown, parts, end_of_last = escape_controls(text), [], 0
    for start, end in _matches(shown, terms):
        parts.append(escape(shown[end_of_last:start]))
        parts.append(Markup("<mark>{}</mark>").format(shown[start:end]))
        end_of_last = end
    return Markup("").join([*parts, escape(shown[end_of_last:])])


def mark_words(text: str, words: Set[str]) -> Markup:
    """A text as HTML in which whole words of a set (in lower case) are marked."""
    parts: list[str] = []
    for part in _LETTERS.split(escape_controls(text)):
        marked = part.lower() in words
        parts.append(_ADOPTED.format(part.lower(), part) if marked else escape(part))
    return Markup("").join(parts)


def snippets(
    texts: Iterable[tuple[str, str | None]], terms: Sequence[Term]
) -> list[tuple[str, Markup]]:
    """Snippets of texts that together contain all search terms, with the matches marked.

    Args:
        texts: pairs of a location, such as the name of a stage, and the text there.
        terms: the search terms.

    Returns:
        Pairs of a location and its snippet as HTML.
    """
    shown = [(location, escape_controls(text)) for location, text in texts if text]
    contained = [{term for term in terms if term.pattern.search(text)} for _, text in shown]
    order = sorted(range(len(shown)), key=lambda index: -len(contained[index]))
    result: list[tuple[str, Markup]] = []
    missing = set(terms)
    for index in order:
        new = [term for term in terms if term in contained[index] & missing]
        if new or (contained[index] and not missing and len(result) < _MIN_SNIPPETS):
            location, text = shown[index]
            result.append((location, _snippet(text, new or terms, terms)))
            missing -= contained[index] if len(text) <= _MAX_WHOLE_TEXT else set(new[:1])
    return result


def _snippet(text: str, wanted: Sequence[Term], terms: Sequence[Term]) -> Markup:
    """The text around the first match of the wanted terms, with matches of all terms marked."""
    first, last = _matches(text, wanted)[0]
    start, end = max(0, first - _SNIPPET_CONTEXT), last + _SNIPPET_CONTEXT
    parts = ["\u2026" if start else "", text[start:end], "\u2026" if end < len(text) else ""]
    return highlight("".join(parts), terms)


def _matches(text: str, terms: Sequence[Term]) -> list[tuple[int, int]]:
    """The spans that match any term, in order and without overlaps."""
    spans = sorted(match.span() for term in terms for match in term.pattern.finditer(text))
    result: list[tuple[int, int]] = []
    for start, end in spans:
        if not result or start >= result[-1][1]:
            result.append((start, end))
    return result


def decimal(value: Any, digits: int = 2) -> str:
    """Format a number with fixed decimals; an en dash for None."""
    return "\u2013" if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def compact(value: Any) -> str:
    """Format a rating with at most two decimals; an en dash for None."""
    return "\u2013" if value is None else plain_number(round(value, 2)).replace("-", "\u2212")


def signed(value: Any, digits: int = 2) -> str:
    """Format a difference with its sign and fixed decimals; an en dash for None."""
    if value is None:
        return "\u2013"
    return f"{round(value, digits) + 0.0:+,.{digits}f}".replace("-", "\u2212")


def percent(value: Any) -> str:
    """Format a share as a whole percentage; an en dash for None."""
    return "\u2013" if value is None else f"{100 * value:.0f} %"


def integer(value: Any) -> str:
    """Format a count with thousands separators; an en dash for None."""
    return "\u2013" if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """Format a p value with three decimals; an en dash for None."""
    if value is None:
        return "\u2013"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def environment() -> Environment:
    """The Jinja environment of HTML pages, with autoescaping."""
    templates = Environment(
        loader=PackageLoader("sandbox.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        escape_controls,
        escape_spec,
        highlight,
        mark_words,
        snippets,
        decimal,
        compact,
        signed,
        integer,
        p_value,
        percent,
        short,
        quoted,
        duration,
        yaml_value,
    )
    templates.filters.update({function.__name__: function for function in filters})
    templates.globals["command"] = command
    return templates
