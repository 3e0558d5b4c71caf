"""Embedding models: vLLM in a child process, a server with OpenAI's API, or static vectors.

Questions are embedded while a run is created, before anything is written, so every error counts as
invalid input. The engine ends, and its memory is free, before the run is played.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
)

from agents.embedding import Embedder, HashedEmbedder, WordLlama
from agents.plugins import exception_line
from agents.section import Section
from sandbox.backends.base import BackendDown
from sandbox.backends.engine_log import EngineLog, with_progress
from sandbox.backends.openai.client import Client
from sandbox.backends.openai.config import ServerSettings, address_of, endpoint
from sandbox.backends.openai.response import error_message, parse_body
from sandbox.backends.retries import can_be_retried, pause, seconds_asked
from sandbox.backends.vllm import embed_texts
from sandbox.backends.vllm_config import VllmConfig
from sandbox.interrupts import run_coroutine
from storage.errors import InputError

THRESHOLD = 0.3
"""Default threshold of a model: questions below this cosine distance count as near."""

BATCH = 256
"""Texts per request."""

REQUESTS = 4
"""Concurrent requests to a server."""

TRIES = 6
"""Attempts of a request before it counts as failed."""

LONGEST_PAUSE = 600.0
"""The longest pause that a server's request for one is granted, in seconds."""

FIRST_PAUSE = 0.5
"""Seconds between the first two attempts; later pauses are longer."""

REPLY_SECONDS = 300.0
"""Timeout of a request, in seconds."""

_PLACE = "memory.embedder"
_JITTER = random.Random()

Vectors = NDArray[np.float32]


_log = logging.getLogger(__name__)


class _Settings(Section):
    model: str = Field(min_length=1)

    def check(self) -> None:
        """Check what can be checked before a run is created."""


