"""What runs a model's graphs. One file per implementation; they import this one only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


class Runner(ABC):
    """Runs named graphs on arrays; the same inputs give the same bits on one machine class."""

    extra: frozenset[str] = frozenset()
    """Graphs that `run` has beyond the release's: a model may take a faster way where there is one."""

    @abstractmethod
    def run(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Outputs by name. Raises ContractError for an unknown graph or inputs that do not fit it."""
