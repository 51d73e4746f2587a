"""Random numbers that replay: a tree of seeds, and draws from raw Philox words.

`item_seed(root, i)` depends on nothing but the root seed and the item's number, so item 7
alone equals item 7 of a run of 100. Draws come from the raw 64-bit words of Philox-4x64-10
by exact integer and power-of-two arithmetic; no libm is in the way, so every machine draws
the same bits. `uniforms` and `permutation` of one seed are independent streams.

>>> item_seed(7, 0) == item_seed(7, 0) != item_seed(7, 1)
True
>>> sorted(permutation(item_seed(7, 0), 4).tolist())
[0, 1, 2, 3]
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT_SEEDS = 2**64
"""A root seed lies in [0, 2**64); 0 is a seed like any other."""


def item_seed(root: int, item: int) -> int:
    """The 128-bit seed of item number `item` under root seed `root`."""
    if not 0 <= root < ROOT_SEEDS or not 0 <= item < ROOT_SEEDS:
        raise ValueError(f"root seed and item lie in [0, 2**64): {root}, {item}")
    return _derive(b"item", root.to_bytes(8, "little") + item.to_bytes(8, "little"))


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """`count` float64 values in [0, 1), multiples of 2**-53."""
    return (_words(seed, b"uniforms", count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, count: int) -> NDArray[np.int64]:
    """A permutation of `range(count)`: the order that sorts `count` raw words."""
    return np.argsort(_words(seed, b"permutation", count), kind="stable").astype(np.int64)


def choose(probabilities: NDArray[np.float64], uniform: float) -> int:
    """Inverse CDF: the first index whose cumulative weight exceeds `uniform` times the total.

    `probabilities` holds finite weights >= 0, at least one > 0; zero weights are never chosen.
    The sum runs in index order, so that its bits don't depend on the vector width.
    """
    total = 0.0
    cumulative = []
    for weight in probabilities.tolist():
        total += weight
        cumulative.append(total)
    if not total > 0.0:
        raise ValueError("no positive weight to choose from")
    threshold = uniform * total
    for index, reached in enumerate(cumulative):
        if reached > threshold:
            return index
    # uniform < 1 can round to threshold == total: then the last index that has weight.
    return max(index for index, weight in enumerate(probabilities.tolist()) if weight > 0.0)


def _words(seed: int, purpose: bytes, count: int) -> NDArray[np.uint64]:
    generator = np.random.Philox(key=_derive(purpose, seed.to_bytes(16, "little")))
    return np.asarray(generator.random_raw(count), dtype=np.uint64)


def _derive(purpose: bytes, data: bytes) -> int:
    # The version is part of the label: another scheme would be another tree, never a silent change.
    return int.from_bytes(hashlib.sha256(b"helix seed tree v1\0" + purpose + b"\0" + data).digest()[:16], "little")
