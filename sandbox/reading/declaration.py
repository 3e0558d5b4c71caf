"""What a run records: its stages, scales and measures, as they are stored with it."""

from __future__ import annotations

from agents.scale import Declaration
from storage.reader import Reader


def declaration_of(reader: Reader) -> Declaration:
    """The declaration of a run, from its database alone: no world is loaded for it."""
    return Declaration.model_validate_json(reader.run.declaration)
