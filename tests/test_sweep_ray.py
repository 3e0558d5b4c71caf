"""A sweep on a real Ray cluster: its runs are actors, and share the replicas of their model."""

from __future__ import annotations

import importlib.util
import json
import secrets
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import api
from tests.conftest import ROOT, missing
from tests.program import begin_sweep

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
SMALL = {"world.size": 3, "rounds": 3, "question_count": 8, "memory.prior_pairs": 20}
SOCIAL = {"backend": "scripted", "replicas": 2, "on": "ray", "ray": {"linger": 1, "num_cpus": 0}}
SLOW = {"first_token": 0.05, "per_token": 0.0, "capacity": 4}
pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _ray() -> None:
    if importlib.util.find_spec("ray") is None:
        missing("Ray is not installed: pip install -e '.[ray]'", "vllm")


def test_a_sweep_on_ray_is_killed_and_goes_on(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "name": "s",
        "seeds": [1, 2],
        "settings": {**SMALL, "models.social": {**SOCIAL, "latency": SLOW}},
        "grid": {"world.raters": [2, 3]},
        "side_by_side": 2,
        "on": "ray",
        "ray": "local",
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    process = begin_sweep(tmp_path, **QUIET)
    until = time.monotonic() + 120
    while not [*tmp_path.rglob("*.db-wal")]:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    time.sleep(1)
    process.kill()
    process.communicate()
    time.sleep(2)  # the cluster of the sweep ends with it
    again = begin_sweep(tmp_path, **QUIET)
    stdout, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stdout + stderr
    found = json.loads(stdout)
    assert [run["status"] for run in found["runs"]] == ["done"] * 4
    for run in found["runs"]:
        settings = {**SMALL, **run["settings"]}
        alone = api.run(name=run["run"], db=tmp_path / "alone.db", settings=settings)
        assert alone.digest == run["digest"]
