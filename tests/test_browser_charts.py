"""The charts of pages in Chromium: crosshair, legend, axes, rounds, sorting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from stored import Run
from stored import make as make_run
from test_browser import Look, Visit, chromium
from viewing import serving

__all__ = ["chromium"]

pytestmark = pytest.mark.long

Page = Any


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of as many rounds as smoothing and a range of rounds are offered for."""
    folder = tmp_path_factory.mktemp("rounds")
    return make_run(folder / "small.db", "world.size=3", "rounds=32", "memory.prior_pairs=9")


@pytest.fixture
def visit(chromium: Any, run: Run) -> Iterator[Look]:
    with serving(run) as site:
        visits = []

        def opened(**options: Any) -> Visit:
            visits.append(Visit(chromium, site, **options))
            return visits[-1]

        yield opened
        for one in visits:
            one.leave()


def chart(page: Page, name: str = "alignment-by-round") -> Any:
    return page.locator(f"#{name} .chart-wrapper")


def lines(page: Page, name: str = "alignment-by-round") -> int:
    return int(page.locator(f"#{name} .mark-line path").count())


def labels(page: Page) -> list[str]:
    found = page.locator("#alignment-by-round .role-axis-label").last
    return list(found.locator("text").all_text_contents())


def means(run: Run, round: int) -> list[str]:
    """The means of a round, as the chart tells them."""
    rows = run.sql(
        "SELECT o.stage, avg(o.rating) AS mean FROM observations o JOIN episodes e ON "
        "e.id = o.episode_id WHERE e.round = ? AND o.scale = 'alignment' GROUP BY o.stage",
        round,
    )
    peers = run.sql(
        "SELECT avg(r.rating) AS mean FROM ratings r JOIN episodes e ON e.id = r.episode_id "
        "WHERE e.round = ?",
        round,
    )
    told = [(row["stage"], row["mean"]) for row in rows] + [("peers", peers[0]["mean"])]
    return [f"{name} {mean:.2f}" for name, mean in told]


def test_a_crosshair_shows_all_series_of_the_nearest_round(visit: Look, run: Run) -> None:
    page = visit().go("/r/small")
    chart(page).scroll_into_view_if_needed()
    box = chart(page).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 60)
    shown = page.locator("#alignment-by-round .values")
    shown.wait_for()
    round = int(shown.locator("strong").inner_text().removeprefix("Round "))
    assert 12 <= round <= 19
    assert shown.locator("b").all_inner_texts() == means(run, round)
    page.mouse.move(5, 5)
    shown.wait_for(state="hidden")
    chart(page).focus()
    before = page.url
    for key, at in (("Home", 0), ("ArrowRight", 1), ("End", 31), ("ArrowLeft", 30)):
        page.keyboard.press(key)
        assert shown.locator("strong").inner_text() == f"Round {at}"
        assert shown.locator("b").all_inner_texts() == means(run, at)
    assert page.url == before  # the arrow keys did not move the map
    page.keyboard.press("Escape")
    shown.wait_for(state="hidden")


def test_a_click_on_the_legend_hides_a_series(visit: Look) -> None:
    at = visit()
    page = at.go("/r/small")
    legend = page.locator("#alignment-by-round .role-legend-label text")

    def click(name: str, *keys: str) -> None:
        box = legend.get_by_text(name).bounding_box()
        for key in keys:
            page.keyboard.down(key)
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for key in keys:
            page.keyboard.up(key)

    legend.first.scroll_into_view_if_needed()
    assert lines(page) == 3
    click("peers")
    at.until("() => document.querySelectorAll('#alignment-by-round .mark-line path').length == 2")
    assert page.locator("#alignment-by-round text.gone").text_content() == "peers"
    click("draft", "Shift")
    at.until("() => document.querySelectorAll('#alignment-by-round .mark-line path').length == 1")
    click("draft", "Shift")
    at.until("() => document.querySelectorAll('#alignment-by-round .mark-line path').length == 3")
    buttons = page.locator("#alignment-by-round .series button")
    buttons.get_by_text("revision").focus()
    page.keyboard.press("Enter")
    at.until("() => document.querySelectorAll('#alignment-by-round .mark-line path').length == 2")
    assert buttons.get_by_text("revision").get_attribute("aria-pressed") == "false"
    assert lines(page, "engagement-by-round") == 2


def test_axes_rounds_and_smoothing_are_in_the_url(visit: Look) -> None:
    at = visit()
    page = at.go("/r/small")
    assert labels(page) == [str(n) for n in range(1, 8)]
    page.get_by_label("Axis").select_option("fitted")
    page.wait_for_url("**axis=fitted*")
    at.until("() => !!document.querySelector('.chart-options .soft')")
    assert float(labels(page)[0]) > 1
    path = page.locator("#alignment-by-round .mark-line path").first
    raw = path.get_attribute("d")
    page.get_by_label("Rolling mean").check()
    page.wait_for_url("**smooth=5*")
    assert path.get_attribute("d") != raw
    chart(page).scroll_into_view_if_needed()
    box = chart(page).bounding_box()
    for x, do in ((0.3, page.mouse.down), (0.6, page.mouse.up)):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] / 2)
        do()
    page.wait_for_url("**rounds=*")
    first, last = (int(end) for end in page.url.split("rounds=")[1].split("-"))
    assert 5 < first < last < 25
    page = at.go(page.url.removeprefix(at.site.url))
    assert page.get_by_label("Rolling mean").is_checked()
    assert page.get_by_label("Axis").input_value() == "fitted"
    chart(page).focus()
    page.keyboard.press("Home")
    assert page.locator("#alignment-by-round .values strong").inner_text() == f"Round {first}"
    page.get_by_role("button", name="All rounds").click()
    at.until("() => !location.search.includes('rounds')")


def test_raters_are_sorted_by_a_click_on_a_header(visit: Look, run: Run) -> None:
    page = visit().go("/r/small/ratings")
    page.get_by_text("Krippendorff\u2019s alpha of peers:").wait_for()
    means = dict(run.sql("SELECT rater, avg(rating) FROM ratings GROUP BY rater"))
    for expected in (True, False):
        page.get_by_role("link", name="Mean given").click()
        page.wait_for_url("**order=*mean*")
        shown = [one.get_attribute("href").rpartition("/")[2]
                 for one in page.locator("[data-row]").all()]  # fmt: skip
        assert [int(one) for one in shown] == sorted(means, key=lambda one: means[one],
                                                     reverse=expected)  # fmt: skip
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Mean given")
    page.locator("#bias .mark-symbol.role-mark path").first.click()
    page.wait_for_url("**/agents/*")
