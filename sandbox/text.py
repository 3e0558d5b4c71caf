"""Formatting of text: durations, commands, and model text that is safe to display."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path

LONGEST = 60_000
"""Maximum length of a text on a page, in characters; an export has the whole text."""

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")
_SCRIPT = "run_sim.py"


def command(*arguments: str) -> str:
    """Return a command line of this program: the program as it was started, then the arguments.

    The program is ``python run_sim.py`` if that script was started, else ``sandbox-society``.
    """
    started_by_script = Path(sys.argv[0]).name == _SCRIPT
    program = f"python {_SCRIPT}" if started_by_script else "sandbox-society"
    return " ".join((program, *arguments))


def install_command(extra: str = "") -> str:
    """Return the command that installs an extra, in a clone or from a package index."""
    is_clone = (Path(__file__).parent.parent / "pyproject.toml").is_file()
    if not extra:
        return "pip install -e ." if is_clone else "pip install sandbox-society"
    return f"pip install -e '.[{extra}]'" if is_clone else f"pip install 'sandbox-society[{extra}]'"


def duration(seconds: float) -> str:
    """Format seconds: 48 s, 3 min 05 s, 2 h 07 min, 3 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def clock_time(seconds: float) -> str:
    """Format a time, in seconds since 1970, as the local time; with the date if not of today."""
    then = datetime.fromtimestamp(seconds)
    is_today = then.date() == datetime.now().date()
    return then.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")


def printable(text: object) -> str:
    """Replace control characters, so that model text cannot control the terminal."""
    return "".join(
        char
        if char == "\n" or (char >= " " and char != "\x7f" and not "\x80" <= char <= "\x9f")
        else "\ufffd"
        for char in str(text)
    )


def escape_controls(text: object) -> str:
    """Make control characters and bidirectional marks of a text visible, and truncate it.

    Bidirectional marks (U+202A to U+202E, U+2066 to U+2069) are shown by their code points, since
    they would reorder the text that follows.
    """
    shown = str(text).replace("\r\n", "\n").replace("\r", "\n")
    shown = _HIDDEN.sub(_code_point, shown)
    if len(shown) > LONGEST:
        rest = len(shown) - LONGEST
        shown = f"{shown[:LONGEST]} \u2026 [{rest:,} more characters; an export has them all]"
    return shown


def _code_point(match: re.Match[str]) -> str:
    return f"\u27e8U+{ord(match[0]):04X}\u27e9"


def quoted(text: str) -> str:
    """A search in quotation marks, unless it has some of its own."""
    return text if '"' in text else f"\u201c{text}\u201d"


def short(text: object, width: int = 110) -> str:
    """Shorten a text to one line of at most `width` characters."""
    line = " ".join(escape_controls(str(text)[: 4 * width]).split())
    return line if len(line) <= width else f"{line[: width - 1]}\u2026"
