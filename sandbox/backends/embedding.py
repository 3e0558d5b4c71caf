"""Embeddings by a model: vLLM in a process of its own, or a server that speaks OpenAI's interface.

Questions are embedded while a run is made, before anything else starts: whatever goes wrong is bad
input, and nothing is written. The engine has ended, and its memory is free, once the vectors are
there.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
)

from agents.embedding import Embedder, HashedEmbedder
from sandbox.backends.asking import CONNECT_SECONDS, Key, can_be_retried, pause, retry_seconds
from sandbox.backends.base import BackendDown
from sandbox.backends.engine_log import EngineLog, with_progress
from sandbox.backends.openai import OpenAIConfig
from sandbox.backends.vllm import pooled
from sandbox.backends.vllm_config import VllmConfig
from sandbox.concurrency import run_coroutine
from storage.errors import InputError

if TYPE_CHECKING:
    import aiohttp

THRESHOLD = 0.3
"""The cosine distance below which questions are near for a model, unless a config says another."""

BATCH = 256
"""Texts in one request."""

REQUESTS = 4
"""Requests that a server gets at once."""

TRIES = 6
"""How often a request is sent before it counts as failed."""

FIRST_PAUSE = 0.5
"""Seconds between the first two tries; later pauses are longer."""

REPLY_SECONDS = 300.0
"""How long a server may take for one request."""

_PLACE = "memory.embedder"
_JITTER = random.Random()

Vectors = NDArray[np.float32]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(min_length=1)

    def check(self) -> None:
        """Look at what can be looked at before anything starts."""


class VllmEmbedderConfig(_Settings):
    """Settings of an embedding model in vLLM.

    Attributes:
        model: a folder or a name on a model hub.
        extra: further engine arguments, by vLLM's own names (dtype, max_model_len, convert, ...).
    """

    backend: Literal["vllm"]
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _extra(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "runner" in value:
            raise ValueError("no runner: it is always pooling")
        return value

    def check(self) -> None:
        """Look at the model's folder and the engine arguments.

        Raises:
            ValueError: vLLM is not installed, or something is not there.
        """
        VllmConfig(backend="vllm", model=self.model, extra=self.extra).check()


class OpenAIEmbedderConfig(_Settings):
    """Settings of a server with an embedding model, which it serves at `/v1/embeddings`.

    Attributes:
        model: the name that it serves the model under.
        base_url: its address; `/v1` is added to one without a path.
        api_key_env: the environment variable that holds the key, if the server wants one.
    """

    backend: Literal["openai"]
    base_url: str
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        try:
            _address(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise ValueError(message.removeprefix("Value error, ")) from None
        return value

    def address(self) -> str:
        """The address as what the paths of the interface are added to."""
        return _address(self.base_url)


def _address(base_url: str) -> str:
    return OpenAIConfig(backend="openai", model="any", base_url=base_url).addresses()[0]


def _kind(value: Any) -> Any:
    """Which alternative of the setting a value is meant to be."""
    if isinstance(value, Mapping):
        return value.get("backend")
    return getattr(value, "backend", value)


EmbedderSetting = Annotated[
    Annotated[Literal["hashed"], Tag("hashed")]
    | Annotated[VllmEmbedderConfig, Tag("vllm")]
    | Annotated[OpenAIEmbedderConfig, Tag("openai")],
    Discriminator(
        _kind,
        custom_error_type="embedder",
        custom_error_message="hashed, or a mapping with backend: vllm or openai, and a model",
    ),
]
"""Which embedder a config names: the default one, or a model and where it is."""


def embedder_of(setting: EmbedderSetting) -> Embedder:
    """The embedder for a setting; a model is loaded or asked only once it gets texts."""
    match setting:
        case VllmEmbedderConfig():
            return VllmEmbedder(setting)
        case OpenAIEmbedderConfig():
            return OpenAIEmbedder(setting)
        case _:
            return HashedEmbedder()


def check_embedder(setting: EmbedderSetting, place: str) -> None:
    """Look at an embedder's settings before anything starts.

    Raises:
        InputError: it cannot work.
    """
    if isinstance(setting, _Settings):
        try:
            setting.check()
        except ValueError as error:
            raise InputError(f"{place}: {_PLACE}.{error}") from None


class _ModelEmbedder:
    """What the embedders that ask a model have in common; see `agents.embedding.Embedder`.

    `dim` is 0 until the model has embedded something.
    """

    threshold: float = THRESHOLD

    def __init__(self, name: str) -> None:
        self.name = name
        self.dim = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(texts), dim).

        Raises:
            InputError: the model cannot be used, or what it gave back are no vectors.
        """
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        vectors = _unit(self._ask(texts), self.name)
        if len(vectors) != len(texts) or self.dim not in (0, vectors.shape[1]):
            raise InputError(
                f"{_PLACE}: {self.name} gave {len(vectors)} vectors of {vectors.shape[1]} numbers; "
                f"expected {len(texts)} of {self.dim or 'one length'}"
            )
        self.dim = vectors.shape[1]
        return vectors

    def _ask(self, texts: Sequence[str]) -> Any:
        """The model's own vectors, as anything like an array."""
        raise NotImplementedError


