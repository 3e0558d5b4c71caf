"""Make the screenshots of the docs: play runs, serve them, and photograph pages in Chromium.

Usage: python docs/make_screenshots.py

Needs the test extra (playwright) and Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from sandbox import api
from sandbox.config import PRESETS

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
LIGHT, DARK = "light", "dark"

SEEDS = "".join(f"&run={name}-{seed}" for name in ("reasons", "scores") for seed in (1, 2, 3))

SHOTS = (
    ("view-society", "/r/recurring", 1120, (LIGHT, DARK)),
    ("view-by-round", "/r/recurring#by-round", 1120, (LIGHT,)),
    ("view-runs", "/", 640, (LIGHT,)),
    ("view-exchange", "/r/quickstart/exchanges/111", 1120, (LIGHT,)),
    ("view-agent", "/r/quickstart/agents/3", 1180, (DARK,)),
    ("view-recall", "/r/quickstart/calls/988#recall", 900, (LIGHT,)),
    ("view-ratings", "/r/recurring/ratings", 1180, (LIGHT,)),
    ("view-spread", "/r/recurring/search?q=%22small+pieces%22", 900, (LIGHT,)),
    ("view-compare", f"/compare?by=revision_alignment{SEEDS}", 1080, (LIGHT,)),
    ("view-scene", "/r/scene/exchanges/17", 1180, (LIGHT,)),
    ("view-policy", "/r/personal/policy", 2000, (LIGHT,)),
    ("view-conversation", "/r/personal/exchanges/3", 1500, (LIGHT,)),
)
"""Name, address, height in pixels, and themes."""


@contextmanager
def viewer(folder: Path) -> Iterator[str]:
    """The viewer over the runs of a folder; gives its address."""
    program = [sys.executable, str(ROOT / "run_sim.py"), "view", "--port", "0", "--json"]
    process = subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"].rstrip("/")
    finally:
        process.terminate()
        process.wait()


def photograph(browser: Browser, url: str) -> None:
    """Save all pictures."""
    for name, path, height, themes in SHOTS:
        for theme in themes:
            page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=theme)
            page.goto(url + path)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(2500)  # what belongs to a round comes a moment later
            ending = f"-{theme}" if len(themes) > 1 else ""
            page.screenshot(path=str(IMAGES / f"{name}{ending}.png"))
            page.close()


def main() -> None:
    """Play runs of several worlds, configs and seeds, and photograph their pages."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        os.chdir(place)
        api.run()
        large = {"world.size": 10, "rounds": 20, "question_count": 40}
        api.run(settings={"name": "recurring", **large})
        for seed in (1, 2, 3):
            some = {"seed": seed, "world.size": 6, "rounds": 10, "question_count": None}
            api.run(settings={"name": f"reasons-{seed}", **some})
            only = {"name": f"scores-{seed}", "world.score_only": True}
            api.run(settings={**some, **only})
        api.run(PRESETS / "scene.yaml")
        api.run(PRESETS / "personal.yaml", settings={"world.users": 80, "policy.checks": "record"})
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        with viewer(Path(place)) as url:
            photograph(browser, url)
        browser.close()


if __name__ == "__main__":
    main()
