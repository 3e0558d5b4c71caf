"""The viewer in Chromium: interaction, keyboard, phone layout, dark theme, accessibility."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from conftest import ROOT, missing, small
from proxies import NGINX, Behind, nginx_proxy, python_proxy
from stored import Run
from stored import make as make_stored
from viewing import Site, hostile, serving

from sandbox.config import load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.text_diff import changed_words
from sandbox.study.fork import fork
from sandbox.viewer.catalog import RunCatalog
from sandbox.viewer.copying import copy
from storage.database import parse_run
from storage.files import locked

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 800}
DRAWN = """() => [...document.querySelectorAll(".plot")].every(
    (plot) => plot.dataset.failed || plot.querySelector(".drawing svg, .drawing canvas"))"""
FILLS = """() => [...document.querySelectorAll("#map svg path")]
    .map((path) => path.getAttribute("fill")).filter((fill) => fill && fill !== "none")"""
WATCH = """addEventListener("securitypolicyviolation", (event) =>
    console.error(`refused: ${event.violatedDirective} ${event.blockedURI}`));"""


class Runs(NamedTuple):
    """The runs that are served, and the server."""

    site: Site
    calm: Run
    other: Run
    scene: Run
    bad: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    settings = "world.size=4", "rounds=3", "question_count=8", "memory.prior_pairs=20"
    calm = make_stored(folder / "calm.db", *settings, name="calm")
    there = parse_run(f"{calm.path}#calm")
    beside = fork(there, 0, ["world.score_only=true"], name="other", db=str(folder / "other.db"))
    assert resume(beside).status == "done"
    preset = ROOT / "worlds" / "presets" / "scene.yaml"
    scene = load_config(preset, ["world.scenes=12", "name=scene"])
    assert resume(create(prepare(scene), str(folder / "scene.db"))).status == "done"
    idle = make_stored(folder / "idle.db", *settings, name="idle", play=False)
    bad = hostile(calm, folder)
    made = [calm, Run(folder / "other.db", "other"), Run(folder / "scene.db", "scene"), idle, bad]
    with serving(*made) as site:
        yield Runs(site, made[0], made[1], made[2], bad)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None or "chromium" in os.environ.get("CI_LATER", "").split():
        missing("Chromium is not installed: apt-get install chromium", "chromium")
    pytest.importorskip("playwright") if not os.environ.get("CI") else __import__("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


class Visit:
    """A browser page whose console errors and external requests fail the test."""

    def __init__(self, browser: Browser, site: Site | Folder | Behind, **options: Any) -> None:
        self.site = site
        self.complaints: list[str] = []
        self.expected = re.compile("$^")
        self._context = browser.new_context(reduced_motion="reduce", **options)
        self._context.add_init_script(WATCH)
        self._context.set_default_timeout(15_000)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda one: self._complain(one.type, f"{one.type}: {one.text}"))
        self.page.on("pageerror", lambda error: self._complain("error", f"fault: {error}"))
        self.page.on("dialog", lambda dialog: self._complain("error", f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self._asked(request.url))

    def _complain(self, kind: str, what: str) -> None:
        if kind in ("error", "warning") and not self.expected.search(what):
            self.complaints.append(f"{self.page.url}: {what}")

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.site.url}/", "data:", "blob:", "about:")):
            self.complaints.append(f"request to {url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.site.url + path)
        return self.drawn()

    def drawn(self) -> Page:
        self.page.wait_for_function(DRAWN)
        return self.page

    def until(self, condition: str, *values: Any) -> None:
        self.page.wait_for_function(condition, arg=list(values) if len(values) > 1 else
                                    values[0] if values else None)  # fmt: skip

    def leave(self) -> None:
        self._context.close()
        assert not self.complaints


Look = Callable[..., Visit]


@pytest.fixture
def look(chromium: Browser, runs: Runs) -> Iterator[Look]:
    """Open a page: ``look(viewport=...)``; on another server with ``site``."""
    with ExitStack() as stack:

        def opened(site: Site | Folder | None = None, **options: Any) -> Visit:
            visit = Visit(chromium, site or runs.site, **options)
            stack.callback(visit.leave)
            return visit

        yield opened


def _focused(page: Page) -> str:
    script = """() => { const one = document.activeElement; return [one.localName, one.id,
        one.getAttribute("href") ?? one.name ?? "", one.dataset.switch ?? one.dataset.do ?? "",
        one.textContent.trim().slice(0, 40)].join(" ") }"""
    return str(page.evaluate(script))


class Folder(NamedTuple):
    """A static copy, in place of a server."""

    place: Path

    @property
    def url(self) -> str:
        return self.place.as_uri()


def test_a_static_copy_works_with_file_urls(look: Look, runs: Runs, tmp_path: Path) -> None:
    calm = runs.calm
    copy(RunCatalog([str(calm.path)]), tmp_path / "out", 3, False, lambda _: None)
    visit = look(Folder(tmp_path / "out"))
    page = visit.go("/index.html")
    page.click(f"text={calm.name}")
    visit.drawn()
    last = page.locator("#round").get_attribute("max")
    page.keyboard.press("ArrowLeft")
    visit.until("last => document.querySelector('#round').value === String(last - 1)", int(last))
    assert f"Round {int(last) - 1}:" in page.locator("#society output").inner_text()
    page.click("nav >> text=Exchanges")
    page.click("tbody a[data-row]")
    assert page.locator("li.stage-1").is_visible()
    page.click(".calls summary")
    page.click("table a[data-row]")
    assert page.locator("h1").inner_text().startswith("Call ")


# Live updates


def test_pages_follow_a_run_to_its_end(look: Look, tmp_path: Path) -> None:
    latency = "models.social.latency={first_token: 0.08, per_token: 0.0, capacity: 4}"
    config = small("schedule.order=lock_step", latency, "name=live")
    path, database = tmp_path / "config.yaml", tmp_path / "runs" / "live.db"
    path.write_text(yaml.safe_dump(json.loads(config.as_json())), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", str(path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=tmp_path, **quiet)  # type: ignore[call-overload]
    run = Run(database, "live")
    try:
        while not _observed(run):
            assert process.poll() is None
            time.sleep(0.02)
        with serving(database) as site:
            visit = look(site)
            _watched(visit, run)
            visit.page.goto("about:blank")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def _observed(run: Run) -> int:
    try:
        return int(run.sql("SELECT count(*) FROM episodes WHERE observed")[0][0])
    except Exception:
        return 0


def _watched(visit: Visit, run: Run) -> None:
    page = visit.go("/r/live")
    assert page.locator(".head .status").inner_text() == "running"
    page.locator("#live", has_text="live").wait_for()
    page.evaluate("() => { window.same = document.querySelector('main'); }")
    done = "() => document.querySelector('.head progress').value"
    first = page.evaluate(done)
    assert page.evaluate("() => Number(document.querySelector('#round').max)") < 2
    summary = page.locator(".side summary")
    summary.click()
    assert page.locator(".side details").get_attribute("open") is not None
    visit.until("(n) => document.querySelector('.head progress').value > n", first)
    visit.until("() => document.querySelector('#round').max === '2'")
    visit.until("() => document.querySelector('#live').dataset.state === 'done'")
    visit.until("() => document.querySelector('.side h2').textContent.includes('round 2')")
    assert page.locator("#live").inner_text() == "finished"
    assert page.locator(".head .status").inner_text() == "done"
    assert page.evaluate(done) == 48 == _observed(run)
    assert page.evaluate("() => window.same === document.querySelector('main')"), "no reload"
    assert page.evaluate("() => document.querySelector('#round').value") == "2"
    assert page.locator(".side details").get_attribute("open") is not None, "it stays open"
    assert _focused(page).startswith("summary"), "and the focus stays"
    assert (
        len(page.evaluate("() => Charts.view(document.querySelector('#map')).data('nodes')")) == 16
    )


SAMPLE = """() => { const data = (name) => Charts.view(document.querySelector("#map"))?.data(name);
    return { nodes: data("nodes")?.map(({ value, stale }) => [value, stale]) ?? null,
        output: document.querySelector("#society output")?.textContent ?? null,
        svg: document.querySelectorAll("#map svg path").length,
        round: document.querySelector("#round")?.value,
        strip: document.querySelector("#strip")?.innerText ?? "", title: document.title }; }"""


def test_the_map_of_a_run_in_progress_never_goes_empty(look: Look, tmp_path: Path) -> None:
    """Sampled over all its rounds: means are those of complete rounds, as the database has them."""
    latency = "models.social.latency={first_token: 0.1, per_token: 0.0, capacity: 4}"
    config = small("schedule.order=lock_step", "rounds=4", latency, "name=live")
    path, database = tmp_path / "config.yaml", tmp_path / "runs" / "live.db"
    path.write_text(yaml.safe_dump(json.loads(config.as_json())), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run_sim.py"), "run", str(path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=tmp_path, **quiet)  # type: ignore[call-overload]
    run = Run(database, "live")
    try:
        while _observed(run) < 17:
            assert process.poll() is None
            time.sleep(0.02)
        with serving(database) as site:
            visit = look(site)
            samples = _sampled(visit)
            _chosen_rounds_stay(visit)
            visit.page.goto("about:blank")  # which ends what the page still asks of the server
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    rounds = {sample["round"] for sample in samples}
    assert len(rounds) > 1, "the map follows"
    means = {
        row[0]: row[1]
        for row in run.sql(
            "SELECT round, avg(rating) FROM episodes e JOIN observations o ON o.episode_id = e.id "
            "WHERE stage = 'revision' AND scale = 'alignment' GROUP BY round"
        )
    }
    for sample in samples:
        assert sample["svg"] > 16 and len(sample["nodes"]) == 16
        assert all(value is not None and not stale for value, stale in sample["nodes"])
        told = re.match(r"Round (\d): mean revision alignment ([\d.]+) of 16", sample["output"])
        assert told, sample["output"]
        assert float(told[2]) == pytest.approx(means[int(told[1])], abs=0.00501)
    strips = [sample["strip"] for sample in samples]
    assert any("calls/s" in strip and "left" in strip for strip in strips)
    assert any(re.match(r"\(\d+ %\) live", sample["title"]) for sample in samples)


def _sampled(visit: Visit) -> list[dict[str, Any]]:
    """What the map shows, many times until the run is over."""
    page = visit.go("/r/live")
    page.locator("#map svg.marks").wait_for()
    samples = []
    deadline = time.monotonic() + 60
    while page.locator("#live").get_attribute("data-state") != "done":
        samples.append(page.evaluate(SAMPLE))
        assert "round=" not in page.url and time.monotonic() < deadline
        page.wait_for_timeout(60)
    assert len(samples) > 8
    return samples


def _chosen_rounds_stay(visit: Visit) -> None:
    page = visit.go("/r/live?round=1")
    newest = page.locator("#newest")
    assert newest.inner_text() == "Newest: round 3" and "round=1" in page.url
    newest.click()
    visit.until("() => document.querySelector('#round').value === '3'")
    assert "round=" not in page.url and not newest.is_visible()


def _begun(path: Path, *settings: str) -> Run:
    """A run whose status is running and whose lock is held, as if a process were playing it."""
    run = make_stored(path, *settings, name="slow", play=False)
    run.sql("UPDATE runs SET status = 'running'")
    return run


def test_user_input_survives_live_updates(look: Look, tmp_path: Path) -> None:
    run = _begun(tmp_path / "run.db", "world.size=4", "rounds=3")
    done = make_stored(tmp_path / "done.db", "world.size=4", "rounds=3", name="slow")
    with locked(run.path, "test"), serving(run) as site:
        visit = look(site)
        page = visit.go("/r/slow")
        page.get_by_text("Nothing has been played yet").wait_for()
        exchanges = look(site)
        for window in (visit, exchanges):
            window.expected = re.compile("ERR_CONNECTION_REFUSED")  # the server ends before them
        exchanges.go("/r/slow/exchanges").locator("input[name=author]").fill("12")
        shutil.copy(done.path, tmp_path / "next.db")
        Run(tmp_path / "next.db", "").sql("UPDATE runs SET status = 'running'")
        os.replace(tmp_path / "next.db", run.path)
        page.locator("#round").wait_for()
        page.locator("#map svg.marks").wait_for()
        visit.until("() => document.querySelector('.head progress').value === 48")
        exchanges.page.locator("[data-rows] a[data-row]").first.wait_for()
        assert exchanges.page.locator("input[name=author]").input_value() == "12"


def test_an_unreachable_server_is_reported(look: Look, tmp_path: Path) -> None:
    run = _begun(tmp_path / "run.db", "world.size=3")
    with locked(run.path, "test"):
        with serving(run) as site:
            visit = look(site)
            visit.expected = re.compile("ERR_CONNECTION_REFUSED")
            page = visit.go("/r/slow")
            page.get_by_text("Nothing has been played yet").wait_for()
            page.locator("#live", has_text="live").wait_for()
        visit.until("() => document.querySelector('#live').dataset.state === 'gone'")
        assert "does not answer" in page.locator("#live").inner_text()
        assert page.get_by_text("Nothing has been played yet").is_visible()


# The map


def _round(page: Page) -> str:
    return str(page.locator("#round").input_value())


def test_playback_of_the_map(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm")
    assert (_round(page), page.locator("#round").get_attribute("max")) == ("2", "2")
    last = page.evaluate(FILLS)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    visit.until("() => document.querySelector('#society output').textContent.startsWith('Round 0')")
    visit.until(f"(last) => JSON.stringify(({FILLS})()) !== JSON.stringify(last)", [last])
    assert "round=0" in page.url and _round(page) == "0"
    values = (
        "() => Charts.view(document.querySelector('#map')).data('nodes').map((one) => one.value)"
    )
    before = page.evaluate(values)
    page.locator("#measure").select_option("alignment_gain")
    visit.until(f"(old) => String(({values})()) !== old", ",".join(map(str, before)))
    assert "by=alignment_gain" in page.url and "round=0" in page.url
    page.reload()
    visit.drawn()
    assert (_round(page), page.locator("#measure").input_value()) == ("0", "alignment_gain")
    play = page.locator("[data-do=play]")
    page.keyboard.press(" ")
    assert play.get_attribute("aria-pressed") == "true" and play.inner_text() == "Pause"
    page.keyboard.press(" ")
    assert play.get_attribute("aria-pressed") == "false" and play.inner_text() == "Play"
    play.click()
    visit.until("() => document.querySelector('#round').value === '2'")
    visit.until("() => document.querySelector('[data-do=play]').ariaPressed === 'false'")
    page.locator("[data-do=previous]").click()
    assert _round(page) == "1" and "round=1" in page.url
    page.locator("#round").focus()
    page.keyboard.press("ArrowLeft")
    assert _round(page) == "0"
    page.locator("[data-do=next]").click()
    visit.until(
        "() => document.querySelector('.side h2').textContent.endsWith('statistics, round 1')"
    )


def test_the_map_shows_the_data_of_the_run(look: Look, runs: Runs) -> None:
    visit = look()
    page = visit.go("/r/calm?round=1&by=revision_engagement&agent=5")
    nodes = page.evaluate("() => Charts.view(document.querySelector('#map')).data('nodes')")
    scores = runs.calm.sql(
        "SELECT author, rating FROM episodes e JOIN observations o ON o.episode_id = e.id "
        "WHERE round = 1 AND stage = 'revision' AND scale = 'engagement'"
    )
    assert {node["agent"]: node["value"] for node in nodes} == dict(map(tuple, scores))
    edges = page.evaluate("() => Charts.view(document.querySelector('#map')).data('edges')")
    given = runs.calm.sql(
        "SELECT count(*) FROM ratings JOIN episodes e ON e.id = episode_id "
        "WHERE round = 1 AND rating IS NOT NULL AND 5 IN (rater, author)"
    )
    assert len(edges) == given[0][0] > 0
    mean = sum(row[1] for row in scores) / len(scores)
    assert (
        f"mean revision engagement {mean:.2f} of 16 agents"
        in page.locator("#society output").inner_text()
    )


PLACE = """(agent) => { const view = Charts.view(document.querySelector("#map"));
    const walk = (item) => item.datum?.agent === agent && item.bounds ? item :
        (item.items ?? []).map(walk).find(Boolean);
    const item = walk(view.scenegraph().root), at = document.querySelector("#map svg, #map canvas");
    const box = at.getBoundingClientRect(), [left, top] = view.origin();
    return [box.left + left + (item.bounds.x1 + item.bounds.x2) / 2,
        box.top + top + (item.bounds.y1 + item.bounds.y2) / 2]; }"""
EDGES = "() => Charts.view(document.querySelector('#map')).data('edges')"


def test_a_click_on_an_agent_shows_it_beside_the_map(look: Look, runs: Runs) -> None:
    visit = look()
    page = visit.go("/r/calm")
    assert page.evaluate(EDGES) == [] and "round=" not in page.url
    page.locator(".alike svg.marks").wait_for()
    page.locator("#map").scroll_into_view_if_needed()
    page.mouse.click(*page.evaluate(PLACE, 6))
    page.locator("#card h2", has_text="#6").wait_for()
    assert "agent=6" in page.url and "round=" not in page.url
    episode = runs.calm.sql("SELECT id FROM episodes WHERE author = 6 AND round = 2")[0][0]
    assert f"Open exchange {episode}" in page.locator("#card").inner_text()
    page.mouse.move(2, 2)
    ways = {edge["way"] for edge in page.evaluate(EDGES)}
    assert ways == {"in", "out"}
    page.locator("#ways").select_option("in")
    assert {edge["way"] for edge in page.evaluate(EDGES)} == {"in"} and "ways=in" in page.url
    outlines = "() => Charts.view(document.querySelector('#map')).data('outlines').length"
    assert page.evaluate(outlines) == 1
    page.mouse.move(*page.evaluate(PLACE, 6))
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert re.search(r"#6 \u00b7 born \w+ \u00b7 alignment \d \u2192 \d", tip.inner_text())
    page.click("#card >> text=Close")
    assert page.evaluate(outlines) == 0
    page.evaluate("""() => document.querySelector(".side").insertAdjacentHTML("beforeend",
        '<p data-agents="1,2,5" tabindex="0" id="planted">3 connected agents</p>')""")
    page.focus("#planted")  # as in the list of clusters
    visit.until("() => Charts.view(document.querySelector('#map')).data('outlines').length === 3")
    page.locator("#chosen").fill("6")
    page.click("#card >> text=Open agent")
    page.wait_for_url("**/r/calm/agents/6")


def test_a_tap_on_an_agent_of_a_canvas_shows_it(look: Look) -> None:
    visit = look(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)

    def as_canvas(route: Any) -> None:
        script = route.fetch()
        text = re.sub(r"const CANVAS = \d+;", "const CANVAS = 0;", script.text())
        route.fulfill(response=script, body=text)

    visit.page.route("**/society.js*", as_canvas)
    page = visit.go("/r/calm")
    page.locator(".alike svg.marks").wait_for()
    page.locator("#map canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*page.evaluate(PLACE, 6))
    page.locator("#card h2", has_text="#6").wait_for()
    assert "agent=6" in page.url


def test_the_map_can_be_used_with_the_keyboard(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm?agent=5")
    picture = page.locator("#map .chart-wrapper")
    picture.focus()
    assert (picture.get_attribute("aria-label") or "").startswith("Round 2: mean revision")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.locator("#chosen").input_value() == "10"
    assert _round(page) == "2", "the arrows do not change the round"
    page.locator("#card h2", has_text="#10").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#chosen").input_value() == "" and "agent" not in page.url
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/r/calm/agents/0")


def test_who_said_it_is_played_on_the_map(look: Look, runs: Runs) -> None:
    word = runs.calm.sql("SELECT t.text FROM texts t JOIN stage_texts s ON s.text_id = t.id")[0][0]
    word = re.findall(r"\w{6,}", word)[0]
    visit = look()
    page = visit.go(f"/r/calm/search?q={word}")
    page.locator("#spread").wait_for()
    page.click("text=Show on the map")
    visit.drawn()
    output = page.locator("#society output")
    output.filter(has_text="have said it").wait_for()
    counts = []
    for round in range(3):
        page.locator("#round-number").fill(str(round))
        page.locator("#round-number").press("Enter")
        output.filter(has_text=f"Round {round}: ").wait_for()
        counts.append(int(re.findall(r": (\d+) of 16 agents have", output.inner_text())[0]))
    assert 0 < counts[0] <= counts[1] <= counts[2]
    page.reload()
    visit.drawn()
    assert f": {counts[2]} of 16" in output.inner_text() and "round=2" in page.url


# Search and filters


def test_search_highlights_matches(look: Look, runs: Runs) -> None:
    draft = runs.calm.sql(
        "SELECT text FROM texts WHERE id IN (SELECT text_id FROM stage_texts WHERE stage = 'draft')"
    )[0][0]
    word = max(re.findall(r"[a-z]{5,}", draft), key=len)
    visit = look()
    page = visit.go("/r/calm")
    page.keyboard.press("/")
    assert _focused(page).startswith("input")
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/r/calm/search?q={word}")
    marked = page.locator(".hits mark")
    assert marked.count() and marked.first.inner_text().lower().startswith(word)
    page.locator("main").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/r/calm/exchanges/*?q={word}")
    assert page.locator(".exchange mark").first.inner_text().lower().startswith(word)


def test_filters_are_query_parameters(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm/exchanges")
    page.locator("input[name=round]").fill("1")
    page.locator("select[name=label]").select_option("good")
    page.locator(".filters button").click()
    page.wait_for_url("**label=good**")
    assert page.url.endswith("?round=1&label=good"), "empty fields are not sent"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("link", name="Exchange", exact=True).click()
    page.wait_for_url("**order=number")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    rows = "() => [...document.querySelectorAll('a[data-row]')].map((one) => one.textContent)"
    there, shown = page.url, page.evaluate(rows)
    assert shown and all(16 <= int(number) < 32 for number in shown)
    assert shown == sorted(shown, key=int)

    def same() -> None:
        assert page.url == there and page.evaluate(rows) == shown
        assert page.locator("input[name=round]").input_value() == "1"
        assert page.locator("input[name=order]").input_value() == "number"

    same()
    page.reload()
    same()
    page.locator("a[data-row]").first.click()
    page.wait_for_url(f"**/exchanges/{shown[0]}*")
    page.go_back()
    same()


# Agents, exchanges, calls


def test_the_page_of_an_agent(look: Look, runs: Runs) -> None:
    changed = """SELECT m.agent, was.text AS was, now.text AS now, m.round FROM memories m
        JOIN questions q ON q.id = m.question_id
        JOIN memories n ON n.agent = m.agent AND n.round < m.round
        JOIN questions p ON p.id = n.question_id AND p.text_id = q.text_id
        JOIN texts was ON was.id = n.text_id JOIN texts now ON now.id = m.text_id
        WHERE was.text <> now.text AND NOT EXISTS (SELECT 1 FROM memories o
            JOIN questions r ON r.id = o.question_id WHERE o.agent = m.agent
            AND r.text_id = q.text_id AND o.round > n.round AND o.round < m.round) LIMIT 1"""
    row = runs.calm.sql(changed)[0]
    agent = runs.calm.sql("SELECT * FROM agents WHERE number = ?", row["agent"])[0]
    persona = json.loads(agent["persona"])
    visit = look()
    page = visit.go(f"/r/calm/agents/{row['agent']}?only=again")
    assert page.locator("h1").inner_text() == f"{persona['name']} #{row['agent']}"
    facts = page.locator("section[aria-labelledby=who]").inner_text()
    for said in (agent["label"], persona["voice"], persona["occupation"], persona["place"]):
        assert str(said) in facts
    both = page.locator(".before-now")
    pairs = [[" ".join(one.split()) for one in pair.locator("> div > .model-text")
              .all_inner_texts()] for pair in both.all()]  # fmt: skip
    was, now = (" ".join(row[name].split()) for name in ("was", "now"))
    assert [was, now] in pairs
    heads = page.locator(".beliefs[data-rows] > li > .turn").all_inner_texts()
    assert all("answered again" in text or "changed its mind" in text for text in heads)
    told = page.locator("section[aria-labelledby=received] .reasons li")
    given = runs.calm.sql("SELECT count(*) FROM ratings WHERE episode_id IN "
                          "(SELECT id FROM episodes WHERE author = ?)", row["agent"])  # fmt: skip
    assert told.count() == given[0][0]
    gave = runs.calm.sql("SELECT count(*), avg(rating) FROM ratings WHERE rater = ?", row["agent"])[
        0
    ]
    gives = page.locator("section[aria-labelledby=given]").inner_text()
    assert str(gave[0]) in gives and f"{gave[1]:.2f}" in gives
    page.locator("select[name=only]").select_option("prior")
    page.locator(".filters button").click()
    page.wait_for_url("**only=prior**")
    assert page.locator("section[aria-labelledby=internal] li").first.get_by_text("prior memory")


def _recalling(run: Run) -> Any:
    """A call for a draft with a recalled memory, in an exchange whose draft was revised."""
    return run.sql(
        "SELECT c.id, c.episode_id, c.distance, d.text AS draft, r.text AS revision FROM calls c "
        "JOIN episodes e ON e.id = c.episode_id AND e.author = c.agent "
        "JOIN stage_texts a ON a.episode_id = e.id AND a.stage = 'draft' "
        "JOIN stage_texts b ON b.episode_id = e.id AND b.stage = 'revision' "
        "JOIN texts d ON d.id = a.text_id JOIN texts r ON r.id = b.text_id "
        "JOIN forms f ON f.id = c.form_id WHERE f.name = 'draft' AND c.memory_id IS NOT NULL "
        "AND d.text <> r.text LIMIT 1"
    )[0]


def test_an_exchange_shows_the_diff_and_the_recalled_memory(look: Look, runs: Runs) -> None:
    row = _recalling(runs.calm)
    visit = look()
    page = visit.go(f"/r/calm/exchanges/{row['episode_id']}")
    pieces = changed_words(row["draft"], row["revision"])
    for tag, kind in (("ins", "new"), ("del", "gone")):
        wanted = [piece.text for piece in pieces if piece.kind == kind]
        assert page.locator(f"#diff {tag}").all_text_contents() == wanted
    whole = """(tag) => { const one = document.querySelector("#diff").cloneNode(true);
        one.querySelectorAll(tag).forEach((x) => x.remove()); return one.textContent }"""
    assert page.evaluate(whole, "ins") == row["draft"]
    assert page.evaluate(whole, "del") == row["revision"]
    calls = runs.calm.sql(
        "SELECT id FROM calls WHERE episode_id = ? ORDER BY id", row["episode_id"]
    )
    page.locator(".calls summary").click()
    listed = page.locator("[aria-label=Calls] a[data-row]").all_inner_texts()
    assert listed == [str(call[0]) for call in calls]
    page.get_by_text("why this memory").click()
    page.wait_for_url(f"**/calls/{row['id']}#recall")
    visit.drawn()
    chosen = page.locator("#recall tr[aria-current=true]")
    assert chosen.count() == 1 and "recalled" in chosen.inner_text()
    assert f"{row['distance']:.4f}" in chosen.inner_text()
    assert "recalls the nearest, whatever its distance" in page.locator("#recall").inner_text()
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_url("**/r/calm/exchanges")


def test_texts_of_an_exchange_are_copied(look: Look, runs: Runs) -> None:
    row = _recalling(runs.calm)
    visit = look(permissions=["clipboard-read", "clipboard-write"])
    page = visit.go(f"/r/calm/exchanges/{row['episode_id']}?view=inline")
    board = "() => navigator.clipboard.readText()"
    for name in ("draft", "revision"):
        page.get_by_role("button", name=f"Copy the {name}").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate(board) == row[name]
        page.get_by_text("Copied").wait_for(state="hidden")
    page.locator("#diff").select_text()
    page.keyboard.press("Control+c")
    assert page.evaluate(board).split() == row["revision"].split(), "without deleted words"
    page.get_by_role("button", name="Copy as JSON").click()
    page.get_by_text("Copied").wait_for()
    assert json.loads(page.evaluate(board))["revision"] == row["revision"]
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
    page.get_by_role("button", name="Copy as Markdown").click()
    visit.until("async () => (await navigator.clipboard.readText()).startsWith('## Exchange')")
    assert f"> {row['draft']}" in page.evaluate(board)


def test_draft_and_revision_side_by_side(look: Look, runs: Runs) -> None:
    path = f"/r/calm/exchanges/{_recalling(runs.calm)['episode_id']}"

    def boxes(page: Page) -> list[Any]:
        return [page.locator(f"#text-{name}").bounding_box() for name in ("draft", "revision")]

    wide = look(viewport={"width": 1440, "height": 900})
    draft, revision = boxes(wide.go(path))
    assert draft["x"] + draft["width"] < revision["x"] and abs(draft["y"] - revision["y"]) < 80
    assert wide.page.locator("#diff del:visible").count() == 0
    wide.page.get_by_role("link", name="Inline").click()
    wide.page.wait_for_url("**?view=inline")
    draft, revision = boxes(wide.page)
    assert draft["x"] == revision["x"] and draft["y"] + draft["height"] < revision["y"]
    assert wide.page.locator("#diff del:visible").count() > 0
    narrow = look(viewport=PHONE)
    draft, revision = boxes(narrow.go(path))
    assert draft["y"] + draft["height"] < revision["y"]


def test_long_texts_are_folded(look: Look, runs: Runs) -> None:
    long = runs.bad.sql("SELECT episode_id FROM stage_texts JOIN texts ON id = text_id "
                        "WHERE length(text) > 90000 LIMIT 1")[0][0]  # fmt: skip
    page = look().go(f"/r/calm~2/exchanges/{long}")
    card = page.locator(".fold .card").first
    assert card.bounding_box()["height"] < 400
    page.get_by_label("Show all").first.check()
    assert card.bounding_box()["height"] > 2000


def test_comparison_of_two_runs(look: Look, runs: Runs) -> None:
    visit = look()
    page = visit.go("/")
    page.get_by_role("link", name="Compare runs").click()
    page.wait_for_url("**/compare")
    for name in ("calm", "other"):
        page.locator("select[name=run]").select_option(name)  # applies at once
        page.wait_for_url(f"**run={name}**")
    page.locator("#differences:not([aria-busy])").wait_for()
    visit.drawn()
    table = page.locator("#differences table").first
    rows = [line.split("\t") for line in table.inner_text().splitlines()]
    gain = next(row for row in rows if row[0] == "revision alignment")
    ends = [
        {row[0]: row[1] for row in run.sql("SELECT episode_id, rating FROM observations WHERE "
         "stage = 'revision' AND scale = 'alignment' AND episode_id >= 16")}
        for run in (runs.calm, runs.other)
    ]  # fmt: skip
    apart = [ends[1][number] - score for number, score in ends[0].items()]
    assert gain[3].replace("\u2212", "-") == f"{sum(apart) / len(apart):+.3f}", "after the fork"
    assert "paired" in page.locator("#differences").inner_text().lower()
    page.locator("#differences a[data-row]").first.click()
    page.wait_for_url("**episode=*")
    assert page.locator(".compare .title").all_inner_texts() == ["calm", "other"]
    questions = page.locator(".compare .model-text.block")
    assert questions.nth(0).inner_text() == questions.nth(1).inner_text()
    assert questions.count() == 6
    assert page.locator(".pair-diff :is(ins, del)").count() > 0


def test_runs_are_chosen_on_the_list_and_compared(look: Look, runs: Runs) -> None:
    visit = look()
    page = visit.go("/")
    button = page.locator("[data-count]")
    assert button.is_disabled() and button.inner_text() == "Compare"
    for name in ("calm", "other"):
        page.locator(f'input[name=run][value="{name}"]').check()
    assert button.inner_text().split() == ["Compare", "(2)"]
    button.click()
    page.wait_for_url("**/compare?run=*&run=*")
    page.locator("#differences:not([aria-busy]) table").first.wait_for()
    visit.drawn()
    chips = page.locator(".run-chip a:not(.remove)")
    assert sorted(chips.all_inner_texts()) == ["calm", "other"]
    title = page.locator("#differences .chart figcaption strong").inner_text()
    assert title == f"{chips.nth(1).inner_text()} \u2212 {chips.nth(0).inner_text()}"
    legend = page.locator("#differences .chart svg.marks").text_content()
    assert "interval excludes 0" in legend
    page.locator("select[name=baseline]").select_option("other")
    page.wait_for_url("**baseline=other**")
    assert "baseline" in page.locator(".run-chip", has_text="other").inner_text()
    page.locator("#differences:not([aria-busy]) table").first.wait_for()
    for figure in ("versus", "differences-1"):
        for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"")):
            chart = page.locator(f".chart:has(#{figure})")
            with page.expect_download() as saved:
                chart.get_by_role("link", name=kind).click()
            content = saved.value.path().read_bytes()
            assert content.startswith(start) and saved.value.suggested_filename.startswith(figure)
            if kind == "CSV":
                rows = list(csv.DictReader(content.decode().splitlines()))
                assert ("p_holm" in rows[0]) == (figure != "versus") and len(rows) >= 6
    config = page.locator("table:has(code)").inner_text()
    assert "world.score_only" in config and "true" in config and "True" not in config
    page.get_by_role("link", name="Remove other").click()
    page.wait_for_url("**/compare?run=calm*")
    assert "baseline" not in page.url
    options = page.locator("select[name=run] optgroup").first
    assert options.get_attribute("label") == "Forks"
    assert options.locator("option").first.inner_text() == "other"


def test_runs_are_compared_without_scripts(look: Look) -> None:
    page = look(java_script_enabled=False).page
    page.goto(f"{look().site.url}/?sort=run")
    page.locator('input[name=run][value="calm"]').check()
    page.locator('input[name=run][value="other"]').check()
    page.locator("[data-count]").click()
    assert page.locator(".run-chip a:not(.remove)").all_inner_texts() == ["calm", "other"]
    page.locator("thead a, .run-chip").first.wait_for()
    page.go_back()
    page.locator("thead a", has_text="Rounds").click()
    assert "sort=-rounds" in page.url
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Rounds")


def test_a_search_finds_exchanges_of_several_runs(look: Look) -> None:
    visit = look()
    page = visit.go("/")
    page.keyboard.press("/")
    page.keyboard.type("people the")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=people+the")
    assert {"calm", "other"} <= set(page.locator("h2 a").all_inner_texts())
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/exchanges/*?q=people+the")


# Behind a reverse proxy


@contextmanager
def proxied(kind: str, runs: Runs, folder: Path) -> Iterator[Behind]:
    """The runs, served below a path by a kind of proxy and of configuration."""
    prefix = "/user/me/proxy/8765"
    given = prefix if kind in ("given", "kept") else ""
    shown = runs.calm, runs.other, runs.calm.path.parent / "idle.db"
    with serving(*shown, prefix=given, hosts=["hub.localhost"]) as site, ExitStack() as stack:
        if kind == "nginx":
            yield stack.enter_context(nginx_proxy(site.port, prefix, folder))
        else:
            proxy = python_proxy(site.port, prefix, strip=kind != "kept", tell=not given)
            yield stack.enter_context(proxy)


@pytest.mark.parametrize("kind", ["told", "given", "kept", "nginx"])
def test_all_works_behind_a_reverse_proxy(
    chromium: Browser, runs: Runs, tmp_path: Path, kind: str
) -> None:
    if kind == "nginx" and NGINX is None:
        missing("nginx is not installed: apt-get install nginx-light", "chromium")
    with proxied(kind, runs, tmp_path) as behind:
        visit = Visit(chromium, behind)  # complains about requests that are not below the path
        page = visit.go("/")
        page.get_by_role("link", name="calm").first.click()
        page.wait_for_url("**/r/calm")
        visit.drawn()
        visit.until(f"() => ({FILLS})().length >= 16")
        with page.expect_download() as saved:
            page.get_by_role("link", name="SVG").first.click()
        assert saved.value.path().read_bytes().startswith(b"<svg")
        page.locator("a[data-key=agents]").click()
        page.locator("a[data-row]").first.click()
        visit.drawn()
        page.goto(f"{behind.url}/compare?run=calm&run=other")
        page.locator("#differences:not([aria-busy]) table").first.wait_for()
        visit.drawn()
        page.locator("#differences a[data-row]").first.click()
        page.locator(".pair-diff").wait_for()
        with page.expect_response("**/idle/pulse.json") as polled:
            page.goto(f"{behind.url}/r/idle")
        assert polled.value.ok and polled.value.url.startswith(behind.url)
        visit.expected = re.compile("404")
        page.goto(f"{behind.url}/r/nobody")
        page.locator("a.home").click()
        page.wait_for_url(f"{behind.url}/")
        visit.leave()


# Downloads


def test_downloads(look: Look, runs: Runs, tmp_path: Path) -> None:
    visit = look(accept_downloads=True)
    page = visit.go("/r/calm/exchanges?round=1&label=good")
    wanted = [
        row[0]
        for row in runs.calm.sql(
            "SELECT id FROM episodes JOIN agents ON number = author "
            "WHERE round = 1 AND label = 'good' ORDER BY id"
        )
    ]

    def taken(wish: Any) -> Path:
        with page.expect_download() as waiting:
            wish.click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    table = taken(page.get_by_role("link", name="CSV", exact=True))
    with table.open(encoding="utf-8", newline="") as file:
        assert [int(row["episode"]) for row in csv.DictReader(file)] == wanted
    lines = taken(page.get_by_role("link", name="JSONL", exact=True))
    assert [json.loads(line)["episode"] for line in lines.read_text().splitlines()] == wanted
    visit.go("/r/calm")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"round,")):
        path = taken(page.get_by_role("link", name=f"{kind} of Alignment by round", exact=True))
        assert path.name == f"alignment-by-round.{kind.lower()}"
        assert path.read_bytes().startswith(start)
    menu = page.locator("#plane details")
    menu.locator("summary").click()
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        path = taken(menu.get_by_text(f"Save as {kind}"))
        assert path.name == f"plane.{kind.lower()}" and path.read_bytes().startswith(start)


# Keyboard


def test_keyboard_focus_order(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm")
    seen = []
    outline = """() => { const style = getComputedStyle(document.activeElement);
        return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0; }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(_focused(page))
        if seen[-1].startswith("body"):
            break
        assert page.evaluate(outline), seen[-1]
    wanted = ["#main", "Sandbox society", "input", "next", "blur", "/agents", "/exchanges",
              "/about", "previous", "play", "round", "measure", "summary", "SVG", "?"]  # fmt: skip
    places = [next((n for n, one in enumerate(seen) if name in one), None) for name in wanted]
    assert None not in places, list(zip(wanted, places, strict=True))
    assert places[:12] == sorted(places[:12]), list(zip(wanted, places, strict=True))
    page.locator("a.skip").focus()
    page.keyboard.press("Enter")
    assert _focused(page).startswith("main")


