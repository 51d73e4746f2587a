"""The same model, asked for the same items again: what `helixserve replay` does.

Standard input is CBOR `[1, input, [item, …]]` with the typed input as a byte string; standard
output is CBOR `[1, machine class, [output, …]]`, one typed output an item (lineage/FORMAT.md,
section 10). It needs no release, trust root or log: who replays has checked the image's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2

from helix_lineage.errors import LineageError, explaining
from helix_lineage.formats.typed import Tensor, decode, encode
from helixserve import runners
from helixserve.errors import InvalidInputError, NotReadyError
from helixserve.execution.request import check_item
from helixserve.model import tensors as plain
from helixserve.model.contract import TASK, Contract, Model, load_class
from helixserve.runners import machine
from helixserve.settings import Settings

VERSION = 1


def run(settings: Settings, request: bytes) -> bytes:
    """Answer one replay request. Raises HelixServeError."""
    typed, items = read_request(request)
    model = load_model(settings)
    machine_class = machine.confirmed_class(runners.find(model.contract.runner).machine_class)
    outputs = replay(model, typed, items)
    return cbor2.dumps([VERSION, machine_class, outputs], canonical=True)


def read_request(request: bytes) -> tuple[bytes, list[int]]:
    """The typed input and the items asked for. Raises InvalidInputError."""
    try:
        value: Any = cbor2.loads(request)
    except Exception as error:  # cbor2 raises many kinds; all mean: not CBOR
        raise InvalidInputError(f"the request is not CBOR: {error}", where="stdin") from error
    if not isinstance(value, list) or len(value) != 3 or value[0] != VERSION:  # version, input, items
        raise InvalidInputError("the request is not [1, input, [item, …]]", where="stdin")
    _, typed, items = value
    if not isinstance(typed, bytes) or not isinstance(items, list) or any(type(item) is not int for item in items):
        raise InvalidInputError("the request is not [1, input, [item, …]]", where="stdin")
    return typed, items


def load_model(settings: Settings) -> Model:
    """The model of the folder HELIX_HOME. Raises ContractError or NotReadyError."""
    contract = Contract.load(settings.model / "model.toml")
    artifacts = {name: _read(settings.artifacts / name) for name in contract.artifacts}
    return load_class(contract).load(artifacts, contract)


def replay(model: Model, typed: bytes, items: list[int]) -> list[bytes]:
    """The typed outputs of some items of a typed input. Raises InvalidInputError."""
    try:
        resolved = decode(typed)
    except LineageError as error:
        raise InvalidInputError(f"the input is not a typed value: {error}", where="input") from error
    task, again = _resolve(model, resolved)
    if encode(again) != typed:
        raise InvalidInputError("the input is not in resolved form: resolving it changes it", where="input")
    count = model.count(again)
    wrong = [item for item in items if not 0 <= item < count]
    if wrong:
        raise InvalidInputError(f"item {wrong[0]} is none of the {count} that the input asks for", where="items")
    given = [check_item(model.contract.task(task), item, None) for item in model.predict(again, items)]
    return [encode(item) for item in given]


def _resolve(model: Model, resolved: tuple[Tensor, ...]) -> tuple[str, tuple[Tensor, ...]]:
    named = plain.find(resolved, TASK)
    if named is None:
        raise InvalidInputError("the input names no task", where=TASK)
    task = str(plain.scalar(named))
    rest = [tensor for tensor in resolved if tensor.name != TASK]
    return task, model.resolve(task, rest, _no_seed)


def _no_seed() -> int:
    raise InvalidInputError("the input has no seed, so it was never served", where="seed")


def _read(path: Path) -> bytes:
    with explaining(NotReadyError, "cannot read an artifact", where=str(path)):
        return path.read_bytes()
