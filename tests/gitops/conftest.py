"""The tools that render and check gitops/argocd, and its files in the working tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helix_lineage.paths import State
from model_to_metal.gitops import layout
from model_to_metal.gitops.render import Renderer
from model_to_metal.host.checkout import Checkout

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    """kustomize and kubeconform; built on the first run ever."""
    return Renderer.ready(State(Path(os.environ.get("HELIX_STATE", ROOT / ".helix"))))


@pytest.fixture
def files() -> dict[str, bytes]:
    """Path → bytes under gitops/argocd; a test may change its own."""
    return {path: (ROOT / path).read_bytes() for path in Checkout(ROOT).files(layout.ROOT)}
