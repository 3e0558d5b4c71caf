"""Evaluate models: check questions, let models answer and observers judge, compute the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sandbox.backends import check_model
from sandbox.backends.base import transport_of
from sandbox.engine.run import Watch
from sandbox.evaluation.answering import (
    QUESTIONS,
    Answer,
    Runs,
    Task,
    split_forms,
    tasks_of,
    write_text,
)
from sandbox.evaluation.logs import write_logs
from sandbox.evaluation.questions import (
    HeldOut,
    lineage,
    raters_of,
    read_held_out,
    refuse_leaks,
    training_report,
)
from sandbox.evaluation.results import Evaluation, ModelResult, ObserverResult
from sandbox.evaluation.rewards import check_reward_model, rewards_of
from sandbox.evaluation.settings import (
    EvaluationSettings,
    RewardSettings,
    fingerprint,
    folder_of,
)
from sandbox.evaluation.summary import Scored, Summary
from sandbox.evaluation.tables import markdown
from sandbox.reading.records import flat
from sandbox.reading.runs import SCRIPTED
from storage.errors import InputError
from storage.files import locked

SETTINGS = "settings.json"
RESULT = "evaluation.json"
TABLES = "README.md"


def evaluate(settings: EvaluationSettings, out: Path, watch: Watch | None = None) -> Evaluation:
    """Evaluate models on held-out questions; called again with the same `out`, it goes on.

    Models answer one after another, then observers judge, so that one engine is loaded at a time.

    Args:
        settings: models, observers, questions.
        out: the folder of the evaluation: new, empty, or one that was begun with equal settings.
            Models and observers can be added later; what is there already is not asked again.
        watch: called with the `sandbox.progress.Progress` of each run before it starts.

    Returns:
        The result, which is in `out` as well: evaluation.json, README.md, logs/.

    Raises:
        InputError: a setting or a file is invalid, a question was trained on, or the folder is
            that of something else.
        Unfinished: a run was stopped or its model cannot be reached.
    """
    questions = read_held_out(settings.questions)
    trained_on = refuse_leaks(settings, questions)
    forms = {} if settings.forms is None else split_forms(settings.forms)
    described = _described(settings, questions, forms)
    check_models(settings, _stored(out, described))
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / SETTINGS, str(out)):
        known = {**_stored(out, described), **described}
        write_text(out / SETTINGS, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        write_text(out / QUESTIONS, "".join(f"{one.line()}\n" for one in questions))
        for kind, text in forms.items():
            write_text(out / f"forms-{kind}.yaml", text)
        return _Work(settings, out, questions, trained_on, watch).result()


def check_models(settings: EvaluationSettings, stored: Mapping[str, Any]) -> None:
    """Check the models and observers that an evaluation does not have yet.

    Raises:
        InputError: one cannot work.
    """
    for kind, named in (("models", settings.models), ("observers", settings.judges)):
        for name, model in named.items():
            if f"{kind}.{name}" in stored:
                continue
            try:
                check_model(model)
            except ValueError as error:
                raise InputError(f"{kind}.{name}.{error}") from None
    for name, folder in settings.rewards.items():
        if f"observers.{name}" not in stored:
            check_reward_model(name, folder)


def _described(
    settings: EvaluationSettings, questions: Sequence[HeldOut], forms: Mapping[str, str]
) -> dict[str, Any]:
    """All that decides answers and scores, by key, as the folder of an evaluation keeps it."""
    plain = settings.model_dump(mode="json")
    described: dict[str, Any] = {key: plain[key] for key in _DECIDING}
    described["questions"] = _digest(questions)
    described["forms"] = sha256(json.dumps(forms, sort_keys=True).encode()).hexdigest()
    for kind, named in (("models", settings.models), ("observers", settings.observers)):
        for name, one in named.items():
            folder = folder_of(one)
            section = flat(plain[kind][name])
            for key in transport_of(type(one)):
                section.pop(key, None)
            files = {"files": None if folder is None else fingerprint(folder)}
            described[f"{kind}.{name}"] = section | files
    return described


_DECIDING = ("samples", "seed", "truncated", "attempts")


def _digest(questions: Sequence[HeldOut]) -> str:
    return sha256("\n".join(one.line() for one in questions).encode()).hexdigest()


def _stored(out: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder of an evaluation was begun with; empty if it is new.

    Raises:
        InputError: the folder is that of something else, or of an evaluation with other settings.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is not a folder; expected an empty or a new folder")
    path = out / SETTINGS
    if not path.is_file():
        names = [one.name for one in out.iterdir()] if out.is_dir() else []
        unknown = next((name for name in names if not name.startswith(".")), None)
        if unknown is not None and unknown != f"{SETTINGS}.lock":
            raise InputError(
                f"out: {out} contains {unknown!r}, and no evaluation; expected a new folder"
            )
        return {}
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; expected another --out") from None
    before, now = (
        flat({k: each[k] for k in stored if k in described}) for each in (stored, described)
    )
    for key in dict.fromkeys((*before, *now)):
        if before.get(key) != now.get(key):
            raise InputError(
                f"out: {out} was begun with {key} {before.get(key)!r}; found {now.get(key)!r}; "
                "expected the same settings, or another folder"
            )
    return stored


class _Work:
    """The work of one evaluation in its folder."""

    def __init__(
        self,
        settings: EvaluationSettings,
        out: Path,
        questions: Sequence[HeldOut],
        trained_on: Mapping[str, int | None],
        watch: Watch | None,
    ) -> None:
        self._settings = settings
        self._out = out
        self._questions = questions
        self._trained_on = trained_on
        self._runs = Runs(settings, out, questions, watch)

    def result(self) -> Evaluation:
        """Play what is left, and write the result."""
        self._runs.begin()
        answers = self._runs.answers()
        settings = self._settings
        tasks = tasks_of(answers, self._questions, settings.seed, settings.pairwise)
        summary = Summary(list(settings.models), self._questions, settings.samples, answers)
        scored = self._all_scored(answers, tasks, summary)
        evaluation = self._evaluation(answers, summary, scored)
        write_text(self._out / RESULT, json.dumps(evaluation.as_dict(), indent=1) + "\n")
        write_text(self._out / TABLES, markdown(evaluation))
        created = self._runs.created()
        write_logs(self._out, evaluation, self._questions, answers, scored, created)
        return evaluation

    def _all_scored(
        self, answers: Sequence[Answer], tasks: Sequence[Task], summary: Summary
    ) -> dict[str, Scored]:
        """What each observer says; reward models last, when no engine needs the GPU."""
        observers = self._settings.observers
        last = sorted(observers, key=lambda name: isinstance(observers[name], RewardSettings))
        scored = {
            name: self._scored(name, observers[name], answers, tasks, summary) for name in last
        }
        return {name: scored[name] for name in observers}

    def _scored(
        self,
        name: str,
        observer: Any,
        answers: Sequence[Answer],
        tasks: Sequence[Task],
        summary: Summary,
    ) -> Scored:
        if not tasks:
            return Scored()
        if not isinstance(observer, RewardSettings):
            return summary.scored(tasks, self._runs.judge(name, observer, tasks))
        given = [one for one in answers if one.text is not None]
        texts = [one.text for one in self._questions]
        kept = self._out / f"rewards-{name}.jsonl"
        return summary.rewarded(rewards_of(name, observer.reward, given, texts, kept))

    def _evaluation(
        self, answers: Sequence[Answer], summary: Summary, scored: Mapping[str, Scored]
    ) -> Evaluation:
        settings = self._settings
        models = [self._model(number, answers) for number in range(len(settings.models))]
        observers = [self._observer(name) for name in settings.observers]
        judges = {name: one for name, one in scored.items() if name in settings.judges}
        return Evaluation(
            questions=len(self._questions),
            samples=settings.samples,
            seed=settings.seed,
            digest=_digest(self._questions),
            models=models,
            observers=observers,
            scores=[row for name, one in scored.items() for row in summary.scores(name, one)],
            differences=[
                row for name, one in scored.items() for row in summary.differences(name, one)
            ],
            wins=[
                row
                for name, one in (judges if settings.pairwise else {}).items()
                for row in summary.wins(name, one)
            ],
            safety=[row for name, one in judges.items() for row in summary.safety(name, one)],
            refusals=[row for name, one in judges.items() for row in summary.refusals(name, one)],
            agreement=list(summary.agreements(scored)),
            notes=list(_notes(models, observers)),
        )

    def _model(self, number: int, answers: Sequence[Answer]) -> ModelResult:
        name = list(self._settings.models)[number]
        own = [one for one in answers if one.model == number]
        texts = [one.text for one in own if one.text is not None]
        run = f"answers-{name}"
        model = self._runs.model_of(run)
        return ModelResult(
            name=name,
            model=model,
            answers=len(texts),
            lost=len(own) - len(texts),
            reasons=self._runs.reasons(run),
            characters=sum(map(len, texts)) / len(texts) if texts else None,
            shortened=sum(one.shortened for one in own),
            trained_on=self._trained_on[name],
            scripted=model == SCRIPTED,
        )

    def _observer(self, name: str) -> ObserverResult:
        settings = self._settings.observers[name]
        folder = folder_of(settings)
        model = str(folder or getattr(settings, "model", settings.model_dump().get("backend")))
        return ObserverResult(
            name=name,
            model=model,
            kind="reward" if isinstance(settings, RewardSettings) else "model",
            took_part=[
                trained
                for trained, one in self._settings.models.items()
                if model in _raters(folder_of(one))
            ],
            scripted=model == SCRIPTED,
        )


def _raters(folder: Path | None) -> Iterator[str]:
    """The models that rated the training data of a model and of those it was trained from."""
    for each in lineage(folder):
        yield from raters_of(training_report(each))


def _notes(models: Sequence[ModelResult], observers: Sequence[ObserverResult]) -> Iterator[str]:
    if any(one.scripted for one in models) or any(one.scripted for one in observers):
        yield (
            "The scripted backend took part: its texts and scores follow rules, and say nothing "
            "about a language model."
        )
    for model in models:
        if model.lost:
            yield (
                f"{model.name} lost {model.lost:,} of {model.lost + model.answers:,} answers; they "
                "are in no mean, and those that came may be the easier ones."
            )
    unnamed = [model.name for model in models if model.trained_on is None]
    if unnamed:
        yield (
            f"{', '.join(unnamed)}: no training questions are named, so that nothing shows that "
            "the questions are held out."
        )
    for observer in observers:
        if observer.took_part:
            yield (
                f"{observer.name} took part in the data of {', '.join(observer.took_part)}: it "
                "rated what they were trained on, and a judge over-rates such models."
            )
