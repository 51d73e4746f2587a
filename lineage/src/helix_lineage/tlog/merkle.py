"""RFC 6962 Merkle trees over leaf hashes: roots, inclusion and consistency proofs. Pure.

A proof is made from a function that gives the root of any aligned complete subtree
(so it can come from tiles, from a list, from anywhere), and checked from hashes alone.

>>> leaves = [leaf_hash(bytes([n])) for n in range(5)]
>>> verify_inclusion(3, 5, leaves[3], prove_inclusion(3, 5, from_leaves(leaves)), root(leaves))
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

Subtree = Callable[[int, int], bytes]
"""`(level, index)` → root of the complete subtree over leaves `[index·2^level, (index+1)·2^level)`."""

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The complete subtrees of a growing tree, enough for its root. Appending is O(log n)."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[bytes] = []

    @classmethod
    def of(cls, size: int, subtree: Callable[[int, int], bytes]) -> Frontier:
        """The frontier of the first `size` leaves; `subtree` gives the root over leaves `[start, end)`."""
        made, start = cls(), 0
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                made._stack.append(subtree(start, start + (1 << level)))
                start += 1 << level
        made.size = size
        return made

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes, in order."""
        sha256, stack, size = hashlib.sha256, self._stack, self.size
        for leaf in leaves:
            node, rest = leaf, size
            while rest & 1:
                node = sha256(b"\x01" + stack.pop() + node).digest()
                rest >>= 1
            stack.append(node)
            size += 1
        self.size = size

    def copy(self) -> Frontier:
        """A frontier that grows apart from this one."""
        other = Frontier()
        other.size, other._stack = self.size, list(self._stack)
        return other

    @property
    def root(self) -> bytes:
        """Root of the tree as it stands."""
        if not self._stack:
            return EMPTY_ROOT
        node = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            node = node_hash(left, node)
        return node


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes."""
    if not leaves:
        return EMPTY_ROOT
    sha256, nodes = hashlib.sha256, list(leaves)
    while len(nodes) > 1:
        # Level by level: the last node of an odd level goes up as it is, which is what RFC 6962's split means.
        odd = [nodes[-1]] if len(nodes) & 1 else []
        nodes = [sha256(b"\x01" + a + b).digest() for a, b in zip(nodes[::2], nodes[1::2], strict=False)] + odd
    return nodes[0]


def from_leaves(leaves: Sequence[bytes]) -> Subtree:
    """Subtree roots from a list of leaf hashes, remembered."""
    known: dict[tuple[int, int], bytes] = {}

    def subtree(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        if (level, index) not in known:
            left, right = subtree(level - 1, 2 * index), subtree(level - 1, 2 * index + 1)
            known[level, index] = node_hash(left, right)
        return known[level, index]

    return subtree


def range_root(start: int, end: int, subtree: Subtree) -> bytes:
    """Root over leaves `[start, end)`, where `start` is a multiple of the largest power of two in the range."""
    size = end - start
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtree(level, start >> level)
    split = _split(size)
    return node_hash(range_root(start, start + split, subtree), range_root(start + split, end, subtree))


def prove_inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves, from the leaf up."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of a tree of {size}")
    return _path(index, 0, size, subtree)


def prove_consistency(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """Proof that the tree of `second` leaves extends the one of `first` (0 < first <= second)."""
    if not 0 < first <= second:
        raise ValueError(f"no consistency proof from {first} to {second}")
    return _subproof(first, 0, second, True, subtree)


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], expected: bytes) -> bool:
    """Does the path lead from the leaf to the root (RFC 9162, 2.1.3.2)?"""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == expected


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Does the second tree extend the first (RFC 9162, 2.1.4.2)?"""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _split(size: int) -> int:
    """The largest power of two below `size` (> 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _path(index: int, start: int, end: int, subtree: Subtree) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, subtree), range_root(middle, end, subtree)]
    return [*_path(index, middle, end, subtree), range_root(start, middle, subtree)]


def _subproof(first: int, start: int, end: int, whole: bool, subtree: Subtree) -> list[bytes]:
    size = end - start
    if first == size:
        return [] if whole else [range_root(start, end, subtree)]
    split = _split(size)
    middle = start + split
    if first <= split:
        return [*_subproof(first, start, middle, whole, subtree), range_root(middle, end, subtree)]
    return [*_subproof(first - split, middle, end, False, subtree), range_root(start, middle, subtree)]
