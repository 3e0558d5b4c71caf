"""The formats of datasets, one per file."""

from __future__ import annotations

from sandbox.datasets.format import Format
from sandbox.datasets.formats.exchanges import EXCHANGES
from sandbox.datasets.formats.kto import KTO
from sandbox.datasets.formats.preference import PREFERENCE
from sandbox.datasets.formats.prism import PRISM
from sandbox.datasets.formats.prompts import PROMPTS
from sandbox.datasets.formats.rated import RATED
from sandbox.datasets.formats.raters import RATERS
from sandbox.datasets.formats.sft import SFT
from sandbox.datasets.formats.stable_alignment import STABLE_ALIGNMENT

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (SFT, PREFERENCE, KTO, PROMPTS, RATED, RATERS, STABLE_ALIGNMENT, PRISM, EXCHANGES)
}
