"""A sweep of small societies on one shared vLLM engine on the CPU, killed and continued."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.program import begin_sweep
from tests.test_vllm import ENGINE, QUIET, _vllm, engines, place  # noqa: F401 (fixtures)

STUDY = {
    "seeds": [1, 2, 3],
    "settings": {
        "world.size": 2,
        "rounds": 2,
        "question_count": 4,
        "memory.prior_pairs": 2,
        "models.observer": {"backend": "scripted"},
    },
    "grid": {"world.raters": [1, 2], "models.social.temperature": [0.9, 1.0]},
}
SOCIAL = {"backend": "vllm", "extra": ENGINE, "max_tokens": 160}


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stdout + stderr
    assert stderr.count("ready after") == 1 and engines() == []
    found: dict[str, Any] = json.loads(stdout)
    return found


def calls(folder: Path) -> int:
    """The calls that runs have in their journals."""
    found = 0
    for path in folder.glob("*.db"):
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
            found += connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    return found


def test_twelve_runs_on_one_engine_killed_and_continued(place: Path) -> None:  # noqa: F811
    social = {**SOCIAL, "model": str(place / "model")}
    study = {"name": "calm", **STUDY, "side_by_side": 12}
    study["settings"] = {**STUDY["settings"], "models.social": social}  # type: ignore[dict-item]
    (place / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    calm = ended(begin_sweep(place, **QUIET))
    assert len(calm["runs"]) == 12 and calm["status"] == "done"
    (engine,) = calm["engines"]
    assert engine["busy_share"] > 0.5 and engine["mean_in_flight"] > 2
    print(engine)

    study["name"] = "killed"
    (place / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    process = begin_sweep(place, **QUIET)
    folder = place / "runs" / "killed"
    until = time.monotonic() + 300
    while calls(folder) < 20:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 60
    while engines():
        assert time.monotonic() < until
        time.sleep(0.1)
    again = ended(begin_sweep(place, **QUIET))
    digests = [[run["digest"] for run in found["runs"]] for found in (calm, again)]
    assert digests[0] == digests[1] and again["status"] == "done"
    assert [run["calls"] for run in again["runs"]] == [run["calls"] for run in calm["runs"]]
    print(again["engines"], again["calls"], sum(run["calls"] for run in again["runs"]))
