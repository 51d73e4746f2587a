"""One question, asked in many ways: do they all give the same bits?

    python -m tests.same_bits ENGINE RUNNER STRUCTURE WAY…

prints one digest a way: of every log-probability and residue of the same designs on the same
backbone. It runs as a process of its own where the way is another processor (`qemu-x86_64 -cpu …`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from helixserve.runners import machine

if __name__ == "__main__":
    machine.pin_numpy()  # before anything loads numpy

import numpy as np

from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import Runner, open_runner
from proteinmpnn_model.decode import Choice, Decoded, Decoder, Design, Encoded, allowed
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.structures.structure import read_structure, sniff_format

DESIGNS = 5
THREADS = 8


RUNNERS = {"native": "proteinmpnn_model.native.runner:NativeRunner", "onnxruntime": "onnxruntime"}
"""What the release is served by, and what it is compared with."""


@dataclass(frozen=True)
class Question:
    """Designs on one backbone, and the network that is to decode them."""

    decoder: Decoder
    runner: Runner
    backbone: Backbone
    designs: Sequence[Design]


def question(engine: Path, runner: str, structure: Path, width: str | None = None) -> Question:
    """The designs, and the engine of that folder opened anew, of one vector width where it is named."""
    graphs = {path.stem: path.read_bytes() for path in engine.glob("*.onnx")}
    libraries = {path.name: path.read_bytes() for path in engine.glob(f"*{width or ''}.so")}
    opened = open_runner(RUNNERS[runner], graphs, libraries)
    text = structure.read_text()
    backbone = featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    return Question(Decoder(opened), opened, backbone, [_design(backbone, seed) for seed in range(DESIGNS)])


def _design(backbone: Backbone, seed: int) -> Design:
    """Some residues kept; one temperature in three is high; the last design is only scored."""
    length = len(backbone)
    free = (backbone.mask > 0) & (np.arange(length) % 5 != seed % 5)
    choice = Choice(free, uniforms(seed, length), (0.1, 1.0, 0.5)[seed % 3], allowed("XC" if seed % 2 else "X"))
    return Design(backbone.native, permutation(seed, length), None if seed == DESIGNS - 1 else choice)


def one_by_one(asked: Question) -> str:
    """Step by step in Python, each design alone: what ONNX Runtime's strict lane does."""
    encoded = asked.decoder.encode(asked.backbone)
    return _digest([_alone(asked, encoded, design) for design in asked.designs])


def together(asked: Question) -> str:
    """All designs in one call."""
    return _digest(_whole(asked, asked.designs))


def reversed_order(asked: Question) -> str:
    """All designs in one call, the last one first."""
    return _digest(_whole(asked, asked.designs[::-1])[::-1])


def small_batches(asked: Question) -> str:
    """Batches of four, and of what is left."""
    batches = [asked.designs[at : at + 4] for at in range(0, DESIGNS, 4)]
    return _digest([decoded for batch in batches for decoded in _whole(asked, batch)])


def threads(asked: Question) -> str:
    """Many threads, each with a design, at the same time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return _digest([decoded for (decoded,) in pool.map(lambda design: _whole(asked, [design]), asked.designs)])


def steps(asked: Question) -> str:
    """The first step of every residue, alone."""
    inputs = _messages(asked)
    rows = [{name: array[[row]] for name, array in inputs.items()} for row in range(len(asked.backbone))]
    return _bytes(np.concatenate([asked.runner.run("decoder_step", row)["log_probabilities"] for row in rows]))


def step_batch(asked: Question) -> str:
    """The first step of every residue, in one batch."""
    return _bytes(asked.runner.run("decoder_step", _messages(asked))["log_probabilities"])


WHOLE = ("one_by_one", "together", "reversed_order", "small_batches", "threads")
"""Ways of asking for all of the designs: their answers are one digest."""

WAYS: Mapping[str, Callable[[Question], str]] = {
    way.__name__: way for way in (one_by_one, together, reversed_order, small_batches, threads, steps, step_batch)
}


def _alone(asked: Question, encoded: Encoded, design: Design) -> Decoded:
    return asked.decoder.decode(asked.backbone, encoded, design.residues_l, design.order_l, design.choice)


def _whole(asked: Question, designs: Sequence[Design]) -> list[Decoded]:
    return asked.decoder.decode_together(asked.backbone, asked.decoder.encode(asked.backbone), designs)


def _messages(asked: Question) -> dict[str, np.ndarray]:
    encoded = asked.decoder.encode(asked.backbone)
    parts = {f"messages_{layer}": part for layer, part in enumerate(encoded.shared_lkc)}
    return {**parts, "nodes": encoded.nodes_lc}


def _digest(found: Sequence[Decoded]) -> str:
    return hashlib.sha256(
        b"".join(one.residues_l.tobytes() + one.log_probabilities_la.tobytes() for one in found)
    ).hexdigest()


def _bytes(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def main(engine: str, runner: str, structure: str, *ways: str) -> None:
    """Print `WAY DIGEST` for each way; `WAY:WIDTH` names the kernels."""
    for way in ways:
        name, _, width = way.partition(":")
        asked = question(Path(engine), runner, Path(structure), width or None)
        print(way, WAYS[name](asked), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
