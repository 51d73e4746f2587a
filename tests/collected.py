"""A pytest plugin: prints every collected test and its marks as one line of JSON, for `test_targets.py`.

python -m pytest -p tests.collected --collect-only -q
"""

from __future__ import annotations

import json
from typing import Any

import pytest

PREFIX = "collected: "


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """After every hook that marks or deselects."""
    found = {item.nodeid: sorted({mark.name for mark in item.iter_markers()}) for item in session.items}
    print(f"\n{PREFIX}{json.dumps(found)}")


def read(output: str) -> dict[str, Any]:
    """Test id → names of its marks, of what such a run printed."""
    (line,) = (line for line in output.splitlines() if line.startswith(PREFIX))
    found: dict[str, Any] = json.loads(line.removeprefix(PREFIX))
    return found