def test_keyboard_shortcuts(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm/exchanges")
    links = page.locator("a[data-row]")
    numbers = links.all_inner_texts()
    for key, place in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        assert _focused(page).endswith(numbers[place])
    dialog = page.locator("dialog")
    for end in ("?", "Escape"):
        page.keyboard.press("?")
        assert dialog.is_visible() and "search" in dialog.inner_text()
        page.keyboard.press("j")
        page.keyboard.press(end)
        assert not dialog.is_visible()
        assert _focused(page).endswith(numbers[1]), "the focus is back"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/exchanges/{numbers[1]}")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/exchanges/{numbers[0]}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/exchanges/{numbers[1]}")
    page = visit.go("/r/calm/exchanges?order=-alignment_gain")
    first, second = page.locator("a[data-row]").all_inner_texts()[:2]
    page.locator("a[data-row]").first.click()
    page.wait_for_url(f"**/exchanges/{first}?order=*")
    for key, number in (("n", second), ("p", first)):
        page.keyboard.press(key)
        page.wait_for_url(f"**/exchanges/{number}?order=-alignment_gain")
    places = {"a": "/r/calm/agents", "c": "/r/calm/calls", "t": "/r/calm/ratings",
              "b": "/r/calm/about", "s": "/r/calm", "r": "/"}  # fmt: skip
    for key, path in places.items():
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(re.compile(rf"^{visit.site.url}{path}(\?.*)?$"))
    page = visit.go("/r/calm/exchanges")
    page.keyboard.press("/")
    page.keyboard.type("gt?bj")
    assert page.locator("header input").input_value() == "gt?bj" and not dialog.is_visible()


