"""Strict JSON, the same at both HTTP doors.

>>> read_json(b'{"a": 1}')
{'a': 1}
"""

from __future__ import annotations

import json
from typing import Any

from helixserve.errors import InvalidInputError


def read_json(body: bytes) -> Any:
    """Parse UTF-8 JSON without NaN and without a key given twice. Raises InvalidInputError."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}", where="body") from None


def _no_constant(name: str) -> float:
    raise InvalidInputError(f"{name} is not JSON", where="body")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInputError("a JSON object names a key twice", where="body")
    return found
