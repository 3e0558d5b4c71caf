"""The dataset card: where the rows are from, whom they are aligned to, what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from sqlalchemy import func, select

from sandbox.datasets.gathering import Gathered, lineage_file
from sandbox.datasets.measures import measures
from sandbox.datasets.rows import features
from sandbox.datasets.source import SCRIPTED, Origin, Source
from sandbox.datasets.survey import Survey, demographics
from storage import tables
from storage.voices import Voice, voices

README = "README.md"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
_MOST = 8
_NO_MODEL = "the scripted backend and not by a language model"

Lines = Iterator[str]


def card(
    source: Source,
    survey: Survey,
    gathered: Sequence[Gathered],
    figures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The text of README.md, with front matter that `datasets` reads.

    Args:
        source: the runs.
        survey: what their exchanges are like.
        gathered: what became of each format.
        figures: what each figure shows, by its file.
        notes: what is out of the ordinary about the runs.
    """
    heard = [voices(origin.reader, origin.connection) for origin in source.origins]
    parts = (
        _front(source, gathered),
        _title(source, gathered, heard),
        _loading(gathered),
        _made(source, heard, notes),
        _whom(source, survey),
        _quality(survey, gathered, figures),
        *(_rules(one) for one in gathered),
        _failures(source, survey),
        _licence(gathered),
    )
    return "\n".join(line for part in parts for line in part)


def title(source: Source, gathered: Sequence[Gathered]) -> str:
    """The name of the dataset."""
    runs = ", ".join(str(origin.reader.run.name) for origin in source.origins[:3])
    more = f" and {len(source.origins) - 3} more" if len(source.origins) > 3 else ""
    return f"{runs}{more}: {', '.join(one.format.name for one in gathered)}"


