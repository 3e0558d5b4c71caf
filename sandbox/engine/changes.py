"""What has changed since a run was started: named, and refused unless it is accepted.

A run carries its own copies of forms, personas and questions, and goes on with those whatever
became of the files. But whoever edited a file and resumes wants to know that.
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
from sandbox.sources import read_forms, read_personas, read_questions
from storage import tables
from storage.errors import InputError
from storage.reader import Reader


def refuse_changes(reader: Reader, config: Config, backends: Mapping[str, Backend]) -> None:
    """Compare a run with the program and the files as they are now.

    Args:
        reader: the run.
        config: of the run.
        backends: by role, as they are now.

    Raises:
        InputError: something is not what it was when the run was started; files that are gone do
            not count.
    """
    found = "; ".join(_changes(reader, config, backends))
    if found:
        raise InputError(
            f"{reader.run.name}: changed since it was started: {found}; expected no change, or "
            "--accept-changes to go on with the run's own copies"
        )


def _changes(reader: Reader, config: Config, backends: Mapping[str, Backend]) -> Iterator[str]:
    was = reader.run.code_version
    if was != __version__:
        yield f"the program's version, {was} then, {__version__} now"
    yield from _models(reader, backends)
    embedder = embedder_of(config.memory.embedder).name
    if embedder != reader.run.embedder:
        yield f"the embedder, {reader.run.embedder} then, {embedder} now"
    yield from _forms(reader, config)
    if _measures(config.build_world().declaration) != _measures(declaration_of(reader)):
        yield "the world's scales or stages"
    if config.personas.is_file():
        known = set(read_personas(config.personas))
        if not all(agent.persona in known for agent in read_agents(reader)):
            yield f"personas in {config.personas}"
    if config.questions.is_file() and not _same_questions(reader, config):
        yield f"questions in {config.questions}"


def _measures(declaration: Declaration) -> list[Any]:
    """What tables and ratings depend on: stages and measures, with their ranges."""
    ranges = [(one.name, one.low, one.high, one.scale.integer) for one in declaration.measures]
    return [[stage.name for stage in declaration.stages], ranges]


def _models(reader: Reader, backends: Mapping[str, Backend]) -> Iterator[str]:
    m = tables.models
    query = select(m.c.role, m.c.name).where(m.c.run_id == reader.run.id)
    names = {row.role: row.name for row in reader.rows(query)}
    for role, backend in backends.items():
        if role in names and names[role] != backend.model:
            yield f"the {role} model, {names[role]} then, {backend.model} now"


def _forms(reader: Reader, config: Config) -> Iterator[str]:
    f = tables.forms
    query = select(f).where(f.c.run_id == reader.run.id)
    stored = {row.name: (row.system, row.template) for row in reader.rows(query)}
    path = config.forms if config.forms and config.forms.is_file() else None
    if path is None and config.forms is not None:
        return
    for name, form in read_forms(path, config.build_world().forms).items():
        if stored.get(name) != (form.system, form.user):
            yield f"the form {name}"


def _same_questions(reader: Reader, config: Config) -> bool:
    q, t = tables.questions, tables.texts
    query = select(t.c.text).join(q, q.c.text_id == t.c.id)
    query = query.where(reader.belongs_to_run(q.c.id), q.c.source.is_not(None)).order_by(q.c.id)
    stored = [row.text for row in reader.rows(query)]
    return [one.text for one in read_questions(config.questions, len(stored))] == stored
