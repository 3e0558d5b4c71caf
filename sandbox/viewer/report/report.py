"""Writes reports: a standalone HTML page, or Markdown with a folder of figures."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup

from agents.scale import Declaration
from sandbox.datasets.card import public
from sandbox.files import check_new_file, new_file, new_folder
from sandbox.reading.bounds import OPERATIONAL, bounds
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import figures, source_of
from sandbox.reading.map import Advice, advice, last_round
from sandbox.reading.metrics import EPISODE, Outcomes, calls_by_form, outcomes
from sandbox.reading.policy import policy_of
from sandbox.reading.raters import raters
from sandbox.reading.runs import Overview, about, overview
from sandbox.reading.sessions import environments, sessions
from sandbox.reading.split_figures import split_figures
from sandbox.reading.splits import LABEL, splits
from sandbox.reading.trends import all_trends, trend_measures
from sandbox.text import short
from sandbox.viewer import filters
from sandbox.viewer.app import STATIC
from sandbox.viewer.findings import findings
from sandbox.viewer.report import markdown, tables
from sandbox.viewer.report.bounds_tables import bounds_tables
from sandbox.viewer.report.examples import examples
from sandbox.viewer.report.exchange_pass import exchange_pass
from sandbox.viewer.report.methods import methods
from sandbox.viewer.report.rendered_figures import RenderedFigure
from sandbox.viewer.report.trend_tables import trend_table
from sandbox.viewer.report.written_files import find_unknown_file
from storage.database import Address
from storage.errors import InputError
from storage.model_names import ModelUsage, model_usage
from storage.reader import Reader

Row = dict[str, Any]

FORMATS = ("html", "md")

_STYLES = ("colours.css", "app.css", "parts.css", "report.css")
_ADDRESS = re.compile(r"\w+://\S+")


class ReportResult(NamedTuple):
    """The result of writing a report.

    Attributes:
        run: the name of the run.
        out: the path of the file.
        format: one of `FORMATS`.
        figures: the names of its figures.
        bytes: the size, including figures.
    """

    run: str
    out: str
    format: str
    figures: list[str]
    bytes: int

    @property
    def summary(self) -> str:
        """One line for the terminal."""
        beside = self.format == "md" and self.figures
        folder = f" with {figure_folder(Path(self.out))}/" if beside else ""
        size = f"{len(self.figures)} figures, {self.bytes / 1e6:.1f} MB"
        return f"{self.out}{folder}: {size}"


def report(
    reader: Reader, address: Address, out: Path, format: str | None = None, overwrite: bool = False
) -> ReportResult:
    """Write a report of a run, atomically.

    Args:
        reader: the run; it may be in progress.
        address: the database and name of the run.
        out: the file; the figures of a Markdown report are written to `figure_folder(out)`.
        format: one of `FORMATS`; None: follows from the suffix of `out`.
        overwrite: replace an earlier report.

    Raises:
        InputError: the format is unknown, or `out` cannot be used.
    """
    kind = _format(out, format)
    check_new_file(out, overwrite)
    try:
        values, rendered = template_values(reader, address)
        write = _write_html if kind == "html" else _write_markdown
        size = write(values, rendered, out, overwrite)
    except OSError as error:
        raise InputError(f"out: {out}: cannot be written: {error.strerror or error}") from None
    names = [item.figure.name for item in rendered]
    return ReportResult(reader.run.name, str(out), kind, names, size)


def _format(out: Path, format: str | None) -> str:
    kind = out.suffix.lower().removeprefix(".") if format is None else format
    if kind in FORMATS:
        return kind
    if format is not None:
        raise InputError(f"format: found {format!r}; expected one of {', '.join(FORMATS)}")
    raise InputError(f"out: found {str(out)!r}; expected a name ending in .html or .md")


def figure_folder(out: Path) -> Path:
    """The folder of figures of a Markdown report."""
    return out.with_name(f"{out.stem}_figures")


def template_values(reader: Reader, address: Address) -> tuple[Row, list[RenderedFigure]]:
    """The variables of the templates, and the rendered figures."""
    declared, counts = declaration_of(reader), outcomes(reader)
    here, costs = overview(reader, address), calls_by_form(reader)
    results, scopes = exchange_pass(reader), tables.scopes(reader, counts, declared)
    given = raters(reader)
    last, selected = last_round(reader), examples(reader, declared)
    policy, measured = policy_of(reader), bounds(reader)
    scenes = any(example.exchange.scene is not None for example in selected)
    values = {
        "here": here,
        "declared": declared,
        "about": about(reader, address),
        "models": _models(reader),
        "config": _config(reader),
        "notes": list(_notes(reader, here, counts)),
        "summary": [
            *tables.summary(scopes, declared),
            *(one.sentence for one in findings(reader) if one.sentence),
        ],
        "totals": tables.totals(here, counts, costs, tables.prefix_share(reader)),
        "scores": [
            tables.means(scopes, declared),
            tables.changes(scopes, declared),
            *_trends(reader, declared),
        ],
        "missing": tables.missing(counts, declared),
        "failed": sorted(results.survey.failed.items()),
        "policy": None if policy is None else policy.title,
        "operational": OPERATIONAL,
        "bounds": [] if measured is None else bounds_tables(measured),
        "agreement": tables.agreement(results.survey),
        "length_bias": results.survey.length_bias(),
        "leniency": tables.leniency(given),
        "influence": tables.influence(results.raters, {row.agent: row for row in given}),
        "neighbours": _neighbours(reader, last) if last is not None and here.labels else None,
        "costs": tables.costs(costs),
        "history": tables.history(sessions(reader, address)),
        "environments": [tables.environment(one) for one in environments(reader)],
        "examples": selected,
        "methods": methods(declared, scenes),
    }
    source = source_of([reader])
    by_label = [one.name for one in splits(reader) if one.name == LABEL]
    drawn = [figure for split in by_label for figure in split_figures(reader, split)]
    drawn += figures(reader).values()
    return values, [RenderedFigure.of(figure, source) for figure in drawn]


def _trends(reader: Reader, declared: Declaration) -> list[tables.Table]:
    """The table of first and last rounds; none where there are not two rounds."""
    table = trend_table(all_trends(reader, trend_measures(declared)))
    return [table] if table.rows else []


def _models(reader: Reader) -> list[ModelUsage]:
    with reader.engine.connect() as connection:
        return model_usage(reader, connection)


def _config(reader: Reader) -> str:
    config = public(json.loads(reader.run.config))
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()


def _neighbours(reader: Reader, round: int) -> Advice | None:
    """Neighbourhood statistics of a round; None if there are none."""
    found = advice(reader, round)
    return None if found.scores is None and not found.clusters else found


def _notes(reader: Reader, here: Overview, counts: Outcomes) -> Iterator[str]:
    """Warnings about a run."""
    message = _ADDRESS.sub("[address]", here.message or "")
    played = (
        f"{filters.integer(here.episodes)} of {filters.integer(here.episodes_total)} exchanges "
        "have been played"
    )
    if here.status != "done":
        why = f" ({short(message, 300)})" if message else ""
        yield f"This run is not finished: it is {here.status}{why}, and {played}."
    elif here.episodes < here.episodes_total:
        yield f"This run ended before its last round: {played}. {short(message, 300)}".strip()
    if here.status == "running":
        yield "It was in progress while this report was written; its numbers may be out of date."
    failed = sum(measures[EPISODE]["failed"] for measures in counts.values())
    if here.episodes and failed == here.episodes:
        yield "Every exchange failed, so there are no scores."


def _write_html(values: Row, rendered: list[RenderedFigure], out: Path, overwrite: bool) -> int:
    style = "".join((STATIC / name).read_text("utf-8") for name in _STYLES)
    icon = b64encode((STATIC / "icon.svg").read_bytes()).decode()
    template = filters.environment().get_template("report.html")
    page = template.render(**values, rendered=rendered, style=Markup(style), icon=icon)
    data = page.encode("utf-8", "replace")
    with new_file(out, overwrite) as part:
        part.write_bytes(data)
    return len(data)


def _write_markdown(values: Row, rendered: list[RenderedFigure], out: Path, overwrite: bool) -> int:
    folder = figure_folder(out)
    template = markdown.environment().get_template("report.md")
    data = template.render(**values, rendered=rendered, folder=folder.name).encode(
        "utf-8", "replace"
    )
    needed = bool(rendered) or folder.exists()
    figures = new_folder(folder, overwrite, find_unknown_file) if needed else nullcontext(folder)
    with new_file(out, overwrite) as part, figures as target:
        for item in rendered:
            item.write(target)
        part.write_bytes(data)
    return len(data) + sum(len(content) for item in rendered for content in item.files.values())
