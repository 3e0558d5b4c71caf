"""Checks of replies against the rules of a policy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from agents.patterns import PatternError, Patterns, pattern, search
from agents.plugins import PluginError, exception_line, load_file
from agents.policy import Policy, Rule

SECONDS = 2.0
"""A Python function that has no verdict after this time has failed."""

NO_VERDICT = "no verdict"
"""What is found where a check failed; the reply counts as one that breaks the rule."""


class CheckError(Exception):
    """Raised for a check that does not work: it says what was found and expected."""


class Broken(NamedTuple):
    """A rule that a reply breaks, and what was found."""

    rule: Rule
    found: str


def function_of(check: str) -> Callable[[str], Any]:
    """Load the function that ``file.py:function`` names.

    Raises:
        CheckError: there is none.
    """
    path, _, name = check.rpartition(":")
    try:
        module = _in_time(load_file, path)
    except PluginError as error:
        raise CheckError(f"found {error}; expected a file with the function {name}") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise CheckError(f"found no function {name} in {path}; expected one")
    return found  # type: ignore[no-any-return]


def files_of(policy: Policy) -> list[Path]:
    """List the files with Python code that a policy's checks name."""
    named = [rule.check.python for rule in policy.rules if rule.check and rule.check.python]
    return [Path(path) for path in dict.fromkeys(name.rpartition(":")[0] for name in named)]


class Checker:
    """Checks replies by the regular expressions and functions of a policy.

    Args:
        policy: the rules.

    Attributes:
        judged: the rules whose check is a question to a judge, which the caller asks.

    Raises:
        CheckError: a function cannot be loaded.
    """

    def __init__(self, policy: Policy) -> None:
        self.judged: list[Rule] = []
        self._regexes: list[tuple[Rule, str]] = []
        self._functions: list[tuple[Rule, Callable[[str], Any]]] = []
        for rule in policy.rules:
            if rule.check is None:
                continue
            if rule.check.regex is not None:
                self._regexes.append((rule, rule.check.regex))
            elif rule.check.python is not None:
                self._functions.append((rule, function_of(rule.check.python)))
            else:
                self.judged.append(rule)
        self._patterns = Patterns([source for _, source in self._regexes])

    async def broken(self, text: str) -> list[Broken]:
        """Return the rules that a text breaks, without those that a judge checks."""
        found = list(self.by_regex(text))
        for rule, function in self._functions:
            hit = await _called(function, text)
            if hit is not None:
                found.append(Broken(rule, hit))
        return found

    def by_regex(self, text: str) -> list[Broken]:
        """Return the rules that a text breaks by their regular expressions."""
        matching = set(self._patterns.matching(text))
        return [
            Broken(rule, _NOTHING if rule.kind == "requirement" else search(source, text) or "")
            for place, (rule, source) in enumerate(self._regexes)
            if (place in matching) == (rule.kind == "restriction")
        ]


_NOTHING = "nothing that it asks for"


async def _called(function: Callable[[str], Any], text: str) -> str | None:
    """What a function of a user finds; one that fails or hangs counts as a breach."""
    try:
        async with asyncio.timeout(SECONDS):
            verdict = await asyncio.to_thread(_quiet, function, text)
    except TimeoutError:
        return f"{NO_VERDICT} within {SECONDS:g} s"
    except Exception as error:  # the code of a user can raise any exception
        return f"{NO_VERDICT}: {exception_line(error)}"
    if not isinstance(verdict, bool):
        return f"{NO_VERDICT}: {type(verdict).__name__} in place of True or False"
    return "the function says so" if verdict else None


def _quiet(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a user's code; what it prints goes to standard error, as all messages do."""
    with redirect_stdout(sys.stderr):
        return function(*arguments)


def breaks(rule: Rule, text: str) -> bool:
    """Whether a text breaks a rule by its regular expression or function.

    Raises:
        CheckError: the function fails, or has no verdict within `SECONDS`.
    """
    if rule.check is None or rule.check.judge is not None:
        return False
    if rule.check.regex is not None:
        return (search(rule.check.regex, text) is not None) == (rule.kind == "restriction")
    assert rule.check.python is not None
    return _verdict(rule.check.python, text)


def try_out(rule: Rule) -> None:
    """Try the patterns of a rule, and its check on its examples.

    Raises:
        CheckError: one does not compile, does not end, or judges an example wrongly; the message
            begins with the key.
    """
    check = rule.check
    for key, source in (("overrules", rule.overrules), ("check.regex", check and check.regex)):
        try:
            _ = source is None or pattern(source)
        except PatternError as error:
            raise CheckError(f"{key}: {error}") from None
    if check is None or check.judge is not None:
        return
    if check.python is not None:
        try:
            _verdict(check.python, "An ordinary answer.")
        except CheckError as error:
            raise CheckError(f"check.python: {error}") from None
    for key, texts, expected in (("breaks", rule.breaks, True), ("keeps", rule.keeps, False)):
        for text in texts:
            if breaks(rule, text) != expected:
                does = "keeps" if expected else "breaks"
                raise CheckError(
                    f"{key}: found {text[:60]!r}, which {does} the rule by its check; expected "
                    f"one that {key} it"
                )


def _in_time(code: Callable[[str], Any], argument: str) -> Any:
    """Run a user's code within the time limit, in a thread that is left behind if it hangs.

    Raises:
        CheckError: it has not ended after `SECONDS`.
    """
    result: list[Any] = []
    raised: list[Exception] = []

    def call() -> None:
        try:
            result.append(_quiet(code, argument))
        except Exception as error:  # the code of a user can raise any exception
            raised.append(error)

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if raised:
        raise raised[0]
    if not result:
        raise CheckError(
            f"found code that has not ended after {SECONDS:g} s with {argument[:60]!r}; expected "
            "code that ends"
        )
    return result[0]


def _verdict(check: str, text: str) -> bool:
    """What the function of a check says of a text.

    Raises:
        CheckError: it cannot be loaded, raises, does not end, or says neither True nor False.
    """
    try:
        verdict = _in_time(function_of(check), text)
    except CheckError:
        raise
    except Exception as error:  # the code of a user can raise any exception
        raise CheckError(f"{exception_line(error)}; expected True or False") from None
    if not isinstance(verdict, bool):
        raise CheckError(f"found {type(verdict).__name__}; expected True or False")
    return verdict
