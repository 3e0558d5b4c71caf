"""Odd inputs, made from valid ones: configs, command lines, files; and what must hold for each.

An input is made from its kind and number alone, so that a failure is repeated by
``pytest tests/test_fuzz.py --fuzz 1 --fuzz-from NUMBER``.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import typer
import yaml
from conftest import ROOT
from program import program
from pydantic import BaseModel

from sandbox.backends.embedding import OpenAIEmbedderConfig
from sandbox.backends.openai import OpenAIConfig
from sandbox.backends.scripted import ScriptedConfig
from sandbox.backends.vllm_config import VllmConfig
from sandbox.cli.main import FAULT, LONGEST_MESSAGE, app
from sandbox.config import Config, MemoryConfig, PolicyConfig, ScaleConfig, Schedule
from worlds.base import world_of

SECRET = "S3CRETvalue"
LIMITS = 20, 3_000_000_000
"""CPU seconds and bytes of memory that an input may take."""

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "rounds": 1,
    "questions": "q.txt",
    "question_count": 2,
    "personas": "personas.jsonl",
    "world": {"kind": "grid", "size": 2, "raters": 2},
    "memory": {"prior": "pairs.jsonl", "prior_pairs": 2},
    "models": {"social": {"backend": "scripted"}, "observer": {"backend": "scripted"}},
}

SCENE = TINY | {"world": {"kind": "scene", "cast": "invented", "scenes": 2, "steps": 1}}
PERSONAL = TINY | {
    "world": {"kind": "personal", "users": 2, "candidates": 2, "turns": [1, 1]},
    "personas": "people.jsonl",
    "policy": {"file": "org.yaml", "checks": "record"},
}
SERVER = TINY | {
    "models": {
        "social": {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
        "observer": {"backend": "scripted"},
    }
}
BASES = (TINY, SCENE, PERSONAL, SERVER)

ODD_VALUES = (
    "", "~", "0", "-1", "1.5", "1e400", "-0.0", "9" * 30, "9" * 5000, "1000000", "2147483648",
    "9223372036854775808", ".inf", "-.inf", ".nan", "true", "no", "2001-13-45", "2001-12-14",
    "0x_", "0b", "190:20:30", "!!float x", "!!int ''", "!!binary x", "!!binary aGk=", "!!set {a}",
    "!!python/object:os.system {}", "! x", "=", "<<", "[" * 900, "{" * 90, "[[[[]]]]", "[1, [2]]",
    "{}", "{a: {b: {c: 1}}}", "{1: 2, true: 3, ~: 4}", "{? [a] : b}", "{a: 1, a: 2}", "{<<: 3}",
    "&a [*a]", "*b", '"\\0"', '"\\ud800"', '"\\u202e"', "'", '"', "\t", "a\tb", "x" * 5000,
    "../../..", "/", ".", "/dev/null", "/dev/full", "~nobody/x", "/etc/shadow", "nowhere.jsonl",
    "a\x07b", "\x1b[31m", "\u202e", "\u0661", "\ufeff", "\U0001f600", "%s{}$(x)`", "{{ 1/0 }}",
    "{{ x", "a,b;c", "grid", "scene", "scripted", "openai", "vllm", "complete", "./x.py",
    f"postgres://bob:{SECRET}@h/d", f"http://h/v1?key={SECRET}", f"https://{SECRET}@h/v1",
    f"{{api_key: {SECRET}}}", f"{{headers: {{Authorization: Bearer {SECRET}}}}}",
    f"password={SECRET}",
)  # fmt: skip

ODD_ARGUMENTS = (
    "small", "half", "small#small", "runs/small.db", "small#nobody", "nobody", "x" * 5000,
    f"a/{'b' * 300}.db", f"postgres://bob:{SECRET}@h/d", f"postgresql://h:x/d?password={SECRET}",
    f"host=h password={SECRET}", f"bob:{SECRET}@h", "://", "sqlite://", "sqlite:///runs/small.db",
    "sqlite:///runs/small.db#small", "sqlite+nothing:///x", "file:///x", "q.txt", "runs", ".",
    "", " ", "#", "##", "small#", "-", "--", "-x", "\x1b[31m", "\u202eevil", "a\nb", "%00", "*",
    "small@1234/5", "small@zzzz/0", "tiny.yaml", "/dev/null", "/dev/zero", "../x", "0", "-1",
    "3", "99999999999999", "1e5", "nan", "inf", "-inf", "sft", "preference", "exchanges", "all",
    "train=0.9,test=0.1", "train=nan", "5:1:1", "1:", "peers", "observer", "alignment", "out.html",
    "out.md", "out", "runs/small.db/x", "/nowhere/x", "personas.jsonl", "agents", "agent", "memory",
    "episode", "calls", "call", f"models.social.extra_body.api_key={SECRET}", "rounds=2",
    "world.raters=1", f"models.social.headers={{X-Key: {SECRET}}}", "name=x", "seed=0x_",
    "world={}", "a=!!float x", "=", "a.b.c=1", "..=1", "rounds=" + "[" * 900,
)  # fmt: skip


class Input(NamedTuple):
    """An input: files to write, and a config to check or a command line to run."""

    files: dict[str, bytes]
    config: str | None = None
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = [f"{name}: {content[:600]!r}" for name, content in self.files.items()]
        return f"{self.config or ''} {' '.join(map(repr, self.arguments))[:900]} {shown}"


def config_input(chance: random.Random) -> Input:
    """A config with some keys that are set, removed or added, and perhaps noise in its text."""
    data = json.loads(json.dumps(chance.choice(BASES)))
    lines = []
    for _ in range(chance.randint(0, 3)):
        key = chance.choice(KEYS)
        if chance.random() < 0.2:
            _drop(data, key)
        else:
            odd = chance.choice(ODD_VALUES)
            lines.append((key, odd if chance.random() < 0.6 else json.dumps(odd)))
    text = yaml.safe_dump(data, sort_keys=False)
    for key, value in lines:
        text = _set(text, key, value)
    content = text.encode("utf-8", "replace")
    if chance.random() < 0.15:
        content = noise(chance, content, YAML_NOISE)
    return Input({"odd.yaml": content}, config="odd.yaml")


def command_input(chance: random.Random) -> Input:
    """A command line: a verb with arguments and options, some of them odd."""
    verb = chance.choice(sorted(VERBS))
    parts: list[str] = []
    for parameter in VERBS[verb]:
        if parameter.param_type_name == "argument":
            if parameter.required or chance.random() < 0.6:
                likely = "tiny.yaml" if parameter.name == "config" else "small"
                usual = chance.random() < 0.6
                parts.append(likely if usual else chance.choice(ODD_ARGUMENTS))
        elif parameter.name != "help" and chance.random() < (0.7 if parameter.required else 0.15):
            parts.append(chance.choice(parameter.opts))
            if not parameter.is_flag:
                parts.append(chance.choice(chance.choice((USUAL, ODD_ARGUMENTS))))
    if chance.random() < 0.1:
        parts.insert(chance.randint(0, len(parts)), chance.choice(ODD_ARGUMENTS))
    ends = {"run": ("--max-calls", "9"), "resume": ("--max-calls", "9"), "fork": ("--db", "f.db")}
    ends |= {"view": ("--static", "pages"), "estimate": ("--episodes", "8")}
    return Input({}, arguments=(verb, *parts, *ends.get(verb, ())))


USUAL = ("0", "1", "1", "2", "7", "0.5", "sft", "kto", "peers", "out", "a.html", "train=1", "small")


def file_input(chance: random.Random) -> Input:
    """An input file of a run with broken bytes or structure, in one of its formats."""
    key, name, content = chance.choice(FILES)
    packed = name.endswith(".gz") and chance.random() < 0.7
    content = gzip.decompress(content) if packed else content
    if chance.random() < 0.5:
        content = noise(chance, content, FILE_NOISE)
    else:
        content = _restructured(chance, content)
    content = gzip.compress(content, mtime=0) if packed else content
    data = json.loads(json.dumps(PERSONAL if key == "world.red_team" else TINY))
    target = data
    *parents, last = key.split(".")
    for parent in parents:
        target = target[parent]
    target[last] = name
    if key == "world.topology":
        data["world"] = {"kind": "grid", "topology": name, "raters": 1}
    return Input({name: content, "odd.yaml": yaml.safe_dump(data).encode()}, config="odd.yaml")


INPUTS: dict[str, Callable[[random.Random], Input]] = {
    "configs": config_input,
    "commands": command_input,
    "files": file_input,
}

YAML_NOISE = (b"\t", b": ", b"&a ", b"*a", b"<<: *a\n", b"- ", b"? ", b"!!", b"|", b"\x00", b"\xff",
              b"\xef\xbb\xbf", b"\r", b"%YAML 9.9\n", b"---\n", b"...\n", b"{", b"]", b"'", b'"',
              b"\xc2\x85", b"\xe2\x80\xa8", b"#", b"@", b"`")  # fmt: skip
FILE_NOISE = (b"\x00", b"\xff", b'"', b",", b";", b"\t", b"{", b"}", b"[", b"\n", b"\r", b"\\",
              b"NaN", b"1e999", b"null", b"\\ud800", b"\xef\xbb\xbf", b"<", b"&", b"x" * 9000,
              b'{"a": ' * 2000, b"[" * 3000, b"9" * 5000)  # fmt: skip


def noise(chance: random.Random, content: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """Insert, remove, repeat and flip some bytes."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(content))
        to = min(len(content), at + chance.choice((0, 1, 1, 3, 20)))
        piece = chance.choice((b"", chance.choice(pieces), content[at:to] * 2))
        content = content[:at] + piece + content[to:]
    return content[: chance.randint(0, len(content))] if chance.random() < 0.1 else content


