"""Real trainers take a training step on exports, with a tiny randomly initialized model."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, missing
from tiny_model import make_model

from sandbox import api
from sandbox.training.alpaca import CHAT_TEMPLATE
from sandbox.training.encoding import encode
from storage.errors import InputError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

pytestmark = pytest.mark.filterwarnings("default")


def needs(module: str, advice: str) -> Any:
    """Import a module that is only installed in a separate CI environment."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing(f"{error.name} is not installed: {advice}", "trl")


@pytest.fixture(scope="module")
def trl() -> Any:
    return needs("trl", "pip install -e '.[test,train]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("run") / "quickstart.db"
    assert api.run(db=place).status == "done"
    return str(place)


@pytest.fixture(scope="module")
def folder(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "all"
    formats = ["sft", "preference", "kto", "prompts", "stable-alignment"]
    api.export(run, formats, out, choices={"splits": {"train": 0.8, "test": 0.2}})
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "transformers"):
        needs(module, "pip install -e '.[test,train]'")
    return make_model(tmp_path_factory.mktemp("tiny"))


def length_reward(completions: Any, reference: list[str], scripted: list[bool], **_: Any) -> Any:
    """Columns other than the prompt are passed to reward functions."""
    assert all(scripted) and all(reference)
    lengths = [len(one[0]["content"]) for one in completions]
    return [float(n + place % 2) for place, n in enumerate(lengths)]


GENERATING = {
    "max_completion_length": 8,
    "num_generations": 2,
    "temperature": 2.0,
}
TRAINERS = {
    "SFT": ("sft", {}),
    "DPO": ("preference", {}),
    "KTO": ("kto", {}),
    "Reward": ("preference", {}),
    "GRPO": ("prompts", GENERATING),
    "RLOO": ("prompts", GENERATING),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_takes_a_step(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, name: str
) -> None:
    from datasets import load_dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    kind, settings = TRAINERS[name]
    data = load_dataset(str(folder), kind, cache_dir=str(tmp_path / "cache"))
    if name == "Reward":
        model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    else:
        model = AutoModelForCausalLM.from_pretrained(tiny)
    before = [one.detach().clone() for one in model.parameters()]
    options = {"reward_funcs": length_reward} if settings else {}
    trainer = getattr(trl, f"{name}Trainer")(
        model=model,
        args=getattr(trl, f"{name}Config")(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4,
            learning_rate=1e-3, lr_scheduler_type="constant", report_to="none", use_cpu=True,
            bf16=False, save_strategy="no", logging_steps=1, **settings,
        ),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=AutoTokenizer.from_pretrained(tiny),
        **options,
    )  # fmt: skip
    done = trainer.train()
    assert done.global_step == 1
    after = list(model.parameters())
    assert any(bool((one != other).any()) for one, other in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def contrastive() -> Any:
    for module in ("torch", "transformers"):
        needs(module, "pip install -e '.[test,train]'")
    return importlib.import_module("sandbox.training.contrastive")


def loaded(tiny: Path) -> tuple[Any, Any]:
    """The tokenizer, with the template of the queries, and the model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer, AutoModelForCausalLM.from_pretrained(tiny)


def rated(folder: Path) -> list[Any]:
    found: list[Any] = json.loads((folder / "stable_alignment-train.json").read_text())
    return found


def by_hand(entropies: list[float], ratings: list[float], ratio: float, margin: float) -> float:
    """The loss, computed by hand."""
    best = max(range(len(ratings)), key=lambda n: ratings[n])
    gaps = [
        entropies[best] - entropies[n] + (ratings[best] - ratings[n]) / 7 * margin
        for n in range(len(ratings))
        if n != best
    ]
    return entropies[best] + ratio * max(0.0, sum(gaps) / len(gaps)) if gaps else entropies[best]


def test_the_loss_of_3_7_5(contrastive: Any) -> None:
    """The margin of the 3 is 4 / 7 of a whole one, that of the 5 is 2 / 7: none of them is 0."""
    import torch

    entropies, ratings = torch.tensor([2.0, 1.5, 1.0]), torch.tensor([3.0, 7.0, 5.0])
    found = contrastive.preference_loss(entropies, ratings, ratio=0.2, margin=10.0)
    gaps = (1.5 - 2.0 + 40 / 7, 1.5 - 1.0 + 20 / 7)
    assert float(found) == pytest.approx(1.5 + 0.2 * sum(gaps) / 2)
    worst = contrastive.preference_loss(entropies, ratings, ratio=0.2, margin=10.0, worst=True)
    assert float(worst) == pytest.approx(1.5 + 0.2 * gaps[0])
    apart = contrastive.preference_loss(torch.tensor([9.0, 1.0, 9.0]), ratings, margin=1.0)
    assert float(apart) == 1.0
    first = contrastive.preference_loss(entropies, torch.tensor([7.0, 7.0, 7.0]), ratio=0.0)
    assert float(first) == 2.0
    alone = contrastive.preference_loss(entropies[:1], ratings[:1])
    assert float(alone) == 2.0


def trainer_of(
    contrastive: Any, tiny: Path, rows: list[Any], out: Path, **arguments: Any
) -> tuple[Any, Any]:
    """The trainer and its tokenizer."""
    tokenizer, model = loaded(tiny)
    config = contrastive.ContrastiveConfig(
        output_dir=str(out), report_to="none", use_cpu=True, disable_tqdm=True,
        save_strategy="no", logging_steps=1, **{"margin": 10.0, "max_steps": 1, **arguments},
    )  # fmt: skip
    made = contrastive.ContrastiveTrainer(model, config, rows, processing_class=tokenizer)
    return made, tokenizer


def test_the_loss_on_the_exported_file(
    contrastive: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    """Entropies come from the model a token at a time, the loss is added up by hand."""
    import torch

    rows = rated(folder)
    assert all(list(row) == ["query", "responses", "scores", "models"] for row in rows)
    row = next(row for row in rows if len(set(row["scores"])) > 2)
    row = {**row, **{key: row[key][:5] for key in ("responses", "scores", "models")}}
    trainer, tokenizer = trainer_of(
        contrastive, tiny, [row], tmp_path, responses=5, max_length=2048
    )
    (batch,) = trainer.get_train_dataloader()
    with torch.no_grad():
        (found,) = trainer.losses(trainer.model, batch)
        entropies = [
            _entropy(trainer.model, tokenizer, row["query"], one) for one in row["responses"]
        ]
    expected = by_hand(entropies, row["scores"], 0.2, 10.0)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert expected > min(entropies)


def _entropy(model: Any, tokenizer: Any, query: str, response: str) -> float:
    asked = tokenizer.encode(query, add_special_tokens=False)
    said = tokenizer.encode(f" {response}", add_special_tokens=False)
    said.append(tokenizer.eos_token_id)
    import torch

    logits = model(torch.tensor([asked + said])).logits[0].double()
    total = 0.0
    for place, token in enumerate(said, len(asked)):
        total -= float(logits[place - 1].log_softmax(dim=0)[token])
    return total / len(said)


def test_a_batch_has_several_responses_to_each_query(
    contrastive: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    """One pass for all responses; each query's loss is the one that it has alone."""
    import torch

    rows = rated(folder)
    batch = sorted(rows, key=lambda row: len(row["responses"]))[-4:] + rows[-1:]
    trainer, _ = trainer_of(contrastive, tiny, batch, tmp_path)
    passes = []
    trainer.model.register_forward_pre_hook(
        lambda _, __, given: passes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    queries = [trainer.train_dataset[place] for place in range(len(batch))]
    with torch.no_grad():
        together = trainer.losses(trainer.model, trainer.data_collator(queries))
    held = [min(3, len(row["responses"])) for row in batch]
    assert held[:4] == [3, 3, 3, 3] and [rows for rows, _ in passes] == [sum(held)]
    with torch.no_grad():
        alone = [
            trainer.losses(trainer.model, trainer.data_collator([query]))[0] for query in queries
        ]
    assert [float(one) for one in together] == pytest.approx([float(one) for one in alone], 1e-4)


def test_the_loss_of_a_step_is_the_mean_over_its_queries(
    contrastive: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    """Five queries of different sizes: together, and as batches of 2, 2 and 1."""
    import torch

    rows = sorted(rated(folder), key=lambda row: len(row["responses"]))
    rows = [*rows[:3], *rows[-2:]]
    after = []
    for size, batches in ((5, 1), (2, 3), (1, 5)):
        trainer, _ = trainer_of(
            contrastive, tiny, rows, tmp_path, per_device_train_batch_size=size,
            gradient_accumulation_steps=batches, learning_rate=1.0, optim="sgd", max_grad_norm=0.0,
            lr_scheduler_type="constant",
        )  # fmt: skip
        queries = [trainer.train_dataset[place] for place in range(5)]
        with torch.no_grad():
            mean = torch.stack(trainer.losses(trainer.model, trainer.data_collator(queries))).mean()
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(float(mean), rel=1e-5)
        after.append([one.detach().clone() for one in trainer.model.parameters()])
    for others in after[1:]:
        for one, other in zip(after[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_responses_are_drawn_anew_in_each_epoch(
    contrastive: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    row = max(rated(folder), key=lambda row: len(row["responses"]))
    trainer, tokenizer = trainer_of(contrastive, tiny, [row, row], tmp_path, num_train_epochs=3)
    queries = trainer.train_dataset
    drawn = {}
    for epoch in (0, 1, 2, 0):
        queries.epoch = epoch
        drawn.setdefault(epoch, [queries[0], queries[1]])
        assert drawn[epoch] == [queries[0], queries[1]]
    assert len({str(query) for pair in drawn.values() for query in pair}) > 4
    other = contrastive.Queries([row], tokenizer, 1024, 3, trainer.args.seed)
    assert other[0] == drawn[0][0]
    assert contrastive.Queries([row], tokenizer, 1024, 3, 1)[0] != other[0]


def test_queries_without_room_are_left_out(contrastive: Any, tiny: Path, tmp_path: Path) -> None:
    """A response that is cut away whole would have the lowest cross-entropy of all: 0."""
    short, long = (
        {"query": text, "responses": ["Yes.", "No."], "scores": [1, 2]}
        for text in ("Why?", "Why? " * 40)
    )
    tokenizer, _ = loaded(tiny)
    limit = len(tokenizer(long["query"])["input_ids"])
    assert len(contrastive.Queries([short, long], tokenizer, limit, 3, 0)) == 1
    assert len(contrastive.Queries([short, long], tokenizer, limit + 1, 3, 0)) == 2


def test_the_example_trains(folder: Path, tiny: Path, tmp_path: Path, contrastive: Any) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    example = importlib.import_module("stable_alignment")
    path = folder / "stable_alignment-train.json"
    out = tmp_path / "out"
    sys.argv = ["it.py", str(path), "--model", str(tiny), "--out", str(out), "--steps", "2"]
    example.main()
    assert (out / "config.json").exists()


# The verb `train`


STEPS = {
    "max_steps": 6,
    "save_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "use_cpu": True,
}


def trained(folder: Path, tiny: Path, out: Path, method: str, **settings: Any) -> Any:
    return api.train(folder, out, method=method, model=str(tiny), settings={**STEPS, **settings})


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", {}),
        ("cpo", {}),
        ("dpo", {}),
        ("kto", {}),
        ("reward", {}),
        ("sft", {"lora": {"r": 4}}),
        ("cpo", {"lora": {"r": 4}}),
        ("dpo", {"lora": {"r": 4}}),
        ("reward", {"lora": {"r": 4}}),
    ],
)
def test_every_method_leaves_a_model(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    out = tmp_path / "out"
    report = trained(folder, tiny, out, method, max_steps=2, **settings)
    assert report.steps == 2 and report.loss > 0 and report.eval_loss > 0
    assert sorted(path.name for path in out.iterdir()) == list(report.files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    record = json.loads((out / "training.json").read_text())
    assert record["report"] == report.as_dict() and record["settings"]["method"] == method
    assert record["data"]["scripted"] and record["data"]["rated_by"] == ["scripted"]
    assert [run["run"] for run in record["data"]["runs"]] == ["quickstart"]
    questions = [row["question"] for row in rows_of(out / "questions.jsonl")]
    assert len(questions) == record["data"]["questions"] == 8
    card = (out / "README.md").read_text()
    assert record["data"]["digest"] in card and "scripted backend" in card
    assert str(tmp_path) not in card and str(tiny.parent) not in card
    assert AutoTokenizer.from_pretrained(out).chat_template
    if "lora" in settings:
        changed = load_file(out / "adapter_model.safetensors")
        assert any(bool(one.any()) for name, one in changed.items() if "lora_B" in name)
        return
    kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
    after = dict(kind.from_pretrained(out).named_parameters())
    before = dict(AutoModelForCausalLM.from_pretrained(tiny).named_parameters())
    assert any(bool((one != before[name]).any()) for name, one in after.items() if name in before)


@pytest.mark.parametrize("method", ["cpo", "reward"])
def test_an_adapter_is_merged(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, method: str
) -> None:
    """What the merged model says is what the model with its adapter says."""
    import torch
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    lora: dict[str, Any] = {"r": 4, "dropout": 0}
    trained(folder, tiny, tmp_path / "adapter", method, max_steps=2, lora=lora)
    trained(folder, tiny, tmp_path / "whole", method, max_steps=2, lora={**lora, "merge": True})
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    options: dict[str, Any] = {}
    kinds = AutoPeftModelForCausalLM, AutoModelForCausalLM
    if method == "reward":
        kinds = AutoPeftModelForSequenceClassification, AutoModelForSequenceClassification
        options = {"num_labels": 1}
    adapter = kinds[0].from_pretrained(tmp_path / "adapter", **options).eval()
    whole = kinds[1].from_pretrained(tmp_path / "whole").eval()
    tokens = torch.arange(10, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            adapter(tokens).logits, whole(tokens).logits, rtol=1e-3, atol=1e-5
        )


def test_only_answers_are_learnt(trl: Any, folder: Path, tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for row in rows_of(folder / "sft-train.jsonl")[:5]:
        *asked, said = row["messages"]
        tokens, labels = encode(tokenizer, asked, said["content"]).cut(None)
        whole = tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]
        assert tokens == whole
        learnt = [token for token, label in zip(tokens, labels, strict=True) if label != -100]
        assert tokenizer.decode(learnt) == f"{said['content']}<|end|>"
        assert [label for label in labels if label != -100] == learnt


def digest(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


class Interrupting:
    """Sends SIGINT to this process at a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.seen: list[int] = []

    def __call__(self, progress: api.TrainProgress) -> None:
        self.seen.append(progress.step)
        if progress.step == self._step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", ["sft", "cpo"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, method: str
) -> None:
    """With dropout, so that the state of random generators counts, and over several epochs."""
    settings = {**STEPS, "max_steps": 9, "save_steps": 100, "lora": {"r": 4, "dropout": 0.3}}
    settings |= {"per_device_train_batch_size": 4}

    def go_on(out: Path, watch: Any = None) -> Any:
        return api.train(
            folder, out, method=method, model=str(tiny), settings=settings, watch=watch
        )

    go_on(tmp_path / "whole")
    out = tmp_path / "out"
    for step in (1, 3, 4):
        with pytest.raises(api.TrainingStopped, match=f"stopped at step {step + 1} of 9"):
            go_on(out, Interrupting(step))
        assert [path.name for path in out.iterdir()] == ["checkpoints"]
    watch = Interrupting(-1)
    report = go_on(out, watch)
    assert report.resumed_from_step == 5 and watch.seen[0] == 5 and watch.seen[-1] == 9
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    nothing = Interrupting(-1)
    assert go_on(out, nothing) == report and nothing.seen == []


MOMENTS = (
    lambda out: (out / "checkpoints" / "started.json").exists(),
    lambda out: (out / "checkpoints" / "checkpoint-2").exists(),
    lambda out: (out / "checkpoints" / "checkpoint-4" / "optimizer.pt").exists(),
    lambda out: (out / "checkpoints" / "checkpoint-6" / "complete").exists(),
    lambda out: (out / "checkpoints" / "checkpoint-8").exists(),
    lambda out: out.with_name(".out.partial").exists(),
)
"""What is seen in the folders when the process is killed."""


@pytest.mark.long
@pytest.mark.parametrize("method", ["sft", "cpo"])
def test_a_killed_training_goes_on_to_the_same_weights(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "out"
    settings = {**STEPS, "max_steps": 8}

    def start(out: Path) -> subprocess.Popen[str]:
        given = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
        verb = [sys.executable, str(ROOT / "run_sim.py"), "train", str(folder), f"--out={out}"]
        line = [*verb, f"--method={method}", f"--model={tiny}", "--json", *given]
        return subprocess.Popen(
            line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    for moment in MOMENTS:
        process = start(out)
        while process.poll() is None and not moment(out):
            time.sleep(0.0005)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
    process = start(out)
    told, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(told)["steps"] == 8
    whole, errors = start(tmp_path / "whole").communicate()
    assert json.loads(whole)["resumed_from_step"] is None, errors
    assert digest(out) == digest(tmp_path / "whole")
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(names) == ["out", "whole"]


def test_the_verb_says_how_to_go_on(trl: Any, folder: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = [
        "run_sim.py", "train", str(folder), "--method", "cpo", "--model", str(tiny),
        "--out", str(out), "--set", "max_steps=200", "--set", "use_cpu=true",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("step 0/200")
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate()
    last = errors.splitlines()[-1]
    assert process.returncode == 130 and told == ""
    assert last.startswith("stopped at step ") and f"go on with: python {' '.join(line)}" in last


def changed(tiny: Path, out: Path, **tokens: Any) -> Path:
    """The tiny model with another tokenizer."""
    from transformers import AutoTokenizer

    shutil.copytree(tiny, out)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(tokens.pop("more", []))
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    for path in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        (out / path).unlink()
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"chat_template": None}, "has no chat template; expected one, or chat_template: alpaca"),
        ({"eos_token": None}, "has no eos_token"),
        ({"more": ["<a>", "<b>"]}, "tokens, and the model 2,048; expected a tokenizer"),
        (
            {"chat_template": "{{ messages[0].content }}"},
            "leaves out what the assistant says",
        ),
        ({"chat_template": "{{ raise_exception('no') }}"}, "cannot render a row"),
    ],
)
def test_models_that_cannot_be_trained(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, tokens: dict[str, Any], message: str
) -> None:
    model = changed(tiny, tmp_path / "model", **tokens)
    with pytest.raises(InputError, match=message):
        trained(folder, model, tmp_path / "out", "sft")


def test_a_model_without_a_chat_template_gets_that_of_the_paper(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model = changed(tiny, tmp_path / "model", chat_template=None, pad_token=None)
    trained(folder, model, tmp_path / "out", "cpo", chat_template="alpaca", max_steps=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHAT_TEMPLATE and tokenizer.pad_token == "<|end|>"
    with pytest.raises(InputError, match="has one of its own; expected none"):
        trained(folder, tiny, tmp_path / "other", "cpo", chat_template="alpaca")
    second = trained(folder, tmp_path / "out", tmp_path / "next", "sft", chat_template="alpaca")
    assert second.model == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown key; expected an argument of SFTConfig; did "),
        ({"learning_rate": "fast"}, "learning_rate: found 'fast'; expected: "),
        ({"output_dir": "x"}, "output_dir: found a value; expected none"),
        ({"hub_token": "x"}, "hub_token: found a value; expected none"),
        ({"save_total_limit": 1}, "save_total_limit: found 1; expected 2 or more"),
        ({"max_length": 2}, "max_length: found 2; expected more than the tokens of every prompt"),
        ({"lr_scheduler_type": "x"}, "SFTConfig takes other values: .*x is not a valid Sched"),
        ({"learning_rate": 1e30}, "the loss is (nan|inf)|learning_rate"),
    ],
)
def test_settings_that_cannot_be_used(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trained(folder, tiny, tmp_path / "out", "sft", **settings)


def test_yaml_reads_2e_5_as_a_text(trl: Any, folder: Path, tiny: Path, tmp_path: Path) -> None:
    report = api.train(
        folder, tmp_path / "out", method="sft", model=str(tiny),
        settings=["learning_rate=2e-5", "max_steps=1", "use_cpu=true"],
    )  # fmt: skip
    assert report.steps == 1


def test_other_settings_need_another_folder(
    trl: Any, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    trained(folder, tiny, out, "cpo", max_steps=1)
    with pytest.raises(InputError, match="holds a training with max_steps 1; found 2"):
        trained(folder, tiny, out, "cpo", max_steps=2)
    file = tmp_path / "one.json"
    file.write_text(json.dumps(rated(folder)[:2]))
    with pytest.raises(InputError, match="holds a training with digest of the data"):
        trained(file, tiny, out, "cpo", max_steps=1)


def test_a_model_that_is_not_there(trl: Any, folder: Path, tmp_path: Path) -> None:
    for model, message in (("./none", "found no folder ./none"), ("none", "cannot be loaded")):
        with pytest.raises(InputError, match=message):
            trained(folder, Path(model), tmp_path / "out", "sft", model=model)
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="cannot be loaded"):
        trained(folder, tmp_path / "model", tmp_path / "out", "sft")


# What other programs make of the files, by their own code. They are installed without what they
# need beside it, since they ask for versions that exclude each other.


@pytest.fixture(scope="module")
def others() -> Iterator[None]:
    """LLaMA-Factory imports an audio library that has no build for this version of torch."""
    sound = ModuleType("torchaudio")
    sound.__spec__ = ModuleSpec("torchaudio", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", sound)
        patch.setenv("DISABLE_VERSION_CHECK", "1")
        yield


ADVICE = "see .ci/install_trainers"


def written(run: str, tmp_path: Path, target: str, *formats: str) -> Path:
    out = tmp_path / target
    api.export(run, formats, out, choices={"target": target})
    return out


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_llama_factory_reads_it(run: str, tiny: Path, tmp_path: Path, others: None) -> None:
    loader = needs("llamafactory.data.loader", ADVICE)
    parser = needs("llamafactory.data.parser", ADVICE)
    settings = needs("llamafactory.hparams", ADVICE)
    from transformers import Seq2SeqTrainingArguments

    out = written(run, tmp_path, "llama-factory", "sft", "preference", "kto")
    names = list(json.loads((out / "dataset_info.json").read_text()))
    assert names == ["sft", "preference", "kto"]
    told = settings.ModelArguments(model_name_or_path=str(tiny), cache_dir=str(tmp_path / "cache"))
    training = Seq2SeqTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
    for name, attributes in zip(names, parser.get_dataset_list(names, str(out)), strict=True):
        data = settings.DataArguments(dataset_dir=str(out), overwrite_cache=True)
        read = loader._load_single_dataset(attributes, told, data, training)
        rows = rows_of(out / f"{name}.jsonl")
        assert len(read) == len(rows) > 20
        for made, row in zip(read, rows, strict=True):
            asked, answers = made["_prompt"], made["_response"]
            assert asked == row["messages"][:1]
            contents = [one["content"] for one in answers]
            if name == "preference":
                assert contents == [row["chosen"]["content"], row["rejected"]["content"]]
            elif name == "kto":
                said = row["messages"][1]["content"]
                assert contents == ([said, ""] if row["label"] else ["", said])
            else:
                assert contents == [row["messages"][1]["content"]]


def test_axolotl_reads_it(run: str, tiny: Path, tmp_path: Path) -> None:
    preference = needs("axolotl.prompt_strategies.dpo.chat_template", ADVICE)
    kto = needs("axolotl.prompt_strategies.kto.user_defined", ADVICE)
    settings = needs("axolotl.utils.dict", ADVICE).DictDefault
    from transformers import AutoTokenizer

    out = written(run, tmp_path, "axolotl", "sft", "preference", "kto")
    made = preference.default(settings({"datasets": [{}], "chat_template": "tokenizer_default"}))
    change = made[0] if isinstance(made, tuple) else made
    for row in rows_of(out / "preference.jsonl"):
        read = change(row, tokenizer=AutoTokenizer.from_pretrained(tiny))
        assert read["prompt"] == f"<|user|>{row['messages'][0]['content']}<|end|><|assistant|>"
        for side in ("chosen", "rejected"):
            assert read[side] == f"{row[side]['content']}<|end|>"
    change = kto.default({"datasets": [{"type": {"field_prompt": "prompt"}}]})
    for row in rows_of(out / "kto.jsonl"):
        read = change(dict(row))
        assert {key: read[key] for key in ("prompt", "completion", "label")} == {
            key: row[key] for key in ("prompt", "completion", "label")
        }


def test_verl_reads_it(run: str, tiny: Path, tmp_path: Path) -> None:
    dataset = needs("verl.utils.dataset.rl_dataset", ADVICE).RLHFDataset
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    out = written(run, tmp_path, "verl", "sft", "prompts")
    config = {"cache_dir": str(tmp_path / "cache"), "max_prompt_length": 512}
    read = dataset(
        data_files=str(out / "prompts.parquet"),
        tokenizer=AutoTokenizer.from_pretrained(tiny),
        config=OmegaConf.create(config),
    )
    assert len(read) == 10
    for row in (read[place] for place in range(10)):
        assert row["data_source"].startswith("sandbox-society/") and row["raw_prompt"]
        assert row["reward_model"]["ground_truth"] == row["reference"]


def test_openrlhf_reads_it_as_trl_does(run: str, tiny: Path, folder: Path) -> None:
    reward = needs("openrlhf.datasets.reward_dataset", ADVICE)
    sft = needs("openrlhf.datasets.sft_dataset", ADVICE)
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(tiny).apply_chat_template
    for row in rows_of(folder / "preference-train.jsonl"):
        prompt, chosen, rejected, margin = reward.preprocess_data(
            row, prompt_key="prompt", apply_chat_template=template, is_dpo=True
        )
        assert row["prompt"][0]["content"] in prompt and margin == row["margin"] > 0
        assert chosen == f"{row['chosen'][0]['content']}<|end|>"
        assert rejected == f"{row['rejected'][0]['content']}<|end|>"
    for row in rows_of(folder / "sft-train.jsonl"):
        _, said = sft.preprocess_data(row, input_key="messages", apply_chat_template=template)
        assert said == f"{row['messages'][1]['content']}<|end|>"
