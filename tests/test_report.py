"""Reports: numbers, escaping, self-containment, and atomic writing."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import krippendorff
import numpy as np
import pytest
from conftest import ROOT
from markdown_it import MarkdownIt
from program import program
from scipy.stats import t as student
from stored import SPOILT, Run
from stored import make as make_run
from talk import make_talk

from sandbox.config import PRESETS, load_config
from sandbox.engine.limits import Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.viewer.report import report as report_module
from sandbox.viewer.report.markdown import fence, inline
from sandbox.viewer.report.rendered_figures import TYPES
from sandbox.viewer.report.report import ReportResult, figure_folder, report
from storage.database import Address, parse_url
from storage.errors import InputError

HOSTILE = (
    "<script>alert(1)</script></style></svg><img src=https://evil.example/x onerror=alert(2)>\n"
    "| a | b |\n```\n````html\n<iframe src=//evil.example></iframe>\n# Title\n"
    "[click](https://evil.example) ![i](https://evil.example/i.png) www.evil.example me@evil.test\n"
    "{{ 7 * 7 }} {% raw %} \x00\x1b[31m\u202eflipped &lt;b&gt; \\| *strong* $x$"
)


def write(run: Run, out: Path, **options: Any) -> ReportResult:
    return report(run.reader, Address(parse_url(str(run.path)), run.name), out, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def page(messy: Run, folder: Path) -> str:
    write(messy, folder / "messy.html")
    return (folder / "messy.html").read_text("utf-8")


@pytest.fixture(scope="module")
def text(messy: Run, folder: Path) -> str:
    write(messy, folder / "messy.md")
    return (folder / "messy.md").read_text("utf-8")


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    part = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert part, title
    lines = re.findall(r"^\| (.+) \|$", part[1], re.MULTILINE)[2:]
    found = [line.replace("\xa0", " ").replace("\u2212", "-").split(" | ") for line in lines]
    return {first.replace("\\", ""): rest for first, *rest in found}


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# Numbers


SCORES = """SELECT e.author, e.round, o.rating FROM episodes e JOIN observations o
    ON o.episode_id = e.id WHERE o.stage = ? AND o.scale = ? AND o.rating IS NOT NULL"""
GAINS = """SELECT e.author, e.round, b.rating - a.rating AS rating FROM episodes e
    JOIN observations a ON a.episode_id = e.id AND a.stage = 'draft'
    JOIN observations b ON b.episode_id = e.id AND b.stage = 'revision' AND b.scale = a.scale
    WHERE a.scale = ? AND a.rating IS NOT NULL AND b.rating IS NOT NULL"""
PEERS = """SELECT e.author, e.round, avg(r.rating) AS rating FROM episodes e JOIN ratings r
    ON r.episode_id = e.id WHERE r.rating IS NOT NULL GROUP BY e.id ORDER BY e.id"""


def cell(values: list[Any], authors: list[Any] | None, sign: str = "") -> str:
    """The expected cell of a mean; with authors the interval is clustered by author."""
    n, mean = len(values), sum(values) / len(values)
    if authors is None:
        error = np.std(values, ddof=1) / math.sqrt(n)
        freedom = n - 1
    else:
        sums = dict.fromkeys(authors, 0.0)
        for value, author in zip(values, authors, strict=True):
            sums[author] += value - mean
        freedom = len(sums) - 1
        error = math.sqrt(len(sums) / freedom * sum(s * s for s in sums.values())) / n
    reach = student.ppf(0.975, freedom) * error
    return f"{mean:{sign}.2f} ({mean - reach:{sign}.2f} to {mean + reach:{sign}.2f}, n {n})"


def test_means_and_intervals_are_those_of_the_database(messy: Run, text: str) -> None:
    cells = rows(text, "Means")
    assert len(cells) == 7
    for scale in ("alignment", "engagement"):
        asked = {
            f"{scale.capitalize()}, draft (1 to 7)": messy.sql(SCORES, "draft", scale),
            f"{scale.capitalize()}, revision (1 to 7)": messy.sql(SCORES, "revision", scale),
            f"Gain in {scale}": messy.sql(GAINS, scale),
        }
        for name, found in asked.items():
            sign = "+" if "Gain" in name else ""
            ends = [[row["rating"] for row in found if row["round"] == at] for at in (0, 5)]
            whole = cell([row["rating"] for row in found], [row["author"] for row in found], sign)
            assert cells[name] == [*(cell(end, None, sign) for end in ends), whole]
    peers = messy.sql(PEERS)
    ends = [[row["rating"] for row in peers if row["round"] == at] for at in (0, 5)]
    whole = cell([row["rating"] for row in peers], [row["author"] for row in peers])
    assert cells["Peer rating, draft (1 to 7)"] == [*(cell(end, None) for end in ends), whole]


def test_shares_of_revisions_are_those_of_the_database(messy: Run, text: str) -> None:
    cells = rows(text, "Better, equal or worse")
    for scale in ("alignment", "engagement"):
        gains = [row["rating"] for row in messy.sql(GAINS, scale)]
        counts = {
            "better": sum(gain > 0 for gain in gains),
            "equal": sum(gain == 0 for gain in gains),
            "worse": sum(gain < 0 for gain in gains),
        }
        assert all(counts.values())
        for how, n in counts.items():
            share = f"{100 * n / len(gains):.0f} % ({n} of {len(gains)})"
            assert cells[f"{scale.capitalize()}: {how}"][2] == share


def test_missing_ratings_by_status(messy: Run, text: str) -> None:
    cells = rows(text, "Ratings")
    for who, table in (("Peers", "ratings"), ("Observer", "observations")):
        (all_of_them,) = messy.sql(f"SELECT count(*), count(rating) FROM {table}")
        lost = dict(
            map(
                tuple,
                messy.sql(
                    f"SELECT status, count(*) FROM {table} WHERE rating IS NULL GROUP BY status"
                ),
            )
        )
        kinds = ("cut", "empty", "unreadable", "failed")
        assert sum(lost.values()) > 20
        expected = [*all_of_them, *(lost.get(kind, 0) for kind in kinds)]
        assert cells[who] == [str(n) for n in expected]


def test_totals_and_calls(messy: Run, text: str) -> None:
    calls = """SELECT name, count(*), sum(c.status = 'failed'),
        sum(c.status NOT IN ('ok', 'failed')), coalesce(sum(tokens_in), 0),
        coalesce(sum(tokens_out), 0) FROM calls c JOIN forms f ON f.id = form_id GROUP BY name"""
    cells = rows(text, "Calls by prompt template")
    found = messy.sql(calls)
    for name, *numbers in found:
        *some, out = (f"{n:,}" for n in numbers)
        assert cells[name] == [*some, "\u2013", out]
    sums = [sum(row[place] for row in found) for place in range(1, 6)]
    failed = messy.sql("SELECT count(*) FROM episodes WHERE failed_at IS NOT NULL")[0][0]
    assert failed > 10
    happened = [
        int(first.replace(",", "")) for first in re.findall(r"^\| ([\d,]+) \| ", text, re.M)
    ]
    assert happened[:7] == [150, failed, *sums]
    by_form = messy.sql("SELECT failed_at, count(*) FROM episodes GROUP BY 1 HAVING failed_at > ''")
    assert all(f"{form} ({n})" in text for form, n in by_form)


def test_agreement_equals_that_of_the_ratings(messy: Run, text: str) -> None:
    matrix = np.full((25, 150), np.nan)
    for episode, rater, rating in messy.sql("SELECT episode_id, rater, rating FROM ratings"):
        matrix[rater, episode] = np.nan if rating is None else rating
    matrix = matrix[:, (~np.isnan(matrix)).sum(axis=0) > 1]
    alpha = krippendorff.alpha(matrix, level_of_measurement="interval")
    shown, texts = rows(text, "Agreement of raters")["Peers"]
    assert shown.startswith(f"{alpha:.2f} (0.") and texts == str(matrix.shape[1])


def test_influence_covers_the_whole_run(messy: Run, text: str) -> None:
    cells = rows(text, "Most influential raters")
    assert len(cells) == 15
    central = [float(row[1]) for row in cells.values()]
    assert central == sorted(central, reverse=True) and central[-1] > 0
    for who, (label, _, _, _, gives, ratings) in cells.items():
        number = int(who.rpartition("#")[2])
        given = "SELECT count(rating), avg(rating) FROM ratings WHERE rater = ?"
        (n, mean), (own,) = (
            messy.sql(given, number)[0],
            messy.sql("SELECT label FROM agents WHERE number = ?", number)[0],
        )
        assert (label, ratings, gives) == (own, str(n), f"{mean:.2f}")


def test_examples_are_the_extremes(messy: Run, text: str, page: str) -> None:
    gains = [row["rating"] for row in messy.sql(GAINS, "alignment")]
    shown = re.findall(r"### (.+ (?:gain|loss|exchange))\n\nExchange (\d+), ", text)
    assert [title for title, _ in shown] == [
        "The largest gain", "The largest loss", "A typical exchange",
    ]  # fmt: skip
    numbers = [int(number) for _, number in shown]
    assert len(set(numbers)) == 3
    all_of_them = {one.episode: one for one in messy.all()}
    for number, extreme in zip(numbers, (max(gains), min(gains)), strict=False):
        one = all_of_them[number]
        assert one.score("revision", "alignment") - one.score("draft", "alignment") == extreme
    seen = " ".join("".join(Tags(page).texts).split())
    for number in numbers:
        one = all_of_them[number]
        for said in (
            one.question,
            one.texts["draft"],
            *(r.reason for r in one.ratings if r.reason),
        ):
            assert " ".join(said.split()) in seen
        for given in one.ratings:
            assert f"| {given.rating or given.status} | \\#{given.rater} |" in text
    assert "<ins>" in page and "<del>" in page and "{+" in text and "[-" in text


# The page


def harmless(page: str) -> Tags:
    """Check that a page loads no resources, runs no scripts and has no external links."""
    found = Tags(page)
    names = {tag for tag, _ in found.tags}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "img",
        "foreignobject",
    }
    policy = next(a for tag, a in found.tags if tag == "meta" and "http-equiv" in a)
    assert policy["content"].startswith(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href", "srcset", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, target)
        assert "url(" not in (attributes.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    return found


def test_a_page_loads_and_runs_nothing(page: str) -> None:
    found = harmless(page)
    assert "http://" not in page and "https://" not in page
    saved = [a["href"] for tag, a in found.tags if tag == "a" and "download" in a]
    assert len(saved) == 3 * 16
    kinds = {href.partition(";")[0].removeprefix("data:") for href in saved}
    assert kinds == set(TYPES.values()) - {TYPES["pdf"]}  # it is another each time
    drawn = [a for tag, a in found.tags if tag == "svg"]
    assert len(drawn) == 2 * 16
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids) and used


@pytest.mark.long
def test_paths_and_urls_are_removed(tidy: Run, tmp_path: Path) -> None:
    copy = tidy.copy(tmp_path)
    copy.sql("UPDATE runs SET status = 'failed', message = 'no reply from http://secret:8000/v1'")
    config = json.loads(copy.sql("SELECT config FROM runs")[0][0])
    config["models"]["social"]["base_url"] = "http://secret:8000"
    copy.sql("UPDATE runs SET config = ?", json.dumps(config))
    for kind in ("html", "md"):
        write(copy, tmp_path / f"x.{kind}")
        cells = (tmp_path / f"x.{kind}").read_text("utf-8").replace("\\", "")
        assert "secret" not in cells and "no reply from [address]" in cells
        assert str(ROOT) not in cells and "questions.jsonl" in cells


@pytest.mark.long
def test_the_same_run_gives_the_same_report(messy: Run, page: str, text: str, folder: Path) -> None:
    write(messy, folder / "again.html")
    assert (folder / "again.html").read_text("utf-8") == page
    write(messy, folder / "again.md")
    assert (folder / "again.md").read_text("utf-8").replace("again_", "messy_") == text
    for path in figure_folder(folder / "messy.md").iterdir():
        again = (folder / "again_figures" / path.name).read_bytes()
        if path.suffix == ".pdf":  # vl-convert numbers its objects in a random order
            assert len(again) == len(path.read_bytes())
        else:
            assert again == path.read_bytes()


# Hostile texts


@pytest.fixture(scope="module")
def hostile(tidy: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which all texts are hostile."""
    copy = tidy.copy(tmp_path_factory.mktemp("hostile"))
    copy.sql("UPDATE texts SET text = text || ' ' || ?", HOSTILE)
    copy.sql("UPDATE agents SET label = ? WHERE label = 'good'", "<b>|`good`</b>")
    copy.sql("UPDATE rater_sums SET label = ? WHERE label = 'good'", "<b>|`good`</b>")
    for number, persona in copy.sql("SELECT number, persona FROM agents"):
        person = json.loads(persona) | {"name": f"N{number} {HOSTILE}"}
        copy.sql("UPDATE agents SET persona = ? WHERE number = ?", json.dumps(person), number)
    copy.sql("UPDATE models SET name = 'm|<script>' || role")
    copy.sql("UPDATE forms SET name = name || '|<script>'")
    copy.sql("UPDATE runs SET status = 'failed', message = ?", HOSTILE)
    return copy


