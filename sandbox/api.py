"""Start, resume and study runs from Python; the command line runs everything through here.

from sandbox import api
from sandbox.reading import runs

api.run("worlds/presets/quickstart.yaml", name="mine", rounds=2)
api.load("mine").show()
with api.open_run("mine") as reader:
    print(runs.society(reader).rounds[-1].means)

A run is given as a string (a name under ``runs/``, the path of a database, or ``URL#name``) or as
the `Address` that `create` and `fork` return.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.checks import files_of
from agents.forms import UNPARSED, Status
from sandbox.backends.base import Backend
from sandbox.config import QUICKSTART, Config, load_config
from sandbox.engine.layers import Layer
from sandbox.engine.limits import UNLIMITED, Budget
from sandbox.engine.run import Blueprint, Change, Interrupted, Watch, prepare
from sandbox.engine.run import create as create_run
from sandbox.engine.run import resume as resume_run
from sandbox.reading.policy import policy_of
from sandbox.reading.runs import Outcome, open_run
from sandbox.reading.runs import outcome as read_outcome
from sandbox.settings_files import GIVEN
from storage.database import Address, address_of, parse_runs
from storage.errors import InputError

if TYPE_CHECKING:
    from sandbox.datasets import ExportReport
    from sandbox.evaluation.answering import Unfinished
    from sandbox.evaluation.results import Evaluation
    from sandbox.evaluation.settings import EvaluationSettings
    from sandbox.generations import PhaseFailed, Say, Study
    from sandbox.study.calibrate import Effort
    from sandbox.study.rates import EngineRates
    from sandbox.study.results import Comparison, Estimate
    from sandbox.study.sample import NoSample
    from sandbox.study.verify import Verdict
    from sandbox.sweep.results import Sweep
    from sandbox.sweep.run import SweepWatch
    from sandbox.training import TrainingStopped, TrainProgress, TrainReport
    from sandbox.training import Watch as TrainWatch

__all__ = [
    "UNLIMITED",
    "Address",
    "Budget",
    "Comparison",
    "Effort",
    "EngineRates",
    "Estimate",
    "Evaluation",
    "EvaluationSettings",
    "ExportReport",
    "Interrupted",
    "NoSample",
    "Outcome",
    "PhaseFailed",
    "Study",
    "Sweep",
    "SweepWatch",
    "TrainProgress",
    "TrainReport",
    "TrainWatch",
    "TrainingStopped",
    "Unfinished",
    "Verdict",
    "Watch",
    "calibrate",
    "compare",
    "create",
    "estimate",
    "evaluate",
    "export",
    "fork",
    "generations",
    "load",
    "open_run",
    "plugin_files",
    "resume",
    "run",
    "sweep",
    "train",
    "verify",
]

_LATER = {
    "Comparison": "sandbox.study.results",
    "Effort": "sandbox.study.calibrate",
    "EngineRates": "sandbox.study.rates",
    "Estimate": "sandbox.study.results",
    "Evaluation": "sandbox.evaluation.results",
    "EvaluationSettings": "sandbox.evaluation.settings",
    "ExportReport": "sandbox.datasets",
    "NoSample": "sandbox.study.sample",
    "PhaseFailed": "sandbox.generations",
    "Study": "sandbox.generations",
    "Sweep": "sandbox.sweep.results",
    "SweepWatch": "sandbox.sweep.run",
    "TrainProgress": "sandbox.training",
    "TrainReport": "sandbox.training",
    "TrainWatch": "sandbox.training",
    "TrainingStopped": "sandbox.training",
    "Unfinished": "sandbox.evaluation.answering",
    "Verdict": "sandbox.study.verify",
}
"""Names of modules that a run does without: importing them takes as long as a short run."""


def __getattr__(name: str) -> Any:
    """Import what is in `_LATER` when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), "Watch" if name == "TrainWatch" else name)


ConfigSource = str | Path | Mapping[str, Any]
"""A config: the path of a YAML file, or its keys, with paths relative to the working folder."""

