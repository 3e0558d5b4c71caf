"""The backend for servers with OpenAI's HTTP API.

One backend can use several addresses. Calls of one episode go to the same address, for its prefix
cache, unless that address is paused after a failure or much busier than another. The number of
concurrent calls to an address adapts to its load.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from agents.forms import Rating
from sandbox.backends.addresses import Address, choose, seconds_until_free
from sandbox.backends.base import (
    BackendDown,
    Call,
    CallFailed,
    FreeParameters,
    LanguageModelSettings,
    Reply,
    Unavailable,
)
from sandbox.backends.expected_rating import LABELS_SHOWN, expected_rating
from sandbox.backends.retries import CONNECT_SECONDS, Key, can_be_retried, seconds_asked

if TYPE_CHECKING:
    import aiohttp

MODELS_SECONDS = 30.0
"""Timeout of listing the models of an address, in seconds."""

KEEPALIVE_SECONDS = 4.0
"""Seconds that an idle connection is kept: less than the 5 seconds of vLLM's server."""

END_OF_THINKING = 64
"""Tokens between the end of a thinking budget and the answer."""

_REFUSED = frozenset((400, 413, 422))
_LIMITED = 429  # too many requests
_OVERLOADED = frozenset((408, 503, 504, 529))
_NEWER_LIMIT = "max_completion_tokens"  # OpenAI's newer models; many servers know only max_tokens
_ABORTED = frozenset(("abort", "error"))  # the reply is incomplete
_MIN_LOGPROB = -700.0  # servers write -9999 or less for a probability of about 0


class OpenAIConfig(LanguageModelSettings):
    """Settings of servers with OpenAI's HTTP API.

    Attributes:
        base_url: one address or several; `/v1` is added to one without a path.
        api_key_env: the environment variable with the API key, if the server needs one.
        constrain: constrain replies to the prompt template's regular expression, which only
            vLLM's server can do; `auto` detects whether the server is vLLM's.
        chat: use the model's chat template; false for a base model, which gets the two messages
            as plain text.
        max_in_flight: maximum number of concurrent calls to an address.
        extra_body: additional fields of each request.
        thinking: for reasoning models: store the thinking.
        thinking_budget: tokens for thinking, in addition to those of the reply; null for no
            budget: thinking and reply then share the tokens of the reply.
        priority: send the priority of each call; for a vLLM started with
            `--scheduling-policy priority`.
    """

    backend: Literal["openai"]
    base_url: str | tuple[str, ...]
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    constrain: Literal["auto", "vllm", "none"] = "auto"
    chat: bool = True
    max_in_flight: int = Field(default=256, ge=1)
    extra_body: FreeParameters = Field(default={})
    thinking: bool = False
    thinking_budget: int | None = Field(default=None, ge=1)
    priority: bool = False

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        addresses = [_address(url) for url in _as_tuple(value)]
        if not addresses or len(set(addresses)) < len(addresses):
            raise ValueError("one or more addresses without duplicates")
        return value

    @model_validator(mode="after")
    def _budget_needs_thinking(self) -> OpenAIConfig:
        if self.thinking_budget is not None and not self.thinking:
            raise ValueError("thinking_budget without thinking: true")
        return self

    def addresses(self) -> tuple[str, ...]:
        """Return the base URLs, to which the paths of the API are added."""
        return tuple(_address(url) for url in _as_tuple(self.base_url))


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _address(text: str) -> str:
    """Validate a base URL. No error message repeats it, since it may contain a password."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise ValueError("an address such as http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address such as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise ValueError("an address without a user or password: a key belongs in api_key_env")
    if parts.query or parts.fragment:
        raise ValueError("an address without ? and #")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


class Response(NamedTuple):
    """A server's response: the status, the seconds to wait that it asks for, and the body."""

    status: int
    after: float
    body: bytes


