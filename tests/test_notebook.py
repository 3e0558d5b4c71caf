"""A run in a notebook: self-contained, escaped, and shown by a real notebook."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import Make
from stored import Run
from viewing import HOSTILE, Tags, hostile, serving

from sandbox import api
from sandbox.reading.metrics import scores_by_round
from sandbox.reading.notebook import summary_text
from storage.database import address_of

SAFE = {
    "style",
    "div",
    "strong",
    "span",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "img",
    "code",
}


def test_a_summary_has_the_scores_of_the_run(make: Make, tmp_path: Path) -> None:
    make(name="shown")
    outcome = api.load(str(tmp_path / "shown.db"))
    page = outcome._repr_html_()
    shown = Tags(page).shown
    with api.open_run(str(tmp_path / "shown.db")) as reader:
        rounds = scores_by_round(reader)
    first, last = (rounds[at].means["revision_alignment"] for at in (0, -1))
    assert first is not None and last is not None
    cells = re.search(r"<th>revision alignment</th>(.*?)</tr>", page)
    assert cells is not None
    assert re.findall(r">([^<]+)</td>", cells[1])[:3] == [
        f"{first:.2f}", f"{last:.2f}", f"{last - first:+.2f}"]  # fmt: skip
    assert f"view '{tmp_path}/shown.db#shown'" in shown and "without a language model" in shown


def test_a_run_with_one_round_has_one_value_and_no_change(make: Make, tmp_path: Path) -> None:
    make("rounds=1", name="once")
    path = tmp_path / "once.db"
    with api.open_run(str(path)) as reader:
        mean = scores_by_round(reader)[0].means["revision_alignment"]
    outcome = api.load(str(path))
    cells = re.search(r"<th>revision alignment</th>(.*?)</tr>", outcome._repr_html_())
    assert cells is not None
    assert re.findall(r">([^<]+)</td>", cells[1]) == [f"{mean:.2f}", "-", "-", "-"]
    assert f"revision alignment: {mean:.2f}\n" in summary_text(address_of(str(path)))
    with serving(path) as site:
        page = site.page("/")
    score, change = re.findall(r'<td class="n">(.*?)</td>', page, re.DOTALL)[3:5]
    assert " ".join(Tags(score).shown.split()) == f"{mean:.2f} alignment"
    assert change == "\N{EN DASH}"


def test_a_summary_is_escaped_and_loads_nothing(make: Make, tmp_path: Path) -> None:
    make(name="run")
    bad = hostile(Run(tmp_path / "run.db", "run"), tmp_path)
    page = api.load(str(bad.path))._repr_html_()
    found = Tags(page)
    assert {tag for tag, _ in found.tags} <= SAFE
    for tag, has in found.tags:
        assert not [name for name in has if name.startswith("on") or name in ("style", "href")]
        assert "src" not in has or str(has["src"]).startswith("data:image/svg+xml;base64,"), tag
    assert len([tag for tag, _ in found.tags if tag == "img"]) == 2, "light and dark"
    assert "url(" not in page and "@import" not in page
    assert HOSTILE[0] in found.shown, "the message of the run, as text"


def test_a_run_that_is_gone_is_no_traceback(make: Make, tmp_path: Path) -> None:
    make(name="run")
    outcome = api.load(str(tmp_path / "run.db"))
    (tmp_path / "run.db").unlink()
    assert "<p>" in outcome._repr_html_() and "run.db" in outcome._repr_html_()


def test_outside_a_notebook_text_is_printed(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(name="run")
    api.load(str(tmp_path / "run.db")).show()
    said = capsys.readouterr().out
    assert said.startswith("run: done\n") and "revision alignment: " in said
    assert "open it in a browser: " in said and "<" not in said


@pytest.mark.long
def test_a_real_notebook_shows_a_run(make: Make, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    make(name="run")
    code = [
        f"import sys; sys.path[:0] = {sys.path!r}",
        "from sandbox import api",
        f"api.load({str(tmp_path / 'run.db')!r})",
        f"api.load({str(tmp_path / 'run.db')!r}).show()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line) for line in code])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells[2:]:
        (output,) = cell.outputs
        assert "revision alignment" in output.data["text/html"]
        assert "data:image/svg+xml;base64," in output.data["text/html"]
