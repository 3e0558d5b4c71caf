"""What a researcher asks of a run, done in Chromium on the pages, with the clicks counted.

Each task says how many clicks it may take from the page where it begins; typing a query is one.
What the page then shows is compared with what plain SQL or the read model gives.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from conftest import ROOT, small
from stored import Run
from stored import make as make_run
from test_browser import Visit, chromium  # noqa: F401  (a fixture)
from viewing import Site, serving

from sandbox.config import load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.agreement import PEERS, agreements
from sandbox.reading.declaration import declaration_of
from sandbox.reading.memory import internal_memory
from sandbox.reading.raters import raters
from sandbox.reading.spread import spread
from sandbox.reading.trends import agent_trends, trends
from storage.reader import Reader

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long

LARGE = "world.size=7", "rounds=10", "question_count=5", "memory.prior_pairs=20"


class Society(NamedTuple):
    """The runs that are served, beside two configs with three seeds each."""

    site: Site
    recurring: Run
    spoilt: Run
    asian: Run
    scene: Run


@pytest.fixture(scope="module")
def society(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Society]:
    folder = tmp_path_factory.mktemp("tasks")
    recurring = make_run(folder / "recurring.db", *LARGE, name="recurring")
    little = "world.size=4", "rounds=4", "memory.prior_pairs=20"
    rough = "attempts=1", "models.social.misbehave=0.15", "models.observer.misbehave=0.1"
    spoilt = make_run(folder / "spoilt.db", *little, *rough, name="spoilt")
    questions = folder / "questions.txt"
    long = "Is this long? " * 150
    questions.write_text(
        f"如何委婉地拒绝同事的请求\uff1f\n友達と仲直りするにはどうすればいいですか\uff1f\n{long}\n"
    )
    asked = f"questions={questions}", "question_count=3"
    asian = make_run(folder / "asian.db", *little, *asked, name="asian")
    runs = [recurring, spoilt, asian]
    for score_only in ("false", "true"):
        for seed in (1, 2, 3):
            name = f"{'scores' if score_only == 'true' else 'reasons'}-{seed}"
            settings = f"seed={seed}", f"world.score_only={score_only}"
            runs.append(make_run(folder / f"{name}.db", *little, *settings, name=name))
    preset = ROOT / "worlds" / "presets" / "scene.yaml"
    config = load_config(preset, ["world.scenes=4", "name=scene"])
    assert resume(create(prepare(config), str(folder / "scene.db"))).status == "done"
    scene = Run(folder / "scene.db", "scene")
    with serving(*runs, scene) as site:
        yield Society(site, recurring, spoilt, asian, scene)


class User:
    """Somebody at the pages, whose clicks are counted."""

    def __init__(self, visit: Visit, path: str) -> None:
        self.visit, self.clicks = visit, 0
        self.page: Page = visit.go(path)

    def click(self, target: str) -> None:
        self.clicks += 1
        self.page.locator(target).first.click()
        self.page.wait_for_load_state()
        self.visit.drawn()

    def choose(self, name: str, value: str) -> None:
        self.clicks += 1
        self.page.select_option(f"main select[name={name}]", value)

    def search(self, text: str) -> None:
        self.clicks += 1
        self.page.fill("header input[type=search]", text)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")
        self.visit.drawn()

    def text(self, target: str = "main") -> str:
        return str(self.page.locator(target).first.inner_text())

    def rows(self, target: str = "main tbody tr") -> list[str]:
        return [str(one) for one in self.page.locator(target).all_inner_texts()]


@pytest.fixture
def visit(chromium: Browser, society: Society) -> Iterator[Any]:  # noqa: F811
    """Begin a task: ``visit("/r/recurring")``; every console message or foreign request fails."""
    with ExitStack() as stack:

        def begun(path: str, **options: Any) -> User:
            options.setdefault("viewport", {"width": 1440, "height": 900})
            one = Visit(chromium, society.site, **options)
            stack.callback(one.leave)
            return User(one, path)

        yield begun


def _trend(run: Run, measure: str = "draft_alignment") -> dict[int, float]:
    reader: Reader = run.reader
    found = agent_trends(reader, declaration_of(reader).measure(measure))
    return {agent: one.change for agent, one in found.items() if one.change is not None}


def test_01_the_agent_that_improved_most(visit: Any, society: Society) -> None:
    user = visit("/r/recurring")
    user.click("nav >> text=Agents")
    user.click("thead >> text=Change")
    changes = _trend(society.recurring)
    best = max(changes, key=lambda agent: (changes[agent], -agent))
    first = user.rows()[0]
    assert f"#{best}" in first and f"+{changes[best]:.2f}" in first
    assert user.page.locator("tbody tr").first.locator("svg.spark polyline").count() == 1
    assert user.clicks == 2


def test_02_why_an_agent_changed_its_mind(visit: Any, society: Society) -> None:
    """Before and now stand beside each other, with the advice whose words were taken up."""
    reader = society.recurring.reader
    agent = next(
        number for number in range(49) if internal_memory(reader, number, None, None, "changed")
    )
    user = visit("/r/recurring/agents")
    user.click(f"tbody a:text-is('{_name(society.recurring, agent)} #{agent}')")
    user.choose("only", "changed")
    user.click("main form button.main")
    item = user.page.locator(".beliefs > li").first
    assert "changed its mind" in item.inner_text() and "kept" in item.inner_text()
    before, now = (item.locator(".before-now > div").nth(place).bounding_box() for place in (0, 1))
    assert before["y"] == now["y"] and before["x"] < now["x"], "side by side"
    assert item.locator("ins").count() and item.locator("del").count()
    user.click(".beliefs a[data-row]")
    assert "advice adopted" in user.text(".peers")
    assert user.clicks <= 4


def _name(run: Run, agent: int) -> str:
    persona = run.sql("SELECT persona FROM agents WHERE number = ?", agent)[0][0]
    return str(json.loads(persona)["name"])


def test_03_which_raters_are_harsher_than_chance(visit: Any, society: Society) -> None:
    found = raters(society.recurring.reader)
    differ = sum(one.differs for one in found)
    user = visit("/r/recurring")
    user.click("nav >> text=Ratings")
    assert str(differ or "no").lower() in user.text(".lead").lower()
    assert "Benjamini-Hochberg" in user.text()
    user.click("thead >> text=Leniency")
    assert user.page.locator("table tbody th a").first.get_attribute("href").startswith("/r/")
    assert user.clicks == 2


def test_04_exchanges_that_got_worse_can_be_walked(visit: Any, society: Society) -> None:
    wanted = [
        row[0]
        for row in society.recurring.sql(
            "SELECT s.episode_id FROM scores s JOIN measures m ON m.id = s.measure_id "
            "WHERE m.name = 'alignment_gain' AND s.value < 0 ORDER BY s.value, s.episode_id DESC"
        )
    ]
    user = visit("/r/recurring/exchanges")
    user.choose("kind", "fell")
    user.click("main form button.main")
    assert f"{len(wanted)}" in user.text("main h1 + *")
    user.click("thead >> text=Alignment gain")
    user.click("thead >> text=Alignment gain")
    user.click("tbody a[data-row]")
    seen = [_number(user.page.url)]
    assert f"1 of {len(wanted)}" in user.text("nav.walk")
    for _ in range(3):
        user.page.keyboard.press("ArrowRight")
        user.visit.until("(n) => !location.pathname.endsWith('/' + n)", str(seen[-1]))
        user.visit.drawn()
        seen.append(_number(user.page.url))
    assert set(seen) <= set(wanted) and len(set(seen)) == 4
    user.click("nav.walk >> text=Back to results")
    assert "kind=fell" in user.page.url
    assert user.clicks <= 6


def _number(url: str) -> int:
    return int(url.partition("?")[0].rpartition("/")[2])


def test_05_good_born_against_bad_born_at_a_glance(visit: Any, society: Society) -> None:
    reader = society.recurring.reader
    found = trends(reader, declaration_of(reader).measure("draft_alignment"))
    assert found.gap is not None
    user = visit("/r/recurring")
    finding = user.text(".findings")
    first, last = found.gap.first.difference, found.gap.last.difference
    assert f"{first:.2f} \u2192 {last:.2f}" in finding, "before anything is clicked or scrolled"
    box = user.page.locator(".findings").bounding_box()
    assert box["y"] + box["height"] < 900
    assert user.page.locator("#alignment-by-label svg, #alignment-by-label canvas").count()
    assert user.page.locator("#alignment-gap-by-label svg").count()
    assert user.clicks == 0
    user.click("nav.split >> text=question topic")
    user.visit.until("() => document.querySelector('#alignment-by-topic svg')")
    assert user.clicks == 1


def test_06_how_an_idea_spreads(visit: Any, society: Society) -> None:
    found = spread(society.recurring.reader, '"small pieces"')
    user = visit("/r/recurring")
    user.search('"small pieces"')
    user.visit.until("() => document.querySelector('#spread-agents .drawing svg')")
    first = found.uses[0]
    said = user.text()
    assert f"#{first.agent}" in said and f"{len(found.uses)} of {found.agents} agents" in said
    assert user.clicks == 1


def test_07_clusters_are_tested_against_chance(visit: Any, society: Society) -> None:
    user = visit("/r/recurring")
    user.visit.until(
        "() => /shuffled \\d+ to \\d+/.test(document.querySelector('.side').innerText)"
    )
    user.visit.until("() => document.querySelector('#neighbours-alike .drawing svg')")
    assert user.clicks == 0


def test_08_whether_raters_agree(visit: Any, society: Society) -> None:
    user = visit("/r/recurring")
    user.click("nav >> text=Ratings")
    user.visit.until("() => /alpha/.test(document.querySelector('main').innerText)")
    peers = agreements(society.recurring.reader).overall[PEERS]
    for number in (peers.alpha, peers.low, peers.high):
        assert f"{number:.2f}".replace("-", "\u2212") in user.text()
    assert user.clicks == 1


def test_09_failed_calls_and_their_reasons(visit: Any, society: Society) -> None:
    (missing,) = society.spoilt.sql(
        "SELECT count(*) FROM calls WHERE status NOT IN ('ok', 'lenient', 'shortened')"
    )[0]
    user = visit("/r/spoilt")
    user.click("main .lead a")
    assert f"{missing}" in user.text("main .head") and len(user.rows()) > 1
    assert user.clicks == 1


def test_10_a_scene_begins_with_its_summary(visit: Any, society: Society) -> None:
    (acts, refused) = society.scene.sql(
        "SELECT count(*), sum(NOT passed) FROM acts WHERE episode_id = 0"
    )[0]
    user = visit("/r/scene")
    tabs = user.text("header nav ul.tabs")
    assert "Agents" not in tabs and "Ratings" not in tabs
    user.click("nav >> text=Exchanges")
    user.click("tbody tr:last-child a[data-row]")
    summary = user.text(".scene")
    assert f"{acts} acts" in summary and (not refused or f"{refused} refused" in summary)
    assert "Nobody is the worse" not in user.text()
    assert user.clicks == 2


def test_11_three_runs_are_compared(visit: Any, society: Society) -> None:
    user = visit("/")
    for name in ("recurring", "spoilt", "asian"):
        user.clicks += 1
        user.page.check(f"input[name=run][value={name}]")
    user.click("main button:has-text('Compare')")
    shown = user.text()
    assert all(name in shown for name in ("recurring", "spoilt", "asian"))
    user.visit.until("() => document.querySelectorAll('#differences table').length > 1")
    assert user.clicks == 4


def test_12_seeds_are_one_group_with_its_spread(visit: Any, society: Society) -> None:
    user = visit("/")
    for name in ("reasons", "scores"):
        for seed in (1, 2, 3):
            user.clicks += 1
            user.page.check(f"input[name=run][value={name}-{seed}]")
    user.click("main button:has-text('Compare')")
    assert "score_only true (3 seeds)" in user.text()
    user.visit.until("() => /SD/.test(document.querySelector('#differences').textContent)")
    user.visit.until("() => document.querySelector('#differences').innerText.includes('gap')")
    assert user.clicks == 7


def test_13_a_figure_for_a_paper(visit: Any, society: Society) -> None:
    user = visit("/r/recurring")
    with user.page.expect_download() as saved:
        user.click("figure:has(#alignment-by-label) a:text-is('PDF')")
    data = Path(saved.value.path()).read_bytes()
    assert data.startswith(b"%PDF") and user.clicks <= 2


def test_14_a_copied_url_shows_the_same(visit: Any, society: Society) -> None:
    user = visit("/r/recurring/exchanges?kind=fell&label=bad&order=alignment_gain")
    other = visit(user.page.url.removeprefix(society.site.url))
    assert other.rows() == user.rows() and user.rows()


def test_15_what_a_filter_shows_is_downloaded(visit: Any, society: Society) -> None:
    user = visit("/r/recurring/exchanges?kind=fell")
    with user.page.expect_download() as saved:
        user.click("a:text-is('JSONL')")
    rows = [json.loads(line) for line in Path(saved.value.path()).read_text().splitlines()]
    total = int(user.text("main h1 + *").replace(",", ""))
    assert len(rows) == total > 0 and user.clicks == 1


@pytest.mark.parametrize("words", ["拒绝", "同事", "仲直り", "友達"])
def test_16_chinese_and_japanese_are_found(visit: Any, society: Society, words: str) -> None:
    user = visit("/r/asian")
    user.search(words)
    assert "No match" not in user.text()
    assert user.page.locator("main mark", has_text=words[0]).count() > 0
    assert user.clicks == 1


def test_17_everything_with_the_keyboard(visit: Any, society: Society) -> None:
    user = visit("/r/recurring")
    press = user.page.keyboard.press
    for keys, path in (("gt", "/ratings"), ("gb", "/about"), ("ge", "/exchanges")):
        for key in keys:
            press(key)
        user.visit.until("(path) => location.pathname.endsWith(path)", path)
        user.visit.drawn()
    press("j")
    press("Enter")
    user.visit.until("() => /exchanges\\/\\d+$/.test(location.pathname)")
    assert user.clicks == 0


def test_18_headings_and_landmarks_for_a_screen_reader(visit: Any, society: Society) -> None:
    user = visit("/r/recurring/exchanges/3")
    headings = user.page.locator("main h2").all_inner_texts()
    assert {"Question", "Draft", "Revision"} <= {heading.strip() for heading in headings}
    user = visit("/r/recurring")
    label = user.page.locator("#map .chart-wrapper").get_attribute("aria-label")
    assert re.match(r"Round 9: mean revision alignment \d\.\d\d of 49 agents", label)


def test_19_ten_thousand_agents(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    big = "world.size=100", "world.raters=1", "rounds=1", "memory.prior_pairs=0"
    run = make_run(tmp_path / "big.db", *big, name="big")
    with serving(run) as site:
        visit = Visit(chromium, site, viewport={"width": 1440, "height": 900})
        user = User(visit, "/r/big")
        assert "10,000 agents" in user.text("#society")
        visit.until("() => document.querySelector('#map canvas')")
        user.click("nav >> text=Agents")
        assert "10,000" in user.text("main .head") and user.clicks == 1
        visit.leave()


def test_20_a_run_that_goes_on(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    """The mean is that of a complete round whenever one looks, and the strip says how far it is."""
    latency = "models.social.latency={first_token: 0.08, per_token: 0.0, capacity: 4}"
    config = small("schedule.order=lock_step", "rounds=4", latency, "name=live")
    path, database = tmp_path / "config.yaml", tmp_path / "runs" / "live.db"
    path.write_text(yaml.safe_dump(json.loads(config.as_json())), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", str(path)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=-3)
    run = Run(database, "live")
    try:
        while not _complete(run):
            assert process.poll() is None
            time.sleep(0.05)
        with serving(database) as site:
            visit = Visit(chromium, site)
            page = visit.go("/r/live")
            assert "round=" not in page.url
            title = page.title()
            assert "%" in title
            seen = set()
            while process.poll() is None:
                words = str(page.locator("#society output").first.inner_text())
                assert re.match(r"Round \d: mean .* of 16 agents", words), words
                seen.add(words.partition(":")[0])
                time.sleep(0.2)
            assert len(seen) > 1, "it follows"
            assert "round=" not in page.url
            visit.until("() => document.querySelector('#live').dataset.state === 'done'")
            visit.leave()
    finally:
        process.kill()
        process.wait()


def _complete(run: Run) -> int:
    """The number of complete episodes once a round is, else 0."""
    try:
        n = int(run.sql("SELECT count(*) FROM episodes WHERE observed")[0][0])
    except sqlite3.Error:
        return 0
    return n if n >= 16 else 0


def test_21_a_page_prints(visit: Any, society: Society) -> None:
    for path in ("/r/recurring", "/r/recurring/agents", "/r/recurring/exchanges/3"):
        user = visit(path)
        user.page.emulate_media(media="print")
        sheet = user.page.pdf(format="A4")
        assert sheet.startswith(b"%PDF") and len(sheet) > 10_000
        wide = user.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


def test_22_marks_differ_by_more_than_hue(visit: Any, society: Society) -> None:
    """Groups by shape and stages by dashes, so that no colour alone tells them apart."""
    user = visit("/r/recurring")
    spec = json.loads(user.page.locator("#alignment-by-label script").first.text_content())
    channels = [set(layer["encoding"]) for layer in spec["layer"] if "mean" in str(layer)]
    assert any({"shape", "strokeDash", "color"} <= found for found in channels)


def test_23_texts_are_copied_without_markup(visit: Any, society: Society) -> None:
    (revision,) = society.recurring.sql(
        "SELECT t.text FROM stage_texts s JOIN texts t ON t.id = s.text_id "
        "WHERE s.episode_id = 3 AND s.stage = 'revision'"
    )[0]
    user = visit("/r/recurring/exchanges/3", permissions=["clipboard-read", "clipboard-write"])
    user.click("li.stage-2 button:has-text('Copy')")
    user.page.wait_for_timeout(200)
    assert user.page.evaluate("() => navigator.clipboard.readText()") == revision
    assert user.clicks == 1


def test_24_long_texts_are_folded(visit: Any, society: Society) -> None:
    (episode,) = society.asian.sql(
        "SELECT e.id FROM episodes e JOIN questions q ON q.id = e.question_id "
        "JOIN texts t ON t.id = q.text_id WHERE length(t.text) > 1000 LIMIT 1"
    )[0]
    user = visit(f"/r/asian/exchanges/{episode}")
    box = user.page.locator("li.question").bounding_box()
    assert box["height"] < 500, "a long question does not fill the window"
    user.click("li.question >> text=Show all")
    assert user.page.locator("li.question").bounding_box()["height"] > box["height"]
    assert user.clicks == 1
