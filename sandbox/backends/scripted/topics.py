"""Extracting short topic phrases from a question.

The rules use no grammar, only articles, possessives and the words that follow.
"""

from __future__ import annotations

import re

from sandbox.backends.scripted.patterns import any_of, listed, words_of

_GROUPS = any_of(
    listed(
        """
        black|blacks|white people|whites|jew|jews|jewish|muslim*|islam*|christian*|hindu*|
        catholic*|mexican*|asian*|chinese|african*|arab*|indian*|immigrant*|refugee*|foreigner*|
        gay|gays|lesbian*|trans|transgender|women|woman|girls|girl|disabled|handicap*|autis*|race|
        races|religion*|ethnic*|latino*|hispanic*|gyps*|native american*|fat|ugly|homeless|
        old people|poor people|stupid|dumb|idiot*|moron*|democrat*|republican*|trump|obama|biden|
        liberal*|conservative*|vaccin*|abortion*|white|americans|superior|people|person|ladies|
        ukrain*|russia*|covid*|president|jesus|god|church
        """
    )
)
"""Words that no topic phrase contains, since they can make a harmless sentence offensive."""

_CLAUSE = re.compile(r"[^\w\s'-]+")
_LEAD = {"my": "your", "our": "your", "a": "the", "an": "the", "your": "my"}
_LEAD.update((word, word) for word in ("the", "his", "her", "their"))

_END = words_of(
    """
    and or but if that which who whom when where while because so than as for of in on at to from
    with without by about into under after before until is are was were be been am do does did has
    have had can could would should will shall may might must not though although whose since here
    there now today tomorrow yesterday what how why just only never always still also too very
    really seems seem keeps keep kept gets get got wants want says said thinks thought fell died
    forgot grew broke left came went comes goes learn learned told asks asked during between beside
    through near behind above below against even or nor then again both
    """
)
"""Words that end a phrase."""

_VERB_BEFORE = words_of(
    """
    it him me us them i you he she we they up out over off away down my our the a an his her their
    your this these those its some any all every each one two three four five no
    """
)
"""Words that often follow a verb, and not the end of a phrase."""

_EMPTY = words_of(
    """
    way best worst right thing things lot bit few first same other kind sort next last one more
    most little long new old good bad great whole single several certain such less time
    times hundred idea reason moment end rest u s
    """
)
"""Words too vague for the end of a phrase."""

_NOUNS = words_of(
    """
    evening morning wedding building meeting ceiling painting clothing bed seed shed breed
    """
)
"""Nouns that look like verbs."""

_ADJECTIVE = re.compile(r".*(?:ful|ous|ive|ic|al|ed|ing|less|able|est|ern|ish|-\w+|'s)|\w*front")
_ADJECTIVES = words_of(
    """
    little old new young big small long short good bad best first last next two three four five ten
    whole elderly lovely friendly happy busy noisy heavy easy early late poor rich spare patient
    shared polite clean front back local public only own dear close quiet fair large great
    """
)


def _looks_like_verb(word: str) -> bool:
    return word.endswith(("ed", "ing", "ly")) and word not in _NOUNS


def _run(words: list[str]) -> list[str]:
    """Return the words before the first that cannot belong to the phrase."""
    for place, word in enumerate(words):
        closed = word in _END or word in _VERB_BEFORE or not word[0].isalpha()
        if closed or (place and _looks_like_verb(word)):
            return words[:place]
    return words


def _head(words: list[str]) -> list[str]:
    """Return the words of the noun phrase after an article or possessive, at most three."""
    run = _run(words)
    rest = words[len(run) :]
    described = bool(run) and (run[0] in _ADJECTIVES or bool(_ADJECTIVE.fullmatch(run[0])))
    complete = not rest or rest[0] in _END
    if complete and len(run) < 3:
        kept = run
    elif complete and len(run) == 3 and not described:
        kept = run[:2]
    else:
        kept = run[: 3 if complete and len(run) == 3 else 1 + described]
    unfit = not kept or kept[-1] in _EMPTY or kept[-1].endswith("'s")
    return [] if unfit else kept


def _is_usable(phrase: str) -> bool:
    return len(phrase) <= 40 and phrase.isprintable() and not _GROUPS.search(phrase)


def topics(text: str) -> list[str]:
    """Return short phrases of a normalised question, each of which fits after "about"."""
    phrases = []
    for clause in _CLAUSE.split(text):
        words = clause.split()
        for place, word in enumerate(words):
            if word in _LEAD and (head := _head(words[place + 1 : place + 6])):
                phrases.append(" ".join([_LEAD[word], *head]))
    return [phrase for phrase in phrases if _is_usable(phrase)]
