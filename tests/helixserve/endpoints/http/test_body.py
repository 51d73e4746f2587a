"""Bodies as they come in: compressed ones are unpacked within the limit, and refused early beyond it."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, strategies as st

from helixserve.endpoints.http.body import RequestBody
from helixserve.errors import InvalidInputError, MediaTypeError, TooLargeError

LIMIT = 100_000
PACKERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "": bytes}


def taken(data: bytes, *codings: str, pieces: int = 7) -> bytes:
    body = RequestBody({"content-encoding": list(codings)}, LIMIT)
    for start in range(0, len(data), pieces):
        body.take(data[start : start + pieces])
    return body.whole()


@given(
    data=st.binary(max_size=500),
    coding=st.sampled_from(sorted(PACKERS)),
    pieces=st.integers(1, 600),
    members=st.integers(1, 3),
)
def test_what_was_packed_comes_out(data: bytes, coding: str, pieces: int, members: int) -> None:
    members = members if coding.endswith("gzip") else 1  # only gzip may come in parts, as bgzip writes it
    packed = b"".join(PACKERS[coding](data) for _ in range(members))
    assert taken(packed, coding.upper(), pieces=pieces) == data * members


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_unpacks_to_more_than_the_limit_is_given_up_there(coding: str) -> None:
    assert len(taken(PACKERS[coding](bytes(LIMIT)), coding)) == LIMIT
    bomb = PACKERS[coding](bytes(64_000_000))
    assert len(bomb) < LIMIT
    body = RequestBody({"content-encoding": [coding]}, LIMIT)
    tracemalloc.start()
    body.take(bomb)
    with pytest.raises(TooLargeError, match="unpacks to more"):
        body.whole()
    assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    tracemalloc.stop()


@pytest.mark.parametrize(
    "codings", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "deflate"], ["identity, br"], ["gzip;q=1"]]
)
def test_another_coding_is_refused_with_what_is_served(codings: list[str]) -> None:
    with pytest.raises(MediaTypeError, match="use gzip, deflate or none"):
        taken(b"x", *codings)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}")[:5],
        gzip.compress(b"{}") + b"more",
        gzip.compress(b"") * 1025,
        gzip.compress(b"{}")[:-8] + bytes(8),
    ],
    ids=["plain", "cut", "cut in the header", "followed", "many parts", "wrong checksum"],
)
def test_a_damaged_body_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"gzip"):
        taken(data, "gzip", pieces=len(data))


def test_an_empty_body_is_empty_whatever_is_announced() -> None:
    assert taken(b"", "gzip") == taken(b"", "br") == b""
