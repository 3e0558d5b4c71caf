"""Embeddings by a model: over HTTP from a small server, and by a real vLLM."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp import web

from sandbox.backends import embedding
from sandbox.backends.embedding import (
    OpenAIEmbedder,
    OpenAIEmbedderConfig,
    VllmEmbedder,
    VllmEmbedderConfig,
)
from sandbox.config import QUICKSTART, Config, load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.study.fork import fork
from sandbox.study.verify import verify
from storage import database, tables
from storage.errors import InputError
from storage.reader import Reader
from tests.conftest import ROOT, missing, small

KEY = "sk-very-secret"
Handler = Callable[[list[str], int], web.Response]


def vectors(texts: list[str], dim: int = 8) -> list[list[float]]:
    """A vector for each text that follows from the text alone, and is not of unit length."""
    return [[float(len(text)), *(float(ord(char)) for char in text[: dim - 1].ljust(dim - 1))]
            for text in texts]  # fmt: skip


def reply(texts: list[str], dim: int = 8) -> web.Response:
    """A proper reply, out of order."""
    data = [{"index": n, "embedding": one} for n, one in enumerate(vectors(texts, dim))]
    return web.json_response({"data": data[::-1]})


class Server:
    """A real server for embeddings, in a thread; `handler` gets the texts and the request's number.

    Attributes:
        bodies: what was posted.
        keys: the Authorization header of each request.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.handler: Handler = lambda texts, number: reply(texts)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/embeddings", self._post)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization"))
        return self.handler(body["input"], len(self.bodies))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def setting(self, model: str = "m") -> str:
        """The setting of a config that uses it."""
        embedder = {"backend": "openai", "base_url": self.url, "model": model}
        return f"memory.embedder={json.dumps(embedder)}"

    def embedder(self) -> OpenAIEmbedder:
        return OpenAIEmbedder(OpenAIEmbedderConfig(backend="openai", base_url=self.url, model="m"))

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has nothing to say against anything."""
    monkeypatch.setattr(embedding, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Server()
    yield made
    made.stop()


def test_vectors_come_in_batches_and_in_order(serving: Server) -> None:
    texts = [f"What is {n} plus {n}?" for n in range(600)]
    embedder = serving.embedder()
    found = embedder.embed(texts)
    assert sorted(len(body["input"]) for body in serving.bodies) == [88, 256, 256]
    assert set(serving.keys) == {f"Bearer {KEY}"}
    assert serving.bodies[0]["model"] == "m"
    assert found.dtype == np.float32
    assert (embedder.name, embedder.dim, embedder.threshold) == ("openai:m", 8, 0.3)
    wanted = np.array(vectors(texts))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_no_texts_need_no_model() -> None:
    nowhere = OpenAIEmbedderConfig(backend="openai", base_url="http://127.0.0.1:9", model="m")
    assert len(OpenAIEmbedder(nowhere).embed([])) == 0
    assert len(VllmEmbedder(VllmEmbedderConfig(backend="vllm", model="none")).embed([])) == 0


def test_beside_a_running_loop(serving: Server) -> None:
    async def notebook() -> int:
        return len(serving.embedder().embed(["a", "b"]))

    assert asyncio.run(notebook()) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(serving: Server, status: int) -> None:
    busy = web.Response
    serving.handler = lambda texts, number: (
        busy(status=status, headers={"Retry-After": "0.2"}) if number < 3 else reply(texts)
    )
    assert serving.embedder().embed(["a"]).shape == (1, 8)
    assert len(serving.bodies) == 3


BAD: list[tuple[Handler, str, int]] = [
    (lambda texts, _: web.Response(status=401, text=f"bad key\n {KEY}"), r"401: bad key \*\*\*", 1),
    (lambda texts, _: web.Response(status=404, text="no such model"), "404: no such model", 1),
    (
        lambda texts, _: web.Response(status=302, headers={"Location": "//b/"}),
        "answered 302",
        1,
    ),
    (lambda texts, _: web.Response(status=500, text="broken"), "500: broken", embedding.TRIES),
    (lambda texts, _: web.Response(text="<html>"), "without 2 embeddings", 1),
    (lambda texts, _: web.json_response({"data": []}), "without 2 embeddings", 1),
    (lambda texts, _: reply(texts[:1]), "without 2 embeddings", 1),
    (lambda texts, _: _data([1.0, 2.0], [1.0]), "finite vectors of one length", 1),
    (lambda texts, _: _data([1.0, float("nan")], [1.0, 1.0]), "finite vectors", 1),
    (lambda texts, _: _data([], []), "finite vectors of one length", 1),
    (lambda texts, _: _data("AAAA", "AAAA"), "finite vectors of one length", 1),
]


def _data(*found: Any) -> web.Response:
    return web.json_response({"data": [{"index": n, "embedding": v} for n, v in enumerate(found)]})


@pytest.mark.parametrize(("handler", "words", "requests"), BAD)
def test_what_goes_wrong_is_one_line(
    serving: Server, handler: Handler, words: str, requests: int, tmp_path: Path
) -> None:
    serving.handler = handler
    with pytest.raises(InputError, match=words) as error:
        serving.embedder().embed(["a", "b"])
    assert str(error.value).startswith("memory.embedder: ")
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    assert len(serving.bodies) == requests
    with pytest.raises(InputError):
        create(prepare(small(serving.setting())), str(tmp_path / "run.db"))
    assert not (tmp_path / "run.db").exists()


def test_a_server_that_is_not_there(serving: Server) -> None:
    embedder = serving.embedder()
    serving.stop()
    with pytest.raises(InputError, match=r"^memory.embedder: .* cannot be reached: "):
        embedder.embed(["a"])


def test_a_run_remembers_its_model(serving: Server, tmp_path: Path) -> None:
    settings = (serving.setting(), "question_count=null", "rounds=2")
    address = create(prepare(small(*settings, "name=short")), str(tmp_path / "short.db"))
    resume(address)
    more = resume(address, rounds=3)
    long = create(prepare(small(*settings, "rounds=3", "name=long")), str(tmp_path / "long.db"))
    assert resume(long).digest == more.digest
    assert verify(long).agrees
    forked = fork(address, 1, db=str(tmp_path / "fork.db"), rounds=4)
    assert resume(forked).status == "done"
    engine = database.open_for_reading(forked.url)
    run = Reader.find(engine, None, "fork").run
    assert (run.embedder, run.threshold) == ("openai:m", 0.3)
    engine.dispose()


def test_another_model_is_never_mixed_in(serving: Server, tmp_path: Path) -> None:
    settings = (serving.setting(), "question_count=null", "rounds=1")
    address = create(prepare(small(*settings)), str(tmp_path / "run.db"))
    before = resume(address)
    serving.handler = lambda texts, number: reply(texts, 9)
    with pytest.raises(InputError, match=r"found vectors of 9 numbers from .*; expected 8"):
        resume(address, rounds=2)
    for change, key in ((serving.setting("n"), "memory.embedder.model"),
                        ("memory.embedder=hashed", "memory.embedder")):  # fmt: skip
        with pytest.raises(InputError, match=f"^{key}: found .* the fork keeps"):
            fork(address, 0, [change], db=str(tmp_path / "fork.db"), rounds=2)
    with database.writing(address.url) as engine, engine.begin() as connection:
        connection.execute(tables.runs.update().values(embedder="openai:older"))
    with pytest.raises(InputError, match="found openai:m; expected openai:older"):
        resume(address, rounds=2)
    assert resume(address).digest == before.digest
    assert [path.name for path in tmp_path.glob("*.db")] == ["run.db"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "{backend: psychic, model: m}",
            "wordllama, hashed, or a mapping with backend: vllm, openai or model2vec",
        ),
        ("cosine", "hashed, or a mapping"),
        ("3", "hashed, or a mapping"),
        ("{backend: openai, model: m}", "base_url: missing"),
        ("{backend: openai, model: m, base_url: nowhere}", "an address such as http"),
        ("{backend: vllm}", "memory.embedder.model: missing"),
        ("{backend: vllm, model: m, base_url: x}", "memory.embedder.base_url: unknown key"),
        ("{backend: vllm, model: m, extra: {runner: draft}}", "no runner"),
        ("{backend: vllm, model: ./nothing-here}", "memory.embedder.(model|backend): found"),
    ],
)
def test_bad_settings(setting: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        prepare(small(f"memory.embedder={setting}"))
    assert "\n" not in str(error.value)


def test_a_setting_survives_storing(serving: Server) -> None:
    for setting in (serving.setting(), "memory.embedder={backend: vllm, model: m, extra: {a: 1}}"):
        config = small(setting)
        assert Config.from_json(config.as_json()) == config


def test_paths_of_models_are_relative_to_the_file_or_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    data = yaml.safe_load(QUICKSTART.read_text()) | {"questions": "q.txt"}
    vllm = {"backend": "vllm", "model": "./m", "chat_template": "t.jinja", "adapters": {"a": "b"}}
    hub = {"backend": "vllm", "model": "org/m"}
    served = {"backend": "openai", "model": "./m", "base_url": "http://localhost:1"}
    groups = {"g": {"model": vllm | {"model": "../m"}, "share": 0.5}}
    data["models"] = {"social": dict(vllm), "observer": hub, "groups": groups}
    data["memory"] = {"embedder": {"backend": "vllm", "model": "./e"}}
    (there / "c.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(here)

    def models(*settings: str) -> dict[str, Any]:
        loaded = load_config(there / "c.yaml", settings)
        embedder: Any = loaded.memory.embedder
        return {**dict(loaded.models.roles()), "embedder": embedder}

    found = models()
    assert found["social"].model == str(there / "m")
    assert found["social"].chat_template == there / "t.jinja"
    assert found["social"].adapters == {"a": there / "b"}
    assert found["g"].model == str(tmp_path / "m")
    assert found["observer"].model == "org/m"
    assert found["embedder"].model == str(there / "e")
    found = models(
        f"models.observer={json.dumps(vllm)}",
        "models.social.adapters.x=y",
        "models.groups.g.model.model=~/m",
        "memory.embedder.model=./f",
    )
    assert found["observer"].model == str(here / "m")
    assert found["observer"].adapters == {"a": here / "b"}
    assert found["social"].adapters == {"a": there / "b", "x": here / "y"}
    assert found["g"].model == str(Path.home() / "m")
    assert found["embedder"].model == str(here / "f")
    assert models(f"models.observer={json.dumps(served)}")["observer"].model == "./m"


def test_settings_that_hold_themselves(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("models: &a {social: *a}\n")
    with pytest.raises(InputError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model for a vLLM that is installed."""
    if importlib.util.find_spec("vllm") is None:
        missing("vLLM is not installed: see the README", "vllm")
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny_model.py"), folder], check=True)
    return folder / "model"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and little memory."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.mark.usefixtures("quiet")
