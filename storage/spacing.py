"""Scripts that are written without spaces, for the word index."""

from __future__ import annotations

import re

SPACELESS = (
    "[\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\uff66-\uffdc"  # kana
    "\u3100-\u312f\u31a0-\u31bf\ua000-\ua4cf"  # Bopomofo, Yi
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese characters
)
"""A regular expression for one character of such a script; PostgreSQL reads it as well."""

_CHARACTER = re.compile(SPACELESS)


def spaced(text: str | None) -> str | None:
    """Put spaces around every character of such a script, so that it is a word of the index."""
    if text is None or text.isascii():
        return text
    return _CHARACTER.sub(r" \g<0> ", text)
