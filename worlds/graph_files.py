"""Graphs from files: edge lists, adjacency lists, and the formats of graph programs.

A link joins two agents, whatever its direction and weight. A file means one graph or is refused:
what could be a header or an agent, or a name or two, is never guessed.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx

from worlds.text_files import (
    DELIMITERS,
    CsvRow,
    FileFault,
    cells_of,
    csv_rows,
    first_line,
    kind_of_file,
    lines,
    listed,
    read_bytes,
)

EXPECTED = (
    "a graph (.graphml, .gexf, .gml, node-link .json) or an edge list, two names per line "
    "(.csv, .tsv, .edgelist, .edges, .txt, .adjlist), also with .gz"
)

_ENDS = (
    ("source", "target"),
    ("from", "to"),
    ("src", "dst"),
    ("src", "dest"),
    ("sender", "receiver"),
    ("head", "tail"),
    ("start", "end"),
    ("u", "v"),
    ("i", "j"),
)
"""The names of the two columns of an edge list, without endings such as ``_id``."""

_STEMS = ("node", "id", "source", "name", "person", "agent", "user", "vertex", "actor", "n", "v")
_NUMBERED = re.compile(rf"({'|'.join(_STEMS)})([12])")
_ENDING = re.compile(r"(?<=\w)(?:[ _-]?(?:node|id|name|label|vertex|agent|user|person))+$")


class GraphFile(NamedTuple):
    """The graph of a file, without self-loops, and a line about what was read."""

    graph: nx.Graph[Any]
    note: str


class _Read(NamedTuple):
    """What a reader found: links in order, and what a note should tell.

    Attributes:
        graph: the graph, directed or not, perhaps with several links between two nodes.
        unused: what is in the file besides the links.
    """

    graph: nx.Graph[Any]
    unused: Sequence[str] = ()


def is_graph_file(path: Path) -> bool:
    """Whether the suffix of a file is that of a graph."""
    return kind_of_file(path) in _READERS


def read_graph(path: Path) -> GraphFile:
    """Read a graph; directions and weights are ignored, and what else is not used is told.

    Args:
        path: a file for which `is_graph_file`.

    Raises:
        OSError: the file cannot be read.
        FileFault: it is not such a graph, is ambiguous, or has an agent without a neighbour.
    """
    try:
        read = _READERS[kind_of_file(path)](path)
    except (OSError, FileFault):
        raise
    except Exception as error:  # networkx's parsers can raise any exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFault(f"{path}: {reason}") from None
    given = read.graph
    loops = nx.number_of_selfloops(given)
    graph: nx.Graph[Any] = nx.Graph(given)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    if len(graph) < 2:
        raise FileFault(f"{path}: found {_counted(len(graph), 'node')}; expected at least 2")
    isolated = next((node for node in graph if not graph.degree(node)), None)
    if isolated is not None:
        raise FileFault(f"{path}: node {isolated} has no neighbour; expected one")
    twice = given.number_of_edges() - loops - graph.number_of_edges()
    details = [
        "directions not used" if given.is_directed() else "",
        f"{_counted(twice, 'repeated link')} counted once" if twice else "",
        f"{_counted(loops, 'link')} of an agent to itself not used" if loops else "",
        f"not used: {listed(read.unused)}" if read.unused else "",
    ]
    told = "; ".join(detail for detail in details if detail)
    counts = f"{_counted(len(graph), 'agent')}, {_counted(graph.number_of_edges(), 'link')}"
    return GraphFile(graph, f"{counts}, from {path.name}" + (f" ({told})" if told else ""))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _from_csv(path: Path) -> _Read:
    beginning = first_line(path, _is_comment)
    delimiter = "\t" if kind_of_file(path) == ".tsv" else _delimiter(path, beginning)
    rows = list(csv_rows(path, delimiter, _is_comment))
    if not rows:
        return _Read(nx.Graph())
    header = [name.casefold() for name in cells_of(beginning, delimiter)]
    while header and not header[-1]:
        header.pop()
    ends = _named_ends(header)
    later = {cell for row in rows[1:] for cell in row.cells}
    if ends and _is_header([rows[0].cells[number] for number in ends], later):
        return _with_header(path, rows, header, ends)
    _refuse_doubt(path, rows)
    unused = ["what follows two names"] if any(len(row.cells) > 2 for row in rows) else []
    links = ((row.cells[0], row.cells[1]) for row in rows)
    return _Read(_graph_of(links), unused)


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip()[0] in "#%"


def _delimiter(path: Path, beginning: str) -> str:
    """What separates the cells of a .csv file: the only thing that makes two of them."""
    cells = {delimiter: cells_of(beginning, delimiter) for delimiter in DELIMITERS}
    for delimiter, names in cells.items():
        if _named_ends([name.casefold() for name in names]):
            return delimiter
    found = [delimiter for delimiter in DELIMITERS if len(cells[delimiter]) > 1]
    if len(found) > 1:
        raise FileFault(
            f"{path}:1: found {beginning[:60]!r}, where the cells may end at "
            f"{' or '.join(map(repr, found))}; expected a header such as source,target"
        )
    return found[0] if found else ","


def _named_ends(header: Sequence[str]) -> tuple[int, int] | None:
    """The positions of the two columns with names of agents; None if this is no header."""
    for names in (header, [_ENDING.sub("", name) for name in header]):
        for pair in _ENDS:
            if names.count(pair[0]) == 1 and names.count(pair[1]) == 1:
                return names.index(pair[0]), names.index(pair[1])
    for stem in _STEMS:
        numbered = [re.sub(r"[ _-]", "", name) for name in header]
        if numbered.count(f"{stem}1") == 1 and numbered.count(f"{stem}2") == 1:
            return numbered.index(f"{stem}1"), numbered.index(f"{stem}2")
    return None


def _is_header(names: Sequence[str], later: Collection[str]) -> bool:
    """Whether the first line is a header: node1 and node2, or u and v, could be agents as well."""
    could_be_agents = all(
        len(name) == 1 or _NUMBERED.fullmatch(re.sub(r"[ _-]", "", name.casefold()))
        for name in names
    )
    return not (could_be_agents and set(names) & set(later))


def _with_header(
    path: Path, rows: Sequence[CsvRow], header: Sequence[str], ends: tuple[int, int]
) -> _Read:
    source, target = ends
    links = []
    for row in rows[1:]:
        if not max(ends) < len(row.cells) <= len(header):
            raise FileFault(
                f"{path}:{row.line}: found {_counted(len(row.cells), 'cell')}; expected "
                f"{len(header)}: {listed(rows[0].cells)}"
            )
        links.append(_link(path, row.line, row.cells[source], row.cells[target]))
    others = [rows[0].cells[number] for number in range(len(header)) if number not in ends]
    at = header.index("type") if "type" in header else len(header)
    types = {cell.casefold() for row in rows[1:] for cell in row.cells[at : at + 1]}
    graph = _graph_of(links, directed="directed" in types)
    return _Read(graph, [name or "the column without a name" for name in others])


_HEADER = "expected a header such as source,target"


def _refuse_doubt(path: Path, rows: Sequence[CsvRow]) -> None:
    """Refuse a CSV file without a known header whose columns or first line are doubtful."""
    widths = {len(row.cells) for row in rows}
    for row in rows:
        place = f"{path}:{row.line}"
        if len(row.cells) == 1:
            raise FileFault(f"{place}: found one name, {row.cells[0][:60]}; expected two")
        _link(path, row.line, *row.cells[:2])
        if not all(_is_weight(cell) for cell in row.cells[2:]):
            raise FileFault(f"{place}: found {listed(row.cells)}; {_HEADER}, or two names")
    numbers = [row.cells[0] for row in rows]
    if min(widths) > 2 and len(rows) > 1 and _counts_up(numbers):
        raise FileFault(
            f"{path}:{rows[0].line}: found {listed(rows[0].cells)}, where the first column may be "
            f"an index; {_HEADER}"
        )
    _refuse_strange_first(path, rows[0].line, [row.cells[:2] for row in rows])


def _refuse_strange_first(path: Path, line: int, links: Sequence[Sequence[str]]) -> None:
    """Refuse a first line whose names are in no other: it is probably an unknown header."""
    first, later = links[0], {name for link in links[1:] for name in link}
    if later and not set(first) & later and not all(map(_is_number, first)):
        raise FileFault(
            f"{path}:{line}: found {listed(first)}, which no other line names: a header or two "
            f"agents? {_HEADER}"
        )


def _counts_up(cells: Sequence[str]) -> bool:
    numbers = [str(number) for number in range(len(cells) + 1)]
    return list(cells) in (numbers[:-1], numbers[1:])


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell) is not None


def _is_weight(cell: str) -> bool:
    return not cell or _is_number(cell)


def _link(path: Path, line: int, source: str, target: str) -> tuple[str, str]:
    if not source or not target:
        raise FileFault(f"{path}:{line}: found an empty name; expected two names")
    return source, target


def _graph_of(links: Iterable[tuple[str, str]], directed: bool = False) -> nx.Graph[Any]:
    graph: nx.Graph[Any] = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.add_edges_from(links)
    return graph


_COMMENT = re.compile(r"(?:^|\s)[#%].*")


def _from_edge_list(path: Path) -> _Read:
    """Two names per line, separated by white space, tabs or commas; then a weight or a dict."""
    written = list(_bare(path))
    split = _splitter([text for _, text in written])
    rows = [(line, *split(path, line, text)) for line, text in written]
    links = [_link(path, line, *names) for line, names, _ in rows]
    if links and _named_ends([name.casefold() for name in links[0]]):
        if _is_header(links[0], {name for link in links[1:] for name in link}):
            links, rows = links[1:], rows[1:]
    elif links:
        _refuse_strange_first(path, rows[0][0], links)
    unused = any(rest for _, _, rest in rows)
    return _Read(_graph_of(links), ["what follows two names"] if unused else [])


def _bare(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in lines(path):
        text = _COMMENT.sub("", line.rstrip("\r\n"))
        if text.strip():
            yield number, text


_Split = Callable[[Path, int, str], tuple[list[str], str]]


def _splitter(texts: Sequence[str]) -> _Split:
    """How the lines of an edge list are split: at tabs or commas if every line has them."""
    for delimiter in ("\t", ","):
        if texts and all(delimiter in text.partition("{")[0] for text in texts):
            return lambda path, line, text: _split(path, line, text, delimiter)
    return lambda path, line, text: _split(path, line, text, " ")


def _split(path: Path, line: int, text: str, delimiter: str) -> tuple[list[str], str]:
    """The two names of a line, and what follows them: a dict, a weight or nothing."""
    before, brace, data = text.partition("{")
    row = " ".join(before.split()) if delimiter == " " else before.strip()
    try:
        parsed = csv.reader([row], delimiter=delimiter, strict=True, skipinitialspace=True)
        cells = [cell.strip() for cell in next(parsed, [])]
    except csv.Error as error:
        raise FileFault(f"{path}:{line}: {error}; expected two names") from None
    cells = cells[:-1] if cells and not cells[-1] and brace else cells
    if len(cells) < 2:
        raise FileFault(f"{path}:{line}: found one name, {text.strip()[:60]}; expected two")
    if not (all(map(_is_weight, cells[2:])) and (not brace or _is_dict(brace + data))):
        known = _named_ends([cell.casefold() for cell in cells[:2]])
        if known is None:
            raise FileFault(
                f"{path}:{line}: found {text.strip()[:60]!r}; expected two names, names with "
                "spaces in quotation marks, then at most numbers or {...}"
            )
    return cells[:2], " ".join(cells[2:]) + brace + data.strip(" {}")


def _is_dict(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text.strip()), dict)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _from_adjacency(path: Path) -> _Read:
    text = [line for _, line in lines(path)]
    return _Read(nx.parse_adjlist(text))


def _from_json(path: Path) -> _Read:
    data = json.loads(read_bytes(path).decode("utf-8-sig"))
    key = next((key for key in ("edges", "links") if isinstance(data, dict) and key in data), None)
    if key is None or "nodes" not in data:
        raise FileFault(f"{path}: found no node-link graph; expected nodes, and edges or links")
    return _with_attributes(nx.node_link_graph(data, edges=key))


def _from_program(parse: Callable[[io.BytesIO], Any]) -> Callable[[Path], _Read]:
    return lambda path: _with_attributes(parse(io.BytesIO(read_bytes(path))))


def _with_attributes(graph: nx.Graph[Any]) -> _Read:
    """A graph, and the attributes of its links, which are not used."""
    names = dict.fromkeys(str(name) for *_, data in graph.edges(data=True) for name in data)
    return _Read(graph, [name for name in names if name not in ("id", "key")])


def _from_gml(path: Path) -> _Read:
    """GML, with nodes named by label if they have one each, else by id."""
    data = read_bytes(path)
    try:
        return _with_attributes(nx.read_gml(io.BytesIO(data)))
    except nx.NetworkXError as error:
        if "label" not in str(error):
            raise
        return _with_attributes(nx.read_gml(io.BytesIO(data), label="id"))


_READERS: dict[str, Callable[[Path], _Read]] = {
    ".graphml": _from_program(nx.read_graphml),
    ".gexf": _from_program(nx.read_gexf),
    ".gml": _from_gml,
    ".json": _from_json,
    ".adjlist": _from_adjacency,
    ".edges": _from_edge_list,
    ".edgelist": _from_edge_list,
    ".txt": _from_edge_list,
    ".csv": _from_csv,
    ".tsv": _from_csv,
}
