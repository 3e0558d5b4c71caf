"""Ratings that are drawn: filled stars, ticked boxes, one number marked in a row of numbers."""

from __future__ import annotations

import re
from itertools import pairwise

_FULL = (
    "\u2605\u2b50\u25cf\u25a0\u25ae\u2588\u2b1b\u25c6\u2665\u2764"
    "\U0001f31f\U0001f7e9\U0001f7e6\U0001f7e8\U0001f535"
)
_EMPTY = "\u2606\u2729\u25cb\u25ef\u25a1\u25af\u2591\u2b1c\u25c7\u2661\u26aa\U0001f90d"
_PLACES = re.compile(rf"(?P<full>[{_FULL}]+)(?P<empty>[{_EMPTY}]+)")
_TWICE = re.compile(
    rf"(?P<stars>[{_FULL}]{{2,}}|\d+/\d+(?!\d))[ \t]*(?P<open>[(\[]?)(?P<number>\d+)(?P<of>/\d+)?"
    rf"[)\]]?(?![\w/.,])"
    rf"|(?<![\w/.,])(?P<number2>\d+)(?P<of2>/\d+)?[ \t]*[(\[]?(?P<stars2>[{_FULL}]{{2,}}"
    rf"|\d+/\d+(?!\d))[)\]]?"
)


def filled(text: str) -> str:
    """Replace filled and empty places by their numbers: `4/7`; leave stars that repeat a number."""

    def counted(found: re.Match[str]) -> str:
        return f"{len(found['full'])}/{len(found['full']) + len(found['empty'])}"

    def once(found: re.Match[str]) -> str:
        second = "2" if found["number2"] else ""
        stars, number, of = (found[name + second] for name in ("stars", "number", "of"))
        same = stars in (number + (of or ""), number) or (
            stars.startswith(f"{number}/") if "/" in stars else len(stars) == int(number)
        )
        if not same or ("/" in stars and of not in (None, "/" + stars.partition("/")[2])):
            return found[0]
        return stars if "/" in stars else number + (of or "")

    return _TWICE.sub(once, _PLACES.sub(counted, text))


_TICKED = "xX*\u2713\u2714\u221a\u2022"
_BOX = (
    rf"(?:\[[ {_TICKED}]?\]|\([ {_TICKED}]?\)"
    rf"|[\u2610\u2611\u2612\u2705\u2713\u2714\U0001f518{_FULL}{_EMPTY}])"
)
_BLANK = re.compile(r"[\[(] ?[\])]")
_BOXES = re.compile(
    rf"(?:[-*+\u2022][ \t]+)?(?:{_BOX}[ \t]*\d{{1,3}}|\d{{1,3}}[ \t]*{_BOX})"
    rf"(?:(?:[ \t]*[-\u2013:.=(][^\n\[\]\d]*)?[\s,;|/]*(?:[-*+\u2022][ \t]+)?(?:{_BOX}"
    rf"|\d{{1,3}}\b))+",
    re.MULTILINE,
)
_LISTED = re.compile(
    r"(?<![\w.,])(?:[\[(<*_]*\d{1,3}[\])>*_]*[ \t]*[|,/\u2013-]?[ \t]+){3,}[\[(<*_]*\d{1,3}"
    r"[\])>*_]*(?![\w.,])"
)


def chosen(text: str) -> str:
    """Replace the numbers of a scale, of which one is ticked or marked, by that number."""

    def ticked(found: re.Match[str]) -> str:
        tokens = re.findall(rf"{_BOX}|\d{{1,3}}", found[0])
        boxes, numbers = tokens[::2], tokens[1::2]
        if boxes[0].isdigit():
            boxes, numbers = numbers, boxes
        picked = [
            number
            for box, number in zip(boxes, numbers, strict=False)
            if not _BLANK.fullmatch(box) and box not in f"\u2610{_EMPTY}"
        ]
        paired = len(boxes) == len(numbers) > 2 and not any(box.isdigit() for box in boxes)
        return picked[0] if paired and len(picked) == 1 and _rises(numbers) else found[0]

    def marked(found: re.Match[str]) -> str:
        items = re.findall(r"[\[(<*_]*\d+[\])>*_]*", found[0])
        picked = [item for item in items if not item.isdigit()]
        numbers = [item.strip("[](){}<>*_") for item in items]
        one = len(picked) == 1 and re.fullmatch(r"[\[(<*_]+\d+[\])>*_]+", picked[0])
        return picked[0].strip("[](){}<>*_") if one and _rises(numbers) else found[0]

    return _LISTED.sub(marked, _BOXES.sub(ticked, text))


def _rises(numbers: list[str]) -> bool:
    """Whether numbers are whole ones in a row, as on a scale."""
    steps = {int(after) - int(before) for before, after in pairwise(numbers)}
    return steps in ({1}, {-1})
