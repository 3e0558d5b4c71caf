"""Exports of a large run: time and peak memory of every format, each in a new process.

Usage: python benchmarks/exports.py DATABASE [DATABASE...]

`python benchmarks/million.py --questions FILE --keep FOLDER` creates a run with a million
calls; `python benchmarks/main_job.py` shows how to create one with 5,000 episodes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from main_job import sim

from sandbox.datasets import FORMATS


def main() -> int:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("databases", type=Path, nargs="+")
    for database in parser.parse_args().databases:
        print(f"\n{database.stem}\n\n| format | candidates | removed by rules | rows | s | MiB |")
        print("| --- | ---: | --- | ---: | ---: | ---: |")
        with tempfile.TemporaryDirectory() as place:
            for name in FORMATS:
                words = ("export", str(database.resolve()), "--format", name, "--out", name)
                done = sim(Path(place), *words)
                if "error" in done.data:  # the format needs another world
                    print(f"| {name} | refused | {done.data['error']} | | | |", flush=True)
                    continue
                (one,) = done.data["formats"]
                removed = "; ".join(f"{rule} {n:,}" for rule, n in one["removed"].items()) or "-"
                counted = f"{one['candidates']:,} {one['counts']} | {removed}"
                rows = f"{sum(one['files'].values()):,}"
                figures = f"{done.seconds:.1f} | {done.peak_mib:.0f}"
                print(f"| {name} | {counted} | {rows} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
