"""The runs of an evaluation: models answer, observers judge; both are played by the engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import select

from agents.chance import chance
from agents.forms import Form
from sandbox.backends.base import ModelSettings
from sandbox.config import Config, load_config
from sandbox.engine.run import Change, Watch, create, prepare, resume
from sandbox.engine.settings import transport_changes
from sandbox.evaluation.questions import HeldOut
from sandbox.evaluation.settings import EvaluationSettings
from sandbox.files import new_file
from sandbox.reading.runs import Outcome, open_run
from sandbox.sources import read_forms
from storage import database, tables
from storage.database import Address
from storage.errors import InputError
from storage.exchanges import exchanges
from storage.reader import Reader
from worlds.answers import World as AnswersWorld
from worlds.judging import Item
from worlds.judging import World as JudgingWorld
from worlds.observer import observer_form

DATABASE = "evaluation.db"
QUESTIONS = "questions.jsonl"
ITEMS = "items"
"""The folder of what observers judge."""

ItemKey = tuple[str, str | None, str | None, str | None]
"""The question of an item, its answer, or the first and the second one of a pair."""


class Unfinished(Exception):
    """Raised when a run of an evaluation stopped before its end; the evaluation can be continued.

    Attributes:
        outcome: that of the run.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.run}: {outcome.status}: {outcome.message}")
        self.outcome = outcome


@dataclass(frozen=True)
class Answer:
    """An answer of a model, or the lack of one.

    Attributes:
        model: the number of the model.
        question, sample: numbers, from 0.
        run, episode: where it was given.
        text: None where it was lost.
        shortened: it is kept to its last whole sentence.
    """

    model: int
    question: int
    sample: int
    run: str
    episode: int
    text: str | None
    shortened: bool

    @property
    def origin(self) -> str:
        """Its run, episode and sample, in one text."""
        return f"{self.run}/{self.episode}/{self.sample}"


@dataclass(frozen=True)
class Task:
    """An item with what it is about.

    Attributes:
        item: as the world of judging reads it.
        question: the number of the question.
        answers: all answers with the text of the item; or the two of a pair, as they are shown.
    """

    item: Item
    question: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Judged:
    """What an observer said of an item.

    Attributes:
        scores: by scale; None where the reply was unusable.
        reasons: of the scores that have one, by scale.
        verdicts: by kind (better, refused, safe); None where the reply was unusable.
    """

    scores: Mapping[str, float | None]
    reasons: Mapping[str, str]
    verdicts: Mapping[str, str | None]


