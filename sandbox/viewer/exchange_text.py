"""One exchange as Markdown and as JSON, to copy into notes and programs.

Texts are as on the page: control characters are shown as code points; an export has them verbatim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from agents.scale import plain_number
from sandbox.reading.exchange_detail import ExchangeDetail
from sandbox.text import escape_controls
from sandbox.viewer.filters import escape_spec
from storage.exchanges import Observation


def as_json(shown: ExchangeDetail) -> str:
    """The exchange without its calls, with indentation."""
    data = {name: value for name, value in shown.as_dict().items() if name != "calls"}
    return json.dumps(escape_spec(data), ensure_ascii=False, indent=2, default=str)


def markdown(shown: ExchangeDetail) -> str:
    """The question, the text of each stage, and all ratings with their reasons."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: ExchangeDetail) -> Iterator[str]:
    author = (
        f", {escape_controls(shown.persona)} #{shown.author} ({shown.label})"
        if shown.persona
        else ""
    )
    yield f"## Exchange {shown.episode}, round {shown.round}{author}\n"
    yield f"**Question**\n\n{_quoted(shown.question)}\n"
    for stage, text in shown.texts.items():
        yield f"**{stage.replace('_', ' ').capitalize()}**\n\n{_quoted(text)}\n"
        yield from (_observed(one) for one in shown.observations if one.stage == stage)
        yield ""
    if shown.ratings:
        yield "**Ratings by peers**\n"
        for given in shown.ratings:
            yield f"- #{given.rater} ({given.label}): {_rating(given.rating)}{_why(given.reason)}"


def _observed(one: Observation) -> str:
    about = "" if one.agent is None else f" of #{one.agent}"
    about += "" if one.other is None else f" and #{one.other}"
    return f"- {one.scale}{about}: {_rating(one.rating)}{_why(one.reason)}"


def _rating(rating: float | None) -> str:
    return "missing" if rating is None else plain_number(rating)


def _why(reason: str | None) -> str:
    return "" if reason is None else f": {' '.join(escape_controls(reason).split())}"


def _quoted(text: str | None) -> str:
    shown = "(missing)" if text is None else escape_controls(text).strip()
    return "> " + shown.replace("\n", "\n> ")
