"""Strict JSON, the same at both HTTP endpoints.

>>> read_json(b'{"a": 1}')
{'a': 1}
"""

from __future__ import annotations

import json
from typing import Any

from helixserve.endpoints.values import check_json
from helixserve.errors import InvalidInputError

NESTING = 16
"""How deep lists and objects may lie in each other, where `[limits] nesting` says nothing."""


def read_json(body: bytes, nesting: int = NESTING) -> Any:
    """Parse UTF-8 JSON without NaN, lone surrogates, or a key twice. Raises InvalidInputError or TooLargeError."""
    check_json(body)
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise _too_deep(nesting) from None
    except ValueError as error:
        raise InvalidInputError(f"the body is not JSON: {error}", where="body") from None
    _check_nesting(value, nesting)
    if b"\\u" in body:  # the only way to spell half a character, for the body itself is UTF-8
        _check_text(value)
    return value


def _check_nesting(value: Any, nesting: int) -> None:
    level = [value]
    for _ in range(nesting):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise _too_deep(nesting)


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            "a text in the body is not valid Unicode: half a surrogate pair", where="body"
        ) from None


def _too_deep(nesting: int) -> InvalidInputError:
    return InvalidInputError(f"the body nests deeper than {nesting} levels", where="body", fix="send flat lists")


def _no_constant(name: str) -> float:
    raise InvalidInputError(f"{name} is not JSON", where="body")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInputError("a JSON object names a key twice", where="body")
    return found
