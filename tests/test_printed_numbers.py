"""Every number that a picture of a run prints is one of its CSV file, correctly rounded."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from personal_runs import make_personal
from stored import Run
from stored import make as make_run
from talk import make_talk
from test_charts import drawn_labels

from sandbox.config import load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.charts import ratings as charts_of_ratings
from sandbox.reading.figures import Figure, figures
from sandbox.study.fork import fork
from sandbox.viewer.downloads import lines
from storage.database import parse_run

NUMBER = re.compile(r"[\u2212+]?\d{1,3}(,\d{3})*(\.\d+)?%?")
SHORT = {"world.size": 4, "memory.prior_pairs": 20}
EXACT = {"agreement": "drafts", "matrix": "mean"}
"""The column that a figure prints in every cell."""


def _grid(folder: Path) -> Run:
    return make_run(folder / "run.db", *(f"{key}={value}" for key, value in SHORT.items()))


def _recurring(folder: Path) -> Run:
    given = ("world.size=4", "rounds=4", "question_count=4", "memory.prior_pairs=20")
    return make_run(folder / "run.db", *given, "models.social.misbehave=0.2", "attempts=1")


def _fork(folder: Path) -> Run:
    run = _grid(folder)
    place = parse_run(f"{run.path}#{run.name}")
    beside = fork(place, 0, ["world.score_only=true"], name="fork", db=str(folder / "fork.db"))
    assert resume(beside).status == "done"
    return Run(folder / "fork.db", "fork")


def _scene(folder: Path) -> Run:
    config = load_config(ROOT / "worlds" / "presets" / "scene.yaml",
                         ["world.scenes=12", "name=scene"])  # fmt: skip
    assert resume(create(prepare(config), str(folder / "scene.db"))).status == "done"
    return Run(folder / "scene.db", "scene")


KINDS: dict[str, Callable[[Path], Run]] = {
    "grid": _grid,
    "recurring": _recurring,
    "fork": _fork,
    "scene": _scene,
    "talk": make_talk,
    "personal": lambda folder: make_personal(folder, rounds=2),
}


def cells(figure: Figure) -> Iterator[dict[str, str]]:
    """The rows of the figure's CSV file."""
    text = "".join(lines(figure.rows, "csv", figure.columns))
    yield from csv.DictReader(io.StringIO(text, newline=""))


def roundings(value: str, label: str) -> set[Decimal]:
    """A cell rounded to the digits of a label; a value in the middle may go either way."""
    exact = Decimal(value) * (100 if label.endswith("%") else 1)
    digits = len(label.rstrip("%").partition(".")[2])
    return {exact.quantize(Decimal(1).scaleb(-digits), way)
            for way in (ROUND_HALF_UP, ROUND_HALF_DOWN)}  # fmt: skip


def printed(label: str) -> Decimal:
    return Decimal(label.rstrip("%").replace(",", "").replace("\u2212", "-"))


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell) is not None


def check(figure: Figure) -> None:
    """Compare the labels of the figure's picture with its CSV file."""
    drawn, rows = figure.svg(), list(cells(figure))
    numbers = [cell for row in rows for cell in row.values() if is_number(cell)]
    texts = {cell for row in rows for cell in row.values() if cell}
    marks = [text for group in drawn_labels(drawn, "role-mark") for text, *_ in group]
    for label in marks:
        if label in texts:
            continue
        said = [found[0] for found in NUMBER.finditer(label)]
        assert said and re.fullmatch(r"( to )?(, )?(n )?", NUMBER.sub("", label)), label
        for one in said:
            assert any(printed(one) in roundings(cell, one) for cell in numbers), label
    if figure.name in EXACT:
        marks = [label for label in marks if NUMBER.fullmatch(label)]
        values = [row[EXACT[figure.name]] for row in rows]
        assert len(marks) == len(values)
        for label, value in zip(sorted(marks, key=printed), sorted(values, key=Decimal),
                                strict=True):  # fmt: skip
            assert printed(label) in roundings(value, label), (label, value)
    for role in ("role-axis-label", "role-legend-label"):
        for group in drawn_labels(drawn, role):
            for label, *_ in group:
                assert not re.fullmatch(r"[\u2212+]?[\d.,]+[kMGTm\u00b5n]", label), label


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = KINDS[request.param](tmp_path_factory.mktemp("run"))
    found = figures(run.reader)
    assert found
    return found


def test_every_printed_number_is_in_the_data(made: dict[str, Figure]) -> None:
    for figure in made.values():
        check(figure)


def larger(figure: Figure, factor: int) -> Figure:
    """The figure of a run with more exchanges, so that its counts have four digits."""
    rows = [
        {key: value * factor if key in ("count", "drafts", "n") else value
         for key, value in row.items()}
        for row in figure.rows
    ]  # fmt: skip
    return figure._replace(rows=rows)


def test_counts_above_a_thousand_are_printed_in_full(made: dict[str, Figure]) -> None:
    for figure in made.values():
        check(larger(figure, 1_237))


def test_a_wrong_format_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = larger(figures(_grid(tmp_path).reader)["agreement"], 137)
    check(figure)
    right = charts_of_ratings._text
    monkeypatch.setattr(charts_of_ratings, "_text", lambda field, form: right(field, ".2~s"))
    with pytest.raises(AssertionError):
        check(figure)
    monkeypatch.undo()
    wrong = [{**row, "drafts": row["drafts"] + 1} for row in figure.rows]
    drawn = figure._replace(rows=wrong).spec
    with pytest.raises(AssertionError):
        check(figure._replace(draw=lambda rows: drawn))
