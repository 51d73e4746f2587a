"""Runs the graphs: a backbone is encoded once, then each design chooses residue after residue.

Takes arrays and a `Runner`; no torch, no files, no random numbers of its own. Every call of the
decoder's graph has a batch of one, so an answer's bits don't depend on what else is asked for. A
runner that offers the graph `decode` gives the same bits for designs together, and is given them so.

Shape suffixes as in `network`: l residues, k neighbours, c channels, a amino acids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from helixserve.model.sampling import choose
from proteinmpnn_model.portable import exp
from proteinmpnn_model.structures.structure import ALPHABET, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from helixserve.runners.interface import Runner
    from proteinmpnn_model.featurize import Backbone

LAYERS = 3
"""Of the decoder; one `messages_<layer>`, `shared_<layer>` and `table_<layer>` each."""

TOGETHER_DESIGNS, TOGETHER_RESIDUES = 16, 4096
"""Most designs, and residues of all designs, that are decoded together: what another request waits for."""
FIRST_DESIGNS = 8
"""Of a request, that are decoded together; then twice as many each time: a stream's reader sees some soon."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What all designs on one backbone share."""

    nodes_lc: NDArray[np.float32]
    neighbours_lk: NDArray[np.int64]
    shared_lkc: tuple[NDArray[np.float32], ...]
    """By layer: the part of each neighbour's message that no choice changes."""
    unseen_lc: tuple[NDArray[np.float32], ...]
    """By layer: what a residue adds to its neighbours' messages until it is decoded."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the free residues of one design are chosen."""

    free_l: NDArray[np.bool_]
    """The residues to choose; the others keep theirs."""
    uniforms_l: NDArray[np.float64]
    """The random number in [0, 1) of each residue."""
    temperature: float
    allowed_a: NDArray[np.bool_]
    """The amino acids that may be chosen."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sequence and its log-probabilities."""

    residues_l: NDArray[np.int64]
    log_probabilities_la: NDArray[np.float32]
    """At temperature 1, given the residues decoded before; 0 where the backbone is not whole."""


@dataclass(frozen=True, slots=True)
class Design:
    """One sequence to decode."""

    residues_l: NDArray[np.int64]
    """The structure's own residues, or those to score."""
    order_l: NDArray[np.int64]
    choice: Choice | None = None
    """How residues are chosen; without it, every residue keeps what `residues_l` says."""


class SequenceDecoder(Protocol):
    """What encodes backbones and decodes sequences: `Decoder`, or the reference."""

    def encode(self, backbone: Backbone) -> Any:
        """What all designs on a backbone share; only `decode` looks into it."""

    def decode(
        self,
        backbone: Backbone,
        encoded: Any,
        residues_l: NDArray[np.int64],
        order_l: NDArray[np.int64],
        choice: Choice | None = None,
    ) -> Decoded:
        """Decode in the given order; without a `choice`, every residue keeps what `residues_l` says."""


