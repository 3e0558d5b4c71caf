"""A run in a notebook: a summary with a figure as self-contained HTML, and the same as text.

Names and texts are untrusted and escaped. Figures are data URLs, so that nothing of a run can
become a part of the notebook's page, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import Figure, by_round
from sandbox.reading.metrics import outcomes
from sandbox.reading.runs import Overview, ScaleScore, open_run, overview
from sandbox.text import command, duration, escape_controls
from storage.database import Address
from storage.errors import InputError

if TYPE_CHECKING:
    from storage.reader import Reader

_STYLE = """<style>
.sandbox-run { max-width: 46rem; font: 14px/1.45 system-ui, sans-serif; }
.sandbox-run table { border-collapse: collapse; margin: .5em 0; font-size: 13px; }
.sandbox-run :is(td, th) { padding: .15em 1.25em .15em 0; text-align: left; }
.sandbox-run td.n { text-align: right; font-variant-numeric: tabular-nums; }
.sandbox-run .soft { opacity: .7; }
.sandbox-run img { display: block; max-width: 100%; }
.sandbox-run .at-night { display: none; }
@media (prefers-color-scheme: dark) {
  body:not([data-jp-theme-light="true"], .vscode-light) .sandbox-run .by-day { display: none; }
  body:not([data-jp-theme-light="true"], .vscode-light) .sandbox-run .at-night { display: block; }
}
:is([data-jp-theme-light="false"], .vscode-dark) .sandbox-run .by-day { display: none; }
:is([data-jp-theme-light="false"], .vscode-dark) .sandbox-run .at-night { display: block; }
</style>"""


def summary_html(address: Address) -> str:
    """Status, size, scores and a figure of a run as HTML, and how to open it in the viewer.

    Raises:
        InputError: there is no such run.
    """
    with open_run(address) as reader:
        here, figure = overview(reader, address), _main_figure(reader)
    rows = Markup("").join(_row(score) for score in here.scores)
    table = (
        Markup(
            "<table><thead><tr><th>Mean of</th><th>First round</th><th>Last round</th>"
            "<th>Difference</th><th>95 % interval</th></tr></thead><tbody>{}</tbody></table>"
        ).format(rows)
        if here.scores
        else Markup("")
    )
    html = Markup(
        '{}<div class="sandbox-run"><strong>{}</strong> <span class="soft">{}</span>'
        '<div class="soft">{}</div>{}{}<div>Open in a browser: <code>{}</code></div></div>'
    ).format(
        Markup(_STYLE),
        escape_controls(here.run),
        escape_controls(_status(here)),
        ", ".join(_facts(here)),
        table,
        Markup("") if figure is None else _picture(figure),
        escape_controls(command("view", here.typed)),
    )
    return str(html)


def summary_text(address: Address) -> str:
    """The same as lines of text, without the figure.

    Raises:
        InputError: there is no such run.
    """
    with open_run(address) as reader:
        here = overview(reader, address)
    lines = [f"{escape_controls(here.run)}: {escape_controls(_status(here))}"]
    lines.append(", ".join(_facts(here)))
    for score in here.scores:
        before, after, by, ends = _cells(score)
        means = before if score.difference is None else f"{before} to {after} ({by}; {ends})"
        lines.append(f"{score.measure.replace('_', ' ')}: {means}")
    return "\n".join([*lines, f"open it in a browser: {command('view', here.typed)}"])


def display(address: Address, fallback: object) -> None:
    """Show a run in the notebook that runs this code; elsewhere print its summary.

    Args:
        address: the run.
        fallback: what the notebook displays, an object with ``_repr_html_``.
    """
    shells = sys.modules.get("IPython")
    shell = None if shells is None else shells.get_ipython()
    if getattr(shell, "kernel", None) is None:
        print(summary_text(address))
    else:
        sys.modules["IPython.display"].display(fallback)


def unavailable(error: InputError) -> str:
    """What a notebook shows of a run whose database cannot be opened."""
    return str(Markup("<p>{}</p>").format(escape_controls(str(error))))


def _status(here: Overview) -> str:
    return here.status + (f": {here.message}" if here.message else "")


def _facts(here: Overview) -> Iterator[str]:
    yield f"{here.agents:,} agents"
    yield f"{here.rounds:,} rounds"
    yield f"seed {here.seed}"
    yield f"{here.episodes:,} of {here.episodes_total:,} episodes ({here.episodes_failed:,} failed)"
    yield f"{here.calls:,} calls ({here.calls_failed:,} without a reply)"
    yield duration(here.seconds)
    if here.scripted:
        yield "scripted replies, without a language model"


def _row(score: ScaleScore) -> Markup:
    cells = Markup("").join(Markup('<td class="n">{}</td>').format(cell) for cell in _cells(score))
    return Markup("<tr><th>{}</th>{}</tr>").format(score.measure.replace("_", " "), cells)


def _cells(score: ScaleScore) -> tuple[str, str, str, str]:
    by = score.difference
    if by is None:  # the first round is the last
        return _number(score.first), "-", "-", "-"
    interval = "no interval"
    if by.low is not None and by.high is not None:
        interval = f"{by.low:+.2f} to {by.high:+.2f}"
    return _number(score.first), _number(score.last), _number(by.difference, "+"), interval


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def _main_figure(reader: Reader) -> Figure | None:
    """The main scale by round; None where nothing is rated yet."""
    declared = declaration_of(reader)
    if declared.main is None:
        return None
    figure = by_round(outcomes(reader), declared, declared.main)
    return figure if figure.rows else None


def _picture(figure: Figure) -> Markup:
    images = Markup("").join(
        Markup('<img class="{}" alt="{}" src="data:image/svg+xml;base64,{}">').format(
            name, f"{figure.title}. {figure.about}", b64encode(figure.svg(dark).encode()).decode()
        )
        for name, dark in (("by-day", False), ("at-night", True))
    )
    return Markup('<div><strong>{}</strong>{}<span class="soft">{}</span></div>').format(
        escape(figure.title), images, escape(figure.about)
    )