def _restructured(chance: random.Random, content: bytes) -> bytes:
    """Replace, drop, repeat or swap fields and lines of a text."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    action = chance.randrange(5)
    if action == 0:
        lines[at] = re.sub(rb'"(\w+)": ', lambda m: b'"x%s": ' % m[1], lines[at], count=1)
    elif action == 1:
        odd = chance.choice((b"null", b"[]", b"{}", b"3", b"true", b'""', b"NaN", b'"\\u0000"'))
        odd = odd.replace(b"\\", b"\\\\")
        lines[at] = re.sub(rb': ("[^"]*"|\d+)', b": " + odd, lines[at], count=1)
    elif action == 2:
        lines.insert(at, chance.choice((b"", b"[]", b"3", b"null", b"{}", b'"x"', lines[at])))
    elif action == 3:
        del lines[at]
    else:
        return chance.choice((b"", b"\n\n", b"[]", b"{}", b"null", b"\x1f\x8b\x08", b"PAR1PAR1"))
    return b"\n".join(lines)


class Fuzz:
    """A folder with small runs and valid files, which every input finds as they were."""

    def __init__(self, folder: Path) -> None:
        self._valid = folder / "valid"
        self._folder = folder / "work"
        _make_valid(self._valid)
        self._restore()

    def _restore(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._valid, self._folder)
        self._before = _files(self._folder)

    def faults(self, given: Input) -> list[str]:
        """Try an input; list everything about its outcome that must not be."""
        for name, content in given.files.items():
            (self._folder / name).write_bytes(content)
        before = self._before if not given.files else _files(self._folder)
        done = program(self._folder, *given.arguments, config=given.config, limits=LIMITS)
        faults = list(_faults(given, done.returncode, done.stdout, done.stderr))
        after = _files(self._folder)
        if done.returncode == 2 and after != before:
            changed = sorted({name for name, _ in after.items() ^ before.items()})
            faults.append(f"bad input, but files changed: {changed}")
        faults += [f"secret in {name}" for name in _new(before, after) if self._leaks(name)]
        if after != self._before:
            self._restore()
        return faults

    def _leaks(self, name: str) -> bool:
        return SECRET.encode() in (self._folder / name).read_bytes()


def _new(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, state in after.items() if before.get(name) != state and state]


def _faults(given: Input, status: int, out: str, err: str) -> Iterator[str]:
    if status not in (0, 1, 2, 130):
        yield f"status {status}"
    if "Traceback" in err or FAULT in err:
        yield f"an exception: {err[-600:]}"
    if SECRET in out + err:
        yield "a secret is printed"
    if status == 2:
        if err.count("\n") != 1 or not err.startswith("error: "):
            yield f"not one line: {err[:600]!r}"
        if given.arguments and (len(err) > LONGEST_MESSAGE + 20 or CONTROL.search(err[:-1])):
            yield f"long, or with control characters: {err[:300]!r}"
        if "--json" in given.arguments and not out.startswith('{"error": '):
            yield f"no JSON: {out[:300]!r}"
    if status == 0 and "--json" in given.arguments:
        try:
            json.loads(out)
        except ValueError:
            yield f"no JSON: {out[:300]!r}"


CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _files(folder: Path) -> dict[str, Any]:
    """The state of every file; of a folder None."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = None if path.is_dir() else _state(path)
    return found


