"""What a secret looks like, and that none is shown or stored; odd YAML; old Pythons."""

from __future__ import annotations

import ast
import json
import sqlite3
import time
from pathlib import Path

import pytest
from conftest import ROOT, Make, small
from program import program

from sandbox.datasets.card import public
from sandbox.reading.runs import about, open_run
from sandbox.yaml_values import NotYaml, parse_yaml
from storage.database import parse_url, place_of
from storage.errors import Damaged, InputError
from storage.secrets import hide_secrets, hide_values, is_secret, secret_key

SECRET = "S3CRET"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgres://bob:{SECRET}@h/d", "postgres://bob:***@h/d"),
        (f"postgres://bob:{SECRET}/x@y@h:5/d", "postgres://bob:***@h:5/d"),
        (f"postgres://bob:a {SECRET}@h/d", "postgres://bob:***@h/d"),
        (
            f"postgresql://h/d?password={SECRET}&sslmode=x",
            "postgresql://h/d?password=***&sslmode=x",
        ),
        (f"?sslpassword={SECRET}: no", "?sslpassword=***: no"),
        (f"https://{SECRET}@h/v1", "https://***@h/v1"),
        (f"http://h/v1?key={SECRET}", "http://h/v1?key=***"),
        (f"bob:{SECRET}@h", "bob:***@h"),
        (f"host=h password='{SECRET} x' user=u", "host=h password=*** user=u"),
        (f"a.extra_body.api_key={SECRET}", "a.extra_body.api_key=***"),
        (f'{{"extra_body": {{"api_key": "{SECRET}"}}}}', '{"extra_body": {"api_key": ***}}'),
        (f"({{api_key: {SECRET}}})", "({api_key: ***})"),
        (f"Bearer {SECRET}x", "Bearer ***"),
        (f"sk-proj-{SECRET}{SECRET}", "***"),
        ("models.social.api_key: unknown key", "models.social.api_key: unknown key"),
        ("http://localhost:8000/v1 max_tokens=5", "http://localhost:8000/v1 max_tokens=5"),
        ("postgresql://bob@h:5432/d#run", "postgresql://bob@h:5432/d#run"),
    ],
)
def test_secrets_in_texts_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_names_of_secrets() -> None:
    for name in ("api_key", "apiKey", "APIKEY", "X-Api-Key", "hf_token", "sslpassword", "key"):
        assert is_secret(name), name
    for name in ("max_tokens", "stop_token_ids", "eos_token", "tokenizer", "monkey", "api_key_env"):
        assert not is_secret(name), name


def test_hiding_takes_time_in_proportion_to_the_text() -> None:
    for piece in ("a://", "a://b:c", "a=", "{a:", "'", "a@"):
        began = time.process_time()
        hide_secrets(piece * 20_000)
        assert time.process_time() - began < 5


def test_values_are_hidden_in_data() -> None:
    data = {"a": [{"api_key": SECRET, "n": 3}], "headers": {"X": SECRET}, "u": f"a://b:{SECRET}@h"}
    assert hide_values(data) == {
        "a": [{"api_key": "***", "n": 3}],
        "headers": {"X": "***"},
        "u": "a://b:***@h",
    }
    assert secret_key({"a": {"api_key": SECRET}}) == ("a", "api_key")
    assert secret_key({"a": {"max_tokens": 3, "prompt_cache_key": "x"}}) is None


def test_addresses_of_databases_are_shown_without_passwords() -> None:
    url = parse_url(f"postgresql+psycopg://bob:{SECRET}@h/d?sslpassword={SECRET}")
    assert place_of(url) == "postgresql+psycopg://bob:***@h/d?sslpassword=***"
    for address in (f"postgresql://b:{SECRET}@h:x/d", f"host=h password={SECRET}", f"b:{SECRET}@h"):
        with pytest.raises(InputError) as error:
            parse_url(address)
        assert SECRET not in str(error.value)


def test_a_config_with_a_secret_is_refused() -> None:
    server = "models.social={backend: openai, model: m, base_url: 'http://h/v1', extra_body: "
    with pytest.raises(InputError, match=r"models\.social\.extra_body\.api_key: found what looks"):
        small(f"{server}{{api_key: {SECRET}}}}}")
    assert small(f"{server}{{top_k: 3, stop_token_ids: [1]}}}}").models.social.backend == "openai"


def test_stored_secrets_are_not_shown(make: Make) -> None:
    address, _ = make()
    with sqlite3.connect(str(address.url.database)) as connection:
        (text,) = connection.execute("SELECT config FROM runs").fetchone()
        config = json.loads(text)
        config["models"]["social"]["extra_body"] = {"api_key": SECRET}
        connection.execute("UPDATE runs SET config = ?", [json.dumps(config)])
    connection.close()
    with open_run(address) as reader:
        assert SECRET not in about(reader, address).config
    assert SECRET not in json.dumps(public(config))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "a.yaml", f"postgres://bob:{SECRET}@h/d"), "***"),
        (("run", "--db", f"postgres://bob:{SECRET}@h/d"), "postgres://bob:***@h/d"),
        (("status", f"postgresql://h:x/d?password={SECRET}"), "not a usable database URL"),
        (("run", "--set", f"models.social.extra_body.api_key={SECRET}"), "extra_body"),
        (("status", "x" * 5000), "xxx"),
        (("run", "--set", "seed=2001-13-45"), "invalid timestamp"),
        (("run", "--set", "seed=" + "[" * 900), "nested too deeply"),
        (("run", "/dev/zero"), "more than 1,000,000 bytes"),
        (("inspect", "quickstart", "agents", "--failures"), "--failures"),
    ],
)
def test_errors_are_one_line_without_secrets(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = program(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert words in done.stderr and SECRET not in done.stderr and len(done.stderr) < 2_100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2001-13-45", "invalid timestamp"),
        ("0x_", "invalid int"),
        ("!!float x", "invalid float"),
        ("[" * 900, "nested too deeply"),
        ("&a [*a]", "contains itself"),
        ("a: 1\na: 2", "duplicate key a"),
        ('"\\0"', "NUL"),
        ('"\\ud800"', "surrogate"),
        ("!!python/object:os.x {}", "constructor"),
        ("a\x07", "control character"),
    ],
)
def test_odd_yaml(text: str, reason: str) -> None:
    with pytest.raises(NotYaml, match=reason):
        parse_yaml(text)


def test_aliases_are_bounded() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        levels.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    began = time.process_time()
    with pytest.raises(NotYaml, match="more than 200,000 values"):
        parse_yaml("\n".join(levels))
    assert time.process_time() - began < 2
    merged = parse_yaml("c: &c {x: 1, y: 1}\nb: {<<: *c, x: 2}")
    assert merged["b"] == {"x": 2, "y": 1}


def test_the_script_can_be_read_by_old_pythons() -> None:
    text = (ROOT / "run_sim.py").read_text()
    ast.parse(text, feature_version=(3, 7))
    assert text.index("sys.version_info < (3, 11)") < text.index("from sandbox")


def test_an_error_is_one_line_without_secrets_wherever_it_is_shown() -> None:
    cause = "Invalid data\r\nat postgres:/bob:S3CRET@h/d\u2028or http:/h/v1?key=S3CRET"
    line = "Invalid data at postgres:/bob:***@h/d or http:/h/v1?key=***"
    assert str(InputError(cause)) == str(Damaged(cause)) == line
