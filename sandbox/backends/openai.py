"""Language models on servers that speak OpenAI's HTTP interface.

One backend can use several addresses. Calls of one episode go to the same address, whose prefix
cache holds what they share, unless that address rests after a failure or has much more to do than
another. How many calls an address gets at once follows from how it copes with them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from agents.forms import Rating
from sandbox.backends.addresses import Address, choose
from sandbox.backends.asking import CONNECT_SECONDS, Key, can_be_retried, retry_seconds
from sandbox.backends.base import (
    BackendDown,
    Call,
    CallFailed,
    FreeParameters,
    LanguageModelSettings,
    Reply,
    Unavailable,
)
from sandbox.backends.expected import LABELS_SHOWN, expected_rating

if TYPE_CHECKING:
    import aiohttp

MODELS_SECONDS = 30.0
"""How long an address may take to list its models."""

KEEPALIVE_SECONDS = 4.0
"""How long an idle connection is kept: less than vLLM's server keeps it, which is 5 seconds."""

END_OF_THINKING = 64
"""Tokens between the end of a thinking budget and the answer."""

_REFUSED = frozenset((400, 413, 422))
_OVERLOADED = frozenset((408, 429, 503, 504))
_NEWER_LIMIT = "max_completion_tokens"  # OpenAI's newer models; many servers know the old alone
_GIVEN_UP = frozenset(("abort", "error"))  # what was said is not all that there was to say
_LEAST_LOGPROB = -700.0  # servers write -9999 or less for what has next to no probability


