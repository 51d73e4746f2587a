"""The body of one HTTP request as it comes in, unpacked where it is compressed, and bounded.

`gzip` and `deflate` are unpacked piece by piece, so that a body that would unpack to more than the
limit is given up at the limit. What a refused body still sends is thrown away as it comes.

>>> body = RequestBody({"content-encoding": ["gzip"]}, limit=100)
>>> body.take(gzip.compress(b"{}"))
>>> body.whole()
b'{}'
"""

from __future__ import annotations

import gzip  # noqa: F401  # the example above
import zlib
from collections.abc import Mapping, Sequence

from helixserve.errors import HelixServeError, InvalidInputError, MediaTypeError, OverloadedError, TooLargeError
from helixserve.execution.budget import Reservation

Headers = Mapping[str, Sequence[str]]

MEDIA_TYPES = ("application/json", "application/octet-stream")
"""octet-stream is the binary tensor extension's; a body without a media type is taken for JSON."""

CODINGS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""Content codings that are unpacked, and what zlib calls them."""

_MEMBERS = 1024
"""Most parts of one gzip body: some programs write one every 64 KiB, and each costs time whatever is in it."""


class RequestBody:
    """Collects a body of at most `limit` bytes, compressed or not.

    Args:
        headers: of the request; all values of each name.
        limit: largest body in bytes, before and after unpacking.
        hold: counts what is kept; the caller gives it back when the request ends.
    """

    def __init__(self, headers: Headers, limit: int, hold: Reservation | None = None) -> None:
        self._headers = headers
        self._limit = limit
        self._hold = hold
        self._chunks: list[bytes] = []
        self._came = self._held = 0
        self._refusal: HelixServeError | None = None
        self._unpacker: _Unpacker | None = None
        try:
            self._unpacker = _unpacker(headers.get("content-encoding", ()))
        except MediaTypeError as error:
            self._refusal = error
        if any(_announces(length, limit) for length in headers.get("content-length", ())):
            self._refuse_size()

    @property
    def overloaded(self) -> bool:
        """Whether there was no room for it; then an answer need not wait for its end."""
        return isinstance(self._refusal, OverloadedError)

    def take(self, chunk: bytes) -> None:
        """The next bytes from the client."""
        self._came += len(chunk)
        if self._came > self._limit:
            self._refuse_size()
        if self._refusal is not None or not chunk:
            return
        try:
            self._keep(chunk if self._unpacker is None else self._unpacker.feed(chunk, self._limit - self._held + 1))
        except (InvalidInputError, OverloadedError) as error:
            self._refuse(error)

    def whole(self) -> bytes:
        """The whole body, unpacked. Raises HelixServeError for one that is not served."""
        if self._refusal is not None and (self._came or isinstance(self._refusal, TooLargeError)):
            raise self._refusal
        if self._came:
            check_media_type(self._headers)
            if self._unpacker is not None:
                self._unpacker.check_ended()
        return b"".join(self._chunks)

    def _keep(self, data: bytes) -> None:
        if self._hold is not None:
            self._hold.grow(len(data))
        self._chunks.append(data)
        self._held += len(data)
        if self._held > self._limit:
            self._refuse_size()

    def _refuse_size(self) -> None:
        packed = "" if self._unpacker is None else ", or unpacks to more"
        what = f"the body exceeds {self._limit} bytes{packed}"
        self._refuse(TooLargeError(what, where="body", fix="send a smaller structure"))

    def _refuse(self, error: HelixServeError) -> None:
        self._chunks.clear()
        if self._hold is not None:
            self._hold.release()
        self._refusal = error


def check_media_type(headers: Headers) -> None:
    """Raises MediaTypeError for a body that is neither JSON nor binary tensors."""
    for value in headers.get("content-type", ()):
        media_type = value.partition(";")[0].strip().lower()
        if media_type not in MEDIA_TYPES:
            raise MediaTypeError(f"{media_type!r} is not served", where="content-type", fix="send application/json")


class _Unpacker:
    """Unpacks one coding, piece by piece."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._zlib = zlib.decompressobj(CODINGS[coding])
        self._members = 1

    def feed(self, chunk: bytes, most: int) -> bytes:
        """Unpack the next bytes, at most `most` of what they hold. Raises InvalidInputError."""
        unpacked = b""
        while chunk and len(unpacked) < most:
            if self._zlib.eof:
                self._next_member()
            try:
                unpacked += self._zlib.decompress(chunk, most - len(unpacked))
            except zlib.error as error:
                raise InvalidInputError(f"the body is not {self._coding}: {error}", where="body") from None
            chunk = self._zlib.unused_data
        return unpacked

    def check_ended(self) -> None:
        """Raises InvalidInputError when bytes are missing at the end."""
        if not self._zlib.eof:
            raise InvalidInputError(f"the {self._coding} body ends too early", where="body")

    def _next_member(self) -> None:
        self._members += 1
        if self._coding == "deflate" or self._members > _MEMBERS:
            raise InvalidInputError(f"bytes follow the {self._coding} body", where="body")
        self._zlib = zlib.decompressobj(CODINGS[self._coding])


def _unpacker(values: Sequence[str]) -> _Unpacker | None:
    """What unpacks a body with these `content-encoding`s. Raises MediaTypeError."""
    codings = [coding.strip().lower() for value in values for coding in value.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in CODINGS:
        what = f"bodies compressed with {', '.join(codings)!r} are not served"
        raise MediaTypeError(what, where="content-encoding", fix="use gzip, deflate or none")
    return _Unpacker(codings[0])


def _announces(length: str, limit: int) -> bool:
    # Python refuses to read a number of thousands of digits.
    return length.isascii() and length.isdigit() and (len(length) > 19 or int(length) > limit)
