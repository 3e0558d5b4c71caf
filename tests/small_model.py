"""SmolLM2-135M-Instruct in a form that vLLM and transformers load.

`python tests/small_model.py FILE.gguf DIR` reads a GGUF file and writes DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def convert(file: Path, folder: Path) -> None:
    """Write the weights of a GGUF file as safetensors, with the tokenizer and its template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    plain = LlamaForCausalLM(read.config)  # a model read from GGUF refuses to be saved
    plain.load_state_dict(read.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    convert(given.file, given.folder)