def test_a_run_with_vllm(tiny: Path, tmp_path: Path) -> None:
    extra = {"dtype": "float32", "max_model_len": 2048}
    setting = {"backend": "vllm", "model": str(tiny), "extra": extra}
    config = small(f"memory.embedder={json.dumps(setting)}")
    address = create(prepare(config), str(tmp_path / "run.db"))
    assert resume(address).status == "done"
    embedder = VllmEmbedder(VllmEmbedderConfig(backend="vllm", model=str(tiny), extra=extra))
    assert embedder.name == f"vllm:{tiny}"
    first = embedder.embed(["How do I bake bread?", "Why is the sky blue?"])
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert abs(first[0] @ first[1]) < 0.999


@pytest.mark.usefixtures("quiet")
def test_a_vllm_that_cannot_embed(tiny: Path, tmp_path: Path) -> None:
    def fails(setting: dict[str, Any], words: str) -> None:
        config = small(f"memory.embedder={json.dumps({'backend': 'vllm', **setting})}")
        with pytest.raises(InputError, match=words) as error:
            create(prepare(config), str(tmp_path / "run.db"))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run.db").exists()

    fails({"model": str(tiny / "none")}, r"memory\.embedder\.model: found .*which does not exist")
    fails(
        {"model": str(tiny), "extra": {"wrong": 1}},
        r"memory\.embedder\.extra\.wrong: unknown or reserved",
    )
    fails(
        {"model": str(tiny), "extra": {"max_model_len": 10**6}}, r"embedder\.extra: refused by vLLM"
    )
    torn = tmp_path / "torn"
    shutil.copytree(tiny, torn)
    (torn / "model.safetensors").write_bytes(b"torn")
    fails({"model": str(torn)}, "cannot embed: .*log: ")
