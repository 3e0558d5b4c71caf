"""Claims about models: a small GPT, tuned on what a scripted society said, answers new questions.

For each seed everything is done anew: a society is played, a GPT trained from scratch on all of its
texts (`small_gpt.py`), and tuned in several ways for equally many steps. Only peers choose what it
is tuned on, and only drafts, which they rate; the observer that judges takes no part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.evidence_claims import Claim, markdown, pooled, shown
from benchmarks.evidence_phases import Phases
from benchmarks.evidence_society import LIU, PANG
from sandbox import api
from sandbox.datasets.near_duplicates import NearDuplicates
from sandbox.reading.statistics import Interval, Share
from storage.exchanges import exchanges

PROGRAM = "run_sim.py"
SOCIETY = {"world.size": 20, "world.raters": 4, "rounds": 8}
SECOND = {"world.size": 12, "world.raters": 4, "rounds": 4}
OBSERVER = "scripted"
SCALE = "alignment"
OLDER = 45  # years; half of the demo's personas are at least that old

BATCH = 16
TUNING: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "max_length": 256,
    "save_steps": 0.5,
    "logging_steps": 20,
}
"""Of every arm: as many steps on as many answers, apart from what `ARMS` says."""

ENGINE: dict[str, Any] = {
    "max_tokens": 160,
    "temperature": 0.7,
    "extra.dtype": "float32",
    "extra.max_model_len": 1024,
    "extra.kv_cache_memory_bytes": 2**28,
}
"""Of vLLM, which else takes most of the memory."""


class Arm(NamedTuple):
    """A way to tune.

    Attributes:
        data: the folder of the export.
        method: of `train`.
        settings: that differ from `TUNING`.
    """

    data: str
    method: str
    settings: Mapping[str, Any] = {}


GROUP: dict[str, Any] = {"per_device_train_batch_size": 8, "responses": 3}
ARMS: dict[str, Arm] = {
    "control": Arm("unfiltered", "sft"),
    "filtered": Arm("filtered", "sft"),
    "best": Arm("groups", "cpo", {**GROUP, "ratio": 0.0}),
    "contrast": Arm("groups", "cpo", {**GROUP, "ratio": 0.2, "margin": 1.0}),
    "strong": Arm("groups", "cpo", {**GROUP, "ratio": 1.0, "margin": 3.0}),
    "dpo": Arm("pairs", "dpo", {"per_device_train_batch_size": 8, "learning_rate": 3e-4}),
}
"""*control* has as many rows as *filtered*; *best*, *contrast* and *strong* see the same answers,
three of one question at a time, which different agents drafted and peers rated."""

HALF = ("--format", "preference", "--pick", "all", "--splits", "train=0.8,test=0.2")
EXPORTS: dict[str, Sequence[str]] = {
    "filtered": ("--format", "sft", "--min-rating", "5"),
    "groups": ("--format", "stable-alignment", "--mix", "1:0:0"),
    "pairs": ("--format", "preference", "--pick", "all"),
    "younger": (*HALF, "--raters", f"age<{OLDER}"),
    "older": (*HALF, "--raters", f"age>={OLDER}"),
}
"""What is exported of a society, with the ratings of peers."""


@dataclass(frozen=True)
class Questions:
    """Questions to train on, and held-out ones.

    Attributes:
        train, held_out: JSON lines.
    """

    train: Path
    held_out: Path

    @classmethod
    def split(cls, texts: Sequence[str], folder: Path, train: int, held_out: int) -> Questions:
        """Draw both from a list; none of the held-out ones is near to one that is trained on."""
        distinct = list(dict.fromkeys(texts))
        drawn = Random(0).sample(distinct, len(distinct))
        index = NearDuplicates(0.8)
        for text in drawn[:train]:
            index.add(text)
        others = [text for text in drawn[train:] if not index.find(text).any]
        parts = cls(folder / "train.jsonl", folder / "held_out.jsonl")
        chosen = drawn[:train], others[:held_out]
        for path, some in zip((parts.train, parts.held_out), chosen, strict=True):
            lines = (json.dumps({"question": text}, ensure_ascii=False) for text in some)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return parts


def assignments(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as flags of the command line."""
    for key, value in settings.items():
        yield from ("--set", f"{key}={json.dumps(value) if value is not None else 'null'}")


