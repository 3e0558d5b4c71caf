"""Estimates before a run: calls, tokens, bytes and time, extrapolated from a sample of episodes.

`sandbox.study.sample` plays the sample.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sandbox.backends import backends_of
from sandbox.backends.base import Backend
from sandbox.config import Config
from sandbox.engine.run import Blueprint
from sandbox.study.rates import EngineRates, read_rates
from sandbox.study.results import Estimate, Range, SampleSummary, TimeEstimate
from sandbox.study.sample import FIGURES, FILLED, Numbers, Sample, play_sample
from sandbox.study.simulate import MOST_CALLS, simulate
from storage.errors import InputError

MIN_EPISODES = 8
"""Episodes in the smallest sample."""

_PERCENTILES = (5, 95)  # of the resamples: a 90 % range
_RESAMPLES = 2000


class Rates(NamedTuple):
    """Serving speed: tokens per second on one GPU, and the number of GPUs.

    A GPU reads prompts or writes replies: its times for both add up.
    """

    tokens_in: float
    tokens_out: float
    gpus: int


class Engines(NamedTuple):
    """Copies of a model whose speed `sandbox.study.calibrate` has measured."""

    rates: EngineRates
    copies: int


def calibrated(file: str | Path | None, gpus: int | None) -> Engines | None:
    """Read the rates of a file; None where there is no file.

    Args:
        file: what `calibrate` wrote.
        gpus: the number of GPUs, or of copies of a model that runs on CPUs; None: one copy.

    Raises:
        InputError: the file is none of `calibrate`, or the GPUs are not a multiple of one copy's.
    """
    if file is None:
        return None
    rates = read_rates(file)
    of_a_copy = max(1, rates.gpus)
    gpus = of_a_copy if gpus is None else gpus
    if gpus < 1 or gpus % of_a_copy:
        raise InputError(
            f"--gpus: found {gpus}; expected a multiple of {of_a_copy}, the GPUs of one copy of "
            f"the model in {file}"
        )
    return Engines(rates, gpus // of_a_copy)


def given_rates(
    tokens_in: float | None, tokens_out: float | None, gpus: int | None
) -> Rates | None:
    """The rates given on the command line; None where both speeds are missing.

    Args:
        tokens_in: prompt tokens per second on one GPU.
        tokens_out: generated tokens per second on one GPU.
        gpus: the number of GPUs.

    Raises:
        InputError: one speed is missing, or a number is not above 0.
    """
    speeds = {"--tokens-in-per-second": tokens_in, "--tokens-out-per-second": tokens_out}
    for option, value in {**speeds, "--gpus": gpus}.items():
        if value is not None and not value > 0:
            raise InputError(f"{option}: found {value:g}; expected a number above 0")
    missing = [option for option, value in speeds.items() if value is None]
    if len(missing) == 1:
        raise InputError(f"{missing[0]}: missing; expected both speeds or neither")
    if tokens_in is None or tokens_out is None:
        return None
    return Rates(tokens_in, tokens_out, gpus or 1)


def estimate(
    blueprint: Blueprint,
    episodes: int = 32,
    rates: Rates | Engines | None = None,
    gpus: int | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Estimate:
    """Play a sample of a run's episodes and estimate what the whole run takes.

    Ranges are the middle 90 % of resamples (a stratified bootstrap over the sampled episodes; the
    strata are the first round and later rounds).

    Args:
        blueprint: what `sandbox.engine.run.prepare` returned; the run itself is not written.
        episodes: the sample size, at least 8; all episodes if the run has fewer.
        rates: serving speed, or calibrated engines, on which the run is then simulated; None: the
            speed of the sample.
        gpus: the number of GPUs that the backends use, for GPU-hours without rates.
        backends: by role, in place of those that the config names.

    Raises:
        InputError: the config is invalid, or the sample is too small.
        NoSample: a backend cannot be reached, or refuses every call.
    """
    if episodes < MIN_EPISODES:
        raise InputError(f"--episodes: found {episodes}; expected at least {MIN_EPISODES}")
    config = blueprint.config
    if gpus is not None and rates is None and _is_scripted(config):
        raise InputError(
            f"--gpus: found {gpus} for scripted replies, whose time says nothing; expected it with "
            "--tokens-in-per-second and --tokens-out-per-second"
        )
    with tempfile.TemporaryDirectory(prefix="sandbox-estimate-") as folder:
        by_role = backends_of(config.models.roles(), backends)
        sample = play_sample(blueprint, Path(folder) / "sample.db", episodes, by_role)
    always_recalled = config.memory.recall == "nearest"
    lineages = (len(blueprint.agents) or None) if always_recalled else None
    totals = _totals(sample, config.seed, lineages)
    ranges = {name: _range(totals[:, column]) for column, name in enumerate(FIGURES)}
    return Estimate(
        run=config.name,
        problems=sample.problems,
        agents=len(blueprint.agents),
        rounds=config.rounds,
        episodes=blueprint.per_round * config.rounds,
        sample=_summary(sample),
        calls=ranges["calls"],
        tokens_in=ranges["tokens_in"],
        tokens_out=ranges["tokens_out"],
        database_bytes=ranges["database_bytes"],
        time=_time(blueprint, sample, totals, rates, gpus),
        notes=[*blueprint.notes, *_notes(config, sample, rates)],
    )


def _totals(sample: Sample, seed: int, lineages: int | None) -> Numbers:
    """Figures of the whole run, shape (1 + resamples, 4): from the sample, then from resamples.

    Resampled means are spread by n / (n - 1), because a small sample underestimates its variance,
    and by 1 + n / size, because the run's own episodes vary as well. Where every answer draws on
    an earlier one of the same agent, only as many of them vary independently as there are agents
    (`lineages`).
    """
    random = np.random.default_rng(seed)
    totals = np.zeros((1 + _RESAMPLES, len(FIGURES)))
    for size, rows in sample.strata:
        n, mean = len(rows), rows.mean(0)
        means = rows[random.integers(n, size=(_RESAMPLES, n))].mean(1)
        independent = size if lineages is None else min(size, lineages)
        spread = math.sqrt(n / max(n - 1, 1) * (1 + n / independent))
        totals += size * np.vstack([mean, mean + spread * (means - mean)])
    if sample.sums[-1] > 0:
        totals[1:, -1] *= random.normal(1, sample.size_error / sample.sums[-1], _RESAMPLES)
    totals[:, -1] += sample.start_bytes
    return totals


def _range(totals: Numbers, digits: int | None = None) -> Range:
    low, high = np.percentile(totals[1:], _PERCENTILES)
    return Range(
        estimate=round(float(totals[0]), digits),
        low=round(float(low), digits),
        high=round(float(high), digits),
    )


def _summary(sample: Sample) -> SampleSummary:
    sizes = [len(rows) for _, rows in sample.strata]
    calls, tokens_in, tokens_out = sample.sums[:3].astype(int).tolist()
    return SampleSummary(
        episodes=sum(sizes),
        of_first_round=sizes[0],
        calls=calls,
        failed=sample.failed,
        unparsed=sample.unparsed,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        seconds=round(sample.seconds, 3),
    )


def _time(
    blueprint: Blueprint,
    sample: Sample,
    totals: Numbers,
    rates: Rates | Engines | None,
    gpus: int | None,
) -> TimeEstimate:
    if isinstance(rates, Engines):
        return _simulated(blueprint, sample, rates)
    config = blueprint.config
    basis: Literal["rates", "sample"]
    if rates is not None:
        one_gpu = totals[:, 1] / rates.tokens_in + totals[:, 2] / rates.tokens_out
        seconds, gpus, basis = one_gpu / rates.gpus, rates.gpus, "rates"
    elif _is_scripted(config):
        return TimeEstimate(seconds=None, gpu_hours=None, floor_seconds=None, basis=None)
    else:
        seconds, basis = totals[:, 0] * sample.seconds / max(1, sample.sums[0]), "sample"
    floor = None if _is_scripted(config) else round(config.rounds * sample.chain, 1)
    return TimeEstimate(
        seconds=_range(seconds, 1),
        gpu_hours=None if gpus is None else _range(seconds * gpus / 3600, 3),
        floor_seconds=floor,
        basis=basis,
    )


_DRAWS = 5
"""Simulations of a run, each with other draws; the range is their lowest and highest time."""


def _simulated(blueprint: Blueprint, sample: Sample, engines: Engines) -> TimeEstimate:
    """Simulate a run on calibrated engines."""
    config, (rates, copies) = blueprint.config, engines
    calls = sample.sums[0] / max(1, len(sample.episodes)) * blueprint.per_round * config.rounds
    results = [
        simulate(
            sample.episodes,
            blueprint.world,
            blueprint.agents,
            config.rounds,
            config.schedule,
            rates,
            copies,
            config.seed + draw,
        )
        for draw in range(_DRAWS if calls * _DRAWS <= MOST_CALLS else 1)
    ]
    seconds = [one.seconds for one in results]
    return TimeEstimate(
        seconds=_between(seconds, 1),
        gpu_hours=_between([one * copies * rates.gpus / 3600 for one in seconds], 3),
        floor_seconds=None,
        basis="simulation",
        busy=round(sum(one.busy for one in results) / len(results), 3),
    )


def _between(values: list[float], digits: int) -> Range:
    mean = sum(values) / len(values)
    return Range(
        estimate=round(mean, digits),
        low=round(min(values), digits),
        high=round(max(values), digits),
    )


def _is_scripted(config: Config) -> bool:
    return all(settings.backend == "scripted" for _, settings in config.models.roles())


def _notes(config: Config, sample: Sample, rates: Rates | Engines | None) -> Iterator[str]:
    rounds = "the first round" if config.rounds == 1 else "all rounds"
    yield (
        f"sampled from {rounds}; the memories that agents would have by then are filled in with "
        "other sampled answers"
    )
    if config.rounds > FILLED:
        yield f"rounds after the first {FILLED} are sampled as if they followed these at once"
    calls = int(sample.sums[0])
    if calls and not sample.failed + sample.unparsed:
        yield (
            f"all {calls:,} replies of the sample were usable; in the run up to {3 / calls:.1%} "
            "may be unusable and requested again (95 % bound)"
        )
    if sample.uncounted:
        yield f"{sample.uncounted:,} of {calls:,} calls had no token counts and count as 0 tokens"
    if config.stop is not None:
        yield "the stop rule may end the run early; the figures are for all rounds"
    if isinstance(rates, Engines):
        copies = "one copy" if rates.copies == 1 else f"{rates.copies:,} copies"
        yield (
            f"time is that of a simulation: {copies} of {rates.rates.model}, as calibrated on "
            f"{rates.rates.measured}; all roles are answered by it, and this program keeps up"
        )
    elif rates is None and _is_scripted(config):
        yield (
            "replies are scripted: for the time of a real model give --tokens-in-per-second and "
            "--tokens-out-per-second"
        )
    elif rates is None:
        yield (
            "time is extrapolated from the speed of the sample; with more concurrent calls it is "
            "less"
        )
