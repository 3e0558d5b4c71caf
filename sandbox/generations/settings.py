"""The settings of a study of generations, checked before anything starts."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from agents.section import Section, error_at
from sandbox.settings_files import FilePath

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]


class StudySettings(Section):
    """What each generation does.

    Attributes:
        name: of the study; its runs are NAME-1, NAME-2, ...
        society: the config of the runs.
        settings: keys to set in it, by dotted key. The seed of generation n is the config's plus
            n - 1, so that generations differ in all that is drawn.
        learner: the key of the section in the config whose model is trained. Generation 1 plays
            the model that stands there.
        export: the choices of the export by their names in Python (`min_rating`, `ratings`, ...);
            the format follows from the method of training.
        train: the settings of `train`, without the model.
        train_from: whether training goes on from the latest model or starts from the first again.
        control: also train, with `sft`, in as many steps on as many answers of the same society,
            whatever their rating. A mapping has settings of `train` that differ.
        evaluate: the settings of `evaluate`, without models; its questions are kept out of the
            data.
        launch: a command that starts `train` on several GPUs, such as
            `accelerate launch --num_processes 4`.
    """

    name: Name
    society: FilePath
    settings: dict[str, Any] = Field(default={})
    learner: str = "models.social"
    export: dict[str, Any] = Field(default={})
    train: dict[str, Any]
    train_from: Literal["latest", "first"] = "latest"
    control: bool | dict[str, Any] = True
    evaluate: dict[str, Any]
    launch: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> StudySettings:
        for section, key in (("train", "model"), ("evaluate", "models"), ("export", "keep_out")):
            if key in getattr(self, section):
                raise error_at(section, {key: getattr(self, section)[key]}, f"no {key}: set here")
        method = self.train.get("method")
        if method == "reward":
            raise error_at("train", self.train, "another method: a reward model gives no answers")
        if self.control is True and method in ("cpo", "dpo", "kto"):
            expected = "a mapping with settings of an sft (learning_rate, ...), or false"
            raise error_at("control", True, f"{expected}, since the method is no sft")
        if "questions" not in self.evaluate:
            raise error_at("evaluate", self.evaluate, "a mapping with questions: FILE")
        return self

    @property
    def launcher(self) -> list[str]:
        """The words of the command that starts `train`."""
        return shlex.split(self.launch or "")