class VllmEmbedderConfig(_Settings):
    """Settings of an embedding model that vLLM loads.

    Attributes:
        model: a folder or a name on a model hub.
        extra: additional engine arguments, by vLLM's names (dtype, max_model_len, convert, ...).
    """

    transport: ClassVar[tuple[str, ...]] = tuple(
        key for key in VllmConfig.transport if key.startswith("extra.")
    )

    backend: Literal["vllm"]
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _extra(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "runner" in value:
            raise ValueError("no runner: it is always pooling")
        return value

    def check(self) -> None:
        """Check the model's folder and the engine arguments.

        Raises:
            ValueError: vLLM is not installed, or a setting is invalid.
        """
        VllmConfig(backend="vllm", model=self.model, extra=self.extra).check()


class OpenAIEmbedderConfig(_Settings, ServerSettings):
    """Settings of a server with an embedding model at `/v1/embeddings`.

    Attributes:
        model: the name of the served model.
        base_url: its address; `/v1` is added to one without a path.
    """

    transport: ClassVar[tuple[str, ...]] = ("base_url",)

    backend: Literal["openai"]
    base_url: str

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        address_of(value)
        return value

    def check(self) -> None:
        """Check the file of certificates.

        Raises:
            ValueError: it cannot be read.
        """
        ServerSettings.check(self)

    def address(self) -> str:
        """Return the base URL with its query string; see `endpoint`."""
        return address_of(self.base_url)


class Model2VecConfig(_Settings):
    """Settings of static vectors that were distilled by model2vec.

    Attributes:
        model: a folder, or a name on a model hub.
    """

    transport: ClassVar[tuple[str, ...]] = ()

    backend: Literal["model2vec"]

    def check(self) -> None:
        """Check that the package is installed.

        Raises:
            ValueError: it is not.
        """
        if find_spec("model2vec") is None:
            raise ValueError("backend: found model2vec, which is not installed; expected "
                             "`pip install model2vec`")  # fmt: skip


def _kind(value: Any) -> Any:
    """Return the tag of a setting's variant."""
    if isinstance(value, Mapping):
        return value.get("backend")
    return getattr(value, "backend", value)


EmbedderSetting = Annotated[
    Annotated[Literal["wordllama"], Tag("wordllama")]
    | Annotated[Literal["hashed"], Tag("hashed")]
    | Annotated[Model2VecConfig, Tag("model2vec")]
    | Annotated[VllmEmbedderConfig, Tag("vllm")]
    | Annotated[OpenAIEmbedderConfig, Tag("openai")],
    Discriminator(
        _kind,
        custom_error_type="embedder",
        custom_error_message=(
            "wordllama, hashed, or a mapping with backend: vllm, openai or model2vec, and a model"
        ),
    ),
]
"""The embedder that a config names: the default, or a model."""


def embedder_of(setting: EmbedderSetting) -> Embedder:
    """Make the embedder of a setting; a model is loaded only when it gets texts."""
    match setting:
        case VllmEmbedderConfig():
            return VllmEmbedder(setting)
        case OpenAIEmbedderConfig():
            return OpenAIEmbedder(setting)
        case Model2VecConfig():
            return Model2VecEmbedder(setting)
        case "hashed":
            return HashedEmbedder()
        case _:
            return WordLlama()


def check_embedder(setting: EmbedderSetting, place: str) -> None:
    """Check the settings of an embedder before a run is created.

    Args:
        setting: the settings.
        place: where they were set, for error messages.

    Raises:
        InputError: a setting is invalid.
    """
    try:
        if isinstance(setting, _Settings):
            setting.check()
        elif setting == "wordllama":
            WordLlama.check()
    except FileNotFoundError as error:
        raise InputError(
            f"{place}: {_PLACE}: {error}; expected `pip install wordllama`, or embedder: hashed"
        ) from None
    except ValueError as error:
        raise InputError(f"{place}: {_PLACE}.{error}") from None


class _ModelEmbedder:
    """Base class of embedders with a model; see `agents.embedding.Embedder`.

    `dim` is 0 until the model has embedded a text.
    """

    threshold: float = THRESHOLD

    def __init__(self, name: str) -> None:
        self.name = name
        self.dim = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (len(texts), dim).

        Raises:
            InputError: the model cannot be used, or returns no valid vectors.
        """
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        vectors = _normalised(self._request(texts), self.name)
        if len(vectors) != len(texts) or self.dim not in (0, vectors.shape[1]):
            raise InputError(
                f"{_PLACE}: found {len(vectors)} vectors of {vectors.shape[1]} numbers from "
                f"{self.name}; expected {len(texts)} of {self.dim or 'one length'}"
            )
        self.dim = vectors.shape[1]
        return vectors

    def _request(self, texts: Sequence[str]) -> Any:
        """Return the model's vectors, as anything that numpy can convert to an array."""
        raise NotImplementedError


def _normalised(vectors: Any, name: str) -> Vectors:
    """Scale vectors to length 1; a vector of zeros stays as it is."""
    try:
        array = np.asarray(vectors, np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or not array.shape[1] or not np.isfinite(array).all():
        raise InputError(
            f"{_PLACE}: found a reply of {name} that is not finite vectors of one length; "
            "expected an embedding model"
        )
    array = array / np.maximum(np.abs(array).max(axis=1, keepdims=True), np.finfo(float).tiny)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    unit: Vectors = (array / np.where(lengths, lengths, 1)).astype(np.float32)
    return unit


class VllmEmbedder(_ModelEmbedder):
    """Embeds with vLLM, in a child process that ends afterwards."""

    def __init__(self, config: VllmEmbedderConfig) -> None:
        super().__init__(f"vllm:{config.model}")
        self._config = config

    def _request(self, texts: Sequence[str]) -> Any:
        log = EngineLog("vllm")
        log.open()
        try:
            return run_coroutine(self._work(list(texts), log))
        except (RuntimeError, BrokenProcessPool) as error:
            log.keep = True
            killed = isinstance(error, BrokenProcessPool)
            why = (log.cause() or "its process was killed") if killed else error
            raise InputError(
                f"{_PLACE}: {self.name} cannot embed: {why} (log: {log.path}); "
                "expected a model and `extra` with which vLLM can embed"
            ) from None
        finally:
            log.close()

    async def _work(self, texts: list[str], log: EngineLog) -> Any:
        context, config = multiprocessing.get_context("spawn"), self._config
        with ProcessPoolExecutor(1, context, _end_with_parent) as pool:
            with log.redirected():  # the process starts here, and keeps writing to the log
                future = pool.submit(embed_texts, config.model, config.extra, texts)
            what = f"vllm: embedding {len(texts)} texts with {config.model}"
            return await with_progress(asyncio.wrap_future(future), log, what, 2)


def _end_with_parent() -> None:
    """End this process when its parent has ended, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Model2VecEmbedder(_ModelEmbedder):
    """Embeds with static vectors, by the library model2vec."""

    def __init__(self, config: Model2VecConfig) -> None:
        super().__init__(f"model2vec:{config.model}")
        self._config = config

    def _request(self, texts: Sequence[str]) -> Any:
        from model2vec import StaticModel

        try:
            model = StaticModel.from_pretrained(self._config.model)
        except Exception as error:  # the library raises what its parts raise
            raise InputError(
                f"{_PLACE}: {self.name} cannot be loaded: {exception_line(error)}; "
                "expected a folder that model2vec wrote"
            ) from None
        return model.encode(list(texts), use_multiprocessing=False)


class OpenAIEmbedder(_ModelEmbedder):
    """Embeds with a server's `/v1/embeddings`."""

    def __init__(self, config: OpenAIEmbedderConfig) -> None:
        super().__init__(f"openai:{config.model}")
        self._config = config
        self._url = endpoint(config.address(), "embeddings")

    def _request(self, texts: Sequence[str]) -> Any:
        try:
            return run_coroutine(self._work(texts))
        except BackendDown as error:
            raise InputError(f"{_PLACE}: {error}") from None

    async def _work(self, texts: Sequence[str]) -> Any:
        limit = asyncio.Semaphore(REQUESTS)
        client = Client(self._config, REPLY_SECONDS)
        address = self._config.address()
        _log.info(
            "asking %s for %s vectors (up to %g s a call)",
            address,
            f"{len(texts):,}",
            REPLY_SECONDS,
        )
        await client.open()

        async def batch(start: int) -> list[Any]:
            async with limit:
                return await self._batch(client, texts[start : start + BATCH])

        try:
            batches = await asyncio.gather(*map(batch, range(0, len(texts), BATCH)))
        finally:
            await client.close()
        return [vector for batch in batches for vector in batch]

    async def _batch(self, client: Client, texts: Sequence[str]) -> list[Any]:
        """Send one request, with retries."""
        body = {"model": self._config.model, "input": list(texts), "encoding_format": "float"}
        for attempt in range(1, TRIES + 1):
            wait = 0.0
            try:
                response = await client.request("POST", self._url, body)
            except OSError as error:
                problem = f"cannot be reached: {client.unreachable(error, self._url)}"
            else:
                content = parse_body(response.body, response.charset).value
                if response.status == 200:
                    return self._vectors(content, len(texts))
                message = client.hide(error_message(content, response.body))
                problem = f"answered {response.status}: {message}"
                if not can_be_retried(response.status):
                    break
                wait = min(LONGEST_PAUSE, seconds_asked(response.headers, response.body))
            if attempt < TRIES:
                await asyncio.sleep(max(wait, pause(attempt, _JITTER, FIRST_PAUSE)))
        raise InputError(
            f"{_PLACE}: {self._url} {problem}; expected a server with the model "
            f"{self._config.model!r}, and its API key, if it needs one, in {client.key.variable}"
        )

    def _vectors(self, content: Any, count: int) -> list[Any]:
        """Parse the vectors of a response, in the order of the texts."""
        try:
            vectors = {item["index"]: item["embedding"] for item in content["data"]}
            return [vectors[number] for number in range(count)]
        except (KeyError, TypeError):
            raise InputError(
                f"{_PLACE}: found a response of {self._url} without {count} embeddings; "
                "expected a server with OpenAI's API"
            ) from None