class OpenAIConfig(LanguageModelSettings):
    """Settings of servers that speak OpenAI's HTTP interface.

    Attributes:
        base_url: one address or several; `/v1` is added to one without a path.
        api_key_env: the environment variable that holds the key, if the server wants one.
        constrain: whether replies are held to a form's regular expression, which only vLLM's server
            can do; `auto` asks the server whether it is one.
        chat: whether prompts go through the model's chat template; false for a base model, which
            gets the two messages as plain text.
        max_in_flight: the most calls that an address gets at once.
        extra_body: further fields of each request.
        thinking: for reasoning models: keep what the model thought.
        thinking_budget: tokens that it may think for, on top of those for the answer; null leaves
            it to the server, and the tokens for the answer are then all there are.
        priority: send each call's priority; for a vLLM started with `--scheduling-policy priority`.
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
        addresses = [_address(one) for one in _several(value)]
        if not addresses or len(set(addresses)) < len(addresses):
            raise ValueError("one address or several, each once")
        return value

    @model_validator(mode="after")
    def _budget_needs_thinking(self) -> OpenAIConfig:
        if self.thinking_budget is not None and not self.thinking:
            raise ValueError("thinking_budget without thinking: true")
        return self

    def addresses(self) -> tuple[str, ...]:
        """The addresses, each as what the paths of the interface are added to."""
        return tuple(_address(one) for one in _several(self.base_url))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _address(text: str) -> str:
    """An address, checked. No error message repeats it: it may hold a password."""
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


class Answer(NamedTuple):
    """What a server sent back: the status, the header Retry-After, and the body."""

    status: int
    retry_after: str | None
    body: bytes


class OpenAIBackend:
    """Answers calls with one server or several."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._addresses = [Address(url, config.max_in_flight) for url in config.addresses()]
        self._key = Key(config.api_key_env, "")
        self._session: aiohttp.ClientSession | None = None

    @property
    def model(self) -> str:
        """The name under which the journal records who spoke."""
        return self._config.model

    async def start(self) -> None:
        """Ask every address whether it serves the model.

        Raises:
            BackendDown: one cannot be reached, or does not serve it.
        """
        self._key = Key.read(self._config.api_key_env)
        import aiohttp  # here, since it takes long to import

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            headers=self._key.headers(),
        )
        looks = [self._look_at(one) for one in self._addresses]
        for problem in await asyncio.gather(*looks, return_exceptions=True):
            if problem is not None:
                raise problem

    async def _look_at(self, address: Address) -> None:
        """Make sure that an address serves the model, and find out whether it is vLLM's server."""
        content = await self._models(address)
        if not isinstance(_mapping(content).get("data"), list):
            raise BackendDown(
                f"openai: {address.url}/models is no list of models; expected base_url to be that "
                "of a server with OpenAI's interface, such as http://localhost:8000/v1"
            )
        served = _served(content)
        if self._config.model not in served:
            names = self._key.hide(", ".join(served))
            expected = f"one of {names}" if names else "a model that it serves, and it serves none"
            raise BackendDown(
                f"openai: {address.url} does not serve {self._config.model!r}; "
                f"expected `model:` to be {expected}"
            )
        address.vllm = self._config.constrain == "vllm" or "vllm" in served.values()

    async def _models(self, address: Address) -> Any:
        import aiohttp

        try:
            async with asyncio.timeout(MODELS_SECONDS):
                answer = await self._request("GET", f"{address.url}/models")
        except (aiohttp.ClientError, OSError) as error:
            raise BackendDown(
                f"openai: {address.url} cannot be reached ({self._key.hide(_why(error))}); "
                "start the server, or correct base_url"
            ) from None
        if answer.status != 200:
            raise BackendDown(self._down(address, answer))
        return _read(answer.body)

    async def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        assert self._session is not None
        async with self._session.request(method, url, json=body, allow_redirects=False) as response:
            retry_after = response.headers.get("Retry-After")
            return Answer(response.status, retry_after, await response.read())

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: the server does not take this prompt, or the reply holds no answer.
            Unavailable: the server cannot be reached, or is overloaded.
            BackendDown: the server refuses the key, or does not know the model.
        """
        import aiohttp

        address = await self._enter(call)
        try:
            async with address.place():
                answer = await self._ask(call, address)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{address.url}: {self._key.hide(_why(error))}") from None
        address.reached()
        self._check(address, answer)
        return self._reply(call, self._content(address, answer))

    async def _ask(self, call: Call, address: Address) -> Answer:
        """Send a call, and once more if the server turns out to want the limit's newer name."""
        url = f"{address.url}/{'chat/completions' if self._config.chat else 'completions'}"
        body = self._body(call, address)
        answer = await self._request("POST", url, body)
        if _NEWER_LIMIT not in body and _wants_newer_limit(answer):
            address.limit = _NEWER_LIMIT
            answer = await self._request("POST", url, self._body(call, address))
        return answer

    async def _enter(self, call: Call) -> Address:
        """Wait for a place at an address that is in use."""
        while True:
            address = choose(self._addresses, call.name.episode)
            await address.gate.enter(call.priority)
            if not address.resting():
                return address
            address.gate.leave()

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
        return body | self._labels(call)

    def _prompt(self, call: Call) -> dict[str, Any]:
        if not self._config.chat:
            return {"prompt": f"{call.system}\n\n{call.user}"}
        said = (("system", call.system), ("user", call.user))
        return {"messages": [{"role": role, "content": text} for role, text in said]}

    def _labels(self, call: Call) -> dict[str, Any]:
        """Ask for the alternatives to each token, where an expected rating is wanted."""
        if not self._config.expected_rating or not isinstance(call.shape, Rating):
            return {}
        if not self._config.chat:
            return {"logprobs": LABELS_SHOWN}
        return {"logprobs": True, "top_logprobs": LABELS_SHOWN}

    def _check(self, address: Address, answer: Answer) -> None:
        """Tell what a status means for the call, and for the address."""
        status = answer.status
        if status == 200:
            address.gate.succeeded()
            return
        if status in _OVERLOADED:
            address.gate.overloaded()
        message = self._key.hide(_message(answer.body)) or "no reason given"
        if can_be_retried(status):
            problem = f"{address.url} answered {status}: {message}"
            raise Unavailable(problem, retry_seconds(answer.retry_after))
        if status in _REFUSED:
            raise CallFailed(message)
        raise BackendDown(self._down(address, answer))

    def _down(self, address: Address, answer: Answer) -> str:
        """What to do about an address that answers nothing any more, in one line."""
        advice = {
            401: f"put the key that it expects into the variable {self._key.variable}",
            402: "its account wants to be paid first",
            403: f"the key in the variable {self._key.variable} may not do this",
            404: "correct base_url (such as http://localhost:8000/v1), the model or the adapter",
        }.get(answer.status, "see what the server says about it")
        message = self._key.hide(_message(answer.body)) or "no reason given"
        return f"openai: {address.url} answered {answer.status} ({message}); {advice}"

    def _content(self, address: Address, answer: Answer) -> Mapping[str, Any]:
        """The body of a reply, with at least one choice in it."""
        content = _read(answer.body)
        if content is None:
            raise Unavailable(f"{address.url} sent a reply that is not JSON")
        choices = _mapping(content).get("choices")
        if isinstance(choices, list) and choices:
            return _mapping(content)
        code = _mapping(_mapping(content).get("error")).get("code")
        if isinstance(code, int) and 400 <= code < 600:  # as gateways send them
            self._check(address, answer._replace(status=code))
        message = self._key.hide(_message(answer.body))
        raise Unavailable(f"{address.url} sent a reply without choices: {message}")

    def _reply(self, call: Call, content: Mapping[str, Any]) -> Reply:
        choice = _mapping(content["choices"][0])
        ended = choice.get("finish_reason")
        if ended in _GIVEN_UP:
            raise Unavailable(f"the server gave the call up ({ended})")
        text, thinking = self._said(choice)
        usage = _mapping(content.get("usage"))
        return Reply(
            text,
            ended == "length",
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
            thinking if self._config.thinking else None,
            self._expected(call, choice, text if thinking else None),
        )

    def _said(self, choice: Mapping[str, Any]) -> tuple[str, str | None]:
        """The answer and the thinking before it; an answer that never came is empty."""
        message = _mapping(choice.get("message"))
        text = message.get("content") if self._config.chat else choice.get("text")
        thinking = message.get("reasoning") or message.get("reasoning_content")
        text = text if isinstance(text, str) else ""
        return text, thinking if isinstance(thinking, str) else None

    def _expected(self, call: Call, choice: Mapping[str, Any], answer: str | None) -> float | None:
        shape = call.shape
        if not self._config.expected_rating or not isinstance(shape, Rating):
            return None
        logprobs = _mapping(choice.get("logprobs"))
        tokens = _chat_tokens(logprobs) if self._config.chat else _plain_tokens(logprobs)
        if answer is not None:
            tokens = _from_answer(tokens, answer)
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
    """The tokens of a chat's reply."""
    tokens: Tokens = []
    for entry in map(_mapping, _list(logprobs.get("content"))):
        shown = [_mapping(one) for one in _list(entry.get("top_logprobs"))]
        pairs = [(one.get("token"), one.get("logprob")) for one in (*shown, entry)]
        tokens.append((str(entry.get("token", "")), _probabilities(pairs)))
    return tokens