def plain(text: object) -> str:
    """Somebody's text within a line of Markdown, so that nothing in it is markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#$~" else char for char in line)


def _front(source: Source, gathered: Sequence[Gathered]) -> Lines:
    rows = sum(sum(one.files.values()) for one in gathered)
    size = next((name for limit, name in _SIZES if rows < limit), "n>1M")
    data = {
        "pretty_name": title(source, gathered),
        "license": gathered[0].choices.license,
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": ["synthetic", "alignment", "sandbox-society"],
        "configs": _configs(gathered),
        "dataset_info": [
            {"config_name": one.format.name, "features": features(one.columns)}
            for one in gathered
            if any(one.files.values())
        ],
    }
    yield "---"
    yield yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
    yield "---\n"


def _configs(gathered: Sequence[Gathered]) -> list[dict[str, Any]]:
    """The files of each format; `datasets` refuses those without a row."""
    found: list[dict[str, Any]] = []
    for one in gathered:
        files = zip(one.choices.splits or {}, one.files.items(), strict=True)
        listed = [{"split": split, "path": path} for split, (path, count) in files if count]
        if listed:
            first = {} if found else {"default": True}
            found.append({"config_name": one.format.name, "data_files": listed, **first})
    return found


def _title(source: Source, gathered: Sequence[Gathered], heard: Sequence[Sequence[Voice]]) -> Lines:
    scripted = sorted({one.role for of in heard for one in of if one.name == SCRIPTED})
    if scripted:
        roles = " and the ".join(scripted)
        yield f"**The texts of the {roles} model were composed by {_NO_MODEL}.**\n"
    yield f"# {plain(title(source, gathered))}\n"
    yield (
        "Aligned interaction records from a society of language-model agents: agents answer "
        "questions, others rate the answers and say why, authors revise, and an observer scores "
        "before and after.\n"
    )


def _loading(gathered: Sequence[Gathered]) -> Lines:
    yield "## Load\n"
    yield "```python\nfrom datasets import load_dataset\n"
    yield from (f'{one.format.stem} = load_dataset(".", "{one.format.name}")' for one in gathered)
    yield "```\n\n| file | rows |\n| --- | ---: |"
    for one in gathered:
        for name, count in one.files.items():
            yield f"| `{name}` | {count:,} |"
            if one.format.array:
                yield f"| `{lineage_file(name)}` | {count:,} |"
    yield (
        "\nThe `id` of a row leads back to the exchange, and from there to every prompt, seed and "
        "reply: `sandbox-society inspect ID`.\n"
    )


def _rules(one: Gathered) -> Lines:
    """What a format holds, what rules removed, and what was chosen."""
    yield f"## {one.format.name}\n\n{one.format.about}\n"
    yield "| kind | left by the rules | written |\n| --- | ---: | ---: |"
    for kind, count in one.found.items():
        yield f"| {kind} | {count:,} | {one.written[kind]:,} |"
    counted = f"{one.candidates:,} {one.format.counts}"
    if one.removed:
        yield f"\nOf {counted}, rules removed:\n\n| rule | {one.format.counts} |\n| --- | ---: |"
        yield from (f"| {rule} | {told.removed:,} |" for rule, told in one.removed.items())
    else:
        yield f"\nNo rule removed any of {counted}."
    if one.format.counts != "rows":
        held = int(one.figures["size"].sum())
        yield f"\nThe rows that were written hold {held:,} {one.format.counts}."
    yield from (f"\n{note[0].upper()}{note[1:]}." for note in one.notes)
    yield f"\nChosen: {_chosen(one)}.\n"


def _chosen(one: Gathered) -> str:
    """The choices that concern a format."""
    given = one.choices.given
    left_out = {"keep_out", "license", "files", "target", "splits"}
    common = {
        "near_duplicates",
        "near_questions",
        "tokenizer",
        "max_tokens",
        "rows",
        "seed",
        "mix_runs",
    }
    named = one.format.uses | common | {"max_per_question"}
    told = [f"`{name}` {_value(given[name])}" for name in given if name in named - left_out]
    kept_out = len(one.choices.keep_out or ())
    splits = ", ".join(f"{name} {share:g}" for name, share in (one.choices.splits or {}).items())
    told += [f"`splits` {splits} (by question, near-duplicates together)"]
    return "; ".join(told + ([f"{kept_out:,} questions kept out"] if kept_out else []))


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ":".join(map(str, value)) or "all"
    return f"{value:g}" if isinstance(value, float) else plain(_name(str(value)))


def _made(source: Source, heard: Sequence[Sequence[Voice]], notes: Sequence[str]) -> Lines:
    yield "## How it was made\n"
    yield from (f"**{plain(note[0].upper() + note[1:])}.**\n" for note in notes)
    yield "| run | started | world | seed | rounds | agents | episodes | program | digest |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
    for origin in source.origins:
        run = origin.reader.run
        digest = f"`{run.digest}`" if run.digest else "none, it is not finished"
        yield (
            f"| {plain(run.name)} | {run.created[:10]} | {run.world} | {run.seed} | {run.rounds} | "
            f"{len(origin.people):,} | {episodes(origin):,} | {run.code_version} | {digest} |"
        )
    yield (
        "\nThe digest is a SHA-256 over all that was said; a run with the same config and models "
        "can be compared by it.\n\n| run | model | name | calls |\n| --- | --- | --- | ---: |"
    )
    for origin, models in zip(source.origins, heard, strict=True):
        for one in models:
            name = f"`{one.name.replace('`', '')}`"
            yield f"| {plain(origin.reader.run.name)} | {one.role} | {name} | {one.calls:,} |"
    for origin in source.origins:
        config = public(json.loads(origin.reader.run.config))
        yield f"\n<details><summary>The config of {plain(origin.reader.run.name)}</summary>\n"
        yield f"```yaml\n{yaml.safe_dump(config, sort_keys=False).rstrip()}\n```\n\n</details>"
    yield ""


def episodes(origin: Origin) -> int:
    """How many exchanges of a run have been played so far."""
    e = tables.episodes
    query = select(func.count()).select_from(e).where(e.c.run_id == origin.reader.run.id)
    return int(origin.connection.scalar(query) or 0)


def public(value: Any) -> Any:
    """A config as it may be shown: without addresses, and of paths the last part alone."""
    if isinstance(value, dict):
        return {key: public(one) for key, one in value.items() if key != "base_url"}
    if isinstance(value, list):
        return [public(one) for one in value]
    return _name(value) if isinstance(value, str) else value


def _name(text: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith(("~/", "./", "../")):
            return path.name
    return text


def _whom(source: Source, survey: Survey) -> Lines:
    yield "## Whom it is aligned to\n"
    shares = demographics(source.origins, survey.raters)
    given = sum(survey.raters.values())
    if not given:
        yield "No agent rated: what is good is what the observer's model finds good.\n"
        return
    agents = sum(count > 0 for count in survey.raters.values())
    yield (
        f"{agents:,} agents gave {given:,} ratings that could be read; the observer's scores are "
        "those of a model without persona. What these people find good is what this data teaches. "
        "They are personas that a model plays, not people.\n"
    )
    yield "An agent has one of each, but several values.\n"
    yield "| | group | agents | ratings |\n| --- | --- | ---: | ---: |"
    for what, groups in shares.items():
        for number, one in enumerate(groups[:_MOST]):
            share = f"{one.ratings / given:.0%}"
            yield f"| {'' if number else what} | {plain(one.group)} | {one.agents:,} | {share} |"
        if len(groups) > _MOST:
            rest = groups[_MOST:]
            agents, ratings = sum(one.agents for one in rest), sum(one.ratings for one in rest)
            yield f"|  | {len(rest)} others | {agents:,} | {ratings / given:.0%} |"
    yield ""


def _quality(survey: Survey, gathered: Sequence[Gathered], figures: Mapping[str, str]) -> Lines:
    yield "## Quality\n\n| measure | |\n| --- | --- |"
    yield from (f"| {one.name} | {one.text} |" for one in measures(survey, gathered))
    yield (
        "\nKrippendorff's alpha is for ordinal data; 1: they agree, 0: as chance would have it. Of "
        "more than 20,000 drafts as many or fewer, evenly spread, are looked at for it. "
        "Engagement is rated by the observer alone, so there is no agreement to tell.\n"
    )
    for path, about in figures.items():
        yield f"![{about}]({path})\n\n*{about[0].upper()}{about[1:]}.*\n"


def _failures(source: Source, survey: Survey) -> Lines:
    yield "## Failures left out\n"
    yield (
        "What a model did not say is missing, never a number or a text: no format but `exchanges` "
        "holds any of it.\n\n| | count |\n| --- | ---: |"
    )
    yield f"| exchanges | {survey.exchanges:,} |"
    for form, count in sorted(survey.failed.items()):
        yield f"| exchanges that failed at `{form}` | {count:,} |"
    for (who, status), count in sorted(survey.missing.items()):
        yield f"| ratings of {who} that are {status} | {count:,} |"
    yield ""


def _licence(gathered: Sequence[Gathered]) -> Lines:
    yield "## Licence\n"
    yield (
        f"Stated: `{gathered[0].choices.license}`. The texts are replies of the models above to "
        "prompts with the questions and personas named in the config: the terms of the models' "
        "licences and of the sources of the questions apply. The program knows neither.\n"
    )
