"""Every schedule gives the same digest, in all kinds of worlds and with random latencies."""

from __future__ import annotations

import asyncio
import random

import pytest
from conftest import scripted_backends, small
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.backends import scripted
from sandbox.backends.base import Call, Reply
from sandbox.engine.run import create, prepare, resume

WORLDS = st.fixed_dictionaries(
    {
        "world.topology": st.sampled_from(["grid", "small_world", "scale_free", "complete"]),
        "world.reach": st.sampled_from(["local", "global"]),
        "world.demographics": st.sampled_from(["all_good", "half_half", "mixed_half_half"]),
        "world.raters": st.integers(0, 5),
        "world.score_only": st.booleans(),
        "memory.keep": st.sampled_from(["all", "1", "3"]),
        "models.social.misbehave": st.sampled_from([0, 0.2]),
        "question_count": st.integers(1, 12),
        "seed": st.integers(0, 1000),
        "stop": st.sampled_from(["null", "{patience: 1}"]),
    }
)
WORK = st.fixed_dictionaries(
    {
        "schedule.order": st.sampled_from(["out_of_order", "out_of_order", "lock_step"]),
        "schedule.max_in_flight": st.sampled_from([1, 2, 7, 1024]),
        "schedule.max_ahead": st.integers(1, 5),
    }
)


def _settings(values: dict[str, object]) -> list[str]:
    return [f"{key}={str(value).lower()}" for key, value in values.items()]


class RandomLatency(scripted.ScriptedBackend):
    """Adds a random latency, on which no result may depend."""

    chance = random.Random()

    async def answer(self, call: Call) -> Reply:
        if self.chance.random() < 0.7:
            await asyncio.sleep(self.chance.choice([0, 0.0005, 0.002, 0.006]))
        return await super().answer(call)


@settings(max_examples=4)
@given(WORLDS, st.lists(WORK, min_size=2, max_size=2), st.integers(0, 10**6))
@pytest.mark.long
def test_every_schedule_gives_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory,
    world: dict[str, object],
    work: list[dict[str, object]],
    latency_seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("orders")
    base = [*_settings(world), "rounds=4"]
    plain = resume(
        create(prepare(small(*base, "schedule.order=sequential")), str(folder / "plain.db"))
    )
    RandomLatency.chance = random.Random(latency_seed)
    for number, how in enumerate(work):
        config = small(*base, *_settings(how))
        address = create(prepare(config), str(folder / f"{number}.db"))
        other = resume(address, backends=scripted_backends(config, RandomLatency))
        assert (other.digest, other.episodes) == (plain.digest, plain.episodes)
