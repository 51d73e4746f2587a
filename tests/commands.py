"""Command lines, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest


def exit_status(main: Callable[[], None], *words: object) -> int:
    """The status that the command line `words` ends with; 0 where it says none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as caught:
            main()
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0
