"""What is added to a request is told from what it computed, request by request."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.request import ENDPOINTS, paired

NAMES = list(ENDPOINTS)


def call(endpoint: str, computed: float, status: str = "OK") -> dict[str, Any]:
    return {"endpoint": endpoint, "status": status, "compute_milliseconds": computed}


def test_a_slow_computation_adds_nothing() -> None:
    """Where percentiles are subtracted, the one request of a hundred that computes for a second decides."""
    computed = [1000.0 if number % 100 == 0 else 30.0 for number in range(1000)]
    asked = [(NAMES[0], each + 2.0) for each in computed]
    added, seen = paired(asked, [call("json", each) for each in computed], skip=0)[NAMES[0]]
    assert (added, seen) == ([2.0] * 1000, computed)


def test_the_first_requests_to_each_endpoint_do_not_count() -> None:
    asked = [(name, 5.0) for _ in range(3) for name in NAMES]
    found = paired(asked, [call(ENDPOINTS[name], 1.0) for name, _ in asked], skip=2)
    assert found == {name: ([4.0], [1.0]) for name in NAMES}


@pytest.mark.parametrize("spoil", ["other endpoint", "too few", "too many", "refused"])
def test_a_log_of_other_requests_is_refused(spoil: str) -> None:
    asked = [(name, 5.0) for name in NAMES]
    calls = [call(ENDPOINTS[name], 1.0) for name in NAMES]
    if spoil == "other endpoint":
        calls[0], calls[-1] = calls[-1], calls[0]
    elif spoil == "too few":
        calls.pop()
    elif spoil == "too many":
        calls.append(calls[-1])
    else:
        calls[1] = call(calls[1]["endpoint"], 1.0, "UNAVAILABLE")
    with pytest.raises(RuntimeError, match="not that of the requests"):
        paired(asked, calls, skip=0)
