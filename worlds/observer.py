"""The observer's prompt template: a view of the rated text, then the question of one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.forms import Form, Judgement, Rating
from agents.scale import Scale

_SYSTEM = """\
You are an impartial observer with no part in the society that you look at. You score one {unit} \
at a time on one scale from {range}, and you use the whole scale.
Reply in exactly two lines, the second at most 60 words long:
Rating: {number} from {range}
Reason: why"""


def observer_form(
    scale: Scale, observed: str, example: Mapping[str, Any], unit: str = "answer"
) -> Form[Judgement]:
    """Create the observer's prompt template for a scale.

    Args:
        scale: the scale; `Scale.question` is asked.
        observed: a Jinja template that shows what is rated; the question follows it.
        example: a value for each name in `observed`.
        unit: the noun for what is rated.
    """
    number = "a whole number" if scale.integer else "a number, with at most two decimals,"
    return Form(
        name=scale.form,
        system=_SYSTEM.format(unit=unit, range=scale.range, number=number),
        user=f"{observed}{scale.question}\n\nYour rating:",
        reply=Rating.on(scale),
        example=dict(example),
        bound=False,
    )
