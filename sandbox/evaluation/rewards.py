"""Scores of a reward model: a sequence classifier with one label, run by transformers.

Scores are kept in a file as they come, so that an evaluation that was stopped repeats none. Which
answers share a batch depends on the answers of one model alone, so that a killed evaluation, and
one to which models are added, ends with the same scores.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sandbox.evaluation.answering import Answer
from sandbox.text import install_command
from storage.errors import InputError

_BATCH = 16
_LOG = logging.getLogger(__name__)


def check_reward_model(name: str, folder: Path) -> None:
    """Check what can be checked before any model is asked.

    Raises:
        InputError: transformers is missing, or the folder has no such model, several labels, or no
            chat template.
    """
    transformers, place = _transformers(name), f"observers.{name}: {folder}"
    try:
        labels = _labels(transformers, folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # any error of a damaged or unknown model
        raise InputError(f"{place}: cannot be read: {_line(error)}") from None
    if labels != 1:
        raise InputError(
            f"{place}: found {labels or 'no'} labels; expected 1, the reward: a model that "
            "`train --method reward` wrote, or one like it"
        )
    if not tokenizer.chat_template:
        raise InputError(
            f"{place}: found a tokenizer without a chat template; expected one with it"
        )


def _labels(transformers: Any, folder: Path) -> int:
    """The number of labels of a classifier; of an adapter 1, or 0 if it is for something else."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        import peft  # noqa: F401 - transformers loads adapters with it

        return int(json.loads(adapter.read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS")
    return int(transformers.AutoConfig.from_pretrained(folder).num_labels)


def _transformers(name: str) -> Any:
    try:
        import torch  # noqa: F401
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"observers.{name}: {error.name} is not installed; expected {install_command('train')}"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def rewards_of(
    name: str, folder: Path, answers: Sequence[Answer], questions: Sequence[str], kept: Path
) -> dict[str, float | None]:
    """Score answers, or read their scores.

    Args:
        name: of the observer.
        folder: of the reward model.
        answers: those with a text.
        questions: by number.
        kept: the file of scores: JSON lines with run, episode, sample and reward.

    Returns:
        Scores by the origin of answers; None where the model cannot score an answer, such as one
        that is too long for it.

    Raises:
        InputError: the model cannot be loaded.
    """
    found = dict(_read(kept))
    left = [batch for batch in _batches(answers) if any(one.origin not in found for one in batch)]
    if left:
        _LOG.info("%s: scoring %d answers", name, sum(map(len, left)))
        model = _RewardModel(name, folder)
        _drop_incomplete_line(kept)
        with kept.open("a", encoding="utf-8") as file:
            for batch in left:
                scores = model.scores([(questions[one.question], one.text or "") for one in batch])
                pairs = list(zip(batch, scores, strict=True))
                file.write("".join(_row(one, score) for one, score in pairs))
                file.flush()
                found.update((one.origin, score) for one, score in pairs)
    return found


def _batches(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """The answers of each model in batches of similar length."""
    for _, own in groupby(sorted(answers, key=lambda one: one.run), key=lambda one: one.run):
        by_length = sorted(own, key=lambda one: (len(one.text or ""), one.origin))
        for start in range(0, len(by_length), _BATCH):
            yield by_length[start : start + _BATCH]


def _row(one: Answer, score: float | None) -> str:
    row = {"run": one.run, "episode": one.episode, "sample": one.sample, "reward": score}
    return f"{json.dumps(row)}\n"


def _read(kept: Path) -> Iterator[tuple[str, float | None]]:
    """The scores of complete lines, by origin."""
    if not kept.is_file():
        return
    for line in kept.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            yield f"{row['run']}/{row['episode']}/{row['sample']}", row["reward"]


def _drop_incomplete_line(kept: Path) -> None:
    """Cut off what a killed process left of a line."""
    if kept.is_file():
        content = kept.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with kept.open("r+b") as file:
                file.truncate(end)


class _RewardModel:
    """A loaded reward model: on a GPU if there is one, else in float32 on the CPU."""

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        transformers = _transformers(name)
        self._torch: Any = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        options = {"dtype": torch.float32} if self._device == "cpu" else {"dtype": "auto"}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        try:
            self._model = load(folder, num_labels=1, **options).to(self._device).eval()
        except Exception as error:  # any error of a damaged model
            line = _line(error)
            raise InputError(f"observers.{name}: {folder}: cannot be loaded: {line}") from None
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.config.pad_token_id = self._tokenizer.pad_token_id

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """The rewards of questions with their answers, as one batch; None for what does not fit."""
        encoded = [self._ids(question, answer) for question, answer in pairs]
        limit = getattr(self._model.config, "max_position_embeddings", None) or math.inf
        places = [place for place, ids in enumerate(encoded) if len(ids) <= limit]
        rewards: list[float | None] = [None] * len(pairs)
        if places:
            batch = self._tokenizer.pad(
                {"input_ids": [encoded[place] for place in places]},
                padding_side="right",
                return_tensors="pt",
            ).to(self._device)
            with self._torch.inference_mode():
                logits = self._model(**batch).logits
            for place, value in zip(places, logits[:, 0].float().cpu().tolist(), strict=True):
                rewards[place] = value if math.isfinite(value) else None
        return rewards

    def _ids(self, question: str, answer: str) -> list[int]:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
