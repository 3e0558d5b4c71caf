"""Phases of a benchmark: commands that run once, with the time and the memory that they took."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Without these glibc gives large tensors back to the kernel after every step of a training on the
# CPU, which takes a third of its time. They do not change a result.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}

ROOT = Path(__file__).resolve().parent.parent


class Cost(NamedTuple):
    """What a phase took: seconds by the clock and of the processor, and memory at most, in MiB."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Phases:
    """Commands whose results are kept in a folder; a finished one is not run again.

    Attributes:
        folder: of the benchmark.
    """

    folder: Path

    def run(self, name: str, *words: str | Path, begun: Path | None = None) -> None:
        """Run a command of Python, unless it has ended well before.

        Args:
            name: of the phase, which is the name of its files.
            words: the script below the repository's root, then its arguments.
            begun: the run's file, if the command plays a run: where it is there, it is resumed.

        Raises:
            SystemExit: it ended with another status than 0.
        """
        command = [str(word) for word in words]
        done = self.folder / "phases" / f"{name}.json"
        if done.is_file() and json.loads(done.read_text())["command"] == command:
            return
        done.parent.mkdir(parents=True, exist_ok=True)
        go_on = ["run_sim.py", "resume", str(begun)]
        cost = self._timed(name, go_on if begun is not None and begun.exists() else command)
        part = done.with_suffix(".part")
        part.write_text(json.dumps({"command": command, **cost._asdict()}, indent=1))
        part.replace(done)
        print(f"{name}: {cost.seconds:.0f} s, {cost.cpu_seconds:.0f} CPU s", file=sys.stderr)

    def _timed(self, name: str, command: Sequence[str]) -> Cost:
        log = self.folder / "phases" / f"{name}.log"
        start = time.monotonic()
        with log.open("wb") as output:
            script, *arguments = command
            process = subprocess.Popen(
                [sys.executable, str(ROOT / script), *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**KEPT_MEMORY, **os.environ, "PYTHONPATH": str(ROOT)},
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.terminate()
                raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1] if lines else "no output"
            raise SystemExit(f"{name}: {last}\n  {shlex.join(command)}\n  all output: {log}")
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(time.monotonic() - start, cpu, usage.ru_maxrss / 1024)

    def costs(self) -> dict[str, Cost]:
        """What every finished phase took, by its name."""
        found = {}
        for path in sorted((self.folder / "phases").glob("*.json")):
            data = json.loads(path.read_text())
            found[path.stem] = Cost(*(float(data[name]) for name in Cost._fields))
        return found
