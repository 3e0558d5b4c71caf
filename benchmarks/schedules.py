"""Compare orders of work with the best possible time, simulated in virtual time.

Usage: python benchmarks/schedules.py [--write] [--seeds 5] [--jobs 2] [--knee 128] ...

Prints three tables: dispatch priorities, limits of calls in flight, and orders of work for several
societies. With `--write` it updates docs/benchmarks.md and docs/images/schedules.svg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import vl_convert
from engine_model import (
    DRAFT,
    OBSERVE_DRAFT,
    OBSERVE_REVISION,
    RATE,
    REVISE,
    Bounds,
    EngineModel,
    Order,
    Result,
    Workload,
    bounds,
    simulate,
)
from numpy.typing import NDArray

from sandbox.config import PRESETS
from sandbox.reading.charts import VERSION
from sandbox.sources import read_personas
from worlds.base import Meeting
from worlds.grid import Settings, World

DOCS = Path(__file__).resolve().parent.parent / "docs"
RATES = ("prefill_rate", "decode_rate", "knee", "max_batch", "kv_tokens")
RADIUS = 3  # 28 neighbours, which suffices for 16 raters
OBSERVER = [*OBSERVE_DRAFT, *OBSERVE_REVISION]

Reach = Literal["local", "global"]
Keys = NDArray[np.float64]


class Case(NamedTuple):
    """A society and a machine: `size` x `size` agents, `servers` GPUs."""

    size: int
    raters: int
    reach: Reach
    rounds: int
    servers: int = 1

    @property
    def agents(self) -> int:
        """The number of agents."""
        return self.size * self.size


SOCIETIES = [
    Case(size, raters, reach, 3 if size >= 100 else 10)
    for size, raters, reach in product(
        (5, 10, 20, 32, 100), (4, 8, 16), cast(tuple[Reach, ...], ("local", "global"))
    )
]
CLUSTERS = [
    Case(80, 4, "global", 10, servers=64),
    Case(80, 8, "global", 10, servers=64),
    Case(316, 4, "global", 3, servers=64),
]
HARD = [
    Case(10, 8, "local", 10),
    Case(10, 8, "global", 10),
    Case(10, 4, "global", 10),
    Case(8, 8, "global", 10),
    Case(14, 4, "global", 10),
    Case(7, 16, "global", 10),
]
WIDE = Case(20, 4, "global", 6)


def workload(case: Case, engine: EngineModel, seed: int) -> Workload:
    """Create the calls of a society, with the meetings of the grid world."""
    settings = Settings(size=case.size, raters=case.raters, reach=case.reach, radius=RADIUS)
    world = World(settings, seed)
    agents = world.populate(read_personas(PRESETS.parent / "data" / "personas.jsonl"))
    plan: list[list[Meeting]] = [world.meet(agents, round) for round in range(case.rounds)]
    return Workload(plan, engine, seed)


# What goes first at the gate: an array of keys [round, episode, place], the smallest first.


def keys_of(work: Workload, stages: Sequence[float], later: float) -> Keys:
    """Sort keys by round, then stage, then episode.

    Args:
        work: the calls.
        stages: of draft, rating, revision and score; below 10.
        later: by how many rounds scores are put off.
    """
    draft, rate, revise, score = stages
    places = np.array([draft, revise, *[score] * 4, *[rate] * work.raters])
    rounds = np.arange(len(work.plan))[:, None, None] * 10.0
    keys: Keys = rounds + places + np.arange(work.per_round)[:, None] / work.per_round
    keys[:, :, OBSERVER] += 10 * later
    return keys


def most_needed(work: Workload) -> Keys:
    """Sort keys: first the episodes whose author takes part in most episodes of the next round."""
    keys = keys_of(work, (0, 0, 0, 3), 1)
    for round, members in enumerate(work.members[1:]):
        needed = np.bincount(np.sort(members, axis=1).ravel(), minlength=work.per_round)
        authors = work.members[round][:, 0]
        keys[round] += 5 - 5 * (needed / needed.max())[authors, None]
    return keys


def all_known(work: Workload) -> Keys:
    """Sort keys: the longest remaining chain first, with known lengths of replies."""
    after = np.zeros(work.per_round)
    keys: Keys = work.alone()
    for members, left in zip(work.members[::-1], keys[::-1], strict=True):
        left[:, REVISE] += np.maximum(after[members[:, 0]], left[:, OBSERVE_REVISION].max(axis=1))
        left[:, RATE:] += left[:, [REVISE]]
        left[:, DRAFT] += left[:, REVISE:].max(axis=1)
        after = np.zeros(work.per_round)
        np.maximum.at(after, members, left[:, [DRAFT]])
    return np.negative(keys)


PRIORITIES: dict[str, Callable[[Workload], Keys | None]] = {
    "earliest episode": lambda work: None,
    "earliest round, its scores last": lambda work: keys_of(work, (0, 0, 0, 3), 0),
    "the same, scores a round later": lambda work: keys_of(work, (0, 0, 0, 3), 1),
    "revision, rating, draft; scores a round later": lambda work: keys_of(work, (2, 1, 0, 3), 1),
    "most needed author; scores a round later": most_needed,
    "**draft, rating, revision; scores a round later**": lambda work: keys_of(
        work, (0, 1, 2, 3), 1
    ),
    "the same, scores after everything": lambda work: keys_of(work, (0, 1, 2, 3), 10**6),
    "(longest chain, if lengths were known)": all_known,
}
BEST = "**draft, rating, revision; scores a round later**"


class Way(NamedTuple):
    """An order of work; calls in flight are `batch` times the knee, summed over servers."""

    order: Order
    priority: str = "earliest episode"
    batch: float = 2


WAYS = {
    "by phases": Way("by_phases"),
    "lock step": Way("lock_step"),
    "out of order": Way("out_of_order"),
    "tuned": Way("out_of_order", BEST, 1),
}


class Played(NamedTuple):
    """The results of a society for one seed; `seconds` is the real time of the first way."""

    bounds: Bounds
    results: list[Result]
    seconds: float

    def reached(self, way: int) -> float:
        """The share of the oracle's speed."""
        return self.bounds.oracle / self.results[way].makespan


