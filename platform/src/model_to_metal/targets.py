"""What a release can be compiled for: the names that `[target] name` in `model.toml` may hold.

A target decides which runner serves the release, what the compile stage is given beside the
exported graphs, and so what an answer's bits depend on (lineage/FORMAT.md, machine class).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One target."""

    runner: str | None
    """The runner that serves it, as in `[serve] runner`; None: one of the model's own package."""
    inputs: tuple[str, ...] = ()
    """What compile is given beside the exported graphs: roles of input folders."""
    sources: tuple[str, ...] = ()
    """Where the sources of these inputs lie in the checkout; `{model}` is the model's folder."""


TARGETS: Mapping[str, Target] = {
    "onnxruntime-cpu": Target("onnxruntime"),
    "native-cpu": Target(None, inputs=("kernels",), sources=("platform/kernels", "{model}/kernels")),
}
"""By name."""
