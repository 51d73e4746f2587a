"""Compiles the native kernels for tests, and makes graphs with random weights for them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from helix_lineage.paths import State
from helixserve.runners import machine

ROOT = Path(__file__).resolve().parents[3]
GENERAL, OWN = ROOT / "platform" / "kernels", ROOT / "models" / "proteinmpnn" / "kernels"
_spec = importlib.util.spec_from_file_location("kernels_build", GENERAL / "build.py")
assert _spec is not None and _spec.loader is not None
build: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


def runnable() -> list[str]:
    """The variants that this processor has, the widest first."""
    return [name for name in build.VARIANTS if name != "x86-64-v4" or machine.machine_class() == "x86-64-v4"]


def compiled(
    folder: Path,
    variants: Sequence[str] = (),
    *,
    compiler: Sequence[str] = (),
    sanitize: bool = False,
    sources: tuple[Path, Path] = (GENERAL, OWN),
) -> dict[str, bytes]:
    """File name → bytes of each variant, which lie in `folder`; compiled once for all tests, and kept by digest."""
    wanted = list(variants or runnable())
    made_by = [*map(str, compiler or build.find_compiler()), version("ziglang") if find_spec("ziglang") else None]
    key = hashlib.sha256(json.dumps([wanted, made_by, sanitize]).encode())
    for path in sorted(path for place in sources for path in place.glob("*.*")):
        data = path.read_bytes()
        key.update(f"{path.name} {len(data)}\n".encode() + data)
    kept = State.find(ROOT).root / "test-kernels" / key.hexdigest()
    if not kept.is_dir():
        made = _build(folder, wanted, compiler, sources, sanitize=sanitize)
        _keep(made, kept)
        return {path.name: path.read_bytes() for path in made}
    folder.mkdir(parents=True, exist_ok=True)
    return {path.name: Path(shutil.copy(path, folder)).read_bytes() for path in sorted(kept.iterdir())}


def _keep(made: Sequence[Path], kept: Path) -> None:
    """Put libraries under their key, whole or not at all; where the checkout cannot be written, they are not kept."""
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as name:
            for path in made:
                shutil.copy(path, name)
            Path(name).chmod(0o755)
            Path(name).rename(kept)
            Path(name).mkdir()  # what the context removes


def compiled_with_fault(folder: Path, variant: str, file: str, old: str, new: str) -> dict[str, bytes]:
    """The variant, after `old` was replaced by `new` in one source file."""
    copies = folder / "general", folder / "own"
    for source, copy in zip((GENERAL, OWN), copies, strict=True):
        shutil.copytree(source, copy)
    (path,) = (copy / file for copy in copies if (copy / file).is_file())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return compiled(folder / "faulty", [variant], sources=copies)


def _build(
    folder: Path, variants: Sequence[str], compiler: Sequence[str], sources: tuple[Path, Path], *, sanitize: bool
) -> list[Path]:
    general, own = sources
    before, build.SOURCES = build.SOURCES, general
    try:
        made: list[Path] = build.build(folder, variants, compiler, own=[own], sanitize=sanitize)
    finally:
        build.SOURCES = before
    return made


def random_graphs(seed: int = 0) -> dict[str, bytes]:
    """Models whose constants have the names and shapes of the exported ones; the native runner reads nothing else."""
    draw = np.random.default_rng(seed)
    wanted: dict[str, dict[str, tuple[int, ...]]] = {"encoder": {}, "decoder_step": {}, "residue_tables": {}}
    encoder = wanted["encoder"]
    encoder |= {"features.embeddings.linear.weight": (16, 66), "features.embeddings.linear.bias": (16,)}
    encoder |= {"features.edge_embedding.weight": (128, 416), **_norm("features.norm_edges"), **_linear("W_e", 128)}
    for name in (f"encoder_layers.{layer}" for layer in range(3)):
        for first in ("W1", "W11"):
            encoder |= {f"{name}.{first}.weight[{at}:{at + 128}]": (128, 128) for at in (0, 128, 256)}
            encoder[f"{name}.{first}.bias"] = (128,)
        for second in ("W2", "W3", "W12", "W13"):
            encoder |= _linear(f"{name}.{second}", 128)
        encoder |= {**_norm(f"{name}.norm1"), **_norm(f"{name}.norm2"), **_norm(f"{name}.norm3"), **_dense(name)}
    for name in (f"decoder_layers.{layer}" for layer in range(3)):
        encoder |= {f"{name}.W1.weight[{at}:{at + 128}]": (128, 128) for at in (0, 128, 384)}
        encoder[f"{name}.W1.bias"] = (128,)
        step = {**_linear(f"{name}.W2", 128), **_linear(f"{name}.W3", 128), **_dense(name)}
        wanted["decoder_step"] |= {**step, **_norm(f"{name}.norm1"), **_norm(f"{name}.norm2")}
        wanted["residue_tables"][f"{name}.W1.weight[256:384]"] = (128, 128)
    wanted["decoder_step"] |= {"W_out.weight": (21, 128), "W_out.bias": (21,)}
    wanted["residue_tables"]["W_s.weight"] = (21, 128)
    return {name: _model({key: _values(draw, key, shape) for key, shape in of.items()}) for name, of in wanted.items()}


def random_backbone(length: int, seed: int = 0, missing: float = 0.1) -> dict[str, np.ndarray]:
    """The encoder's inputs: a random walk of residues, some without a whole backbone."""
    draw = np.random.default_rng(seed)
    steps = draw.normal(size=(length, 3))
    ca = np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    mask = (draw.random(length) >= missing).astype(np.float32)
    mask[0] = 1
    coordinates = (ca[:, None] + draw.normal(scale=1.2, size=(length, 4, 3))).astype(np.float32)
    return {
        "coordinates": coordinates * mask[:, None, None],
        "mask": mask,
        "residue_index": np.arange(length, dtype=np.int64),
        "chain": np.where(np.arange(length) < length // 2, 1, 2).astype(np.int64),
    }


def random_designs(length: int, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What `decode` takes beside an encoded backbone."""
    draw = np.random.default_rng(seed)
    return {
        "order": np.stack([draw.permutation(length) for _ in range(count)]),
        "residues": draw.integers(0, 21, (count, length)),
        "free": draw.random((count, length)) < 0.8,
        "uniforms": draw.random((count, length)),
        "temperature": np.full(count, 1.0),
        "allowed": np.tile(np.arange(21) < 20, (count, 1)),
    }


def _linear(name: str, columns: int, inner: int = 128) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (columns, inner), f"{name}.bias": (columns,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (128,), f"{name}.bias": (128,)}


def _dense(name: str) -> dict[str, tuple[int, ...]]:
    return {**_linear(f"{name}.dense.W_in", 512), **_linear(f"{name}.dense.W_out", 128, 512)}


def _values(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        return (middle + 0.1 * draw.normal(size=shape)).astype(np.float32)
    return (draw.normal(size=shape) / np.sqrt(shape[1])).astype(np.float32)


def _model(constants: dict[str, np.ndarray]) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "random", [value], [], initializers)
    data: bytes = helper.make_model(graph, ir_version=9).SerializeToString()
    return data
