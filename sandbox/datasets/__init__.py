"""Exports: what the exchanges of runs become when they leave the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

from sandbox.datasets import card, croissant, figures
from sandbox.datasets.choices import Choices
from sandbox.datasets.formats import FORMATS
from sandbox.datasets.gathering import Gathered, Gathering
from sandbox.datasets.lengths import token_counter
from sandbox.datasets.measures import Measure, measures
from sandbox.datasets.questions import Questions
from sandbox.datasets.rows import Format
from sandbox.datasets.sampling import check_mix
from sandbox.datasets.source import SCRIPTED, Source, Told
from sandbox.datasets.survey import Survey
from sandbox.datasets.targets import dataset_info, shape_of
from sandbox.files import new_folder
from storage.errors import InputError
from storage.reader import Reader
from storage.voices import voices

__all__ = ["FORMATS", "ExportReport", "export"]

LLAMA_FACTORY = "dataset_info.json"

_FOR_ALL = frozenset(
    {
        *("near_duplicates", "near_questions", "tokenizer", "max_tokens", "splits", "keep_out"),
        "max_per_question",
        *("rows", "mix_runs", "seed", "target", "files", "license"),
    }
)
"""The choices that concern every format."""


class ExportReport(NamedTuple):
    """What an export wrote, and what it left out.

    Attributes:
        out: the folder; None where nothing was to be written.
        runs: the names of the runs.
        scripted: whether any of it was composed without a language model.
        gathered: what became of each format.
        measures: what there is to say about the exchanges and the rows.
        notes: what is out of the ordinary about the runs.
    """

    out: Path | None
    runs: tuple[str, ...]
    scripted: bool
    gathered: tuple[Gathered, ...]
    measures: Mapping[str, Measure]
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[str, int]:
        """The rows in each file."""
        return {name: count for one in self.gathered for name, count in one.files.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": None if self.out is None else str(self.out),
            "runs": list(self.runs),
            "scripted": self.scripted,
            "files": self.files,
            "formats": [one.as_dict() for one in self.gathered],
            "measures": {
                name: {**one.values, "text": one.text} for name, one in self.measures.items()
            },
            "notes": list(self.notes),
        }


def export(
    readers: Sequence[Reader],
    formats: Sequence[str],
    out: Path | None,
    *,
    overwrite: bool = False,
    **choices: Any,
) -> ExportReport:
    """Export runs into a folder of their own, whole or not at all.

    Args:
        readers: the runs; each may still be going on, and is exported as it is at this moment.
        formats: one or more of `FORMATS`.
        out: a new or an empty folder; its parents are made. None: nothing is kept, the report
            tells what would be there.
        overwrite: replace the folder if it holds an earlier export and nothing else.
        choices: those of `Choices`.

    Raises:
        InputError: a format or a choice is unknown or wrong, or `out` cannot be used.
    """
    chosen = _chosen(formats, choices)
    try:
        if out is None:
            with TemporaryDirectory() as place:
                return _export(readers, chosen, Path(place), choices)
        with new_folder(out, overwrite, foreign) as folder:
            return _export(readers, chosen, folder, choices, out)
    except OSError as error:
        where = gettempdir() if out is None else out
        raise InputError(f"out: {where}: cannot be written: {error.strerror or error}") from None


def foreign(folder: Path) -> str | None:
    """The first file in a folder that its own metadata do not name; None in an earlier export."""
    rows = croissant.files_of(folder)
    others = (card.README, croissant.FILE, LLAMA_FACTORY, *figures.FILES)
    known = set() if rows is None else rows.union(others)
    held = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return next((name for name in sorted(held) if name not in known), None)


def _chosen(names: Sequence[str], choices: Mapping[str, Any]) -> list[Format]:
    """The formats, after a look at whether the choices fit them."""
    for name in names:
        if name not in FORMATS:
            raise InputError(f"format: found {name!r}; expected one of {', '.join(FORMATS)}")
    if not names or len(set(names)) < len(names):
        found = ", ".join(names) or "none"
        raise InputError(f"format: found {found}; expected one or more, each once")
    chosen = [FORMATS[name] for name in names]
    known = _FOR_ALL.union(*(one.uses for one in chosen))
    for choice, value in choices.items():
        if choice not in known and value is not None:
            expected = ", ".join(sorted(known))
            raise InputError(f"{choice}: not a choice of {', '.join(names)}; expected {expected}")
    return chosen


def _export(
    readers: Sequence[Reader],
    chosen: Sequence[Format],
    folder: Path,
    given: Mapping[str, Any],
    out: Path | None = None,
) -> ExportReport:
    with Source.of(readers) as source, ExitStack() as stack:
        made = {**{"seed": source.seed}, **{k: v for k, v in given.items() if v is not None}}
        choices = Choices(**made)
        survey, gatherings = Survey(), _gatherings(source, chosen, choices, folder)
        for one in gatherings:
            stack.callback(one.close)
        _pass(source, survey, gatherings)
        gathered = tuple(one.finish() for one in gatherings)
        scripted = _scripted(source)
        notes = tuple(_unfinished(source))
        if out is not None:
            _describe(folder, source, survey, gathered, scripted, notes)
        return ExportReport(
            out=out,
            runs=tuple(str(one.reader.run.name) for one in source.origins),
            scripted=scripted,
            gathered=gathered,
            measures={one.name: one for one in measures(survey, gathered)},
            notes=notes,
        )


def _unfinished(source: Source) -> Iterator[str]:
    """The runs that were exported before their end."""
    for origin in source.origins:
        run, played = origin.reader.run, card.episodes(origin)
        if run.digest is None:
            whole = f"{played:,} of {run.rounds * run.per_round:,} exchanges"
            yield f"the run {run.name} is not finished: {whole} have been played"


def _scripted(source: Source) -> bool:
    heard = (one for of in source.origins for one in voices(of.reader, of.connection))
    return any(one.name == SCRIPTED for one in heard)


def _gatherings(
    source: Source, chosen: Sequence[Format], choices: Choices, folder: Path
) -> list[Gathering]:
    settled = [choices.with_defaults(_defaults(format, choices)) for format in chosen]
    runs = [str(one.reader.run.name) for one in source.origins]
    for format, mine in zip(chosen, settled, strict=True):
        _check(format, mine, runs)
    tokens = None if choices.tokenizer is None else token_counter(choices.tokenizer)
    near = float(settled[0].near_questions or 1)
    questions = Questions(source.texts, near, settled[0].keep_out or (), source.drawn)
    return [
        Gathering(
            format, mine, shape_of(str(mine.target), format), source, questions, folder, tokens
        )
        for format, mine in zip(chosen, settled, strict=True)
    ]


def _check(format: Format, mine: Choices, runs: Sequence[str]) -> None:
    """Refuse choices that do not go with a format, or with the runs, before anything is read."""
    shape_of(str(mine.target), format)
    if mine.files == "parquet" and format.array:
        raise InputError(f"files: found parquet for {format.name}; expected jsonl")
    low, high = mine.max_rating or 0, mine.min_rating or 0
    if "max_rating" in format.uses and low >= high:
        expected = f"expected less than min_rating ({high:g})"
        raise InputError(f"max_rating: found {low:g} for {format.name}; {expected}")
    check_mix("mix", format.name, mine.mix or (), format.kinds)
    check_mix("mix_runs", format.name, mine.mix_runs or (), runs)


def _defaults(format: Format, choices: Choices) -> dict[str, Any]:
    """A format's own; verl reads Parquet."""
    files = {"files": "parquet"} if choices.target == "verl" else {}
    return {**format.defaults, **files}


