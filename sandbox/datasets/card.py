"""The dataset card: provenance, raters, quality, rules, and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from sqlalchemy import func, select

from agents.scale import Declaration, Scale, plain_number
from sandbox.datasets.card_bounds import aligned_to, policies
from sandbox.datasets.format import features
from sandbox.datasets.format_writer import FormatResult, lineage_file
from sandbox.datasets.formats.exchanges import column
from sandbox.datasets.groups import Groups
from sandbox.datasets.rater_choices import matches, parse_raters
from sandbox.datasets.schema import Schema
from sandbox.datasets.source import SCRIPTED, Origin, Source
from sandbox.datasets.statistics import statistics
from sandbox.datasets.survey import Share, Survey, demographics
from sandbox.reading.sessions import environments
from storage import tables
from storage.model_names import ModelUsage, model_usage
from storage.secrets import hide_values

README = "README.md"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
_MAX_GROUPS = 8
_SCRIPTED = "the scripted backend, not by a language model"

Lines = Iterator[str]


def card(
    source: Source,
    survey: Survey,
    groups: Groups,
    results: Sequence[FormatResult],
    figures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Return the text of README.md, with front matter that `datasets` reads.

    Args:
        source: the runs.
        survey: the statistics of their exchanges.
        groups: the users of their conversations.
        results: one for each format.
        figures: the caption of each figure, by its path.
        notes: warnings about the runs.
    """
    usages = [model_usage(origin.reader, origin.connection) for origin in source.origins]
    parts = (
        _front(source, results),
        _title(source, results, usages),
        _loading(results),
        _provenance(source, usages, notes),
        policies(source, plain),
        _scales(source),
        _raters(source, survey, results[0].choices.raters or ()),
        aligned_to(groups, plain),
        _quality(survey, results, figures),
        *(_rules(result) for result in results),
        _failures(survey, results),
        _licence(results),
    )
    return "\n".join(line for part in parts for line in part)


def title(source: Source, results: Sequence[FormatResult]) -> str:
    """The name of the dataset."""
    runs = ", ".join(str(origin.reader.run.name) for origin in source.origins[:3])
    more = f" and {len(source.origins) - 3} more" if len(source.origins) > 3 else ""
    return f"{runs}{more}: {', '.join(result.format.name for result in results)}"


def plain(text: object) -> str:
    """Escape a text for a line of Markdown, so that nothing in it is markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#$~" else char for char in line)


def _front(source: Source, results: Sequence[FormatResult]) -> Lines:
    rows = sum(sum(result.files.values()) for result in results)
    size = next((name for limit, name in _SIZES if rows < limit), "n>1M")
    data = {
        "pretty_name": title(source, results),
        "license": results[0].choices.license,
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": ["synthetic", "alignment", "sandbox-society"],
        "configs": _configs(results),
        "dataset_info": [
            {"config_name": result.format.name, "features": features(result.columns)}
            for result in results
            if any(result.files.values())
        ],
    }
    yield "---"
    yield yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
    yield "---\n"


def _configs(results: Sequence[FormatResult]) -> list[dict[str, Any]]:
    """The files of each format; `datasets` refuses files without rows."""
    configs: list[dict[str, Any]] = []
    for result in results:
        files = zip(result.choices.splits or {}, result.files.items(), strict=True)
        listed = [{"split": split, "path": path} for split, (path, count) in files if count]
        if listed:
            first = {} if configs else {"default": True}
            configs.append({"config_name": result.format.name, "data_files": listed, **first})
    return configs


def _title(
    source: Source, results: Sequence[FormatResult], usages: Sequence[Sequence[ModelUsage]]
) -> Lines:
    models = (model for models in usages for model in models)
    scripted = sorted({model.role for model in models if model.name == SCRIPTED})
    if scripted:
        roles = " and the ".join(scripted)
        yield f"**The texts of the {roles} model were composed by {_SCRIPTED}.**\n"
    yield f"# {plain(title(source, results))}\n"
    yield (
        "Interactions in a society of language-model agents, with ratings by the agents and by an "
        "observer.\n"
    )


def _loading(results: Sequence[FormatResult]) -> Lines:
    yield "## Load\n"
    yield "```python\nfrom datasets import load_dataset\n"
    yield from (
        f'{result.format.stem} = load_dataset(".", "{result.format.name}")' for result in results
    )
    yield "```\n\n| file | rows |\n| --- | ---: |"
    for result in results:
        for name, count in result.files.items():
            yield f"| `{name}` | {count:,} |"
            if result.format.array:
                yield f"| `{lineage_file(name)}` | {count:,} |"
    yield (
        "\nThe `id` of a row identifies the exchange, with its prompts, seeds and replies: "
        "`sandbox-society inspect ID`.\n"
    )


def _rules(result: FormatResult) -> Lines:
    """Describe a format, the candidates removed by each rule, and the choices."""
    counts = result.format.counts
    yield f"## {result.format.name}\n\n{result.format.about}\n"
    yield "| kind | passed all rules | written |\n| --- | ---: | ---: |"
    for kind, count in result.kept.items():
        yield f"| {kind} | {count:,} | {result.written[kind]:,} |"
    candidates = f"{result.candidates:,} {counts}"
    if result.removed:
        yield f"\nOf {candidates}, rules removed:\n\n| rule | {counts} |\n| --- | ---: |"
        yield from (f"| {rule} | {one.removed:,} |" for rule, one in result.removed.items())
    else:
        yield f"\nNo rule removed any of the {candidates}."
    if counts != "rows":
        written = int(result.figures["size"].sum())
        yield f"\nThe rows that were written contain {written:,} {counts}."
    yield from (f"\n{note[0].upper()}{note[1:]}." for note in result.notes)
    yield f"\nChoices: {_chosen(result)}.\n"


def _chosen(result: FormatResult) -> str:
    """The choices that apply to a format, with their effective values."""
    given = result.choices.given
    left_out = {"keep_out", "license", "files", "target", "splits"}
    common = {
        "near_duplicates",
        "near_questions",
        "strict_ratings",
        "shortened",
        "tokenizer",
        "max_tokens",
        "rows",
        "seed",
        "mix_runs",
        "raters",
        "balance",
    }
    named = result.format.uses | common | {"max_per_question"}
    values = [f"`{name}` {_value(given[name])}" for name in given if name in named - left_out]
    kept_out = len(result.choices.keep_out or ())
    splits = ", ".join(f"{name} {share:g}" for name, share in (result.choices.splits or {}).items())
    values += [f"`splits` {splits} (by question, near-duplicates together)"]
    scale = result.settings.scale
    if scale is not None:
        values += [f"scale of the selected rating: {_range(scale)}"]
    return "; ".join(
        values + ([f"{kept_out:,} questions excluded (decontamination)"] if kept_out else [])
    )


def _range(scale: Scale) -> str:
    """Describe a scale: ``alignment, 1 to 7 (higher is better)``."""
    return f"{scale.name}, {scale.range} ({scale.better}er is better)"


def _scales(source: Source) -> Lines:
    """List the scales of all runs: range, direction, rater, subject, and question."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for run in source.schema.runs:
        for scale in run.declaration.scales:
            row = tuple(_scale(scale, run.declaration, source.schema))
            rows.setdefault(row, []).append(run.run)
    yield "## Scales\n"
    if not rows:
        yield "The runs have no scales.\n"
        return
    columns = (
        "scale",
        "range",
        "better",
        "rated by",
        "rated",
        "question",
        "columns of `exchanges`",
        "runs",
    )
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row, runs in rows.items():
        yield f"| {' | '.join((*row, ', '.join(map(plain, runs))))} |"
    yield ""