def play(case: Case, engine: EngineModel, seed: int, ways: Sequence[Way]) -> Played:
    """Play a society in several ways."""
    work = workload(case, engine, seed)
    began = time.perf_counter()
    results = []
    for way in ways:
        keys = PRIORITIES[way.priority](work)
        width = round(way.batch * engine.knee * engine.servers)
        flat = None if keys is None else keys.ravel().tolist()
        results.append(simulate(work, way.order, width, keys=flat))
    return Played(bounds(work), results, time.perf_counter() - began)


def play_all(
    cases: Sequence[Case], engine: EngineModel, seeds: int, jobs: int, ways: Sequence[Way]
) -> dict[Case, list[Played]]:
    """Play every case with several seeds; large cases, which vary little, with two or one."""
    tasks = [
        (case, seed)
        for case in reversed(cases)
        for seed in range(max(1, min(seeds, 2500 // case.agents)))
    ]
    played: dict[Case, list[Played]] = {case: [] for case in cases}
    with ProcessPoolExecutor(jobs) as pool:
        machines = [engine.model_copy(update={"servers": c.servers}) for c, _ in tasks]
        numbers = [seed for _, seed in tasks]
        asked = [c for c, _ in tasks]
        for case, one in zip(
            asked, pool.map(play, asked, machines, numbers, [ways] * len(tasks)), strict=True
        ):
            played[case].append(one)
    return played


def mean(values: Iterable[float]) -> float:
    """The mean."""
    return statistics.fmean(values)


def share(values: Sequence[float]) -> str:
    """A mean in percent, with the standard deviation over seeds."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def society_row(case: Case, runs: Sequence[Played]) -> str:
    """A row of the table of orders."""
    phases, lock_step, free, _ = range(len(WAYS))
    reached = [share([one.reached(way) for one in runs]) for way in range(len(WAYS))]

    def ratio(one: int, other: int) -> str:
        return f"{mean(r.results[one].makespan / r.results[other].makespan for r in runs):.2f}"

    results = [one.results[free] for one in runs]
    cells = [
        f"{case.agents:,}",
        str(case.servers),
        str(case.raters),
        case.reach,
        f"{mean(one.bounds.path / one.bounds.work for one in runs):.2f}",
        *reached,
        ratio(phases, free),
        ratio(lock_step, free),
        *[f"{100 * mean(getattr(r, c) for r in results):.1f}" for c in ("starved", "tail")],
        f"{mean(r.stretch for r in results):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


SOCIETY_HEAD = """\
| agents | GPUs | raters | reach | path / work | by phases % | lock step % | out of order % | \
tuned % | against phases | against lock step | starved % | end % | stretch |
| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |\
 ---: | ---: | ---: | ---: | ---: |"""


def society_table(played: dict[Case, list[Played]]) -> str:
    """The table of orders of work by society."""
    return "\n".join([SOCIETY_HEAD, *(society_row(case, runs) for case, runs in played.items())])


def priority_table(played: dict[Case, list[Played]], ways: Sequence[Way]) -> str:
    """The table of priorities, for the cases in which they matter."""
    names = [f"{case.agents} agents, {case.raters} raters, {case.reach}" for case in played]
    lines = [
        f"| in flight | first at the gate | {' | '.join(names)} |",
        f"| ---: | --- |{' ---: |' * len(names)}",
    ]
    for number, way in enumerate(ways):
        cells = [share([one.reached(number) for one in runs]) for runs in played.values()]
        lines.append(f"| {way.batch:g} x knee | {way.priority} | {' | '.join(cells)} |")
    return "\n".join(lines)


def width_table(engine: EngineModel, seeds: int, jobs: int) -> str:
    """The table of calls in flight, for a sharp and for a gradual knee."""
    ways = [
        Way("out_of_order", name, batch)
        for batch in (0.5, 0.75, 1, 1.5, 2, 4, 8)
        for name in ("earliest episode", BEST)
    ]
    columns: list[list[str]] = []
    for bend in ("sharp", "gradual"):
        machine = engine.model_copy(update={"bend": bend, "max_batch": 8 * engine.knee})
        for runs in play_all([HARD[1], WIDE], machine, seeds, jobs, ways).values():
            means = [
                mean(one.results[number].makespan for one in runs) for number in range(len(ways))
            ]
            cells = [f"{min(means) / value:.0%}" for value in means]
            columns += [cells[::2], cells[1::2]]
    societies = [
        f"{case.agents} agents, {bend}" for bend in ("sharp", "gradual") for case in (HARD[1], WIDE)
    ]
    heads = [f"{name}, {key}" for name in societies for key in ("plain queue", "tuned")]
    lines = [f"| in flight | {' | '.join(heads)} |", f"| ---: |{' ---: |' * len(heads)}"]
    for way, *cells in zip(ways[::2], *columns, strict=True):
        lines.append(f"| {way.batch:g} x knee | {' | '.join(cells)} |")
    return "\n".join(lines)


def claims(played: dict[Case, list[Played]]) -> list[tuple[str, bool]]:
    """The claims that the tables must support."""
    phases, lock_step, free, tuned = range(len(WAYS))
    runs = [one for some in played.values() for one in some]
    below = [one for one in runs if one.reached(tuned) < 0.95]
    return [
        ("no order of work is faster than the oracle",
         all(one.reached(way) <= 1 + 1e-9 for one in runs for way in range(len(WAYS)))),
        ("out of order is never slower than lock step, lock step never than by phases",
         all(one.reached(phases) <= one.reached(lock_step) <= one.reached(free) for one in runs)),
        (f"tuned reaches 95 % of the oracle in {len(runs) - len(below)} of {len(runs)} runs",
         len(below) <= 0.1 * len(runs)),
    ]  # fmt: skip


def figure(played: dict[Case, list[Played]], path: Path) -> None:
    """Draw the share of the oracle's speed by the size of a society."""
    names = list(WAYS)
    rows: list[dict[str, Any]] = [
        {
            "agents": case.agents,
            "raters": f"{case.raters} raters",
            "order": way,
            "reached": mean(one.reached(number) for one in runs),
        }
        for case, runs in played.items()
        for number, way in enumerate(WAYS)
        if case.reach == "global" and case.servers == 1
    ]
    colours = ["#b9bcc4", "#7b8494", "#2563a5", "#2e7d32"]
    encoding = {
        "x": {
            "field": "agents",
            "type": "ordinal",
            "title": "agents",
            "sort": sorted({row["agents"] for row in rows}),
            "axis": {"labelAngle": 0, "format": ",d"},
        },
        "y": {
            "field": "reached",
            "type": "quantitative",
            "title": "share of the best possible speed",
            "scale": {"domain": [0.5, 1], "clamp": True},
            "axis": {"format": "%", "values": [0.5, 0.6, 0.7, 0.8, 0.9, 1]},
        },
        "color": {
            "field": "order",
            "type": "nominal",
            "sort": names,
            "scale": {"domain": names, "range": colours},
            "legend": {
                "title": None,
                "orient": "top",
                "symbolStrokeWidth": 3,
                "labelFontSize": 13,
            },
        },
    }
    column = {
        "field": "raters",
        "type": "nominal",
        "sort": [f"{n} raters" for n in (4, 8, 16)],
        "title": None,
        "header": {"labelFontSize": 13, "labelFontWeight": "bold"},
    }
    spec = {
        "data": {"values": rows},
        "facet": {"column": column},
        "spacing": 22,
        "spec": {
            "width": 225,
            "height": 230,
            "mark": {"type": "line", "strokeWidth": 2.2, "point": {"size": 45}},
            "encoding": encoding,
        },
        "config": LOOK,
    }
    path.write_text(vl_convert.vegalite_to_svg(spec, vl_version=VERSION), encoding="utf-8")


_INK, _QUIET = "#282a2e", "#e4e2db"

LOOK: dict[str, Any] = {
    "background": "#faf9f5",
    "font": "sans-serif",
    "padding": 14,
    "view": {"stroke": None},
    "axis": {
        "gridColor": _QUIET,
        "domainColor": _QUIET,
        "tickColor": _QUIET,
        "labelColor": _INK,
        "titleColor": _INK,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisX": {"grid": False},
    "legend": {"labelColor": _INK},
    "header": {"labelColor": _INK},
}
"""The style of the project's pictures, without fonts that would have to be loaded."""


def write(name: str, text: str) -> None:
    """Replace the text between the markers of a name in docs/benchmarks.md."""
    path = DOCS / "benchmarks.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into docs/")
    parser.add_argument("--seeds", type=int, default=5, help="of societies below 1,000 agents")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--most", type=int, default=10**6, help="agents of the largest society")
    for name in RATES:
        default = EngineModel.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args()


def main() -> int:
    """Print the tables and the claims."""
    options = arguments()
    engine = EngineModel(**{name: getattr(options, name) for name in RATES})
    cases = [case for case in (*SOCIETIES, *CLUSTERS) if case.agents <= options.most]
    ways = [Way("out_of_order", name, batch) for batch in (1, 2) for name in PRIORITIES]
    hard = play_all(HARD, engine, options.seeds, options.jobs, ways)
    priorities = priority_table(hard, ways)
    widths = width_table(engine, options.seeds, options.jobs)
    print(f"{priorities}\n\n{widths}", flush=True)
    played = play_all(cases, engine, options.seeds, options.jobs, list(WAYS.values()))
    societies = society_table(played)
    print(f"\n{societies}\n")
    runs = [one for some in played.values() for one in some]
    calls = sum(result.calls for one in runs for result in one.results)
    print(f"{calls:,} calls, {calls / sum(one.seconds for one in runs):,.0f} a second")
    held = claims(played)
    for claim, holds in held:
        print(f"- {'holds' if holds else 'FAILS'}: {claim}")
    if options.write:
        write("societies", societies)
        write("priorities", priorities)
        write("widths", widths)
        figure(played, DOCS / "images" / "schedules.svg")
    return 0 if all(holds for _, holds in held) else 1


if __name__ == "__main__":
    sys.exit(main())
