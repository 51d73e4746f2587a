"""Between a request's bytes and an answer's, Python computes only what IEEE 754 fixes to the last bit.

Outside the kernels (whose bits `tests/models/proteinmpnn/native` compares) numpy moves, compares, converts
and adds element by element. What adds many numbers up, multiplies matrices, or calls libm has other
bits on other processors, and is refused here where the model's code, or what it imports, names it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_to_metal.pipeline.closure import imported

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [ROOT / "models/proteinmpnn/src", ROOT / "platform/src"]
ENTRIES = (
    "proteinmpnn_model.model",
    "helixserve.execution.replay",
    "helixserve.execution.core",
    "proteinmpnn_model.native.runner",
)
OTHERS = {"helixserve.runners.onnxruntime_runner"}
"""Served by another runner; its releases have the class of their processor."""

EXACT = frozenset(
    [
        "arange",
        "argsort",
        "array",
        "array_equal",
        "asarray",
        "ascontiguousarray",
        "bool_",
        "concatenate",
        "count_nonzero",
        "dtype",
        "empty",
        "errstate",
        "float16",
        "float32",
        "float64",
        "frombuffer",
        "full_like",
        "iinfo",
        "inf",
        "int8",
        "int16",
        "int32",
        "int64",
        "isfinite",
        "isinf",
        "isnan",
        "ldexp",
        "minimum",
        "ndarray",
        "prod",
        "random",
        "repeat",
        "rint",
        "sort",
        "stack",
        "take_along_axis",
        "tile",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "where",
        "zeros",
        "zeros_like",
    ]
)
"""Of numpy. `prod` is of extents, and `random` stands for Philox, whose integers are exact."""

EXACT_MATH = frozenset(["fsum", "inf", "isfinite", "isnan", "prod", "floor"])
"""Of math. `fsum` rounds once."""

ADDING = frozenset(["sum", "mean", "std", "var", "dot", "cumsum", "trace", "matmul", "vdot", "inner"])
"""Methods of arrays that add up."""


def reached() -> Iterator[tuple[str, str]]:
    """Name and source of each module of ours on the way."""
    waiting, seen = list(ENTRIES), set(OTHERS)
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        relative = Path(*module.split("."))
        for path in (root / name for root in SOURCES for name in (f"{relative}.py", relative / "__init__.py")):
            if path.is_file():
                source = path.read_text()
                waiting += imported(source.encode(), module, is_package=path.name == "__init__.py")
                yield module, source


def inexact(source: str) -> list[str]:
    """What a module names whose bits IEEE 754 does not fix."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            found.append("@")
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        known = {"np": EXACT, "numpy": EXACT, "math": EXACT_MATH}.get(owner or "")
        if (known is not None and node.attr not in known) or (known is None and node.attr in ADDING):
            found.append(f"{owner or '…'}.{node.attr}")
    return found


def test_nothing_on_the_way_depends_on_the_processor() -> None:
    modules = dict(reached())
    assert {"proteinmpnn_model.featurize", "proteinmpnn_model.portable", "helixserve.model.sampling"} <= set(modules)
    assert {name: wrong for name, source in modules.items() if (wrong := inexact(source))} == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("np.exp(x)", "np.exp"), ("a @ b", "@"), ("x.sum(axis=0)", "x.sum"), ("np.linalg.norm(x)", "np.linalg"),
        ("math.exp(1)", "math.exp"), ("values.mean()", "values.mean"), ("np.add.reduce(x)", "np.add"),
    ],
)  # fmt: skip
def test_bites(source: str, said: str) -> None:
    assert inexact(source) == [said]
