"""Logs in Inspect's format, one for each model: `inspect view` shows answers with their scores."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sandbox import __version__
from sandbox.evaluation.answering import Answer
from sandbox.evaluation.questions import HeldOut
from sandbox.evaluation.results import Evaluation
from sandbox.evaluation.summary import Scored

FOLDER = "logs"


def has_inspect() -> bool:
    """Whether the library that writes the logs is installed."""
    return importlib.util.find_spec("inspect_ai") is not None


def write_logs(
    out: Path,
    evaluation: Evaluation,
    questions: Sequence[HeldOut],
    answers: Sequence[Answer],
    scored: Mapping[str, Scored],
    created: str,
) -> None:
    """Write a log for each model; does nothing where `inspect_ai` is not installed.

    Args:
        out: the folder of the evaluation.
        evaluation: its result.
        questions: by number.
        answers: of all models.
        scored: what each observer said.
        created: when the evaluation began, as ISO 8601 writes it.
    """
    if not has_inspect():
        return
    from inspect_ai.log import write_eval_log

    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    for number, model in enumerate(evaluation.models):
        own = [answer for answer in answers if answer.model == number]
        log = _log(evaluation, number, questions, own, scored, created)
        write_eval_log(log, str(folder / f"{model.name}.json"), format="json")


def _log(
    evaluation: Evaluation,
    number: int,
    questions: Sequence[HeldOut],
    answers: Sequence[Answer],
    scored: Mapping[str, Scored],
    created: str,
) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    model = evaluation.models[number]
    identity = sha256(f"{evaluation.digest}/{evaluation.seed}/{model.name}".encode()).hexdigest()
    samples = [_sample(model.name, questions[one.question], one, scored) for one in answers]
    done = sum(one.text is not None for one in answers)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=identity[:22],
            run_id=identity[22:44],
            task_id=evaluation.digest[:22],
            created=created,
            task="held_out",
            dataset=EvalDataset(name="held_out", samples=len(questions)),
            model=model.name,
            config=EvalConfig(epochs=evaluation.samples),
            packages={"sandbox-society": __version__},
            metadata={"model": model.model, "seed": evaluation.seed},
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=done,
            scores=list(_scores(evaluation, model.name)),
        ),
        stats=EvalStats(started_at=created, completed_at=created),
        samples=samples,
    )


def _scores(evaluation: Evaluation, model: str) -> Iterator[Any]:
    from inspect_ai.log import EvalMetric, EvalScore

    for score in evaluation.scores:
        if score.model == model and score.mean is not None:
            name = f"{score.observer}_{score.scale}"
            yield EvalScore(
                name=name,
                scorer=name,
                scored_samples=score.answers,
                unscored_samples=score.missing,
                metrics={"mean": EvalMetric(name="mean", value=score.mean)},
            )


def _sample(model: str, question: HeldOut, answer: Answer, scored: Mapping[str, Scored]) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput

    messages: list[Any] = [ChatMessageUser(content=question.text)]
    output = ModelOutput(model=model)
    if answer.text is not None:
        messages.append(ChatMessageAssistant(content=answer.text))
        output = ModelOutput.from_content(model, answer.text)
    return EvalSample(
        id=answer.question + 1,
        epoch=answer.sample + 1,
        input=question.text,
        target="",
        messages=messages,
        output=output,
        scores=dict(_scores_of(answer, scored)),
        metadata={"category": question.category, "harmful": question.harmful, "run": answer.run}
        | {"episode": answer.episode, "lost": answer.text is None},
    )


def _scores_of(answer: Answer, scored: Mapping[str, Scored]) -> Iterator[tuple[str, Any]]:
    """The scores and verdicts that an answer has; missing ones are left out."""
    from inspect_ai.scorer import Score

    place = (answer.model, answer.question, answer.sample)
    for observer, one in scored.items():
        for scale, grid in one.scales.items():
            value = float(grid[place])
            if not math.isnan(value):
                reason = one.reasons.get(scale, {}).get(place)
                yield f"{observer}_{scale}", Score(value=value, explanation=reason)
        for kind, verdicts in one.verdicts.items():
            verdict = verdicts.get(place)
            if verdict is not None:
                yield f"{observer}_{kind}", Score(value=verdict)
