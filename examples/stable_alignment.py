"""Train by the paper's loss in a script of one's own; `train --method cpo` does more than this.

Usage: python examples/stable_alignment.py EXPORT/stable_alignment.json --model MODEL --out DIR

The loss is in `sandbox/training/contrastive.py`; its trainer is one of transformers.
Needs `pip install -e '.[train]'`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from sandbox.training.alpaca import CHAT_TEMPLATE
from sandbox.training.contrastive import ContrastiveConfig, ContrastiveTrainer


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    trainer = ContrastiveTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32"),
        args=ContrastiveConfig(
            output_dir=arguments.out,
            max_steps=arguments.steps,
            learning_rate=2e-5,
            lr_scheduler_type="cosine",
            report_to="none",
        ),
        train_dataset=json.loads(arguments.file.read_text(encoding="utf-8")),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
