"""A server to attack: the small model, with nothing in its contract that makes it slow or faulty on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.helixserve import support
from tests.helixserve.support import Serving

_CHANGES = (("maximum = 60.0", "maximum = 0.0"), ("maximum = 50", "maximum = 3"), ("maximum = 1000000", "maximum = 10"))
"""No waiting, few items and short ones: a case costs a millisecond."""


@contextlib.contextmanager
def attacked(folder: Path, *, weaken: str | None = None) -> Iterator[Serving]:
    """The server; `weaken` is Python that plants a fault, run in its process before anything else."""
    place = support.make_tiny(folder)
    contract = place.home / "model" / "model.toml"
    text = contract.read_text()
    for old, new in _CHANGES:
        assert old in text
        text = text.replace(old, new)
    contract.write_text(text)
    if weaken is not None:
        path = place.home / "model" / "src" / "tiny_model" / "service.py"
        path.write_text(path.read_text() + weaken)
    support.publish(place, "tiny")
    with support.serving(place) as server:
        yield server
