"""Make the pictures of the docs: run the presets, and draw what their views show.

Usage: python docs/make_pictures.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import copyfile

from rich.console import Console, Group, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from sandbox import api
from sandbox.config import PRESETS
from sandbox.reading.exchange_detail import read_exchange
from sandbox.reading.runs import society
from sandbox.terminal.datasets import export_view
from sandbox.terminal.exchanges import exchange_view
from sandbox.terminal.runs import society_view
from sandbox.terminal.scene import scene_view
from sandbox.terminal.trends import trend_view

IMAGES = Path(__file__).parent / "images"

THEME = TerminalTheme(
    (250, 249, 245),
    (40, 42, 46),
    [(40, 42, 46), (176, 58, 46), (46, 125, 50), (154, 103, 0), (37, 99, 165), (123, 63, 140),
     (0, 121, 130), (90, 94, 102)],
    [(110, 114, 122), (192, 72, 60), (56, 142, 60), (176, 120, 10), (47, 115, 185), (140, 80, 158),
     (0, 137, 147), (60, 64, 72)],
)  # fmt: skip

FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw(name: str, title: str, what: RenderableType, width: int = 100) -> None:
    """Write a view as SVG. The frame names no font that would have to be fetched."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            record=True, width=width, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(what)
    path = str(IMAGES / f"{name}.svg")
    console.save_svg(path, title=title, theme=THEME, code_format=FRAME, unique_id=name)


def main() -> None:
    """Run presets in a folder of their own, and draw them."""
    with tempfile.TemporaryDirectory() as folder:
        db = f"{folder}/quickstart.db"
        api.run(db=db)
        with api.open_run(db) as reader:
            shown = society(reader)
            parts = Group(society_view(shown), Text(), trend_view(shown.trends[:1]))
            draw("run", "python run_sim.py run", parts, 84)
            episode = exchange_view(read_exchange(reader, 111))
            draw("episode", "python run_sim.py inspect quickstart episode 111", episode)
        report = api.export(db, ["sft", "preference"], f"{folder}/data")
        explained = export_view({**report.as_dict(), "out": None}, explain=True)
        verb = "python run_sim.py export quickstart --format sft --format preference --explain"
        draw("explain", verb, explained, 110)
        for name in ("ratings", "agreement"):
            copyfile(f"{folder}/data/figures/{name}.svg", IMAGES / f"{name}.svg")
        db = f"{folder}/scene.db"
        api.run(PRESETS / "scene.yaml", db=db)
        with api.open_run(db) as reader:
            scene = read_exchange(reader, 17).scene
            assert scene is not None
            draw("scene", "python run_sim.py inspect scene episode 17", scene_view(scene))


if __name__ == "__main__":
    main()
