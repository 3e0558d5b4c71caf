"""The plan of a study: its settings with everything that they name, checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from sandbox.config import Config, load_config
from sandbox.datasets import check_choices
from sandbox.datasets.schema import RunSchema
from sandbox.engine.settings import transport_keys
from sandbox.evaluation.evaluate import check_models
from sandbox.evaluation.questions import read_held_out
from sandbox.evaluation.settings import absolute_settings, checked_settings
from sandbox.generations.results import START
from sandbox.generations.settings import StudySettings
from sandbox.reading.records import flat
from sandbox.settings_files import read_settings
from sandbox.training import trainers
from sandbox.training.data import FORMATS as FORMAT_OF
from sandbox.training.settings import load_settings
from storage.errors import InputError

PAGE = "docs/generations.md"


@dataclass(frozen=True)
class Plan:
    """What each generation does.

    Attributes:
        settings: of the study.
        config: the config of generation 1.
        learner: the section of the config whose model is trained, as plain values.
        format: the format of the data.
        choices: the choices of the export.
        train: the settings of training, without the model.
        control: those of the control; None without one.
        evaluation: the settings of the evaluation, without models.
    """

    settings: StudySettings
    config: Config
    learner: Mapping[str, Any]
    format: str
    choices: Mapping[str, Any]
    train: Mapping[str, Any]
    control: Mapping[str, Any] | None
    evaluation: Mapping[str, Any]

    @property
    def first(self) -> str:
        """The model of generation 1."""
        return str(self.learner["model"])

    def section(self, model: str) -> dict[str, Any]:
        """The learner's section with another model."""
        return {**self.learner, "model": model}

    def society(self, number: int, model: str) -> list[str]:
        """The settings of a generation's run, each ``a.b=value``."""
        own = {
            **self.settings.settings,
            f"{self.settings.learner}.model": model,
            "seed": self.config.seed + number - 1,
        }
        return _assignments(own)

    def plugins(self) -> list[str]:
        """The options of `resume` that name the files with code of the config."""
        found: list[str] = []
        for file in self.config.files():
            kind = "world" if str(file) == self.config.world.kind else "backend"
            found += [f"--{kind}", str(file)]
        return found

    def as_dict(self) -> dict[str, Any]:
        """What a study's folder stores, to refuse another study there.

        Settings of the society that do not change what is said are left out; they may change.
        """
        stored: dict[str, Any] = self.settings.model_dump(mode="json", exclude={"settings"})
        said = flat(json.loads(self.config.as_json()))
        for key in transport_keys(self.config):
            for within in [name for name in said if name == key or name.startswith(f"{key}.")]:
                del said[within]
        return {**stored, "config": said, "evaluate": dict(self.evaluation)}


def read_plan(source: Path, settings: Sequence[str] = ()) -> Plan:
    """Read the settings of a study, and check them with the files that they name.

    Args:
        source: a YAML file.
        settings: overrides ``a.b=value``, as for ``--set``.

    Raises:
        InputError: something is invalid.
    """
    study = read_settings(StudySettings, PAGE, source, settings)
    config = load_config(study.society, _assignments(study.settings))
    learner = _learner(config, study)
    train, control = _training(study, learner)
    evaluation = _evaluation(study, learner, source.resolve().parent)
    return Plan(
        settings=study,
        config=config,
        learner=learner,
        format=FORMAT_OF[train["method"]],
        choices=_choices(study, config, train["method"], evaluation["questions"]),
        train=train,
        control=control,
        evaluation=evaluation,
    )


def check_ready(plan: Plan) -> None:
    """Check what training and evaluation need, before the first society is played.

    Raises:
        InputError: a library is missing, an argument of training is unknown, or an observer cannot
            work.
    """
    program = next(iter(plan.settings.launcher), None)
    if program is not None and shutil.which(program) is None:
        raise InputError(f"launch: found no program {program}; expected one that is installed")
    trainers.check_libraries()
    for settings in filter(None, (plan.train, plan.control)):
        loaded = load_settings(given={**settings, "model": plan.first})
        trainers.make_arguments(loaded, Path(gettempdir()))
    models = {START: plan.section(plan.first)}
    evaluation = checked_settings({**plan.evaluation, "models": models}, "evaluate")
    check_models(evaluation, {f"models.{START}": None})  # the society checks the learner itself


def _assignments(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]


def _learner(config: Config, study: StudySettings) -> dict[str, Any]:
    """The section of the config whose model is trained.

    Raises:
        InputError: there is none, or its backend does not load a model.
    """
    section: Any = json.loads(config.as_json())
    for key in study.learner.split("."):
        section = section.get(key) if isinstance(section, dict) else None
    place = f"{study.society}: {study.learner}"
    if not isinstance(section, dict) or "backend" not in section:
        expected = "the key of a model, such as models.social or models.groups.NAME.model"
        raise InputError(f"learner: found no such key in {place}; expected {expected}")
    if section["backend"] in ("scripted", "openai", "llama_cpp"):
        expected = "vllm, or one of your own that loads the model that was trained"
        raise InputError(f"{place}.backend: found {section['backend']}; expected {expected}")
    if section.get("adapters") or section.get("adapter"):
        expected = "none: what is trained replaces the model"
        raise InputError(f"{place}.adapters: found {section['adapters']}; expected {expected}")
    return dict(section)


def _training(
    study: StudySettings, learner: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The settings of training and of its control, checked."""
    train = {**study.train}
    loaded = load_settings(given={**train, "model": learner["model"]})
    if loaded.lora is not None:  # merged, so that the next society loads one model
        train["lora"] = {**loaded.lora.model_dump(), "merge": True}
    if study.control is False:
        return train, None
    differing = study.control if isinstance(study.control, dict) else {}
    base = train if train["method"] == "sft" else {}
    control = {**base, "method": "sft", **differing}
    try:
        load_settings(given={**control, "model": learner["model"]})
    except InputError as error:
        raise InputError(f"control: {error}") from None
    return train, control


def _choices(study: StudySettings, config: Config, method: str, held_out: str) -> dict[str, Any]:
    """The choices of the export, with the questions of the evaluation kept out."""
    questions = read_held_out(Path(held_out))
    choices = {**study.export, "keep_out": [question.text for question in questions]}
    run = RunSchema(study.name, config.world.kind, config.build_world().declaration)
    try:
        check_choices(run, [FORMAT_OF[method]], choices)
    except InputError as error:
        raise InputError(f"export.{error}") from None
    return choices


def _evaluation(study: StudySettings, learner: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of the evaluation, checked with the first model."""
    data = absolute_settings({**study.evaluate}, folder, "evaluate")
    checked_settings({**data, "models": {START: dict(learner)}}, "evaluate")
    return {key: value for key, value in data.items() if key != "models"}