def test_texts_can_be_blurred(look: Look) -> None:
    visit = look()
    page = visit.go("/r/calm/exchanges/3")
    blurred = "(n) => getComputedStyle(document.querySelectorAll('.model-text')[n]).filter"
    assert page.evaluate(blurred, 1) == "none"
    page.keyboard.press("b")
    visit.until(f"() => ({blurred})(1).startsWith('blur')")
    page.locator(".model-text").nth(1).hover()
    visit.until(f"() => ({blurred})(1) === 'none'")
    page.mouse.move(1, 1)
    visit.until(f"() => ({blurred})(1).startsWith('blur')")
    page.locator(".model-text").nth(1).focus()
    visit.until(f"() => ({blurred})(1) === 'none'")
    assert page.evaluate(blurred, 0).startswith("blur")
    page.reload()
    assert page.evaluate(blurred, 1).startswith("blur"), "it is remembered"
    assert page.locator("[data-switch=blur]").get_attribute("aria-pressed") == "true"
    page.locator("[data-switch=blur]").click()
    visit.until(f"() => ({blurred})(1) === 'none'")


# Themes and layout


COLOURS = """() => ({
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    chart: [...document.querySelectorAll("#alignment-by-round svg text, #map svg path")]
        .map((one) => one.getAttribute("fill") ?? "").filter((fill) => !fill.startsWith("url"))
        .join(" "),
})"""


