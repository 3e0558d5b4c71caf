"""Graphs from files: one meaning, or one line with the place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from conftest import small

from sandbox.engine.run import prepare
from worlds.graph_files import read_graph
from worlds.text_files import FileFault

RING = {("anna", "ben"), ("ben", "carl"), ("anna", "carl")}


def _write(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _links(graph: nx.Graph[Any]) -> set[tuple[str, ...]]:
    return {tuple(sorted(map(str, edge))) for edge in graph.edges}


FILES = {
    "plain.csv": "anna,ben\nben,carl\ncarl,anna\n",
    "excel.csv": "\ufeffSource;Target\r\nanna;ben\r\nben;carl\r\ncarl;anna\r\n",
    "gephi.csv": "Source,Target,Type,Id,Label,Weight\nanna,ben,Undirected,0,,1.0\n"
    "ben,carl,Undirected,1,,1.0\ncarl,anna,Undirected,2,,2.0\n",
    "pandas.csv": ",source,target\n0,anna,ben\n1,ben,carl\n2,carl,anna\n",
    "unnamed.csv": "Unnamed: 0,Target,Source\n0,anna,ben\n1,ben,carl\n2,carl,anna\n",
    "from.csv": "from,to\nanna,ben\nben,carl\ncarl,anna\n",
    "nodes.csv": "node1,node2\nanna,ben\nben,carl\ncarl,anna\n",
    "ids.csv": "source_id,target_id,w\nanna,ben,1\nben,carl,2\ncarl,anna,3\n",
    "snap.csv": "FromNodeId,ToNodeId\nanna,ben\nben,carl\ncarl,anna\n",
    "spaced.csv": "source, target\nanna, ben\nben, carl\ncarl, anna\n",
    "weighted.csv": "# by hand\nanna,ben,0.5\nben,carl,2\ncarl,anna,1e3\n",
    "tabs.tsv": "source\ttarget\nanna\tben\nben\tcarl\ncarl\tanna\n",
    "packed.csv.gz": "source,target\nanna,ben\nben,carl\ncarl,anna\n",
    "plain.txt": "anna ben\nben  carl\n\ncarl anna # a comment\n",
    "commas.txt": "anna,ben\nben, carl\ncarl,anna\n",
    "networkx.edgelist": "anna ben {}\nben carl {'weight': 4, 'kind': 'a, b'}\ncarl anna {}\n",
    "delimited.edgelist": "anna,ben,{}\nben,carl,{'weight': 4}\ncarl,anna,{}\n",
    "konect.edges": "% sym unweighted\nanna ben 1 1290\nben carl 1 1291\ncarl anna 2 1292\n",
    "header.txt": "source target weight\nanna ben 1\nben carl 1\ncarl anna 1\n",
    "utf16.csv": "anna,ben\nben,carl\ncarl,anna\n".encode("utf-16"),
    "twice.csv": "anna,ben\nben,anna\nben,carl\ncarl,anna\nanna,anna\n",
    "lists.adjlist": "# made by networkx\nanna ben carl\nben carl\ncarl\n",
}


@pytest.mark.parametrize("name", FILES)
def test_edge_lists(tmp_path: Path, name: str) -> None:
    found = read_graph(_write(tmp_path / name, FILES[name]))
    assert _links(found.graph) == RING
    assert found.note.startswith(f"3 agents, 3 links, from {name}")


def test_names_with_spaces_and_names_like_headers(tmp_path: Path) -> None:
    for name, text in {
        "a.csv": '"Anna Lee","Ben Ray"\n"Ben Ray",Carl Fox\n',
        "a.txt": '"Anna Lee" "Ben Ray"\n"Ben Ray" "Carl Fox" 0.5\n',
        "a.edges": "Anna Lee\tBen Ray\nBen Ray\tCarl Fox\n",
    }.items():
        found = read_graph(_write(tmp_path / name, text))
        assert _links(found.graph) == {("Anna Lee", "Ben Ray"), ("Ben Ray", "Carl Fox")}
    found = read_graph(_write(tmp_path / "b.csv", '"Lee, Anna","Ray, Ben"\n"Ray, Ben",Fox\n'))
    assert _links(found.graph) == {("Lee, Anna", "Ray, Ben"), ("Fox", "Ray, Ben")}
    for name in ("c.csv", "c.txt"):
        separator = "," if name == "c.csv" else " "
        text = "node1 node2\nnode2 node3\n".replace(" ", separator)
        found = read_graph(_write(tmp_path / name, text))
        assert _links(found.graph) == {("node1", "node2"), ("node2", "node3")}


def test_what_is_not_used_is_told(tmp_path: Path) -> None:
    def note(name: str, content: str | bytes) -> str:
        return read_graph(_write(tmp_path / name, content)).note

    gephi = FILES["gephi.csv"]
    assert note("gephi.csv", gephi) == (
        "3 agents, 3 links, from gephi.csv (not used: Type, Id, Label, Weight)"
    )
    directed = "Source,Target,Type\na,b,Directed\nb,a,Directed\na,a,Directed\nb,c,Directed\n"
    assert note("d.csv", directed) == (
        "3 agents, 2 links, from d.csv (directions not used; 1 repeated link counted once; "
        "1 link of an agent to itself not used; not used: Type)"
    )
    nx.write_graphml(nx.DiGraph([(1, 2), (2, 1), (2, 3)]), tmp_path / "di.graphml")
    assert read_graph(tmp_path / "di.graphml").note == (
        "3 agents, 2 links, from di.graphml (directions not used; 1 repeated link counted once)"
    )


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "k.graphml": nx.write_graphml,
    "k.gexf": nx.write_gexf,
    "k.gexf.gz": nx.write_gexf,
    "k.gml": nx.write_gml,
    "k.edgelist": nx.write_edgelist,
    "k.edgelist.gz": nx.write_edgelist,
    "k.adjlist": nx.write_adjlist,
    "k.json": lambda graph, path: path.write_text(
        json.dumps(nx.node_link_data(graph, edges="edges"))
    ),
    "k2.json": lambda graph, path: path.write_text(
        json.dumps(nx.node_link_data(graph, edges="links"))
    ),
    "k.csv": lambda graph, path: nx.write_edgelist(graph, path, delimiter=",", data=False),
    "k2.csv": lambda graph, path: nx.write_weighted_edgelist(graph, path, delimiter=","),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_networkx_writes(tmp_path: Path, name: str) -> None:
    karate = nx.karate_club_graph()
    WRITERS[name](karate, tmp_path / name)
    found = read_graph(tmp_path / name)
    assert _links(found.graph) == _links(karate)
    assert found.note.startswith(f"34 agents, 78 links, from {name}")


BAD = {
    "header.csv": ("person,friend\nanna,ben\nben,carl\n", ":1", "person, friend", "header"),
    "header.txt": ("person friend\nanna ben\nben carl\n", ":1", "person, friend", "header"),
    "nodes.csv": ("Id,Label\n1,anna\n2,ben\n", ":1", "Id, Label"),
    "index.csv": ("0,anna,ben\n1,ben,carl\n", ":1", "0, anna, ben", "header"),
    "index2.csv": ("0,10,20\n1,20,30\n2,30,10\n", ":1", "index"),
    "kinds.csv": ("anna,ben,friend\nben,carl,foe\n", ":1", "friend"),
    "comma.csv": ("Lee, Anna,Ben\nBen,Carl\n", ":1", "Lee, Anna, Ben"),
    "both.csv": ("a,b;c\nb,c;d\n", ":1", "',' or ';'"),
    "one.csv": ("anna,ben\nben\n", ":2", "one name, ben"),
    "space.csv": ("anna ben\nben carl\n", ":1", "one name, anna ben"),
    "short.csv": ("source,target\nanna\n", ":2", "1 cell", "source, target"),
    "long.csv": ("source,target\nanna,ben,carl\n", ":2", "3 cells"),
    "empty.csv": ("source,target\nanna,\n", ":2", "1 cell"),
    "matrix.csv": (",anna,ben\nanna,0,1\nben,1,0\n", ":1", "empty name"),
    "quote.csv": ('anna,"ben\nben,carl\n', ":1", "not CSV"),
    "four.txt": ("anna lee ben ray\n", ":1", "anna lee ben ray", "quotation marks"),
    "dict.txt": ("a b {bad\n", ":1", "{bad"),
    "nothing.txt": ("# nobody\n", "0 nodes"),
    "latin.csv": ("anna,jos\u00e9\n".encode("latin-1"), ":1", "UTF-8", "0xe9"),
    "list.json": ("[1, 2]", "node-link"),
    "bad.json": ("{", "line 1"),
    "bad.gml": ("nonsense", "bad.gml"),
    "bad.gexf": ("nonsense", "bad.gexf"),
    "alone.adjlist": ("anna ben\ncarl\n", "carl has no neighbour"),
}


@pytest.mark.parametrize("name", BAD)
def test_doubt_is_refused(tmp_path: Path, name: str) -> None:
    content, *words = BAD[name]
    with pytest.raises(FileFault) as error:
        read_graph(_write(tmp_path / name, content))
    message = str(error.value)
    assert message.count("\n") == 0
    assert all(word in message for word in (name, *map(str, words)))


def test_a_run_tells_its_society(tmp_path: Path) -> None:
    path = _write(tmp_path / "gephi.csv", FILES["gephi.csv"])
    blueprint = prepare(small(f"world.topology={path}"))
    assert [agent.node for agent in blueprint.agents] == ["anna", "ben", "carl"]
    assert blueprint.notes[0].startswith("3 agents, 3 links, from gephi.csv")
