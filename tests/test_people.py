"""The people: their spread over groups and preferences, and which wishes a policy overrules."""

from __future__ import annotations

import re
from collections import Counter
from statistics import mean, pstdev
from typing import get_args

import pytest
from conftest import ROOT

from agents.preferences import GROUPS, Attribute, Survey, options_of
from sandbox.sources import read_personas

PEOPLE = read_personas(ROOT / "worlds" / "data" / "people.jsonl")

MEANS = {
    "values": 54.3,
    "creativity": 69.6,
    "fluency": 86.7,
    "factuality": 88.7,
    "diversity": 75.7,
    "safety": 80.2,
    "personalisation": 67.9,
    "helpfulness": 89.4,
}
"""What PRISM's people stated, on average (Kirk et al., arXiv 2404.16019)."""

CATEGORIES = {
    "age": set(options_of("age")) - {"Prefer not to say"},
    "gender": set(options_of("gender")),
    "politics": set(options_of("politics")),
    "education": {
        "Primary school",
        "Secondary school",
        "Vocational training",
        "University degree",
        "Graduate degree",
    },
    "religion": {
        "Christian",
        "Muslim",
        "Hindu",
        "Buddhist",
        "Jewish",
        "No affiliation",
        "Other",
    },
    "ethnicity": {"White", "Asian", "Black", "Hispanic", "Mixed", "Indigenous", "Other"},
    "reside_region": {
        "Africa",
        "Asia",
        "Europe",
        "Latin America and Caribbean",
        "Northern America",
        "Oceania",
        "Middle East",
    },
}

OVERRULED = {
    "org.no_swearing": r"swear|curse",
    "org.is_a_machine": r"machine|human|AI",
    "org.no_party": r"vote|party|parties",
    "org.disclaimer": r"warnings?|disclaimers?",
    "law.dose": r"dose|milligrams?",
    "law.private_data": r"phone numbers?|address",
}
"""The words by which a wish that a rule overrules is known."""


def _surveys() -> list[Survey]:
    surveys = [person.survey for person in PEOPLE if person.survey is not None]
    assert len(surveys) == len(PEOPLE)
    return surveys


def _rules(wish: str) -> list[str]:
    return [rule for rule, words in OVERRULED.items() if re.search(rf"\b(?:{words})\b", wish, re.I)]


def test_nobody_is_there_twice() -> None:
    assert len(PEOPLE) == 240
    for name in ("name", "description", "goal"):
        values = [getattr(person, name) for person in PEOPLE]
        assert None not in values and len(set(values)) == len(values)
    assert max(Counter(person.voice for person in PEOPLE).values()) <= 2


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_people(group: str) -> None:
    counts = Counter(getattr(survey, group) for survey in _surveys())
    assert set(counts) == CATEGORIES[group]
    if group in ("age", "religion", "politics", "reside_region"):
        assert min(counts.values()) >= 12
    assert max(counts.values()) <= len(PEOPLE) / 2


def test_people_are_whole() -> None:
    for person, survey in zip(PEOPLE, _surveys(), strict=True):
        left_out = {name for name in Survey.model_fields if getattr(survey, name) is None}
        unused = survey.lm_familiarity == "Not familiar at all"
        assert left_out == ({"lm_frequency_use"} if unused else set()), person.name
        assert person.age and survey.age
        first, last = (int(number) for number in re.findall(r"\d+", f"{survey.age} 120")[:2])
        assert first <= person.age <= last, person.name
        assert person.place and person.place.endswith(str(survey.reside_country))
        assert 2 <= len(person.values) <= 3


def test_a_description_speaks_to_the_person() -> None:
    for person in PEOPLE:
        assert person.description and re.search(r"\bYour?\b", person.description)
        assert 2 <= len(re.findall(r"[.!?](?= |$)", person.description)) <= 4
        assert not re.search(r"\b(?:I|my|me)\b", person.description), person.name
        assert person.goal and person.goal.startswith("You want ")


def test_stated_preferences_are_spread_as_in_the_survey() -> None:
    stated = [person.preferences.stated for person in PEOPLE if person.preferences]
    for name in get_args(Attribute):
        weights = [weights[name] for weights in stated]
        assert len(weights) == len(PEOPLE)
        assert mean(weights) == pytest.approx(MEANS[name], abs=3)
        assert pstdev(weights) > 8
    assert len({tuple(weights.values()) for weights in stated}) == len(PEOPLE)


def test_every_style_is_chosen_by_some_and_left_open_by_others() -> None:
    preferences = [person.preferences for person in PEOPLE if person.preferences]
    for name, choices in (("tone", 4), ("length", 3), ("expertise", 2)):
        counts = Counter(getattr(one, name) for one in preferences)
        assert len(counts) == choices + 1 and min(counts.values()) >= 12
    assert 30 <= sum(one.dialect is not None for one in preferences) <= 80


def test_a_third_have_a_wish_that_a_rule_overrules() -> None:
    wishes = [person.preferences.wishes for person in PEOPLE if person.preferences]
    assert {len(one) for one in wishes} == {1, 2, 3, 4}
    assert all(len(set(one)) == len(one) for one in wishes)
    rules = [[rule for wish in one for rule in _rules(wish)] for one in wishes]
    assert max(len(one) for one in rules) == 1
    counts = Counter(rule for one in rules for rule in one)
    assert set(counts) == set(OVERRULED) and min(counts.values()) >= 10
    assert 70 <= sum(counts.values()) <= 95
    overruled = [wish for one in wishes for wish in one if _rules(wish)]
    assert len(set(overruled)) == len(overruled)
    assert len({wish for one in wishes for wish in one}) >= 150
