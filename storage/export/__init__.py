"""Exports: what a run's exchanges become when they leave the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from storage.errors import InputError
from storage.exchanges import snapshot
from storage.export import exchanges_jsonl, stable_alignment
from storage.export.folder import SCRIPTED, Source, Written, new_folder
from storage.reader import Reader
from storage.voices import voices

README = "README.md"

_NO_MODEL = "the scripted backend and not by a language model"


class Format(NamedTuple):
    """A format of exports.

    Attributes:
        write: writes the files of a source into a folder; takes the options by name.
        files: what it writes.
        options: the names of its options.
        about: what it holds, for the README beside the files.
    """

    write: Callable[..., Written]
    files: tuple[str, ...]
    options: tuple[str, ...]
    about: str


FORMATS: dict[str, Format] = {
    "exchanges": Format(exchanges_jsonl.write, exchanges_jsonl.FILES, (), exchanges_jsonl.ABOUT),
    "stable-alignment": Format(
        stable_alignment.write, stable_alignment.FILES, ("mix", "seed"), stable_alignment.ABOUT
    ),
}


class ExportReport(NamedTuple):
    """What an export wrote, and what it left out.

    Attributes:
        format: the format's name.
        out: the folder.
        files: the rows in each file.
        found: the rows of each kind that the run holds.
        written: the rows of each kind that were written.
        removed: how many candidates each rule removed.
        notes: what is out of the ordinary, and why nothing is left where nothing is.
    """

    format: str
    out: Path
    files: Mapping[str, int]
    found: Mapping[str, int]
    written: Mapping[str, int]
    removed: Mapping[str, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "out": str(self.out), "notes": list(self.notes)}


def export(
    reader: Reader, format: str, out: Path, *, overwrite: bool = False, **options: Any
) -> ExportReport:
    """Export a run into a folder of its own, whole or not at all.

    Args:
        reader: the run; it may still be going on, and is exported as it is at this moment.
        format: one of `FORMATS`.
        out: a new or an empty folder; its parents are made.
        overwrite: replace the folder if it holds an earlier export and nothing else.
        options: those of the format.

    Raises:
        InputError: the format or an option is unknown or wrong, or `out` cannot be used.
    """
    chosen = _chosen(format, options)
    ours = {README, *(name for one in FORMATS.values() for name in one.files)}
    try:
        with new_folder(out, overwrite, ours) as folder, snapshot(reader) as connection:
            source = Source(reader, connection)
            written = chosen.write(source, folder, **options)
            text = "\n".join(_readme(source, format, written))
            (folder / README).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"out: {out}: cannot be written: {error.strerror or error}") from None
    return ExportReport(format, out, *written)


def _chosen(name: str, options: Mapping[str, Any]) -> Format:
    if name not in FORMATS:
        raise InputError(f"format: found {name!r}; expected one of {', '.join(FORMATS)}")
    known = FORMATS[name].options
    for option in options:
        if option not in known:
            expected = ", ".join(known) or "none"
            raise InputError(f"format {name}: unknown option {option}; expected {expected}")
    return FORMATS[name]


def _readme(source: Source, format: str, written: Written) -> Iterator[str]:
    run = source.reader.run
    models = voices(source.reader, source.connection)
    scripted = [one.role for one in models if one.name == SCRIPTED]
    if scripted:
        roles = " and the ".join(scripted)
        yield f"**The texts of the {roles} model were composed by {_NO_MODEL}.**\n"
    yield f"# {run.name}: {format}\n"
    yield f"{FORMATS[format].about}\n"
    yield f"- run: `{run.name}`, seed {run.seed}"
    yield f"- digest of the run: {f'`{run.digest}`' if run.digest else 'none, it is not finished'}"
    yield from (f"- {one.role} model: `{one.name}`, {one.calls} calls" for one in models)
    yield "\n| file | rows |\n| --- | --- |"
    yield from (f"| `{name}` | {count} |" for name, count in written.files.items())
    yield "\n| kind | found | written |\n| --- | --- | --- |"
    yield from (
        f"| {kind} | {count} | {written.written[kind]} |" for kind, count in written.found.items()
    )
    if written.removed:
        yield "\n| removed by the rule | responses |\n| --- | --- |"
        yield from (f"| {rule} | {count} |" for rule, count in written.removed.items())
    yield from (f"\n{note[0].upper()}{note[1:]}." for note in written.notes)
    yield ""
