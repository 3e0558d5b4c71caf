"""A study of generations: phases that are done once each, and go on where they stopped.

The folder of a study:

- `study.json`: its settings, and the seconds of each phase that is finished;
- `generation-N/`: `society.db`, `data/`, `control-data/`, and the settings given to `train`;
- `models/generation-N`, `models/control-N`: as `train` writes them;
- `evaluation/`: of all models, as `evaluate` writes it;
- `generations.json`, `README.md`: the result so far.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from agents.plugins import exception_line
from agents.scale import Scale
from sandbox import __version__
from sandbox.config import Config, load_config
from sandbox.datasets import ExportReport, export
from sandbox.engine.settings import transport_changes
from sandbox.files import new_file
from sandbox.generations.child import run_verb
from sandbox.generations.plan import Plan, check_ready
from sandbox.generations.results import START, Generation, Study, control_name, trained_name
from sandbox.generations.table import markdown
from sandbox.reading.records import flat
from sandbox.reading.runs import open_run, outcome, society
from sandbox.text import short
from storage.database import Address, exists, parse_url, run_names
from storage.errors import InputError
from storage.files import locked

Say = Callable[[str], None]
"""Called with a line about each phase that begins."""


def run_study(plan: Plan, count: int, out: Path, say: Say = lambda _: None) -> Study:
    """Run generations until there are `count`; what is finished is not done again.

    Args:
        plan: what each generation does.
        count: the number of generations, from 1; a later call can raise it.
        out: the folder of the study.
        say: called with a line about each phase.

    Raises:
        InputError: `out` is the folder of another study, or a phase refuses its input.
        PhaseFailed: a phase failed; the next call goes on with it.
        KeyboardInterrupt: it was interrupted; the next call goes on.
    """
    if count < 1:
        raise InputError(f"--count: found {count}; expected 1 or more")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / "study.json", str(out)):
        work = _Work(plan, out, say)
        return [work.play(number, count) for number in range(1, count + 1)][-1]


class _Work:
    """The phases of a study in its folder."""

    def __init__(self, plan: Plan, out: Path, say: Say) -> None:
        self._plan, self._out, self._say = plan, out, say
        self._seconds: dict[str, dict[str, float]] = {}  # by generation and phase
        self._open()

    def _open(self) -> None:
        """Read the state of the study, or write that of a new one.

        Raises:
            InputError: the folder has another study, or other files.
        """
        path, settings = self._out / "study.json", self._plan.as_dict()
        if not path.exists():
            others = [file.name for file in self._out.iterdir() if path.name not in file.name]
            if others:
                raise InputError(f"--out: {self._out} has {others[0]!r}; expected an empty folder")
            check_ready(self._plan)
            self._store()
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            self._seconds, known = stored["seconds"], dict(stored["settings"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: cannot be read: {exception_line(error)}; expected the file of a study, "
                "or another --out"
            ) from None
        changed = {key for key in settings if known.get(key) != settings[key]}
        fixed = {key for key in changed if self._rests_on(key)}
        before, now = (flat({key: each.get(key) for key in fixed}) for each in (known, settings))
        for key in before | now:
            if before.get(key) != now.get(key):
                raise InputError(
                    f"--out: {self._out} has a study with {key} {short(before.get(key), 60)}; "
                    f"found {short(now.get(key), 60)}; expected the same, or another folder"
                )
        if changed:
            self._forget()
            self._store()

    def _rests_on(self, key: str) -> bool:
        """Whether a finished phase, or a society, rests on a key of the settings."""
        phase = _FIRST_USE.get(key, "society")
        return phase == "society" or any(phase in done for done in self._seconds.values())

    def _forget(self) -> None:
        """Delete the data of phases that are not finished: they were exported by other choices."""
        for folder in self._out.glob("generation-*"):
            done = self._seconds.get(folder.name.removeprefix("generation-"), {})
            for phase, data in (("training", "data"), ("control", "control-data")):
                if phase not in done:
                    shutil.rmtree(folder / data, ignore_errors=True)

    def _store(self) -> None:
        state = {
            "settings": self._plan.as_dict(),
            "version": __version__,
            "seconds": self._seconds,
        }
        _write(self._out / "study.json", json.dumps(state, indent=1))

    def play(self, number: int, count: int) -> Study:
        """Play one generation; phases that are finished are passed over.

        Returns:
            The result of the generations so far, which is written into the folder as well.
        """
        with self._phase(number, count, "society") as todo:
            if todo:
                self._society(number)
        with self._phase(number, count, "training") as todo:
            if todo:
                self._export(number)
                self._train(number, trained_name(number), "data", self._plan.train, {})
        if self._plan.control is not None:
            with self._phase(number, count, "control") as todo:
                if todo:
                    self._export_control(number)
                    steps = {"max_steps": self._trained(trained_name(number))["report"]["steps"]}
                    name = control_name(number)
                    self._train(number, name, "control-data", self._plan.control, steps)
        with self._phase(number, count, "evaluation") as todo:
            if todo:
                self._evaluate(number)
        study = self._result(number)
        _write(self._out / "generations.json", json.dumps(study.as_dict(), indent=1))
        _write(self._out / "README.md", markdown(study))
        return study

    @contextmanager
    def _phase(self, number: int, count: int, phase: str) -> Iterator[bool]:
        """Whether a phase is still to be done; afterwards it is finished."""
        done = self._seconds.setdefault(str(number), {})
        if phase in done:
            yield False
            return
        self._say(f"generation {number} of {count}: {phase}")
        started = time.monotonic()
        yield True
        done[phase] = round(time.monotonic() - started, 1)
        self._store()

    def _folder(self, number: int) -> Path:
        folder = self._out / f"generation-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _address(self, number: int) -> Address:
        url = parse_url(str(self._folder(number) / "society.db"))
        return Address(url, f"{self._plan.settings.name}-{number}")

    def _model(self, number: int) -> str:
        """The model that plays generation `number`: the first one, or the one trained before."""
        if number == 1:
            return self._plan.first
        return str(self._out / "models" / trained_name(number - 1))

    def _society(self, number: int) -> None:
        address = self._address(number)
        settings = self._plan.society(number, self._model(number))
        if exists(address.url) and address.name in run_names(address.url):
            with open_run(address) as reader:
                stored = Config.from_json(reader.run.config, self._plan.config.files())
            wanted = load_config(self._plan.settings.society, settings)
            changes = _given(transport_changes(stored, wanted))
            run_verb(["resume", str(address), *changes, *self._plan.plugins()])
            return
        arguments = _given(settings)
        place = ["--name", str(address.name), "--db", str(address.url.database)]
        run_verb(["run", str(self._plan.settings.society), *place, *arguments])

    def _data(
        self, number: int, name: str, format: str, choices: Mapping[str, Any]
    ) -> ExportReport:
        """Export the society into a folder, if it is not there yet; the report says the same."""
        folder = self._folder(number) / name
        with open_run(self._address(number)) as reader:
            return export([reader], [format], None if folder.exists() else folder, **choices)

    def _export(self, number: int) -> None:
        report = self._data(number, "data", self._plan.format, self._plan.choices)
        if not sum(report.files.values()):
            reasons = [*report.results[0].notes, *report.notes]
            raise InputError(
                f"export: found no row of {self._plan.format} in the society of generation "
                f"{number}; expected at least 1. {' '.join(reasons)}".strip()
            )

    def _export_control(self, number: int) -> None:
        """Export as many answers as the model was trained on, whatever their rating."""
        wanted = self._trained(trained_name(number))["report"]["rows"]
        with open_run(self._address(number)) as reader:
            (chosen,) = export([reader], [self._plan.format], None, **self._plan.choices).results
        choices = control_choices(self._plan.choices, chosen.settings.scale, wanted)
        self._data(number, "control-data", "sft", choices)

    def _train(
        self,
        number: int,
        name: str,
        data: str,
        settings: Mapping[str, Any],
        steps: Mapping[str, int],
    ) -> None:
        """Train a model; a finished one is passed over by `train` itself."""
        base = self._plan.first if self._plan.settings.train_from == "first" else None
        values = {**settings, "model": base or self._model(number), **steps}
        folder = self._folder(number)
        path = folder / f"{name}.yaml"
        _write(path, yaml.safe_dump(values, sort_keys=False))
        out = self._out / "models" / name
        run_verb(
            ["train", str(folder / data), "--config", str(path), "--out", str(out)],
            self._plan.settings.launcher,
        )

    def _trained(self, name: str) -> dict[str, Any]:
        """What `train` wrote about a finished model."""
        text = (self._out / "models" / name / "training.json").read_text(encoding="utf-8")
        return dict(json.loads(text))

    def _evaluate(self, number: int) -> None:
        """Evaluate all models so far; the answers of earlier ones are there already."""
        models = {START: self._plan.section(self._plan.first)}
        for earlier in range(1, number + 1):
            for name in (control_name(earlier), trained_name(earlier)):
                folder = self._out / "models" / name
                if folder.exists():
                    models[name] = self._plan.section(str(folder))
        path = self._out / "evaluation.yaml"
        _write(path, yaml.safe_dump({**self._plan.evaluation, "models": models}, sort_keys=False))
        run_verb(["evaluate", "--config", str(path), "--out", str(self._out / "evaluation")])

    def _result(self, count: int) -> Study:
        text = (self._out / "evaluation" / "evaluation.json").read_text(encoding="utf-8")
        return Study(
            name=self._plan.settings.name,
            out=str(self._out),
            generations=[self._generation(number) for number in range(1, count + 1)],
            evaluation=json.loads(text),
        )

    def _generation(self, number: int) -> Generation:
        address = self._address(number)
        with open_run(address) as reader:
            done, rounds = outcome(reader, address), society(reader).rounds
        trained = self._trained(trained_name(number))["report"]
        control = self._plan.control and self._trained(control_name(number))["report"]
        return Generation(
            number=number,
            run=done.run,
            digest=done.digest,
            measures=_means(rounds),
            episodes=done.episodes,
            episodes_failed=done.episodes_failed,
            rows=trained["rows"],
            data=trained["data"]["digest"],
            control_rows=control["rows"] if control else None,
            control_data=control["data"]["digest"] if control else None,
            steps=trained["steps"],
            seconds=self._seconds[str(number)],
        )


_FIRST_USE = {
    "export": "training",
    "train": "training",
    "train_from": "training",
    "control": "control",
    "evaluate": "evaluation",
    "launch": "never",
}
"""The phase that first uses a key; until one is finished, the key may change."""


def control_choices(choices: Mapping[str, Any], scale: Scale | None, rows: int) -> dict[str, Any]:
    """The choices of an export of `sft` that takes answers of any rating.

    Args:
        choices: those of the export whose control it is.
        scale: the scale of its ratings; None where nothing is rated.
        rows: the number of rows that it gave.
    """
    kept = {key: value for key, value in choices.items() if key not in _SELECTING}
    if scale is not None:
        kept["min_rating"] = scale.low if scale.better == "high" else scale.high
    return kept | {"pick": "all", "rows": rows}


_SELECTING = frozenset({"min_rating", "max_rating", "min_margin", "pick", "rows", "mix"})
"""Choices that select rows by their rating, or are those of another format."""


def _given(settings: Sequence[str]) -> list[str]:
    """Settings as options of the command line."""
    return [part for setting in settings for part in ("--set", setting)]


def _means(rounds: Sequence[Any]) -> dict[str, float | None]:
    """The mean of each measure over the rounds; None where no round has it."""
    names = rounds[0].means if rounds else ()
    found: dict[str, float | None] = {}
    for name in names:
        values = [scores.means[name] for scores in rounds if scores.means[name] is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _write(path: Path, text: str) -> None:
    """Write a file that is there completely or as it was."""
    with new_file(path, overwrite=True) as part:
        part.write_text(text + "\n", encoding="utf-8")