class OpenAIBackend:
    """Answers calls with one or more servers."""

    keeps_timeout = True

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._addresses = [Address(url, config.max_in_flight) for url in config.addresses()]
        self._key = Key(config.api_key_env, "")
        self._session: aiohttp.ClientSession | None = None

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        return self._config.model

    async def start(self) -> None:
        """Check that every address serves the model.

        Raises:
            BackendDown: an address cannot be reached, or does not serve the model.
        """
        self._key = Key.read(self._config.api_key_env)
        import aiohttp  # here, since it takes long to import

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            headers=self._key.headers(),
        )
        checks = [self._check_address(address) for address in self._addresses]
        for error in await asyncio.gather(*checks, return_exceptions=True):
            if error is not None:
                raise error

    async def _check_address(self, address: Address) -> None:
        """Check that an address serves the model, and detect vLLM's server."""
        content = await self._models(address)
        if not isinstance(_mapping(content).get("data"), list):
            raise BackendDown(
                f"openai: {address.url}/models is no list of models; expected base_url of a server "
                "with OpenAI's API, such as http://localhost:8000/v1"
            )
        served = _served(content)
        if self._config.model not in served:
            names = self._key.hide(", ".join(served))
            expected = f"one of {names}" if names else "a served model, and there is none"
            raise BackendDown(
                f"openai: {address.url} does not serve {self._config.model!r}; "
                f"expected `model:` to be {expected}"
            )
        address.vllm = self._config.constrain == "vllm" or "vllm" in served.values()
        if not address.vllm:
            address.gate.begin_narrow()

    async def _models(self, address: Address) -> Any:
        import aiohttp

        try:
            async with asyncio.timeout(MODELS_SECONDS):
                response = await self._request("GET", f"{address.url}/models")
        except (aiohttp.ClientError, OSError) as error:
            raise BackendDown(
                f"openai: {address.url} cannot be reached ({self._key.hide(_error_text(error))}); "
                "start the server, or correct base_url"
            ) from None
        if response.status != 200:
            raise BackendDown(self._down_message(address, response))
        return _parse_json(response.body)

    async def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> Response:
        assert self._session is not None
        async with self._session.request(method, url, json=body, allow_redirects=False) as response:
            content = await response.read()
            failed = response.status >= 400
            after = seconds_asked(response.headers, content) if failed else 0.0
            return Response(response.status, after, content)

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: the server refuses this prompt.
            Unavailable: the server cannot be reached, or is overloaded.
            BackendDown: the server refuses the key, or does not have the model.
        """
        import aiohttp

        address = await self._enter(call)
        try:
            try:
                async with address.request(self._config.timeout):
                    response = await self._send(call, address)
            except (aiohttp.ClientError, OSError) as error:
                raise Unavailable(f"{address.url}: {self._key.hide(_error_text(error))}") from None
            self._check_status(address, response)
            reply = self._reply(call, self._content(address, response))
        except Unavailable as error:
            address.failed(str(error), error.after)
            error.after = seconds_until_free(self._addresses)
            raise
        except CallFailed:
            address.answered()
            raise
        address.answered()
        return reply

    async def _send(self, call: Call, address: Address) -> Response:
        """Send a call; send it again if the server requires the newer name of the limit."""
        url = f"{address.url}/{'chat/completions' if self._config.chat else 'completions'}"
        body = self._body(call, address)
        response = await self._request("POST", url, body)
        if _NEWER_LIMIT not in body and _requires_newer_limit(response):
            address.limit = _NEWER_LIMIT
            response = await self._request("POST", url, self._body(call, address))
        return response

    async def _enter(self, call: Call) -> Address:
        """Choose an address, and wait until its gate admits the call."""
        while True:
            address = choose(self._addresses, call.name.episode)
            if await address.enter(call.priority):
                return address

    def _body(self, call: Call, address: Address) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": call.adapter or config.model,
            "seed": call.seed % 2**63,
            address.limit: call.max_tokens,
            "temperature": call.temperature,
            **self._prompt(call),
            **config.sampling,
            **config.extra_body,
        }
        if config.thinking_budget is not None:
            body["thinking_token_budget"] = config.thinking_budget
            body[address.limit] += config.thinking_budget + END_OF_THINKING
        if address.vllm and config.priority:
            body["priority"] = call.priority
        if address.vllm and config.constrain != "none" and call.shape.regex is not None:
            body["structured_outputs"] = {"regex": call.shape.regex}
        return body | self._logprobs(call)

    def _prompt(self, call: Call) -> dict[str, Any]:
        if not self._config.chat:
            return {"prompt": f"{call.system}\n\n{call.user}"}
        messages = (("system", call.system), ("user", call.user))
        return {"messages": [{"role": role, "content": text} for role, text in messages]}

    def _logprobs(self, call: Call) -> dict[str, Any]:
        """Return the fields that request log-probabilities, if an expected rating is needed."""
        if not self._config.expected_rating or not isinstance(call.shape, Rating):
            return {}
        if not self._config.chat:
            return {"logprobs": LABELS_SHOWN}
        return {"logprobs": True, "top_logprobs": LABELS_SHOWN}

    def _check_status(self, address: Address, response: Response) -> None:
        """Raise the error that a status stands for; adapt the gate of the address."""
        status = response.status
        if status == 200:
            address.gate.succeeded()
            address.pace.answered()
            return
        if status == _LIMITED:
            address.limited(response.after)
        elif status in _OVERLOADED:
            address.gate.overloaded()
        message = self._key.hide(_error_message(response.body)) or "no reason given"
        if can_be_retried(status):
            problem = f"{address.url} answered {status}: {message}"
            busy = status == _LIMITED or status in _OVERLOADED
            raise Unavailable(problem, response.after, busy=busy)
        if status in _REFUSED:
            raise CallFailed(message)
        raise BackendDown(self._down_message(address, response))

    def _down_message(self, address: Address, response: Response) -> str:
        """Explain in one line why an address cannot be used, and what to do."""
        advice = {
            401: f"expected a valid API key in the variable {self._key.variable}",
            402: "expected an account with credit",
            403: f"expected an API key with access in the variable {self._key.variable}",
            404: "correct base_url (such as http://localhost:8000/v1), the model or the adapter",
        }.get(response.status, "see the log of the server")
        message = self._key.hide(_error_message(response.body)) or "no reason given"
        return f"openai: {address.url} answered {response.status} ({message}); {advice}"

    def _content(self, address: Address, response: Response) -> Mapping[str, Any]:
        """Parse the body of a response; it has at least one choice."""
        content = _parse_json(response.body)
        if content is None:
            raise Unavailable(f"{address.url} sent a reply that is not JSON")
        choices = _mapping(content).get("choices")
        if isinstance(choices, list) and choices:
            return _mapping(content)
        code = _mapping(_mapping(content).get("error")).get("code")
        if isinstance(code, int) and 400 <= code < 600:  # from a gateway
            self._check_status(address, response._replace(status=code))
        message = self._key.hide(_error_message(response.body))
        raise Unavailable(f"{address.url} sent a reply without choices: {message}")

    def _reply(self, call: Call, content: Mapping[str, Any]) -> Reply:
        choice = _mapping(content["choices"][0])
        finish_reason = choice.get("finish_reason")
        if finish_reason in _ABORTED:
            raise Unavailable(f"the server aborted the call ({finish_reason})")
        text, thinking = self._texts(choice)
        usage = _mapping(content.get("usage"))
        return Reply(
            text,
            finish_reason == "length",
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
            thinking if self._config.thinking else None,
            self._expected(call, choice, text if thinking else None),
        )

    def _texts(self, choice: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the reply, empty if missing, and the thinking before it."""
        message = _mapping(choice.get("message"))
        text = message.get("content") if self._config.chat else choice.get("text")
        thinking = message.get("reasoning") or message.get("reasoning_content")
        text = text if isinstance(text, str) else ""
        return text, thinking if isinstance(thinking, str) else None

    def _expected(self, call: Call, choice: Mapping[str, Any], reply: str | None) -> float | None:
        shape = call.shape
        if not self._config.expected_rating or not isinstance(shape, Rating):
            return None
        logprobs = _mapping(choice.get("logprobs"))
        tokens = _chat_tokens(logprobs) if self._config.chat else _completion_tokens(logprobs)
        if reply is not None:
            tokens = _without_thinking(tokens, reply)
        return expected_rating(tokens, shape.labels if shape.integer else ())

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


