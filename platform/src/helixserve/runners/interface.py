"""What runs a model's graphs: built in, one file each, or a class in the model's own package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


class Runner(ABC):
    """Runs named graphs on arrays; the same inputs give the same bits on one machine class."""

    extra: frozenset[str] = frozenset()
    """Graphs that `run` has beyond the release's: a model may take a faster way where there is one."""

    machine_class: ClassVar[str | None] = None
    """The lowest class that it runs on, where it gives the same bits on every class from there; None where
    the bits follow the very processor (`runners.machine`)."""

    @abstractmethod
    def __init__(self, graphs: Mapping[str, bytes], libraries: Mapping[str, bytes]) -> None:
        """Take a release's files: graph name → serialised ONNX model, file name → shared library."""

    @abstractmethod
    def run(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Outputs by name. Raises ContractError for an unknown graph or inputs that do not fit it."""
