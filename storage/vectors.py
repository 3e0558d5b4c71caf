"""Compress and decompress the vectors of questions for storage."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def pack(vector: NDArray[np.float32]) -> bytes:
    """Compress a vector: float16, little-endian, zlib.

    Vectors of the default embedder are mostly zeros; those of a model lose little by half
    precision. A run always reads its vectors back, so that every session uses the same values.
    """
    return zlib.compress(vector.astype("<f2").tobytes())


def unpack(stored: bytes) -> NDArray[np.float16]:
    """Decompress a vector that `pack` has compressed."""
    return np.frombuffer(zlib.decompress(stored), "<f2")