Config = OpenAIConfig
Backend = OpenAIBackend

Tokens = list[tuple[str, dict[str, float]]]
"""The tokens of a reply: the text of each, and the log-probability of each alternative."""


def _chat_tokens(logprobs: Mapping[str, Any]) -> Tokens:
    """Return the tokens of a chat completion."""
    tokens: Tokens = []
    for entry in map(_mapping, _list(logprobs.get("content"))):
        alternatives = [_mapping(item) for item in _list(entry.get("top_logprobs"))]
        pairs = [(item.get("token"), item.get("logprob")) for item in (*alternatives, entry)]
        tokens.append((str(entry.get("token", "")), _log_probabilities(pairs)))
    return tokens


def _completion_tokens(logprobs: Mapping[str, Any]) -> Tokens:
    """Return the tokens of a text completion."""
    columns = [_list(logprobs.get(key)) for key in ("tokens", "token_logprobs", "top_logprobs")]
    return [
        (str(text), _log_probabilities([*_mapping(alternatives).items(), (text, logprob)]))
        for text, logprob, alternatives in zip(*columns, strict=False)
    ]


def _log_probabilities(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    return {
        str(text): min(0.0, max(_MIN_LOGPROB, float(logprob)))
        for text, logprob in pairs
        if isinstance(logprob, int | float)
    }


def _without_thinking(tokens: Tokens, reply: str) -> Tokens:
    """Return the tokens of the reply, without those of the thinking before it."""
    line, joined = reply.strip().split("\n")[0], ""
    for start in range(len(tokens) - 1, -1, -1):
        joined = tokens[start][0] + joined
        if line in joined:
            return tokens[start:]
    return []


def _parse_json(body: bytes) -> Any:
    """Parse JSON; return None if it is invalid."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _served(content: Any) -> dict[str, str]:
    """Return the owner of each model that a server lists, by the model's name."""
    models = [_mapping(model) for model in _list(_mapping(content).get("data"))]
    return {str(model.get("id")): str(model.get("owned_by")) for model in models}


def _error_message(body: bytes) -> str:
    """Return the error message in a response."""
    content = _mapping(_parse_json(body))
    error = content.get("error", content)
    for mapping in (_mapping(error), content):
        for key in ("message", "detail"):
            if mapping.get(key):
                return str(mapping[key])
    return error if isinstance(error, str) else body.decode("utf-8", "replace")


def _requires_newer_limit(response: Response) -> bool:
    """Whether a server refuses the parameter `max_tokens`, and not only its value."""
    message = _error_message(response.body) if response.status == 400 else ""
    return _NEWER_LIMIT in message and "instead" in message


def _error_text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
