"""Runs whose ratings are not in the form asked: counted, listed, left out by choice, repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import scripted_backends, small
from stored import Run, lines
from test_cli import sim, sim_json

from agents.forms import Rating
from sandbox.backends.base import Call, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.config import Config
from sandbox.datasets import export
from sandbox.engine.run import create, prepare, resume
from sandbox.wording import other_range
from storage.errors import InputError
from storage.exchanges import Exchange


class Bold(ScriptedBackend):
    """Writes two thirds of its ratings in Markdown."""

    async def answer(self, call: Call) -> Reply:
        reply = await super().answer(call)
        if not isinstance(call.shape, Rating) or call.seed % 3 == 0:
            return reply
        return reply._replace(text=f"**{reply.text}".replace("\n", "**\n\n"))


def play(path: Path, config: Config, kind: type[ScriptedBackend]) -> str | None:
    """Play a run with backends of this class; returns its digest."""
    backends = scripted_backends(config, kind)
    outcome = resume(create(prepare(config), str(path), backends), backends=backends)
    assert outcome.status == "done"
    return outcome.digest


@pytest.fixture(scope="module")
def bold(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bold")
    (folder / "runs").mkdir()
    play(folder / "runs" / "bold.db", small("name=bold"), Bold)
    return Run(folder / "runs" / "bold.db", "bold")


def test_a_run_with_lenient_replies_is_repeatable(bold: Run, tmp_path: Path) -> None:
    again = play(tmp_path / "again.db", small("name=bold"), Bold)
    assert again == bold.reader.run.digest
    play(tmp_path / "plain.db", small("name=bold"), ScriptedBackend)
    query = "SELECT rating, count(*) FROM ratings GROUP BY rating ORDER BY rating"
    found = [tuple(row) for row in bold.sql(query)]
    assert found == [tuple(row) for row in Run(tmp_path / "plain.db", "bold").sql(query)]


def test_lenient_replies_are_counted_and_listed(bold: Run) -> None:
    folder = bold.path.parent.parent
    ((count,),) = bold.sql("SELECT count(*) FROM calls WHERE status = 'lenient'")
    assert count > 20
    assert f"{count:,} read leniently" in " ".join(sim(folder, "status", "bold").stdout.split())
    listed = ("inspect", "bold", "calls", "--status", "lenient", "--limit", "1000")
    assert {call["status"] for call in sim_json(folder, *listed)["calls"]} == {"lenient"}
    assert len(sim_json(folder, *listed)["calls"]) == count
    unknown = sim(folder, "inspect", "bold", "calls", "--status", "odd", status=2).stderr
    assert "odd" in unknown and "lenient" in unknown


def test_strict_ratings_leave_out_what_was_read_leniently(bold: Run, tmp_path: Path) -> None:
    for strict, name in ((None, "all"), (True, "strict")):
        export([bold.reader], ["exchanges"], tmp_path / name, strict_ratings=strict)
    given = [
        rating for row in lines(tmp_path / "all", "exchanges.jsonl") for rating in row["ratings"]
    ]
    kept = [
        rating for row in lines(tmp_path / "strict", "exchanges.jsonl") for rating in row["ratings"]
    ]
    assert any(rating["status"] == "lenient" for rating in given)
    assert all(rating["rating"] is not None for rating in given)
    for one, other in zip(given, kept, strict=True):
        wanted = one["rating"] if one["status"] == "ok" else None
        assert (other["rating"], other["status"]) == (wanted, one["status"])


def test_the_card_of_strict_ratings_measures_what_is_left(bold: Run, tmp_path: Path) -> None:
    reports = {
        strict: export([bold.reader], ["exchanges"], tmp_path / str(strict), strict_ratings=strict)
        for strict in (None, True)
    }
    lenient = sum(given.status == "lenient" for one in bold.all() for given in one.ratings)
    assert lenient
    for strict, report in reports.items():
        left = [
            one
            for one in bold.all()
            if None not in (scores := _alignment(one, bool(strict))) and len(scores) == 2
        ]
        change = report.measures["revisions against drafts, alignment"]
        assert change.values["n"] == len(left)
        text = (tmp_path / str(strict) / "README.md").read_text()
        assert ("left out of all measures and figures" in text) == bool(strict)
        mark = ", and left out" if strict else ""
        assert f"| ratings of peers that were read leniently{mark} | {lenient:,} |" in text
        assert "that are lenient" not in text
    assert len({report.measures["revisions against drafts, alignment"].text
                for report in reports.values()}) == 2  # fmt: skip


def _alignment(one: Exchange, strict: bool) -> list[float | None]:
    return [
        None if strict and seen.status == "lenient" else seen.rating
        for seen in one.observations
        if seen.scale == "alignment"
    ]


@pytest.mark.parametrize(
    ("wording", "found"),
    [
        ("Rating: a whole number from 1 to 10", "from 1 to 10"),
        ("Give a rating between 0 (bad) and 7 (good).", "from 0 to 7"),
        ("Rate the answer from one to ten.", "from one to ten"),
        ("Rate it out of 5.", "out of 5"),
        ("Rate it on a scale of 10.", "scale of 10"),
        ("Use a five-point scale.", "five-point scale"),
        ("Bewertung: eine Zahl von 1 bis 10", "from 1 to 10"),
        ("Note de 1 \u00e0 5", "from 1 to 5"),
        ("\u8a55\u4fa1\u306f\uff11\u304b\u3089\uff15\u3067", "from 1 to 5"),
        ("Write Rating: N/10", "Rating: N/10"),
        ("Rating: a whole number from 1 to 7", None),
        ("Rate it from 1 (bad) to 7 (good), in 2 to 3 sentences.", None),
    ],
)
def test_a_wording_of_another_range_is_found(wording: str, found: str | None) -> None:
    assert other_range(wording, 1, 7) == found


def test_a_config_with_a_wording_of_another_range_is_refused(tmp_path: Path) -> None:
    forms = tmp_path / "forms.yaml"
    forms.write_text(
        "rate:\n  user: |\n    <draft>{{ draft }}</draft>\n    Rate it from 1 to 10.\n"
    )
    with pytest.raises(
        InputError, match=r"found a rating from 1 to 10; expected the scale's 1 to 7"
    ):
        prepare(small(f"forms={forms}"))
