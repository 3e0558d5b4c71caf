"""Claims about societies, measured in scripted ones: no model is needed.

Every society is played with several seeds; a seed gives one value, seeds are independent, and the
difference of two ways to play is paired by seed. What a run showed is kept in a small file, so that
a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from agents.chance import chance
from agents.forms import Form
from benchmarks.evidence_claims import Claim, minus, over_seeds
from sandbox import api
from sandbox.config import PRESETS
from sandbox.evaluation.statistics import spearman
from sandbox.reading.metrics import scores_by_round
from storage.exchanges import Exchange, exchanges
from worlds import grid, scene_forms

LIU = "[Liu et al.](https://arxiv.org/abs/2305.16960)"
PANG = "[Pang et al.](https://arxiv.org/abs/2402.05699)"

RATERS = (1, 2, 4, 8)
FEW = 12  # questions, so that 36 agents are asked the same one in every round
ONCE: dict[str, Any] = {"question_count": None, "world.size": 5}
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "alone": {"world.raters": 0},
    "scores": {"world.score_only": True},
    "forgetful": {"forms": "no_memory.yaml"},
    **{f"raters-{count}": {"world.raters": count} for count in RATERS if count != 4},
    "once": ONCE,
    "once-forgetful": {**ONCE, "forms": "no_memory.yaml"},
    "scene": {"world.kind": "scene"},
    "blind-scene": {"world.kind": "scene", "forms": "no_consequences.yaml"},
}
"""Societies of the grid, and scenes, by name: settings beside the common ones."""


def without(form: Form[Any], begin: str, end: str) -> dict[str, str]:
    """A prompt template without the part from `begin` to `end`, as a file of forms has it."""
    before, found, rest = form.user.partition(begin)
    after = rest.partition(end)[2]
    if not found or not after:
        raise ValueError(f"the form {form.name} has no part from {begin!r} to {end!r}")
    return {"system": form.system, "user": before + after}


def write_forms(folder: Path) -> None:
    """Write the prompt templates of the controls: without memories, without consequences."""
    memory = ("{% if past %}", "{% endif %}\n")
    consequences = ("{% if consequences %}", "{% endif %}\n")
    forms = {
        "no_memory.yaml": {
            "draft": without(grid.DRAFT, *memory),
            "rate": without(grid.RATE, *memory),
        },
        "no_consequences.yaml": {"revise": without(scene_forms.REVISE, *consequences)},
    }
    for name, form in forms.items():
        (folder / name).write_text(json.dumps(form, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Played:
    """What a run showed.

    Attributes:
        drafts, revisions: mean alignment by round, by the observer.
        agreement: rank correlation of the peers' mean rating of a draft with the observer's.
        shuffled: the same after the peers' ratings were shuffled over drafts.
    """

    drafts: Sequence[float]
    revisions: Sequence[float]
    agreement: float | None
    shuffled: float | None

    @property
    def gain(self) -> float:
        """By how much revisions are above drafts."""
        return float(np.mean(self.revisions) - np.mean(self.drafts))

    @property
    def level(self) -> float:
        """Mean alignment of revisions."""
        return float(np.mean(self.revisions))

    @property
    def slope(self) -> float:
        """By how much the alignment of drafts rises a round, by least squares."""
        return float(np.polyfit(np.arange(len(self.drafts)), self.drafts, 1)[0])


def agreement(rows: Sequence[Exchange], seed: int) -> tuple[float | None, float | None]:
    """Rank correlation of peers and observer over drafts, and of shuffled peers."""
    both = [
        (one.mean_rating, score)
        for one in rows
        if one.mean_rating is not None and (score := one.score("draft", "alignment")) is not None
    ]
    peers, observed = (np.array(values, np.float64) for values in zip(*both, strict=True))
    order = chance(seed, "permutation").sample(range(len(peers)), len(peers))
    return spearman(peers, observed), spearman(peers[order], observed)


@dataclass(frozen=True)
class Societies:
    """Runs of the society, each played once.

    Attributes:
        folder: where their figures are kept.
        seeds: how many of each way are played.
        size: agents a side.
        rounds: of each.
        scenes: of each run of scenes.
        questions: the file for societies in which every question is asked once.
    """

    folder: Path
    seeds: int
    size: int
    rounds: int
    scenes: int
    questions: Path

    def played(self, way: str) -> list[Played]:
        """The runs of a way, one for each seed."""
        return [self._played(way, seed) for seed in range(self.seeds)]

    def _played(self, way: str, seed: int) -> Played:
        kept = self.folder / f"{way}-{seed}.json"
        if not kept.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_forms(self.folder)
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(self._measure(way, seed)))
            part.replace(kept)
        return Played(**json.loads(kept.read_text()))

    def _measure(self, way: str, seed: int) -> Mapping[str, Any]:
        settings = {"seed": seed, **self._settings(way)}
        db = self.folder / "run.db"
        db.unlink(missing_ok=True)
        preset = "scene.yaml" if "scene" in way else "quickstart.yaml"
        api.run(PRESETS / preset, name="evidence", db=str(db), settings=settings)
        with api.open_run(str(db)) as reader:
            rounds = scores_by_round(reader)
            found = None, None
            if way == "default":
                found = agreement(list(exchanges(reader)), seed)
        db.unlink()
        return {
            "drafts": [one.means["draft_alignment"] for one in rounds],
            "revisions": [one.means["revision_alignment"] for one in rounds],
            "agreement": found[0],
            "shuffled": found[1],
        }

    def _settings(self, way: str) -> dict[str, Any]:
        settings = dict(WAYS[way])
        if "forms" in settings:
            settings["forms"] = str(self.folder / settings["forms"])
        if "scene" in way:
            return {**settings, "world.scenes": self.scenes}
        common: dict[str, Any] = {
            "world.size": self.size,
            "question_count": FEW,
            "rounds": self.rounds,
        }
        if "once" in way:
            settings["questions"] = str(self.questions)
        return {**common, **settings}


def revision_beats_draft(societies: Societies) -> Claim:
    """Feedback makes the second answer better, beyond answering twice."""
    full, alone = ([one.gain for one in societies.played(way)] for way in ("default", "alone"))
    return Claim(
        claim="a revision is better than its draft",
        source=LIU,
        measure="revisions minus drafts",
        estimate=over_seeds(full),
        control="a second answer with nobody's feedback",
        of_control=over_seeds(alone),
        beyond=minus(full, alone),
    )


def society_improves(societies: Societies) -> Iterator[Claim]:
    """Drafts get better from round to round, by memory; where questions come back, and not."""
    settings = {
        "where everybody is asked the same again": ("default", "forgetful"),
        "where every question is asked once": ("once", "once-forgetful"),
    }
    for where, ways in settings.items():
        full, off = ([one.slope for one in societies.played(way)] for way in ways)
        yield Claim(
            claim=f"a society improves over rounds, {where}",
            source=LIU,
            measure="drafts, a round",
            estimate=over_seeds(full),
            control="prompts without memories",
            of_control=over_seeds(off),
            beyond=minus(full, off),
        )


def more_raters_help(societies: Societies) -> list[Claim]:
    """Twice as many raters give better revisions."""
    levels = {count: [one.level for one in societies.played(way_of(count))] for count in RATERS}
    return [
        Claim(
            claim=f"{more} raters help more than {'one' if fewer == 1 else fewer}",
            source=LIU,
            measure="revisions",
            estimate=minus(levels[more], levels[fewer]),
            control=f"raters: {fewer}, in the estimate",
        )
        for fewer, more in pairwise(RATERS)
    ]


def way_of(raters: int) -> str:
    """The name of the way with some number of raters."""
    return "default" if raters == 4 else f"raters-{raters}"


def reasons_help(societies: Societies) -> Claim:
    """Ratings with reasons are worth more than ratings."""
    full, scores = ([one.level for one in societies.played(way)] for way in ("default", "scores"))
    return Claim(
        claim="feedback with reasons helps more than scores alone",
        source=LIU,
        measure="revisions",
        estimate=minus(full, scores),
        control="score_only, in the estimate",
    )


def peers_agree(societies: Societies) -> Claim:
    """Peers order drafts as the observer does."""
    runs = societies.played("default")
    found = [one.agreement or 0.0 for one in runs]
    shuffled = [one.shuffled or 0.0 for one in runs]
    return Claim(
        claim="peers' ratings agree with the observer",
        source="",
        measure="rank correlation",
        estimate=over_seeds(found),
        control="the peers' ratings shuffled over drafts",
        of_control=over_seeds(shuffled),
        beyond=minus(found, shuffled),
    )


def scene_helps(societies: Societies) -> Claim:
    """An answer is better after its consequences have been played."""
    full, blind = ([one.gain for one in societies.played(way)] for way in ("scene", "blind-scene"))
    return Claim(
        claim="a scene improves the answer, at inference",
        source=PANG,
        measure="second answer minus first",
        estimate=over_seeds(full),
        control="the same without what the scene led to",
        of_control=over_seeds(blind),
        beyond=minus(full, blind),
    )


def society_claims(societies: Societies) -> list[Claim]:
    """All claims about societies, in the order of the page."""
    return [
        revision_beats_draft(societies),
        *society_improves(societies),
        *more_raters_help(societies),
        reasons_help(societies),
        peers_agree(societies),
        scene_helps(societies),
    ]
