"""The formats: what a row of each holds, one file a format."""

from __future__ import annotations

from storage.export.formats.everything import EVERYTHING
from storage.export.formats.kto import KTO
from storage.export.formats.preference import PREFERENCE
from storage.export.formats.prompts import PROMPTS
from storage.export.formats.rated import RATED
from storage.export.formats.raters import RATERS
from storage.export.formats.sft import SFT
from storage.export.formats.stable_alignment import STABLE_ALIGNMENT
from storage.export.rows import Format

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (SFT, PREFERENCE, KTO, PROMPTS, RATED, RATERS, STABLE_ALIGNMENT, EVERYTHING)
}