def _unit(vectors: Any, name: str) -> Vectors:
    """Vectors made as long as 1; one of zeros stays as it is."""
    try:
        found = np.asarray(vectors, np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.zeros(0)
    if found.ndim != 2 or not found.shape[1] or not np.isfinite(found).all():
        raise InputError(
            f"{_PLACE}: {name} gave something else than finite vectors of one length; "
            "expected an embedding model"
        )
    found = found / np.maximum(np.abs(found).max(axis=1, keepdims=True), np.finfo(float).tiny)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: Vectors = (found / np.where(lengths, lengths, 1)).astype(np.float32)
    return unit


class VllmEmbedder(_ModelEmbedder):
    """Embeds with vLLM, in a process that ends when it is done."""

    def __init__(self, config: VllmEmbedderConfig) -> None:
        super().__init__(f"vllm:{config.model}")
        self._config = config

    def _ask(self, texts: Sequence[str]) -> Any:
        log = EngineLog()
        log.open()
        try:
            return run_coroutine(self._work(list(texts), log))
        except (RuntimeError, BrokenProcessPool) as error:
            log.keep = True
            died = isinstance(error, BrokenProcessPool)
            why = (log.cause() or "its process was killed") if died else error
            raise InputError(
                f"{_PLACE}: {self.name} cannot embed: {why} (log: {log.path}); "
                "expected a model and `extra` that vLLM can embed with"
            ) from None
        finally:
            log.close()

    async def _work(self, texts: list[str], log: EngineLog) -> Any:
        context, config = multiprocessing.get_context("spawn"), self._config
        with ProcessPoolExecutor(1, context, _end_with_parent) as pool:
            with log.catching():  # the process starts here, and goes on writing to the log
                future = pool.submit(pooled, config.model, config.extra, texts)
            what = f"vllm: embedding {len(texts)} texts with {config.model}"
            return await with_progress(asyncio.wrap_future(future), log, what, 2)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that went."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class OpenAIEmbedder(_ModelEmbedder):
    """Embeds with a server's `/v1/embeddings`."""

    def __init__(self, config: OpenAIEmbedderConfig) -> None:
        super().__init__(f"openai:{config.model}")
        self._config = config
        self._url = f"{config.address()}/embeddings"

    def _ask(self, texts: Sequence[str]) -> Any:
        try:
            key = Key.read(self._config.api_key_env)
        except BackendDown as error:
            raise InputError(f"{_PLACE}: {error}") from None
        return run_coroutine(self._work(texts, key))

    async def _work(self, texts: Sequence[str], key: Key) -> Any:
        import aiohttp  # here, since it takes long to import

        limit = asyncio.Semaphore(REQUESTS)
        timeout = aiohttp.ClientTimeout(total=REPLY_SECONDS, connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, headers=key.headers()) as session:

            async def batch(start: int) -> list[Any]:
                async with limit:
                    return await self._batch(session, texts[start : start + BATCH], key)

            batches = await asyncio.gather(*map(batch, range(0, len(texts), BATCH)))
        return [vector for batch in batches for vector in batch]

    async def _batch(
        self, session: aiohttp.ClientSession, texts: Sequence[str], key: Key
    ) -> list[Any]:
        """One request, sent again while that may help."""
        import aiohttp

        body = {"model": self._config.model, "input": list(texts), "encoding_format": "float"}
        for attempt in range(1, TRIES + 1):
            wait = 0.0
            try:
                async with session.post(self._url, json=body, allow_redirects=False) as response:
                    status, content = response.status, await response.read()
                    wait = retry_seconds(response.headers.get("Retry-After"))
            except (aiohttp.ClientError, OSError) as error:
                problem = f"cannot be reached: {key.hide(str(error) or type(error).__name__)}"
            else:
                if status == 200:
                    return self._vectors(content, len(texts))
                problem = f"answered {status}: {key.hide(content.decode('utf-8', 'replace'))}"
                if not can_be_retried(status):
                    break
            if attempt < TRIES:
                await asyncio.sleep(max(wait, pause(attempt, _JITTER, FIRST_PAUSE)))
        raise InputError(
            f"{_PLACE}: {self._url} {problem}; expected a server with the model "
            f"{self._config.model!r}, and its key, if it wants one, in {key.variable}"
        )

    def _vectors(self, content: bytes, count: int) -> list[Any]:
        """The vectors of a reply, in the order of the texts."""
        try:
            found = {one["index"]: one["embedding"] for one in json.loads(content)["data"]}
            return [found[place] for place in range(count)]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise InputError(
                f"{_PLACE}: {self._url} sent something else than {count} embeddings; "
                "expected a server that speaks OpenAI's interface"
            ) from None
