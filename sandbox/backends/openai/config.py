"""Settings of servers with OpenAI's HTTP API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from sandbox.backends.base import FreeParameters, LanguageModelSettings
from storage.secrets import is_secret

VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)|(\$))")
"""``$NAME`` or ``${NAME}`` in the value of a header; ``$$`` is a dollar sign."""

DEFAULT_KEY = "OPENAI_API_KEY"
"""The variable with the API key, unless another one is named."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(("host", "content-type", "content-length", "transfer-encoding"))
_SECRET_QUERIES = frozenset(("sig", "signature", "code"))  # besides those of `is_secret`
_ENDPOINTS = re.compile(
    r"/(?:(?:chat/)?completions|embeddings|responses|(?<=/v1/)models)/*\Z", re.IGNORECASE
)
"""Ends of the addresses of single requests, which are not the base address of the API."""

_ADDRESS = "an address such as http://localhost:8000/v1"


class ServerSettings(BaseModel):
    """Settings of a connection to a server.

    Attributes:
        api_key_env: the environment variable with the API key, if the server needs one.
        headers: additional headers of each request; ``$NAME`` in a value is replaced by an
            environment variable, so that no secret is stored.
        ca_file: a PEM file with the certificates to trust, in place of the system's.
    """

    transport: ClassVar[tuple[str, ...]] = ("api_key_env", "headers", "ca_file")

    api_key_env: str = Field(default=DEFAULT_KEY, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    headers: dict[str, str] = Field(default_factory=dict)
    ca_file: Path | None = None

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError("names of headers that the program does not set itself")
            if not (text.isascii() and text.isprintable()):
                raise ValueError("values of printable ASCII characters")
            if is_secret(name) and not VARIABLE.search(text):
                raise ValueError(
                    f"no secret, which would be stored: the NAME of a variable, {name}: $MY_KEY"
                )
        return value

    @field_validator("ca_file")
    @classmethod
    def _ca_file(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    def check(self) -> None:
        """Check that the file of certificates can be read.

        Raises:
            ValueError: it cannot; the message begins with the key.
        """
        import ssl

        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=str(self.ca_file))
            except (OSError, ssl.SSLError):
                raise ValueError(
                    f"ca_file: found {self.ca_file}; expected a PEM file with certificates"
                ) from None


class OpenAIConfig(LanguageModelSettings, ServerSettings):
    """Settings of servers with OpenAI's HTTP API.

    Attributes:
        base_url: one address or several; `/v1` is added to one without a path. A query string is
            appended to each request.
        constrain: constrain replies to the shape that their prompt template declares: by
            ``structured_outputs`` (vllm), by ``regex`` (sglang), or by ``response_format`` with a
            JSON schema (json_schema); `auto` finds out what the server takes.
        chat: use the model's chat template; false for a base model, which gets the two messages
            as plain text.
        max_in_flight: maximum number of concurrent calls to an address.
        extra_body: additional fields of each request; null drops a field.
        thinking: the model reasons before it answers; its thinking is stored in any case.
        thinking_budget: tokens for thinking, in addition to those of the reply; null for no
            budget: thinking and reply then share the tokens of the reply.
        priority: send the priority of each call; for a vLLM started with
            `--scheduling-policy priority`.
        session_header: a header with a word of the call's episode, by which a router sends its
            calls to one engine, whose prefix cache has what they share: `x-session-id`.
    """

    transport: ClassVar[tuple[str, ...]] = (
        *("base_url", "max_in_flight", "priority"),
        "session_header",
    )

    backend: Literal["openai"]
    base_url: str | tuple[str, ...]
    constrain: Literal["auto", "vllm", "sglang", "json_schema", "none"] = "auto"
    chat: bool = True
    max_in_flight: int = Field(default=256, ge=1)
    extra_body: FreeParameters = Field(default={})
    thinking: bool = False
    thinking_budget: int | None = Field(default=None, ge=1)
    priority: bool = False
    session_header: str | None = None

    @field_validator("session_header")
    @classmethod
    def _session_header(cls, value: str | None) -> str | None:
        if value is not None:
            if not _HEADER_NAME.fullmatch(value) or value.lower() in _OWN_HEADERS:
                raise ValueError("the name of a header that the program does not set itself")
            if is_secret(value):
                raise ValueError("the name of a header for a session, such as x-session-id")
        return value

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        addresses = [address_of(url) for url in _as_tuple(value)]
        if not addresses or len(set(addresses)) < len(addresses):
            raise ValueError("one or more addresses without duplicates")
        return value

    @model_validator(mode="after")
    def _budget_needs_thinking(self) -> OpenAIConfig:
        if self.thinking_budget is not None and not self.thinking:
            raise ValueError("thinking_budget without thinking: true")
        return self

    def check(self) -> None:
        """Check the file of certificates."""
        ServerSettings.check(self)

    def addresses(self) -> tuple[str, ...]:
        """Return the base URLs with their query strings; see `endpoint`."""
        return tuple(address_of(url) for url in _as_tuple(self.base_url))

    def free_parameters(self) -> dict[str, Any]:
        """Return the parameters that the config sets itself; None drops one."""
        return {**self.sampling, **self.extra_body}


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def endpoint(address: str, path: str) -> str:
    """Return the URL of a path of the API at an address, with the query string of the address."""
    base, mark, query = address.partition("?")
    return f"{base}/{path}{mark}{query}"


def address_of(text: str) -> str:
    """Validate a base URL. No error message repeats it, since it may contain a secret.

    Raises:
        ValueError: it is none, or contains a password, a key or a fragment.
    """
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(_ADDRESS) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(_ADDRESS)
    if "@" in parts.netloc:
        raise ValueError("an address without a user or password: a key belongs in api_key_env")
    if any(is_secret(name) or name.lower() in _SECRET_QUERIES for name, _ in query):
        raise ValueError(
            "an address without a key, which would be stored: headers: {NAME: $MY_KEY}, or "
            "api_key_env"
        )
    if parts.fragment or any(character.isspace() for character in text.strip()):
        raise ValueError("an address without # and spaces")
    ending = _ENDPOINTS.search(parts.path)
    if ending is not None:
        raise ValueError(f"the base address, without {ending[0]}, such as http://localhost:8000/v1")
    tail = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}{tail}"