def test_light_and_dark_differ(look: Look) -> None:
    light, dark = (look(color_scheme=scheme) for scheme in ("light", "dark"))
    found = [visit.go("/r/calm").evaluate(COLOURS) for visit in (light, dark)]
    for part in ("paper", "ink", "chart"):
        assert found[0][part] != found[1][part], part
    page = light.page
    themes = []
    for _ in range(3):
        page.keyboard.press("t")
        themes.append(page.evaluate("() => document.documentElement.dataset.theme ?? 'auto'"))
        if themes[-1] == "dark":
            light.until(f"(dark) => ({COLOURS})().chart === dark", found[1]["chart"])
            assert page.evaluate(COLOURS) == found[1]
            page.reload()
            light.until(f"(dark) => ({COLOURS})().chart === dark", found[1]["chart"])
            assert page.evaluate(COLOURS) == found[1], "it is remembered"
    assert themes == ["light", "dark", "auto"]
    light.until(f"(old) => ({COLOURS})().chart === old", found[0]["chart"])


def _pages(runs: Runs, key: str = "calm") -> list[str]:
    row = _recalling(runs.calm)
    parts = ["", "?agent=5", "?q=the&by=said", "agents", "agents/3", "exchanges",
             f"exchanges/{row['episode_id']}", "ratings",
             "calls", f"calls/{row['id']}", "about", "search?q=the"]  # fmt: skip
    return [f"/r/{key}" + (f"/{part}" if part and part[0] != "?" else part) for part in parts]