def _state(path: Path) -> Any:
    """Size and time of a file; of a database its content, since opening it for writing counts."""
    if path.suffix != ".db":
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    content = bytearray(path.read_bytes())
    for counter in (slice(18, 20), slice(24, 28), slice(92, 100)):  # of SQLite's file header
        content[counter] = bytes(len(content[counter]))
    return len(content), zlib.crc32(content)


def _set(text: str, key: str, value: str) -> str:
    """Append a key to the text of a config, or to the section at its end."""
    parents, _, last = key.rpartition(".")
    line = text.rstrip("\n").split("\n")
    for depth, _part in enumerate(parents.split(".") if parents else ()):
        pattern = re.compile(rf"{'  ' * depth}{re.escape(parents.split('.')[depth])}:\s*$")
        at = next((number for number, one in enumerate(line) if pattern.match(one)), None)
        if at is None:
            line.append(f"{'  ' * depth}{parents.split('.')[depth]}:")
            at = len(line) - 1
        if depth == parents.count("."):
            line.insert(at + 1, f"{'  ' * (depth + 1)}{last}: {value}")
            return "\n".join(line) + "\n"
    old = re.compile(rf"{re.escape(last)}:")
    line = [one for one in line if not old.match(one)]
    return "\n".join([*line, f"{last}: {value}"]) + "\n"