def _scale(scale: Scale, declaration: Declaration, schema: Schema) -> Iterator[str]:
    """Yield the cells of a scale in the table of scales."""
    stages = declaration.stages_of(scale)
    named = ", ".join(stages)
    rated = {"stage": named, "agent": f"each agent in {named}", "pair": f"pairs in {named}"}
    yield f"`{scale.name}`"
    yield scale.range + ("" if scale.integer else ", with decimals")
    yield f"{scale.better}er"
    yield scale.rater
    yield rated[scale.subject]
    if scale.rater == "peers":
        yield "part of the prompt template"
        yield "`ratings`, `mean_rating`"
        return
    ask = scale.ask.replace("{low}", plain_number(scale.low))
    ask = ask.replace("{middle}", plain_number((scale.low + scale.high) / 2))
    yield plain(ask.replace("{high}", plain_number(scale.high)))
    yield ", ".join(
        f"`{column(own, stage)}`"
        for stage, own in schema.rated
        if own.name == scale.name and stage.name in stages
    )


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ":".join(map(str, value)) or "all"
    return f"{value:g}" if isinstance(value, float) else plain(_name(str(value)))


def _provenance(
    source: Source, usages: Sequence[Sequence[ModelUsage]], notes: Sequence[str]
) -> Lines:
    yield "## Provenance\n"
    yield from (f"**{plain(note[0].upper() + note[1:])}.**\n" for note in notes)
    yield "| run | started | world | seed | rounds | agents | episodes | program | digest |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
    for origin in source.origins:
        run = origin.reader.run
        digest = f"`{run.digest}`" if run.digest else "none (not finished)"
        yield (
            f"| {plain(run.name)} | {run.created[:10]} | {run.world} | {run.seed} | {run.rounds} | "
            f"{len(origin.people):,} | {episodes(origin):,} | {run.code_version} | {digest} |"
        )
    yield (
        "\nThe digest is a SHA-256 over all texts and ratings; runs with the same digest are "
        "identical.\n\n| run | model | name | calls |\n| --- | --- | --- | ---: |"
    )
    for origin, models in zip(source.origins, usages, strict=True):
        for model in models:
            name = f"`{model.name.replace('`', '')}`"
            yield f"| {plain(origin.reader.run.name)} | {model.role} | {name} | {model.calls:,} |"
    for origin in source.origins:
        yield from _played_with(origin)
    for origin in source.origins:
        config = public(json.loads(origin.reader.run.config))
        yield f"\n<details><summary>The config of {plain(origin.reader.run.name)}</summary>\n"
        yield f"```yaml\n{yaml.safe_dump(config, sort_keys=False).rstrip()}\n```\n\n</details>"
    yield ""


