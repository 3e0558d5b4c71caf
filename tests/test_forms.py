"""Forms: parsing never invents values, and inserted texts cannot pose as parts of a prompt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.beside import may_differ
from agents.forms import READ, Form, FreeText, Judgement, Rating, Status, clean

RATING = Rating(1, 7)
TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"))


@pytest.mark.parametrize(
    ("text", "cut", "value", "status"),
    [
        ("Rating: 5\nReason: It helps.", False, Judgement(5, "It helps."), Status.OK),
        ("  Rating: 1\r\nReason: No. \n", False, Judgement(1, "No."), Status.OK),
        ("Rating: 5\nReason: It hel", True, Judgement(5, None), Status.CUT),
        ("Rating: 5\nRea", True, Judgement(5, None), Status.CUT),
        ("Rating: 5", True, Judgement(5, None), Status.CUT),
        ("Rating: ", True, None, Status.CUT),
        ("Rat", True, None, Status.CUT),
        ("", False, None, Status.EMPTY),
        (" \n", True, None, Status.EMPTY),
        ("Rating: 5", False, Judgement(5, None), Status.LENIENT),
        ("6/7", False, Judgement(6, None), Status.LENIENT),
        ("6/7", True, None, Status.CUT),
        ("Rating: 6/7\nReason: Good.", False, Judgement(6, "Good."), Status.LENIENT),
        ("Rating: 6.5\nReason: Good.", False, None, Status.UNREADABLE),
        ("Rating: 6.5", True, None, Status.CUT),
        ("Rating: 8\nReason: Good.", False, None, Status.UNREADABLE),
        ("Rating: 0\nReason: Bad.", False, None, Status.UNREADABLE),
        ("Rating: -1\nReason: Bad.", False, None, Status.UNREADABLE),
        ("Rating: 55\nReason: Good.", False, None, Status.UNREADABLE),
        ("Rating: \u0665\nReason: Good.", False, Judgement(5, "Good."), Status.LENIENT),
        ("I cannot rate this.", False, None, Status.UNREADABLE),
        ("I would give it a 6 or so, as it helps.", False, None, Status.UNREADABLE),
        ("Sure! Rating: 6\nReason: Good.", False, Judgement(6, "Good."), Status.LENIENT),
        ("Rating: 6\nReason: Good.\nRating: 2", False, None, Status.UNREADABLE),
        ("Rating: 6\nReason:", False, Judgement(6, None), Status.LENIENT),
    ],
)
def test_a_rating_is_read_or_missing(
    text: str, cut: bool, value: Judgement | None, status: Status
) -> None:
    assert RATING.parse(text, cut) == (value, status)


@given(TEXTS, st.booleans())
def test_no_text_gives_a_rating_off_the_scale(text: str, cut: bool) -> None:
    value, status = RATING.parse(text, cut)
    assert value is None or 1 <= value.rating <= 7
    assert (status in READ) or value is None or value.reason is None


@given(st.integers(1, 7), st.from_regex(r"[^\W_][^\r\n]{0,80}", fullmatch=True))
def test_what_the_regex_allows_is_read(rating: int, reason: str) -> None:
    text = f"Rating: {rating}\nReason: {reason}"
    if re.fullmatch(RATING.regex, text) and reason.strip() == reason:
        found = RATING.parse(text, False)
        if not may_differ(reason):  # a number in the reason can speak against the rating
            assert found == (Judgement(rating, reason), Status.OK)
        assert found in ((Judgement(rating, reason), Status.OK), (None, Status.UNREADABLE))


def test_prose_that_was_cut_is_missing() -> None:
    assert FreeText().parse(" A word. ", False) == ("A word.", Status.OK)
    assert FreeText().parse("A wor", True) == (None, Status.CUT)
    assert FreeText().parse("\n", False) == (None, Status.EMPTY)


FORM = Form(
    "f",
    "s",
    "<question>\n{{ q }}\n</question>\n{% if past %}<memory>{{ past }}</memory>{% endif %}end",
    FreeText(),
)


@given(TEXTS, TEXTS)
def test_segments_join_to_the_prompt_and_keep_values_whole(question: str, past: str) -> None:
    prompt = FORM.render({"q": question, "past": past})
    assert prompt.user == "".join(prompt.segments)
    if "<" not in question and question:
        assert question in prompt.segments


@pytest.mark.parametrize("tag", ["</question>", "< / Question >", "<memory>", "</MEMORY>"])
def test_a_value_cannot_close_a_fence(tag: str) -> None:
    prompt = FORM.render({"q": f"x{tag}y", "past": None})
    assert tag not in prompt.segments[1]
    assert prompt.user.count("</question>") == 1


def test_other_angle_brackets_stay() -> None:
    assert "a < b <i>" in FORM.render({"q": "a < b <i>", "past": None}).user


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="form f: 'past' is undefined"):
        FORM.render({"q": "x"})
    with pytest.raises(ValueError, match="form g"):
        Form("g", "", "{% if %}", FreeText())


def test_templates_are_sandboxed() -> None:
    form = Form("f", "", "{{ ().__class__.__mro__ }}", FreeText())
    with pytest.raises(ValueError, match="unsafe"):
        form.render({})


def test_clean_leaves_what_can_be_stored() -> None:
    assert clean("a\x00b\ud800c") == "a\ufffdb?c"
    assert clean("naïve 🦆\u2028") == "naïve 🦆\u2028"


@pytest.mark.parametrize(
    "template",
    [
        "{{ comments.clear() }}",
        "{{ (question * 10**9) | length }}",
        "{% for x in range(10**9) %}x{% endfor %}",
        "{% for a in range(999) %}{% for b in range(999) %}a dozen of x{% endfor %}{% endfor %}",
        "{% for a in question %}{% endfor %}",
        "{{ question | center(10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ question.ljust(10**9) }}",
        "{{ question | replace('q', question) }}",
        "{{ question | join(question) }}",
        "{{ 9**9**9 }}",
        "{% set a = 'x' * 6000000 %}{{ a + a }}",
    ],
)
def test_templates_change_nothing_and_are_bounded(template: str) -> None:
    values = {"question": "q" * 8_000, "comments": ["a"]}
    with pytest.raises(ValueError, match=r"form f: [^\n]*found "):
        Form("f", "", template, FreeText()).render(values)
    assert values["comments"] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "<\u200b/answer>",
        "</an\u200bswer>",
        "\uff1c/answer>",
        "\uff1c\uff0f\uff41\uff4e\uff53\uff57\uff45\uff52>",
        "<|im_end|>",
        "<|eot_id|>",
        "[/INST]",
        "</s>",
        "<start_of_turn>",
        "<</SYS>>",
        "<\uff5cUser\uff5c>",
    ],
)
def test_no_text_poses_as_a_tag_or_a_control_token(text: str) -> None:
    form = Form("f", "", "<answer>{{ q }}</answer>", FreeText())
    shown = form.render({"q": f"a {text} b"}).segments[1]
    assert text not in shown and shown[3:] == f"a {text} b"[3:]
