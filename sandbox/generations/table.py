"""The table of a study: one row a generation, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sandbox.generations.results import START, Study, control_name, trained_name
from sandbox.text import duration

HEADS = (
    "generation",
    "rows",
    "observer",
    "score",
    "lost",
    "against the start",
    "against the one before",
    "against its control",
)

SOCIETY = ("generation", "run", "episodes", "failed", "measures", "time")


def rows(study: Study) -> Iterator[tuple[str, ...]]:
    """The rows below `HEADS`: each model as each observer scores it on each scale.

    Differences are means over questions with their 95 % intervals, clustered by question.
    """
    scales = list(dict.fromkeys((row["observer"], row["scale"]) for row in _scores(study)))
    models: list[tuple[str, str, str | None, str | None]] = [(START, "", None, None)]
    for each in study.generations:
        name, before = trained_name(each.number), trained_name(each.number - 1)
        control = control_name(each.number) if each.control_rows is not None else None
        models.append((name, f"{each.rows:,}", before if each.number > 1 else None, control))
        if control is not None:
            models.append((control, f"{each.control_rows:,}", None, None))
    for observer, scale in scales:
        for name, count, earlier, beside in models:
            score = next(
                row
                for row in _scores(study)
                if (row["observer"], row["scale"], row["model"]) == (observer, scale, name)
            )
            yield (
                name,
                count,
                f"{observer}, {scale}",
                _number(score["mean"]),
                str(_lost(study, name)),
                *(
                    _difference(study, observer, scale, name, other)
                    for other in (None if name == START else START, earlier, beside)
                ),
            )


def _scores(study: Study) -> Sequence[Mapping[str, Any]]:
    return study.evaluation["scores"]  # type: ignore[no-any-return]


def _lost(study: Study, name: str) -> int:
    return next(int(row["lost"]) for row in study.evaluation["models"] if row["name"] == name)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _difference(study: Study, observer: str, scale: str, model: str, against: str | None) -> str:
    """A difference with its interval, whichever of the two models it is told from."""
    if against is None:
        return ""
    for row in study.evaluation["differences"]:
        if (row["observer"], row["scale"]) != (observer, scale):
            continue
        names, found = (row["model"], row["against"]), row["paired"]
        sign = {(model, against): 1, (against, model): -1}.get(names)
        if sign is None or found["low"] is None:
            continue
        ends = sorted((sign * found["low"], sign * found["high"]))
        return f"{sign * found['difference']:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})"
    return "-"


def society_rows(study: Study) -> Iterator[tuple[str, ...]]:
    """The rows below `SOCIETY`: what happened in the society of each generation."""
    for each in study.generations:
        measures = ", ".join(
            f"{name} {value:.2f}" for name, value in each.measures.items() if value is not None
        )
        time = duration(sum(each.seconds.values()))
        yield (
            str(each.number),
            each.run,
            f"{each.episodes:,}",
            f"{each.episodes_failed:,}",
            measures,
            time,
        )


def markdown(study: Study) -> str:
    """The README of a study's folder."""
    lines = [
        f"# {study.name}: {len(study.generations)} generations",
        "",
        "Each generation plays a society with the latest model, exports what it says, trains the "
        "model on it, and evaluates it on held-out questions. A control is trained in as many "
        "steps on as many answers of the same society, whatever their rating. Differences are "
        "paired by question, with 95 % intervals clustered by question.",
        "",
        *_table(HEADS, rows(study)),
        "",
        "## Societies",
        "",
        *_table(SOCIETY, society_rows(study)),
        "",
        *(f"- {note}" for note in study.evaluation["notes"]),
        "",
        "Details of the evaluation: [evaluation/README.md](evaluation/README.md).",
    ]
    return "\n".join(lines)


def _table(heads: Sequence[str], body: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in body)