def _others(runs: Runs) -> list[str]:
    return ["/", "/?group=config", "/search?q=kind+the", "/compare?run=calm&run=other&episode=20",
            "/r/scene", "/r/scene/exchanges/2", "/r/scene/agents", "/r/idle"]  # fmt: skip


def _fits(page: Page) -> None:
    width = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], page.url


def test_every_page_fits_a_phone(look: Look, runs: Runs) -> None:
    visit = look(viewport=PHONE, has_touch=True)
    for path in [*_pages(runs), *_others(runs)]:
        _fits(visit.go(path))


def test_lists_are_cards_on_a_phone(look: Look) -> None:
    page = look(viewport=PHONE).go("/r/calm/exchanges")
    assert page.locator("tbody tr").first.bounding_box()["height"] < 150
    cells = page.locator("tbody tr").first.locator("td.n:visible")
    right = page.viewport_size["width"]
    boxes = [cell.bounding_box() for cell in cells.all()]
    assert len(boxes) >= 4 and all(0 <= one["x"] < one["x"] + one["width"] < right for one in boxes)


def test_pages_are_printed_whole(look: Look) -> None:
    """On paper nothing is cut off, charts do not overlap texts, and no column is a few letters."""
    visit = look()
    visit.page.emulate_media(media="print")
    portrait, landscape = 690, 1017  # the width of the text of an A4 page
    for path, width in (("/r/calm", portrait), ("/r/calm/exchanges/20", portrait),
                        ("/r/calm/ratings", portrait), ("/r/calm/agents", landscape)):  # fmt: skip
        visit.page.set_viewport_size({"width": width, "height": 1000})
        page = visit.go(path)
        _fits(page)
        overlaps = """() => [...document.querySelectorAll(".chart")].filter((chart) => {
            const svg = chart.querySelector("svg.marks"), box = chart.getBoundingClientRect();
            return svg && svg.getBoundingClientRect().bottom > box.bottom + 1 }).length"""
        assert page.evaluate(overlaps) == 0, path
        narrow = """() => [...document.querySelectorAll("td .model-text")]
            .filter((one) => one.getClientRects().length && one.offsetWidth < 90).length"""
        assert page.evaluate(narrow) == 0, path
    assert visit.page.locator("header.top").is_hidden()


