"""Figures as files: their size, fonts and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from stored import Run
from stored import make as make_run
from test_charts import drawn_labels
from viewing import Site, serving

from sandbox.reading.figures import figures

NAMES = {"svg": "{http://www.w3.org/2000/svg}", "dc": "{http://purl.org/dc/elements/1.1/}"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("figures")
    return make_run(folder / "small.db", "world.size=4", "rounds=2", "memory.prior_pairs=20")


@pytest.fixture(scope="module")
def site(run: Run) -> Iterator[Site]:
    with serving(run) as site:
        yield site


def at(name: str) -> str:
    return f"/r/small/figures/{name}"


def pdf_info(data: bytes) -> dict[str, str]:
    """The document information of a PDF: that of its last trailer."""
    trailer = data[data.rindex(b"trailer") :]
    (number,) = re.findall(rb"/Info (\d+) 0 R", trailer)
    place = int(data[data.rindex(b"startxref") :].split()[1])
    assert data[place : place + 4] == b"xref"
    offset = int(data[place:].splitlines()[2].split()[0])
    entries = data[offset : data.index(b"endobj", offset)]
    assert entries.startswith(number + b" 0 obj")
    return {
        key.decode(): bytes.fromhex(text.decode()).decode("utf-16")
        for key, text in re.findall(rb"/(\w+) <([0-9a-f]+)>", entries)
    }


def width(data: bytes) -> float:
    """The width of a PDF in points."""
    (box,) = re.findall(rb"/MediaBox \[0 0 ([\d.]+) [\d.]+\]", data)
    return float(box)


@pytest.mark.long
def test_every_figure_is_a_file_of_every_kind(run: Run, site: Site) -> None:
    pages = ("", "/neighbours", "/ratings", "/ratings/agreement")
    page = "".join(site.page(f"/r/small{path}") for path in pages)
    starts = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "csv": b""}
    for name in figures(run.reader):
        assert f'href="{at(name)}.pdf?size=paper"' in page, name
        for kind, start in starts.items():
            assert f'href="{at(name)}.{kind}"' in page
            answer = site.ask(at(f"{name}.{kind}"))
            assert answer.status == 200 and answer.body.startswith(start)
            assert answer.headers["content-disposition"].endswith(f'"{name}.{kind}"')
    for missing in ("plane.gif", "nothing.svg"):
        assert site.ask(at(missing)).status == 404
    assert site.ask(at("plane.svg?size=poster")).status == 400


def test_files_say_what_they_show(run: Run, site: Site) -> None:
    reader = run.reader.run
    figure = figures(run.reader)["plane"]
    tree = ElementTree.fromstring(site.ask(at("plane.svg")).body)
    assert tree.findtext(f"{NAMES['svg']}title") == figure.title
    described = tree.findtext(f"{NAMES['svg']}desc") or ""
    assert described.startswith(figure.about)
    source = tree.findtext(f".//{NAMES['dc']}source") or ""
    info = pdf_info(site.ask(at("plane.pdf")).body)
    assert info["Title"] == figure.title and info["Subject"] == f"{figure.about} {figure.how}"
    assert info["Keywords"] == source
    for part in (reader.name, reader.digest, reader.code_version):
        assert part and part in source and part in described


def test_a_figure_for_a_paper_has_its_size_and_font(site: Site) -> None:
    for name in ("alignment-by-round", "agreement", "bias"):
        screen = site.ask(at(f"{name}.svg")).text
        paper = site.ask(at(f"{name}.svg?size=paper&theme=dark"))
        assert paper.headers["content-disposition"].endswith(f'"{name}-paper.svg"')
        tree = ElementTree.fromstring(paper.body)
        assert tree.get("width") == "85mm" and 'fill="#ffffff"' in paper.text
        pixels = float((tree.get("viewBox") or "").split()[2])
        points = 85 / 25.4 * 72 / pixels
        sizes = {float(size) * points for size in re.findall(r'font-size="([\d.]+)px"', paper.text)}
        assert max(sizes) == pytest.approx(8, abs=0.02)
        assert set(re.findall(r'font-family="([^",]+)', paper.text)) == {"Liberation Sans"}
        assert len(drawn_labels(paper.text, "role-mark")) == len(drawn_labels(screen, "role-mark"))
        data = site.ask(at(f"{name}.pdf?size=paper")).body
        assert width(data) == pytest.approx(85 / 25.4 * 72, abs=0.1)
        assert width(site.ask(at(f"{name}.pdf")).body) == pytest.approx(450, abs=1)
        assert b"+LiberationSans" in data and b"/FontFile2" in data  # embedded


def test_the_charts_of_an_agent_are_files_too(site: Site) -> None:
    page = site.page("/r/small/agents/3")
    name = "/r/small/agents/3/figures/agent-3-alignment"
    for kind in ("svg", "png", "pdf", "csv"):
        assert f'href="{name}.{kind}"' in page
        assert site.ask(f"{name}.{kind}").status == 200
    rows = site.ask(f"{name}.csv").rows
    assert [(row["round"], row["stage"]) for row in rows] == [
        (str(round), stage) for round in range(2) for stage in ("draft", "revision")
    ]
    assert site.ask("/r/small/agents/99/figures/agent-99-alignment.svg").status == 404
