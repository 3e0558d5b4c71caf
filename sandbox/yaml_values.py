"""YAML as configs use it: plain values, bounded in size, with one line for whatever is wrong."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST_CONFIG = 1_000_000
"""Maximum length of a config file, in bytes."""

MOST_VALUES = 200_000
"""Maximum number of values and keys in a config, once its aliases are written out."""

DEEPEST = 100
"""Maximum depth of nested values."""


class NotYaml(Exception):
    """Raised for a text that is not YAML, or has values that a config cannot have.

    Attributes:
        line: the number of the line, from 1; None if unknown.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def parse_yaml(text: str) -> Any:
    """Parse a YAML text with one document into plain values.

    Raises:
        NotYaml: it is not YAML, repeats a key, is nested too deeply, or its aliases expand to too
            many values.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "cannot be parsed"
        raise NotYaml(reason, mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml("found a control character", line) from None
    except RecursionError:
        raise NotYaml("found values nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """A loader whose errors all have a line, and that refuses texts that no database can hold."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; whatever its constructor raises is an error of this line."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, ArithmeticError, AttributeError, LookupError):
            raise _error(node, f"found an invalid {node.tag.rpartition(':')[2]}") from None
        if isinstance(value, str) and not _storable(value):
            raise _error(node, "found a text with NUL or half a character (a lone surrogate)")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; a key is a word, also one like `on`, a boolean in YAML 1.1."""
        for key, _ in node.value:
            if key.tag == _BOOLEAN:
                key.tag = _TEXT
        return super().construct_mapping(node, deep)


_BOOLEAN, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _measure(root: yaml.Node) -> None:
    """Check how deep a document is, and how many values it has once aliases are written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise _error(node, "found a value that contains itself")
        if depth > DEEPEST:
            raise _error(node, "found values nested too deeply")
        _refuse_repeated_keys(node)
        open_nodes.add(id(node))
        total = 1 + sum(size(part, depth + 1) for part in _parts(node))
        open_nodes.remove(id(node))
        if total > MOST_VALUES:
            raise _error(node, f"found more than {MOST_VALUES:,} values (aliases are written out)")
        sizes[id(node)] = total
        return total

    size(root, 0)


def _refuse_repeated_keys(node: yaml.Node) -> None:
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise _error(key, f"duplicate key {key.value}")
            seen.add((key.tag, key.value))


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
