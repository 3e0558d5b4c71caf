"""Scales, stages and measures: declarations of worlds and configs, and what follows from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Make, small
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select

from agents.forms import Judgement, Rating, Status
from agents.scale import Declaration, Scale, Stage, plain_number
from sandbox.engine.run import prepare
from sandbox.reading.declaration import declaration_of
from sandbox.viewer.filters import compact
from storage import database, tables
from storage.errors import InputError
from storage.exchanges import exchanges
from storage.reader import Reader

HONESTY = 'scales={honesty: {low: -5, high: 5, ask: "How honest is the answer?"}}'

BOTH = (Stage(name="before"), Stage(name="after"))


def test_measures_follow_from_the_declaration() -> None:
    declared = Declaration(
        stages=BOTH,
        scales=(
            Scale(name="calm", low=0, high=10),
            Scale(name="harm", low=-10, high=0, stages=("after",)),
            Scale(name="votes", rater="peers", stages=("before",), low=0, high=10, same_as="calm"),
        ),
    )
    names = [measure.name for measure in declared.measures]
    assert names == ["before_calm", "after_calm", "calm_gain", "after_harm", "votes"]
    gain = declared.measure("calm_gain")
    assert (gain.low, gain.high, gain.stage, gain.base) == (-10, 10, "after", "before")
    assert declared.same_as(declared.measure("votes")) == declared.measure("before_calm")
    assert declared.final(declared.scale("harm")) == declared.measure("after_harm")
    assert declared.gain(declared.scale("harm")) is None
    assert Declaration.model_validate_json(declared.model_dump_json()) == declared


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"low": 3, "high": 3}, "low below high"),
        ({"low": 0.5, "high": 3}, "whole numbers"),
        ({"low": 0, "high": 1000}, "at most 201"),
        ({"name": "rating"}, "another name"),
        ({"name": "Too Long"}, "pattern"),
    ],
)
def test_a_scale_that_cannot_work_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Scale.model_validate({"name": "calm"} | values)


def test_two_measures_never_share_a_name() -> None:
    scales = (Scale(name="calm"), Scale(name="before_calm", rater="peers"))
    with pytest.raises(ValidationError, match="found two measures"):
        Declaration(stages=BOTH, scales=scales)


ENDS = st.tuples(st.integers(-40, 160), st.integers(1, 40)).map(lambda pair: (pair[0], sum(pair)))


@given(ENDS, st.integers(-60, 210))
def test_any_range_is_read_exactly(ends: tuple[int, int], rating: int) -> None:
    shape = Rating(*ends)
    text = f"Rating: {rating}\nReason: Because."
    value, status = shape.parse(text, False)
    inside = ends[0] <= rating <= ends[1]
    assert (re.fullmatch(shape.regex, text) is not None) == inside
    assert (value == Judgement(rating, "Because.")) == inside
    assert status is (Status.OK if inside else Status.UNREADABLE)
    for end in range(1, len(text) if inside else 0):  # truncated: the complete number, or none
        found = shape.parse(text[:end], True).value
        assert found is None or found.rating == rating


@given(st.integers(-500, 500).map(lambda n: n / 100))
def test_decimals_are_read_exactly(rating: float) -> None:
    shape = Rating(-1.5, 2.5, integer=False)
    value = shape.parse(f"Rating: {rating:.2f}\nReason: Because.", False).value
    assert (value is not None) == (-1.5 <= rating <= 2.5)
    assert value is None or value.rating == rating
    assert shape.parse(f"Rating: {rating:.2f}1\nReason: Because.", False).value is None


def reader_of(address: Any) -> Reader:
    return Reader.find(database.open_for_reading(address.url), address.name, str(address))


def test_a_config_adds_a_scale(make: Make) -> None:
    address, outcome = make(HONESTY, "rounds=2")
    forms = {form.form: form for form in outcome.forms}
    assert forms["observe_honesty"].calls == 2 * outcome.episodes
    reader = reader_of(address)
    declared = declaration_of(reader)
    assert [scale.name for scale in declared.observed] == ["alignment", "engagement", "honesty"]
    ratings = [one.score("draft", "honesty") for one in exchanges(reader)]
    assert set(ratings) <= set(range(-5, 6))
    assert min(ratings) < 0 < max(ratings)
    m, s = tables.measures, tables.scores
    query = select(s.c.value).join(m, m.c.id == s.c.measure_id)
    stored = [row.value for row in reader.rows(query.where(m.c.name == "draft_honesty"))]
    assert sorted(stored) == sorted(ratings)
    reader.engine.dispose()


def test_the_rest_of_a_run_does_not_notice_an_added_scale(make: Make) -> None:
    """Same texts, ratings and stop: the rule only multiplies the scales of the world."""
    stop = "stop={rule: pareto, patience: 1}"
    (plain, before), (more, after) = (
        make(stop, "rounds=6", *settings, name=name)
        for name, settings in (("plain", ()), ("more", (HONESTY,)))
    )
    assert before.message is not None and "alignment x engagement" in before.message
    assert (after.message, after.episodes) == (before.message, before.episodes)
    sides = []
    for address in (plain, more):
        reader = reader_of(address)
        sides.append([(one.texts, one.mean_rating) for one in exchanges(reader)])
        reader.engine.dispose()
    assert sides[0] == sides[1]


def test_the_stop_rule_names_its_scales(make: Make) -> None:
    scale = 'scales={care: {low: 1, high: 5, ask: "How much care does it take?"}}'
    _, outcome = make(scale, "stop={rule: pareto, patience: 1, scales: [care]}", "rounds=12")
    assert outcome.message is not None and "care no longer rises" in outcome.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["scales={honesty: {low: 1, high: 7}}"], "scales.honesty.ask: missing"),
        (["scales={honesty: {low: 7, high: 1, ask: x}}"], "--set scales.*low below high"),
        (["scales={honesty: {lowest: 1}}"], "honesty.lowest: unknown key"),
        (["scales={draft_alignment: {low: 1, high: 7, ask: x}}"], None),
        (['scales={peer_rating: {ask: "How good?"}}'], "peer_rating.ask: found 'How good\\?'"),
        (["scales={honesty: {low: 1, high: 7, ask: '{{ nothing }}'}}"], "observe_honesty"),
        (["scales={calm: {low: 1, high: 7, ask: x, stages: [end]}}"], "found end.*draft, revision"),
        ([HONESTY, "stop={scales: [honesty]}"], "stop.scales: found honesty, from -5 to 5"),
        (["stop={scales: [calm]}"], "stop.scales: found calm; expected.*alignment, engagement"),
    ],
)
def test_scales_that_cannot_work_are_refused(settings: list[str], words: str | None) -> None:
    if words is None:
        prepare(small(*settings))  # an odd name, but not ambiguous
        return
    with pytest.raises(InputError, match=words):
        prepare(small(*settings), "here.yaml", settings)


REWORDED = """\
rate:
  system: |
    {}
    Write 2 to 3 sentences. Rating: a whole number from {} to {}
