"""The tasks `design` and `score` behind `helixserve.model.contract.Model`.

Takes typed tensors as `model.toml` declares them, gives typed tensors; holds nothing that a
request changes. Item i draws its decoding order and random numbers from `item_seed(seed, i)`
alone, and a backbone is encoded once for all items that are asked for together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from helixserve.errors import InvalidInputError, TooLargeError
from helixserve.model import sampling, tensors as typed
from helixserve.model.contract import Contract, Model
from helixserve.runners import open_runner
from proteinmpnn_model import featurize
from proteinmpnn_model.decode import (
    Choice,
    Decoded,
    Decoder,
    Design,
    SequenceDecoder,
    allowed,
    decode_each,
    decoding_order,
)
from proteinmpnn_model.structures.residue_names import STANDARD
from proteinmpnn_model.structures.structure import (
    ALPHABET,
    UNKNOWN,
    FileLimits,
    Structure,
    read_structure,
    sniff_format,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_lineage.formats.typed import Tensor

FORMATS = ("pdb", "mmcif")


@dataclass(frozen=True, slots=True)
class _Request:
    """A resolved request, read once for all of its items."""

    task: str
    structure: Structure
    backbone: featurize.Backbone
    free_l: NDArray[np.bool_]
    """The residues that the task is about: to be chosen, or to be scored."""
    seed: int
    fields: Mapping[str, Tensor]


class ProteinMPNN(Model):
    """ProteinMPNN.

    Args:
        decoder: the network, in whatever form.
        contract: `model.toml`.
    """

    name = "proteinmpnn"

    def __init__(self, decoder: SequenceDecoder, contract: Contract) -> None:
        self.contract = contract
        self.decoder = decoder

    @classmethod
    def load(cls, artifacts: Mapping[str, bytes], contract: Contract) -> ProteinMPNN:
        """Open the graphs `<name>.onnx` with the contract's runner; `<name>.so` are its kernels."""
        graphs = {name.removesuffix(".onnx"): data for name, data in artifacts.items() if name.endswith(".onnx")}
        libraries = {name: data for name, data in artifacts.items() if name.endswith(".so")}
        return cls(Decoder(open_runner(contract.runner, graphs, libraries)), contract)

    def resolve(self, task: str, tensors: Sequence[Tensor], draw_seed: Callable[[], int]) -> tuple[Tensor, ...]:
        """The canonical input: chains and positions in file order, letters sorted, defaults filled in."""
        fields = self.contract.task(task).resolve(tensors, draw_seed)
        text = str(typed.scalar(fields["structure"]))
        file_format = str(typed.scalar(fields["format"])).lower() if "format" in fields else sniff_format(text)
        if file_format not in FORMATS:
            raise InvalidInputError(f"format is {file_format[:20]!r}", where="format", fix="use pdb or mmcif")
        structure, backbone = self._structure(text, file_format)
        names = typed.texts(fields["chains"]) if "chains" in fields else [chain.name for chain in structure.chains]
        fields["format"] = typed.from_texts("format", [file_format])
        fields["chains"] = typed.from_texts("chains", featurize.check_chains(structure, names))
        if task == "design":
            fields["omit"] = typed.from_texts("omit", [_check_omit(str(typed.scalar(fields["omit"])))])
            labels = featurize.check_positions(structure, typed.texts(fields["fixed_positions"]))
            fields["fixed_positions"] = typed.from_texts("fixed_positions", labels)
            self._check_work(structure, int(typed.scalar(fields["num_sequences"])))
        else:
            given = str(typed.scalar(fields["sequence"])) if "sequence" in fields else structure.sequence
            fields["sequence"] = typed.from_texts("sequence", [featurize.check_sequence(structure, given)])
        if not self._read(fields, structure, backbone).free_l.any():
            raise InvalidInputError(
                f"no residue is left to {task}: all are fixed, in other chains, or without a whole backbone",
                where="chains",
                fix="name a chain that has residues with all of N, CA, C and O, and fix fewer positions",
            )
        return tuple(fields[name] for name in sorted(fields))

    def count(self, resolved: Sequence[Tensor]) -> int:
        """One item a sequence."""
        wanted = typed.find(resolved, "num_sequences")
        return 1 if wanted is None else int(typed.scalar(wanted))

    def predict(self, resolved: Sequence[Tensor], items: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        """The task's outputs for each item, in order."""
        fields = {tensor.name: tensor for tensor in resolved}
        text, file_format = str(typed.scalar(fields["structure"])), str(typed.scalar(fields["format"]))
        request = self._read(fields, *self._structure(text, file_format))
        encoded = self.decoder.encode(request.backbone)
        designs = (_design(request, item) for item in items)
        for decoded in decode_each(self.decoder, request.backbone, encoded, designs):
            yield _outputs(request, decoded)

    def _structure(self, text: str, file_format: str) -> tuple[Structure, featurize.Backbone]:
        limits = self.contract.limits
        return _read_once(text, file_format, limits["residues"], FileLimits.of(limits))

    def _read(self, fields: Mapping[str, Tensor], structure: Structure, backbone: featurize.Backbone) -> _Request:
        fixed = typed.texts(fields["fixed_positions"]) if "fixed_positions" in fields else []
        return _Request(
            task=str(typed.scalar(fields["task"])),
            structure=structure,
            backbone=backbone,
            free_l=featurize.designed_mask(structure, backbone, typed.texts(fields["chains"]), fixed),
            seed=int(typed.scalar(fields["seed"])),
            fields=fields,
        )

    def _check_work(self, structure: Structure, sequences: int) -> None:
        limit = self.contract.limits["designed_residues"]
        if sequences * len(structure) > limit:
            raise TooLargeError(
                f"{sequences} sequences of {len(structure)} residues are more than the {limit} residues served at once",
                where="num_sequences",
                fix=f"ask for at most {limit // len(structure)} sequences",
            )


@lru_cache(maxsize=1)
def _read_once(
    text: str, file_format: str, residue_limit: int, file_limits: FileLimits
) -> tuple[Structure, featurize.Backbone]:
    """A text's structure and its arrays: `predict` is asked for what `resolve` has just read; nobody changes them."""
    structure = read_structure(text, file_format, residue_limit=residue_limit, file_limits=file_limits)
    return structure, featurize.featurize(structure)


def _check_omit(text: str) -> str:
    """The one-letter codes in capitals, sorted, each once, X always among them. Raises InvalidInputError.

    Codes may be joined, or divided by commas or blanks; then names of three letters are understood, too.
    """
    words = text.upper().replace(",", " ").split()
    if len(words) == 1 and words[0] in STANDARD:
        name, code = words[0], STANDARD[words[0]]
        raise InvalidInputError(
            f"omit {name!r} is either {code} or the three letters",
            where="omit",
            fix=f"write {code} for the amino acid, and {','.join(name)} for the three",
        )
    wanted = {letter for word in words for letter in STANDARD.get(word, word)}
    unknown = sorted(wanted - set(ALPHABET))
    if unknown:
        raise InvalidInputError(f"omit has the letters {', '.join(unknown)[:40]}", where="omit", fix=f"use {ALPHABET}")
    # X is not an amino acid, and no design may hold it where a residue was chosen.
    wanted.add(UNKNOWN)
    if wanted == set(ALPHABET):
        raise InvalidInputError("omit leaves no amino acid to choose", where="omit")
    return "".join(sorted(wanted))


def _design(request: _Request, item: int) -> Design:
    """What item number `item` decodes: it depends on nothing but the request and the number."""
    length = len(request.backbone)
    seed = sampling.item_seed(request.seed, item)
    order_l = decoding_order(sampling.permutation(seed, length), request.free_l)
    if request.task != "design":
        letters = str(typed.scalar(request.fields["sequence"])).replace("/", "")
        return Design(featurize.encode_sequence(letters), order_l)
    choice = Choice(
        free_l=request.free_l,
        uniforms_l=sampling.uniforms(seed, length),
        temperature=float(typed.scalar(request.fields["temperature"])),
        allowed_a=allowed(str(typed.scalar(request.fields["omit"]))),
    )
    return Design(request.backbone.native, order_l, choice)


def _outputs(request: _Request, decoded: Decoded) -> tuple[Tensor, ...]:
    valid_l = request.backbone.mask > 0
    chosen_l = np.take_along_axis(decoded.log_probabilities_la, decoded.residues_l[:, None], axis=1)[:, 0]
    chosen_l = np.where(valid_l, chosen_l, np.float32(0))
    outputs = [
        typed.from_texts("sequence", [featurize.decode_sequence(request.structure, decoded.residues_l)]),
        _number("score", -_mean(chosen_l[request.free_l])),
        _number("global_score", -_mean(chosen_l[valid_l])),
    ]
    if request.task == "design":
        same_l = decoded.residues_l == request.backbone.native
        outputs.append(_number("recovery", _mean(same_l[request.free_l])))
        outputs.append(typed.from_array("log_probability", chosen_l))
    else:
        outputs.append(typed.from_array("log_probabilities", decoded.log_probabilities_la))
    outputs.append(typed.from_texts("labels", featurize.labels_of(request.structure)))
    outputs.append(typed.from_texts("warnings", list(request.structure.warnings)))
    return tuple(outputs)


def _mean(values: NDArray[np.float32] | NDArray[np.bool_]) -> float:
    # fsum rounds once, whatever the order: no vector width can change the last bit.
    return math.fsum(values.tolist()) / len(values)


def _number(name: str, value: float) -> Tensor:
    return typed.from_array(name, np.array([value], dtype=np.float32))