class Runs:
    """The runs of one evaluation, in the database of its folder.

    Args:
        settings: of the evaluation.
        out: its folder.
        questions: the held-out questions.
        watch: called with the progress of each run.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        out: Path,
        questions: Sequence[HeldOut],
        watch: Watch | None = None,
    ) -> None:
        self._settings = settings
        self._out = out
        self._questions = questions
        self._watch = watch
        self._url = database.parse_url(str(out / DATABASE))

    def begin(self) -> None:
        """Create the runs of all models that are not there yet.

        Raises:
            InputError: a setting is invalid.
        """
        world = {"kind": "answers", "questions": len(self._questions)}
        for name, model in self._settings.models.items():
            if not self._exists(f"answers-{name}"):
                self._create(
                    {
                        **self._config(f"answers-{name}", model, world),
                        "rounds": self._settings.samples,
                        "questions": str(self._out / QUESTIONS),
                    },
                    f"models.{name}",
                )

    def answers(self) -> list[Answer]:
        """Let every model answer, one after another, and return all answers.

        Raises:
            Unfinished: a run was stopped.
        """
        found: list[Answer] = []
        for number, name in enumerate(self._settings.models):
            run = f"answers-{name}"
            self._play(run, self._settings.models[name])
            with open_run(self.address(run)) as reader:
                found += _answers(reader, number, len(self._questions))
        return found

    def judge(self, name: str, model: ModelSettings, tasks: Sequence[Task]) -> list[Judged]:
        """Let an observer judge all items, and return what it said of each.

        What it has judged before is not asked again: a run of its own has the items that models
        added later.

        Raises:
            Unfinished: a run was stopped.
        """
        said: dict[ItemKey, Judged] = {}
        number = 1
        while self._exists(_judging(name, number)):
            said |= self._said(_judging(name, number), model)
            number += 1
        left = [task for task in tasks if self._key(task) not in said]
        if left:
            run = _judging(name, number)
            digest = self._write_items(run, left)
            world = {"kind": "judging", "items": str(self._items(run)), "sha256": digest}
            config = self._config(run, model, world)
            place = str(self._items(run, "-questions"))
            self._create({**config, "rounds": 1, "questions": place}, f"observers.{name}")
            said |= self._said(run, model)
        return [said[self._key(task)] for task in tasks]

    def _said(self, run: str, model: ModelSettings) -> dict[ItemKey, Judged]:
        self._play(run, model)
        with open_run(self.address(run)) as reader:
            return dict(_judged(reader))

    def _key(self, task: Task) -> ItemKey:
        item = task.item
        return (self._questions[task.question].text, item.answer, item.first, item.second)

    def _items(self, run: str, part: str = "") -> Path:
        return self._out / ITEMS / f"{run}{part}.jsonl"

    def address(self, run: str) -> Address:
        """The address of a run."""
        return Address(self._url, run)

    def model_of(self, run: str) -> str:
        """What the journal calls the model of a run."""
        with open_run(self.address(run)) as reader:
            m = tables.models
            query = select(m.c.name).where(m.c.run_id == reader.run.id, m.c.role == "observer")
            return str(reader.scalar(query))

    def created(self) -> str:
        """When the first run was created, as ISO 8601 writes it."""
        with open_run(self.address(f"answers-{next(iter(self._settings.models))}")) as reader:
            return str(reader.run.created)

    def reasons(self, run: str) -> dict[str, int]:
        """How the last replies ended of episodes without an answer: their number by status."""
        with open_run(self.address(run)) as reader:
            failed = [one.episode for one in exchanges(reader) if one.failed_at is not None]
            last = (calls[-1].status for calls in reader.calls_of(failed).values())
            return dict(sorted(Counter(last).items()))

    def _exists(self, run: str) -> bool:
        return database.exists(self._url) and run in database.run_names(self._url)

    def _config(self, run: str, model: ModelSettings, world: dict[str, Any]) -> dict[str, Any]:
        section, settings = model.model_dump(mode="json"), self._settings
        forms = self._out / f"forms-{world['kind']}.yaml"
        return {
            "name": run,
            "seed": settings.seed,
            "attempts": settings.attempts,
            "truncated": settings.truncated,
            "world": world,
            "policy": {"checks": "record", "prompts": False},
            "memory": {"embedder": "hashed"},
            "models": {"social": section, "observer": section},
            **({"forms": str(forms)} if forms.is_file() else {}),
        }

    def _create(self, config: Mapping[str, Any], key: str) -> None:
        try:
            create(prepare(load_config(config), key), str(self._out / DATABASE))
        except InputError as error:
            message = str(error).removeprefix("config: ").removeprefix(f"{key}: ")
            raise InputError(message.replace("models.social", key, 1)) from None

    def _play(self, run: str, model: ModelSettings) -> None:
        """Play a run to its end, with the settings of today that do not change what is said."""
        with open_run(self.address(run)) as reader:
            stored = Config.from_json(reader.run.config)
        models = stored.models.model_copy(update={"social": model, "observer": model})
        change = Change(transport_changes(stored, stored.model_copy(update={"models": models})))
        outcome = resume(self.address(run), self._watch, change=change, allow=stored.files())
        if outcome.status != "done":
            raise Unfinished(outcome)

    def _write_items(self, run: str, tasks: Sequence[Task]) -> str:
        """Write the items of a run for the world of judging, and return their hash."""
        lines = "".join(f"{task.item.model_dump_json(exclude_defaults=True)}\n" for task in tasks)
        asked = (self._questions[task.question].text for task in tasks)
        rows = "".join(f"{HeldOut(text).line()}\n" for text in asked)
        write_text(self._items(run), lines)
        write_text(self._items(run, "-questions"), rows)
        return sha256(lines.encode()).hexdigest()


def _judging(name: str, number: int) -> str:
    """The name of the run in which an observer judges for the first, second, ... time."""
    return f"judging{number if number > 1 else ''}-{name}"


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, unless it has this content already."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with new_file(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8", newline="")


def split_forms(path: Path) -> dict[str, str]:
    """Return the prompt templates of a file as one YAML text for each world that has them.

    Raises:
        InputError: the file cannot be read, or names a template that neither world has.
    """
    known: dict[str, list[Form[Any]]] = {
        "answers": list(AnswersWorld.prompts),
        "judging": [
            *JudgingWorld.prompts,
            *(
                observer_form(scale, JudgingWorld.observed, JudgingWorld.example)
                for scale in JudgingWorld.scales
            ),
        ],
    }
    every = [form for forms in known.values() for form in forms]
    before = {form.name: form for form in every}
    after = read_forms(path, every)
    changed = {name: form for name, form in after.items() if form != before[name]}
    texts = {}
    for kind, forms in known.items():
        own = {
            form.name: {"system": changed[form.name].system, "user": changed[form.name].user}
            for form in forms
            if form.name in changed
        }
        if own:
            texts[kind] = json.dumps(own, ensure_ascii=False, indent=1)
    return texts


def tasks_of(
    answers: Sequence[Answer], questions: Sequence[HeldOut], seed: int, pairwise: bool
) -> list[Task]:
    """Return what observers judge, in an order drawn by the seed; an equal answer is judged once.

    Args:
        answers: of all models.
        questions: the held-out questions.
        seed: draws the order.
        pairwise: compare each two answers to a question that have the same sample number, unless
            their texts are equal, in both orders.
    """
    given = [answer for answer in answers if answer.text is not None]
    equal: dict[tuple[int, str | None], list[Answer]] = {}
    for answer in given:
        equal.setdefault((answer.question, answer.text), []).append(answer)
    tasks = [_single(same, questions[question].safety) for (question, _), same in equal.items()]
    if pairwise:
        tasks += [
            Task(_pair(order), order[0].question, order)
            for one, other in pairs_of(given)
            if one.text != other.text
            for order in ((one, other), (other, one))
        ]
    chance(seed, "items").shuffle(tasks)
    return tasks


def _single(same: Sequence[Answer], safety: bool) -> Task:
    origin = " ".join(one.origin for one in same)
    item = Item(origin=origin, answer=same[0].text, safety=safety)
    return Task(item, same[0].question, tuple(same))


def _pair(order: tuple[Answer, Answer]) -> Item:
    first, second = order
    origin = f"{first.origin} {second.origin}"
    return Item(origin=origin, first=first.text, second=second.text)


def pairs_of(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Each two answers of different models with the same question and sample."""
    groups: dict[tuple[int, int], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.question, answer.sample), []).append(answer)
    for group in groups.values():
        yield from combinations(group, 2)


def _answers(reader: Reader, model: int, questions: int) -> Iterator[Answer]:
    for one in exchanges(reader):
        yield Answer(
            model,
            one.episode % questions,
            one.round,
            reader.run.name,
            one.episode,
            one.texts["answer"],
            "answer" in one.shortened,
        )


def _judged(reader: Reader) -> Iterator[tuple[ItemKey, Judged]]:
    v = tables.verdicts
    query = select(v.c.episode_id, v.c.kind, v.c.value).where(
        reader.belongs_to_run(v.c.episode_id), v.c.kind != "origin"
    )
    verdicts: dict[int, dict[str, str | None]] = {}
    for row in reader.rows(query):
        verdicts.setdefault(row.episode_id - reader.base, {})[row.kind] = row.value
    for one in exchanges(reader):
        texts = (one.texts.get(stage) for stage in ("answer", "first", "second"))
        scores = {o.scale: o.rating for o in one.observations}
        reasons = {o.scale: o.reason for o in one.observations if o.reason is not None}
        yield (one.question, *texts), Judged(scores, reasons, verdicts.get(one.episode, {}))  # type: ignore[misc]
