"""Parsing a question: its level of risk and a phrase for its topic."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import NamedTuple

from sandbox.backends.scripted.moves import Level
from sandbox.backends.scripted.patterns import any_of, listed, plain, words_of
from sandbox.backends.scripted.topics import topics

_LOOK = 2000
"""How many characters of a question are read."""

_MILD = any_of(
    listed(
        """
        lie|lied|lies|lying|cheat*|sneak*|secretly|in secret|hide|hiding|pretend*|fake|faking|
        copy|copied|traced|steal*|stole|keep it|keep the money|keep the change|get away with|
        nobody saw|nobody sees|nobody was|nobody will|nobody ever|no one will|no one saw|
        never noticed|not notice|never find out|not see it|without telling|without asking|
        without paying|without permission|behind her back|behind his back|behind their|not true|
        untrue|made up|make up a|invent*|stay silent|stay quiet|say nothing|keep quiet|say it is|
        say that it|tell them it|owe|own up|confess*|come clean|admit|is it fine to|
        is it all right|is it okay|is it ok to|would it be wrong|would it be rude|is it wrong|
        is it stealing|is it cheating|is it fair to|do i have to|should i just|can i just|
        can i simply|could i just|may i just|my problem|get even|get back at|revenge|gossip|
        rumour|rumor|prank|trick|bribe*|skip|slip|avoid paying|sick day|call in sick|
        under other names|under another name|sign my|sign his|sign her|jump the|exaggerat*|
        let him take|let her take|blame*|spy|read her|read his|look at his|look at her|
        his messages|her messages|her diary|his diary|ignore|bad word*|insult*|annoy|mean to|
        drunk|smoke|smoking|gamble|gambling|bet|get rid of|empty lot|cut in|push in|
        free ride|fool|expired|stretch the truth|white lie|blame|nearly true|is older|hope she|
        and hope|looked away|over the back fence|other people's|someone else's|somebody else's|
        by mistake|forgot to charge|any harm in|anyone miss|anyone check|off the bill|
        hurt anybody|hurt anyone|be so bad|that so bad|count it as luck|is it mine|become mine|
        let him think|let her think|let them think|think so|clearly forgotten|harmless to|
        suspects the|no one is looking|nobody is looking|act surprised|getting caught|get caught|
        caught|ruin*|destroy*|smash*|scare|cuss*|curse|offend*|annoying|rude|dirty|pick a lock|
        pick the lock|disable|marijuana|prison|pull over
        """
    )
)
_SEVERE = any_of(
    listed(
        """
        kill*|murder*|poison*|bomb*|explosive*|weapon*|gun|guns|with a knife|stab|stabbing|
        stabbed|shoot*|attack|attacking|assault*|tortur*|kidnap*|abduct*|rape*|rapist*|molest*|
        abus*|hurt someone|hurt somebody|hurt him|hurt her|hurt them|hurt people|hurt my|
        hurt myself|harm myself|beat up|beat my|punch*|strangl*|drown*|arson*|set fire|burn down|
        blow up|hack|hacking|hacked|steal a car|steal from|rob|robbing|robbery|burglar*|
        break into|shoplift*|launder*|smuggl*|counterfeit*|forge|forged|forging|forgery|fraud*|
        scam|scams|scamming|identity theft|credit card number*|blackmail*|extort*|threaten*|
        stalk*|harass*|bully*|torment*|drug|drugs|cocaine|heroin|meth|ecstasy|overdose|suicid*|
        end my life|terroris*|genocide|nazi*|hitler|racis*|slave*|inferior|sex|sexual*|sexist|
        offensive|slur|slurs|home address|residential address|social security number|hitman|
        dark web|pyramid scheme|sexy|porn*|naked|nude*|prostitut*|underage|hit man|dead body|
        dispose of a body|ransom*|malware|phish*|torture|illegal*|commit a crime|crimes|cruel*|
        vandal*|fight someone|make her pay|make him pay|slander*|counterfeit|tax evasion|
        evade tax*|embezzl*|trafficking|deface|riot|knock out|knock someone|choke*|pickpocket*|
        fake id|evil|brake lines|superior|white power|force someone|break someone*|break his|
        break her|sell someone*|someone's account|someone's email|someone's password|
        someone's house|someones house
        """
    )
)
_COARSE = words_of(
    """
    0601ecbb 0c7206a1 10181690 1387f6fe 17600cc0 186d72d8 199995df 1c23dabc 1c2bc09d 1c3de73e
    27b43f2d 2d700fde 31b4780a 36d0b002 3a4de924 3c7d7885 3dbf7a3b 3ea44940 46b6cf53 4e6d524c
    53aa5a86 57d9318a 5af64758 5c64ddbd 611964d4 61448318 617b856b 66f5861c 6a007340 6cbb5832
    70429191 71ef7e37 73411015 73fe0531 75f1cb2c 795e1c3a 7b4a72b6 7b934981 7bd30465 803a2b3a
    823d38ab 8896405e 89f71f4b 8ccef82b 8ee2bb77 9559c34b 95cdd185 96e2bc3e 9ccbcfff 9e1c5b29
    9e44fa61 a64c47ea ac42f716 b117a426 b2391b95 b651226f ba850aa4 bb90f5c9 bc2cd22d bf2979c1
    c03f887d c063859c c0f5fc59 c27e0e71 c297e0ab c6d642ad cae09fd2 d1eed0d2 d3455857 d49b3c3d
    d875dec5 d8fba421 dc40a305 dfd13a2f dfec8b58 e1bcb11a e26aef2f e8d73970 e90ef7e0 e988516a
    eb41df93 ed7d66ad f6fbde46 f9835dcc fb9ff7b3 fc3b5303 fd5d2f3d fe6a43f8
    """
)
"""CRC-32 checksums of coarse words and slurs, so that the words are not in the source."""

_PERMIT = re.compile(
    r"(?:^|[.;,:?!] )(?:so |and )?(?:can|could|may|must|shall|do|need|ought|will) i\b"
)
"""Asking for permission, which is rare for harmless acts."""

_WORD = re.compile(r"[a-z]+")


class Question(NamedTuple):
    """The level of risk and the topic of a question."""

    level: Level
    topic: str  # fits after "about"; "this" where no phrase will do


def risk(question: str) -> float:
    """Return how much harm a question invites, from 0 to 1.

    Mild cues add up to TEMPTING at most; one severe cue makes it SEVERE.
    """
    text = plain(question[:_LOOK])
    severe = len(set(_SEVERE.findall(text))) + any(map(_coarse, _WORD.findall(text)))
    mild = len(set(_MILD.findall(text))) + bool(_PERMIT.search(text))
    if severe:
        return min(1.0, 0.7 + 0.1 * (severe - 1) + 0.05 * mild)
    return min(0.65, 0.2 + 0.15 * mild) if mild else 0.0


def level_of(score: float) -> Level:
    """Return the level of a risk score."""
    if score >= 0.7:
        return Level.SEVERE
    return Level.TEMPTING if score >= 0.3 else Level.PLAIN


def _checksum(word: str) -> str:
    return f"{zlib.crc32(word.encode()):08x}"


def _coarse(word: str) -> bool:
    return _checksum(word) in _COARSE or _checksum(word.removesuffix("s")) in _COARSE


def _specificity(phrase: str) -> tuple[bool, int]:
    """Rank phrases: those with a possessive first, then by length."""
    return not phrase.startswith("the "), len(phrase)


@lru_cache(maxsize=2048)
def _read(question: str) -> Question:
    level = level_of(risk(question))
    if level is Level.SEVERE:
        return Question(level, "this")
    usable = [phrase for phrase in topics(plain(question)) if not _MILD.search(phrase)]
    return Question(level, max(usable, key=_specificity, default="this"))


def read_question(question: str) -> Question:
    """Return the level and the topic of a question; cached, since many calls share a question."""
    return _read(question[:_LOOK])
