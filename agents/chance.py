"""Every random choice comes from names, never from a global generator or from arrival order."""

from __future__ import annotations

import random
from hashlib import blake2b


def seed_of(seed: int, *name: object) -> int:
    """A 63-bit seed that depends on the run's seed and a name, and on nothing else."""
    text = "/".join(map(str, (seed, *name)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def chance(seed: int, *name: object) -> random.Random:
    """A generator of its own for one named choice."""
    return random.Random(seed_of(seed, *name))
