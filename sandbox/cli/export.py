"""The verb `export`: its options are the choices of `sandbox.datasets.choices.Choices`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.api import export as export_runs
from sandbox.cli.options import AsJson
from sandbox.cli.options import out as show
from sandbox.datasets import FORMATS
from sandbox.datasets.choices import named, parse_shares, parse_weights
from sandbox.sources import read_questions
from sandbox.terminal import render
from storage.errors import InputError


def export(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="one run or more")],
    format: Annotated[
        list[str],
        typer.Option(metavar="F", help=f"{', '.join(FORMATS)}; repeat it for several"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder to write to; only --explain goes without")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="tell what each rule removed, with examples")
    ] = False,
    ratings: Annotated[
        str | None, typer.Option(help=f"which count: {', '.join(named('ratings'))}")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="the observer's: alignment, engagement")] = None,
    pick: Annotated[
        str | None, typer.Option(help="best (and worst) of: exchange, question, all")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="of what is to be imitated")] = None,
    max_rating: Annotated[float | None, typer.Option(help="of what is undesirable")] = None,
    min_margin: Annotated[float | None, typer.Option(help="of chosen over rejected")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="folder or model, for lengths")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="of prompt and answer together")] = None,
    near_duplicates: Annotated[
        float | None, typer.Option(help="similarity of what is left out; 1: equal texts")
    ] = None,
    near_questions: Annotated[
        float | None, typer.Option(help="similarity of questions that go together")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(metavar="SHARES", help="by question, as in train=0.9,test=0.1")
    ] = None,
    keep_out: Annotated[
        list[Path] | None, typer.Option(help="questions for evaluation, as a run's questions")
    ] = None,
    max_per_question: Annotated[int | None, typer.Option(help="rows about one question")] = None,
    max_per_agent: Annotated[int | None, typer.Option(help="rows by one author")] = None,
    rows: Annotated[int | None, typer.Option(help="at most so many rows")] = None,
    mix: Annotated[
        str | None, typer.Option(help="weights of the kinds of rows, as in 5:1:1, or `all`")
    ] = None,
    mix_runs: Annotated[str | None, typer.Option(help="weights of the runs, as in 2:1")] = None,
    seed: Annotated[int | None, typer.Option(help="of sampling; default: the first run's")] = None,
    target: Annotated[
        str | None, typer.Option(help=f"who reads it: {', '.join(named('target'))}")
    ] = None,
    files: Annotated[str | None, typer.Option(help="jsonl, parquet")] = None,
    license: Annotated[str | None, typer.Option(help="for the dataset card")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset."""
    if out is None and not explain:
        raise InputError("--out: found none; expected a folder, or --explain to write nothing")
    choices = {
        **{"ratings": ratings, "scale": scale, "pick": pick, "min_rating": min_rating},
        **{"max_rating": max_rating, "min_margin": min_margin, "tokenizer": tokenizer},
        **{"max_tokens": max_tokens, "near_duplicates": near_duplicates},
        **{"near_questions": near_questions},
        **{"splits": parse_shares("--splits", splits), "keep_out": _questions(keep_out)},
        **{"max_per_question": max_per_question, "max_per_agent": max_per_agent},
        **{"rows": rows, "mix": parse_weights("--mix", mix)},
        **{"mix_runs": parse_weights("--mix-runs", mix_runs), "seed": seed},
        **{"target": target, "files": files, "license": license},
    }
    report = export_runs(
        runs, format, out and out.expanduser(), overwrite=overwrite, choices=choices
    )
    show(as_json, report.as_dict(), lambda: render.exported(report.as_dict(), explain))


def _questions(paths: list[Path] | None) -> list[str] | None:
    if not paths:
        return None
    try:
        return [one.text for path in paths for one in read_questions(path)]
    except InputError as error:
        raise InputError(f"keep_out: {str(error).removeprefix('questions: ')}") from None
