"""The service: what it routes, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bentoml", reason="needs the host environment; run: make test-fast")

import yaml  # bentoml brings it

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"

PROBE = """
import sys
from helixserve.machine import pin_numpy
pin_numpy()
from proteinmpnn_model.service import ProteinMPNN
print(sorted(api.route for api in ProteinMPNN.apis.values()))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "safetensors", "proteinmpnn"}))
"""


def test_it_serves_the_tasks_and_loads_nothing_of_the_build_environment() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    routes, loaded = done.stdout.splitlines()[-2:]
    assert routes == "['/design', '/score']"
    assert loaded == "[]"


def test_bentofile_names_the_service() -> None:
    assert yaml.safe_load((MODEL / "bentofile.yaml").read_text())["service"] == "proteinmpnn_model.service:ProteinMPNN"
