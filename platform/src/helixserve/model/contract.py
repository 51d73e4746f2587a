"""A model's contract: `model.toml`, parsed and checked, and the interface that its code implements.

    format = 1
    name = "tiny"
    version = "1"

    [serve]
    model = "tiny_model.model:Tiny"     # a subclass of Model
    runner = "onnxruntime"
    artifacts = ["tiny.onnx"]           # files that Model.load is given, hashed as they are read
    lane = "strict"

    [limits]
    request_bytes = 1000000             # largest body
    nesting = 16                        # of JSON; 16 when missing. Other limits are the model's own

    [tasks.double]
    summary = "Twice the values."
    inputs.values = { datatype = "FP32", shape = [-1], required = true, summary = "What to double." }
    inputs.seed = { datatype = "UINT64", shape = [1], summary = "Drawn when missing." }
    outputs.doubled = { datatype = "FP32", shape = [-1], summary = "Twice the values." }

Shapes are those of one item, -1 is any extent. At every endpoint items are stacked along a new
first axis. An input has a `default`, or is `required`, or stays absent; `seed` is drawn.
Tables that this module does not read (`examples`, `stages`, `tolerances`, …) are left to their readers.
"""

from __future__ import annotations

import importlib
import math
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helix_lineage.errors import explaining
from helix_lineage.formats.typed import Tensor
from helixserve.errors import ContractError, InvalidInputError
from helixserve.model import tensors as plain