def test_hostile_texts_are_not_executed(look: Look, runs: Runs) -> None:
    """`Visit` checks that no script ran, nothing was requested and no dialog opened."""
    visit = look(viewport=PHONE)
    for path in [*_pages(runs, "calm~2"), "/", "/r/calm~2/exchanges/0"]:
        page = visit.go(path)
        _fits(page)
        page.set_viewport_size({"width": 1280, "height": 800})
        _fits(page)
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        assert page.locator("img, iframe, object, main script:not([type])").count() == 0
        assert page.title() and page.locator("main h1").first.is_visible()
    assert "<script>alert(1)</script>" in visit.go("/r/calm~2").locator("#map").inner_text() + (
        visit.go("/r/calm~2/agents").locator("main").inner_text()
    )


DARK = re.compile(r"^/$|/calm$|/agents/|/exchanges/|/calls/|/ratings|episode=|nothing")


def test_every_page_is_accessible(look: Look, runs: Runs) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visit, found = look(color_scheme="light"), []
    visit.expected = re.compile("status of 404")
    filtered = ["agents/3?only=again", "exchanges?kind=fell&spread_min=2", "calls/40?form=draft",
                "exchanges/20?order=number&view=inline"]  # fmt: skip
    for path in [
        *_pages(runs),
        *_others(runs),
        *(f"/r/calm/{one}" for one in filtered),
        "/nothing",
    ]:
        page = visit.go(path)
        for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            if scheme == "dark" and not DARK.search(path):
                continue
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            options = {"resultTypes": ["violations"], **rules}
            for one in Axe().run(page, options=options).response["violations"]:
                nodes = [node["html"][:200] + node["failureSummary"] for node in one["nodes"]]
                found.append((path, scheme, one["id"], nodes[:3]))
        page.emulate_media(color_scheme="light")
    assert not found


