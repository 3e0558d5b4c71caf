"""What tests share: small configs, and runs made from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.config import QUICKSTART, Config, load_config
from sandbox.run import Outcome, create, prepare, resume
from storage.database import Address

ROOT = Path(__file__).resolve().parent.parent

SMALL = ("world.size=4", "rounds=3", "question_count=8", "memory.prior_pairs=20")


def small(*settings: str) -> Config:
    """The quickstart, made smaller, with other settings on top."""
    return load_config(QUICKSTART, [*SMALL, *settings])


Make = Callable[..., tuple[Address, Outcome]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make and work on a run: ``make("world.raters=2", name="a")``."""

    def made(*settings: str, name: str = "run") -> tuple[Address, Outcome]:
        config = small(*settings, f"name={name}")
        address = create(prepare(config), str(tmp_path / f"{name}.db"))
        return address, resume(address)

    return made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how often runs are killed in all")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often runs are killed in all."""
    return int(request.config.getoption("--kills"))
