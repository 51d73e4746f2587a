"""Canonical JSON (RFC 8785) and digests: the bytes that every identity is made of.

RFC 8785 writes numbers as IEEE 754 doubles. Its limits are ours: an integer whose
magnitude reaches 2**53 must be given as a decimal string, and NaN and infinities as
the tagged strings `"float:nan"`, `"float:inf"`, `"float:-inf"`; `encode_number` does both.

>>> dumps({"b": 1, "a": [True, None]})
b'{"a":[true,null],"b":1}'
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rfc8785

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.untrusted import parse_json

Json = Any  # a JSON value; recursive aliases cost more than they show here

SAFE_INTEGER = 2**53
_EXPONENT = 1e21  # from here on, RFC 8785 writes a float with an exponent
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def encode_number(value: int | float) -> int | float | str:
    """Give a number in the form that canonical JSON can hold without loss."""
    if isinstance(value, float) and not math.isfinite(value):
        return "float:nan" if math.isnan(value) else ("float:inf" if value > 0 else "float:-inf")
    if isinstance(value, int) and abs(value) >= SAFE_INTEGER:
        return str(value)
    return value


def dumps(value: Json) -> bytes:
    """Write `value` as canonical JSON. Raises CanonicalError for what RFC 8785 cannot hold."""
    try:
        return rfc8785.dumps(_plain(value))
    # A lone surrogate in a key and deep nesting leave rfc8785 as errors of Python's own.
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise CanonicalError(f"no canonical form: {error}") from error


def loads(data: bytes) -> Json:
    """Read canonical JSON; bytes that are valid JSON but not canonical are refused."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise CanonicalError(f"not JSON: {error}") from error
    if dumps(value) != data:
        raise CanonicalError("the JSON is not in canonical form (RFC 8785)")
    return value


def digest_bytes(data: bytes) -> str:
    """The digest `sha256:<64 hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """`sha256:<64 hex>` of a file of ours; `untrusted.file_digest` is for what others can write."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(text: object) -> str:
    """Return `text` if it is a well-formed digest; raises CanonicalError."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise CanonicalError(f"not a digest of the form sha256:<64 hex>: {text!r}")
    return text


def _plain(value: Json) -> Json:
    """Mappings and sequences of any kind as the dict and list that rfc8785 knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_plain(item) for item in value]
    if isinstance(value, float) and SAFE_INTEGER <= abs(value) < _EXPONENT:
        # Written without a point or exponent, it would be read back as an integer that is not safe.
        raise CanonicalError(f"no canonical form: {value!r} is a whole number beyond 2**53")
    return value
