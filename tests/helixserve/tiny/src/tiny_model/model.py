"""A small model with a real ONNX graph, seeds, several items, and every way to fail."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from helix_lineage.formats.typed import Tensor
from helixserve.errors import TooLargeError
from helixserve.model import sampling, tensors
from helixserve.model.contract import Contract, Model
from helixserve.runners import Runner, open_runner


class Tiny(Model):
    """Tasks `project` and `measure`."""

    name = "tiny"

    def __init__(self, runner: Runner, contract: Contract) -> None:
        self.contract = contract
        self._runner = runner
        self.computed = 0
        """Items computed since the model was loaded."""

    @classmethod
    def load(cls, artifacts: Mapping[str, bytes], contract: Contract) -> Tiny:
        return cls(open_runner(contract.runner, {"tiny": artifacts["tiny.onnx"]}), contract)

    def resolve(self, task: str, given: Sequence[Tensor], draw_seed: Callable[[], int]) -> tuple[Tensor, ...]:
        fields = self.contract.task(task).resolve(given, draw_seed)
        if task == "project" and fields["values"].shape[0] > self.contract.limits["values"]:
            raise TooLargeError(f"{fields['values'].shape[0]} values, at most 8 are served", where="values")
        return tuple(fields.values())

    def count(self, resolved: Sequence[Tensor]) -> int:
        repeats = tensors.find(resolved, "repeats")
        return 1 if repeats is None else int(tensors.scalar(repeats))

    def predict(self, resolved: Sequence[Tensor], items: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        fields = {tensor.name: tensor for tensor in resolved}
        if "text" in fields:
            yield (tensors.from_value("length", "INT32", len(str(tensors.scalar(fields["text"])))),)
            return
        time.sleep(float(tensors.scalar(fields["delay"])))
        for item in items:
            time.sleep(float(tensors.scalar(fields["pause"])))
            self.computed += 1
            _tell_and_wait()
            yield self._project(fields, item)

    def _project(self, fields: Mapping[str, Tensor], item: int) -> tuple[Tensor, ...]:
        fault = str(tensors.scalar(fields["fault"]))
        if fault == "raise":
            raise ZeroDivisionError("a bug with secrets in its message")
        seed = sampling.item_seed(int(tensors.scalar(fields["seed"])), item)
        noise = sampling.uniforms(seed, 8) * float(tensors.scalar(fields["scale"]))
        values = np.zeros((1, 8), np.float32)
        values[0, : fields["values"].shape[0]] = tensors.to_array(fields["values"])
        ran = self._runner.run("tiny", {"x": values + noise.astype(np.float32)})
        projected = ran["y"][0] * (np.float32(np.nan) if fault == "nan" else np.float32(1))
        length = item + 1 if fault == "shape" else 4
        label = "/".join([*tensors.texts(fields["words"]), f"ø{item}"])
        made = (
            tensors.from_array("projected", projected),
            tensors.from_array("table", np.tile(projected[:3], (length, 1))),
            tensors.from_texts("label", [label + "x" * int(tensors.scalar(fields["bulk"]))]),
            tensors.from_value("total", "FP64", float(sum(noise.tolist()))),
            tensors.from_array("order", sampling.permutation(seed, 5)),
            tensors.from_value("largest", "UINT64", 2**64 - 1 - item),
            tensors.from_value("even", "BOOL", item % 2 == 0),
        )
        if fault == "bytes":
            made = (*made[:2], tensors.from_texts("label", [b"\xff"]), *made[3:])
        return made[:-1] if fault == "missing" else made


def _tell_and_wait() -> None:
    """For tests that run a server in a process of its own.

    TINY_COMPUTED names a file that grows by a byte with each item. While there is a file TINY_ALLOWED,
    no more items are computed in all than it has bytes.
    """
    if "TINY_COMPUTED" not in os.environ:
        return
    computed, allowed = Path(os.environ["TINY_COMPUTED"]), Path(os.environ["TINY_ALLOWED"])
    while _size(allowed, math.inf) <= _size(computed, 0):
        time.sleep(0.005)
    with contextlib.suppress(OSError), computed.open("ab") as file:  # a test may forbid the process to write
        file.write(b".")


def _size(file: Path, missing: float) -> float:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return missing
