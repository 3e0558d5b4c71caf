"""Settings of replicas on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from agents.section import Section, error_at


def _whole_above_one(value: float | None) -> float | None:
    if value is not None and value > 1 and value != int(value):
        raise ValueError("a whole number, or a fraction below 1")
    return value


Amount = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
"""An amount of a resource of Ray: a whole number, or a fraction below 1."""


class RaySettings(Section):
    """Replicas on a Ray cluster.

    Attributes:
        address: `HOST:PORT` of the cluster; null for the variable RAY_ADDRESS, else a cluster that
            runs on this machine, else one that is started here and ends with the program; `local`
            always starts one.
        num_gpus: GPUs of each replica; null for as many as its engine uses where the cluster has
            any.
        num_cpus: CPUs of each replica; null for 1 where it has no GPU, else 0.
        resources: other resources of each replica, by Ray's names.
        max_restarts: how often a replica that died is started again, also one in a local process.
        max_replicas: replicas of a cluster that grows: those above `replicas` join a run when the
            cluster gets room for them.
        namespace: Ray's namespace of the replicas.
        pool: runs on one cluster whose pools have one name share replicas of equal settings.
        linger: seconds that replicas of a pool outlive their last run.
    """

    address: str | None = Field(default=None, min_length=1)
    num_gpus: Amount | None = None
    num_cpus: Amount | None = None
    resources: dict[str, Amount] = Field(default={})
    max_restarts: int = Field(default=3, ge=0, le=1000)
    max_replicas: int | None = Field(default=None, ge=1, le=4096)
    namespace: str = Field(default="sandbox-society", min_length=1)
    pool: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    linger: float = Field(default=30.0, ge=0)

    @model_validator(mode="after")
    def _no_client(self) -> RaySettings:
        if self.address is not None and "://" in self.address:
            expected = "an address HOST:PORT of a cluster that this machine is a node of"
            raise error_at("address", self.address, expected)
        return self