@dataclass(frozen=True)
class Chain:
    """All phases of one training seed.

    Attributes:
        folder: of the benchmark.
        questions: to train on, and held out.
        seed: of the society, of the GPT and of its tuning.
        arms: the names of those that are trained.
        model: a model to tune, in place of a GPT trained from scratch.
        steps: of the GPT.
        tuning: steps of every arm.
        samples: answers to each held-out question.
    """

    folder: Path
    questions: Questions
    seed: int
    arms: Sequence[str]
    model: Path | None = None
    steps: int = 300
    tuning: int = 80
    samples: int = 4

    @cached_property
    def phases(self) -> Phases:
        """The phases of the benchmark."""
        return Phases(self.folder)

    def path(self, name: str) -> Path:
        """A file or a folder of this seed."""
        return self.folder / f"seed-{self.seed}" / name

    def _run(self, name: str, *words: str | Path, begun: Path | None = None) -> None:
        self.phases.run(f"seed-{self.seed}-{name}", *words, begun=begun)

    def play(self, name: str, preset: str, settings: Mapping[str, Any]) -> Path:
        """Play a run, or what is left of it, and return its file."""
        db = self.path(f"{name}.db")
        db.parent.mkdir(parents=True, exist_ok=True)
        own = {"seed": self.seed, "questions": str(self.questions.train), "question_count": None}
        flags = assignments({**own, **settings})
        words: tuple[str | Path, ...] = ("run", preset, "--name", name, "--db", db, *flags)
        self._run(name, PROGRAM, *words, begun=db)
        return db

    def export(self, run: Path, name: str, *choices: str) -> Path:
        """Write a dataset of a run, rated by peers, and return its folder."""
        out = self.path(f"data/{name}")
        words = ("export", run, "--ratings", "peers", *choices, "--overwrite", "--out", out)
        self._run(f"export-{name}", PROGRAM, *words)
        return out

    def train(self, name: str, arm: Arm, data: Path, model: Path) -> Path:
        """Tune a model, and return its folder."""
        out = self.path(f"models/{name}")
        settings = {**TUNING, "max_steps": self.tuning, **arm.settings}
        if self.model is not None:
            settings["learning_rate"] /= 3  # a larger model bears less
        flags = assignments(settings)
        words: tuple[str | Path, ...] = ("--method", arm.method, "--model", model, "--out", out)
        self._run(f"train-{name}", PROGRAM, "train", data, *words, "--seed", str(self.seed), *flags)
        return out

    def society(self) -> Path:
        """The scripted society whose texts are trained on."""
        return self.play("society", "worlds/presets/quickstart.yaml", SOCIETY)

    def base(self) -> Path:
        """The model before tuning."""
        if self.model is not None:
            return self.model
        out = self.path("models/base")
        words = (self.society(), out, "--steps", str(self.steps), "--seed", str(self.seed))
        self._run("base", "benchmarks/small_gpt.py", *words)
        return out

    def data(self, name: str) -> Path:
        """An export of the society; the unfiltered one has as many rows as the filtered one."""
        society = self.society()
        if name != "unfiltered":
            return self.export(society, name, *EXPORTS[name])
        lines = (self.data("filtered") / "sft.jsonl").read_text(encoding="utf-8").splitlines()
        choices = ("--format", "sft", "--min-rating", "1", "--pick", "all")
        return self.export(society, name, *choices, "--rows", str(len(lines)))

    def tuned(self, name: str) -> Path:
        """A model tuned as an arm says."""
        arm = ARMS[name]
        return self.train(name, arm, self.data(arm.data), self.base())

    def reward(self) -> Path:
        """A reward model, of the ratings of the younger raters alone."""
        arm = Arm("younger", "reward", {"per_device_train_batch_size": 8, "learning_rate": 3e-4})
        return self.train("reward", arm, self.data("younger"), self.base())

    def scenes(self) -> Path:
        """Scenes about the questions that are trained on."""
        count = len(self.questions.train.read_text(encoding="utf-8").splitlines())
        settings = {"rounds": 4, "world.scenes": count}
        return self.play("scenes", "worlds/presets/scene.yaml", settings)

    def of_stage(self, run: Path, stage: str) -> Path:
        """All texts of one stage of a run, as an export that `train` reads."""
        out = self.path(f"data/scene-{stage}")
        out.mkdir(parents=True, exist_ok=True)
        with api.open_run(str(run)) as reader:
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": one.question},
                        {"role": "assistant", "content": one.texts[stage]},
                    ]
                }
                for one in exchanges(reader)
                if one.texts.get(stage)
            ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / "sft.jsonl").write_text(lines, encoding="utf-8")
        (out / "README.md").write_text(CARD, encoding="utf-8")
        return out

    def scene_models(self) -> dict[str, Path]:
        """Models tuned on the first answers of scenes, and on the revised ones."""
        run = self.scenes()
        return {
            f"scene-{stage}": self.train(
                f"scene-{stage}", Arm("", "sft"), self.of_stage(run, stage), self.base()
            )
            for stage in ("draft", "revision")
        }

    def second(self) -> dict[str, Path]:
        """The second generation, and its control.

        The filtered model plays half of a new society. It is then tuned on what scripted peers
        rated highly there; its control on as many unfiltered drafts of the same society.
        """
        first = self.tuned("filtered")
        group = {"backend": "vllm", "model": str(first), **nested(ENGINE)}
        group["temperature"] = 1.0
        settings = {**SECOND, "models.groups": {"learners": {"share": 0.5, "model": group}}}
        run = self.play("second", "worlds/presets/quickstart.yaml", settings)
        scripted = ("--format", "sft", "--raters", "model=scripted")
        kept = self.export(run, "second", *scripted, "--min-rating", "5")
        count = len((kept / "sft.jsonl").read_text(encoding="utf-8").splitlines())
        every = (*scripted, "--min-rating", "1", "--pick", "all", "--rows", str(count))
        whole = self.export(run, "second-unfiltered", *every)
        arm = Arm("", "sft", {"learning_rate": 5e-4})
        return {
            "first": first,
            "second": self.train("second", arm, kept, first),
            "second-control": self.train("second-control", arm, whole, first),
        }

    def groups(self) -> Iterator[Callable[[], dict[str, Path]]]:
        """What is evaluated together, each as a function that trains it."""
        yield self.arms_models
        if "second" in self.arms:
            yield self.second
        if "scene" in self.arms:
            yield self.scene_models

    def arms_models(self) -> dict[str, Path]:
        """The base, and what is tuned from it on the society."""
        return {"base": self.base()} | {
            name: self.tuned(name) for name in ARMS if name in self.arms
        }

    def evaluate(self, models: Mapping[str, Path]) -> dict[str, Any]:
        """Let models answer the held-out questions; returns what `evaluate` wrote."""
        observers = [f"scripted={OBSERVER}"]
        if "reward" in self.arms and "base" in models:
            observers.append(f"reward=reward:{self.reward()}")
        seen = ("reward",) if len(observers) > 1 else ()
        name = "-".join(("evaluate", *models, *seen))
        out = self.path(name)
        words = [f"{name}={folder}" for name, folder in models.items()]
        flags = [word for one in observers for word in ("--observer", one)]
        flags += ["--questions", str(self.questions.held_out), "--no-pairwise"]
        flags += ["--samples", str(self.samples), "--seed", str(self.seed), "--out", str(out)]
        self._run(name, PROGRAM, "evaluate", *words, *flags, *assignments(ENGINE))
        found: dict[str, Any] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
        return found

    def accuracy(self) -> Share:
        """How often the reward model orders a pair as raters do who took no part in it.

        The pairs are answers to questions that it was not trained on.
        """
        kept = self.path("accuracy.json")
        words = (self.reward(), self.data("older") / "preference-test.jsonl", kept)
        self._run("accuracy", "benchmarks/reward_accuracy.py", *words)
        found = json.loads(kept.read_text(encoding="utf-8"))
        return Share.of(found["right"], found["pairs"])


