"""Train on an export of the format `stable-alignment`: contrastive preference optimisation.

Usage: python examples/stable_alignment.py EXPORT/stable_alignment.json --model MODEL --out DIR

The loss is that of Liu et al., "Training Socially Aligned Language Models in Simulated Human
Society" (arXiv 2305.16960), for the responses of one query with ratings r and the mean token
cross-entropies CE of the responses (the query masked), b the best rated one:

    L = CE_b + ratio * max(0, mean over j != b of [CE_b - CE_j + (r_b - r_j) / 7 * margin])

The margin of a response follows from its own rating, and every query of a batch counts. The
responses to all queries of a batch go through the model together. Each time a query comes up,
`--responses` of its responses are drawn. Needs `pip install torch transformers`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy

SCALE = 7
IGNORED = -100


def preference_loss(
    entropies: torch.Tensor,
    ratings: torch.Tensor,
    ratio: float = 0.2,
    margin: float = 1.0,
    worst: bool = False,
) -> torch.Tensor:
    """Compute the loss of the responses to one query, a scalar.

    Args:
        entropies: mean token cross-entropy of each response, shape (responses,).
        ratings: theirs, 1 to 7, shape (responses,).
        ratio: weight of the contrast.
        margin: what a response that is rated a whole scale lower has to be less likely by.
        worst: contrast with the response that violates its margin most, not with the mean.
    """
    best = int(ratings.argmax())
    others = torch.arange(len(ratings), device=ratings.device) != best
    if not others.any():
        return entropies[best]
    margins = (ratings[best] - ratings[others]) / SCALE * margin
    gaps = entropies[best] - entropies[others] + margins
    return entropies[best] + ratio * (gaps.max() if worst else gaps.mean()).clamp(min=0)


def entropies_of(model: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean token cross-entropy of each row, shape (rows,); labels of -100 are ignored."""
    logits = model(input_ids=tokens).logits[:, :-1]
    wanted = labels[:, 1:]
    each = cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    return each.sum(dim=1) / (wanted != IGNORED).sum(dim=1).clamp(min=1)


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without any that stand for its beginning or end."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels of pairs of query and response, padded, each of shape (pairs, length).

    Padding is on the right and its labels are ignored, so causal models need no attention mask.
    """
    rows, labels = [], []
    for query, response in pairs:
        prompt = tokens_of(tokenizer, query)
        said = [*tokens_of(tokenizer, f" {response}"), tokenizer.eos_token_id]
        rows.append(torch.tensor([*prompt, *said][:limit]))
        labels.append(torch.tensor([*[IGNORED] * len(prompt), *said][:limit]))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.eos_token_id),
        pad(labels, batch_first=True, padding_value=IGNORED),
    )


def sampled(row: dict[str, Any], count: int, chance: Random) -> tuple[list[str], list[float]]:
    """Sample at most `count` responses of a query, with their ratings."""
    indices = range(len(row["responses"]))
    chosen = sorted(chance.sample(indices, min(count, len(indices))))
    return [row["responses"][n] for n in chosen], [row["scores"][n] for n in chosen]


def losses(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], chance: Random, **options: Any
) -> Iterator[torch.Tensor]:
    """Yield the loss of each query; one pass of the model for all of them."""
    drawn = [sampled(row, options["responses"], chance) for row in rows]
    pairs = [
        (row["query"], response)
        for row, (responses, _) in zip(rows, drawn, strict=True)
        for response in responses
    ]
    tokens, labels = encode(tokenizer, pairs, options["length"])
    device = model.device
    entropies = entropies_of(model, tokens.to(device), labels.to(device))
    sizes = [len(scores) for _, scores in drawn]
    for of_query, (_, scores) in zip(entropies.split(sizes), drawn, strict=True):
        ratings = torch.tensor(scores, dtype=torch.float32, device=device)
        yield preference_loss(of_query, ratings, options["ratio"], options["margin"])


def fitting(tokenizer: Any, rows: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The rows whose query leaves room for a response; says how many do not."""
    kept = [row for row in rows if len(tokens_of(tokenizer, row["query"])) < limit]
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} of {len(rows)} queries fill --length {limit}: left out")
    if not kept:
        raise SystemExit(f"--length: found {limit}; expected more than every query's tokens")
    several = sum(len(set(row["scores"])) > 1 for row in kept)
    print(f"{len(kept)} queries, {several} of them with responses that are rated differently")
    return kept


def shuffled(rows: Sequence[dict[str, Any]], chance: Random) -> Iterator[dict[str, Any]]:
    """Yield all rows in random order, again and again."""
    while True:
        yield from chance.sample(rows, len(rows))


def main() -> None:
    """Train."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8, help="queries per pass of the model")
    parser.add_argument("--accumulate", type=int, default=1, help="passes per step")
    parser.add_argument("--responses", type=int, default=3, help="responses sampled per query")
    parser.add_argument("--length", type=int, default=512, help="tokens of query and response")
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = Random(arguments.seed)
    options = {
        name: getattr(arguments, name) for name in ("responses", "length", "ratio", "margin")
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model).to(device)
    rows = json.loads(arguments.file.read_text(encoding="utf-8"))
    queries = shuffled(fitting(tokenizer, rows, arguments.length), chance)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arguments.rate)
    steps = arguments.steps
    schedule = get_cosine_schedule_with_warmup(optimiser, int(0.03 * steps), steps)
    for step in range(steps):
        total = 0.0
        for _ in range(arguments.accumulate):
            batch = list(islice(queries, arguments.batch))
            found = list(losses(model, tokenizer, batch, chance, **options))
            loss = torch.stack(found).mean() / arguments.accumulate
            loss.backward()
            total += loss.item()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        print(f"step {step + 1}: loss {total:.4f}", flush=True)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
