"""Prompt templates: Jinja in a sandbox, bounded in time and memory, with values defused.

A template may come from anybody's configuration and the values from any model. So a template reads
values and changes none, its loops and texts are bounded, and a value cannot pose as a tag of the
template or as a control token of a chat template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MARK = "\x00"
"""Separates segments during rendering. It cannot occur in a text: see `agents.forms.clean`."""

LONGEST = 10_000_000
"""Characters of the longest prompt, and of any text that a template makes."""

_BOUNDED = "items of a loop"  # the name of a filter that no template can write
_ITEMS = 1_000  # of one range or loop
_LOOPS = 2  # loops inside one another
_JOINED = 16  # texts joined by ~ in a template
_GROW = "center encode expandtabs format format_map join ljust replace rjust translate zfill"
_METHODS = {*dir(str), "get", "items", "keys", "values", "cycle", "changed"} - {*_GROW.split()}
_UNBOUNDED = ("attr", "batch", "lipsum", "pprint", "random", "slice", "sum", "urlize", "xmlattr")
_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4})")


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox whose operators and filters refuse to make texts longer than `LONGEST`."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator, unless its result would be too large."""
        if operator == "**":
            _check(abs(left) <= 1000 and abs(right) <= 9, "a power this large")
        elif operator == "*":
            _check(_size(left) * _size(right) <= LONGEST**2, "a product this large")
            texts = [each for each in (left, right) if not isinstance(each, int | float)]
            _check(not texts or _size(left) * _size(right) <= LONGEST, "a text this long")
        elif operator == "+":
            _check(_size(left) + _size(right) <= LONGEST**2, "a sum this large")
        elif isinstance(left, str):
            _check(not _WIDTH.search(left), "a width this large")
        return super().call_binop(context, operator, left, right)


def _check(allowed: bool, what: str) -> None:
    if not allowed:
        raise TemplateError(f"found {what}; expected a prompt of at most {LONGEST:,} characters")


def _size(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else len(value)


def _range(*ends: int) -> range:
    found = range(*ends)
    _check(len(found) <= _ITEMS, f"range({', '.join(map(str, ends))}), of over {_ITEMS:,} items")
    return found


def _items_of(values: Iterable[Any]) -> list[Any]:
    """What a loop runs over."""
    items = list(islice(values, _ITEMS + 1))
    _check(len(items) <= _ITEMS, f"a loop of over {_ITEMS:,} items")
    return items


def _replace(text: str, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    _check(len(text) + (text.count(old)) * len(new) <= LONGEST, "a text this long")
    return text.replace(old, new, -1 if count is None else count)


def _join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    items = [str(value if attribute is None else getattr(value, attribute)) for value in values]
    _check(sum(map(len, items)) + len(items) * len(separator) <= LONGEST, "a text this long")
    return str(separator).join(items)


def _format(text: str, *values: Any, **named: Any) -> str:
    _check(not _WIDTH.search(text), "a width this large")
    return text % (named or values)


def _narrow(function: Callable[..., str]) -> Callable[..., str]:
    """A filter whose numbers are widths, limited to 1,000."""

    def limited(text: str, *given: Any, **named: Any) -> str:
        widths = [each for each in (*given, *named.values()) if isinstance(each, int)]
        _check(all(width <= 1_000 for width in widths), "a width this large")
        texts = [each for each in (*given, *named.values()) if isinstance(each, str)]
        _check(all(len(each) <= 1_000 for each in texts), "an indent this large")
        return function(text, *given, **named)

    return limited


_ENVIRONMENT = _Environment(
    undefined=StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: f"{MARK}{value}{MARK}",
)
for _name in _UNBOUNDED:  # prompts must be deterministic, too
    _ENVIRONMENT.filters.pop(_name, None)
_ENVIRONMENT.filters |= {
    "replace": _replace,
    "join": _join,
    _BOUNDED: _items_of,
    "format": _format,
    "center": _narrow(_ENVIRONMENT.filters["center"]),
    "indent": _narrow(_ENVIRONMENT.filters["indent"]),
}
_ENVIRONMENT.globals = {}


@lru_cache(maxsize=256)
def compiled(text: str) -> Template:
    """Compile a template.

    Raises:
        TemplateError: it is no template, or uses what could run away: calls of anything but
            `range` and the methods of texts, macros, deep loops.
    """
    tree = _ENVIRONMENT.parse(text)
    for node, found, expected in _refusals(tree):
        raise TemplateError(f"line {node.lineno}: found {found}; expected {expected}")
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, _BOUNDED, [], [], None, None, lineno=loop.lineno)
    return _ENVIRONMENT.from_string(tree)


_PARTS = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
)


