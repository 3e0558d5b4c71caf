"""Stop strings: where a reply in prose ends at the latest, whatever its model goes on to write.

Small models often do not stop: after their answer they repeat the markup of the prompt and go on
with another question. What they repeat is known, since it is in the prompt templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from agents.templates import tag_names
from agents.thoughts import split_thoughts

_CUE = re.compile(r"\n[ \t]*([^\n{}%#<>]*\w:)\s*\Z")


class Ended(NamedTuple):
    """A reply that goes no further than its first stop string, and whether it had one."""

    text: str
    stopped: bool


@dataclass(frozen=True)
class Stops:
    """The stop strings of a call.

    Attributes:
        strings: a reply ends before the first of them; a server may be asked to stop there, and
            those that come first matter most.
        opening: tags at which a reply ends too, except where it begins with one: some models put
            all that they write between tags.
    """

    strings: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()

    @cached_property
    def _first_letters(self) -> frozenset[str]:
        return frozenset(text[0] for text in (*self.strings, *self.opening))

    def end(self, text: str) -> Ended:
        """End a reply before the first stop string in it; thoughts stay as they are."""
        if self._first_letters.isdisjoint(text):
            return Ended(text, False)
        split = split_thoughts(text)
        if split.unended or not split.text or not text.endswith(split.text):
            return Ended(text, False)
        said = self._without_tag(split.text)
        places = (said.find(stop) for stop in (*self.strings, *self.opening))
        place = min((place for place in places if place >= 0), default=len(said))
        thoughts = text[: len(text) - len(split.text)]
        return Ended(thoughts + said[:place], place < len(said))

    def _without_tag(self, text: str) -> str:
        """A reply without the tag that it begins with, if any."""
        begun = text.lstrip()
        tag = next((tag for tag in self.opening if begun.startswith(tag)), None)
        return text if tag is None else begun.removeprefix(tag)


NO_STOPS = Stops()


def template_stops(template: str, others: Iterable[str]) -> Stops:
    """Return the stop strings that follow from prompt templates.

    They are the last line of the template, which asks for the reply (``Your answer:``), and the
    tags that delimit what is inserted into prompts.

    Args:
        template: the template of the call; its strings come first.
        others: those of the other calls of the world: their tags count, too.
    """
    cue = _CUE.search(template)
    strings = [] if cue is None else [f"\n{cue[1]}"]
    opening: list[str] = []
    for text in (template, *others):
        for name in tag_names(text):
            strings += (f"</{name}>", f"\n<{name}>")
            opening.append(f"<{name}>")
    return Stops(tuple(dict.fromkeys(strings)), tuple(dict.fromkeys(opening)))