def _drop(data: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    section: Any = data
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section.pop(last, None)


def _keys() -> list[str]:
    """The dotted keys of configs, from the classes that read them."""
    sections: dict[str, Any] = {"": Config, "memory": MemoryConfig, "schedule": Schedule}
    sections |= {"policy": PolicyConfig, "scales.mood": ScaleConfig}
    sections["memory.embedder"] = OpenAIEmbedderConfig
    keys = [*("nonsense", "world.nonsense", "models.social.api_key", "stop.rule", "stop.patience")]
    keys += ["models.groups.a.share", "models.groups.a.model", "models.social.extra_body.api_key"]
    for prefix, model in sections.items():
        keys += [f"{prefix}.{name}".lstrip(".") for name in _fields(model)]
    for kind in ("grid", "personal", "scene"):
        keys += [f"world.{name}" for name in _fields(world_of(kind).settings_type)]
    for backend in (ScriptedConfig, OpenAIConfig, VllmConfig):
        keys += [f"models.social.{name}" for name in _fields(backend)]
    return list(dict.fromkeys(keys))


def _fields(model: Any) -> list[str]:
    models = [model, *get_args(model)]
    return [
        name
        for one in models
        if isinstance(one, type) and issubclass(one, BaseModel)
        for name in one.model_fields
    ]


KEYS = _keys()
VERBS: dict[str, list[Any]] = {
    name: verb.params
    for name, verb in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
"""The verbs of the program with their parameters, so that a new one is tried as well."""

_DATA = ROOT / "worlds" / "data"
_PERSONAS = b"\n".join((_DATA / "personas.jsonl").read_bytes().split(b"\n")[:30])
_PEOPLE = b"\n".join((_DATA / "people.jsonl").read_bytes().split(b"\n")[:6])
_POLICY = (_DATA.parent / "policies" / "public_service.yaml").read_bytes()
_REQUESTS = b"\n".join((_DATA / "red_team.jsonl").read_bytes().split(b"\n")[:4])
_PAIRS = b"\n".join((_DATA / "prior.jsonl").read_bytes().split(b"\n")[:8])
_GRAPHML = (
    b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected">'
    b'\n<node id="0"/>\n<node id="1"/>\n<node id="2"/>\n<edge source="0" target="1"/>\n'
    b'<edge source="1" target="2"/>\n</graph></graphml>'
)
_GEXF = (
    b'<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2"><graph defaultedgetype="undirected">'
    b'\n<nodes><node id="0"/>\n<node id="1"/>\n<node id="2"/></nodes>\n'
    b'<edges><edge id="0" source="0" target="1"/>\n<edge id="1" source="1" target="2"/></edges>\n'
    b"</graph></gexf>"
)
_GML = (
    b"graph [\n  node [ id 0 ]\n  node [ id 1 ]\n  node [ id 2 ]\n"
    b"  edge [ source 0 target 1 ]\n  edge [ source 1 target 2 ]\n]\n"
)
_QUESTIONS = b"Is it fair?\nIs it kind?\nIs it true?\n"
_CHATS = (
    b'{"messages": [{"role": "user", "content": "Is it fair?"}]}\n'
    b'{"messages": [{"role": "system", "content": "Be kind."},\n'
    b'{"role": "user", "content": "So?"}]}'
)


def _parquet() -> bytes:
    out = BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "question": ["Is it fair?", "Is it kind?"]}), out)
    return out.getvalue()


