from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, strategies as st

from helix_lineage.tlog import merkle

_leaves = st.lists(st.binary(max_size=4), min_size=1, max_size=70).map(
    lambda entries: [merkle.leaf_hash(entry) for entry in entries]
)


def _mth(entries: list[bytes]) -> bytes:
    """RFC 6962, 2.1, by its letter."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + _mth(entries[:split]) + _mth(entries[split:])).digest()


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_roots_are_those_of_the_rfc(entries: list[bytes]) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    assert merkle.root(leaves) == _mth(entries)
    assert merkle.range_root(0, len(leaves), merkle.from_leaves(leaves)) == _mth(entries)


def test_known_roots() -> None:
    # The vectors that Certificate Transparency implementations share.
    entries = [
        bytes.fromhex(text)
        for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    ]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle.root(leaves[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle.root(leaves[:7]).hex() == "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"
    assert merkle.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(_leaves, st.data())
def test_every_leaf_has_a_proof_that_holds(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = merkle.prove_inclusion(index, len(leaves), merkle.from_leaves(leaves))
    assert merkle.verify_inclusion(index, len(leaves), leaves[index], proof, merkle.root(leaves))


@given(_leaves, st.data())
def test_an_inclusion_proof_holds_for_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    size, root = len(leaves), merkle.root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.prove_inclusion(index, size, merkle.from_leaves(leaves))
    other = data.draw(st.integers(0, size - 1))
    if leaves[other] != leaves[index]:
        assert not merkle.verify_inclusion(index, size, leaves[other], proof, root)
    assert not merkle.verify_inclusion(index, size, merkle.leaf_hash(b"another"), proof, root)
    assert not merkle.verify_inclusion(index, size, leaves[index], [*proof, bytes(32)], root)
    assert not merkle.verify_inclusion(size, size, leaves[index], proof, root)
    assert not merkle.verify_inclusion(-1, size, leaves[index], proof, root)
    assert not merkle.verify_inclusion(index, size, leaves[index], proof, bytes(32))
    for at in range(len(proof)):
        broken = [*proof[:at], bytes(32), *proof[at + 1 :]]
        assert not merkle.verify_inclusion(index, size, leaves[index], broken, root)
        assert not merkle.verify_inclusion(index, size, leaves[index], proof[:at] + proof[at + 1 :], root)


@given(_leaves, st.data())
def test_a_longer_tree_proves_that_it_extends_a_shorter_one(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves)))
    proof = merkle.prove_consistency(first, len(leaves), merkle.from_leaves(leaves))
    assert merkle.verify_consistency(first, len(leaves), merkle.root(leaves[:first]), merkle.root(leaves), proof)


@given(_leaves, st.data())
def test_a_consistency_proof_holds_for_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    first, second = data.draw(st.integers(1, len(leaves))), len(leaves)
    old, new = merkle.root(leaves[:first]), merkle.root(leaves)
    proof = merkle.prove_consistency(first, second, merkle.from_leaves(leaves))
    assert not merkle.verify_consistency(first, second, bytes(32), new, proof)
    assert not merkle.verify_consistency(first, second, old, bytes(32), proof)
    assert not merkle.verify_consistency(first, second, old, new, [*proof, bytes(32)])
    assert not merkle.verify_consistency(0, second, old, new, proof)
    assert not merkle.verify_consistency(second + 1, second, old, new, proof)
    for at in range(len(proof)):
        assert not merkle.verify_consistency(first, second, old, new, [*proof[:at], bytes(32), *proof[at + 1 :]])


@given(_leaves, st.data())
def test_a_history_that_was_rewritten_has_no_consistency_proof(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves)))
    changed = list(leaves)
    changed[data.draw(st.integers(0, first - 1))] = merkle.leaf_hash(b"rewritten entry")
    proof = merkle.prove_consistency(first, len(leaves), merkle.from_leaves(changed))
    assert not merkle.verify_consistency(first, len(leaves), merkle.root(leaves[:first]), merkle.root(changed), proof)


@given(_leaves)
def test_a_frontier_grows_apart_from_its_copy(leaves: list[bytes]) -> None:
    frontier = merkle.Frontier()
    for leaf in leaves[:-1]:
        frontier.append(leaf)
    copy = frontier.copy()
    copy.append(leaves[-1])
    assert (frontier.size, frontier.root) == (len(leaves) - 1, merkle.root(leaves[:-1]))
    assert (copy.size, copy.root) == (len(leaves), merkle.root(leaves))


def test_proofs_of_what_is_not_there_are_a_callers_bug() -> None:
    subtree = merkle.from_leaves([bytes(32)])
    for index, size in ((1, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="leaf"):
            merkle.prove_inclusion(index, size, subtree)
    for first, second in ((0, 1), (2, 1)):
        with pytest.raises(ValueError, match="consistency"):
            merkle.prove_consistency(first, second, subtree)


def test_a_subtree_that_was_asked_for_is_remembered() -> None:
    leaves = [merkle.leaf_hash(bytes([at])) for at in range(4)]
    asked: list[int] = []

    class Counted(list[bytes]):
        def __getitem__(self, at: object) -> bytes:  # type: ignore[override]
            assert isinstance(at, int)
            asked.append(at)
            return leaves[at]

    subtree = merkle.from_leaves(Counted(leaves))
    assert subtree(2, 0) == subtree(2, 0) == merkle.root(leaves)
    assert asked == [0, 1, 2, 3]


def test_an_empty_proof_shows_nothing_about_a_tree_between_powers_of_two() -> None:
    leaves = [merkle.leaf_hash(bytes([at])) for at in range(4)]
    assert not merkle.verify_consistency(3, 4, merkle.root(leaves[:3]), merkle.root(leaves), [])


@given(st.integers(0, 700), st.integers(0, 50))
def test_a_frontier_begun_anywhere_goes_on_as_one_begun_at_the_start(size: int, more: int) -> None:
    leaves = [merkle.leaf_hash(at.to_bytes(2, "big")) for at in range(size + more)]
    begun = merkle.Frontier.of(size, lambda start, end: merkle.root(leaves[start:end]))
    assert begun.size == size
    assert begun.root == merkle.root(leaves[:size])
    begun.extend(leaves[size:])
    assert begun.root == merkle.root(leaves)
