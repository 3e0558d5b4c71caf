"""Vectors of questions as the database stores them."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def pack(vector: NDArray[np.float32]) -> bytes:
    """A vector as the database stores it: float16, little-endian, deflated by zlib.

    Vectors of the default embedder are mostly zeros; those of a model lose little by half
    precision. A run always reads its vectors back, so that every sitting sees the same ones.
    """
    return zlib.compress(vector.astype("<f2").tobytes())


def unpack(stored: bytes) -> NDArray[np.float16]:
    """A stored vector; see `pack`."""
    return np.frombuffer(zlib.decompress(stored), "<f2")