FILES = (
    ("questions", "odd.txt", _QUESTIONS),
    ("questions", "odd.txt.gz", gzip.compress(_QUESTIONS, mtime=0)),
    ("questions", "odd.tsv", b"id\tquestion\n1\tIs it fair?\n2\tIs it kind?\n"),
    ("questions", "oddsemicolons.csv", b'id;question\n1;Is it fair?\n2;"Is it; then, kind?"\n'),
    ("questions", "odd.json", b'[{"instruction": "Is it fair?",\n"input": "Yes."},\n{"id": 3}]'),
    ("questions", "oddchats.jsonl", _CHATS),
    ("questions", "odd.parquet", _parquet()),
    ("personas", "oddhub.jsonl", b'{"persona": "A nurse"}\n{"description": "A baker"}\n' * 4),
    ("personas", "oddnames.yaml", b"- name: Ann\n  age: 40\n- name: Ben\n  values: be kind\n" * 2),
    ("world.topology", "odd.gexf", _GEXF),
    ("world.topology", "odd.gml", _GML),
    ("world.topology", "odd.tsv", b"source\ttarget\na\tb\nb\tc\nc\ta\n"),
    ("world.topology", "odd.edges", b"a b {'weight': 3}\nb c {}\nc a\n"),
    ("world.topology", "odd.adjlist", b"# made by hand\na b c\nb c\n"),
    ("world.topology", "odd.csv.gz", gzip.compress(b"a,b\nb,c\nc,a\n", mtime=0)),
    ("questions", "odd.jsonl", b'{"question": "Is it fair?"}\n{"prompt": "Is it kind?", "id": 3}'),
    ("questions", "odd.csv", b'id,question\n1,Is it fair?\n2,"Is it, then, kind?"\n'),
    ("personas", "oddpersonas.jsonl", _PERSONAS),
    ("personas", "oddpeople.jsonl", _PEOPLE),
    ("policy", "oddpolicy.yaml", _POLICY),
    ("world.red_team", "oddrequests.jsonl", _REQUESTS),
    ("memory.prior", "oddpairs.jsonl", _PAIRS),
    ("forms", "oddforms.yaml", b"draft:\n  system: You are {{ me }}.\n  user: '{{ question }}'\n"),
    ("world.topology", "odd.graphml", _GRAPHML),
    ("world.topology", "odd.csv", b"source,target\na,b\nb,c\nc,a\n"),
    ("world.topology", "odd.txt", b"a b\nb c\nc a\n"),
    ("world.topology", "odd.json", b'{"nodes": [{"id": 0}, {"id": 1}],\n"links": []}'),
)


def _make_valid(folder: Path) -> None:
    folder.mkdir()
    (folder / "q.txt").write_text("Is it fair to wait?\nIs it kind to ask?\n")
    (folder / "personas.jsonl").write_bytes(_PERSONAS)
    (folder / "pairs.jsonl").write_bytes(_PAIRS)
    (folder / "people.jsonl").write_bytes(_PEOPLE)
    (folder / "org.yaml").write_bytes(_POLICY)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    for name, rest in {"small": (), "half": ("--max-calls", "9")}.items():
        done = program(folder, "run", "tiny.yaml", "--name", name, *rest)
        assert done.returncode == (1 if rest else 0) or done.returncode == 130, done.stderr