@pytest.fixture(scope="module")
def hostile_md(hostile: Run) -> Path:
    write(hostile, hostile.path.with_name("x.md"))
    return hostile.path.with_name("x.md")


@pytest.mark.long
def test_hostile_text_is_text_in_a_page(hostile: Run, tmp_path: Path) -> None:
    write(hostile, tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text("utf-8")
    found = harmless(page)
    shown = "".join(found.texts)
    assert shown.count("<script>alert(1)</script>") > 10
    assert "\u27e8U+0000\u27e9" in shown and "\u27e8U+202E\u27e9flipped" in shown
    assert "\x00" not in page and "\x1b" not in page and "\u202e" not in page
    assert "{{ 7 * 7 }}" in shown


@pytest.mark.long
def test_hostile_text_is_text_in_markdown(hostile_md: Path) -> None:
    text = hostile_md.read_text("utf-8")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    flat = [part for token in tokens for part in (token, *(token.children or ()))]
    assert not [one for one in flat if one.type.startswith("html")]
    links = [one.attrs["href"] for one in flat if one.type == "link_open"]
    links += [one.attrs["src"] for one in flat if one.type == "image"]
    assert len(links) == 4 * 15
    assert all((hostile_md.parent / unquote(str(link))).is_file() for link in links)
    assert not re.search(r"(?<!\\):(?=//)|(?<=www)\.|(?<!\\)@", _outside_fences(text))
    fences = [one.content for one in flat if one.type == "fence"]
    assert len([one for one in fences if "```\n````html" in one]) >= 3 * 3
    assert "\x00" not in text and "\x1b" not in text and "\u202e" not in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in _tables(text)]
    assert set(widths) <= set(range(3, 10)) and len(widths) > 60
    titles = [text.splitlines()[one.map[0]] for one in tokens if one.type == "heading_open"]
    assert titles[0] == "# small" and "# Title" not in titles