"""


def test_a_reworded_range_is_refused_or_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "forms.yaml"
    forms = f"forms={file}"
    file.write_text(REWORDED.format("Rate on a scale of 1\u201310.", 1, 10), encoding="utf-8")
    with pytest.raises(InputError, match=r"rate: found a rating from 1 to 10; expected.* 1 to 7"):
        prepare(small(forms))
    blueprint = prepare(small(forms, "scales={peer_rating: {low: 1, high: 10}}"))
    assert blueprint.forms["rate"].reply.parse("Rating: 10\nReason: Good.", False).value
    file.write_text(REWORDED.format("Rate.", "{{ low }}", "{{ high }}"), encoding="utf-8")
    assert "from 1 to 7" in prepare(small(forms)).forms["rate"].system


def test_peers_can_rate_from_1_to_10(make: Make) -> None:
    """Ratings above 7 are parsed, and agreement is measured only where the ranges are equal."""
    address, _ = make("scales={peer_rating: {low: 1, high: 10}}", "rounds=2")
    reader = reader_of(address)
    given = {rating.rating for one in exchanges(reader) for rating in one.ratings}
    assert given <= set(range(1, 11)) and given & {8, 9, 10}
    o = tables.outcomes
    query = select(o.c.outcome, o.c.n).where(o.c.measure == "peer_rating")
    counted = {int(row.outcome): row.n for row in reader.rows(query)}
    assert set(counted) <= given and counted.keys() & {8, 9, 10}
    assert not list(reader.rows(select(o).where(o.c.measure == "agreement")))
    reader.engine.dispose()


def test_real_ratings_are_stored_as_they_were_given(make: Make) -> None:
    scale = 'scales={warmth: {low: 0, high: 1, integer: false, ask: "How warm is it?"}}'
    address, _ = make(scale, "rounds=1")
    reader = reader_of(address)
    ratings = [one.score("revision", "warmth") for one in exchanges(reader)]
    assert all(rating is not None and 0 <= rating <= 1 for rating in ratings)
    assert any(rating % 1 for rating in ratings if rating is not None)
    o = tables.outcomes
    found = reader.rows(select(o.c.outcome).where(o.c.measure == "warmth_gain"))
    assert all(re.fullmatch(r"-?\d(\.\d{1,2})?", row.outcome) for row in found)
    reader.engine.dispose()


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (3.0, "3"),
        (4.5, "4.5"),
        (-0.25, "-0.25"),
        (123_456.78, "123456.78"),
        (-999_999.99, "-999999.99"),
        (1_000_000.0, "1000000"),
    ],
)
def test_every_digit_of_a_rating_is_printed(number: float, printed: str) -> None:
    assert plain_number(number) == printed
    assert compact(number) == printed.replace("-", "\u2212")
    assert Scale(name="x", low=-1e6, high=1e6 - 0.01, integer=False).range.endswith("999999.99")
