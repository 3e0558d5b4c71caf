"""The architecture: which part of the code may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

NEUTRAL = (
    "sandbox",
    "sandbox.text",
    "sandbox.files",
    "sandbox.failing",
    "sandbox.progress",
    "sandbox.concurrency",
    "sandbox.interrupts",
    "sandbox.environment",
)
"""The version, and modules that know nothing of runs; every part of `sandbox` may import them."""

PLAYING = (
    "agents",
    "worlds",
    "storage",
    "sandbox.backends",
    "sandbox.config",
    "sandbox.settings_files",
    "sandbox.sources",
)

ALLOWED: dict[str, tuple[str, ...]] = {
    "storage": (),
    "agents": (),
    "worlds": ("agents",),
    "sandbox": (),
    "sandbox.text": (),
    "sandbox.yaml_values": (),
    "sandbox.files": ("storage.errors",),
    "sandbox.failing": ("agents", "sandbox.text"),
    "sandbox.progress": ("agents", "sandbox.failing", "sandbox.text"),
    "sandbox.concurrency": (),
    "sandbox.interrupts": (),
    "sandbox.environment": ("agents", "sandbox"),
    "sandbox.doctor": NEUTRAL,
    "sandbox.wording": ("agents",),
    "sandbox.sources": (
        "agents",
        "worlds",
        "storage.errors",
        "sandbox.text",
        "sandbox.wording",
        "sandbox.yaml_values",
    ),
    "sandbox.config": (
        "agents",
        "worlds",
        "storage.errors",
        "storage.secrets",
        "sandbox.backends",
        "sandbox.text",
        "sandbox.settings_files",
        "sandbox.wording",
    ),
    "sandbox.settings_files": (
        "agents",
        "storage.errors",
        "storage.secrets",
        "sandbox.text",
        "sandbox.yaml_values",
    ),
    "sandbox.backends": (*NEUTRAL, "agents", "storage.errors", "storage.secrets"),
    "sandbox.reading": (*NEUTRAL, "agents", "storage"),
    "sandbox.datasets": (*NEUTRAL, "agents", "storage", "sandbox.reading"),
    "sandbox.training": (
        *NEUTRAL,
        "agents",
        "worlds.text_files",
        "storage.errors",
        "sandbox.yaml_values",
        "sandbox.settings_files",
        "sandbox.sources.json_files",
        "sandbox.reading.records",
    ),
    "sandbox.engine": (*NEUTRAL, *PLAYING, "sandbox.reading"),
    "sandbox.study": (
        *NEUTRAL,
        *PLAYING,
        "sandbox.engine",
        "sandbox.reading",
        "sandbox.datasets",
    ),
    "sandbox.evaluation": (
        *NEUTRAL,
        *PLAYING,
        "sandbox.yaml_values",
        "sandbox.engine",
        "sandbox.reading",
        "sandbox.datasets",
    ),
    "sandbox.__main__": ("sandbox.cli",),
    "sandbox.generations": (
        *NEUTRAL,
        *PLAYING,
        "sandbox.engine",
        "sandbox.reading",
        "sandbox.datasets",
        "sandbox.settings_files",
        "sandbox.training",
        "sandbox.evaluation",
    ),
    "sandbox.sweep": (*NEUTRAL, *PLAYING, "sandbox.engine", "sandbox.reading"),
    "sandbox.terminal": (
        *NEUTRAL,
        "agents",
        "storage",
        "sandbox.reading",
        "sandbox.datasets",
        "sandbox.study.rates",
        "sandbox.study.results",
        "sandbox.sweep.progress",
        "sandbox.sweep.results",
        "sandbox.training.report",
        "sandbox.evaluation.results",
        "sandbox.evaluation.tables",
    ),
    "sandbox.viewer": (
        *NEUTRAL,
        "agents",
        "storage",
        "sandbox.reading",
        "sandbox.datasets",
        "sandbox.study.compare",
        "sandbox.study.results",
    ),
    "sandbox.api": (
        *NEUTRAL,
        *PLAYING,
        "sandbox.engine",
        "sandbox.reading",
        "sandbox.datasets",
        "sandbox.study",
        "sandbox.generations",
        "sandbox.sweep",
        "sandbox.training",
        "sandbox.evaluation",
    ),
    "sandbox.cli": (),  # it may import everything
}
"""What each part may import besides itself: whole packages, or single modules.

A part is a top-level package, or a folder or module of `sandbox`.
"""

KNOW_VLLM = ("sandbox.backends.vllm", "sandbox.backends.vllm_config")

FILES = [
    path
    for package in ("storage", "agents", "worlds", "sandbox")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the module of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; expected absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield node.lineno, name if _is_module(name) else str(node.module)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _part(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "sandbox" else parts[0]


def _allows(allowed: str, module: str) -> bool:
    """Whether an entry of the table covers a module; `sandbox` alone is the package's file."""
    return module == allowed or (allowed != "sandbox" and module.startswith(f"{allowed}."))


def _violations(path: Path) -> Iterator[str]:
    module = _module(path)
    part = _part(module)
    for line, name in _imports(path):
        is_ours = name.split(".")[0] in ("storage", "agents", "worlds", "sandbox")
        if not is_ours or _part(name) == part or part == "sandbox.cli":
            continue
        if not any(_allows(allowed, name) for allowed in ALLOWED[part]):
            expected = ", ".join(ALLOWED[part]) or "nothing of ours"
            yield f"{module}:{line}: imports {name}; {part} may import {expected}"


def test_every_part_is_in_the_table() -> None:
    assert {_part(_module(path)) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_they_may(part: str) -> None:
    files = [path for path in FILES if _part(_module(path)) == part]
    violations = [line for path in files for line in _violations(path)]
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(
    "package", ["sandbox.reading", "sandbox.terminal", "sandbox.datasets", "sandbox.viewer"]
)
def test_looking_at_runs_loads_no_engine_and_no_backend(package: str) -> None:
    modules = [name for path in FILES if (name := _module(path)).startswith(package)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(*(n for n in sys.modules if n.startswith(('sandbox.engine', 'sandbox.backends'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_only_its_backend_knows_vllm() -> None:
    importing = {
        _module(path)
        for path in FILES
        for _, name in _imports(path)
        if name.split(".")[0] == "vllm"
    }
    assert importing == set(KNOW_VLLM)


def test_agents_and_worlds_do_no_database_work() -> None:
    for package in ("agents", "worlds"):
        for path in (ROOT / package).rglob("*.py"):
            for line, name in _imports(path):
                assert not name.startswith(("sqlalchemy", "sqlite3")), f"{path}:{line}: {name}"
