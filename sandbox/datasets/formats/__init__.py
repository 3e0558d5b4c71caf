"""The formats: what a row of each holds, one file a format."""

from __future__ import annotations

from sandbox.datasets.formats.everything import EVERYTHING
from sandbox.datasets.formats.kto import KTO
from sandbox.datasets.formats.preference import PREFERENCE
from sandbox.datasets.formats.prompts import PROMPTS
from sandbox.datasets.formats.rated import RATED
from sandbox.datasets.formats.raters import RATERS
from sandbox.datasets.formats.sft import SFT
from sandbox.datasets.formats.stable_alignment import STABLE_ALIGNMENT
from sandbox.datasets.rows import Format

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (SFT, PREFERENCE, KTO, PROMPTS, RATED, RATERS, STABLE_ALIGNMENT, EVERYTHING)
}
