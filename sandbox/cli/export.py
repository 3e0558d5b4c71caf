"""The verb `export`; its options are those of `sandbox.datasets.choices.Choices`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.options import AsJson, Runs, show
from storage.errors import InputError

FORMATS = "sft, preference, kto, prompts, rated, raters, stable-alignment, prism, exchanges"
"""The formats as the help lists them; importing `sandbox.datasets` would slow every verb down."""


def export(
    runs: Runs,
    format: Annotated[
        list[str] | None, typer.Option(metavar="F", help=f"dataset format: {FORMATS}; repeatable")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="output folder; optional with --explain")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier export")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="show how many rows each rule removed, with examples")
    ] = False,
    ratings: Annotated[
        str | None,
        typer.Option(help="source of ratings: observer, observer-expected, peers, peers-expected"),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="the observer's scale that counts; default: the main one")
    ] = None,
    pick: Annotated[
        str | None,
        typer.Option(help="take the best (and worst) answer of each: exchange, question, all"),
    ] = None,
    min_rating: Annotated[
        float | None, typer.Option(help="minimum rating of positive examples")
    ] = None,
    max_rating: Annotated[
        float | None, typer.Option(help="maximum rating of negative examples (KTO)")
    ] = None,
    min_margin: Annotated[
        float | None, typer.Option(help="minimum rating of chosen minus rejected")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="tokenizer for --max-tokens: a folder or a model's name")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="maximum tokens of prompt and answer together")
    ] = None,
    near_duplicates: Annotated[
        float | None,
        typer.Option(help="similarity above which an answer is a duplicate; 1: equal texts only"),
    ] = None,
    near_questions: Annotated[
        float | None, typer.Option(help="similarity above which questions share a split")
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(metavar="SHARES", help="splits by question, such as train=0.9,test=0.1"),
    ] = None,
    keep_out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="evaluation questions to leave out; repeatable"),
    ] = None,
    max_per_question: Annotated[int | None, typer.Option(help="maximum rows per question")] = None,
    max_per_agent: Annotated[int | None, typer.Option(help="maximum rows per author")] = None,
    rows: Annotated[int | None, typer.Option(help="maximum rows in total")] = None,
    mix: Annotated[
        str | None,
        typer.Option(help="ratio of the format's kinds of rows, such as 5:1:1, or all"),
    ] = None,
    mix_runs: Annotated[
        str | None, typer.Option(help="ratio of rows from each run, such as 2:1")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="sampling seed; default: that of the first run")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="training program: trl, llama-factory, axolotl, verl")
    ] = None,
    files: Annotated[str | None, typer.Option(help="file type: jsonl, parquet")] = None,
    strict_ratings: Annotated[
        bool, typer.Option("--strict-ratings", help="leave out ratings that were read leniently")
    ] = False,
    shortened: Annotated[
        bool, typer.Option("--shortened", help="include truncated texts kept to a whole sentence")
    ] = False,
    raters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITIONS",
            help="only ratings by raters for whom this holds, such as 'age<30,gender=Female'; "
            "repeatable",
        ),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="equally many rows by raters of each: age, gender, ..."),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="license identifier for the dataset card")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a training dataset from runs."""
    if not format:
        raise InputError(f"--format: found none; expected one or more of {FORMATS}")
    if out is None and not explain:
        raise InputError("--out: found none; expected a folder, or --explain to write nothing")
    if overwrite and out is None:
        raise InputError("--overwrite: found no --out; expected the folder to replace")
    from sandbox import api
    from sandbox.datasets.choices import parse_shares, parse_weights
    from sandbox.terminal.datasets import export_view
    from sandbox.text import printable

    notes: list[str] = []
    choices = {
        "ratings": ratings,
        "scale": scale,
        "pick": pick,
        "min_rating": min_rating,
        "max_rating": max_rating,
        "min_margin": min_margin,
        "tokenizer": tokenizer,
        "max_tokens": max_tokens,
        "near_duplicates": near_duplicates,
        "near_questions": near_questions,
        "splits": parse_shares("--splits", splits),
        "keep_out": _questions(keep_out, notes),
        "max_per_question": max_per_question,
        "max_per_agent": max_per_agent,
        "rows": rows,
        "mix": parse_weights("--mix", mix),
        "mix_runs": parse_weights("--mix-runs", mix_runs),
        "seed": seed,
        "target": target,
        "files": files,
        "strict_ratings": strict_ratings or None,
        "shortened": shortened or None,
        "raters": raters or None,
        "balance": balance,
        "license": license,
    }
    report = api.export(
        runs, format, out and out.expanduser(), overwrite=overwrite, choices=choices
    )
    for note in notes:
        print(printable(f"kept out: {note}"), file=sys.stderr)
    show(as_json, report.as_dict(), lambda: export_view(report.as_dict(), explain))


def _questions(paths: list[Path] | None, notes: list[str]) -> list[str] | None:
    if not paths:
        return None
    from sandbox.sources import read_questions

    try:
        return [question.text for path in paths for question in read_questions(path, notes=notes)]
    except InputError as error:
        raise InputError(f"keep_out: {str(error).removeprefix('questions: ')}") from None
