"""Datasets of runs with other scales and stages than those of the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stored import GENERAL, SPOILT, Run, aligned, lines, make, removals

from sandbox.config import load_config
from sandbox.datasets import FORMATS, export
from sandbox.engine.run import create, prepare, resume
from storage.errors import InputError

SMALL = ("rounds=2", "world.size=4")
HONESTY = "scales={honesty: {low: -5, high: 5, ask: 'How honest is it? {low} to {high}.'}}"
SHARE = "scales={share: {low: 0, high: 1, integer: false, ask: 'Which share of it is true?'}}"
HARM = "scales={harm: {low: 1, high: 7, better: low, ask: 'How much harm does it do?'}}"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a third scale, from -5 to 5, and some unreadable ratings."""
    return make(tmp_path_factory.mktemp("honest") / "run.db", *SMALL, *SPOILT, HONESTY)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a scale from 0 to 1 with decimals."""
    return make(tmp_path_factory.mktemp("shared") / "run.db", *SMALL, SHARE, name="shared")


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a scale from 1 to 7 where low is better."""
    return make(tmp_path_factory.mktemp("harmful") / "run.db", *SMALL, HARM)


def given(run: Run, scale: str) -> dict[tuple[int, str], float | None]:
    """The observer's ratings on a scale, by episode and stage, from plain SQL."""
    rows = run.sql("SELECT episode_id, stage, rating FROM observations WHERE scale = ?", scale)
    return {(row["episode_id"], row["stage"]): row["rating"] for row in rows}


def loaded(out: Path, format: str, tmp_path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(out), format, cache_dir=str(tmp_path / "cache"))["train"]


