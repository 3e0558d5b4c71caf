"""What a terminal and JSON show of the calls of a run: by form, in a list, and one by one."""

import io
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from rich.console import Console

from sandbox.api import open_run
from sandbox.reading.calls import call, calls
from sandbox.reading.metrics import calls_by_form
from sandbox.reading.runs import society, states
from sandbox.terminal.calls import call_table, call_view
from sandbox.terminal.runs import form_table, status_table
from sandbox.terminal.style import show
from storage.database import writing
from storage.summaries import rebuild

FORM = "(SELECT id FROM forms WHERE name = ?)"


@pytest.fixture
def run(make):
    """A run whose raters' model told what was cached, but for one call; two drafts went wrong."""
    address, _ = make("rounds=1", "world.size=3")
    with closing(sqlite3.connect(address.url.database)) as connection, connection:
        told = "UPDATE calls SET cached_tokens = tokens_in / 2, expected = 5.25"
        connection.execute(f"{told} WHERE form_id = {FORM}", ("rate",))
        rate, draft = (
            connection.execute(f"SELECT id FROM calls WHERE form_id = {FORM}", (form,)).fetchall()
            for form in ("rate", "draft")
        )
        untold = "UPDATE calls SET cached_tokens = NULL, tokens_in = 1000000 WHERE id = ?"
        connection.execute(untold, rate[0])
        wrong = "UPDATE calls SET status = ?, tokens_in = NULL WHERE id = ?"
        connection.execute(wrong, ("failed", *draft[0]))
        connection.execute(wrong, ("cut", *draft[1]))
        connection.execute("UPDATE calls SET thinking = prompt WHERE id = ?", draft[2])
    with writing(address.url) as engine, engine.begin() as changed:
        rebuild(changed)
    return address


def shown(what, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    show(console, what)
    return console.export_text()


def test_calls_are_counted_by_form(run):
    with open_run(str(run)) as reader:
        forms = {one.form: one for one in calls_by_form(reader)}
    assert list(forms) == ["draft", "rate", "revise", "observe_alignment", "observe_engagement"]
    draft, rate = forms["draft"], forms["rate"]
    assert (draft.calls, draft.failed, draft.unparsed) == (9, 1, 1)
    assert draft.tokens_in > 0
    assert (draft.tokens_cached, draft.prefix_share) == (None, None)
    assert (rate.calls, rate.failed, rate.unparsed) == (24, 0, 0)
    assert rate.tokens_in > 1_000_000
    assert rate.prefix_share == pytest.approx(0.5, abs=0.01), "only calls that told count"


def test_totals_are_those_of_the_forms(run):
    (state,) = states(run.url)
    assert [one.calls for one in state.forms] == [9, 24, 9, 18, 18]
    assert (state.calls, state.calls_failed, state.unparsed) == (78, 1, 1)
    assert state.tokens_cached == (state.forms[1].tokens_cached or 0) > 0
    with open_run(str(run)) as reader:
        assert society(reader).forms == state.forms


def test_the_table_of_forms_fits_a_narrow_terminal(run):
    (state,) = states(run.url)
    many = [replace(form, calls=9_000_000, tokens_in=999_900_000) for form in state.forms]
    lines = shown(form_table(many)).splitlines()
    assert len(lines) == 7, "no cell is folded"
    assert lines[2].split()[-1] == "50%"
    assert "999.9 M" in lines[2]
    assert lines[3].split()[-1] == "-"


def test_of_several_runs_status_shows_no_forms(run):
    (state,) = states(run.url)
    assert "prefix share" in shown(status_table([("one", state)]))
    assert "prefix share" not in shown(status_table([("one", state), ("two", state)]))


def test_the_list_of_calls_tells_what_was_cached_thought_and_expected(run):
    with open_run(str(run)) as reader:
        lines = calls(reader)
    text = shown(call_table(lines), 120)
    assert "cached" in text
    assert "(expected 5.25) Rating" in text
    assert "words of thinking)" in text
    plain = [replace(line, cached_tokens=None) for line in lines]
    assert "cached" not in shown(call_table(plain), 120).splitlines()[0]


def test_one_call_tells_what_it_took(run):
    with open_run(str(run)) as reader:
        lines = calls(reader)
        rating = replace(
            call(reader, next(one.call for one in lines if one.expected)),
            tokens_in=1200,
            cached_tokens=1024,
            tokens_out=31,
            seconds=2.34,
        )
        thought = call(reader, next(one.call for one in lines if one.thinking))
    text = shown(call_view(rating))
    assert "1,200 tokens in (1,024 from the prefix cache), 31 out, 2.3 s" in text
    assert "expected rating 5.25" in text
    assert " thinking " in shown(call_view(thought))
    assert "prefix cache" not in shown(call_view(thought))
