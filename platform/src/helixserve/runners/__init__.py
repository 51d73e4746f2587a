"""Runners by name. A release names its runner; there is no silent fallback."""

from __future__ import annotations

from collections.abc import Mapping

from helixserve.errors import ContractError
from helixserve.runners.interface import Runner

__all__ = ["RUNNERS", "Runner", "open_runner"]

RUNNERS = ("onnxruntime", "native")
"""The names that `[serve] runner` may hold."""


def open_runner(name: str, graphs: Mapping[str, bytes], libraries: Mapping[str, bytes] | None = None) -> Runner:
    """The runner of that name. Raises ContractError for an unknown name.

    Args:
        name: one of RUNNERS.
        graphs: graph name → serialised ONNX model.
        libraries: file name → bytes of the native runner's kernels.
    """
    if name == "onnxruntime":
        # A runner loads its library only when it is used.
        from helixserve.runners.onnxruntime_runner import OnnxRuntimeRunner  # noqa: PLC0415

        return OnnxRuntimeRunner(graphs)
    if name == "native":
        from helixserve.runners.native_runner import NativeRunner  # noqa: PLC0415

        return NativeRunner(graphs, libraries or {})
    raise ContractError(
        f"no runner {name!r}", where="model.toml [serve] runner", fix=f"use one of {', '.join(RUNNERS)}"
    )
