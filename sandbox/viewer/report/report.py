"""Reports: a run as one page that can be mailed, or as Markdown with a folder of figures."""

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

from sandbox.datasets.card import public
from sandbox.files import check_new_file, new_file, new_folder
from sandbox.reading.declaration import declaration_of
from sandbox.reading.figures import biases, figures
from sandbox.reading.map import Advice, advice, last_round
from sandbox.reading.metrics import EPISODE, Outcomes, calls_by_form, outcomes
from sandbox.reading.runs import Overview, about, overview
from sandbox.text import short
from sandbox.viewer import filters
from sandbox.viewer.app import STATIC
from sandbox.viewer.report import markdown, tables
from sandbox.viewer.report.earlier_files import find_unknown_file
from sandbox.viewer.report.examples import examples
from sandbox.viewer.report.exchange_pass import exchange_pass
from sandbox.viewer.report.methods import methods
from sandbox.viewer.report.rendered_figures import RenderedFigure
from storage.database import Address
from storage.errors import InputError
from storage.model_names import ModelUsage, model_usage
from storage.reader import Reader

Row = dict[str, Any]

FORMATS = ("html", "md")

_STYLES = ("colours.css", "app.css", "parts.css", "report.css")
_ADDRESS = re.compile(r"\w+://\S+")


class Written(NamedTuple):
    """A report that was written.

    Attributes:
        run: the run's name.
        out: the file.
        format: one of `FORMATS`.
        figures: the names of its figures.
        bytes: how large it is, with its figures.
    """

    run: str
    out: str
    format: str
    figures: list[str]
    bytes: int

    @property
    def summary(self) -> str:
        """The same for people."""
        beside = self.format == "md" and self.figures
        folder = f" with {figures_of(Path(self.out))}/" if beside else ""
        size = f"{len(self.figures)} figures, {self.bytes / 1e6:.1f} MB"
        return f"{self.out}{folder}: {size}"


def report(
    reader: Reader, place: Address, out: Path, format: str | None = None, overwrite: bool = False
) -> Written:
    """Write a report of a run, whole or not at all.

    Args:
        reader: the run; it may still be going on.
        place: where it lives.
        out: the file; figures of Markdown go into a folder beside it, `figures_of(out)`.
        format: one of `FORMATS`; None: what the name of the file ends in.
        overwrite: replace an earlier report.

    Raises:
        InputError: the format is unknown, or `out` cannot be used.
    """
    kind = _format(out, format)
    check_new_file(out, overwrite)
    try:
        found, rendered = gathered(reader, place)
        write = _write_html if kind == "html" else _write_markdown
        size = write(found, rendered, out, overwrite)
    except OSError as error:
        raise InputError(f"out: {out}: cannot be written: {error.strerror or error}") from None
    names = [one.figure.name for one in rendered]
    return Written(reader.run.name, str(out), kind, names, size)


def _format(out: Path, format: str | None) -> str:
    kind = out.suffix.lower().removeprefix(".") if format is None else format
    if kind in FORMATS:
        return kind
    if format is not None:
        raise InputError(f"format: found {format!r}; expected one of {', '.join(FORMATS)}")
    raise InputError(f"out: found {str(out)!r}; expected a name that ends in .html or .md")


def figures_of(out: Path) -> Path:
    """The folder of figures beside a report in Markdown."""
    return out.with_name(f"{out.stem}_figures")


def gathered(reader: Reader, place: Address) -> tuple[Row, list[RenderedFigure]]:
    """The values of the templates by name, and the figures."""
    declared, found = declaration_of(reader), outcomes(reader)
    here, costs = overview(reader, place), calls_by_form(reader)
    seen, scopes = exchange_pass(reader), tables.scopes(reader, found, declared)
    people = {row["agent"]: row for row in biases(reader)}
    last, shown = last_round(reader), examples(reader, declared)
    scenes = any(one.exchange.scene is not None for one in shown)
    values = {
        "here": here,
        "declared": declared,
        "about": about(reader, place),
        "models": _models(reader),
        "config": _config(reader),
        "notes": list(_notes(reader, here, found)),
        "summary": tables.summary(scopes, declared),
        "happened": tables.happened(here, found, costs, tables.prefix_share(reader)),
        "scores": [tables.means(scopes, declared), tables.changes(scopes, declared)],
        "missing": tables.missing(found, declared),
        "failed": sorted(seen.survey.failed.items()),
        "agreement": tables.agreement(seen.survey),
        "length_bias": seen.survey.length_bias(),
        "influence": tables.influence(seen.raters, people),
        "alike": None if last is None or not here.labels else _alike(advice(reader, last)),
        "costs": tables.costs(costs),
        "examples": shown,
        "methods": methods(declared, scenes),
    }
    return values, [RenderedFigure.of(one) for one in figures(reader).values()]


def _models(reader: Reader) -> list[ModelUsage]:
    with reader.engine.connect() as connection:
        return model_usage(reader, connection)


def _config(reader: Reader) -> str:
    config = public(json.loads(reader.run.config))
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()


def _alike(found: Advice) -> Advice | None:
    return None if found.resemblance.scores is None and not found.clusters else found


def _notes(reader: Reader, here: Overview, found: Outcomes) -> Iterator[str]:
    """What is out of the ordinary about a run."""
    message = _ADDRESS.sub("[address]", here.message or "")
    told = (
        f"{filters.whole(here.episodes)} of {filters.whole(here.episodes_total)} exchanges are over"
    )
    if here.status != "done":
        why = f" ({short(message, 300)})" if message else ""
        yield f"This run is not finished: it is {here.status}{why}, and {told}."
    elif here.episodes < here.episodes_total:
        yield f"This run ended before its last round: {told}. {short(message, 300)}".strip()
    if here.status == "running":
        yield "It went on while this report was made: numbers may differ by what was played since."
    failed = sum(some[EPISODE]["failed"] for some in found.values())
    if here.episodes and failed == here.episodes:
        yield "Every exchange failed: there is nothing to rate."


def _write_html(found: Row, rendered: list[RenderedFigure], out: Path, overwrite: bool) -> int:
    style = "".join((STATIC / name).read_text("utf-8") for name in _STYLES)
    icon = b64encode((STATIC / "icon.svg").read_bytes()).decode()
    template = filters.environment().get_template("report.html")
    page = template.render(**found, rendered=rendered, style=Markup(style), icon=icon)
    data = page.encode("utf-8", "replace")
    with new_file(out, overwrite) as part:
        part.write_bytes(data)
    return len(data)


def _write_markdown(found: Row, rendered: list[RenderedFigure], out: Path, overwrite: bool) -> int:
    folder = figures_of(out)
    template = markdown.environment().get_template("report.md")
    data = template.render(**found, rendered=rendered, folder=folder.name).encode(
        "utf-8", "replace"
    )
    there = bool(rendered) or folder.exists()
    figures = new_folder(folder, overwrite, find_unknown_file) if there else nullcontext(folder)
    with new_file(out, overwrite) as part, figures as made:
        for one in rendered:
            one.write(made)
        part.write_bytes(data)
    return len(data) + sum(len(some) for one in rendered for some in one.files.values())