SEED = "seed"
TASK = "task"


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output tensor of a task."""

    name: str
    datatype: str
    """Open Inference Protocol v2 data type."""
    shape: tuple[int, ...]
    """Shape of one item; -1 is any extent."""
    summary: str
    """One sentence for the reader of the API."""
    required: bool = False
    default: Tensor | None = None
    """Taken when a request leaves the input out."""
    minimum: float | None = None
    """Smallest value that any element may have."""
    maximum: float | None = None

    def check(self, tensor: Tensor) -> None:
        """Raises InvalidInputError when `tensor` is of another type, shape or range."""
        if tensor.datatype != self.datatype:
            raise InvalidInputError(f"{self.name} is {self.datatype}, not {tensor.datatype}", where=self.name)
        fits = len(tensor.shape) == len(self.shape) and all(
            want in (-1, extent) for want, extent in zip(self.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise InvalidInputError(
                f"{self.name} has shape {list(tensor.shape)}, but {list(self.shape)} is served",
                where=self.name,
                fix="-1 stands for any extent",
            )
        self._check_range(tensor)

    def _check_range(self, tensor: Tensor) -> None:
        # No model here has a use for them, and no JSON answer could carry what they become.
        if tensor.datatype in plain.FLOATS and not plain.is_finite(tensor):
            raise InvalidInputError(f"{self.name} holds NaN or an infinite number", where=self.name)
        if self.minimum is None and self.maximum is None:
            return
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        for value in plain.to_array(tensor).reshape(-1).tolist():
            if not low <= value <= high:
                raise InvalidInputError(f"{self.name} is {value}, but must lie in [{low:g}, {high:g}]", where=self.name)


@dataclass(frozen=True, slots=True)
class Task:
    """One thing that a model does; `<model>-<task>` is its Open Inference Protocol model name."""

    name: str
    summary: str
    inputs: Mapping[str, Field]
    outputs: Mapping[str, Field]

    def resolve(self, given: Sequence[Tensor], draw_seed: Callable[[], int]) -> dict[str, Tensor]:
        """Check the tensors of a request and fill in defaults, the seed and the task's name.

        Gives name → tensor. Inputs that are optional and have no default stay absent.
        Raises InvalidInputError naming the field.
        """
        resolved: dict[str, Tensor] = {}
        for tensor in given:
            wanted = self.inputs.get(tensor.name)
            if wanted is None:
                fix = f"known inputs: {', '.join(self.inputs)}"
                raise InvalidInputError(f"{self.name} has no input {tensor.name!r}", where=tensor.name[:80], fix=fix)
            if tensor.name in resolved:
                raise InvalidInputError(f"{tensor.name} is given twice", where=tensor.name)
            wanted.check(tensor)
            resolved[tensor.name] = tensor
        for name, wanted in self.inputs.items():
            if name in resolved:
                continue
            if wanted.required:
                raise InvalidInputError(f"{name} is required: {wanted.summary}", where=name)
            if name == SEED:
                resolved[SEED] = plain.from_value(SEED, "UINT64", draw_seed())
            elif wanted.default is not None:
                resolved[name] = wanted.default
        resolved[TASK] = plain.from_texts(TASK, [self.name])
        return resolved


@dataclass(frozen=True, slots=True)
class Contract:
    """`model.toml`, parsed."""

    name: str
    version: str
    model: str
    """Where the Model subclass is: `package.module:Class`."""
    runner: str
    """A built-in runner's name, or where the model's own is: `package.module:Class`."""
    artifacts: tuple[str, ...]
    lane: str
    limits: Mapping[str, int]
    tasks: Mapping[str, Task]
    document: Mapping[str, Any] = field(repr=False)
    """The whole of `model.toml`, for tables that others read."""

    @classmethod
    def load(cls, path: Path) -> Contract:
        """Read `model.toml`. Raises ContractError naming the key."""
        with explaining(ContractError, "cannot read the contract", where=str(path)):
            return cls.parse(path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Contract:
        """Parse the text of a `model.toml`. Raises ContractError naming the key."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ContractError(f"model.toml is not TOML: {error}", where="model.toml") from error
        if document.get("format") != 1:
            raise ContractError("this version reads format = 1", where="model.toml format")
        serve = _table(document, "serve")
        limits = _table(document, "limits")
        if "request_bytes" not in limits or any(type(value) is not int or value < 1 for value in limits.values()):
            raise ContractError("limits are positive integers, request_bytes among them", where="model.toml [limits]")
        lane = _text(serve, "lane", "serve")
        if lane != "strict":
            raise ContractError(f"lane {lane!r} is not served yet", where="model.toml [serve] lane", fix='use "strict"')
        tasks = {name: _task(name, value) for name, value in _table(document, "tasks").items()}
        if not tasks:
            raise ContractError("a model has at least one task", where="model.toml [tasks]")
        return cls(
            name=_text(document, "name"),
            version=_text(document, "version"),
            model=_text(serve, "model", "serve"),
            runner=_runner(serve),
            artifacts=tuple(_texts(serve, "artifacts", "serve")),
            lane=lane,
            limits=limits,
            tasks=tasks,
            document=document,
        )

    def task(self, name: str) -> Task:
        """The task of that name. Raises InvalidInputError."""
        if name not in self.tasks:
            raise InvalidInputError(
                f"{self.name} has no task {name!r}", where=TASK, fix=f"use one of {', '.join(self.tasks)}"
            )
        return self.tasks[name]


class Model(ABC):
    """What a model implements; everything else is the platform's.

    An implementation holds no state that a request changes: its answers depend on the resolved
    input, the item's number and the machine class only.
    """

    name: str
    contract: Contract

    @classmethod
    @abstractmethod
    def load(cls, artifacts: Mapping[str, bytes], contract: Contract) -> Model:
        """Make the model from the bytes of the files that the contract names."""

    @abstractmethod
    def resolve(self, task: str, tensors: Sequence[Tensor], draw_seed: Callable[[], int]) -> tuple[Tensor, ...]:
        """The canonical typed input: every default resolved, `seed` UINT64[1], and `task` BYTES[1].

        Resolving a resolved input (less `task`) gives the same again. Raises InvalidInputError
        or TooLargeError with the field as `where`. `Task.resolve` does the part common to all.
        """

    @abstractmethod
    def count(self, resolved: Sequence[Tensor]) -> int:
        """How many items a resolved input asks for, at least 1."""

    @abstractmethod
    def predict(self, resolved: Sequence[Tensor], items: Sequence[int]) -> Iterable[tuple[Tensor, ...]]:
        """One typed tuple an item, in the order of `items`: the task's outputs.

        An item's bytes are the same whichever items are asked for together with it. Shapes may
        differ from item to item only where the contract says -1, and then not within one request.
        """