class Decoder:
    """The network, behind a runner.

    Args:
        runner: holds the graphs `encoder`, `decoder_step` and `residue_tables`.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        tables = runner.run("residue_tables", {"residues": np.arange(len(ALPHABET), dtype=np.int64)})
        self._tables_ac = [tables[f"table_{layer}"] for layer in range(LAYERS)]

    def encode(self, backbone: Backbone) -> Encoded:
        """Run the encoder on a backbone."""
        found = self._runner.run(
            "encoder",
            {
                "coordinates": backbone.coordinates,
                "mask": backbone.mask,
                "residue_index": backbone.residue_index,
                "chain": backbone.chain,
            },
        )
        first_unseen = np.zeros_like(found["nodes"])
        return Encoded(
            nodes_lc=found["nodes"],
            neighbours_lk=found["neighbours"],
            shared_lkc=tuple(found[f"shared_{layer}"] for layer in range(LAYERS)),
            unseen_lc=(first_unseen, *(found[f"unseen_{layer}"] for layer in range(1, LAYERS))),
        )

    def decode(
        self,
        backbone: Backbone,
        encoded: Encoded,
        residues_l: NDArray[np.int64],
        order_l: NDArray[np.int64],
        choice: Choice | None = None,
    ) -> Decoded:
        """Log-probabilities and, with a `choice`, new residues: see `SequenceDecoder`."""
        residues_l = residues_l.copy()
        log_probabilities_la = np.zeros((len(backbone), len(ALPHABET)), dtype=np.float32)
        sent_lc = [part.copy() for part in encoded.unseen_lc]
        for position in order_l.tolist():
            seen_c: list[NDArray[np.float32] | None] = [None] * LAYERS
            if backbone.mask[position]:
                log_probabilities_a, seen_c = self._step(encoded, sent_lc, position)
                log_probabilities_la[position] = log_probabilities_a
                if choice is not None and choice.free_l[position]:
                    residues_l[position] = choose_residue(log_probabilities_a.astype(np.float64), choice, position)
            for layer, (table_ac, seen) in enumerate(zip(self._tables_ac, seen_c, strict=True)):
                # The nodes of a residue without a whole backbone are zero: only its amino acid is sent.
                part = table_ac[residues_l[position]]
                sent_lc[layer][position] = part if seen is None else seen + part
        return Decoded(residues_l, log_probabilities_la)

    @property
    def together(self) -> bool:
        """Whether `decode_together` can be used."""
        return "decode" in self._runner.extra

    def decode_together(self, backbone: Backbone, encoded: Encoded, designs: Sequence[Design]) -> list[Decoded]:
        """What `decode` gives for each design, bit for bit, in one call of the runner."""
        none_l = np.zeros(len(backbone), dtype=np.bool_)
        keep = Choice(none_l, np.zeros(len(backbone)), 1.0, allowed(""))
        choices = [keep if design.choice is None else design.choice for design in designs]
        found = self._runner.run(
            "decode",
            {
                "mask": backbone.mask,
                "nodes": encoded.nodes_lc,
                "neighbours": encoded.neighbours_lk,
                **{f"shared_{layer}": part for layer, part in enumerate(encoded.shared_lkc)},
                **{f"unseen_{layer}": part for layer, part in enumerate(encoded.unseen_lc) if layer},
                "order": np.stack([design.order_l for design in designs]),
                "residues": np.stack([design.residues_l for design in designs]),
                "free": np.stack([choice.free_l for choice in choices]),
                "uniforms": np.stack([choice.uniforms_l for choice in choices]),
                "temperature": np.array([choice.temperature for choice in choices], dtype=np.float64),
                "allowed": np.stack([choice.allowed_a for choice in choices]),
            },
        )
        return [Decoded(*both) for both in zip(found["residues"], found["log_probabilities"], strict=True)]

    def _step(
        self, encoded: Encoded, sent_lc: list[NDArray[np.float32]], position: int
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32] | None]]:
        """Log-probabilities [a] of one residue, and what it sends by layer, less its amino acid's part."""
        neighbours_k = encoded.neighbours_lk[position]
        inputs = {
            f"messages_{layer}": (encoded.shared_lkc[layer][position] + sent_lc[layer][neighbours_k])[None]
            for layer in range(LAYERS)
        }
        inputs["nodes"] = encoded.nodes_lc[position][None]
        found = self._runner.run("decoder_step", inputs)
        return found["log_probabilities"][0], [None, *(found[f"seen_{layer}"][0] for layer in range(1, LAYERS))]


def decode_each(
    decoder: SequenceDecoder, backbone: Backbone, encoded: Any, designs: Iterable[Design]
) -> Iterator[Decoded]:
    """Decode designs in turn: together where the decoder can, else one after another. The bits are the same."""
    if not (isinstance(decoder, Decoder) and decoder.together):
        for design in designs:
            yield decoder.decode(backbone, encoded, design.residues_l, design.order_l, design.choice)
        return
    remaining, most = iter(designs), min(TOGETHER_DESIGNS, max(1, TOGETHER_RESIDUES // len(backbone)))
    size = min(FIRST_DESIGNS, most)
    while batch := list(islice(remaining, size)):
        yield from decoder.decode_together(backbone, encoded, batch)
        size = min(2 * size, most)


def decoding_order(permutation_l: NDArray[np.int64], free_l: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`permutation_l` with the residues that are kept before those that are chosen."""
    is_free = free_l[permutation_l]
    return np.concatenate([permutation_l[~is_free], permutation_l[is_free]])


def allowed(omit: Collection[str]) -> NDArray[np.bool_]:
    """[a] the amino acids that are not in `omit`; X is none."""
    return np.array([letter not in omit and letter != UNKNOWN for letter in ALPHABET], dtype=np.bool_)


def choose_residue(log_probabilities_a: NDArray[np.float64], choice: Choice, position: int) -> int:
    """Draw an amino acid that is allowed, at the temperature and with the random number of `choice`."""
    scaled_a = log_probabilities_a / choice.temperature
    # The largest allowed weight is exactly 1, so low temperatures cannot underflow to no weight at all.
    largest = scaled_a[choice.allowed_a].max()
    weights_a = np.where(choice.allowed_a, exp(np.minimum(scaled_a - largest, 0.0)), 0.0)
    return choose(weights_a, float(choice.uniforms_l[position]))
