"""The scale where a reply mentions it: its ends, its legend, its maximum.

`without_scale` blanks what repeats the scale that was asked for. A reply that names another maximum
or turns the scale round (``1 = best``) has no rating on it.
"""

from __future__ import annotations

import re

from agents.numbers import ANY, FIRST, OF, Numbers

_IS = (
    r"(?:=+>?|:|->|\u2192|\u2013|-|\bis\b|\bbeing\b|\bas\b|\bmeans?\b|\bmeaning\b|\bfor\b|\bist\b"
    r"|\b\u00e9\b"
    r"|\u662f|\u306f|\u4ee3\u8868|\u8868\u793a|\u4e3a)"
)
_ITEM = (
    rf"(?<![\w.,/+-])(?P<number>[+-]?\d{{1,3}})[ \t]*(?:{_IS}[ \t]*(?P<words>[^\W\d]"
    rf"[^\d\n,;()=]{{0,60}})"
    r"|\((?P<inside>[^\W\d][^\d\n()]{0,60})\))"
)
_LEGEND_ITEM = re.compile(_ITEM, re.I)
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _ITEM)
_JOINED = r"[\s,;./|()\u3001\uff0c]*(?:(?:and|to|through|up|und|et|y|e|\u0438|bis)\b[\s,]*)?"
_LEGEND = re.compile(rf"{_UNNAMED}(?:{_JOINED}{_UNNAMED})+", re.I)
_REMARK = re.compile(rf"\((?:with |where )?{_UNNAMED}\)", re.I)

_MAXIMUM = re.compile(
    rf"(?<![^\W_])scale[ \t]*(?:of|from|:|=)?[ \t]*(?P<a>{ANY})"
    rf"|(?P<b>{ANY})[ -]?points?[ -]scale"
    r"|\bout of (?P<c>ten)\b"
    r"|\b(?:max(?:imum|imal|\.)?(?:[ _-]?(?:rating|score|value|points?|mark"
    r"|grade))?|out_?of(?=[ \t]*[:=])"
    rf"|highest(?: possible)?[ _]?(?:rating|score))[\"']?[ \t]*(?:[:=]|is\b|of\b"
    rf"|\b)[ \t]*(?P<d>{ANY})"
    r"(?![ \t]+[^\W\d])"
    r"|(?:[\u6ee1\u6eff\u6e80\u603b][\u5206\u70b9\u9ede])(?:\u4e3a|\u662f|\u306f"
    r"|:)?[ \t]*(?P<e>\d+|[十百五])[ \t]*(?:\u5206|\u70b9)?"
    r"|(?P<f>\d+|[十百五])[ \t]*(?:\u70b9\u6e80\u70b9|\u5206\u6ee1\u5206|\u5206\u5236|\u6bb5\u968e"
    r"|\uc810[ \t]*\ub9cc\uc810|\uc810[ \t]*\ucc99\ub3c4)"
    r"|[ \t](?:of|out of|/)[ \t]*(?P<g>\d+|five|ten)[ -]stars\b|(?P<h>\d+|five"
    r"|ten)[ -]stars?[ -](?:scale|system|rating)"
    rf"|\([ \t]*{OF}[ \t]*(?P<i>\d+)[ \t]*\)",
    re.I,
)

_FIRST = re.compile(rf"\d+[ \t]*{FIRST}[^\d\n\u3002]{{0,8}}\d", re.I)

