"""The settings of a sweep: which runs it has, where they are stored and how they are played."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from agents.section import Section, error_at
from sandbox.config import QUICKSTART
from sandbox.settings_files import FilePath

PAGE = "docs/sweeps.md"

_ADDRESS = re.compile(r"local|[^\s/]+:[0-9]{1,5}")


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", text):
        raise ValueError("at most 60 letters, digits, - . and _, a letter or a digit first")
    return text


Name = Annotated[str, AfterValidator(_name)]


class SweepSettings(Section):
    """What a sweep runs: each entry of `list` with each combination of `grid` and each seed.

    Attributes:
        name: of the study; the names of its runs begin with it.
        config: the config of the runs.
        seeds: the seeds, or how many, counted from that of the config.
        settings: keys to set in all runs, by dotted key.
        grid: by dotted key a list of values, or a mapping from short names to values.
        list: settings of single groups of runs by dotted key, each with a `name` if wanted.
        out: the folder with a database for each run; the default is ``runs/NAME``. As for every
            verb, it is relative to the working folder.
        db: the URL of a PostgreSQL database for all runs, in place of `out`.
        side_by_side: how many runs are played at once.
        on: whether runs are played by processes of this machine or by actors of Ray.
        ray: the address of the cluster, `HOST:PORT`, or `local` to start one here; the default is
            the variable RAY_ADDRESS, else a cluster that runs on this machine, else one that is
            started here.
        retries: how often a run that failed is resumed.
    """

    name: Name
    config: FilePath = QUICKSTART
    seeds: int | Sequence[int] = 1
    settings: dict[str, Any] = Field(default={})
    grid: dict[str, Any] = Field(default={})
    list: Sequence[dict[str, Any]] = ()
    out: str | None = None
    db: str | None = None
    side_by_side: int = Field(default=4, ge=1, le=1000)
    on: Literal["processes", "ray"] = "processes"
    ray: str | None = Field(default=None, min_length=1)
    retries: int = Field(default=2, ge=0, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> SweepSettings:
        seeds = [self.seeds] if isinstance(self.seeds, int) else [*self.seeds]
        if not seeds or min(seeds) < 0 or self.seeds == 0 or len(set(seeds)) < len(seeds):
            expected = "a number from 1, or a list of different seeds from 0"
            raise error_at("seeds", self.seeds, expected)
        if self.out is not None and self.db is not None:
            raise error_at("db", self.db, "only one of out (a file for each run) and db")
        if self.ray is not None and self.on != "ray":
            raise error_at("ray", self.ray, "on: ray beside it")
        if self.ray is not None and not _ADDRESS.fullmatch(self.ray):
            expected = "an address HOST:PORT, or local for a cluster that is started here"
            raise error_at("ray", self.ray, expected)
        if self.db is not None and not self.db.startswith("postgresql"):
            expected = "the URL of a PostgreSQL database; out: FOLDER has a file for each run"
            raise error_at("db", self.db, expected)
        return self
