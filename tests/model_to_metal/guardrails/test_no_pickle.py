from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_to_metal.guardrails import no_pickle

BITING = {
    "import pickle": "import pickle",
    "import under another name": "import pickle as harmless",
    "from import": "from pickle import loads",
    "dill": "import dill",
    "cloudpickle": "def f():\n    import cloudpickle",
    "joblib": "from joblib import load",
    "submodule": "import joblib.memory",
    "torch.load alone": "import torch\nx = torch.load(path)",
    "torch.load under another name": "import torch as t\nx = t.load(path)",
    "torch.load imported": "from torch import load\nx = load(path)",
    "torch.load with a false": "import torch\nx = torch.load(path, weights_only=False)",
    "torch.load with a variable": "import torch\nx = torch.load(path, weights_only=safe)",
    "torch.load with what nobody sees": "import torch\nx = torch.load(path, **options)",
    "torch.save": "import torch\ntorch.save(x, path)",
    "numpy.load": "import numpy as np\nx = np.load(path, allow_pickle=True)",
    "numpy.load by position": "import numpy as np\nx = np.load(path, None, True)",
    "numpy.load with a variable": "import numpy\nx = numpy.load(path, allow_pickle=careless)",
    "allow_pickle anywhere": "x = read(path, allow_pickle=True)",
    "import by name": "import importlib\nx = importlib.import_module('pickle')",
    "__import__": "x = __import__('_pickle')",
    "pandas": "import pandas as pd\nx = pd.read_pickle(path)",
}

HARMLESS = {
    "safe torch.load": "import torch\nx = torch.load(path, weights_only=True)",
    "numpy.load": "import numpy as np\nx = np.load(path)\ny = np.load(path, allow_pickle=False)",
    "a name": "pickle = 1\nprint(pickle)",
    "json": "import json\nx = json.load(file)",
    "another load": "from safetensors.torch import load\nx = load(data)",
    "a relative import": "from . import pickle_free",
    "a word": "'''Not a pickle.'''",
}


@pytest.mark.parametrize("source", BITING.values(), ids=BITING)
def test_bites(source: str) -> None:
    (finding, *_) = no_pickle.check_source(source.encode(), "src/network.py")
    assert finding.rule == "no-pickle"
    assert finding.file == "src/network.py"
    assert finding.line == source.count("\n") + 1 - source[::-1].index(source.splitlines()[-1][::-1])
    assert finding.fix


@pytest.mark.parametrize("source", HARMLESS.values(), ids=HARMLESS)
def test_leaves_harmless_source_alone(source: str) -> None:
    assert no_pickle.check_source(source.encode(), "a.py") == []


def test_a_file_that_is_not_python_is_a_finding() -> None:
    assert no_pickle.check_source(b"def f(:\n", "a.py")[0].line == 1
    assert no_pickle.check_source(b"\0", "a.py")


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")


def test_pickles_in_the_folder_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        (tmp_path / f"weights-{protocol}.bin").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(1, protocol=0))
    write_archive(tmp_path / "weights.safetensors")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    named = {finding.file for finding in no_pickle.check(tmp_path)}
    assert named == {path.name for path in tmp_path.iterdir()}


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "text.txt").write_text("pickle.")
    (tmp_path / "bytes.bin").write_bytes(b"\x80\x02 no pickle")
    (tmp_path / "empty.bin").write_bytes(b"")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "archive.zip").write_bytes(buffer.getvalue())
    assert no_pickle.check(tmp_path) == []
