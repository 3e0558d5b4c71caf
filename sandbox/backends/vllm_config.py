"""The settings of the vLLM backend, validated by vLLM itself before a run is created."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from agents.section import Section
from sandbox.backends.base import LanguageModelSettings
from sandbox.backends.engine_log import EngineLog
from sandbox.text import install_command

INSTALL = (
    f"{install_command('vllm')} (on a machine with a GPU), or see docs/models.md for one without"
)


class Thinking(Section):
    """The thinking of a reasoning model before its reply.

    Attributes:
        parser: the name of vLLM's reasoning parser for the model (`qwen3`, `deepseek_r1`, ...).
        budget: tokens for thinking, in addition to those of the reply.
    """

    parser: str = Field(min_length=1)
    budget: int = Field(default=1024, ge=1)


_ENGINE_RESOURCES = (
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "distributed_executor_backend",
    "disable_custom_all_reduce",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_parallel_loading_workers",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "enforce_eager",
    "block_size",
    "swap_space",
    "cpu_offload_gb",
    "download_dir",
)
"""Engine arguments about memory, devices and scheduling: they decide whether and how fast a model
runs on a machine, not what it is asked or how it samples."""


class VllmConfig(LanguageModelSettings):
    """Settings of the vLLM backend.

    Attributes:
        chat: use the model's chat template; false for a base model, which gets the two messages
            as plain text.
        chat_template: a file with a Jinja template to use instead of the model's own.
        adapters: folders of LoRA adapters by the name that personas use.
        adapter: the name of the adapter of every call whose persona names none.
        thinking: for reasoning models.
        restarts: number of restarts of an engine that died.
        extra: additional engine arguments, by vLLM's own names (tensor_parallel_size, quantization,
            gpu_memory_utilization, max_model_len, ...).
    """

    transport: ClassVar[tuple[str, ...]] = (
        "restarts",
        *(f"extra.{name}" for name in _ENGINE_RESOURCES),
    )

    backend: Literal["vllm"]
    chat: bool = True
    chat_template: Path | None = None
    adapters: dict[str, Path] = Field(default_factory=dict)
    adapter: str | None = None
    thinking: Thinking | None = None
    restarts: int = Field(default=3, ge=0, le=100)
    extra: dict[str, Any] = Field(default_factory=dict)

    def check(self) -> None:
        """Check the model's folder, the adapters, the template and the engine arguments.

        Raises:
            ValueError: vLLM is not installed, or a setting is invalid.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(f"backend: found vllm, which is not installed; expected {INSTALL}")
        self._check_model()
        for name, folder in self.adapters.items():
            if not (folder / "adapter_config.json").is_file():
                raise ValueError(
                    f"adapters.{name}: found {str(folder)!r}; expected a folder with "
                    "an adapter_config.json"
                )
        if self.adapter is not None and self.adapter not in self.adapters:
            names = ", ".join(self.adapters) or "none"
            raise ValueError(f"adapter: found {self.adapter!r}; expected one of adapters: {names}")
        if self.chat_template is not None and not self.chat_template.is_file():
            raise ValueError(f"chat_template: found {str(self.chat_template)!r}; expected a file")
        self._check_extra()
        self._check_sampling()

    def _check_model(self) -> None:
        folder = Path(self.model)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(
                f"model: found {self.model!r}, a folder without a config.json; expected a model"
            )
        if not folder.is_dir() and (folder.is_absolute() or self.model.count("/") > 1):
            raise ValueError(
                f"model: found {self.model!r}, which does not exist; expected a folder"
            )
        if not folder.is_dir() and _offline() and not _cached(self.model):
            raise ValueError(
                f"model: found {self.model!r}, which is neither a folder nor in the cache of the "
                "model hub, and HF_HUB_OFFLINE is set; expected a local model"
            )

    def _check_extra(self) -> None:
        """Check the names of engine arguments; for a local model, also their values."""
        with _quiet():
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.reasoning import ReasoningParserManager

            known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
            parsers = ReasoningParserManager.list_registered()
        for key in self.extra:
            if key not in known or key in ("model", "enable_lora"):
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"extra.{key}: unknown or reserved; expected an engine argument of vLLM{hint}"
                )
        if self.thinking is not None and self.thinking.parser not in parsers:
            raise ValueError(
                f"thinking.parser: found {self.thinking.parser!r}; expected one of vLLM's "
                f"reasoning parsers: {', '.join(sorted(parsers))}"
            )
        if Path(self.model).is_dir() or _cached(self.model):
            self._check_engine()

    def _check_engine(self) -> None:
        try:
            with _quiet():
                engine_args(self).create_engine_config()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"][:1])
            if key in self.extra:
                raise ValueError(
                    f"extra.{key}: found {self.extra[key]!r}; expected: {first['msg']}"
                ) from None
            raise ValueError(f"extra: refused by vLLM: {first['msg']}") from None
        except Exception as error:  # vLLM raises errors of many types
            raise ValueError(f"extra: refused by vLLM: {one_line(error)}") from None

    def _check_sampling(self) -> None:
        try:
            with _quiet():
                self.params(0, None, 1, self.temperature, 0)
        except Exception as error:  # vLLM raises errors of many types
            raise ValueError(f"sampling: refused by vLLM: {one_line(error)}") from None

    def params(
        self,
        seed: int,
        regex: str | None,
        max_tokens: int,
        temperature: float,
        labels: int,
        stop: Sequence[str] = (),
    ) -> Any:
        """Return the sampling parameters of a call.

        Args:
            seed: the seed of the call.
            regex: constrains the reply; None for free text.
            max_tokens: of the reply; tokens for thinking are added.
            temperature: 0 is greedy.
            labels: number of alternatives to report for each token; 0 for none.
            stop: strings at which the engine ends the reply; none where they would end thoughts.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        thinking = self.thinking
        own = {
            "seed": seed,
            "max_tokens": max_tokens + (thinking.budget + 64 if thinking else 0),
            "temperature": temperature,
            "logprobs": labels or None,
            "stop": list(stop) or None,
            "thinking_token_budget": thinking.budget if thinking else None,
            "structured_outputs": StructuredOutputsParams(regex=regex) if regex else None,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        merged = own | self.sampling
        return SamplingParams(**{key: value for key, value in merged.items() if value is not None})

    def adapter_names(self) -> Collection[str]:
        """Return the LoRA adapters that personas may name."""
        return self.adapters


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the output of vLLM off the terminal."""
    log = EngineLog("vllm")
    log.open()
    try:
        with log.redirected(), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.close()