def load_class(contract: Contract) -> type[Model]:
    """The Model subclass that the contract names. Raises ContractError."""
    module, _, attribute = contract.model.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ContractError(f"cannot import {contract.model!r}: {error}", where="model.toml [serve] model") from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ContractError(
            f"{contract.model!r} is not a subclass of helixserve.model.contract.Model", where="model.toml [serve] model"
        )
    return found


def _runner(serve: Mapping[str, Any]) -> str:
    """A built-in runner's name, or `package.module:Class` in the package of the model itself."""
    runner, model = _text(serve, "runner", "serve"), _text(serve, "model", "serve")
    package = model.partition(":")[0].partition(".")[0]
    if ":" in runner and not runner.startswith(f"{package}."):
        raise ContractError(
            f"the runner {runner!r} is not in the model's own package {package}", where="model.toml [serve] runner"
        )
    return runner


def _task(name: str, value: Any) -> Task:
    where = f"tasks.{name}"
    if not isinstance(value, dict) or set(value) != {"summary", "inputs", "outputs"}:
        raise ContractError("a task has exactly: summary, inputs, outputs", where=f"model.toml [{where}]")
    inputs = {key: _field(key, entry, f"{where}.inputs") for key, entry in _table(value, "inputs", where).items()}
    outputs = {key: _field(key, entry, f"{where}.outputs") for key, entry in _table(value, "outputs", where).items()}
    if not outputs or {TASK, "prediction_id", "request_id", "id"} & {*inputs, *outputs}:
        raise ContractError("a task has outputs, and none of the platform's names", where=f"model.toml [{where}]")
    if SEED in inputs and (inputs[SEED].datatype, inputs[SEED].shape) != ("UINT64", (1,)):
        raise ContractError("a seed is UINT64 of shape [1]", where=f"model.toml [{where}.inputs.seed]")
    return Task(name, _text(value, "summary", where), inputs, outputs)


_FIELD_KEYS = {"datatype", "shape", "summary", "required", "default", "minimum", "maximum"}


def _field(name: str, value: Any, where: str) -> Field:
    where = f"{where}.{name}"
    if not isinstance(value, dict) or set(value) - _FIELD_KEYS:
        raise ContractError(f"a tensor has the keys {', '.join(sorted(_FIELD_KEYS))}", where=f"model.toml [{where}]")
    datatype, shape = _text(value, "datatype", where), value.get("shape")
    if datatype != "BYTES" and datatype not in plain.DTYPES:
        raise ContractError(f"unknown data type {datatype!r}", where=f"model.toml [{where}] datatype")
    if not isinstance(shape, list) or any(type(extent) is not int or extent < -1 for extent in shape):
        raise ContractError("a shape is a list of integers, -1 for any extent", where=f"model.toml [{where}] shape")
    made = Field(
        name,
        datatype,
        tuple(shape),
        _text(value, "summary", where),
        required=value.get("required", False) is True,
        minimum=value.get("minimum"),
        maximum=value.get("maximum"),
    )
    return _with_default(made, value["default"], where) if "default" in value else made


def _with_default(made: Field, value: Any, where: str) -> Field:
    try:
        default = plain.from_value(made.name, made.datatype, value)
        made.check(default)
    except InvalidInputError as error:
        raise ContractError(f"the default does not fit: {error}", where=f"model.toml [{where}] default") from error
    return replace(made, default=default)


def _table(value: Mapping[str, Any], key: str, parent: str = "") -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise ContractError("this table is missing", where=f"model.toml [{'.'.join(filter(None, (parent, key)))}]")
    return found


def _text(value: Mapping[str, Any], key: str, parent: str = "") -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise ContractError("this text is missing", where=f"model.toml {f'[{parent}] ' if parent else ''}{key}")
    return found


def _texts(value: Mapping[str, Any], key: str, parent: str) -> list[str]:
    found = value.get(key)
    if not isinstance(found, list) or not found or any(not isinstance(item, str) or not item for item in found):
        raise ContractError("a list of names is missing", where=f"model.toml [{parent}] {key}")
    return found
