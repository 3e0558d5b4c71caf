"""Seeds and random generators that depend only on the run's seed and a name.

So no random choice depends on a global generator or on the order of arrival.
"""

from __future__ import annotations

import random
from hashlib import blake2b


def seed_of(seed: int, *name: object) -> int:
    """Derive a 63-bit seed from the run's seed and a name (BLAKE2b)."""
    text = "/".join(map(str, (seed, *name)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def chance(seed: int, *name: object) -> random.Random:
    """Create a random generator for one named choice."""
    return random.Random(seed_of(seed, *name))
