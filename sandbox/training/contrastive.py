"""The loss of Stable Alignment, and a trainer with it. Imports torch and transformers.

For the responses to one query with ratings r and the mean token cross-entropies CE of the responses
(the query masked), b the best rated one, the loss of Liu et al., "Training Socially Aligned
Language Models in Simulated Human Society" (arXiv 2305.16960), is

    L = CE_b + ratio * max(0, mean over j != b of [CE_b - CE_j + (r_b - r_j) / 7 * margin])

The margin of a response follows from its own rating, and every query of a batch counts, which is
not so in the authors' code. It is not the loss of TRL's CPO trainer (Xu et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainingArguments

from sandbox.training.encoding import IGNORED, encode_query

SCALE = 7


def preference_loss(
    entropies: torch.Tensor,
    ratings: torch.Tensor,
    ratio: float = 0.2,
    margin: float = 1.0,
    worst: bool = False,
) -> torch.Tensor:
    """Compute the loss of the responses to one query, a scalar.

    Args:
        entropies: mean token cross-entropy of each response, in nats, shape (responses,).
        ratings: theirs, 1 to 7, shape (responses,); of several best ones the first counts.
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
    """Mean token cross-entropy of each row, in nats, shape (rows,); labels of -100 are ignored.

    Padding is on the right and its labels are ignored, so causal models need no attention mask.
    """
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    wanted = labels[:, 1:]
    each = cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    return each.sum(dim=1) / (wanted != IGNORED).sum(dim=1).clamp(min=1)


class Query(NamedTuple):
    """A query's responses: tokens and labels of each, and their ratings."""

    tokens: Sequence[Sequence[int]]
    labels: Sequence[Sequence[int]]
    ratings: Sequence[float]


class Queries(torch.utils.data.Dataset[Query]):  # type: ignore[misc]
    """Queries of which some responses are drawn anew in each epoch.

    The draw follows from the seed, the epoch and the place of the query alone: neither batches nor
    workers nor a resumption change it.

    Args:
        rows: rows of the format `stable-alignment`.
        tokenizer: with a chat template.
        length: the maximum number of tokens; a query that leaves no room is left out.
        responses: how many are drawn; None takes all.
        seed: of the draws.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: Any,
        length: int | None,
        responses: int | None,
        seed: int,
    ) -> None:
        encoded = (
            (
                [encode_query(tokenizer, row["query"], one) for one in row["responses"]],
                row["scores"],
            )
            for row in rows
        )
        self._rows = []
        for texts, scores in encoded:
            if length is None or len(texts[0].prompt) < length:
                tokens, labels = zip(*(text.cut(length) for text in texts), strict=True)
                self._rows.append(Query(tokens, labels, scores))
        self._responses = responses
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Query:
        row = self._rows[place]
        count = len(row.ratings)
        if self._responses is None or count <= self._responses:
            return row
        chance = Random(f"{self._seed}/{self.epoch}/{place}")
        drawn = sorted(chance.sample(range(count), self._responses))
        return Query(
            [row.tokens[number] for number in drawn],
            [row.labels[number] for number in drawn],
            [row.ratings[number] for number in drawn],
        )


class Collator:
    """Joins queries to a batch: the responses of all of them, padded on the right.

    The batch has `input_ids` and `labels` of shape (rows, length), `ratings` of shape (rows,) and
    `sizes` of shape (queries,), the number of rows of each query.
    """

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, queries: Sequence[Query]) -> dict[str, torch.Tensor]:
        """Join queries."""
        tokens = [torch.tensor(row) for query in queries for row in query.tokens]
        labels = [torch.tensor(row) for query in queries for row in query.labels]
        ratings = [rating for query in queries for rating in query.ratings]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self._padding),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "ratings": torch.tensor(ratings, dtype=torch.float32),
            "sizes": torch.tensor([len(query.ratings) for query in queries]),
        }


@dataclass
class ContrastiveConfig(TrainingArguments):  # type: ignore[misc]
    """The arguments of `ContrastiveTrainer`: those of transformers, and a few of its own."""

    max_length: int | None = field(default=1024, metadata={"help": "tokens of query and response"})
    model_init_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "arguments of from_pretrained, such as dtype"}
    )
    ratio: float = field(default=0.2, metadata={"help": "weight of the contrast"})
    margin: float = field(default=1.0, metadata={"help": "gap that a whole scale demands"})
    responses: int | None = field(default=3, metadata={"help": "responses drawn in an epoch"})
    worst: bool = field(default=False, metadata={"help": "contrast with the worst violation"})

    def __post_init__(self) -> None:
        """Check values."""
        if self.dataloader_persistent_workers:
            raise ValueError("dataloader_persistent_workers: workers would not see a new epoch")
        super().__post_init__()


class ContrastiveTrainer(Trainer):  # type: ignore[misc]
    """Trains a causal model by the contrastive loss; a batch is of queries.

    The loss of a step is the mean over its queries, however they are split into batches of an
    accumulation and over processes. Datasets are rows of the format `stable-alignment`.
    """

    args: ContrastiveConfig

    def __init__(
        self,
        model: Any,
        args: ContrastiveConfig,
        train_dataset: Sequence[dict[str, Any]],
        eval_dataset: Sequence[dict[str, Any]] | None = None,
        processing_class: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        args.remove_unused_columns = False
        seed = args.seed if args.data_seed is None else args.data_seed
        queries, held_out = (
            Queries(rows, processing_class, args.max_length, args.responses, seed)
            for rows in (train_dataset, eval_dataset or ())
        )
        if processing_class.pad_token_id is None:
            processing_class.pad_token = processing_class.eos_token
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(processing_class.pad_token_id),
            train_dataset=queries,
            eval_dataset=held_out if len(held_out) else None,
            processing_class=processing_class,
            callbacks=[*callbacks, _Epochs(queries)],
        )
        self.model_accepts_loss_kwargs = True  # the loss is scaled by the number of queries

    def losses(self, model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The loss of each query of a batch; one pass of the model for all of them."""
        entropies = entropies_of(model, inputs["input_ids"], inputs["labels"])
        sizes = inputs["sizes"].tolist()
        pairs = zip(entropies.split(sizes), inputs["ratings"].split(sizes), strict=True)
        args = self.args
        return [preference_loss(*pair, args.ratio, args.margin, args.worst) for pair in pairs]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The sum over the queries of a batch, divided by the number of those of the step."""
        losses = torch.stack(self.losses(model, inputs))
        if num_items_in_batch is None:
            loss = losses.mean()
        else:  # gradients are averaged over processes
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> torch.Tensor | None:
        """The number of queries of a step, over all its batches and processes."""
        if not batch_samples:
            return None
        count = torch.tensor(sum(len(batch["sizes"]) for batch in batch_samples), device=device)
        gathered: torch.Tensor = self.accelerator.gather(count).sum()
        return gathered

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """The mean loss of a batch of queries, without gradients."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the queries which epoch begins."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Set the epoch; in one that is resumed, `state.epoch` is a fraction."""
        self._queries.epoch = int(state.epoch or 0)