def _played_with(origin: Origin) -> Lines:
    """The environments of a run's sessions: versions, machine and engines."""
    run = plain(origin.reader.run.name)
    for played_with in environments(origin.reader):
        title = played_with.title[0].lower() + played_with.title[1:]
        yield f"\n<details><summary>{run}: {title}</summary>\n"
        parts = yaml.safe_dump(public(dict(played_with.parts)), sort_keys=False, allow_unicode=True)
        yield f"```yaml\n{parts.rstrip()}\n```\n\n</details>"


def episodes(origin: Origin) -> int:
    """The number of exchanges of a run that have been played so far."""
    e = tables.episodes
    query = select(func.count()).select_from(e).where(e.c.run_id == origin.reader.run.id)
    return int(origin.connection.scalar(query) or 0)


def public(value: Any) -> Any:
    """Return a config without secrets and URLs, and with paths reduced to their last component."""
    return _public(hide_values(value))


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(part) for key, part in value.items() if key != "base_url"}
    if isinstance(value, list):
        return [_public(part) for part in value]
    return _name(value) if isinstance(value, str) else value


def _name(text: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith(("~/", "./", "../")):
            return path.name
    return text


def _raters(source: Source, survey: Survey, chosen: Sequence[str]) -> Lines:
    yield "## Raters\n"
    conditions = parse_raters(chosen)
    raters = {
        (place, number): count
        for (place, number), count in survey.raters.items()
        if matches(conditions, source.origins[place].people[number])
    }
    shares = demographics(source.origins, raters)
    given = sum(raters.values())
    if chosen:
        yield f"Only those with {plain(', '.join(chosen))}.\n"
    if not given:
        yield "No agent rated: all ratings are those of the observer's model.\n"
        return
    agents = sum(count > 0 for count in raters.values())
    yield (
        f"{agents:,} agents gave {given:,} parsed ratings; the observer's ratings are those of a "
        "model without persona. The data is aligned to the preferences of these raters, who are "
        "personas played by a model, not people.\n"
    )
    yield (
        "An agent belongs to one group of each kind, but can have several values, whose shares sum "
        "to more than 100 %.\n"
    )
    yield "| | group | agents | ratings |\n| --- | --- | ---: | ---: |"
    for kind, groups in shares.items():
        shown, rest = groups[:_MAX_GROUPS], groups[_MAX_GROUPS:]
        if rest:
            shown = [*shown, Share.together(f"any of {len(rest)} others", rest)]
        for number, group in enumerate(shown):
            share, name = f"{group.given / given:.0%}", plain(group.group)
            yield f"| {'' if number else kind} | {name} | {group.agents:,} | {share} |"
    yield ""


def _quality(survey: Survey, results: Sequence[FormatResult], figures: Mapping[str, str]) -> Lines:
    yield "## Quality\n\n| measure | |\n| --- | --- |"
    yield from (f"| {one.name} | {one.text} |" for one in statistics(survey, results))
    yield (
        "\nKrippendorff's alpha is of interval data; 1: perfect agreement, 0: chance level. Its "
        "interval is a percentile bootstrap over texts. Scales that only the observer rates have "
        "no measure of agreement.\n"
    )
    if results[0].choices.strict_ratings:
        yield "Ratings that were read leniently are left out of all measures and figures.\n"
    for path, about in figures.items():
        yield f"![{about}]({path})\n\n*{about[0].upper()}{about[1:]}.*\n"


def _failures(survey: Survey, results: Sequence[FormatResult]) -> Lines:
    left_out = ", and left out" if results[0].choices.strict_ratings else ""
    yield "## Failures\n"
    yield (
        "Missing texts and ratings are null; they are never imputed. Only the format `exchanges` "
        "contains failures.\n\n| | count |\n| --- | ---: |"
    )
    yield f"| exchanges | {survey.exchanges:,} |"
    for form, count in sorted(survey.failed.items()):
        yield f"| exchanges that failed at `{form}` | {count:,} |"
    for stage, count in sorted(survey.shortened.items()):
        yield f"| texts of {stage} that were truncated, kept to a whole sentence | {count:,} |"
    for who, count in sorted(survey.lenient.items()):
        if count:
            yield f"| ratings of {who} that were read leniently{left_out} | {count:,} |"
    for (who, status), count in sorted(survey.missing.items()):
        yield f"| ratings of {who} that are {status} | {count:,} |"
    yield ""


def _licence(results: Sequence[FormatResult]) -> Lines:
    yield "## Licence\n"
    yield (
        f"Declared by the exporter: `{results[0].choices.license}`. The texts are replies of the "
        "models above to prompts with the questions and personas of the config. The licences of "
        "the models and of the sources of the questions apply; they are not checked.\n"
    )
