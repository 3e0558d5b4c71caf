"""The house: imports point one way, files stay small, and public names are documented."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

ORDER = ("storage", "agents", "worlds", "sandbox")
KNOW_VLLM = ("sandbox/backends/vllm.py", "sandbox/backends/vllm_config.py")
FILES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    allowed = set(ORDER[: ORDER.index(home) + 1])
    if home in ("agents", "worlds"):
        allowed.discard("storage")
    roots = {name.split(".")[0] for name in _imports(path)}
    assert roots & set(ORDER) <= allowed
    if path.relative_to(ROOT).as_posix() not in KNOW_VLLM:
        assert "vllm" not in roots


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_functions_stay_short() -> None:
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert sorted(lengths)[len(lengths) // 2] < 12


def test_agents_and_worlds_do_no_database_work() -> None:
    for package in ("agents", "worlds"):
        for path in (ROOT / package).rglob("*.py"):
            assert not any(name.startswith(("sqlalchemy", "sqlite3")) for name in _imports(path))
