"""Exports datasets from the exchanges of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

from agents.scale import Scale
from sandbox.datasets import card, croissant, figures
from sandbox.datasets.answers import by_peers
from sandbox.datasets.choices import Choices, check_number
from sandbox.datasets.format import Format, Settings
from sandbox.datasets.format_writer import FormatResult, FormatWriter
from sandbox.datasets.formats import FORMATS
from sandbox.datasets.groups import Groups
from sandbox.datasets.questions import Questions
from sandbox.datasets.rater_choices import matches, parse_raters
from sandbox.datasets.sampling import check_mix
from sandbox.datasets.schema import RunSchema, Schema, share_of
from sandbox.datasets.source import SCRIPTED, Source, SourcedExchange
from sandbox.datasets.statistics import Statistic, doubts, statistics
from sandbox.datasets.survey import Survey
from sandbox.datasets.targets import dataset_info, shape_of
from sandbox.datasets.tokens import token_counter
from sandbox.files import new_folder
from storage.errors import InputError
from storage.model_names import model_usage
from storage.reader import Reader

__all__ = ["FORMATS", "ExportReport", "export"]

LLAMA_FACTORY = "dataset_info.json"

_COMMON_CHOICES = frozenset(
    {
        "near_duplicates",
        "near_questions",
        "strict_ratings",
        "shortened",
        "raters",
        "balance",
        "tokenizer",
        "max_tokens",
        "splits",
        "keep_out",
        "max_per_question",
        "rows",
        "mix_runs",
        "seed",
        "target",
        "files",
        "license",
    }
)
"""Choices that apply to every format."""

MAX_RATING_SHARE = 1 / 3
"""The default of `max_rating`, as a share of the scale's range from the worse end."""

MIN_MARGIN_SHARE = 1 / 6
"""The default of `min_margin`, as a share of the scale's range."""


