"""Runners by name. A release names its runner; there is no silent fallback."""

from __future__ import annotations

from collections.abc import Mapping

from helixserve.errors import ContractError
from helixserve.runners.interface import Runner

__all__ = ["RUNNERS", "Runner", "open_runner"]

RUNNERS = ("onnxruntime",)
"""The names that `[serve] runner` may hold."""


def open_runner(name: str, graphs: Mapping[str, bytes]) -> Runner:
    """The runner of that name over serialised graphs. Raises ContractError for an unknown name."""
    if name == "onnxruntime":
        # A runner loads its library only when it is used.
        from helixserve.runners.onnxruntime_runner import OnnxRuntimeRunner  # noqa: PLC0415

        return OnnxRuntimeRunner(graphs)
    raise ContractError(
        f"no runner {name!r}", where="model.toml [serve] runner", fix=f"use one of {', '.join(RUNNERS)}"
    )
