"""Malformed inputs for the native runner: whatever the numbers, it answers or refuses, and C reads nothing else.

`survives(runner, seed)` spoils one input of one graph, as the seed says. A process with checked
kernels (`test_runner.py`, sanitizers) runs it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helixserve.errors import ContractError
from proteinmpnn_model.native.runner import NativeRunner
from tests.models.proteinmpnn.kernels import random_backbone, random_designs

Draw = np.random.Generator
LENGTHS = (1, 2, 7, 20, 48, 49)

EXTREME = {
    "f": [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e-45, 0.5],
    "i": [-1, 0, 1, 20, 21, 49, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63)],
    "b": [True, False],
}


def _values(array: np.ndarray, draw: Draw) -> np.ndarray:
    """Some elements, or all of them, are extreme."""
    spoiled = array.copy()
    mask = draw.random(array.shape) < draw.choice([0.02, 0.5, 1.0])
    with np.errstate(over="ignore"):
        spoiled[mask] = np.array(EXTREME[array.dtype.kind])[draw.integers(0, len(EXTREME[array.dtype.kind]))]
    return spoiled


def _cut(array: np.ndarray, draw: Draw) -> np.ndarray:
    axis = int(draw.integers(0, array.ndim))
    return np.take(array, np.arange(int(draw.integers(0, array.shape[axis]))), axis=axis)


def _longer(array: np.ndarray, draw: Draw) -> np.ndarray:
    axis = int(draw.integers(0, array.ndim))
    return np.concatenate([array, np.take(array, [0] * int(draw.integers(1, 70)), axis=axis)], axis=axis)


def _type(array: np.ndarray, draw: Draw) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return array.astype(draw.choice(["float64", "float32", "int64", "int32", "uint8", "bool", ">f4", "complex64"]))


SPOILS: tuple[Callable[[np.ndarray, Draw], Any], ...] = (
    _values, _cut, _longer, _type,
    lambda array, _: array.reshape(-1),
    lambda array, _: array[None],
    lambda array, _: array.T,
    lambda array, _: array[::-1],
    lambda array, _: np.repeat(array, 2, axis=-1)[..., ::2],
    lambda array, _: np.broadcast_to(array.reshape(-1)[0], array.shape),
    lambda array, _: np.asfortranarray(array),
    lambda array, _: array.tolist(),
    lambda *_: None,
)  # fmt: skip


def _graphs(runner: NativeRunner, draw: Draw) -> dict[str, dict[str, np.ndarray]]:
    length, count = int(draw.choice(LENGTHS)), int(draw.integers(1, 4))
    backbone = random_backbone(length, int(draw.integers(0, 100)))
    rows, neighbours = int(draw.integers(1, 70)), int(draw.integers(1, 49))
    messages = {f"messages_{at}": draw.normal(size=(rows, neighbours, 128)).astype(np.float32) for at in range(3)}
    return {
        "encoder": backbone,
        "decode": {"mask": backbone["mask"], **runner.run("encoder", backbone), **random_designs(length, count)},
        "decoder_step": {**messages, "nodes": draw.normal(size=(rows, 128)).astype(np.float32)},
        "residue_tables": {"residues": draw.integers(0, 21, 5)},
    }


def survives(runner: NativeRunner, seed: int) -> bool:
    """Whether the spoilt input was answered; False: it was refused. Raises for anything else."""
    draw = np.random.default_rng(seed)
    inputs = _graphs(runner, draw)
    graph = list(inputs)[int(draw.integers(0, len(inputs)))]
    whole = runner.run(graph, inputs[graph])
    names = sorted(inputs[graph])
    name = names[int(draw.integers(0, len(names)))]
    spoil = SPOILS[int(draw.integers(0, len(SPOILS)))]
    spoiled = spoil(inputs[graph][name], draw)
    try:
        found = runner.run(graph, {**inputs[graph], name: spoiled})
    except ContractError:
        return False
    except ValueError as error:
        if "no positive weight" not in str(error):
            raise
        return False
    given = inputs[graph][name]
    if isinstance(spoiled, np.ndarray) and spoiled.dtype == given.dtype and np.array_equal(spoiled, given):
        # Another layout in memory of the same numbers: the same answer.
        assert {key: array.tobytes() for key, array in found.items()} == {
            key: array.tobytes() for key, array in whole.items()
        }
    return True