def test_a_third_scale_has_columns_and_a_line_in_the_card(honest: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export([honest.reader], ["exchanges", "raters"], out)
    ratings = given(honest, "honesty")
    assert {rating for rating in ratings.values() if rating is not None} <= set(range(-5, 6))
    assert min(rating for rating in ratings.values() if rating is not None) < 0
    for row in lines(out, "exchanges.jsonl"):
        for stage, suffix in (("draft", "before"), ("revision", "after")):
            assert row[f"honesty_{suffix}"] == ratings.get((row["episode"], stage))
            assert (row[f"honesty_{suffix}_status"] is None) == (row[stage] is None)
    card = (out / "README.md").read_text()
    assert (
        "| `honesty` | -5 to 5 | higher | observer | draft, revision | How honest is it? " in card
    )
    assert "`honesty_before`, `honesty_after`" in card
    assert "| revisions against drafts, honesty |" in card
    read = loaded(out, "exchanges", tmp_path)
    assert read.features["honesty_before"].dtype == "int64"
    assert {row["scale"] for row in lines(out, "raters.jsonl")} == {
        "alignment",
        "engagement",
        "honesty",
    }


def test_a_download_has_the_columns_of_the_format(honest: Run, tmp_path: Path) -> None:
    from sandbox.viewer import downloads

    export([honest.reader], ["exchanges"], tmp_path / "out")
    (first, *_) = lines(tmp_path / "out", "exchanges.jsonl")
    assert downloads.DOWNLOADS["exchanges"].columns(honest.reader) == tuple(first)


def test_the_scale_that_counts_sets_thresholds_by_its_range(honest: Run, tmp_path: Path) -> None:
    ratings = given(honest, "honesty")
    out = tmp_path / "out"
    chosen = {"scale": "honesty", "near_duplicates": 1}
    report = export([honest.reader], ["sft", "preference", "kto"], out, **chosen)
    best: dict[int, float] = {}
    for (episode, _), rating in ratings.items():
        if rating is not None:
            best[episode] = max(rating, best.get(episode, rating))
    rows = lines(out, "sft.jsonl")
    assert {row["episode"]: row["rating"] for row in rows} == {
        episode: rating for episode, rating in best.items() if rating >= 1.67
    }
    for row in lines(out, "preference.jsonl"):
        pair = (row["chosen_stage"], row["rejected_stage"])
        better, worse = (ratings[row["chosen_episode"], stage] for stage in pair)
        assert better is not None and worse is not None
        assert row["margin"] == better - worse >= 1.67
    assert {row["label"] for row in lines(out, "kto.jsonl")} == {True, False}
    for row in lines(out, "kto.jsonl"):
        assert row["rating"] >= 1.67 if row["label"] else row["rating"] <= -1.67
    assert report.results[0].as_dict()["rating"] == {
        "scale": "honesty",
        "low": -5,
        "high": 5,
        "better": "high",
        "min_rating": 1.67,
    }
    card = (out / "README.md").read_text()
    assert "`min_rating` 1.67" in card and "honesty, -5 to 5 (higher is better)" in card
    assert "`min_rating` -5; `min_margin` 1.67" in card
    for bad in ({"min_rating": 6}, {"min_margin": 11}):
        name, value = next(iter(bad.items()))
        with pytest.raises(InputError, match=f"{name}: found {value}; expected a number, "):
            export([honest.reader], ["preference"], None, scale="honesty", **bad)
    known = "expected one of alignment, engagement, honesty"
    with pytest.raises(InputError, match=f"scale: found 'peer_rating'; {known}"):
        export([honest.reader], ["sft"], None, scale="peer_rating")


def test_a_scale_with_decimals_has_float_columns(shared: Run, tmp_path: Path) -> None:
    ratings = given(shared, "share")
    out = tmp_path / "out"
    formats = [name for name in GENERAL if name != "stable-alignment"]
    chosen = {"scale": "share", "files": "parquet"}
    report = export([shared.reader], formats, out, **chosen)
    table = pq.read_table(out / "exchanges.parquet")
    assert str(table.schema.field("share_after").type) == "double"
    assert str(table.schema.field("alignment_after").type) == "int64"
    rows = table.to_pylist()
    assert [row["share_after"] for row in rows] == [
        ratings[row["episode"], "revision"] for row in rows
    ]
    assert any(row["share_after"] % 1 for row in rows)
    assert report.results[0].settings.min_rating == 0.67
    kept = pq.read_table(out / "sft.parquet").to_pylist()
    assert kept and all(0.67 <= row["rating"] <= 1 for row in kept)
    assert str(pq.read_schema(out / "raters.parquet").field("rating").type) == "double"
    for format in formats:
        read = loaded(out, format, tmp_path)
        assert len(read) == report.files[f"{FORMATS[format].stem}.parquet"]
    export([shared.reader], ["exchanges"], tmp_path / "lines")
    read = loaded(tmp_path / "lines", "exchanges", tmp_path)
    assert read["share_after"][:] == [row["share_after"] for row in rows]
    for name in ("ratings", "margins", "lengths", "agreement"):
        assert (out / "figures" / f"{name}.svg").exists()


def test_where_low_is_better_the_lower_rated_answer_is_chosen(harmful: Run, tmp_path: Path) -> None:
    ratings = given(harmful, "harm")
    out = tmp_path / "out"
    chosen: dict[str, Any] = {"scale": "harm", "near_duplicates": 1}
    report = export([harmful.reader], ["sft", "preference", "kto", "rated"], out, **chosen)
    best = {
        episode: min(ratings[episode, "draft"] or 9, ratings[episode, "revision"] or 9)
        for episode, _ in ratings
    }
    assert {row["episode"]: row["rating"] for row in lines(out, "sft.jsonl")} == {
        episode: rating for episode, rating in best.items() if rating <= 3
    }
    pairs = lines(out, "preference.jsonl")
    assert pairs
    for row in pairs:
        assert row["chosen_rating"] == best[row["chosen_episode"]] < row["rejected_rating"]
        assert row["margin"] == row["rejected_rating"] - row["chosen_rating"] >= 1
    labels = {(row["rating"] <= 3, row["label"]) for row in lines(out, "kto.jsonl")}
    assert labels == {(True, True), (False, False)}
    assert all(row["rating"] >= 5 for row in lines(out, "kto.jsonl") if not row["label"])
    rates = [row["ratings"] for row in lines(out, "rated.jsonl")]
    assert report.results[3].figures["rating"].tolist() == [min(of) for of in rates]
    assert any(rule.startswith("answer: rated above 3") for rule in report.results[0].removed)
    with pytest.raises(InputError, match="max_rating: found 2 for kto; expected more than min_rat"):
        export([harmful.reader], ["kto"], None, scale="harm", max_rating=2)
    (line,) = [
        line
        for line in (out / "README.md").read_text().splitlines()
        if line.startswith("| revisions against drafts, harm |")
    ]
    both = [
        (ratings[episode, "draft"], ratings[episode, "revision"])
        for episode in {episode for episode, _ in ratings}
    ]
    read = [(a, b) for a, b in both if a is not None and b is not None]
    assert f"better {sum(b < a for a, b in read) / len(read):.0%}," in line


def test_the_papers_format_maps_scores_to_its_range(
    harmful: Run, honest: Run, tmp_path: Path
) -> None:
    for run, scale, mapped in (
        (harmful, "harm", lambda rating: 8 - rating),
        (honest, "honesty", lambda rating: round(4 + rating * 0.6, 4)),
    ):
        ratings = given(run, scale)
        found = aligned(run, tmp_path / scale, mix=(), scale=scale)
        seen = 0
        for row, origins in found.of("imitation"):
            for score, origin in zip(row["scores"], origins, strict=True):
                assert score == mapped(ratings[origin["episode"], origin["stage"]])
                seen += 1
        revised = found.of("realignment")
        for row, (origin,) in revised:
            before, after = (ratings[origin["episode"], s] for s in ("draft", "revision"))
            assert row["scores"] == [mapped(after)] and mapped(after) > mapped(before)
            assert row["scores"][0] > 4
        assert seen > 20 and revised
    assert "realignment: harm did not fall" in removals(
        aligned(harmful, tmp_path / "again", mix=(), scale="harm").report
    )


def test_peers_on_a_longer_scale_keep_their_ratings(tmp_path: Path) -> None:
    run = make(tmp_path / "run.db", *SMALL, "scales={peer_rating: {low: 1, high: 10}}")
    run.sql("UPDATE ratings SET rating = 8 + rater % 3")
    out = tmp_path / "out"
    report = export([run.reader], ["exchanges", "raters", "sft"], out, overwrite=True)
    rows = lines(out, "exchanges.jsonl")
    ratings = {one["rating"] for row in rows for one in row["ratings"]}
    assert ratings == {8, 9, 10}
    peers = [row["rating"] for row in lines(out, "raters.jsonl") if row["kind"] == "peer"]
    assert set(peers) == {8, 9, 10}
    assert any(10 in row["draft_ratings"] for row in lines(out, "sft.jsonl"))
    assert "alpha of peers, peer_rating" in report.measures
    means = [row["mean_rating"] for row in rows]
    kept = export([run.reader], ["sft"], None, ratings="peers", near_duplicates=1)
    assert kept.results[0].settings.min_rating == 7
    assert kept.files == {"sft.jsonl": len(means)}
    few = export([run.reader], ["sft"], None, ratings="peers", near_duplicates=1, min_rating=9.5)
    assert few.files == {"sft.jsonl": sum(mean >= 9.5 for mean in means)}


def test_runs_with_other_scales_share_their_columns(
    honest: Run, shared: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = export([honest.reader, shared.reader], ["exchanges", "sft"], out, scale="honesty")
    rows = lines(out, "exchanges.jsonl")
    by_run = {name: [row for row in rows if row["run"] == name] for name in ("small", "shared")}
    assert all(row["share_after"] is None for row in by_run["small"])
    assert all(row["honesty_after"] is None for row in by_run["shared"])
    assert any(row["honesty_after"] is not None for row in by_run["small"])
    assert any(row["share_after"] is not None for row in by_run["shared"])
    assert set(loaded(out, "exchanges", tmp_path).column_names) == set(rows[0])
    assert {row["run"] for row in lines(out, "sft.jsonl")} == {"small"}
    assert report.notes == (
        "the run shared has no scale honesty: its answers have no rating on it",
    )


def test_one_name_with_two_ranges_is_refused_where_ratings_count(
    honest: Run, tmp_path: Path
) -> None:
    other = make(
        tmp_path / "other.db", *SMALL, "scales={alignment: {low: 1, high: 10}}", name="other"
    )
    problem = (
        "format sft: found two ranges: alignment is whole numbers from 1 to 7, higher "
        "is better in run small and whole numbers from 1 to 10, higher is better in run other"
    )
    with pytest.raises(InputError, match=problem):
        export([honest.reader, other.reader], ["sft"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = export([honest.reader, other.reader], ["exchanges"], tmp_path / "out")
    assert report.files == {"exchanges.jsonl": 64}
    assert not any("alignment" in name for name in report.measures)


TALK = """
from pydantic import Field

from agents.agent import Agent
from agents.forms import Form, FreeText
from agents.scale import Scale, Stage
from worlds import base

SAY = Form(
    name="say",
    system="You talk with somebody.",
    user="{{ me }} <question>{{ question }}</question> Your line:",
    reply=FreeText(),
    example={"me": "You are somebody.", "question": "A question?"},
)


class Settings(base.Settings):
    agents: int = Field(default=4, ge=2)
    hosted: bool = True


class World(base.World):
    settings_type = Settings
    stages = (Stage(name="dialogue", answer=False),)
    scales = (
        Scale(name="warmth", low=-5, high=5, subject="pair", ask="How do they get on?"),
        Scale(name="openness", low=0, high=10, subject="agent", ask="How open are they?"),
        Scale(name="interest", ask="How interesting is it?"),
    )
    prompts = (SAY,)
    unit = "conversation"
    observed = "<question>{{ question }}</question>\\n{{ talk }}\\n\\n"
    example = {"question": "A question?", "talk": "Ana: Hello."}

    def populate(self, personas):
        return [
            Agent(n, "neutral", one, float(n), 0.0)
            for n, one in enumerate(personas[: self.settings.agents])
        ]

    def inherit(self, agent, pairs, count):
        return pairs[:count]

    def meet(self, agents, round):
        total = len(agents)
        if not self.settings.hosted:
            return [base.Meeting(None, (n, (n + 1) % total), n) for n in range(total)]
        return [base.Meeting(n, ((n + 1) % total,), round * total + n) for n in range(total)]

    async def play(self, episode):
        hosted = self.settings.hosted
        people = (episode.author, *episode.peers) if hosted else tuple(episode.peers)
        said = [await episode.ask(one, SAY, question=episode.question) for one in people]
        shown = {"question": episode.question, "talk": "\\n".join(said)}
        episode.record("dialogue", shown["talk"])
        if hosted:
            episode.remember(shown["talk"])
        episode.observe("dialogue", **shown)
        episode.observe("dialogue", agent=people[0], other=people[1], **shown)
        for one in people:
            episode.observe("dialogue", agent=one, **shown)
"""


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents talk: the only stage answers no question; the pair and each alone are rated."""
    folder = tmp_path_factory.mktemp("talk")
    (folder / "talk.py").write_text(TALK)
    (folder / "talk.yaml").write_text(
        "name: talk\nquestions: questions.txt\nrounds: 2\nworld: {kind: ./talk.py}\n"
        "memory: {prior_pairs: 0}\n"
        "models:\n  social: {backend: scripted}\n  observer: {backend: scripted}\n"
    )
    (folder / "questions.txt").write_text("".join(f"Who are you, and why {n}?\n" for n in range(8)))
    return play(folder / "talk.yaml", folder / "run.db")


def play(config: Path, db: Path, *settings: str) -> Run:
    prepared = prepare(load_config(config, settings))
    address = create(prepared, str(db))
    assert resume(address, allow=[config.parent / "talk.py"]).status == "done"
    return Run(db, "talk")


@pytest.mark.parametrize("files", ["jsonl", "parquet"])
def test_a_world_without_answers_has_exchanges(talk: Run, tmp_path: Path, files: str) -> None:
    out = tmp_path / "out"
    report = export([talk.reader], ["exchanges"], out, files=files)
    assert report.files == {f"exchanges.{files}": 8}
    rows = [dict(row) for row in loaded(out, "exchanges", tmp_path)]
    stored = talk.sql("SELECT * FROM observations ORDER BY episode_id")
    for row in rows:
        own = [one for one in stored if one["episode_id"] == row["episode"]]
        for scale in ("warmth", "openness"):
            ratings = [one["rating"] for one in own if one["scale"] == scale]
            assert row[f"{scale}_dialogue"] == pytest.approx(sum(ratings) / len(ratings))
            assert f"{scale}_dialogue_reason" not in row
        (interest,) = [one for one in own if one["scale"] == "interest"]
        assert row["interest_dialogue"] == interest["rating"]
        assert row["interest_dialogue_status"] == "ok"
        seen = {(one["scale"], one["agent"], one["other"]) for one in row["observations"]}
        agents = (row["author"], (row["author"] + 1) % 4)
        assert seen == {("warmth", *agents), *(("openness", agent, None) for agent in agents)}
        assert row["dialogue"] and "draft" not in row and "ratings" not in row
    card = (out / "README.md").read_text()
    assert "| `warmth` | -5 to 5 | higher | observer | pairs in dialogue |" in card
    assert "No agent rated" in card


def test_an_exchange_without_an_author_names_the_model_that_spoke(
    talk: Run, tmp_path: Path
) -> None:
    config = talk.path.parent / "talk.yaml"
    run = play(config, tmp_path / "run.db", "world.hosted=false", "rounds=1")
    export([run.reader], ["exchanges"], tmp_path / "out")
    rows = lines(tmp_path / "out", "exchanges.jsonl")
    assert {(row["author"], row["label"], row["model"]) for row in rows} == {
        (None, None, "scripted")
    }


@pytest.mark.parametrize("format", [name for name in GENERAL if name != "exchanges"])
def test_a_world_without_answers_fits_no_other_format(
    talk: Run, tmp_path: Path, format: str
) -> None:
    number = "2 stages that answer" if format in TWO else "a stage that answers"
    problem = (
        rf"format: {format} does not fit run talk \(world .*talk.py\): it needs {number} the "
        "question; its stages are dialogue, its answers none; expected one of exchanges$"
    )
    with pytest.raises(InputError, match=problem):
        export([talk.reader], [format], tmp_path / "out")
    assert not (tmp_path / "out").exists()


TWO = ("preference", "stable-alignment")


def test_one_answer_is_enough_for_pairs_across_exchanges(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql(
        "UPDATE runs SET declaration = json_set(declaration, '$.stages[0].answer', json('false'))"
    )
    with pytest.raises(InputError, match="it needs 2 stages that answer the question, or --pick q"):
        export([run.reader], ["preference"], None)
    export([run.reader], ["preference", "sft"], tmp_path / "out", pick="question")
    rows = lines(tmp_path / "out", "preference.jsonl")
    assert rows and {row["chosen_stage"] for row in rows} == {"revision"}
    assert {row["stage"] for row in lines(tmp_path / "out", "sft.jsonl")} == {"revision"}


def test_the_default_scale_is_the_first_that_rates_answers(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    run.sql("UPDATE runs SET declaration = json_set(declaration, '$.scales[0].subject', 'agent')")
    export([run.reader], ["sft"], tmp_path / "out", near_duplicates=1)
    ratings = given(run, "engagement")
    rows = lines(tmp_path / "out", "sft.jsonl")
    assert rows and all(row["rating"] == ratings[row["episode"], row["stage"]] for row in rows)
    with pytest.raises(InputError, match=r"scale: found 'alignment'; expected one of engagement$"):
        export([run.reader], ["sft"], None, scale="alignment")