_GOOD = (
    r"high|highest|(?:très |muy |molto )?(?:bien|bene)|best|excellent|outstanding|superb|perfect"
    r"|great|good|sehr gut|beste\w*|gut|ausgezeichnet"
    r"|excellente?|parfaite?|meilleure?|excelente|mejor|bueno|melhor|bom|ottim[oa]|miglior[ei]"
    r"|buon[oa]"
    r"|\u043b\u0443\u0447\u0448\w*|\u043e\u0442\u043b\u0438\u0447\u043d\w*|\u6700\u597d"
    r"|\u6700\u9ad8|\u975e\u5e38\u597d|\u6700\u4f73|\u6700\u826f|\ucd5c\uace0"
)
_BAD = (
    r"low|lowest|worst|terrible|awful|horrible|poor|bad|dreadful|schlecht\w*|schlechtest\w*"
    r"|mangelhaft|pire"
    r"|mauvaise?"
    r"|peor|malo|mal[ao]?|pior|ruim|peggior[ei]|pessim[oa]|\u0445\u0443\u0434\u0448\w*"
    r"|\u043f\u043b\u043e\u0445\w*|\u6700\u5dee|\u6700\u60aa"
    r"|\u6700\u4f4e|\u975e\u5e38\u5dee|\ucd5c\uc545"
)
_DEGREE = (
    r"(?:(?:the|a|an|very|really|extremely|quite|pretty|absolute(?:ly)?|sehr|tr\u00e8s|muy|muito"
    r"|molto|le|la|el|o|is) )*"
)
_TURNED = re.compile(
    r"\b(?:lower|smaller) (?:is|means|(?:numbers?|ratings?|scores?|values?) (?:is|are"
    r"|means?)) better\b"
    r"|\b(?:inverted|reversed?) (?:rating )?scale\b|\b1 (?:is|being|means|=) (?:the )?best\b"
    r"|\b1 (?:est|ist|es|é|è|это) (?:la |le |die |das |der |el |a |o |il )?(?:meilleure?|best\w*"
    r"|mejor|melhor|miglior\w*|лучш\w*)"
    r"|1[分点]?(?:が|は|是)最[高好良佳]",
    re.I,
)
_POLE = re.compile(
    rf"{_DEGREE}(?:(?P<good>{_GOOD})|(?P<bad>{_BAD}))"
    r"(?: (?:possible|answer|quality|reply|response|rating|score|one))*[\s.!]*",
    re.I,
)


def without_scale(line: str, scale: Numbers) -> str | None:
    """The line with blanks in place of its mentions of the scale; None if it has another one."""
    if _TURNED.search(line):
        return None
    for legend in [*_LEGEND.finditer(line), *_REMARK.finditer(line)]:
        fits = _fits(legend[0], scale)
        if fits is False:
            return None
        line = _blanked(line, legend) if fits else line
    line = scale.span.sub(lambda span: " " * len(span[0]), line)
    for maximum in _MAXIMUM.finditer(line):
        if scale.number(maximum[maximum.lastgroup or 0]) != scale.high:
            return None
        if not _FIRST.match(line, maximum.start()):
            line = _blanked(line, maximum)
    return line


def _fits(legend: str, scale: Numbers) -> bool | None:
    """Whether a legend is that of the scale; None if it is no legend."""
    items = list(_LEGEND_ITEM.finditer(legend))
    values = [float(item["number"]) for item in items]
    poles = [_POLE.fullmatch(item["words"] or item["inside"]) for item in items]
    if len(items) > 1 and {min(values), max(values)} != {scale.low, scale.high}:
        return False if "=" in legend and min(values) <= scale.low else None
    if any(_contradicts(value, pole, scale) for value, pole in zip(values, poles, strict=True)):
        return False
    return True if len(items) > 1 or poles[0] else None


def is_contradicted(value: float, words: str, scale: Numbers) -> bool:
    """Whether words beside a value, such as ``worst``, name the other end of the scale."""
    return _contradicts(value, _POLE.fullmatch(words.strip()), scale)


def _contradicts(value: float, pole: re.Match[str] | None, scale: Numbers) -> bool:
    """Whether a word for an end of the scale stands at a value on the other side of its middle."""
    middle = (scale.low + scale.high) / 2
    return pole is not None and (value < middle if pole["good"] else value > middle)


def _blanked(line: str, found: re.Match[str]) -> str:
    blank = "".join(char if char == "\n" else " " for char in found[0])
    return line[: found.start()] + blank + line[found.end() :]