class ExportReport(NamedTuple):
    """What an export wrote, and what its rules removed.

    Attributes:
        out: the folder; None for a dry run.
        runs: the names of the runs.
        scripted: whether any text is from the scripted backend, not from a language model.
        results: one for each format.
        measures: statistics of the exchanges and the rows, by name.
        notes: warnings about the runs.
    """

    out: Path | None
    runs: tuple[str, ...]
    scripted: bool
    results: tuple[FormatResult, ...]
    measures: Mapping[str, Statistic]
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[str, int]:
        """The number of rows in each file."""
        return {name: count for result in self.results for name, count in result.files.items()}

    def as_dict(self) -> dict[str, Any]:
        """As a JSON-serializable dict."""
        return {
            "out": None if self.out is None else str(self.out),
            "runs": list(self.runs),
            "scripted": self.scripted,
            "files": self.files,
            "formats": [result.as_dict() for result in self.results],
            "measures": {
                name: {**measure.values, "text": measure.text}
                for name, measure in self.measures.items()
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
    """Export runs into a folder, atomically.

    Args:
        readers: the runs; a run in progress is exported as of this moment.
        formats: one or more of `FORMATS`.
        out: a new or an empty folder; its parents are created. None: a dry run, whose report says
            what would be written.
        overwrite: replace the folder if it contains an earlier export and nothing else.
        choices: the fields of `Choices`.

    Raises:
        InputError: a format or choice is unknown or invalid, a format does not fit a run, or `out`
            cannot be used.
    """
    chosen = _chosen(formats, choices)
    try:
        if out is None:
            with TemporaryDirectory() as temporary:
                return _export(readers, chosen, Path(temporary), choices)
        with new_folder(out, overwrite, find_unknown_file) as folder:
            return _export(readers, chosen, folder, choices, out)
    except OSError as error:
        where = gettempdir() if out is None else out
        raise InputError(f"out: {where}: cannot be written: {error.strerror or error}") from None


def check_choices(run: RunSchema, formats: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Check the choices of an export of a run that is not played yet.

    Args:
        run: its stages and scales.
        formats: one or more of `FORMATS`.
        choices: the fields of `Choices`.

    Raises:
        InputError: a format or choice is unknown or invalid, or a format does not fit the run.
    """
    chosen = _chosen(formats, choices)
    given = Choices(**choices)
    for format in chosen:
        settings = _settings(format, given, Schema((run,)))
        _check(format, settings, [run.run])


def find_unknown_file(folder: Path) -> str | None:
    """Find a file in a folder that the metadata of an export does not list; None if none."""
    rows = croissant.files_of(folder)
    others = (card.README, croissant.FILE, LLAMA_FACTORY, *figures.FILES)
    known = set() if rows is None else rows.union(others)
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return next((name for name in sorted(names) if name not in known), None)


def _chosen(names: Sequence[str], choices: Mapping[str, Any]) -> list[Format]:
    """Return the formats, after checking that every choice applies to one of them."""
    for name in names:
        if name not in FORMATS:
            raise InputError(f"format: found {name!r}; expected one of {', '.join(FORMATS)}")
    if not names or len(set(names)) < len(names):
        found = ", ".join(names) or "none"
        raise InputError(f"format: found {found}; expected one or more different formats")
    chosen = [part for name in names for part in FORMATS[name].parts or (FORMATS[name],)]
    known = _COMMON_CHOICES.union(*(format.uses for format in chosen))
    for choice, value in choices.items():
        if choice not in known and value is not None:
            expected = ", ".join(sorted(known))
            raise InputError(f"{choice}: not a choice of {', '.join(names)}; expected {expected}")
        refusing = next((name for name in names if choice in FORMATS[name].refuses), None)
        if refusing is not None and value is not None:
            expected = "expected no such choice: its files refer to each other"
            raise InputError(f"{choice}: found with the format {refusing}; {expected}")
    return chosen


def _export(
    readers: Sequence[Reader],
    chosen: Sequence[Format],
    folder: Path,
    given: Mapping[str, Any],
    out: Path | None = None,
) -> ExportReport:
    with Source.of(readers) as source, ExitStack() as stack:
        choices = Choices(
            **{"seed": source.seed} | {k: v for k, v in given.items() if v is not None}
        )
        _check_raters(source, choices)
        survey, writers = Survey(source.schema), _writers(source, chosen, choices, folder)
        groups = Groups(source.origins, choices)
        for writer in writers:
            stack.callback(writer.close)
        _read_exchanges(source, survey, groups, writers)
        results = tuple(writer.finish() for writer in writers)
        scripted = _scripted(source)
        notes = (*_notes(source, results), *doubts(survey))
        if out is not None:
            _describe(folder, source, survey, groups, results, scripted, notes)
        return ExportReport(
            out=out,
            runs=tuple(str(origin.reader.run.name) for origin in source.origins),
            scripted=scripted,
            results=results,
            measures={statistic.name: statistic for statistic in statistics(survey, results)},
            notes=notes,
        )


def _notes(source: Source, results: Sequence[FormatResult]) -> Iterator[str]:
    yield from _unfinished(source)
    rated = {
        result.settings.scale.name: result.settings.scale
        for result in results
        if result.settings.scale is not None and result.settings.scale.rater == "observer"
    }
    for run in source.schema.runs:
        own = {scale.name for scale in run.declaration.observed}
        for name in rated:
            if name not in own:
                yield f"the run {run.run} has no scale {name}: its answers have no rating on it"


def _unfinished(source: Source) -> Iterator[str]:
    """Yield a note on each run that is not finished."""
    for origin in source.origins:
        run, played = origin.reader.run, card.episodes(origin)
        if run.digest is None:
            progress = f"{played:,} of {run.rounds * run.per_round:,} exchanges"
            yield f"the run {run.name} is not finished: {progress} have been played"


def _scripted(source: Source) -> bool:
    models = (
        usage
        for origin in source.origins
        for usage in model_usage(origin.reader, origin.connection)
    )
    return any(usage.name == SCRIPTED for usage in models)


def _writers(
    source: Source, chosen: Sequence[Format], choices: Choices, folder: Path
) -> list[FormatWriter]:
    settings = [_settings(format, choices, source.schema) for format in chosen]
    runs = [str(origin.reader.run.name) for origin in source.origins]
    for format, own in zip(chosen, settings, strict=True):
        _check(format, own, runs)
    if choices.tokenizer is not None:
        tokens = token_counter(choices.tokenizer)
        settings = [replace(own, tokens=tokens) for own in settings]
    common = settings[0].choices
    near = float(common.near_questions or 1)
    questions = Questions(source.texts, near, common.keep_out or (), source.drawn)
    return [
        FormatWriter(
            format,
            own,
            shape_of(str(own.choices.target), format),
            source,
            questions,
            folder,
        )
        for format, own in zip(chosen, settings, strict=True)
    ]


def _settings(format: Format, choices: Choices, schema: Schema) -> Settings:
    """Return the choices with the defaults of the format and of the scale of the ratings.

    Raises:
        InputError: the format does not fit a run, or the scale does not exist.
    """
    files = {"files": "parquet"} if choices.target == "verl" else {}  # verl reads Parquet
    own = choices.with_defaults({**format.defaults, **files})
    _check_fit(format, own, schema)
    if format.compares:
        schema.check_ratings(format.name)
    if "scale" not in format.uses:
        return Settings(own, schema)
    observed = _observed(own.scale, schema)
    own = own.with_defaults({} if observed is None else {"scale": observed.name})
    scale = schema.peers if by_peers(own) else observed
    if scale is None:
        return Settings(own, schema)
    width = scale.high - scale.low
    defaults = {
        "min_rating": share_of(scale, format.least),
        "max_rating": share_of(scale, MAX_RATING_SHARE),
        "min_margin": round(width * MIN_MARGIN_SHARE, 2),
    }
    return Settings(own.with_defaults(defaults), schema, scale)


def _observed(name: str | None, schema: Schema) -> Scale | None:
    """Return the observer's scale with this name, by default the first one that rates answers."""
    if name is None:
        return next(iter(schema.of_answers), None)
    scale = next((scale for scale in schema.of_answers if scale.name == name), None)
    if scale is None:
        known = ", ".join(scale.name for scale in schema.of_answers) or "none: the runs have none"
        raise InputError(f"scale: found {name!r}; expected one of {known}")
    return scale


def _check_fit(format: Format, choices: Choices, schema: Schema) -> None:
    """Raise InputError if a run lacks stages or scales that a format needs."""
    for run in schema.runs:
        missing = format.missing(run, choices)
        if missing is not None:
            fitting = ", ".join(
                name
                for name, other in FORMATS.items()
                if other.missing(run, choices.with_defaults(other.defaults)) is None
            )
            stages = ", ".join(stage.name for stage in run.declaration.stages) or "none"
            answers = ", ".join(run.declaration.answers) or "none"
            raise InputError(
                f"format: {format.name} does not fit run {run.run} (world {run.world}): it needs "
                f"{missing}; its stages are {stages}, its answers {answers}; expected one of "
                f"{fitting}"
            )


def _check(format: Format, settings: Settings, runs: Sequence[str]) -> None:
    """Raise InputError if choices do not fit a format or the runs, before any exchange is read."""
    choices, scale = settings.choices, settings.scale
    shape_of(str(choices.target), format)
    if choices.files == "parquet" and format.array:
        raise InputError(f"files: found parquet for {format.name}; expected jsonl")
    if scale is not None:
        for name in ("min_rating", "max_rating"):
            check_number(name, getattr(choices, name), scale.low, scale.high)
        check_number("min_margin", choices.min_margin, 0, scale.high - scale.low)
        if (
            "max_rating" in format.uses
            and not scale.gain(settings.max_rating, settings.min_rating) > 0
        ):
            side = "less" if scale.better == "high" else "more"
            expected = f"expected {side} than min_rating ({settings.min_rating:g})"
            raise InputError(
                f"max_rating: found {settings.max_rating:g} for {format.name}; {expected}"
            )
    _check_raters_used(format, settings)
    check_mix("mix", format.name, choices.mix or (), format.kinds)
    check_mix("mix_runs", format.name, choices.mix_runs or (), runs)


def _check_raters(source: Source, choices: Choices) -> None:
    """Raise InputError if the conditions on raters hold for nobody."""
    conditions = parse_raters(choices.raters or ())
    people = (person for origin in source.origins for person in origin.people.values())
    if conditions and not any(matches(conditions, person) for person in people):
        found = ", ".join(choices.raters or ())
        raise InputError(
            f"raters: found {found}, which holds for no agent of the runs; expected "
            "conditions that hold for at least 1"
        )


def _check_raters_used(format: Format, settings: Settings) -> None:
    """Raise InputError if the raters of a format cannot be told apart."""
    choices, schema = settings.choices, settings.schema
    if choices.target == "axolotl" and format.name == "kto" and schema.conversations:
        raise InputError(
            "target axolotl: found format kto with conversations; expected sft or preference, "
            "since a prompt of several messages is no single text"
        )
    without = next((run for run in schema.runs if not run.conversations), None)
    if without is None:
        return
    if choices.balance is not None:
        raise InputError(
            f"balance: found with run {without.run} (world {without.world}), whose answers have "
            "several raters or none; expected runs of the world personal"
        )
    if (
        choices.raters
        and format.name != "raters"
        and not ("ratings" in format.uses and by_peers(choices))
    ):
        raise InputError(
            f"raters: found for {format.name} with run {without.run} (world {without.world}), "
            "whose rows do not rest on the peers' ratings; expected --ratings peers with a format "
            "that has it, or the format raters"
        )


def _read_exchanges(
    source: Source, survey: Survey, groups: Groups, writers: Sequence[FormatWriter]
) -> None:
    """Pass all exchanges to the writers, in one pass for each order that the formats need."""
    by_round = [writer for writer in writers if writer.format.by_round]
    by_question = [writer for writer in writers if not writer.format.by_round]
    strict = any(writer.choices.strict_ratings for writer in writers)

    def count(sourced: SourcedExchange) -> None:
        survey.add(sourced.strictly_rated() if strict else sourced)
        groups.add(sourced)

    if by_question:
        ordered = source.by_question(by_question[0].questions.groups)
        for _, group in groupby(ordered, key=lambda sourced: sourced.question):
            same_question = list(group)
            for sourced in same_question:
                count(sourced)
            for writer in by_question:
                writer.add(same_question)
    for sourced in source.by_round() if by_round else ():
        if not by_question:
            count(sourced)
        for writer in by_round:
            writer.add([sourced])


def _describe(
    folder: Path,
    source: Source,
    survey: Survey,
    groups: Groups,
    results: Sequence[FormatResult],
    scripted: bool,
    notes: Sequence[str],
) -> None:
    """Write the figures, the dataset card, Croissant metadata, and `dataset_info.json`."""
    name = card.title(source, results)
    origin = f"{name} (composed without a language model)" if scripted else name
    drawn = figures.write_figures(folder, survey, results, origin)
    for name, text in _descriptions(folder, source, survey, groups, results, drawn, notes):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _descriptions(
    folder: Path,
    source: Source,
    survey: Survey,
    groups: Groups,
    results: Sequence[FormatResult],
    drawn: Mapping[str, str],
    notes: Sequence[str],
) -> Iterator[tuple[str, str]]:
    yield card.README, card.card(source, survey, groups, results, drawn, notes)
    name = card.title(source, results)
    created = max(origin.reader.run.created for origin in source.origins)[:10]
    described = croissant.croissant(folder, name, created, results)
    yield croissant.FILE, json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    if results[0].choices.target == "llama-factory":
        infos = [dataset_info(result.format, list(result.files)) for result in results]
        merged = {name: info for part in infos for name, info in part.items()}
        yield LLAMA_FACTORY, json.dumps(merged, indent=1) + "\n"
