from __future__ import annotations

import pytest

from proteinmpnn_model.native.library import KernelLibrary
from proteinmpnn_model.native.runner import NativeRunner
from tests.models.proteinmpnn import kernels


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every variant that this processor has, freshly compiled."""
    return kernels.compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def variants(libraries: dict[str, bytes]) -> dict[str, KernelLibrary]:
    found = [KernelLibrary(data, name) for name, data in libraries.items()]
    return {library.variant: library for library in found}


@pytest.fixture(scope="session")
def runners(libraries: dict[str, bytes]) -> dict[str, NativeRunner]:
    """One runner a variant, on the same random weights."""
    graphs = kernels.random_graphs()
    return {name: NativeRunner(graphs, libraries, name) for name in kernels.runnable()}