SettingValues = Mapping[str, Any] | Sequence[str]
"""Config settings: values by dotted key (``{"world.size": 10}``), or ``a.b=value`` strings."""


def create(
    config: ConfigSource = QUICKSTART,
    *,
    name: str | None = None,
    db: str | Path | None = None,
    rounds: int | None = None,
    settings: SettingValues = (),
    backends: Mapping[str, Backend] | None = None,
) -> Address:
    """Write a new run into its database without starting it; `resume` starts it.

    Args:
        config: a YAML file, or the config itself as a mapping.
        name: the run's name, in place of the config's.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: the number of rounds, in place of the config's.
        settings: config keys to set, in place of the config's.
        backends: by role, the backends that `resume` will be given.

    Returns:
        The address of the new run.

    Raises:
        InputError: the config is invalid, or the name is taken.
    """
    blueprint = _blueprint(config, settings, name=name, rounds=rounds)
    return create_run(blueprint, None if db is None else str(db), backends)


def run(
    config: ConfigSource = QUICKSTART,
    *,
    name: str | None = None,
    db: str | Path | None = None,
    rounds: int | None = None,
    settings: SettingValues = (),
    budget: Budget = UNLIMITED,
    watch: Watch | None = None,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
) -> Outcome:
    """Create a run and play it until it is done or is stopped.

    Args:
        config: a YAML file, or the config itself as a mapping.
        name: the run's name, in place of the config's.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: the number of rounds, in place of the config's.
        settings: config keys to set, in place of the config's.
        budget: limits on calls, tokens and hours.
        watch: called once with the run's `sandbox.progress.Progress` before it starts.
        backends: by role, in place of the config's.
        layers: additional layers around calls; see `sandbox.engine.layers`.

    Raises:
        InputError: the config is invalid, or the name is taken.
    """
    address = create(config, name=name, db=db, rounds=rounds, settings=settings, backends=backends)
    return resume(
        address,
        budget=budget,
        watch=watch,
        backends=backends,
        layers=layers,
        allow=plugin_files(address),
    )


def resume(
    run: str | Address,
    *,
    settings: SettingValues = (),
    rounds: int | None = None,
    retry_failed: bool = False,
    retry_unparsed: bool = False,
    budget: Budget = UNLIMITED,
    accept_changes: bool = False,
    watch: Watch | None = None,
    backends: Mapping[str, Backend] | None = None,
    layers: Sequence[Layer] = (),
    allow: Collection[str | Path] = (),
) -> Outcome:
    """Play a stored run until it is done or is stopped; do nothing if it is done already.

    Args:
        run: the run.
        settings: config keys to set that do not change what is said: an address, a timeout, calls
            in flight.
        rounds: raise the total number of rounds to this.
        retry_failed: request calls again that got no reply, and play what depends on them again.
        retry_unparsed: the same for calls whose reply could not be used.
        budget: limits on calls, tokens and hours, for this call of `resume`.
        accept_changes: resume although files or the program have changed since the run started.
        watch: called once with the run's `sandbox.progress.Progress` before it starts.
        backends: by role, in place of the config's.
        layers: additional layers around calls; see `sandbox.engine.layers`.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: there is no such run, another process is writing it, something has changed, it
            needs a file that is not allowed, or a setting changes what is said.
        Interrupted: a second signal stopped the run at once; a KeyboardInterrupt.
    """
    retry = [*([Status.FAILED] if retry_failed else []), *(UNPARSED if retry_unparsed else [])]
    return resume_run(
        address_of(run),
        watch,
        change=Change(_assignments(settings), [status.value for status in retry]),
        rounds=rounds,
        budget=budget,
        accept_changes=accept_changes,
        backends=backends,
        layers=layers,
        allow=[Path(file) for file in allow],
    )


def load(run: str | Address) -> Outcome:
    """The figures of a stored run; as the value of a notebook's cell, a summary with a figure.

    Raises:
        InputError: there is no such run.
    """
    with open_run(run) as reader:
        return read_outcome(reader, address_of(run)._replace(name=reader.run.name))