# Scenes


def test_the_page_of_a_scene(look: Look, runs: Runs) -> None:
    number, harm = runs.scene.sql(
        "SELECT episode_id, critique.text FROM acts a JOIN texts critique "
        "ON critique.id = a.critique_id WHERE a.harm AND EXISTS (SELECT 1 FROM acts b WHERE "
        "b.episode_id = a.episode_id AND NOT b.passed) ORDER BY a.episode_id LIMIT 1"
    )[0]
    parts = runs.scene.sql("SELECT t.text FROM parts JOIN texts t ON t.id = name_id "
                           "WHERE episode_id = ? ORDER BY number", number)  # fmt: skip
    refused = runs.scene.sql("SELECT t.text FROM acts JOIN texts t ON t.id = text_id "
                             "WHERE episode_id = ? AND NOT passed", number)  # fmt: skip
    answers = runs.scene.sql(
        "SELECT text FROM stage_texts JOIN texts ON id = text_id "
        "WHERE episode_id = ? ORDER BY stage", number)  # fmt: skip
    visit = look()
    page = visit.go(f"/r/scene/exchanges/{number}")
    assert page.locator(".parts strong").all_inner_texts() == [row[0] for row in parts]
    lines = page.locator(".line.refused > .model-text")
    assert [one.strip() for one in lines.all_text_contents()] == [row[0].strip() for row in refused]
    assert "refused" in page.locator(".line.refused").first.get_attribute("data-why")
    acts = runs.scene.sql("SELECT passed, harm, reacts_to FROM acts WHERE episode_id = ?", number)
    refusals = sum(row["passed"] == 0 for row in acts)
    harmful = sum(bool(row["harm"]) for row in acts)
    head = page.locator(".scene > .turn").inner_text()
    assert f"{len(parts)} people" in head and f"{len(acts)} acts" in head
    assert f"{refusals} refused" in head and f"{harmful} harmful" in head
    assert page.locator(".line.depth-0").count() == sum(row["reacts_to"] is None for row in acts)
    assert "Nobody is the worse" not in page.locator(".scene").inner_text()
    page.locator(".scene > .turn a").first.click()
    assert page.locator(".line:target").is_visible()
    harms = page.locator(".harm").all_text_contents()
    assert any(harm.strip() in one for one in harms)
    assert page.locator(".stage-1 .card").text_content().strip() == answers[0][0].strip()
    page.get_by_role("link", name="Revision only").click()
    page.wait_for_url("**?view=revision")
    assert page.locator("#text-revision").inner_text() == answers[1][0]
    assert page.get_by_role("heading", name="Revision", exact=True).is_visible()


