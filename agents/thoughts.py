"""Thoughts in the text of a reply: the marks of reasoning models whose server leaves them in."""

from __future__ import annotations

import re
from typing import NamedTuple

_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
"""How thoughts begin and end: DeepSeek, Qwen, Seed, Kimi, Command, OpenThinker and others."""

_PAIRS = tuple(
    (
        re.compile(
            rf"(?<!`){re.escape(start)}(.*?)(?:{re.escape(end)}|\Z)", re.DOTALL | re.IGNORECASE
        ),
        re.compile(rf"\A(.*?)(?<!`){re.escape(end)}", re.DOTALL | re.IGNORECASE),
    )
    for start, end in _MARKS
)
_FIRST = frozenset("<[\u25c1")  # the first characters of all marks
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
_BARE_CHANNELS = re.compile(r"\Aanalysis(?=\S)(.*?)assistantfinal(.*)\Z", re.DOTALL)
_ANSWER_MARKS = re.compile(
    r"</?\|?(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution)\|?>"
)


class Split(NamedTuple):
    """A text without the thoughts in it, and the thoughts.

    Attributes:
        text: what is left; a line break stands where thoughts were between words.
        thinking: the thoughts, if any.
        unended: the last thought never ends.
    """

    text: str
    thinking: str | None
    unended: bool = False


def split_thoughts(text: str) -> Split:
    """Separate the thoughts in a text from the rest.

    Nothing is left after a mark that opens and is never closed: the model was still thinking. A
    mark that closes without one that opens ends thoughts whose beginning is in the prompt, as the
    templates of DeepSeek and Qwen have it. A mark in backticks is a word of the text.
    """
    if text.startswith("analysis") and (bare := _BARE_CHANNELS.match(text)):
        return Split(bare[2].strip(), bare[1].strip() or None)
    if _FIRST.isdisjoint(text):
        return Split(text, None)
    thoughts: list[str] = []
    unended = False
    if "<|channel|>" in text:
        channels = _CHANNEL.findall(text)
        thoughts = [said for name, said in channels if name != "final"]
        text = "".join(said for name, said in channels if name == "final")
    for (_, end), (pair, rest) in zip(_MARKS, _PAIRS, strict=True):
        found = list(pair.finditer(text))
        thoughts += (match[1] for match in found)
        unended = unended or any(not match[0].lower().endswith(end.lower()) for match in found)
        text = pair.sub(_gap, text)
        while match := rest.match(text):
            thoughts.append(match[1])
            text = text[match.end() :]
    thinking = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
    if thoughts:
        text = _ANSWER_MARKS.sub("", text).strip()
    return Split(text, thinking or None, unended)


def _gap(thought: re.Match[str]) -> str:
    """What stands in place of thoughts: nothing where white space is beside them already."""
    around = thought.string[thought.start() - 1 : thought.start()], thought.string[thought.end() :]
    return "\n" if all(side and not side[0].isspace() for side in around) else ""
