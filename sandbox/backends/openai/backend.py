"""Answers calls with one or more servers that have OpenAI's HTTP API.

Calls of one episode go to the same address, for its prefix cache, unless that address is paused
after a failure or much busier than another. The number of concurrent calls to an address adapts to
its load.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin

from agents.forms import Rating
from sandbox.backends.addresses import Address, asked_to_rest, choose, seconds_until_free
from sandbox.backends.base import BackendDown, Call, CallFailed, Reply, Unavailable
from sandbox.backends.expected_rating import expected_rating
from sandbox.backends.openai.client import MOST_RAW, Client, Response, where_to
from sandbox.backends.openai.config import OpenAIConfig, endpoint
from sandbox.backends.openai.constrain import (
    BY_OWNER,
    FIELDS,
    Constraint,
    Probe,
    described,
    probe_call,
    written,
)
from sandbox.backends.openai.logprobs import tokens_of, without_thinking
from sandbox.backends.openai.models import ModelList, model_list
from sandbox.backends.openai.request import (
    LEARNED_FROM,
    REFUSED,
    Habits,
    learn,
    refusal,
    request_body,
)
from sandbox.backends.openai.response import (
    ABORTED,
    Content,
    Said,
    as_list,
    as_mapping,
    error_message,
    parse_body,
    understand,
    usage_of,
)
from sandbox.backends.retries import can_be_retried, seconds_asked

START_SECONDS = 30.0
"""Timeout of listing the models of an address, in seconds."""

VERSION_SECONDS = 5.0
"""Timeout of asking an address for its version, in seconds."""

PROBE_SECONDS = 60.0
"""Longest timeout of a call that finds out what an address takes, in seconds."""

_PROBE_ATTEMPTS = 3
_LONGEST_PROBE_PAUSE = 10.0
_MOST_LESSONS = 10  # refusals of one call that may teach something
_LIMITED = 429  # too many requests
_OVERLOADED = frozenset((408, 503, 504, 529))
_PROBED = (Constraint.VLLM, Constraint.SGLANG, Constraint.JSON_SCHEMA)

_NO_MODEL = re.compile(
    r"(?:invalid|unknown|no such) model\b"
    r"|\bmodel\b.{0,80}\b(?:does not exist|doesn't exist|not found|is not served)",
    re.IGNORECASE,
)  # some servers and gateways refuse with 400 where 404 is meant

_log = logging.getLogger(__name__)


class _Answered(NamedTuple):
    """A response, with its JSON and the request."""

    response: Response
    content: Content
    body: Mapping[str, Any]


class OpenAIBackend:
    """Answers calls with one or more servers.

    Args:
        config: the settings.
        proxies: use those of the environment.
    """

    keeps_timeout = True

    def __init__(self, config: OpenAIConfig, *, proxies: bool = True) -> None:
        self._config = config
        self._addresses = [Address(url, config.max_in_flight) for url in config.addresses()]
        self._habits = {url: Habits() for url in config.addresses()}
        self._client = Client(config, proxies=proxies)
        self._nonce = secrets.token_hex(4)  # tells the episodes of runs apart

    @property
    def model(self) -> str:
        """The name of the model in the journal."""
        return self._config.model

    async def open(self) -> list[Address]:
        """Prepare requests, without sending any, and return the addresses.

        Raises:
            BackendDown: a variable, the certificates or a proxy cannot be used.
        """
        await self._client.open()
        return self._addresses

    def habits(self, address: Address) -> Habits:
        """Return what is known about the requests that an address takes."""
        return self._habits[address.url]

    async def start(self) -> None:
        """Check every address, and find out how its replies can be constrained.

        Raises:
            BackendDown: an address cannot be reached, refuses the key, or does not have the model.
        """
        checks = [self._check_address(address) for address in await self.open()]
        for error in await asyncio.gather(*checks, return_exceptions=True):
            if error is not None:
                raise error

    async def _check_address(self, address: Address) -> None:
        """Check that an address serves the model, and detect how its replies are constrained."""
        listed = await self.list_models(address)
        habits, constrain = self._habits[address.url], self._config.constrain
        habits.priority = listed is not None and "vllm" in listed.owners.values()
        if constrain != "vllm" and not habits.priority:
            address.gate.begin_narrow()
        if constrain != "auto":
            habits.constraint = Constraint(constrain)
        known = [] if listed is None else [BY_OWNER.get(one) for one in listed.owners.values()]
        kind = next((one for one in known if one is not None), None)
        if constrain == "auto" and kind is not None:
            habits.constraint = kind
        doubtful = listed is None or not listed.has(self._config.model)
        if listed is not None and doubtful:
            self._refuse_unlisted(address, listed)
        if constrain == "auto" and (kind is None or doubtful):
            habits.constraint = await self._find_constraint(address, kind)
        if constrain == "auto":
            _log.info("%s %s", address.url, described(habits.constraint))

    async def list_models(self, address: Address) -> ModelList | None:
        """List the models of an address; None if it has no list.

        Raises:
            BackendDown: it cannot be reached, or refuses the key.
        """
        url = endpoint(address.url, "models")
        _log.info("asking %s for its models (up to %g s)", address.url, START_SECONDS)
        try:
            async with asyncio.timeout(START_SECONDS):
                response = await self._client.request("GET", url)
        except OSError as error:
            raise BackendDown(self._client.down(error, address.url)) from None
        if response.status in (401, 402):
            raise BackendDown(self._down_message(address, response))
        listed = model_list(parse_body(response.body, response.charset).value)
        if response.status != 200 or listed is None or not listed.owners:
            what = "lists no models" if response.status == 200 else f"answered {response.status}"
            self._client.tell(f"{url} {what}: whether {self._config.model!r} is served is unknown")
            return None
        return listed

    async def environment(self) -> dict[str, Any]:
        """Tell the version of each server that has one at `/version`, as vLLM's has."""
        versions = await asyncio.gather(*(self._version(one) for one in self._addresses))
        return {"server versions": versions} if any(versions) else {}

    async def _version(self, address: Address) -> str | None:
        """The version of the server at an address; None if it does not tell."""
        try:
            async with asyncio.timeout(VERSION_SECONDS):
                response = await self._client.request("GET", urljoin(address.url, "/version"))
        except (OSError, BackendDown):
            return None
        found = as_mapping(parse_body(response.body, response.charset).value).get("version")
        return str(found)[:60] if response.status == 200 and isinstance(found, str) else None

    def _refuse_unlisted(self, address: Address, listed: ModelList) -> None:
        """Raise BackendDown if the list of a server that names all its models lacks the model."""
        names, model = self._client.hide(listed.words()), self._config.model
        if listed.is_whole():
            raise BackendDown(
                f"openai: {address.url} serves {names}, but not {model!r}; expected `model:` to be "
                + ("one that it serves" if len(listed.owners) > 1 else names)
            )
        self._client.tell(f"{address.url} lists {names}, but not {model!r}")

    async def _find_constraint(self, address: Address, known: Constraint | None) -> Constraint:
        """Find out how an address constrains replies, from replies to a few short calls.

        Raises:
            BackendDown: it refuses the key, or does not have the model.
        """
        _log.info(
            "asking %s how it constrains replies (up to %g s a call)",
            address.url,
            self._probe_seconds(),
        )
        for kind in (known,) if known else _PROBED:
            try:
                reply = await self.probe(address, kind)
            except Unavailable as error:
                why = str(error)
                self._client.tell(
                    f"{address.url}: how it constrains replies cannot be found out ({why})"
                )
                return known or Constraint.NONE
            if reply is not None and Probe().parse(reply.text, reply.cut).value is not None:
                return kind
        return Constraint.NONE

    async def probe(self, address: Address, kind: Constraint) -> Reply | None:
        """Send a short call whose reply shows whether it is constrained; None if it is refused.

        Raises:
            Unavailable: there is no reply.
            BackendDown: the address refuses the key, or does not have the model.
        """
        call = probe_call(self._config.temperature)
        habits = self._habits[address.url]
        for attempt in range(1, _PROBE_ATTEMPTS + 1):
            before, habits.constraint = habits.constraint, kind
            try:
                return await self.ask_at(call, address)
            except CallFailed:
                return None
            except Unavailable as error:
                if attempt == _PROBE_ATTEMPTS:
                    raise
                await asyncio.sleep(min(_LONGEST_PROBE_PAUSE, max(1.0, error.after)))
            finally:
                habits.constraint = before
        return None

    def _probe_seconds(self) -> float:
        return min(self._config.timeout or PROBE_SECONDS, PROBE_SECONDS)

    async def ask_at(self, call: Call, address: Address) -> Reply:
        """Answer a call at an address, outside its limit of concurrent calls.

        It raises what `answer` raises.
        """
        seconds = self._probe_seconds()
        try:
            async with asyncio.timeout(seconds):
                return await self._replied(call, address, fixed=True, alone=True)
        except TimeoutError:
            problem = f"{address.url}: no reply within {seconds:g} seconds"
            raise Unavailable(problem) from None

    async def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            CallFailed: the server refuses this prompt.
            Unavailable: the server cannot be reached, or is overloaded.
            BackendDown: the server refuses the key, or does not have the model.
        """
        address = await self._enter(call)
        try:
            replied = self._replied(call, address, self._config.constrain != "auto")
            reply = await address.request(replied, self._config.timeout)
        except Unavailable as error:
            address.failed(str(error), error.after)
            error.after = seconds_until_free(self._addresses)
            error.asked = asked_to_rest(self._addresses)
            raise
        except CallFailed:
            address.answered()
            raise
        address.answered()
        return reply

    async def _replied(
        self, call: Call, address: Address, fixed: bool, alone: bool = False
    ) -> Reply:
        """Send a call and read its reply; once more where a stop string may have ended a thought.

        Args:
            call: the call.
            address: where to send it.
            fixed: whether the config fixes how replies are constrained.
            alone: it is outside the address's limit of concurrent calls, and does not adapt it.

        Raises:
            Unavailable: there is no reply.
            CallFailed: the server refuses this prompt.
            BackendDown: the server refuses the key, or does not have the model.
        """
        reply, sent = await self._one_reply(call, address, fixed, alone)
        if reply.thinking is None or "stop" not in sent or "stop" in self._config.free_parameters():
            return reply
        self._habits[address.url].thinks = True
        self._client.tell(
            f"{address.url} sends thoughts, which stop strings would end, too: it gets none, and "
            "what follows one in a reply is cut off afterwards"
        )
        if reply.text.strip() and not reply.cut:
            return reply
        return (await self._one_reply(call, address, fixed, alone))[0]

    async def _one_reply(
        self, call: Call, address: Address, fixed: bool, alone: bool
    ) -> tuple[Reply, Mapping[str, Any]]:
        """Send a call and read its reply; return it with the body of the request."""
        answered = await self._sent(call, address, fixed)
        if not alone:
            self._adapt(address, answered.response)
        return self._reply(call, address, answered), answered.body

    async def _sent(self, call: Call, address: Address, fixed: bool) -> _Answered:
        """Send a call to an address; see `_send`.

        Raises:
            Unavailable: there is no response.
        """
        try:
            return await self._send(call, address, fixed)
        except OSError as error:
            problem = self._client.unreachable(error, address.url)
            raise Unavailable(f"{address.url}: {problem}") from None

    async def _send(self, call: Call, address: Address, fixed: bool) -> _Answered:
        """Send a call; send it again without what the server refuses."""
        url = endpoint(address.url, "chat/completions" if self._config.chat else "completions")
        habits = self._habits[address.url]
        body = request_body(self._config, habits, call)
        for _ in range(_MOST_LESSONS):
            response = await self._client.request("POST", url, body, self._session(call))
            content = parse_body(response.body, response.charset)
            response = _with_inner_status(response, content.value)
            if response.status not in LEARNED_FROM:
                break
            refused = refusal(content.value, response.body)
            learned = learn(habits, refused, body, fixed)
            if learned is not None:
                self._client.tell(f"{address.url} does not take {learned} ({refused.message})")
            again = request_body(self._config, habits, call)
            if again == body:
                break
            body = again
        return _Answered(response, content, body)

    def _session(self, call: Call) -> dict[str, str] | None:
        """The header by which a router keeps the calls of an episode together, if it is set."""
        name = self._config.session_header
        return None if name is None else {name: f"{self._nonce}-{call.name.episode}"}

    async def _enter(self, call: Call) -> Address:
        """Choose an address, and wait until its gate admits the call."""
        while True:
            address = choose(self._addresses, call.name.episode)
            if await address.enter(call.priority):
                return address

    def _adapt(self, address: Address, response: Response) -> None:
        """Adapt the limits of an address to the status of a response."""
        if response.status == 200:
            address.gate.succeeded()
            address.pace.answered()
        elif response.status == _LIMITED:
            address.limited(seconds_asked(response.headers, response.body))
        elif response.status in _OVERLOADED:
            address.gate.overloaded()

    def _check_status(self, address: Address, response: Response, content: Content) -> None:
        """Raise the error that a status stands for."""
        status = response.status
        if status == 200:
            return
        message = self._message(content, response)
        if can_be_retried(status):
            through = self._client.through(address.url)
            problem = f"{address.url}{through} answered {status}: {message}"
            busy = status == _LIMITED or status in _OVERLOADED
            after = seconds_asked(response.headers, response.body)
            raise Unavailable(problem, after, asked=after > 0, busy=busy)
        if status in REFUSED and not _NO_MODEL.search(message):
            raise CallFailed(message)
        raise BackendDown(self._down_message(address, response))

    def _message(self, content: Content, response: Response) -> str:
        message = error_message(content.value, response.body)
        return self._client.hide(message) or "no reason given"

    def _down_message(self, address: Address, response: Response) -> str:
        """Explain in one line why an address cannot be used, and what to do."""
        variable = self._config.api_key_env
        advice = {
            400: "correct the model or the adapter",
            401: f"expected a valid API key in the variable {variable}",
            402: "expected an account with credit",
            403: f"expected an API key with access in the variable {variable}",
            404: "correct base_url (such as http://localhost:8000/v1), the model or the adapter",
            405: "correct base_url (such as http://localhost:8000/v1)",
            407: "expected a proxy of the environment with its user: http://USER:PASSWORD@HOST:PORT",
        }.get(response.status, "see the log of the server")
        if 300 <= response.status < 400 and response.headers.get("Location"):
            moved = self._client.hide(where_to(response))
            advice = f"it redirects to {moved}: set base_url there if that is right"
        message = self._message(parse_body(response.body, response.charset), response)
        place = f"{address.url}{self._client.through(address.url)}"
        return f"openai: {place} answered {response.status} ({message}); {advice}"

    def _reply(self, call: Call, address: Address, answered: _Answered) -> Reply:
        """Read a reply; keep the response where it is not wholly understood."""
        self._check_status(address, answered.response, answered.content)
        content = self._choices(address, answered)
        said = understand(content)
        if said.reason in ABORTED:
            raise Unavailable(f"the server aborted the call ({said.reason})")
        usage = usage_of(content)
        limit = answered.body.get("max_tokens", answered.body.get("max_completion_tokens"))
        cut = said.is_truncated(usage.tokens_out, limit)
        if said.reason is None:
            self._client.tell(
                f"{address.url} does not tell why a reply ended: one below its limit of tokens "
                "counts as complete"
            )
        as_json = "response_format" in answered.body
        text = written(call.shape, said.text, cut) if as_json else said.text
        unclear = (*answered.content.unclear, *said.unclear)
        for problem in unclear:
            self._client.tell(
                f"{address.url} sent {problem}; a run keeps such a response with its call"
            )
        raw = None
        if unclear:
            whole = answered.response.body[: 4 * MOST_RAW].decode("utf-8", "replace")
            raw = self._client.conceal(whole)[:MOST_RAW]
        return Reply(
            text,
            cut,
            usage.tokens_in,
            usage.tokens_out,
            usage.cached,
            said.thinking,
            self._expected(call, said),
            raw,
            constrained=not FIELDS.isdisjoint(answered.body),
        )

    def _choices(self, address: Address, answered: _Answered) -> Mapping[str, Any]:
        """Return the content of a response that has at least one choice."""
        content = answered.content.value
        body = answered.response.body
        if content is None:
            start = self._client.hide(body[:600].decode("utf-8", "replace"))[:100]
            raise Unavailable(f"{address.url} sent a reply that is not JSON: {start!r}")
        if as_list(as_mapping(content).get("choices")):
            return as_mapping(content)
        message = self._message(answered.content, answered.response)
        raise Unavailable(f"{address.url} sent a reply without choices: {message}")

    def _expected(self, call: Call, said: Said) -> float | None:
        """Return the expected value of a rating, from the log-probabilities of its tokens."""
        shape = call.shape
        if not self._config.expected_rating or not isinstance(shape, Rating):
            return None
        tokens = tokens_of(said.choice, self._config.chat)
        if said.thinking:
            tokens = without_thinking(tokens, said.text)
        return expected_rating(tokens, shape.labels if shape.integer else ())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _with_inner_status(response: Response, content: Any) -> Response:
    """Return a response with the status that a gateway has put into its body, if it has."""
    mapping = as_mapping(content)
    code = as_mapping(mapping.get("error")).get("code")
    if response.status != 200 or mapping.get("choices") or not isinstance(code, int):
        return response
    return response._replace(status=code) if 400 <= code < 600 else response
