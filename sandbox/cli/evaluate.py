"""The verb `evaluate`: models answer held-out questions, observers score the answers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, show

if TYPE_CHECKING:
    from sandbox.evaluation.results import Evaluation
    from sandbox.evaluation.settings import EvaluationSettings


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="NAME=SPEC or SPEC; SPEC: scripted, a folder with a model or an adapter, or a "
            ".yaml file with a section models; the first one is the baseline",
        ),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="held-out questions")
    ] = None,
    observer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OBSERVER", help="who scores: as a MODEL, or reward:FOLDER; repeatable"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="the folder of the evaluation")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="answers to each question; default: 2")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="default: 7")] = None,
    pairwise: Annotated[
        bool | None,
        typer.Option("--pairwise/--no-pairwise", help="compare answers in pairs; default: yes"),
    ] = None,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="an export that models were trained on; repeatable"),
    ] = None,
    truncated: Annotated[
        str | None, typer.Option(metavar="HOW", help="missing (default) or sentence")
    ] = None,
    forms: Annotated[
        Path | None, typer.Option(metavar="FILE", help="other wordings of prompt templates")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a YAML file with the same settings")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="set a key of every model; repeatable"),
    ] = None,
    set_observer: Annotated[
        list[str] | None,
        typer.Option(metavar="A.B=VALUE", help="set a key of every observer; repeatable"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare models on held-out questions: answers, scores by observers, differences."""
    from sandbox.evaluation.settings import read_settings
    from storage.errors import InputError

    settings = read_settings(
        config,
        models or (),
        observer or (),
        set_ or (),
        set_observer or (),
        questions=None if questions is None else str(questions),
        samples=samples,
        seed=seed,
        pairwise=pairwise,
        truncated=truncated,
        trained_on=[str(folder) for folder in trained_on or ()] or None,
        forms=None if forms is None else str(forms),
    )
    if out is None:
        raise InputError("--out: missing; expected the folder of the evaluation")
    _play(settings, out, as_json)


def _play(settings: EvaluationSettings, out: Path, as_json: bool) -> None:
    """Evaluate with a live display, print the tables, and set the exit status."""
    from sandbox import api
    from sandbox.evaluation.logs import FOLDER, has_inspect
    from sandbox.terminal.evaluation import Displays, evaluation_view
    from sandbox.text import command

    try:
        with Displays() as displays:
            evaluation = api.evaluate(settings, out, watch=displays.watch)
    except (KeyboardInterrupt, api.Unfinished) as stopped:
        outcome = None if isinstance(stopped, KeyboardInterrupt) else stopped.outcome
        interrupted = outcome is None or outcome.status == "interrupted"
        why = "interrupted" if interrupted or outcome is None else f"failed: {outcome.message}"
        again = command(*map(shlex.quote, sys.argv[1:]))
        print(f"{why}; the same command goes on: {again}", file=sys.stderr)
        raise typer.Exit(130 if interrupted else 1) from None
    show(as_json, evaluation.as_dict(), lambda: evaluation_view(evaluation))
    logs = f"logs/ (`inspect view --log-dir {shlex.quote(str(out / FOLDER))}`)"
    written = ["README.md", "evaluation.json", "evaluation.db", *([logs] if has_inspect() else [])]
    print(f"{out}: {', '.join(written)}", file=sys.stderr)
    _fail_without_answers(evaluation)


def _fail_without_answers(evaluation: Evaluation) -> None:
    """Set the exit status where a model gave no answer at all."""
    silent = [model.name for model in evaluation.models if not model.answers]
    if silent:
        print(f"{', '.join(silent)}: no answer at all", file=sys.stderr)
        raise typer.Exit(1)