def _pass(source: Source, survey: Survey, gatherings: Sequence[Gathering]) -> None:
    """Let all exchanges go by, once in each order that the formats want."""
    by_round = [one for one in gatherings if one.format.by_round]
    by_question = [one for one in gatherings if not one.format.by_round]
    counting: Callable[[Told], None] = survey.add
    if by_question:
        groups = by_question[0].questions.groups
        for _, about in groupby(source.by_question(groups), key=lambda told: told.question):
            together = list(about)
            for told in together:
                counting(told)
            for one in by_question:
                one.take(together)
    for told in source.by_round() if by_round else ():
        if not by_question:
            counting(told)
        for one in by_round:
            one.take([told])


def _describe(
    folder: Path,
    source: Source,
    survey: Survey,
    gathered: Sequence[Gathered],
    scripted: bool,
    notes: Sequence[str],
) -> None:
    """Write what describes the rows: figures, the card, Croissant, what LLaMA-Factory wants."""
    name = card.title(source, gathered)
    origin = f"{name} (composed without a language model)" if scripted else name
    drawn = figures.write_figures(folder, survey, gathered, origin)
    for name, text in _descriptions(folder, source, survey, gathered, drawn, notes):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _descriptions(
    folder: Path,
    source: Source,
    survey: Survey,
    gathered: Sequence[Gathered],
    drawn: Mapping[str, str],
    notes: Sequence[str],
) -> Iterator[tuple[str, str]]:
    yield card.README, card.card(source, survey, gathered, drawn, notes)
    name = card.title(source, gathered)
    made = max(one.reader.run.created for one in source.origins)[:10]
    described = croissant.croissant(folder, name, made, gathered)
    yield croissant.FILE, json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    if gathered[0].choices.target == "llama-factory":
        infos = [dataset_info(one.format, list(one.files)) for one in gathered]
        merged = {name: info for each in infos for name, info in each.items()}
        yield LLAMA_FACTORY, json.dumps(merged, indent=1) + "\n"