CARD = """\
---
configs:
- config_name: sft
  data_files:
  - split: train
    path: sft.jsonl
---
"""


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        section, dot, name = key.partition(".")
        if dot:
            found.setdefault(section, {})[name] = value
        else:
            found[key] = value
    return found


class Pair(NamedTuple):
    """A claim that one model is better than another."""

    claim: str
    source: str
    model: str
    against: str


PAIRS = (
    Pair("SFT on what peers rated 5 or more beats unfiltered", LIU, "filtered", "control"),
    Pair("SFT on the best of three beats unfiltered", LIU, "best", "control"),
    Pair("contrast at ratio .2, margin 1 beats the best of three", LIU, "contrast", "best"),
    Pair("contrast at ratio 1, margin 3 beats the best of three", LIU, "strong", "best"),
    Pair(
        "DPO beats unfiltered",
        "[Rafailov et al.](https://arxiv.org/abs/2305.18290)",
        "dpo",
        "control",
    ),
    Pair("a second generation beats the first", "", "second", "first"),
    Pair("a second generation beats its control", "", "second", "second-control"),
    Pair(
        "tuned on scenes' revisions beats on first answers", PANG, "scene-revision", "scene-draft"
    ),
)


def difference(
    found: Mapping[str, Any], pair: Pair, observer: str, kind: str = "paired"
) -> Interval | None:
    """The difference of two models in an evaluation; None if it lacks one.

    Args:
        found: as `evaluate` wrote it.
        pair: the models.
        observer: who scored.
        kind: `paired` by question, or `at_equal_length`.
    """
    for one in found["differences"]:
        if one["observer"] != observer or one["scale"] not in (SCALE, "reward"):
            continue
        if (one["model"], one["against"]) == (pair.model, pair.against):
            return interval_of(one[kind], 1)
        if (one["against"], one["model"]) == (pair.model, pair.against):
            return interval_of(one[kind], -1)
    return None


