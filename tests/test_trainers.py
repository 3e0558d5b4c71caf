"""Real trainers take a training step on exports, with a tiny randomly initialized model."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, missing
from tiny_model import make_model

from sandbox import api

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
def example() -> Any:
    needs("torch", "pip install -e '.[test,train]'")
    sys.path.insert(0, str(ROOT / "examples"))
    return importlib.import_module("stable_alignment")


def by_hand(entropies: list[float], ratings: list[float], ratio: float, margin: float) -> float:
    """The loss, computed by hand."""
    best = max(range(len(ratings)), key=lambda n: ratings[n])
    gaps = [
        entropies[best] - entropies[n] + (ratings[best] - ratings[n]) / 7 * margin
        for n in range(len(ratings))
        if n != best
    ]
    return entropies[best] + ratio * max(0.0, sum(gaps) / len(gaps)) if gaps else entropies[best]


def test_the_loss_of_3_7_5(example: Any) -> None:
    """The margin of the 3 is 4 / 7 of a whole one, that of the 5 is 2 / 7: none of them is 0."""
    import torch

    entropies, ratings = torch.tensor([2.0, 1.5, 1.0]), torch.tensor([3.0, 7.0, 5.0])
    found = example.preference_loss(entropies, ratings, ratio=0.2, margin=10.0)
    gaps = (1.5 - 2.0 + 40 / 7, 1.5 - 1.0 + 20 / 7)
    assert float(found) == pytest.approx(1.5 + 0.2 * sum(gaps) / 2)
    worst = example.preference_loss(entropies, ratings, ratio=0.2, margin=10.0, worst=True)
    assert float(worst) == pytest.approx(1.5 + 0.2 * gaps[0])
    apart = example.preference_loss(torch.tensor([9.0, 1.0, 9.0]), ratings, margin=1.0)
    assert float(apart) == 1.0


def test_the_loss_on_the_exported_file(example: Any, folder: Path, tiny: Path) -> None:
    """Entropies come from the model a token at a time, the loss is added up by hand."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = json.loads((folder / "stable_alignment-train.json").read_text())
    assert all(list(row) == ["query", "responses", "scores", "models"] for row in rows)
    tokenizer, model = (of.from_pretrained(tiny) for of in (AutoTokenizer, AutoModelForCausalLM))
    row = next(row for row in rows if len(set(row["scores"])) > 2)
    row = {**row, **{key: row[key][:5] for key in ("responses", "scores", "models")}}
    with torch.no_grad():
        (found,) = example.losses(
            model, tokenizer, [row], example.Random(0), responses=5, length=2048, ratio=0.2,
            margin=10.0,
        )  # fmt: skip
        entropies = [_entropy(model, tokenizer, row["query"], one) for one in row["responses"]]
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
    example: Any, folder: Path, tiny: Path
) -> None:
    """One pass for all responses; each query's loss is the one that it has alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = json.loads((folder / "stable_alignment-train.json").read_text())
    tokenizer, model = (of.from_pretrained(tiny) for of in (AutoTokenizer, AutoModelForCausalLM))
    batch = sorted(rows, key=lambda row: len(row["responses"]))[-4:] + rows[-1:]
    options = {"responses": 3, "length": 512, "ratio": 0.2, "margin": 10.0}
    passes = []
    model.register_forward_pre_hook(
        lambda _, __, given: passes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():
        together = list(example.losses(model, tokenizer, batch, example.Random(1), **options))
    held = [min(3, len(row["responses"])) for row in batch]
    assert held[:4] == [3, 3, 3, 3] and [rows for rows, _ in passes] == [sum(held)]
    chance = example.Random(1)
    with torch.no_grad():
        alone = [next(example.losses(model, tokenizer, [row], chance, **options)) for row in batch]
    assert [float(one) for one in together] == pytest.approx([float(one) for one in alone], 1e-4)


def test_the_example_trains(
    example: Any, folder: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny), "--out", str(tmp_path / "out"), "--steps", "3"]
    path = folder / "stable_alignment-train.json"
    batches = ["--batch", "2", "--accumulate", "2", "--rate", "1e-3"]
    sys.argv = ["stable_alignment.py", str(path), *arguments, *batches]
    example.main()
    told = capsys.readouterr().out.splitlines()
    rows = json.loads(path.read_text())
    several = sum(len(set(row["scores"])) > 1 for row in rows)
    assert told[0].startswith(f"{len(rows)} queries, {several} of them with responses that are ")
    assert [line.partition(":")[0] for line in told[1:]] == ["step 1", "step 2", "step 3"]
    assert (tmp_path / "out" / "config.json").exists()


def test_the_example_leaves_out_queries_without_room(
    example: Any, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A response that is cut away whole would have the lowest cross-entropy of all: 0."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    short, long = ({"query": text, "scores": [1, 2]} for text in ("Why?", "Why? " * 40))
    limit = len(example.tokens_of(tokenizer, long["query"]))
    assert example.fitting(tokenizer, [short, long], limit) == [short]
    assert f"1 of 2 queries fill --length {limit}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--length: found 1; expected more"):
        example.fitting(tokenizer, [long], 1)


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