def plugin_files(run: str | Address) -> list[Path]:
    """List the files with Python code that a run's config and policy name, without loading them.

    Raises:
        InputError: there is no such run.
    """
    with open_run(run) as reader:
        policy = policy_of(reader)
        checks = [] if policy is None else files_of(policy)
        return [*Config.from_json(reader.run.config).files(), *checks]


def fork(
    run: str | Address,
    at: int,
    *,
    settings: SettingValues = (),
    name: str | None = None,
    db: str | Path | None = None,
    rounds: int | None = None,
    accept_changes: bool = False,
    allow: Collection[str | Path] = (),
) -> Address:
    """Write a new run that starts with the rounds of another one; `resume` plays the rest.

    Args:
        run: the run to fork, finished or not.
        at: the last round to keep, counted from 0.
        settings: config keys to change.
        name: the new run's name; the default is RUN-fork-at-ROUND.
        db: a database URL or a path; the default is ``runs/NAME.db``.
        rounds: the total number of rounds; the default is that of the original.
        accept_changes: fork although files or the program have changed since the run started.
        allow: files with Python code that the run's config names and that may be loaded.

    Returns:
        The address of the new run.

    Raises:
        InputError: there is no such run or round, a setting contradicts the rounds that are kept,
            or the name is taken.
    """
    from sandbox.study.fork import fork as fork_run

    return fork_run(
        address_of(run),
        at,
        _assignments(settings),
        name=name,
        db=None if db is None else str(db),
        rounds=rounds,
        accept_changes=accept_changes,
        allow=[Path(file) for file in allow],
    )


def compare(runs: Sequence[str]) -> Comparison:
    """Compare runs, grouped by config: means, and differences with confidence intervals.

    Args:
        runs: at least two runs; a folder stands for all runs in the databases below it, and the
            YAML file of a sweep for those of its runs that are done.

    Raises:
        InputError: there is no such run, one is given twice or has no complete episode, or there
            are fewer than two.
    """
    from sandbox.study.compare import compare as compare_runs
    from sandbox.sweep.plan import addresses_of, is_study

    addresses: list[Address] = []
    notes: list[str] = []
    for run in runs:
        if not is_study(run):
            addresses += parse_runs([run])
            continue
        of_study = addresses_of(Path(run))
        done = [address for address, created in of_study.items() if created and _is_done(address)]
        if not done:
            raise InputError(f"{run}: found no run that is done; expected at least 2 to compare")
        addresses += done
        if len(done) < len(of_study):
            count = len(of_study) - len(done)
            notes.append(f"{count} of {len(of_study)} runs of {run} are left out: not done")
    comparison = compare_runs(addresses)
    return replace(comparison, notes=[*notes, *comparison.notes])


def _is_done(address: Address) -> bool:
    with open_run(address) as reader:
        return bool(reader.run.status == "done")


