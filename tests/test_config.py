"""Configs and input files: valid ones are parsed, errors are one line with the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import small

from sandbox.config import QUICKSTART, Config, load_config
from sandbox.engine.run import prepare
from sandbox.sources import LONGEST, read_questions
from storage.errors import InputError


def _fails(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(InputError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("wrold.size=3", ("wrold", "unknown key")),
        ("world.sizes=3", ("world.sizes", "unknown key")),
        ("world.size=big", ("world.size", '"big"', "a whole number")),
        ("world.size=0", ("world.size", "found 0", "agents a side, 1 to 1,000")),
        ("world.size=2.5", ("world.size", "2.5")),
        ("world.radius=0", ("world.radius", "found 0", "more than 0")),
        ("world.radius=0.5", ("world.radius", "reaches nobody")),
        ("world.kind=moon", ("world", "grid")),
        ("world.score_only=maybe", ("world.score_only", "bool")),
        ("world.demographics=saints", ("world.demographics", "all_good")),
        ("world.topology=nowhere.graphml", ("world.topology", "nowhere.graphml")),
        ("rounds=0", ("rounds", "found 0")),
        ("rounds=-3", ("rounds", "found -3")),
        ("seed=-1", ("seed", "found -1")),
        ("name=../evil", ("name", "../evil")),
        ("name=run.db", ("name", "run.db")),
        ("world.radius=.inf", ("world.radius", "finite")),
        ("world.radius=1e300", ("world.radius",)),
        ("models.social.latency={first_token: .inf, per_token: 0, capacity: 1}", ("first_token",)),
        ("world={size: 2}", ("--set world={size: 2}: world", "grid")),
        ("memory.threshold=3", ("memory.threshold", "found 3")),
        ("memory.threshold=0.3", ("memory.threshold", "found 0.3", "recall: threshold")),
        ("memory.recall=often", ("memory.recall", "nearest")),
        ("memory.top_k=0", ("memory.top_k: found 0",)),
        ("memory.embedder=bert", ("memory.embedder", "bert", "wordllama")),
        ("memory.keep=0", ("memory.keep: found 0",)),
        ("memory.prior_pairs=121", ("prior_pairs", "121")),
        ("models.social.backend=psychic", ("models.social", "psychic", "scripted")),
        ("models.social.misbehave=2", ("models.social.misbehave", "found 2")),
        ("schedule.order=random", ("schedule.order", "lock_step")),
        ("schedule.max_in_flight=0", ("schedule.max_in_flight", "found 0")),
        ("questions=missing.txt", ("questions", "missing.txt")),
        ("personas=missing.jsonl", ("personas", "missing.jsonl")),
        ("rounds", ("--set rounds", "a.b=value")),
        ("rounds=[", ("--set rounds=[", "YAML")),
        ("world=3", ("world",)),
        ("stop.rule=never", ("stop.rule",)),
    ],
)
def test_bad_settings(setting: str, words: tuple[str, ...]) -> None:
    _fails(lambda: prepare(small(setting)), *words)


def test_bad_files_name_the_file_and_the_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    data = yaml.safe_load(QUICKSTART.read_text())
    path.write_text(yaml.safe_dump(data | {"rounds": "many"}))
    _fails(lambda: load_config(path), str(path), "rounds", '"many"')
    path.write_text("rounds: [1\n")
    _fails(lambda: load_config(path), f"{path}:2", "not YAML")
    path.write_text("name: a\nname: b\n")
    _fails(lambda: load_config(path), f"{path}:2", "duplicate key name")
    path.write_text("name: &a [*a]")
    _fails(lambda: load_config(path), str(path))
    path.write_text("- a list")
    _fails(lambda: load_config(path), str(path), "mapping")
    path.write_bytes(b"\xff\xfe\x00")
    _fails(lambda: load_config(path), str(path), "UTF-8")
    _fails(lambda: load_config(tmp_path), str(tmp_path), "cannot be read")
    path.write_text("name: x\nworld: {kind: grid}\nmodels: {}\n")
    _fails(lambda: load_config(path), "questions", "missing")


def test_paths_are_relative_to_the_file_or_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, word in ((here, "here"), (there, "there")):
        folder.mkdir()
        (folder / "q.txt").write_text(f"Is it {word}?\n")
    data = yaml.safe_load(QUICKSTART.read_text())
    data |= {"questions": "q.txt", "memory": {}}
    (there / "config.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(here)
    assert load_config(there / "config.yaml").questions == there / "q.txt"
    assert load_config(there / "config.yaml", ["questions=q.txt"]).questions == here / "q.txt"


def test_keys_for_anchors_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text(
        "x-model: &m {backend: scripted, max_tokens: 99}\nname: a\nquestions: q.txt\n"
        "world: {kind: grid}\nmodels: {social: *m, observer: {<<: *m, max_tokens: 7}}\n"
    )
    config = load_config(path)
    tokens = [settings.model_dump()["max_tokens"] for _, settings in config.models.roles()]
    assert tokens == [99, 7]
    path.write_text(path.read_text().replace("x-model", "model"))
    _fails(lambda: load_config(path), "model")


def test_a_stored_config_is_equal() -> None:
    config = small("stop.patience=2", "memory.keep=30", "world.reach=global")
    assert Config.from_json(config.as_json()) == config


FORMATS = {
    "q.txt": "One?\n\n  Two? \n",
    "q.jsonl": '{"question": "One?"}\n\n{"prompt": "Two?", "id": 3}\n',
    "q.csv": 'id,question\n1,One?\n2,"Two?"\n',
}


@pytest.mark.parametrize("name", FORMATS)
def test_question_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[name])
    assert [question.text for question in read_questions(path)] == ["One?", "Two?"]
    assert read_questions(path)[1].source == f"{name}:3"
    assert len(read_questions(path, limit=1)) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_byte_order_marks_are_removed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[name], encoding="utf-8-sig")
    assert [question.text for question in read_questions(path)] == ["One?", "Two?"]


def test_questions_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"id": [1, 2], "question": ["One?", "Two?"]}), path)
    assert [question.text for question in read_questions(path)] == ["One?", "Two?"]


def test_bad_question_files(tmp_path: Path) -> None:
    def fails(name: str, content: bytes, *words: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        _fails(lambda: read_questions(path), name, *words)

    fails("empty.txt", b"", "no question")
    fails("blank.txt", b"\n \n", "no question")
    fails("binary.txt", bytes(range(256)), ":1", "control characters")
    fails("latin.txt", b"Fine?\nSch\xf6n?\n", ":2", "UTF-8")
    fails("control.txt", b"Hello\x07?\n", ":1", "control characters")
    fails("long.txt", b"Fine?\n" + b"x" * 100_000, ":2", "100,000", f"{LONGEST:,}")
    fails("q.jsonl", b'{"question": "a"}\n{"question": 3}\n', ":2", "found 3")
    fails("q2.jsonl", b"nonsense\n", ":1", "not JSON")
    fails("q3.jsonl", b'{"text": ""}\n', ":1")
    fails("q4.jsonl", b'{"title": "a"}\n', ":1", "title", "question")
    fails("q.csv", b"title\nx\n", ":1", "title", "question")
    fails("q.parquet", b"PAR1 not really", "not Parquet")
    fails("q.docx", b"x", ".docx", ".jsonl")
    _fails(lambda: read_questions(tmp_path / "none.txt"), "none.txt", "No such file")


def test_bad_personas_and_pairs(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"name": "Ada"}\n')
    _fails(lambda: prepare(small(f"personas={path}")), f"{path}:1", "age")
    path.write_text('{"question": "q", "answer": "a", "label": "ugly"}\n')
    _fails(lambda: prepare(small(f"memory.prior={path}")), f"{path}:1", "label")


def test_prompt_templates_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "forms.yaml"
    path.write_text("draft: {user: '<question>{{ question }}</question> {{ me }}'}\n")
    forms = prepare(small(f"forms={path}")).forms
    assert forms["draft"].user.startswith("<question>{{")
    assert "small society" in forms["draft"].system
    path.write_text("daft: {user: x}\n")
    _fails(lambda: prepare(small(f"forms={path}")), "daft", "draft, rate")
    path.write_text("draft: {user: '{% if %}'}\n")
    _fails(lambda: prepare(small(f"forms={path}")), "form draft")
    for template in ("{{ nope }}", "{{ 1 / 0 }}", "{% if not past %}{{ nope }}{% endif %}",
                     "{{ lipsum() }}", "{{ [1, 2] | random }}", "{% include 'x' %}",
                     "{{ question.__class__ }}", "{{ question + 1 }}"):  # fmt: skip
        path.write_text(yaml.safe_dump({"draft": {"user": template}}))
        _fails(lambda: prepare(small(f"forms={path}")), "form draft")
    path.write_text("draft: 3\n")
    _fails(lambda: prepare(small(f"forms={path}")), "draft", "system and user")


def test_a_password_in_an_address_is_not_shown() -> None:
    server = "models.social={backend: openai, base_url: 'http://me:hunter2@host', model: m}"
    with pytest.raises(InputError, match="api_key_env") as caught:
        small(server)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "models.social.base_url=http://me:s3cret@h",
            "--set models.social.base_url: models.social",
        ),
        (
            "models.social.api_key=s3cret",
            "--set models.social.api_key: models.social.api_key: unknown",
        ),
        ("models.social.api_key_env=sk-s3cret", "found a value that is not shown"),
        ("models.social.api_key s3cret", "expected a.b=value"),
        ("models.social.api_key=[s3cret", "expected a YAML value after ="),
    ],
)
def test_values_that_may_be_secret_are_redacted(setting: str, words: str) -> None:
    model = "models.social={backend: openai, model: m, base_url: http://h}"
    with pytest.raises(InputError) as error:
        prepare(small(model, setting))
    assert "s3cret" not in str(error.value).replace("api_key s3cret", "")
    assert words in str(error.value)


@pytest.mark.parametrize("address", ["localhost:8111", "ftp://x"])
def test_an_address_without_a_secret_is_shown(address: str) -> None:
    model = f"models.social={{backend: openai, model: m, base_url: '{address}'}}"
    _fails(lambda: small(model), f'found "{address}"', "http://localhost:8000/v1")


def test_an_unknown_key_suggests_the_nearest() -> None:
    _fails(lambda: small("models.social.misbehaves=1"), "did you mean misbehave?", "docs/models.md")
    _fails(lambda: small("wrold.size=3"), "did you mean world?", "docs/config.md")


def test_errors_name_the_option_that_set_the_key() -> None:
    setting = "world.radius=0.5"
    place = str(QUICKSTART)
    _fails(lambda: prepare(small(setting), place, [setting]), f"--set {setting}: world.radius")
    _fails(lambda: prepare(small(setting), place), f"{place}: world.radius")


def test_a_budget_without_thinking_names_its_model() -> None:
    model = "models.social={backend: openai, model: m, base_url: http://h, thinking_budget: 5}"
    _fails(lambda: small(model), "models.social: found", "thinking_budget without thinking")


def test_an_unknown_key_of_a_stored_config_is_named() -> None:
    stored = small().as_json()
    with pytest.raises(InputError, match=r"the stored config: zzz: unknown key; expected"):
        Config.from_json(stored.replace("{", '{"zzz": 1, ', 1))
    with pytest.raises(ValueError, match="Expecting value"):
        Config.from_json("no JSON")