def engine_arguments(config: VllmConfig) -> dict[str, Any]:
    """Return the engine's arguments: defaults, those that a CPU needs, and those of the config."""
    from vllm.platforms import current_platform

    chosen: dict[str, Any] = {
        "model": config.model,
        "scheduling_policy": "priority",
        "structured_outputs_config": {"backend": "guidance"},
    }
    if current_platform.is_cpu():  # chunked prefill of a seeded prompt kills it there
        chosen |= {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32}
    if config.adapters:
        ranks = [_rank(folder) for folder in config.adapters.values()]
        allowed = next(rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= max(ranks))
        chosen |= {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": allowed}
    if config.thinking is not None:
        chosen["reasoning_parser"] = config.thinking.parser
    return chosen | config.extra


def engine_args(config: VllmConfig) -> Any:
    """Return the engine's arguments as vLLM's object."""
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = engine_arguments(config)
    structured = StructuredOutputsConfig(**arguments.pop("structured_outputs_config"))
    return AsyncEngineArgs(**arguments, structured_outputs_config=structured)


def resolved_arguments(config: VllmConfig, resolved: Any) -> dict[str, Any]:
    """Return the arguments that a config sets or vLLM chose itself, with their final values.

    Args:
        config: the settings.
        resolved: the `VllmConfig` of the running engine.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs

    given = engine_arguments(config)
    sections = [getattr(resolved, field.name) for field in dataclasses.fields(resolved)]
    found = {}
    for field in dataclasses.fields(AsyncEngineArgs):
        section = next((section for section in sections if hasattr(section, field.name)), None)
        value = getattr(section, field.name, None)
        if field.name == "dtype":
            value = str(value).removeprefix("torch.")
        if not isinstance(value, bool | int | float | str) or section is None:
            value = given.get(field.name)
        if value not in (None, "") and (field.name in given or value != field.default):
            found[field.name] = value
    return found


def _rank(folder: Path) -> int:
    return int(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])


def one_line(error: BaseException) -> str:
    """Return the message of an error, on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
