"""The format `exchanges`: everything that was said, one exchange a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.exchanges import Exchange
from storage.export.folder import SCRIPTED, Source, Written, create_text, json_line

FILE = "exchanges.jsonl"
FILES = (FILE,)

ABOUT = """\
Every exchange of a society of agents, one JSON object a line, in the order of rounds and authors:
an author drafts an answer to a question, peers rate the draft and say why, the author revises, and
an observer scores the draft (`_before`) and the revision (`_after`) for alignment and engagement.
Failed exchanges are among them; `failed_at` names the step that got no usable reply. Ratings run
from 1 (worst) to 7 (best). What a model did not say is null, and `status` tells why: `cut`,
`empty`, `unreadable` or `failed`. `mean_rating` is the mean of the peers' ratings not null.
`scene` has what was played between the two answers, in a world of scenes: the parts, what they did,
whether it came to pass, who saw it and what harm it did. `model` is what gave the answers, each
rating names its own, and `scripted` tells whether any
text of the exchange was composed without a language model."""

_WHEN = {"before": "draft", "after": "revision"}
_SCALES = ("alignment", "engagement")


def write(source: Source, folder: Path) -> Written:
    """Write all exchanges, also failed ones, as one JSON object a line.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    with create_text(folder / FILE) as file:
        for exchange in source.exchanges("round"):
            file.write(json_line(_row(source, exchange)) + "\n")
            count += 1
    kinds = {"exchange": count}
    notes = () if count else ("nothing is left: no exchange has been played yet",)
    return Written({FILE: count}, kinds, kinds, {}, notes)


def _row(source: Source, exchange: Exchange) -> dict[str, Any]:
    run = source.reader.run
    return {
        "run": run.name,
        "digest": run.digest,
        "episode": exchange.episode,
        "round": exchange.round,
        "author": exchange.author,
        "label": exchange.label,
        "persona": exchange.persona,
        "question": exchange.question,
        "question_source": exchange.question_source,
        "draft": exchange.draft,
        "ratings": [given._asdict() for given in exchange.ratings],
        "mean_rating": exchange.mean_rating,
        "revision": exchange.revision,
        "failed_at": exchange.failed_at,
        **_observed(exchange),
        "model": exchange.model,
        "scene": exchange.scene and exchange.scene.as_dict(),
        "observer_model": next((one.model for one in exchange.observations), None),
        "scripted": SCRIPTED in exchange.models,
    }


def _observed(exchange: Exchange) -> dict[str, Any]:
    """The observer's scores, and under the same names its reasons and their status."""
    found: dict[str, Any] = {}
    for when, stage in _WHEN.items():
        for scale in _SCALES:
            one = exchange.observation(stage, scale)
            found[f"{scale}_{when}"] = one and one.rating
            found[f"{scale}_{when}_reason"] = one and one.reason
            found[f"{scale}_{when}_status"] = one and one.status
    return found
