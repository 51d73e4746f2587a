"""Runners by the name that a release gives in `[serve] runner`. There is no silent fallback.

A name is one of RUNNERS, or `package.module:Class` in the model's own package.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from helixserve.errors import ContractError
from helixserve.runners.interface import Runner

__all__ = ["RUNNERS", "Runner", "find", "open_runner"]

RUNNERS: Mapping[str, str] = {"onnxruntime": "helixserve.runners.onnxruntime_runner:OnnxRuntimeRunner"}
"""Those that are built in, and where: a runner's library is loaded only when it is used."""


def find(name: str) -> type[Runner]:
    """The runner of that name. Raises ContractError for an unknown one, or a class that is none."""
    module, _, kind = RUNNERS.get(name, name).partition(":")
    where = "model.toml [serve] runner"
    if not kind:
        fix = f"use one of {', '.join(RUNNERS)}, or package.module:Class of the model's package"
        raise ContractError(f"no runner {name!r}", where=where, fix=fix)
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise ContractError(f"the runner {name!r} cannot be imported: {error}", where=where) from error
    if not (isinstance(found, type) and issubclass(found, Runner)):
        raise ContractError(f"{name!r} is not a subclass of helixserve.runners.Runner", where=where)
    return found


def open_runner(name: str, graphs: Mapping[str, bytes], libraries: Mapping[str, bytes] | None = None) -> Runner:
    """The runner of that name, with a release's files. Raises ContractError for an unknown name.

    Args:
        name: as `find` takes it.
        graphs: graph name → serialised ONNX model.
        libraries: file name → bytes of compiled kernels, for a runner that has some.
    """
    return find(name)(graphs, libraries or {})
