"""Train a small GPT from scratch on what a scripted society wrote, in a minute or two.

    python benchmarks/small_gpt.py RUN.db FOLDER [--steps 300] [--seed 0]

Every draft and every revision of the run is trained on, unfiltered, after its question. The model
is a Llama of some two million parameters with a vocabulary of its own (byte-level BPE), saved in
single precision with its tokenizer, so that vLLM, transformers and TRL load it as they load any
other. It writes the scripted backend's language and no other: it serves to test what becomes of a
model by tuning (`benchmarks/evidence.py`), and says nothing about real ones.

It has no room for personas or instructions. Its chat template keeps only the question: the text
between `<question>` and `</question>` in the last message of the user, where a world's prompt
template marks it so, else the whole message. So one model answers the bare questions of `evaluate`
and the prompts of a society.

The same run, steps and seed give the same weights on the same machine and versions: one thread,
deterministic algorithms. Needs torch 2.9 or newer and transformers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from sandbox import api
from storage.exchanges import exchanges

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
VOCABULARY = 4096
LONGEST = 1024  # positions of the model, in tokens
STEPS = 300
BATCH = 16
MATRIX_RATE, VECTOR_RATE = 0.05, 0.02
WIDTH, LAYERS = 192, 4

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}"
    "{%- set asked = message.content.split('<question>')[-1].split('</question>')[0] -%}"
    f"{USER}{{{{ asked.strip() }}}}{END}"
    "{%- elif message.role == 'assistant' -%}"
    f"{ASSISTANT}{{{{ message.content.strip() }}}}{END}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{ASSISTANT}{{%- endif -%}}"
)
"""Several turns stay several turns; a system message is left out."""

Pair = tuple[str, str]
"""A question and an answer."""


def pairs_of(run: str) -> list[Pair]:
    """Every question with its draft, and with its revision, in the order of the run."""
    with api.open_run(run) as reader:
        return [
            (one.question, text)
            for one in exchanges(reader)
            for text in one.texts.values()
            if text is not None
        ]


def tokenizer_of(texts: Sequence[str]) -> Any:
    """Train a byte-level BPE tokenizer, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=END,
        chat_template=TEMPLATE,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def model_of(tokenizer: Any) -> Any:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=WIDTH * 8 // 3,
            num_hidden_layers=LAYERS,
            num_attention_heads=WIDTH // 32,
            num_key_value_heads=WIDTH // 32,
            max_position_embeddings=LONGEST,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


Row = tuple[list[int], int]
"""Tokens of question and answer, and how many of them are the question's."""


def rows_of(tokenizer: Any, pairs: Sequence[Pair]) -> list[Row]:
    """Tokenize pairs as the chat template puts them; the longest are cut."""
    end, user, assistant = tokenizer.convert_tokens_to_ids([END, USER, ASSISTANT])
    texts = [text.strip() for pair in pairs for text in pair]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = []
    for asked, said in zip(tokens[::2], tokens[1::2], strict=True):
        question = [user, *asked, end, assistant]
        rows.append(([*question, *said, end][:LONGEST], len(question)))
    return rows


def batches(rows: Sequence[Row], size: int, chance: Random) -> Iterator[list[Row]]:
    """Batches of rows of similar length, in random order, again and again."""
    while True:
        mixed = chance.sample(rows, len(rows))
        parts = []
        for start in range(0, len(mixed), 50 * size):
            part = sorted(mixed[start : start + 50 * size], key=lambda row: len(row[0]))
            parts += [part[first : first + size] for first in range(0, len(part), size)]
        chance.shuffle(parts)
        yield from parts


def loss_of(model: Any, rows: Sequence[Row], pad: int) -> Any:
    """Mean cross-entropy of the answers' tokens; logits are computed for these only."""
    import torch

    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.full((len(rows), longest), pad)
    wanted = torch.zeros((len(rows), longest - 1), dtype=torch.bool)
    for place, (row, asked) in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
        wanted[place, asked - 1 : len(row) - 1] = True
    states = model.model(input_ids=tokens).last_hidden_state[:, :-1][wanted]
    logits = model.lm_head(states).float()
    return torch.nn.functional.cross_entropy(logits, tokens[:, 1:][wanted])


def optimisers_of(model: Any) -> list[Any]:
    """Muon for the matrices of the layers, AdamW for the embeddings and the norms.

    On this data Muon (Jordan et al., 2024) needs a third of AdamW's steps for the same loss.
    """
    import torch

    split: tuple[list[Any], list[Any]] = ([], [])
    for name, weights in model.named_parameters():
        split["layers" not in name or weights.ndim < 2].append(weights)
    return [
        torch.optim.Muon(split[False], lr=MATRIX_RATE, weight_decay=0.0, ns_steps=4),
        torch.optim.AdamW(split[True], lr=VECTOR_RATE, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def train(model: Any, rows: Sequence[Row], steps: int, chance: Random) -> float:
    """Train for some steps; returns the mean loss of the last tenth of them."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimisers = optimisers_of(model)
    warmup = max(1, steps // 20)
    schedules = [get_cosine_schedule_with_warmup(each, warmup, steps) for each in optimisers]
    losses: list[float] = []
    model.train()
    for batch in islice(batches(rows, BATCH, chance), steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch, model.config.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*optimisers, *schedules):
            each.step()
        model.zero_grad()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            print(f"step {len(losses)}: loss {fmean(losses[-50:]):.3f}", flush=True)
    return fmean(losses[-max(1, steps // 10) :])


def make_model(run: str, folder: Path, steps: int = STEPS, seed: int = 0) -> float:
    """Train on a run and write the model; returns the last loss.

    `questions.jsonl` beside the weights lists the questions trained on, so that `evaluate` can tell
    which ones are held out.
    """
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    pairs = pairs_of(run)
    if not pairs:
        raise SystemExit(f"{run}: found no text; expected drafts and revisions")
    tokenizer = tokenizer_of([text for pair in pairs for text in pair])
    model = model_of(tokenizer)
    loss = train(model, rows_of(tokenizer, pairs), steps, Random(seed))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    questions = dict.fromkeys(question for question, _ in pairs)
    lines = (json.dumps({"question": each}, ensure_ascii=False) + "\n" for each in questions)
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return loss


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="a run's name, or its file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    loss = make_model(given.run, given.folder, given.steps, given.seed)
    print(f"{given.folder}: loss {loss:.3f}, {time.process_time():.0f} CPU seconds")


if __name__ == "__main__":
    main()