def _refusals(tree: nodes.Template) -> Iterator[tuple[nodes.Node, str, str]]:
    """What a template must not contain: each node, with what was found and expected."""
    for call in tree.find_all(nodes.Call):
        name = getattr(call.node, "attr", None) or getattr(call.node, "name", "an expression")
        method = isinstance(call.node, nodes.Getattr) and name in _METHODS
        if not method and not (isinstance(call.node, nodes.Name) and name == "range"):
            yield call, f"a call of {name}(...)", "range(...), or a filter such as join"
    for part in tree.find_all(_PARTS):
        yield part, type(part).__name__.lower(), "a template without it"
    for listed in tree.find_all((nodes.List, nodes.Dict, nodes.Tuple)):
        if getattr(listed, "ctx", "load") == "load" and any(listed.find_all(nodes.Name)):
            yield listed, "a list of values", "a list of constants"
    for loop in tree.find_all(nodes.For):
        if loop.recursive or _depth(loop) > _LOOPS:
            yield loop, f"{_depth(loop)} loops in one another", f"at most {_LOOPS}"
    joined = sum(len(concat.nodes) for concat in tree.find_all(nodes.Concat))
    if joined > _JOINED:
        yield tree, f"{joined} texts joined by ~", f"at most {_JOINED}"


def _depth(loop: nodes.For) -> int:
    return 1 + max((_depth(inner) for inner in loop.find_all(nodes.For)), default=0)


def pieces(template: Template, values: Mapping[str, Any]) -> list[str]:
    """Render a template: literal texts and inserted values in turn, literal texts first.

    Raises:
        Exception: whatever the template raises; TemplateError if the prompt is longer than
            `LONGEST`.
    """
    context = template.new_context({"range": _range, **values}, shared=True)  # copies no globals
    parts: list[str] = []
    length = 0
    for part in template.root_render_func(context):
        length += len(part)
        if length > LONGEST:
            _check(False, f"a prompt of over {LONGEST:,} characters")
        parts.append(part)
    return "".join(parts).split(MARK)


_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff"
)
_LESS = "<\uff1c\ufe64"
_SLASH = "/\uff0f\u2044\u2215"
_SKIP = rf"[\s{_UNSEEN}]*"
_TAG = re.compile(r"<(\w+)>")
_TOKEN = re.compile(
    r"<(?=\|[^\s|<>]{1,60}\|>|\uff5c[^\s\uff5c<>]{1,60}\uff5c>|/?(?:s|bos|eos|pad|unk|think"
    r"|thinking)>"
    r"|/?(?:start_of_turn|end_of_turn|end_of_utterance|start_of_image|tool_call|tool_response)>"
    r"|</?SYS>>|extra_id_\d)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS"
    r"|TOOL_CONTENT|THINK|BOS|EOS|IMG)\])"
)
_HARMLESS = {"[": "\uff3b"}
_SUSPICIOUS = re.compile(rf"[{_LESS}\[]")


def tag_names(text: str) -> list[str]:
    """The names of the tags in a template, the last one first."""
    return list(dict.fromkeys(reversed(_TAG.findall(text))))


@lru_cache(maxsize=256)
def tags(text: str) -> re.Pattern[str]:
    """A pattern for the first character of what could pose as a tag of a template."""
    names = sorted(tag_names(text))
    either = "|".join(rf"[{_UNSEEN}]*".join(map(_letter, name)) for name in names) or r"(?!)"
    return re.compile(rf"[{_LESS}](?={_SKIP}[{_SLASH}]?{_SKIP}(?:{either})(?!\w))", re.IGNORECASE)


def _letter(letter: str) -> str:
    wide = chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter
    return f"[{re.escape(letter)}{wide}]"


def defused(value: str, tag_start: re.Pattern[str]) -> str:
    """A value whose tags and control tokens are only text: other signs replace their first ones.

    Args:
        value: the text of a model or a user.
        tag_start: from `tags`.
    """
    if not _SUSPICIOUS.search(value):
        return value
    value = tag_start.sub("\u2039", value)
    return _TOKEN.sub(lambda token: _HARMLESS.get(token[0], "\u2039"), value)