def _outside_fences(text: str) -> str:
    return re.sub(r"^(`{3,})\w+\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)


def _tables(text: str) -> list[str]:
    return [line for line in _outside_fences(text).splitlines() if line.startswith("|")]


@pytest.mark.long
def test_hostile_text_is_text_in_figures(hostile_md: Path) -> None:
    paths = list(figure_folder(hostile_md).glob("*.svg"))
    assert len(paths) == 15
    for path in paths:
        tree = ElementTree.fromstring(path.read_text("utf-8"))
        names = {one.tag.rpartition("}")[2] for one in tree.iter()}
        assert names <= {"svg", "g", "path", "rect", "text", "tspan", "defs", "clipPath", "line",
                         "linearGradient", "stop", "a", "title", "desc", "metadata", "RDF",
                         "Description", "description", "source"}  # fmt: skip
        assert not [one for one in tree.iter() if any(key.startswith("on") for key in one.attrib)]


@pytest.mark.parametrize("said", ["```", "a ````` b", "", "~~~\n```\n````"])
def test_fences_are_longer_than_runs_of_backticks(said: str) -> None:
    (token,) = MarkdownIt("commonmark").parse(fence(said))
    assert token.type == "fence" and token.content == f"{said}\n"


@pytest.mark.parametrize(
    "said", ["a|b", "# x", "*a* _b_ `c`", "<b>", "[a](b)", "&amp;", "a\nb", "\\", "![x](y)"]
)
def test_inline_text_is_rendered_verbatim(said: str) -> None:
    html = MarkdownIt("commonmark", {"html": True}).render(f"x {inline(said)}")
    shown = Tags(html)
    assert "".join(shown.texts).strip() == f"x {' '.join(said.split())}"
    assert [tag for tag, _ in shown.tags] == ["p"]


# Files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_report_in_markdown_has_all_figures_beside_it(
    messy: Run, text: str, folder: Path
) -> None:
    made = names(figure_folder(folder / "messy.md"))
    stems = {name.rpartition(".")[0] for name in made}
    assert {f"{stem}.{kind}" for stem in stems for kind in TYPES} == set(made)
    assert stems == {
        *("alignment-by-round", "engagement-by-round", "plane", "alignment-ratings"),
        *("engagement-ratings", "matrix", "agreement", "bias", "missing"),
        *("neighbours-alike", "alignment-by-label", "alignment-gap-by-label"),
        *("engagement-by-label", "engagement-gap-by-label"),
        *("alpha-by-round", "observer-bias"),
    }
    for stem in stems:
        png = (figure_folder(folder / "messy.md") / f"{stem}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and "![" in text and f"{stem}.svg" in text


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.txt", {}, "out: found .*x.txt'; expected a name ending in .html or .md"),
        ("x", {}, "expected a name ending in"),
        ("x.html", {"format": "pdf"}, "format: found 'pdf'; expected one of html, md"),
        ("folder.html", {}, "is a folder"),
        ("file/x.html", {}, "file is not a writable folder"),
    ],
)
def test_invalid_arguments_are_refused(
    tidy: Run, tmp_path: Path, name: str, options: Any, words: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    before = names(tmp_path)
    with pytest.raises(InputError, match=words):
        write(tidy, tmp_path / name, **options)
    assert names(tmp_path) == before


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce reports to one figure, because rendering is slow."""
    plain = report_module.figures
    monkeypatch.setattr(report_module, "figures", lambda reader: {"plane": plain(reader)["plane"]})


@pytest.mark.usefixtures("sparse")
@pytest.mark.long
def test_files_are_replaced_only_with_overwrite(tidy: Run, tmp_path: Path) -> None:
    for kind in ("html", "md"):
        out = tmp_path / f"x.{kind}"
        out.write_text("mine")
        with pytest.raises(InputError, match="exists; expected a new file, or --overwrite"):
            write(tidy, out)
        assert out.read_text() == "mine"
        write(tidy, out, overwrite=True)
        assert out.read_text().count("small") > 1
    assert names(tmp_path) == ["x.html", "x.md", "x_figures"]
    (tmp_path / "x.md").unlink()
    with pytest.raises(InputError, match="x_figures exists"):
        write(tidy, tmp_path / "x.md")
    (tmp_path / "x_figures" / "thesis.png").write_text("mine")
    with pytest.raises(InputError, match=r"contains 'thesis\.png'"):
        write(tidy, tmp_path / "x.md", overwrite=True)
    assert names(tmp_path) == ["x.html", "x_figures"]
    assert (tmp_path / "x_figures" / "thesis.png").read_text() == "mine"


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize(
    ("kind", "what"), [("html", ".html.partial"), ("md", "plane.png"), ("md", ".md.partial")]
)
@pytest.mark.long
def test_a_failure_leaves_no_files_and_replaces_none(
    tidy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    old = tmp_path / f"old.{kind}"
    old.write_text("old")
    if kind == "md":
        write(tidy, old, overwrite=True)
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    plain = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if what in path.name:
            raise OSError(28, "No space left on device")
        return plain(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    for out in (tmp_path / f"new.{kind}", old):
        with pytest.raises(InputError, match="cannot be written: No space left on device"):
            write(tidy, out, overwrite=True)
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


KILLED = """
import os, signal, sys
from sandbox.viewer.report.rendered_figures import RenderedFigure
plain, seen = RenderedFigure.write, []
def write(self, folder):
    plain(self, folder)
    seen.append(1)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
RenderedFigure.write = write
sys.argv = ["run_sim.py", "report", sys.argv[1], "--out", sys.argv[2]]
from sandbox.cli.main import main
main()
"""


@pytest.mark.long
def test_a_kill_leaves_no_partial_report(tidy: Run, tmp_path: Path) -> None:
    out = tmp_path / "x.md"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tidy.path), str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    write(tidy, out)
    assert names(tmp_path) == ["x.md", "x_figures"]
    assert len(names(figure_folder(out))) == 4 * 15


# The verb


def sim(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return program(folder, "report", *arguments)


def test_the_verb(tidy: Run, tmp_path: Path) -> None:
    done = sim(tmp_path, str(tidy.path), "--out", "deep/x.md", "--json")
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)
    assert list(cells) == ["run", "out", "format", "figures", "bytes"]
    assert (cells["run"], cells["out"], cells["format"]) == ("small", "deep/x.md", "md")
    files = [path for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    assert cells["bytes"] == sum(path.stat().st_size for path in files)
    assert {path.stem for path in files} == {"x", *cells["figures"]}
    done = sim(tmp_path, str(tidy.path), "--out", "page.txt", "--format", "html")
    assert done.returncode == 0 and "page.txt: 15 figures" in done.stdout
    assert (tmp_path / "page.txt").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{run}", "--out", "x.pdf"), "error: out: found 'x.pdf'; expected"),
        (("{run}", "--out", "x.html", "--format", "doc"), "error: format: found 'doc'"),
        (("nobody", "--out", "x.html"), "error: nobody: no such run"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    tidy: Run, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = sim(tmp_path, *(one.format(run=tidy.path) for one in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert names(tmp_path) == []


# Other runs


def both(run: Run, folder: Path) -> tuple[str, str]:
    write(run, folder / "x.html")
    write(run, folder / "x.md")
    page, text = ((folder / f"x.{kind}").read_text("utf-8") for kind in ("html", "md"))
    harmless(page)
    return page, text


def test_a_run_with_nothing_played(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run.db", play=False)
    page, text = both(run, tmp_path)
    for cells in (page, text):
        assert (
            "This run is not finished" in cells and "0 of 125 exchanges have been played" in cells
        )
        assert "Nothing has been played yet" in cells and "none: the run is not finished" in cells
    assert "<svg" not in page and not figure_folder(tmp_path / "x.md").exists()


@pytest.mark.long
def test_an_unfinished_run_says_so_and_counts_what_is_complete(tmp_path: Path) -> None:
    config = load_config(PRESETS / "quickstart.yaml", ["name=half"])
    address = create(prepare(config), str(tmp_path / "half.db"))
    assert resume(address, budget=Budget(calls=400)).status == "interrupted"
    run = Run(tmp_path / "half.db", "half")
    page, text = both(run, tmp_path)
    complete = run.sql("SELECT count(*) FROM episodes WHERE observed")[0][0]
    assert 0 < complete < 125
    for cells in (page, text):
        assert f"{complete} of 125 exchanges have been played" in cells
        assert "the limit of 400 calls is reached" in cells
    asked = run.sql(
        "SELECT count(*) FROM ratings r JOIN episodes e ON e.id = r.episode_id WHERE observed"
    )[0][0]
    assert rows(text, "Ratings")["Peers"][0] == str(asked)
    drafts = int(rows(text, "Agreement of raters")["Peers"][1])
    assert drafts == complete
    run.sql("UPDATE episodes SET observed = FALSE WHERE id < 5")
    write(run, tmp_path / "fewer.md")
    cells = (tmp_path / "fewer.md").read_text("utf-8")
    assert int(rows(cells, "Agreement of raters")["Peers"][1]) == complete - 5


def test_scenes_without_agents(tmp_path: Path) -> None:
    config = load_config(PRESETS / "scene.yaml", ["name=scene", "world.scenes=6"])
    address = create(prepare(config), str(tmp_path / "scene.db"))
    assert resume(address).status == "done"
    run = Run(tmp_path / "scene.db", "scene")
    page, text = both(run, tmp_path)
    for cells in (page, text):
        assert "its world has no agents" in cells and "characters. The modulator refused" in cells
        assert "Revision" in cells and "Krippendorff" not in cells and "the nearest" not in cells
    consequences = {one.episode: one.scene for one in run.all() if one.scene}
    shown = [int(number) for number in re.findall(r"^Exchange (\d+), ", text, re.MULTILINE)]
    assert shown
    for number in shown:
        for note in consequences[number].noted("consequences"):
            assert note in text
    scores = [row["rating"] for row in run.sql(SCORES, "draft", "alignment")]
    assert rows(text, "Means")["Alignment, draft (1 to 7)"] == [cell(scores, None)]


def test_a_run_with_unusable_replies_only(tmp_path: Path) -> None:
    worst = [one.replace("0.3", "1.0") for one in SPOILT]
    run = make_run(tmp_path / "run.db", "rounds=1", *worst)
    run.sql("DELETE FROM outcomes WHERE measure LIKE '%alignment%' OR measure LIKE '%engagement%'")
    run.sql("DELETE FROM scores")
    _, text = both(run, tmp_path)
    assert "No scores" in text and "Exchanges failed at draft (" in text


SCALES = (
    "scales={honesty: {low: -5, high: 5, ask: 'How honest is it?'}, "
    "harm: {low: 0, high: 100, better: low, ask: 'How much harm would it do?'}}"
)


@pytest.mark.long
def test_every_added_scale_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run.db", "rounds=2", SCALES)
    page, text = both(run, tmp_path)
    cells = rows(text, "Means")
    for scale, range, sign in (
        ("honesty", "-5 to 5", 1),
        ("harm", "0 to 100, lower is better", -1),
    ):
        scores = run.sql(SCORES, "revision", scale)
        whole = cell([row["rating"] for row in scores], [row["author"] for row in scores])
        assert cells[f"{scale.capitalize()}, revision ({range})"][2] == whole
        found = run.sql(GAINS, scale)
        gains = [sign * row["rating"] for row in found]
        assert cells[f"Gain in {scale}"][2] == cell(gains, [row["author"] for row in found], "+")
        better = sum(gain > 0 for gain in gains)
        share = f"{100 * better / len(gains):.0f} % ({better} of {len(gains)})"
        assert rows(text, "Better, equal or worse")[f"{scale.capitalize()}: better"][2] == share
    plain = text.replace("\\", "").replace("\u2212", "-")
    assert "**Honesty.** Whole numbers from -5 to 5, higher is better, given to" in plain
    assert "How honest is it? -5: not at all. 5: entirely." in plain
    assert "**Harm.** Whole numbers from 0 to 100, lower is better" in plain
    assert "the sign is reversed" in plain
    made = {path.stem for path in figure_folder(tmp_path / "x.md").iterdir()}
    assert {"honesty-by-round", "honesty-ratings", "harm-by-round", "harm-ratings"} <= made
    assert " of 0 to 100<" in page and " of -5 to 5<" in page


def test_a_world_with_one_stage_and_no_peers(tmp_path: Path) -> None:
    run = make_talk(tmp_path)
    _, text = both(run, tmp_path)
    cells = rows(text, "Means")
    assert list(cells) == [
        "Calm, small talk (0 to 10)", "Distance, small talk (-1 to 1, lower is better)",
    ]  # fmt: skip
    talks = run.sql(
        "SELECT e.author, e.round, avg(o.rating) AS rating FROM episodes e JOIN observations o "
        "ON o.episode_id = e.id WHERE o.scale = 'calm' GROUP BY e.id ORDER BY e.id"
    )
    whole = cell([row["rating"] for row in talks], [row["author"] for row in talks])
    assert cells["Calm, small talk (0 to 10)"][2] == whole
    assert "given to each agent in the small talk" in text and "each pair of agents" in text
    assert not re.search("Draft|Revision|Krippendorff|Peer|Gain", text)
    shown = re.findall(r"### (.+ exchange)\n\nExchange (\d+), ", text)
    assert [title for title, _ in shown] == [
        "The best rated exchange", "The worst rated exchange", "A typical exchange",
    ]  # fmt: skip
    ratings = [row["rating"] for row in talks]
    best, worst = (ratings[int(number)] for _, number in shown[:2])
    assert (best, worst) == (max(ratings), min(ratings))
