"""Text for people: durations in words, and text that is safe to print."""

from __future__ import annotations


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


def printable(text: object) -> str:
    """Replace control characters, so that model text cannot control the terminal."""
    return "".join(
        char
        if char == "\n" or (char >= " " and char != "\x7f" and not "\x80" <= char <= "\x9f")
        else "\ufffd"
        for char in str(text)
    )