def interval_of(data: Mapping[str, Any], sign: int) -> Interval:
    """A stored difference, or with the sign -1 that of the models in the other order."""
    low, high = ("low", "high") if sign > 0 else ("high", "low")
    middle, low, high = (
        None if data[name] is None else sign * data[name] for name in ("difference", low, high)
    )
    return Interval(n=data["n"], difference=middle, low=low, high=high)


def model_claims(evaluations: Sequence[Mapping[str, Any]], observer: str) -> list[Claim]:
    """The claims that these evaluations, one for each seed, say something of."""
    claims = []
    for pair in PAIRS:
        parts = [difference(found, pair, observer) for found in evaluations]
        alike = [difference(found, pair, observer, "at_equal_length") for found in evaluations]
        if all(parts):
            claims.append(
                Claim(
                    claim=pair.claim,
                    source=pair.source,
                    measure=f"score by {observer}",
                    estimate=pooled([one for one in parts if one]),
                    at_equal_length=pooled([one for one in alike if one]),
                    control=f"{pair.against}, in the estimate",
                )
            )
    return claims


def reward_claim(shares: Sequence[Share]) -> Claim:
    """Whether a reward model of some raters orders answers as others do."""
    parts = [
        Interval(n=one.n, difference=minus_half(one.share), low=minus_half(one.low),
                 high=minus_half(one.high))
        for one in shares
    ]  # fmt: skip
    return Claim(
        claim="a reward model of some raters agrees with the others",
        source="",
        measure="pairs in order, minus 1/2",
        estimate=pooled(parts),
        control="chance, in the estimate",
    )


def minus_half(share: float | None) -> float | None:
    """How far a share is above one half."""
    return None if share is None else share - 0.5


def joined(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The evaluations of one seed as one."""
    keys = ("models", "scores", "differences")
    return {key: [row for found in evaluations for row in found[key]] for key in keys}


def means(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Mean score, length and lost answers of every model, as a Markdown table."""
    names = [one["name"] for one in evaluations[0]["models"]]
    rows = []
    for name in names:
        scores = [
            Interval(n=one["questions"], difference=one["mean"], low=one["low"], high=one["high"])
            for found in evaluations
            for one in found["scores"]
            if (one["model"], one["observer"], one["scale"]) == (name, "scripted", SCALE)
        ]
        models = [one for found in evaluations for one in found["models"] if one["name"] == name]
        answers, lost = (sum(one[key] for one in models) for key in ("answers", "lost"))
        length = fmean(one["characters"] or 0.0 for one in models)
        score = shown(pooled(scores)).replace("+", "")
        rows.append((name, score, f"{length:.0f}", f"{answers:,}", f"{lost:,}"))
    return markdown(("model", "alignment", "characters", "answers", "lost"), rows)