def test_scenes_are_listed(look: Look, runs: Runs) -> None:
    page = look().go("/r/scene")
    wanted = runs.scene.sql(
        "SELECT episode_id, count(*), sum(NOT passed), sum(coalesce(harm, 0)) FROM acts "
        "GROUP BY episode_id ORDER BY episode_id DESC"
    )
    rows = page.locator("[aria-label=Scenes] tbody tr")
    numbers = [[int(row.locator("th, td.n").nth(n).inner_text()) for n in (0, 2, 3, 4)]
               for row in rows.all()]  # fmt: skip
    assert numbers == [list(row) for row in wanted]
    assert page.locator(".tabs a").all_inner_texts()[:2] == ["Society", "Exchanges"]
    assert page.locator(".plot").count() == 0, "no curves of a single round"


# Empty pages


def test_empty_pages_and_errors(look: Look) -> None:
    visit = look()
    for path, words in (
        ("/r/idle", "Nothing has been played yet"),
        ("/r/idle/exchanges", "No matching exchanges"),
        ("/r/idle/ratings", "Nobody has rated yet"),
        ("/r/idle/calls", "No matching calls"),
        ("/r/idle/agents/3", "Not rated yet"),
        ("/r/calm/search", "No search term"),
        ("/r/calm/search?q=xylophone", "No matches"),
        ("/r/calm/agents?q=xylophone", "No matching agents"),
        ("/r/scene/agents", "This run has no agents"),
        ("/compare", "Choose at least two runs"),
    ):
        assert visit.go(path).get_by_text(words).is_visible(), path
    visit.expected = re.compile(r"status of 40[04]")
    for path, words in (
        ("/r/nobody", "There is no run nobody here"),
        ("/nothing", "There is no such page"),
        ("/r/calm/agents/99", "expected 0 to 15"),
        ("/r/calm/exchanges/48", "not played"),
        ("/r/calm/exchanges?round=x", "round: found x; expected a number"),
    ):
        page = visit.go(path)
        assert page.get_by_text(words).is_visible(), path
        page.get_by_role("link", name="See all runs").click()
        page.wait_for_url(f"{visit.site.url}/")
    page.locator("a[data-row]").first.wait_for()


def test_access_with_a_token(look: Look, runs: Runs) -> None:
    with serving(runs.calm, token="s3cret") as site:
        visit = look(site)
        visit.expected = re.compile("status of 403")
        page = visit.page
        page.goto(f"{site.url}/r/calm")
        assert "expected the URL with the token" in page.content()
        page = visit.go("/r/calm?token=s3cret")
        assert "s3cret" not in page.url and "s3cret" not in page.content()
        assert page.evaluate("() => document.cookie") == "", "scripts cannot read it"
        page.keyboard.press("g")
        page.keyboard.press("a")
        page.wait_for_url("**/r/calm/agents")
        assert page.locator("h1").inner_text() == "Agents"


def test_statistics_beside_the_map_are_announced_until_they_are_there(look: Look) -> None:
    visit = look()
    visit.expected = re.compile("status of 500")
    failing: list[Any] = []
    visit.page.route("**/advice/*", lambda route: failing.append(route))  # answered below
    page = visit.go("/r/calm")
    side = page.locator(".side [data-fragment]")
    assert side.inner_text() == "Computing neighbourhood statistics \u2026"
    visit.until("() => document.querySelector('.alike').getAttribute('aria-busy') === null")
    while not failing:
        page.wait_for_timeout(50)
    failing.pop().fulfill(status=500)
    side.get_by_text("This part could not be loaded.").wait_for()
    assert side.get_attribute("aria-busy") is None


@pytest.mark.parametrize("width", [390, 1280])
def test_agents_fit_with_names_without_spaces(look: Look, width: int) -> None:
    visit = look(viewport={"width": width, "height": 900})
    page = visit.go("/r/calm/agents")
    page.evaluate("""() => document.querySelectorAll("th.short a").forEach((one) => {
        one.textContent = "N".repeat(60) + " #1"; })""")
    _fits(page)
    assert page.locator("[data-rows]").evaluate("(one) => one.scrollWidth - one.clientWidth") <= 0
