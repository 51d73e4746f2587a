"""Addresses: no two slots share one, and what the machine already routes is left alone."""

from __future__ import annotations

import itertools

from model_to_metal.cluster.network import SLOTS, Addresses, hardware_address


def test_no_two_slots_share_an_address() -> None:
    ranges = [network for slot in range(SLOTS) for network in Addresses(slot).ranges()]
    assert len(set(ranges)) == 3 * SLOTS
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(sorted(ranges)))


def test_a_link_name_fits_the_kernel() -> None:
    assert all(len(Addresses(slot).peer) <= 15 for slot in range(SLOTS))


def test_a_hardware_address_is_local_and_its_clusters_own() -> None:
    first, second = hardware_address("0123abcd"), hardware_address("0123abce")
    assert first != second
    assert int(first.split(":")[0], 16) & 0b11 == 0b10  # locally administered, one receiver
