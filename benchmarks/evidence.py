"""The evidence: what the papers claim of societies and of models tuned on them, measured in small.

    python benchmarks/evidence.py --out DIR [--questions FILE] [--seeds 3] [--arms NAMES] [--quick]

First societies, which are scripted, then models: for each seed a society is played, a small GPT
trained from scratch on all that was said, tuned in several ways with equally many steps, and asked
held-out questions. Every claim has an estimate with its 95 % interval, and a control. Standard
output has the tables; DIR has them as README.md and evidence.json, with a figure, and with the
processor's time and the peak memory of every phase. Typed again, a killed benchmark goes on. Needs
the extras `train` and `vllm`; `--arms none` measures societies alone and needs neither. `--model
FOLDER` tunes that model in place of the small GPT. `--quick`, for CI, ends with status 1 if a claim
is refuted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.evidence_claims import Claim, markdown, table
from benchmarks.evidence_models import (
    ARMS,
    Chain,
    Questions,
    joined,
    means,
    model_claims,
    reward_claim,
)
from benchmarks.evidence_phases import ROOT, Cost, Phases
from benchmarks.evidence_society import Societies, society_claims
from sandbox.reading import charts, pictures
from sandbox.sources.questions import read_questions
from storage.errors import InputError

EVERY_ARM = (*ARMS, "second", "scene", "reward")
QUICK_ARMS = ("control", "filtered")
TRAINED_ON, HELD_OUT = 150, 300
QUICK_HELD_OUT = 60
DOCS = ROOT / "docs"
THEMES = ("light", "dark")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the work")
    parser.add_argument(
        "--questions",
        type=Path,
        default=ROOT / "worlds/data/questions.jsonl",
        help="a file as a run takes it; default: the demo's",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds; default: 3")
    parser.add_argument("--societies", type=int, default=10, help="seeds of societies; default: 10")
    parser.add_argument(
        "--arms", default=",".join(EVERY_ARM), help=f"of {', '.join(EVERY_ARM)}; or none"
    )
    parser.add_argument("--model", type=Path, help="tune this model")
    parser.add_argument("--write", action="store_true", help="the tables into docs/evidence.md")
    parser.add_argument("--quick", action="store_true", help="one seed, few questions and arms")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.societies, given.arms = 1, 3, ",".join(QUICK_ARMS)
    given.arms = [] if given.arms == "none" else given.arms.split(",")
    unknown = [name for name in given.arms if name not in EVERY_ARM]
    if unknown:
        parser.error(f"--arms: found {unknown[0]!r}; expected some of {', '.join(EVERY_ARM)}")
    given.out, given.questions = given.out.resolve(), given.questions.resolve()
    given.model = given.model and given.model.resolve()
    return given


def keep_settings(given: argparse.Namespace) -> None:
    """Refuse a folder that was begun in another way, as its files would not fit."""
    kept, path = {"questions": str(given.questions)}, given.out / "settings.json"
    kept |= {"model": str(given.model), "quick": given.quick}
    if path.is_file() and (before := json.loads(path.read_text())) != kept:
        raise InputError(f"--out: {path}: found {before}; expected {kept}, or another folder")
    given.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept))


def measure_societies(given: argparse.Namespace) -> list[Claim]:
    """Play the societies, and check the claims about them."""
    rounds, scenes = (6, 30) if given.quick else (8, 50)
    folder = given.out / "societies"
    return society_claims(Societies(folder, given.societies, 6, rounds, scenes, given.questions))


def measure_models(given: argparse.Namespace) -> tuple[list[Claim], str]:
    """Train and evaluate the models; returns the claims about them, and their scores."""
    held_out = QUICK_HELD_OUT if given.quick else HELD_OUT
    texts = [one.text for one in read_questions(given.questions)]
    questions = Questions.split(texts, given.out, TRAINED_ON, held_out)
    quick = {"tuning": 60, "steps": 200} if given.quick else {}
    chains = [
        Chain(given.out, questions, seed, given.arms, given.model, **quick)
        for seed in range(given.seeds)
    ]
    by_group = [
        [chain.evaluate(make()) for chain, make in zip(chains, group, strict=True)]
        for group in zip(*(chain.groups() for chain in chains), strict=True)
    ]
    found = [joined(parts) for parts in zip(*by_group, strict=True)]
    claims = model_claims(found, "scripted")
    if "reward" in given.arms:
        claims += model_claims(found, "reward")
        claims.append(reward_claim([chain.accuracy() for chain in chains]))
    return claims, f"Of {len(found)} training seed{'s' * (len(found) > 1)}:\n\n{means(found)}"


def cost_table(costs: Mapping[str, Cost]) -> str:
    """What the phases of the first seed took, and all of them together."""
    named = {name.removeprefix("seed-0-"): one for name, one in costs.items()}
    rows = [
        (name, f"{one.seconds:,.0f}", f"{one.cpu_seconds:,.0f}", f"{one.peak_mib:,.0f}")
        for name, one in named.items()
        if not name.startswith("seed-")
    ]
    every = [sum(values) for values in zip(*(one[:2] for one in costs.values()), strict=True)]
    most = max((one.peak_mib for one in costs.values()), default=0.0)
    rows.append(("all phases of all seeds", *(f"{value:,.0f}" for value in every), f"{most:,.0f}"))
    return markdown(("phase", "seconds", "CPU seconds", "peak MiB"), rows)


def draw(claims: Sequence[Claim], folder: Path) -> None:
    """Draw what decides each claim: the difference from its control, with its interval."""
    rows = []
    for one in claims:
        decisive = one.estimate if one.beyond is None else one.beyond
        judge = " (reward model)" if "reward" in one.measure else ""
        rows.append({**decisive.as_dict(), "measure": one.claim + judge})
    spec = charts.differences(rows)
    spec["encoding"]["y"]["axis"]["labelLimit"] = 460
    for theme in THEMES:
        path = folder / f"evidence-{theme}.svg"
        drawn = pictures.svg(spec, "evidence", theme == "dark", width=900)
        path.write_text(drawn, encoding="utf-8")


def tables_of(
    societies: Sequence[Claim], models: Sequence[Claim], scores: str, costs: Mapping[str, Cost]
) -> dict[str, str]:
    """The tables by the names of their places in the page."""
    found = {"societies": table(societies)}
    if models:
        found |= {"scores": scores, "models": table(models), "costs": cost_table(costs)}
    return found


def write_page(tables: Mapping[str, str], folder: Path) -> None:
    """Put the tables and the figure into the documentation."""
    page = DOCS / "evidence.md"
    text = page.read_text(encoding="utf-8")
    for name, new in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{new}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")
    for theme in THEMES:
        shutil.copy(folder / f"evidence-{theme}.svg", DOCS / "images")


def main() -> int:
    """Measure what is left to measure, and print the tables."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the phase under way as well
    keep_settings(given)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    societies = measure_societies(given)
    models, scores = measure_models(given) if given.arms else ([], "")
    claims, costs = [*societies, *models], Phases(given.out).costs()
    tables = tables_of(societies, models, scores, costs)
    data = {
        "claims": [claim.as_dict() for claim in claims],
        "phases": {name: cost._asdict() for name, cost in costs.items()},
    }
    text = "\n\n".join(tables.values()) + "\n"
    (given.out / "evidence.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (given.out / "README.md").write_text(text, encoding="utf-8")
    draw(claims, given.out)
    if given.write:
        write_page(tables, given.out)
    print(text, end="")
    return 1 if given.quick and any(claim.holds == "no" for claim in claims) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
