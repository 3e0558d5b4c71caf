"""Latency of the viewer's pages for a large run.

Usage: python benchmarks/pages.py DATABASE [--times 5] [--browser]

`python benchmarks/million.py --questions FILE --keep FOLDER` creates a run with a million
calls. The viewer is a separate process; a page's time is that of the request over its socket: the
first one, with cold caches, then median and maximum of several. With `--browser` also the time
until Chromium has loaded the page and drawn its charts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from storage.database import open_for_reading, parse_url
from storage.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
WORDS = "plain answer"
PARTS = re.compile(r"\.json|/advice/|/by-round|/ratings/")
"""What pages load afterwards, which is drawn in them."""

DRAWN = """() => [...document.querySelectorAll(".plot")].every(
    (plot) => plot.querySelector("svg, canvas"))"""
FELL = "label=good&kind=fell&order=alignment_gain"


def pages(database: Path) -> list[tuple[str, str]]:
    """The name and the path of each page."""
    reader = Reader.find(open_for_reading(parse_url(str(database))), None, str(database))
    run, middle = f"/r/{reader.run.name}", reader.run.rounds // 2
    episode = middle * reader.run.per_round
    call = 10 * episode
    words = WORDS.replace(" ", "+")
    return [
        ("the list of runs", "/"),
        ("the society", run),
        ("curves and trends, after the society", f"{run}/by-round?split=label"),
        ("a round of the map", f"{run}/frames/{middle}.json"),
        ("clusters and influence of a round", f"{run}/advice/{middle}"),
        ("agents", f"{run}/agents"),
        ("agents, by their gain", f"{run}/agents?order=-alignment_gain"),
        ("agents, by their change over rounds", f"{run}/agents?order=-change"),
        ("an agent", f"{run}/agents/7"),
        ("an agent, where it changed its mind", f"{run}/agents/7?only=changed"),
        ("exchanges", f"{run}/exchanges"),
        ("exchanges, in the middle", f"{run}/exchanges?page={max(1, episode // 50)}"),
        ("exchanges of a label that fell", f"{run}/exchanges?{FELL}"),
        ("one of the exchanges that fell", f"{run}/exchanges/{episode}?{FELL}"),
        ("exchanges that an agent rated", f"{run}/exchanges?rater=7"),
        ("exchanges that say what all say", f"{run}/exchanges?q={words}&label=good"),
        ("an exchange", f"{run}/exchanges/{episode}"),
        ("ratings", f"{run}/ratings"),
        ("figures, after the ratings", f"{run}/ratings/figures"),
        ("calls", f"{run}/calls"),
        ("calls, in the middle", f"{run}/calls?before={call}"),
        ("calls of an agent in a round", f"{run}/calls?agent=7&round={middle}"),
        ("calls that went wrong", f"{run}/calls?status=not+ok"),
        ("a call, with what it recalled", f"{run}/calls/{call}"),
        ("about", f"{run}/about"),
        ("a search for what all say", f"{run}/search?q={words}"),
        ("a search for what nobody says", f"{run}/search?q=zyzzyva"),
        ("what live pages ask for", f"{run}/pulse.json"),
    ]


@contextmanager
def viewer(database: Path) -> Iterator[str]:
    """Start the viewer as a process; yields its URL."""
    program = [sys.executable, str(ROOT / "run_sim.py"), "view", str(database), "--port", "0"]
    process = subprocess.Popen([*program, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[float, int]:
    """Request a page; returns milliseconds until the response is complete, and its bytes."""
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    size = len(answer.read())
    assert answer.status == 200, f"{path}: {answer.status}"
    return 1000 * (time.perf_counter() - began), size


def drawn(url: str, paths: list[str]) -> list[float]:
    """Milliseconds until Chromium has loaded each page and drawn its charts."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)  # the scripts are cached from here on
        for path in paths:
            began = time.perf_counter()
            page.goto(url.rstrip("/") + path)
            page.wait_for_function(DRAWN)
            found.append(1000 * (time.perf_counter() - began))
        browser.close()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--browser", action="store_true")
    arguments = parser.parse_args()
    wanted = pages(arguments.database)
    with viewer(arguments.database) as url:
        place = urlsplit(url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port)
        print("| page | first, ms | median, ms | longest, ms | KiB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, path in wanted:
            first, size = ask(connection, path)
            times = [ask(connection, path)[0] for _ in range(arguments.times)]
            middle, longest = statistics.median(times), max(times)
            print(f"| {name} | {first:.0f} | {middle:.0f} | {longest:.0f} | {size / 1024:.0f} |",
                  flush=True)  # fmt: skip
        if arguments.browser:
            shown = [(name, path) for name, path in wanted if not PARTS.search(path)]
            print("\n| page | in Chromium, ms |\n| --- | ---: |")
            for (name, _), took in zip(shown, drawn(url, [path for _, path in shown]), strict=True):
                print(f"| {name} | {took:.0f} |")


if __name__ == "__main__":
    main()
