"""How many values a request holds, counted before it is parsed.

A value of two bytes of JSON or protobuf becomes an object of up to a hundred, and is looked at one by one
in the event loop: 16 MB of `[],` took 900 MB and held every endpoint up for 16 s. So requests are
bounded in values as well as in bytes. Raw tensors and long texts count as one value each.

>>> check_json(b'{"a": [1, 2]}')
>>> check_json(b"[" + b"0," * VALUES + b"0]")
Traceback (most recent call last):
...
helixserve.errors.TooLargeError: the body holds more than 100000 values (body); send large tensors as raw bytes
"""

from __future__ import annotations

import re
from typing import Any

from helixserve.errors import InvalidInputError, TooLargeError

VALUES = 100_000
"""Most numbers, texts, lists and objects of one request, and most elements of a tensor of texts."""

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)
"""A text, or what comes before a value. A text that has no end is one too: to look for its end twice takes for ever."""
_PER_VALUE = 3
"""Most tokens of a value: a name, the value, and the comma after it."""

_VARINT, _EIGHT, _LENGTH, _GROUP, _END, _FOUR = range(6)
"""How protobuf writes a field."""
_HIGH = bytes(range(128, 256))
"""Bytes that go on in the next one, in protobuf's integers."""


def check_json(body: bytes) -> None:
    """Raises TooLargeError for JSON of too many values; whether it is JSON, the parser says."""
    # Fast, and right for all but texts that hold these letters themselves.
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= VALUES:
        return
    values = 0
    for tokens, found in enumerate(_TOKEN.finditer(body)):
        values += found[0][:1] != b'"'
        if values > VALUES or tokens > _PER_VALUE * VALUES:
            raise _too_many("body")


def check_message(data: bytes, kind: Any) -> None:
    """Raises TooLargeError for a protobuf message of too many values, InvalidInputError for what is not a message.

    Args:
        kind: the descriptor of what it should be.
    """
    if len(data) <= VALUES:  # none takes less than a byte
        return
    values, parts = 0, [(0, len(data), kind)]
    while parts:
        at, end, kind = parts.pop()
        fields = kind.fields_by_number
        while at < end:
            values += 1
            key, at = _varint(data, at)
            start, at = _skip(data, at, key & 7)
            field = fields.get(key >> 3)
            if field is not None and key & 7 == _LENGTH:
                if field.message_type is not None:
                    parts.append((start, at, field.message_type))
                elif field.cpp_type != field.CPPTYPE_STRING:
                    values += _packed(field, data[start:at])
            if values > VALUES:
                raise _too_many("message")
        if at != end:
            raise malformed()


def check_texts(name: str, count: int) -> None:
    """Raises TooLargeError for a tensor of too many texts, whose raw bytes become an object each, too."""
    if count > VALUES:
        raise TooLargeError(f"{name} holds {count} texts, at most {VALUES} are served", where=name)


def malformed() -> InvalidInputError:
    """What is said of bytes that are no message."""
    return InvalidInputError("the message cannot be parsed", where="message", fix="send protobuf of the .proto")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise malformed()


def _skip(data: bytes, at: int, how: int) -> tuple[int, int]:
    """Where a field's bytes begin and end. The fields of a group follow as if they were its parent's."""
    if how == _VARINT:
        return at, _varint(data, at)[1]
    if how == _LENGTH:
        size, at = _varint(data, at)
        return at, at + size
    if how in (_GROUP, _END):
        return at, at
    if how not in (_EIGHT, _FOUR):
        raise malformed()
    return at, at + (8 if how == _EIGHT else 4)


def _packed(field: Any, data: bytes) -> int:
    """How many numbers lie packed there."""
    size = {field.CPPTYPE_FLOAT: 4, field.CPPTYPE_DOUBLE: 8}.get(field.cpp_type)
    return len(data) // size if size else len(data.translate(None, _HIGH))


def _too_many(where: str) -> TooLargeError:
    what = f"the {where} holds more than {VALUES} values"
    return TooLargeError(what, where=where, fix="send large tensors as raw bytes")
