"""What a run says whose episodes fail: how many, why, and what to change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agents.forms import Status
from sandbox.text import short

_SHARE = 0.5
"""A run says why its episodes fail if this share of those that ended has failed."""

_WORDS = {
    Status.CUT: "were truncated",
    Status.EMPTY: "were empty",
    Status.UNREADABLE: "were unparseable",
    Status.FAILED: "did not come",
}


class Cause(NamedTuple):
    """Replies of a prompt template that could not be used.

    Attributes:
        form: the name of the template.
        status: their status.
        calls: their number.
    """

    form: str
    status: Status
    calls: int


def is_failing(episodes: int, failed: int) -> bool:
    """Whether so many of the episodes that ended have failed that the run says why."""
    return failed > 0 and failed >= _SHARE * episodes


def form_of(failed_at: str) -> str:
    """Return the prompt template of the reply that an episode failed for want of."""
    return failed_at.partition("/")[0]


def token_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the limit of a reply's tokens of each model but the observer, by its config key.

    Args:
        config: a config, as it is stored with a run.
    """
    models = config["models"]
    by_key = {"models.social": models["social"]}
    for name, group in (models.get("groups") or {}).items():
        by_key[f"models.groups.{name}.model"] = group["model"]
    return {f"{key}.max_tokens": model.get("max_tokens", 512) for key, model in by_key.items()}


def failing(
    episodes: int,
    failed: int,
    causes: Iterable[Cause],
    forms: Collection[str],
    limits: Mapping[str, int],
    example: str = "",
) -> str | None:
    """Say that most episodes failed, why, and what to change; None if most did not.

    Args:
        episodes: the number of episodes that ended.
        failed: the number of those that failed.
        causes: replies that could not be used.
        forms: the prompt templates that episodes failed for want of a reply to.
        limits: from `token_limits`.
        example: the latest error, if any.
    """
    if not is_failing(episodes, failed):
        return None
    head = f"{failed:,} of {episodes:,} episodes failed"
    by_status: defaultdict[Status, list[Cause]] = defaultdict(list)
    for cause in causes:
        if cause.form in forms and cause.calls:
            by_status[cause.status].append(cause)
    kinds = sorted(by_status, key=lambda status: -sum(one.calls for one in by_status[status]))
    if not kinds:
        return head
    whys = (_why(status, by_status[status], limits) for status in kinds)
    return f"{head}: {'; '.join(whys)}; {_advice(kinds[0], limits, example)}"


def _why(status: Status, causes: Sequence[Cause], limits: Mapping[str, int]) -> str:
    first, *others = causes
    parts = [f"{first.calls:,} replies of {first.form}"]
    parts += [f"{one.calls:,} of {one.form}" for one in others]
    replies = " and ".join([*([", ".join(parts[:-1])] if others else []), parts[-1]])
    numbers = " or ".join(map(str, sorted(set(limits.values()))))
    at = f" at max_tokens {numbers}" if status is Status.CUT else ""
    return f"{replies} {_WORDS[status]}{at}"


def _advice(status: Status, limits: Mapping[str, int], example: str) -> str:
    """What to change, by the commonest cause."""
    if status is Status.CUT:
        keys = " and ".join(_first_keys(limits))
        return f"raise {keys}, or see docs/models.md, Models that do not stop"
    if status is Status.FAILED:
        said = f" (the last one: {short(example, 120)})" if example else ""
        return f"check the server and the settings of the model{said}, then resume --retry-failed"
    return (
        "read some of them (inspect RUN calls --failures), and see docs/models.md about chat "
        "templates, chat: false and stop"
    )


def _first_keys(limits: Mapping[str, int]) -> Iterator[str]:
    keys = list(limits)
    yield from keys[:2]
    if len(keys) > 2:
        yield f"{len(keys) - 2} more"