def estimate(
    config: ConfigSource = QUICKSTART,
    *,
    rounds: int | None = None,
    settings: SettingValues = (),
    episodes: int = 32,
    tokens_in_per_second: float | None = None,
    tokens_out_per_second: float | None = None,
    gpus: int | None = None,
    rates: str | Path | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Estimate:
    """Play a sample of a config's episodes and extrapolate calls, tokens, time and disk space.

    Args:
        config: a YAML file, or the config itself as a mapping.
        rounds: the number of rounds, in place of the config's.
        settings: config keys to set, in place of the config's.
        episodes: the sample size, at least 8.
        tokens_in_per_second: prompt throughput of one GPU; needs `tokens_out_per_second` too. The
            default is the speed of the sample.
        tokens_out_per_second: generation throughput of one GPU.
        gpus: the number of GPUs.
        rates: a file that `calibrate` wrote: the run is simulated on such engines.
        backends: by role, in place of the config's.

    Raises:
        InputError: the config is invalid, or a number is out of range.
        NoSample: a backend cannot be reached, or refuses every call.
    """
    from sandbox.study.estimate import calibrated, given_rates
    from sandbox.study.estimate import estimate as estimate_run

    given = given_rates(tokens_in_per_second, tokens_out_per_second, gpus)
    engines = calibrated(rates, gpus)
    if given is not None and engines is not None:
        raise InputError("--rates: found it beside --tokens-in-per-second; expected one of both")
    blueprint = _blueprint(config, settings, rounds=rounds)
    return estimate_run(blueprint, episodes, engines or given, gpus, backends)


def calibrate(
    config: ConfigSource = QUICKSTART,
    *,
    settings: SettingValues = (),
    role: str = "social",
    effort: Effort | None = None,
    say: Callable[[str], None] = print,
) -> EngineRates:
    """Measure the speed of the model of a role; written to a file, `estimate` takes it as `rates`.

    Args:
        config: a YAML file, or the config itself as a mapping.
        settings: config keys to set, in place of the config's.
        role: the role, such as social or observer.
        effort: how much to measure.
        say: called with a line for each step.

    Raises:
        InputError: the config is invalid, or its replies are scripted or have no token counts.
        NoSample: the model cannot be reached, or refuses every call.
    """
    from sandbox.study.calibrate import Effort
    from sandbox.study.calibrate import calibrate as calibrate_model

    models = dict(_blueprint(config, settings).config.models.roles())
    if role not in models:
        raise InputError(f"--role: found {role!r}; expected one of {', '.join(models)}")
    return calibrate_model(models[role], effort or Effort(), say)


def verify(
    run: str | Address, *, watch: Watch | None = None, allow: Collection[str | Path] = ()
) -> Verdict:
    """Replay a finished run from its journal, without a model, and compare digests.

    Args:
        run: the run.
        watch: called once with the replay's `sandbox.progress.Progress` before it starts.
        allow: files with Python code that the run's config names and that may be loaded.

    Raises:
        InputError: there is no such run, it is not finished, or its journal is incomplete.
    """
    from sandbox.study.verify import verify as verify_run

    return verify_run(address_of(run), watch, allow=[Path(file) for file in allow])


def export(
    runs: str | Sequence[str],
    formats: str | Sequence[str],
    out: str | Path | None,
    *,
    overwrite: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export runs as a dataset; the folder is written completely or not at all.

    Args:
        runs: one or more runs.
        formats: one or more names of `sandbox.datasets.FORMATS`.
        out: a new or an empty folder; None writes nothing, and only the report is returned.
        overwrite: replace an earlier export.
        choices: options of `sandbox.datasets.choices.Choices`, such as ``{"min_rating": 6}``.

    Raises:
        InputError: there is no such run, a choice is invalid, or `out` cannot be used.
    """
    from sandbox.datasets import export as export_readers

    run_names = [runs] if isinstance(runs, str) else runs
    format_names = [formats] if isinstance(formats, str) else formats
    folder = None if out is None else Path(out)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_run(name)) for name in run_names]
        return export_readers(readers, format_names, folder, overwrite=overwrite, **(choices or {}))


def train(
    export: str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    model: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    settings: SettingValues = (),
    watch: TrainWatch | None = None,
) -> TrainReport:
    """Train a model on an export; typed again, it goes on from the last complete checkpoint.

    Args:
        export: a folder that `export` wrote; for `cpo` also its JSON file alone.
        out: a new or an empty folder, or that of a training with the same settings and data.
        method: `sft`, `cpo` (the paper's contrastive loss), `dpo`, `kto` or `reward`.
        model: a folder with a model, or its name on the hub.
        preset: a published recipe, one of `sandbox.training.settings.PRESETS`.
        seed: the seed of all that is drawn.
        config: a YAML file of settings, which the other arguments override.
        settings: further settings, and arguments of TRL's config class by name; they come last.
        watch: told of each step as `sandbox.training.TrainProgress`.

    Raises:
        InputError: a library is missing, or the export, the model or a setting cannot be used.
        TrainingStopped: a signal stopped it, after a checkpoint; a KeyboardInterrupt.
    """
    from sandbox.training import load_settings
    from sandbox.training import train as train_model

    given = {"method": method, "model": model, "preset": preset, "seed": seed}
    file = None if config is None else Path(config).expanduser()
    loaded = load_settings(file, _assignments(settings), given)
    return train_model(Path(export), loaded, Path(out), watch)


def evaluate(
    settings: EvaluationSettings | Mapping[str, Any],
    out: str | Path,
    *,
    watch: Watch | None = None,
) -> Evaluation:
    """Let models answer held-out questions and observers score the answers; compare the models.

    Called again with the same `out`, it goes on where it was stopped.

    Args:
        settings: the settings, or their keys: ``{"models": {"a": "scripted"}, "observers": {...},
            "questions": "held_out.jsonl"}``; paths are relative to the working folder.
        out: a new folder, or that of an evaluation with equal settings.
        watch: called with the `sandbox.progress.Progress` of each run before it starts.

    Raises:
        InputError: a setting or a file is invalid, or a question was trained on.
        Unfinished: a run was stopped.
    """
    from sandbox.evaluation.evaluate import evaluate as evaluate_models
    from sandbox.evaluation.settings import EvaluationSettings, checked_settings

    given = (
        settings
        if isinstance(settings, EvaluationSettings)
        else checked_settings(dict(settings), "evaluate")
    )
    return evaluate_models(given, Path(out), watch)


def generations(
    config: str | Path,
    out: str | Path,
    count: int = 2,
    *,
    settings: SettingValues = (),
    say: Say = lambda _: None,
) -> Study:
    """Repeat society, export, training and evaluation; called again, it goes on.

    Args:
        config: a YAML file with the settings of the study.
        out: the folder of the study: new, empty, or that of the same study.
        count: the number of generations; a later call can raise it.
        settings: keys to set, in place of the file's.
        say: called with a line about each phase that begins.

    Raises:
        InputError: a setting or a file is invalid, or the folder has another study.
        PhaseFailed: a phase failed; the next call goes on with it.
    """
    from sandbox.generations import read_plan, run_study

    plan = read_plan(Path(config), _assignments(settings))
    return run_study(plan, count, Path(out).expanduser().resolve(), say)


def sweep(
    study: str | Path,
    *,
    settings: SettingValues = (),
    watch: SweepWatch = lambda _: None,
) -> Sweep:
    """Play all runs of a study, settings times seeds, side by side; called again, it goes on.

    Args:
        study: a YAML file with the settings of the study.
        settings: keys of the study to set, in place of the file's.
        watch: called once with the `sandbox.sweep.progress.SweepProgress` before it starts.

    Returns:
        The runs, and how busy the engines were that they shared; the status says whether all runs
        are done.

    Raises:
        InputError: a setting is invalid, another process plays the study, or it says something
            else than a stored run.
        KeyboardInterrupt: a second signal stopped it at once.
    """
    from sandbox.sweep.plan import read_plan
    from sandbox.sweep.run import run_sweep

    return run_sweep(read_plan(Path(study), _assignments(settings)), watch)


def _blueprint(config: ConfigSource, settings: SettingValues, **overrides: Any) -> Blueprint:
    """Read a config and check the files and backends that it names."""
    assignments = _assignments(settings)
    if not isinstance(config, str | Path | Mapping):
        raise InputError(
            f"config: found {type(config).__name__}; expected the path of a YAML file, or a mapping"
        )
    source = Path(config) if isinstance(config, str) else config
    loaded = load_config(source, assignments, **overrides)
    return prepare(loaded, GIVEN if isinstance(config, Mapping) else str(config), assignments)


def _assignments(settings: SettingValues) -> list[str]:
    """Convert settings to the form of the option ``--set``."""
    if isinstance(settings, Mapping):
        return [
            f"{key}={json.dumps(value, default=str, ensure_ascii=False)}"
            for key, value in settings.items()
        ]
    return list(settings)