def _plain_tokens(logprobs: Mapping[str, Any]) -> Tokens:
    """The tokens of a completion."""
    columns = [_list(logprobs.get(key)) for key in ("tokens", "token_logprobs", "top_logprobs")]
    return [
        (str(text), _probabilities([*_mapping(shown).items(), (text, logprob)]))
        for text, logprob, shown in zip(*columns, strict=False)
    ]


def _probabilities(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    return {
        str(text): min(0.0, max(_LEAST_LOGPROB, float(logprob)))
        for text, logprob in pairs
        if isinstance(logprob, int | float)
    }


def _from_answer(tokens: Tokens, answer: str) -> Tokens:
    """The tokens from where the answer begins, without those of the thinking before it."""
    line, joined = answer.strip().split("\n")[0], ""
    for place in range(len(tokens) - 1, -1, -1):
        joined = tokens[place][0] + joined
        if line in joined:
            return tokens[place:]
    return []


def _read(body: bytes) -> Any:
    """The content of a body; None where it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _served(content: Any) -> dict[str, str]:
    """Who owns each model that a server lists, by the model's name."""
    models = [_mapping(one) for one in _list(_mapping(content).get("data"))]
    return {str(one.get("id")): str(one.get("owned_by")) for one in models}


def _message(body: bytes) -> str:
    """What a server says is wrong."""
    content = _mapping(_read(body))
    error = content.get("error", content)
    for place in (_mapping(error), content):
        for key in ("message", "detail"):
            if place.get(key):
                return str(place[key])
    return error if isinstance(error, str) else body.decode("utf-8", "replace")


def _wants_newer_limit(answer: Answer) -> bool:
    """Whether a server refuses `max_tokens` by name; not that it finds the number too large."""
    message = _message(answer.body) if answer.status == 400 else ""
    return _NEWER_LIMIT in message and "instead" in message


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
