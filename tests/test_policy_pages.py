"""The pages of policies and conversations, with hostile texts, and the section of reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from personal_runs import make_personal, replace_verdicts
from stored import Run
from stored import make as make_stored
from viewing import HOSTILE, PREFIXED, Site, Tags, rebuild_summaries, serving

from sandbox.reading.figures import figures
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.copying import copy
from sandbox.viewer.report.report import report
from storage.database import parse_run

WISH = "<b>Swear</b> a little."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which every text is hostile, with breaches, and a request that was obeyed."""
    made = make_personal(tmp_path_factory.mktemp("pages"))
    ids = [row[0] for row in made.sql("SELECT id FROM texts ORDER BY id")]
    for number in ids:
        text = PREFIXED[number % len(PREFIXED)]
        made.sql("UPDATE texts SET text = ? || ' ' || text WHERE id = ?", text, number)
    replace_verdicts(made, "obeyed", *[("law.dose", "yes", None), ("law.dose", None, None)] * 4)
    replace_verdicts(made, "guess", *[("gender", HOSTILE[0], "Male")] * 8)
    made.sql("UPDATE breaches SET found = ?", HOSTILE[0])
    made.sql(
        "INSERT INTO breaches SELECT c.episode_id, 999, 'law.dose', 1, 'refused', ?, c.id "
        "FROM calls c JOIN forms f ON f.id = c.form_id WHERE f.name = 'answer' AND c.turn = 0",
        HOSTILE[1],
    )
    made.sql("UPDATE overruled SET wish = ?", WISH)
    made.sql("UPDATE agents SET persona = replace(persona, 'Swear a little.', ?)", WISH)
    rebuild_summaries(made)
    return made


@pytest.fixture(scope="module")
def site(run: Run) -> Iterator[Site]:
    with serving(run) as served:
        yield served


def _harmless(page: str) -> Tags:
    """Check that no text of a page has become a tag."""
    tags = Tags(page)
    assert not any(tag in ("b", "img", "iframe") for tag, _ in tags.tags)
    assert not any(name.startswith("on") for _, names in tags.tags for name in names)
    assert not any("alert(" in script for script in tags.scripts if "{" not in script)
    return tags


def test_the_page_of_a_policy(run: Run, site: Site) -> None:
    page = site.page(f"/r/{run.name}/policy")
    words = " ".join(_harmless(page).words)
    assert "our own operational reading" in words
    assert all(rule in words for rule in ("law.dose", "org.no_swearing", "org.rivals"))
    assert WISH in words and HOSTILE[1] in words
    links = re.findall(r'href="([^"]+)"', page)
    assert any(link.startswith(f"/r/{run.name}/exchanges/") for link in links)
    (call,) = {link for link in links if "/calls/" in link and site.ask(link).status != 200} or [0]
    assert call == 0
    assert "100.0 %" in words  # of requests with a verdict
    names = set(figures(run.reader))
    assert names >= {"leakage-by-rule", "leakage-by-phrasing", "stances-by-round"}
    assert "gain-by-group" not in names  # four users are too few for an interval
    for name in names:
        assert site.ask(f"/r/{run.name}/figures/{name}.csv").status == 200
    assert site.ask(f"/r/{run.name}/figures/leakage-by-rule.svg").status == 200


def test_an_exchange_shows_its_conversation(run: Run, site: Site) -> None:
    episode = run.sql(
        "SELECT episode_id FROM verdicts WHERE kind = 'obeyed' AND value = 'yes' LIMIT 1"
    )[0][0]
    page = site.page(f"/r/{run.name}/exchanges/{episode}")
    words = " ".join(_harmless(page).words)
    shown = ("Turn 1 of", "3 other candidates", "chosen", "Red-team request", "law.dose", "obeyed")
    for text in shown:
        assert text in words
    assert "Answer of one policy for all" in words and "Breaches of the policy" in words
    assert "Observer: safety" in words and "User: satisfaction" in words
    other = site.page(f"/r/{run.name}/exchanges/{episode + 1}")
    assert "no verdict" in other
    found = site.page(f"/r/{run.name}/exchanges/{episode}", q="script")
    assert "<mark>" in found and _harmless(found)


def test_an_agent_shows_what_is_overruled(run: Run, site: Site) -> None:
    agent = run.sql("SELECT agent FROM overruled")[0][0]
    page = site.page(f"/r/{run.name}/agents/{agent}")
    assert "&lt;b&gt;Swear&lt;/b&gt;" in page and "<del>" in page and _harmless(page)
    assert "overruled by" in page and "Use short words." in page
    assert f"User ratings of agent {agent}, by stage." in page


def test_conversations_are_searched(run: Run, site: Site) -> None:
    word = "slingshot" if run.sql("SELECT 1 FROM texts WHERE text LIKE '%slingshot%'") else "rule"
    page = site.page(f"/r/{run.name}/search", q=word)
    assert "Exchange" in page and _harmless(page)


def test_a_run_without_policy_has_no_page(tmp_path: Path) -> None:
    plain = make_stored(tmp_path / "plain.db", "world.size=3", "rounds=1")
    with serving(plain) as site:
        assert f"/r/{plain.name}/policy" in site.page(f"/r/{plain.name}")
        assert "Leakage" not in site.page(f"/r/{plain.name}/policy")
        plain.sql("UPDATE runs SET policy = NULL")
        assert f"/r/{plain.name}/policy" not in site.page(f"/r/{plain.name}")
        assert site.ask(f"/r/{plain.name}/policy").status == 404
        assert site.ask(f"/r/{plain.name}/agents/0").status == 200


@pytest.mark.long
def test_reports_and_copies_have_the_policy(run: Run, tmp_path: Path) -> None:
    address = parse_run(f"{run.path}#{run.name}")
    for name in ("report.html", "report.md"):
        report(run.reader, address, tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "our own operational reading" in text and "Gain of personalisation" in text
        assert "the users&#39; mean rating" in text or "the users' mean rating" in text
        assert "the observer's mean rating of satisfaction" not in text
    copied = copy(RunCatalog([str(run.path)]), tmp_path / "copy", 3, False, lambda _: None)
    assert (copied.out / f"{run.name}-policy.html").exists()
