"""Input files of a run: questions, personas, prior memories, prompt templates.

A file means one thing or is refused with its line. What was read is told in one line for each
file, which the functions append to `notes`.
"""

from sandbox.sources.forms import read_forms
from sandbox.sources.models import read_pairs, read_personas
from sandbox.sources.questions import LONGEST, Question, read_labelled, read_questions

__all__ = [
    "LONGEST",
    "Question",
    "read_forms",
    "read_labelled",
    "read_pairs",
    "read_personas",
    "read_questions",
]
