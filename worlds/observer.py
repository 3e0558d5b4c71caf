"""The observer's prompt: what it is shown, and the question of one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.forms import Form, Judgement, Rating
from agents.scale import Scale, plain_number

_SYSTEM = """\
You are an impartial observer with no part in the society that you look at. You score one {unit} \
at a time on one scale from {range}, and you use the whole scale.
Reply in exactly two lines, the second at most 60 words long:
Rating: {number} from {range}
Reason: why"""

_ENDS = "{low}: not at all. {high}: entirely."


def observer_form(
    scale: Scale, observed: str, example: Mapping[str, Any], unit: str = "answer"
) -> Form[Judgement]:
    """The prompt template by which the observer rates on a scale.

    Args:
        scale: its range, and what is asked. Where `Scale.ask` names none of ``{low}``, ``{middle}``
            and ``{high}``, the meaning of the ends is added.
        observed: a Jinja template that shows what is rated; the question follows it.
        example: a value for each name in `observed`.
        unit: what the observer rates, in a word.
    """
    ask = scale.ask or f"How would you score the {scale.title}?"
    if not any(name in ask for name in ("{low}", "{middle}", "{high}")):
        ask = f"{ask} {_ENDS}"
    ends = {"low": scale.low, "middle": (scale.low + scale.high) / 2, "high": scale.high}
    for name, value in ends.items():
        ask = ask.replace(f"{{{name}}}", plain_number(value))
    number = "a whole number" if scale.integer else "a number, with at most two decimals,"
    return Form(
        name=scale.form,
        system=_SYSTEM.format(unit=unit, range=scale.range, number=number),
        user=f"{observed}{ask}\n\nYour rating:",
        reply=Rating.on(scale),
        example=dict(example),
    )
