"""The format stable-alignment: the structure of the paper, with verbatim texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from stored import Run, aligned, lines, make, removals, stored

from sandbox.datasets import export
from sandbox.datasets.format import TOO_LONG
from sandbox.datasets.formats.stable_alignment import COMMENT, REVISE, spread, template
from sandbox.datasets.near_duplicates import NEAR
from sandbox.datasets.sampling import PER_QUESTION
from storage.errors import InputError

QUERY = "Question: {question}\n\nAnswer: {draft}"


def test_self_critic_credits_feedback_to_its_rater(messy: Run, tmp_path: Path) -> None:
    found = aligned(messy, tmp_path / "out", mix=())
    seen = set()
    for row, origins in found.of("self_critic"):
        for text, score, origin in zip(row["responses"], row["scores"], origins, strict=True):
            one = stored(messy, origin["episode"])
            (given,) = (given for given in one["ratings"] if given["rater"] == origin["rater"])
            assert row["query"] == template(COMMENT, QUERY.format_map(one))
            assert (text, score) == (given["reason"], given["rating"])
            seen.add((origin["episode"], origin["rater"]))
    ((usable,),) = messy.sql(
        "SELECT count(*) FROM ratings WHERE rating IS NOT NULL AND reason_id IS NOT NULL"
    )
    repeated = removals(found.report).get(f"self_critic: {NEAR}", 0)
    assert len(seen) == usable - repeated > 100
    queries = [row["query"] for row in found.array]
    assert len(set(queries)) == len(queries)
    assert found.report.results[0].kept["self_critic"] == len(found.of("self_critic"))


def test_comments_on_one_answer_are_rated_responses_to_one_query(tidy: Run, tmp_path: Path) -> None:
    """A hand-made exchange: four peers rate an answer, so that the loss has pairs."""
    run = tidy.copy(tmp_path)
    episode = run.all()[0].episode
    raters = [row[0] for row in run.sql("SELECT rater FROM ratings WHERE episode_id = ? "
                                        "ORDER BY rater", episode)]  # fmt: skip
    comments = ["Too harsh.", "It is kind and it helps.", "It helps.", "Somebody may be hurt."]
    for number, (rater, comment, rating) in enumerate(
        zip(raters, comments, (2, 7, 5, 2), strict=True)
    ):
        run.sql("INSERT INTO texts (id, text) VALUES (?, ?)", 10**6 + number, comment)
        run.sql("UPDATE ratings SET rating = ?, reason_id = ? WHERE episode_id = ? AND rater = ?",
                rating, 10**6 + number, episode, rater)  # fmt: skip
    found = aligned(run, tmp_path / "out", mix=())
    row, origins = next(
        one for one in found.of("self_critic") if "Too harsh." in one[0]["responses"]
    )
    at = row["responses"].index("Too harsh.")
    assert row["responses"][at : at + 4] == comments
    assert row["scores"][at : at + 4] == [2, 7, 5, 2]
    assert [origin["rater"] for origin in origins[at : at + 4]] == raters


def test_imitation_holds_every_scored_text_once(messy: Run, tidy: Run, tmp_path: Path) -> None:
    for run in (messy, tidy):
        export_of = aligned(run, tmp_path / run.path.parent.name, mix=())
        expected: dict[str, dict[str, int]] = {}
        for row in (stored(run, one.episode) for one in run.all()):
            for text, when in ((row["draft"], "before"), (row["revision"], "after")):
                if text is not None and row[f"alignment_{when}"] is not None:
                    query = f"### Instruction:\n{row['question']}\n\n### Response:"
                    expected.setdefault(query, {}).setdefault(text, row[f"alignment_{when}"])
        found = {
            row["query"]: dict(zip(row["responses"], row["scores"], strict=True))
            for row, _ in export_of.of("imitation")
        }
        assert found == expected
    assert len(found) == 10 and max(map(len, found.values())) >= 12  # a question, many responses


def test_realignment_is_where_alignment_rose_above_4(messy: Run, tmp_path: Path) -> None:
    found = {
        origin["episode"]: (row["query"], [text], [score], origin["raters"])
        for row, origins in aligned(messy, tmp_path / "out", mix=()).of("realignment")
        for text, score, origin in zip(row["responses"], row["scores"], origins, strict=True)
    }
    expected = {}
    for row in (stored(messy, number) for number in range(150)):
        before, after = row["alignment_before"], row["alignment_after"]
        reasons = [given for given in row["ratings"] if given["rating"] and given["reason"]]
        if before is None or after is None or not before < after > 4 or not reasons:
            continue
        reasons.sort(key=lambda given: (-given["rating"], given["rater"]))
        told = "\n".join(f"- {given['reason']}" for given in reasons)
        text = f"{told}\n\nRevised answer: {row['revision']}"
        query = template(REVISE, QUERY.format_map(row))
        raters = [given["rater"] for given in reasons]
        expected[row["episode"]] = query, [text], [after], raters
    assert found == expected and len(found) > 10


def test_rows_are_well_formed_and_traceable(messy: Run, tmp_path: Path) -> None:
    report, array, lineage = aligned(messy, tmp_path / "out", mix=())
    everyone, digest = messy.all(), messy.reader.run.digest
    for row, line in zip(array, lineage, strict=True):
        assert list(row) == ["query", "responses", "scores", "models"]
        sizes = {len(row[key]) for key in ("responses", "scores", "models")}
        assert sizes == {len(line["responses"])}
        assert all(type(score) is int and 1 <= score <= 7 for score in row["scores"])
        assert all(text and isinstance(text, str) for text in row["responses"])
        assert set(row["models"]) == {"scripted"} and "None" not in row["query"]
        for text, origin in zip(row["responses"], line["responses"], strict=True):
            one = everyone[origin["episode"]]
            assert (origin["run"], origin["digest"]) == ("small", digest)
            assert origin["author"] == one.author
            if line["kind"] == "imitation":
                assert text == one.texts[origin["stage"]]
    assert report.files == {"stable_alignment.json": len(array)}
    assert (
        report.results[0].kept
        == report.results[0].written
        == Counter(line["kind"] for line in lineage)
    )


def test_every_candidate_is_written_or_removed_by_a_rule(messy: Run, tmp_path: Path) -> None:
    report, _, lineage = aligned(messy, tmp_path / "out", mix=())
    counts = Counter(line["kind"] for line in lineage for _ in line["responses"])
    for rule, count in removals(report).items():
        counts[rule.partition(":")[0]] += count
    ((ratings,),) = messy.sql("SELECT count(*) FROM ratings")
    assert counts == {"imitation": 300, "self_critic": ratings, "realignment": 150}
    ((unread,),) = messy.sql("SELECT count(*) FROM ratings WHERE rating IS NULL")
    assert removals(report)["self_critic: no readable rating"] == unread > 0


@pytest.mark.parametrize("mix", [(5, 1, 1), (10, 2, 2), (1, 2, 3), (1, 0, 0), (0, 1, 1)])
def test_the_mix_is_exact_and_the_largest(messy: Run, tmp_path: Path, mix: Any) -> None:
    report, _, lineage = aligned(messy, tmp_path / "out", mix=mix)
    kinds = Counter(line["kind"] for line in lineage)
    lowest = (5, 1, 1) if mix == (10, 2, 2) else mix
    written, found = (
        [kinds[kind] for kind in report.results[0].kept],
        list(report.results[0].kept.values()),
    )
    times = min(there // weight for there, weight in zip(found, lowest, strict=True) if weight)
    assert (
        written == list(report.results[0].written.values()) == [times * weight for weight in lowest]
    )
    assert times > 0
    general = ("the mix ", "most imitation rows ")
    notes = [note for note in report.results[0].notes if not note.startswith(general)]
    left_out = [note.partition(":")[0] for note in notes]
    assert left_out == [
        kind for kind, weight in zip(report.results[0].kept, mix, strict=True) if not weight
    ]


@pytest.mark.long
def test_the_draw_is_seeded(messy: Run, tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{}, {}, {"seed": 7}, {"seed": 8}, {"mix": ()}]
    drawn = [aligned(messy, tmp_path / str(n), **chosen) for n, chosen in enumerate(options)]
    for path in (tmp_path / "0").glob("*.json*"):
        for same in "12":  # the run's seed is 7
            assert path.read_bytes() == (tmp_path / same / path.name).read_bytes()
    assert drawn[0].array != drawn[3].array
    origins = [[json.dumps(line["responses"]) for line in one.lineage] for one in drawn]
    for one in (origins[0], origins[3]):
        assert len(set(one)) == len(one) and set(one) < set(origins[4])


@pytest.mark.long
def test_equal_responses_are_removed_within_a_query_only(tidy: Run, tmp_path: Path) -> None:
    run = tidy.copy(tmp_path)
    same = [one.episode for one in tidy.all() if one.question == tidy.all()[0].question]
    other = next(one.episode for one in tidy.all() if one.episode not in same)
    ids = ", ".join(map(str, (*same, other)))
    (row,) = run.sql(
        "SELECT text_id FROM stage_texts WHERE stage = 'revision' AND episode_id = ?", same[0]
    )
    run.sql(
        f"UPDATE stage_texts SET text_id = ? WHERE stage = 'draft' AND episode_id IN ({ids})", *row
    )
    found, first = aligned(run, tmp_path / "out", mix=()), run.all()[same[0]]
    kept = [
        (origin["episode"], origin["stage"], score)
        for row, origins in found.of("imitation")
        for text, score, origin in zip(row["responses"], row["scores"], origins, strict=True)
        if text == first.texts["draft"]
    ]
    assert [(episode, stage) for episode, stage, _ in kept] == [
        (same[0], "draft"),
        (other, "draft"),
    ]
    assert kept[0][2] == first.score("draft", "alignment")
    assert removals(found.report)[f"imitation: {NEAR}"] == len(same)


def test_a_kind_without_rows_is_told_and_left_out(tmp_path: Path) -> None:
    run = make(tmp_path / "run.db", "rounds=1", "world.raters=0")
    report = export([run.reader], ["stable-alignment"], tmp_path / "out")
    assert report.results[0].written == {"imitation": 10, "self_critic": 0, "realignment": 0}
    assert [note.partition(":")[0] for note in report.results[0].notes] == [
        "self_critic",
        "realignment",
    ]
    assert removals(report)["realignment: no comment"] > 0
    assert report.results[0].notes[0][1:] in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.long
def test_a_query_has_the_responses_of_all_agents_rounds_and_runs(tidy: Run, tmp_path: Path) -> None:
    """A second run asks the same ten questions: its answers are in the same rows."""
    other = make(tmp_path / "other.db", "rounds=1", "seed=11", name="other")
    report = export([tidy.reader, other.reader], ["stable-alignment"], tmp_path / "out", mix=())
    array = json.loads((tmp_path / "out" / "stable_alignment.json").read_bytes())
    lineage = lines(tmp_path / "out", "stable_alignment_lineage.jsonl")
    both = [pair for pair in zip(array, lineage, strict=True) if pair[1]["kind"] == "imitation"]
    assert len(both) == 10
    for row, line in both:
        origins = line["responses"]
        assert len(row["responses"]) == len(set(row["responses"])) == len(origins) >= 12
        assert {origin["run"] for origin in origins} == {"small", "other"}
        assert len({origin["author"] for origin in origins}) > 4
        assert {origin["round"] for origin in origins} == {0, 1, 2}
        for text, score, origin in zip(row["responses"], row["scores"], origins, strict=True):
            run = {"small": tidy, "other": other}[origin["run"]]
            one = run.all()[origin["episode"]]
            stage = origin["stage"]
            assert (text, score) == (one.texts[stage], one.score(stage, "alignment"))
    differ = report.measures["stable-alignment: rows whose ratings differ"]
    assert differ.values["imitation"] == 1 and differ.values["realignment"] == 0
    assert "responses of a row | mean " in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.long
def test_a_bound_keeps_the_spread_of_scores(tidy: Run, tmp_path: Path, limit: int) -> None:
    everything = aligned(tidy, tmp_path / "all", mix=())
    found = aligned(tidy, tmp_path / "out", mix=(), max_per_question=limit)
    again = aligned(tidy, tmp_path / "again", mix=(), max_per_question=limit)
    assert found.array == again.array and found.lineage == again.lineage
    removed = Counter[str]()
    pairs = zip(everything.array, everything.lineage, found.array, found.lineage, strict=True)
    for row, line, bounded, kept in pairs:
        assert row["query"] == bounded["query"]
        assert len(bounded["responses"]) == min(limit, len(row["responses"]))
        removed[line["kind"]] += len(row["responses"]) - len(bounded["responses"])
        assert max(bounded["scores"]) == max(row["scores"])
        if limit > 1:
            assert min(bounded["scores"]) == min(row["scores"])
        places = [row["responses"].index(text) for text in bounded["responses"]]
        assert places == sorted(places)
        for key in ("scores", "models"):
            assert bounded[key] == [row[key][place] for place in places]
        assert kept["responses"] == [line["responses"][place] for place in places]
    assert removed["imitation"] > 20
    told = removals(found.report)
    for kind, count in removed.items():
        assert told.get(f"{kind}: {PER_QUESTION}", 0) == count
    assert found.report.results[0].written == everything.report.results[0].written


def test_scores_are_taken_evenly() -> None:
    scores = [1, 7, 4, 2, 6, 3, 5]
    assert {scores[place] for place in spread(scores, 3, Random(0))} == {1, 4, 7}
    assert {scores[place] for place in spread(scores, 4, Random(0))} == {1, 3, 5, 7}
    assert spread(scores, 7, Random(0)) == spread(scores, 99, Random(0)) == set(range(7))
    assert [scores[place] for place in spread(scores, 1, Random(0))] == [7]
    assert spread([], 3, Random(0)) == set()
    equal = [spread([4] * 50, 5, Random(seed)) for seed in range(4)]
    assert {len(one) for one in equal} == {5} and len(set(map(frozenset, equal))) == 4


def test_a_long_response_is_left_out_and_its_query_stays(tidy: Run, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    everything = aligned(tidy, tmp_path / "all", mix=())

    def fits(query: str, response: str) -> bool:
        return len(query.split()) + len(response.split()) <= limit

    lengths = sorted(
        len(f"{row['query']} {text}".split())
        for row, _ in everything.of("imitation")
        for text in row["responses"]
    )
    limit = lengths[len(lengths) * 3 // 4]
    chosen: dict[str, Any] = {"tokenizer": str(tmp_path), "max_tokens": limit, "mix": ()}
    found = aligned(tidy, tmp_path / "out", **chosen)
    expected = {
        row["query"]: left
        for row in everything.array
        if (left := [text for text in row["responses"] if fits(row["query"], text)])
    }
    assert {row["query"]: row["responses"] for row in found.array} == expected
    assert len(found.of("imitation")) == 10
    gone = sum(len(row["responses"]) for row in everything.array) - sum(map(len, expected.values()))
    told = removals(found.report)
    assert sum(count for rule, count in told.items() if rule.endswith(TOO_LONG)) == gone > 0
    few = aligned(tidy, tmp_path / "few", **chosen, max_per_question=3)
    assert all(len(row["responses"]) <= 3 for row in few.array)
    assert all(fits(row["query"], text) for row in few.array for text in row["responses"])


def test_splits_share_no_question(tidy: Run, tmp_path: Path) -> None:
    options: dict[str, Any] = {"splits": {"train": 0.6, "test": 0.4}, "mix": ()}
    report = export([tidy.reader], ["stable-alignment"], tmp_path / "out", **options)
    episodes = tidy.all()
    asked = []
    for split in ("train", "test"):
        rows = json.loads((tmp_path / "out" / f"stable_alignment-{split}.json").read_bytes())
        origins = lines(tmp_path / "out", f"stable_alignment_lineage-{split}.jsonl")
        assert len(rows) == len(origins) == report.files[f"stable_alignment-{split}.json"] > 0
        asked.append({
            episodes[one["episode"]].question for line in origins for one in line["responses"]
        })  # fmt: skip
        assert all(
            episodes[one["episode"]].question in row["query"]
            for row, line in zip(rows, origins, strict=True)
            for one in line["responses"]
        )
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 10


def test_questions_that_were_asked_once_are_told(tidy: Run, messy: Run, tmp_path: Path) -> None:
    def told(run: Run) -> list[str]:
        (result,) = export([run.reader], ["stable-alignment"], None, mix=()).results
        return [note for note in result.notes if "were asked once" in note]

    once = make(tmp_path / "once.db", "rounds=2", "question_count=null", name="once")
    assert told(tidy) == [] and len(told(once)) == 1
    assert told(once)[0].startswith("most imitation rows hold 2 responses or fewer")


def test_pick_is_no_choice_for_rows_that_hold_all(tidy: Run) -> None:
    with pytest.raises(InputError, match="pick: not a choice of stable-alignment"):
        export([tidy.reader], ["stable-alignment"], None, pick="question")
    both = export([tidy.reader], ["sft", "stable-alignment"], None, pick="question")
    alone = export([tidy.reader], ["stable-alignment"], None)
    assert both.results[1].figures["size"].tolist() == alone.results[0].figures["size"].tolist()
