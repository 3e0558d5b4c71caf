"""What a secret looks like, and how it is hidden: in addresses, configs and messages.

Everything that shows an address, a config or an error asks here, so that a password or an API key
does not end up in a terminal, a log, a page or a dataset card.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
"""What is shown in place of a secret."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ANYWHERE = re.compile("passw|passphrase|passcode|secret|credential|authori[sz]ation")
_LAST = frozenset(("auth", "bearer", "cookie", "jwt", "key", "pat", "pwd", "token"))
_JOINED = re.compile("(?:access|api|auth|private|refresh|session|subscription)(?:key|token)")
_HARMLESS = re.compile(
    "(?:bos|eos|pad|unk|sep|cls|mask|stop|begin|start|end|image|audio|video)_?token|"
    "prompt_?cache_?key"
)
"""Parameters of models that are named like secrets."""


def is_secret(name: str) -> bool:
    """Tell whether the value of a key, a header or a parameter of this name is a secret."""
    lower = name.lower()
    if _HARMLESS.fullmatch(lower.replace("-", "_")):
        return False
    words = _WORD.findall(name)
    last = words[-1].lower() if words else ""
    return bool(_ANYWHERE.search(lower)) or last in _LAST or bool(_JOINED.fullmatch(last))


_SCHEME = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*+):/{1,2}(?!/)", re.IGNORECASE)
"""The beginning of an address; taken for a path, it has lost a slash."""
_PASSWORD = re.compile(r"([^\s/:@]*+):(?!\d*(?:[/?#,;)\]\s'\"]|$))")
_WORD_END, _LINE_END = re.compile(r"\s"), re.compile(r"\n")
_NAME = re.compile(
    r"""(?<![\w.-])([a-z_][\w.-]*+)(?:\s{0,3}=\s{0,3}|["']\s?:\s?|%3d)""", re.IGNORECASE
)
_VALUE = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|[^\s&]*[^\s&:]|""")
_IN_BRACES = re.compile(r"([{(,\[]\s?)([a-z_][\w.-]*+)(\s?:\s?)([^\s,}\]]++)", re.IGNORECASE)
_BARE_USER = re.compile(r"(?<![\w/.+-])([\w.+-]++):[^\s/:@]{3,100}@(?=\w)")
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_KNOWN = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk)-[\w-]{12,}|(?:hf|ghp|gho|ghs|github_pat|gsk|glpat|xai|nvapi|xox[bp])"
    r"[_-][\w-]{10,}|AKIA[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""Forms of the keys that well-known services give out."""


def hide_secrets(text: str) -> str:
    """Replace the secrets in a text: an address, a command line, or a message with such in it.

    Secrets are users and passwords in addresses (of a database only the password), the values of
    parameters whose names say so (``?password=``, ``api_key=``, ``"token": "..."``), and keys of
    well-known services.
    """
    text = _hide_values_of_names(_hide_users(text))
    text = _IN_BRACES.sub(_hide_in_braces, text)
    text = _BARE_USER.sub(rf"\1:{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def _hide_users(text: str) -> str:
    """Hide what stands before the last @ of an address, also if it contains spaces."""
    parts, done, seen = [], 0, 0
    for match in _SCHEME.finditer(text):
        start = match.end()
        if start < seen:
            continue
        extent = _WORD_END if _PASSWORD.match(text, start) is None else _LINE_END
        end = extent.search(text, start)
        seen = len(text) if end is None else end.start()
        before, at, _ = text[start:seen].rpartition("@")
        if not at:
            continue
        is_web = match[1].lower().startswith(("http", "ws"))
        user = "" if is_web else before.partition(":")[0]
        hidden = HIDDEN if is_web else f":{HIDDEN}" if ":" in before else ""
        parts += [text[done:start], user, hidden]
        done = start + len(before)
    return "".join([*parts, text[done:]])


def _hide_values_of_names(text: str) -> str:
    parts, done = [], 0
    for match in _NAME.finditer(text):
        if match.start() >= done and is_secret(match[1].rpartition(".")[2]):
            value = _VALUE.match(text, match.end())
            parts += [text[done : match.end()], HIDDEN]
            done = match.end() if value is None else value.end()
    return "".join([*parts, text[done:]])


def _hide_in_braces(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{match[3]}{HIDDEN}" if is_secret(match[2]) else match[0]


def hide_values(value: Any, name: str = "") -> Any:
    """Return data, such as a config, with the secrets in it replaced.

    Args:
        value: plain data: mappings, lists, texts, numbers.
        name: the key of the value, if it has one.
    """
    if name and is_secret(name) and not isinstance(value, bool | int | float | None):
        return HIDDEN if value else value
    if isinstance(value, dict):
        return {
            key: hide_all(part) if str(key).lower() == "headers" else hide_values(part, str(key))
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [hide_values(part) for part in value]
    return hide_secrets(value) if isinstance(value, str) else value


_VARIABLE = re.compile(r"\$(?:[A-Za-z_]|\{[A-Za-z_])")


def hide_all(value: Any) -> Any:
    """Return data with all its texts replaced: the values of HTTP headers can all be secret."""
    if isinstance(value, dict):
        return {key: hide_all(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [hide_all(part) for part in value]
    return HIDDEN if isinstance(value, str) and value else value


def secret_key(value: Any, key: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Return the key of the first secret in plain data; None if there is none.

    A header whose value names an environment variable (``$NAME``) contains none.
    """
    from_variable = "headers" in key[:-1] and _VARIABLE.search(str(value)) is not None
    if key and is_secret(key[-1]) and isinstance(value, str) and value and not from_variable:
        return key
    if isinstance(value, str) and hide_secrets(value) != value:
        return key
    parts = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        parts = enumerate(value)  # type: ignore[assignment]
    found = (secret_key(part, (*key, str(name))) for name, part in parts)
    return next((one for one in found if one is not None), None)
