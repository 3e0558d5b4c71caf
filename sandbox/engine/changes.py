"""Changes since a run was started: they are reported, and refused unless accepted.

A run has its own copies of prompt templates, personas and questions, and continues with those even
if the files have changed. But a user who edited a file and resumes needs to know that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select

from agents.scale import Declaration
from sandbox import __version__
from sandbox.backends.base import Backend
from sandbox.backends.embedding import embedder_of
from sandbox.config import Config
from sandbox.reading.agents import read_agents
from sandbox.reading.declaration import declaration_of
from sandbox.reading.policy import all_forms, policy_of
from sandbox.sources import read_forms, read_personas, read_questions
from sandbox.sources.policies import read_policy
from storage import tables
from storage.errors import InputError
from storage.reader import Reader


def refuse_changes(reader: Reader, config: Config, backends: Mapping[str, Backend]) -> None:
    """Compare a run with the current program, models and files.

    Args:
        reader: the run.
        config: its config.
        backends: the current backend of each role.

    Raises:
        InputError: something has changed since the run was started; deleted files do not count.
    """
    changes = "; ".join(_changes(reader, config, backends))
    if changes:
        raise InputError(
            f"{reader.run.name}: changed since it was started: {changes}; expected no change, or "
            "--accept-changes to continue with the run's own copies"
        )


def _changes(reader: Reader, config: Config, backends: Mapping[str, Backend]) -> Iterator[str]:
    version = reader.run.code_version
    if version != __version__:
        yield f"the program's version, {version} then, {__version__} now"
    yield from _models(reader, backends)
    embedder = embedder_of(config.memory.embedder).name
    if embedder != reader.run.embedder:
        yield f"the embedder, {reader.run.embedder} then, {embedder} now"
    yield from _policy(reader, config)
    yield from _forms(reader, config)
    if _declared(config.build_world().declaration) != _declared(declaration_of(reader)):
        yield "the world's scales or stages"
    if config.personas.is_file():
        known = set(read_personas(config.personas))
        if not all(agent.persona in known for agent in read_agents(reader)):
            yield f"personas in {config.personas}"
    if config.questions.is_file() and not _same_questions(reader, config):
        yield f"questions in {config.questions}"


def _declared(declaration: Declaration) -> list[Any]:
    """Return what tables and ratings depend on: stages, and measures with their ranges."""
    ranges = [
        (measure.name, measure.low, measure.high, measure.scale.integer)
        for measure in declaration.measures
    ]
    return [[stage.name for stage in declaration.stages], ranges]


def _models(reader: Reader, backends: Mapping[str, Backend]) -> Iterator[str]:
    m = tables.models
    query = select(m.c.role, m.c.name).where(m.c.run_id == reader.run.id)
    names = {row.role: row.name for row in reader.rows(query)}
    for role, backend in backends.items():
        if role in names and names[role] != backend.model:
            yield f"the {role} model, {names[role]} then, {backend.model} now"


def _policy(reader: Reader, config: Config) -> Iterator[str]:
    stored, given = policy_of(reader), config.policy
    if stored is None or (given.file is not None and not given.file.is_file()):
        return
    current = read_policy(given.file, given.checks, given.prompts)
    if current.hash != stored.hash:
        yield f"the policy, {stored.title} then, {current.title} now"


def _forms(reader: Reader, config: Config) -> Iterator[str]:
    f = tables.forms
    query = select(f).where(f.c.run_id == reader.run.id)
    stored = {row.name: (row.system, row.template) for row in reader.rows(query)}
    path = config.forms if config.forms and config.forms.is_file() else None
    if path is None and config.forms is not None:
        return
    forms = read_forms(path, config.build_world().forms).values()
    for form in all_forms(forms, policy_of(reader)):
        if stored.get(form.name) != (form.system, form.user):
            yield f"the prompt template {form.name}"


def _same_questions(reader: Reader, config: Config) -> bool:
    q, t = tables.questions, tables.texts
    query = select(t.c.text).join(q, q.c.text_id == t.c.id)
    query = query.where(reader.belongs_to_run(q.c.id), q.c.source.is_not(None)).order_by(q.c.id)
    stored = [row.text for row in reader.rows(query)]
    current = read_questions(config.questions, len(stored))
    return [question.text for question in current] == stored
