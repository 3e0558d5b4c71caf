"""The list of runs: sorting, filtering, grouping, and what a row says."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from stored import Run, make
from viewing import Site, Tags, serving

from sandbox.engine.run import resume
from sandbox.reading.metrics import Spread, difference_of, means_by_round, outcomes
from sandbox.reading.run_groups import common_name
from sandbox.reading.statistics import welch
from sandbox.study.fork import fork
from sandbox.viewer import catalog as catalogs
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.run_list import RunReader
from storage.database import parse_run
from storage.errors import InputError

SMALL = ("world.size=3", "rounds=2", "question_count=6", "memory.prior_pairs=12")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("list")
    runs = [
        make(folder / f"wide-seed{seed}.db", *SMALL, f"seed={seed}", name=f"wide-seed{seed}")
        for seed in (7, 8)
    ]
    rough = "models.social.misbehave=0.3", "world.raters=1"
    runs.append(make(folder / "rough.db", *SMALL, *rough, name="rough"))
    beside = fork(
        parse_run(f"{runs[0].path}#wide-seed7"),
        0,
        ["world.score_only=true"],
        name="other",
        db=str(folder / "other.db"),
    )
    assert resume(beside).status == "done"
    return [*runs, Run(folder / "other.db", "other")]


@pytest.fixture(scope="module")
def site(stored: list[Run]) -> Iterator[Site]:
    with serving(*stored) as started:
        yield started


def names(page: str) -> list[str]:
    """The runs that are listed, in order."""
    return re.findall(r'data-row href="/r/([^"]+)"', page)


def test_a_click_on_a_header_sorts(site: Site, stored: list[Run]) -> None:
    created = {run.name: run.sql("SELECT created FROM runs")[0][0] for run in stored}
    listed = [created[name] for name in names(site.page("/"))]
    assert listed == sorted(created.values(), reverse=True), "newest first"
    page = site.page("/", sort="run")
    assert names(page) == ["other", "rough", "wide-seed7", "wide-seed8"]
    assert 'aria-sort="ascending"><a href="?sort=-run">Run</a>' in page
    assert names(site.page("/", sort="-run")) == names(page)[::-1]
    failed = {run.name: run.sql("SELECT count(*) FROM calls WHERE status = 'failed'")[0][0]
              for run in stored}  # fmt: skip
    assert names(site.page("/", sort="-failed"))[0] == max(failed, key=lambda name: failed[name])
    answer = site.ask("/?sort=nothing")
    assert answer.status == 400 and "expected run, -run" in answer.text


def test_the_filter_looks_through_names_and_config_keys(site: Site) -> None:
    assert names(site.page("/", filter="WIDE seed8")) == ["wide-seed8"]
    assert names(site.page("/", filter="raters=1")) == ["rough"]
    assert names(site.page("/", filter="score_only=true scripted")) == ["other"]
    page = site.page("/", filter="nobody<b>", sort="run", group="config")
    assert "No run matches" in page and "nobody&lt;b&gt;" in page
    assert 'href="?sort=run&amp;group=config">Clear' in page


def test_runs_are_grouped_by_config_and_fold(site: Site) -> None:
    page = site.page("/", group="config", sort="run")
    shown = Tags(page).shown
    assert "2 runs, seeds 7, 8" in shown and "mean over seeds" in shown
    assert "/compare?run=wide-seed7&amp;run=wide-seed8" in page
    (fold,) = re.findall(r'href="([^"]*fold=[^"]*)" aria-expanded="true">▾ wide</a>', page)
    folded = site.page("/" + fold.replace("&amp;", "&"))
    assert names(folded) == ["other", "rough"] and "▸ wide" in folded
    assert len(re.findall(r'aria-expanded="true"', folded)) == 2


def test_a_row_says_where_a_run_comes_from_and_what_failed(site: Site, stored: list[Run]) -> None:
    page = site.page("/")
    assert "forked from wide-seed7 after round 0" in Tags(page).shown
    counted = "SELECT count(*), sum(status = 'failed') FROM calls"
    total, failed = stored[2].sql(counted)[0]
    link = f'<a class="bad" href="/r/rough/calls?status=failed">{failed}</a>'
    assert link in page and f"of {total:,}" in Tags(page).shown
    assert len(re.findall("<progress", page)) == 0, "all runs are finished"
    (created,) = stored[0].sql("SELECT created FROM runs")[0]
    assert f'<time datetime="{created}" title="{created}">' in page
    curves = re.findall(r'<polyline points="([^"]+)"', page)
    assert len(curves) == 4 and all(len(points.split()) == 2 for points in curves)


def test_a_change_is_coloured_only_where_its_interval_excludes_zero(
    site: Site, stored: list[Run]
) -> None:
    page = site.page("/", sort="run")
    found = []
    for run in sorted(stored, key=lambda run: run.name):
        values = [
            [row[0] for row in run.sql(
                "SELECT rating FROM observations o JOIN episodes e ON e.id = o.episode_id WHERE "
                "o.stage = 'revision' AND o.scale = 'alignment' AND o.rating IS NOT NULL "
                f"AND e.round = {round}")]
            for round in (0, 1)
        ]  # fmt: skip
        counts = outcomes(run.reader)
        spreads = [Spread.of(counts[round]["revision_alignment"]) for round in (0, 1)]
        interval = difference_of(*spreads)
        assert interval.difference == pytest.approx(fmean(values[1]) - fmean(values[0]))
        by_hand = welch(*(np.array(some, dtype=float) for some in values))
        assert [interval.low, interval.high] == pytest.approx([by_hand.low, by_hand.high])
        found.append(interval.excludes_zero)
        ends = f"{fmean(values[0]):.2f} → to {fmean(values[1]):.2f} alignment"
        assert ends in " ".join(Tags(page).shown.split())
        trend = list(means_by_round(run.reader, "revision_alignment").values())
        assert trend == pytest.approx([fmean(some) for some in values])
    coloured = [bool(kind.strip()) for kind in re.findall(r'<span class="gain([^"]*)"', page)]
    assert coloured == found


def test_names_have_a_common_beginning() -> None:
    assert common_name(["a-seed7"]) == "a-seed7"
    assert common_name(["wide-seed7", "wide-seed8"]) == "wide"
    assert common_name(["seed7", "seed8"]) == "seed7"
    assert common_name(["one", "two"]) == "one"


def test_a_run_that_cannot_be_read_is_listed_last(stored: list[Run], tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(stored[0].path.read_bytes())
    with closing(sqlite3.connect(broken)) as connection, connection:
        connection.execute("UPDATE runs SET declaration = '{'")
    with serving(f"{broken}#wide-seed7", stored[1]) as site:
        page = site.page("/", sort="run", group="config")
        assert names(page) == ["wide-seed8"] and "unreadable" in page


def test_a_finished_run_is_read_again_only_if_its_file_changes(
    stored: list[Run], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(stored[0].path.read_bytes())
    catalog = RunCatalog([str(copy)])
    reader = RunReader(catalog)
    (first,), (second,) = reader.listed(), reader.listed()
    assert first is second
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE runs SET seconds = 12345")
    (third,) = reader.listed()
    assert third.here is not None and third.here.seconds == 12345
    catalog.close()


def test_a_folder_stands_for_the_runs_below_it(stored: list[Run], tmp_path: Path) -> None:
    for run, folder in zip(stored[:2], ("a", "b"), strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "society.db").write_bytes(run.path.read_bytes())
    with serving(tmp_path) as site:
        assert sorted(names(site.page("/"))) == ["wide-seed7", "wide-seed8"]
        page = site.page("/compare?run=wide-seed7&run=wide-seed8")
        assert "wide (2 seeds)" in page and "seeds&#39; means" in page
        spread = site.ask("/compare/figures/spread.csv?run=wide-seed7&run=wide-seed8").rows
        assert {row["group"] for row in spread} == {"wide (2 seeds)"} and len(spread) > 6


def test_files_below_a_folder_that_cannot_be_read_are_listed(
    stored: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "LOOK_AGAIN", 0.0)
    data = stored[0].path.read_bytes()
    (tmp_path / "good.db").write_bytes(data)
    (tmp_path / "damaged.db").write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    (tmp_path / "text.db").write_text("no database")
    for name, change in (
        ("newer", "UPDATE sandbox_schema SET version = 999"),
        ("undeclared", "UPDATE runs SET declaration = '{'"),
        ("foreign", "CREATE TABLE other (name TEXT)"),
    ):
        (tmp_path / f"{name}.db").write_bytes(b"" if name == "foreign" else data)
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection, connection:
            connection.execute(change)
    with serving(tmp_path) as site:
        page = site.page("/", sort="run")
        assert names(page) == ["wide-seed7"]
        for name in ("damaged", "text", "foreign"):
            assert f">{name}</th>" in page, name
        assert page.count('class="status unreadable"') == 5
        (tmp_path / "later.db").write_bytes(stored[1].path.read_bytes())
        assert sorted(names(site.page("/"))) == ["wide-seed7", "wide-seed8"]
        for file in tmp_path.glob("*.db"):
            file.unlink()
        assert names(site.page("/")) == []


@pytest.mark.parametrize("given", ["text", "foreign", "gone"])
def test_one_file_that_cannot_be_read_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "text.db").write_text("no database")
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection, connection:
        connection.execute("CREATE TABLE other (name TEXT)")
    with pytest.raises(InputError):
        RunCatalog([str(tmp_path / f"{given}.db")])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="folder without runs"):
        RunCatalog([str(tmp_path / "none")])
