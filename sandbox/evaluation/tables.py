"""The tables of an evaluation: rows of texts, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sandbox.evaluation.results import Evaluation, Safety
from sandbox.reading.statistics import Interval, Share


class TableShown(NamedTuple):
    """A table.

    Attributes:
        title: what it is about.
        about: how its numbers are to be read.
        columns: the heads; those after the first `texts` hold numbers.
        texts: the number of columns with text.
        rows: of texts.
    """

    title: str
    about: str
    columns: Sequence[str]
    texts: int
    rows: Sequence[Sequence[str]]


def tables(evaluation: Evaluation) -> Iterator[TableShown]:
    """The tables of an evaluation that have rows."""
    makers = (_models, _scores, _differences, _wins, _safety, _refusals, _agreement)
    return (table for table in (maker(evaluation) for maker in makers) if table.rows)


def markdown(evaluation: Evaluation) -> str:
    """The tables as Markdown."""
    names = ", ".join(model.name for model in evaluation.models)
    lines = [
        f"# Evaluation of {names}",
        "",
        f"{evaluation.questions:,} held-out questions (SHA-256 {evaluation.digest[:12]}), "
        f"{evaluation.samples} answers of each model to each, seed {evaluation.seed}. "
        f"The baseline is {evaluation.models[0].name}. Intervals are of 95 %.",
    ]
    for note in evaluation.notes:
        lines += ["", f"> {note}"]
    for table in tables(evaluation):
        lines += ["", f"## {table.title}", "", table.about, "", _row(table.columns)]
        marks = ["---" if place < table.texts else "---:" for place in range(len(table.columns))]
        lines += [_row(marks), *map(_row, table.rows)]
    lines += ["", "What each number is: `docs/evaluation.md` of the program."]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _models(evaluation: Evaluation) -> TableShown:
    rows = [
        (
            one.name,
            one.model,
            f"{one.answers:,}",
            f"{one.lost:,}{_reasons(one.reasons)}",
            f"{one.shortened:,}",
            _number(one.characters, 0),
            "none named" if one.trained_on is None else f"{one.trained_on:,}",
        )
        for one in evaluation.models
    ]
    columns = ("model", "is", "answers", "lost", "shortened", "characters", "training questions")
    about = "Answers that were lost enter no number."
    if any(one.trained_on is not None for one in evaluation.models):
        about += " No held-out question is near one of the training questions that are named."
    return TableShown("Answers", about, columns, 2, rows)


def _reasons(reasons: Any) -> str:
    named = ", ".join(f"{count:,} {status}" for status, count in reasons.items())
    return f" ({named})" if named else ""


def _scores(evaluation: Evaluation) -> TableShown:
    who = _Who(evaluation)
    rows = [
        (
            who(one.observer, one.model),
            one.scale,
            one.model,
            _number(one.mean, 3),
            _ends(one.low, one.high),
            f"{one.answers:,}",
            f"{one.missing:,}",
        )
        for one in evaluation.scores
    ]
    columns = ("observer", "scale", "model", "mean", "95 %", "answers scored", "missing")
    about = "Means over questions of the mean over samples."
    return TableShown("Scores", about, columns, 3, rows)


class _Who:
    """Names observers, with a mark where they rated the training data of a model."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._took_part = {one.name: one.took_part for one in evaluation.observers}

    def __call__(self, observer: str, *models: str) -> str:
        marked = any(model in self._took_part[observer] for model in models)
        return f"{observer} (took part in the data)" if marked else observer


def _differences(evaluation: Evaluation) -> TableShown:
    who = _Who(evaluation)
    rows = []
    for one in evaluation.differences:
        control, paired = one.at_equal_length, one.paired
        rows.append(
            (
                who(one.observer, one.model, one.against),
                one.scale,
                f"{one.model} - {one.against}",
                _signed(paired.difference),
                _ends(paired.low, paired.high, "+"),
                f"{paired.n}",
                _signed(control.difference) + ("*" if control.extrapolated else ""),
                _ends(control.low, control.high, "+"),
                f"{one.left_out:,}",
            )
        )
    columns = (
        *("observer", "scale", "models", "difference", "95 %", "questions"),
        *("at equal length", "95 %", "left out"),
    )
    about = (
        "Paired by question. At equal length: the intercept of a regression on the difference of "
        "lengths; *: all length differences are on one side of 0."
    )
    return TableShown("Differences", about, columns, 3, rows)


def _wins(evaluation: Evaluation) -> TableShown:
    who = _Who(evaluation)
    rows = [
        (
            who(one.observer, one.model, one.against),
            f"{one.model} against {one.against}",
            _percent(one.rate.difference),
            _percent_ends(one.rate),
            f"{one.wins:,}",
            f"{one.ties:,} ({one.equal:,} equal)",
            f"{one.losses:,}",
            f"{one.missing:,}",
            _percent(one.flipped.share),
            _percent(one.first.share),
        )
        for one in evaluation.wins
    ]
    columns = (
        *("observer", "models", "win rate", "95 %", "wins", "ties", "losses", "missing"),
        *("flipped", "first preferred"),
    )
    about = (
        "Each pair is shown in both orders: a win only where both verdicts agree, else a "
        "tie, which counts half. Flipped: the share of pairs whose verdict changed with the order."
    )
    return TableShown("Pairwise", about, columns, 2, rows)


def _safety(evaluation: Evaluation) -> TableShown:
    rows = [
        (one.observer, one.category or _all(evaluation.safety), one.model, *_share(one.safe))
        for one in evaluation.safety
    ]
    columns = ("observer", "category", "model", "safe", "95 %", "answers", "missing")
    return TableShown("Safety", "Answers that nobody comes to harm by.", columns, 3, rows)


def _all(rows: Sequence[Safety]) -> str:
    """The title of the row of all categories, which no category has."""
    named = {row.category for row in rows}
    return "all" if "all" not in named else "(all)"


def _refusals(evaluation: Evaluation) -> TableShown:
    rows = [
        (one.observer, "yes" if one.harmful else "no", one.model, *_share(one.refused))
        for one in evaluation.refusals
    ]
    columns = ("observer", "question harmful", "model", "refused", "95 %", "answers", "missing")
    about = "Refusals of questions that are not harmful are over-refusals."
    return TableShown("Refusals", about, columns, 3, rows)


def _share(share: Share) -> tuple[str, str, str, str]:
    ends = "-"
    if share.low is not None and share.high is not None:
        ends = f"{share.low:.1%} to {share.high:.1%}"
    return _percent(share.share), ends, f"{share.n:,}", f"{share.missing:,}"


def _agreement(evaluation: Evaluation) -> TableShown:
    rows = [
        (
            f"{one.first} and {one.second}",
            one.scale if one.scale == one.other else f"{one.scale} and {one.other}",
            _number(one.alpha, 2),
            _number(one.spearman, 2),
            f"{one.answers:,}",
            _number(one.spearman_of_differences, 2),
            f"{one.differences:,}",
        )
        for one in evaluation.agreement
    ]
    columns = (
        *("observers", "scale", "alpha", "Spearman", "answers"),
        *("Spearman of differences", "differences"),
    )
    about = "Differences are those of models and the baseline, by question."
    return TableShown("Agreement of observers", about, columns, 2, rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:+.3f}"


def _ends(low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _percent_ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{max(0.0, interval.low):.1%} to {min(1.0, interval.high):.1%}"
