"""The native runner on the real network: ONNX Runtime's answers, and the same bits however it decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helixserve.model.contract import Contract
from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import Runner
from proteinmpnn_model.decode import Choice, Decoded, Decoder, Design, Encoded, allowed, decode_each
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.native.runner import NativeRunner
from proteinmpnn_model.structures.structure import read_structure, sniff_format
from tests.models.proteinmpnn import kernels, tolerances

PARITY = ("pdb1ubi.pdb", "pdb1ejg.pdb", "1pwc.pdb", "2BEG.pdb", "2n0n_M1.pdb", "3JQH.cif", "4ZHL.cif")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return kernels.compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def graphs(artifacts: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}


@pytest.fixture(scope="module", params=[name for name in kernels.runnable() if name != "scalar"])
def native(request: pytest.FixtureRequest, graphs: dict[str, bytes], libraries: dict[str, bytes]) -> Decoder:
    return Decoder(NativeRunner(graphs, libraries, request.param))


@pytest.fixture(scope="module")
def random_native(libraries: dict[str, bytes]) -> Decoder:
    """On random weights: needs no torch."""
    return Decoder(NativeRunner(kernels.random_graphs(), libraries, "x86-64-v3"))


def _read(path: Path) -> Backbone:
    text = path.read_text()
    return featurize(read_structure(text, sniff_format(text), residue_limit=2000))


def _random(length: int) -> Backbone:
    arrays = kernels.random_backbone(length, 4, missing=0.2)
    return Backbone(**arrays, native=np.arange(length, dtype=np.int64) % 21)


def _designs(backbone: Backbone, count: int) -> list[Design]:
    """Chosen at several temperatures, some residues kept; the last one is only scored."""
    length, designs = len(backbone), []
    for seed in range(count):
        free = (backbone.mask > 0) & (np.arange(length) % 5 != seed % 5)
        choice = Choice(free, uniforms(seed, length), (0.1, 1.0, 0.5)[seed % 3], allowed("XC" if seed % 2 else "X"))
        designs.append(Design(backbone.native, permutation(seed, length), choice))
    return [*designs, Design(backbone.native, permutation(99, length))]


def _bits(decoded: Decoded) -> bytes:
    return decoded.residues_l.tobytes() + decoded.log_probabilities_la.tobytes()


def _one_by_one(decoder: Decoder, backbone: Backbone, designs: list[Design]) -> list[bytes]:
    encoded = decoder.encode(backbone)
    return [
        _bits(decoder.decode(backbone, encoded, design.residues_l, design.order_l, design.choice)) for design in designs
    ]


@pytest.mark.parametrize("length", [1, 7, 48, 61])
def test_whole_designs_are_the_steps_of_python_bit_for_bit(random_native: Decoder, length: int) -> None:
    """Another schedule, another batch, other code that chooses: the same bits."""
    backbone = _random(length)
    designs = _designs(backbone, 4)
    encoded = random_native.encode(backbone)
    together = [_bits(decoded) for decoded in random_native.decode_together(backbone, encoded, designs)]
    assert together == _one_by_one(random_native, backbone, designs)


def test_many_designs_are_decoded_together_and_in_order(
    random_native: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = _random(9)
    designs = _designs(backbone, 9)
    encoded = random_native.encode(backbone)
    monkeypatch.setattr("proteinmpnn_model.decode.TOGETHER_DESIGNS", 4)
    monkeypatch.setattr("proteinmpnn_model.decode.FIRST_DESIGNS", 2)
    wanted, sizes = random_native.decode_together, []

    def counted(backbone: Backbone, encoded: Encoded, batch: Sequence[Design]) -> list[Decoded]:
        sizes.append(len(batch))
        return wanted(backbone, encoded, batch)

    monkeypatch.setattr(random_native, "decode_together", counted)
    found = [_bits(decoded) for decoded in decode_each(random_native, backbone, encoded, iter(designs))]
    assert sizes == [2, 4, 4]
    assert found == _one_by_one(random_native, backbone, designs)


def test_another_order_would_be_noticed(random_native: Decoder) -> None:
    """The comparison bites: the order in which residues are decoded does change the bits."""
    backbone = _random(20)
    designs = _designs(backbone, 2)
    turned = [replace(design, order_l=design.order_l[::-1].copy()) for design in designs]
    assert _one_by_one(random_native, backbone, designs) != _one_by_one(random_native, backbone, turned)


@pytest.mark.parametrize("name", PARITY)
def test_log_probabilities_are_those_of_the_graphs(
    name: str, native: Decoder, decoder: Decoder, structures: Path
) -> None:
    """Of the structure's own residues: what ONNX Runtime would choose may depend on the processor."""
    backbone = _read(structures / name)
    order = permutation(0, len(backbone))
    ours, theirs = (
        one.decode(backbone, one.encode(backbone), backbone.native, order).log_probabilities_la
        for one in (native, decoder)
    )
    assert np.array_equal(native.encode(backbone).neighbours_lk, decoder.encode(backbone).neighbours_lk)
    assert np.abs(ours - theirs).max() <= tolerances.GRAPHS / tolerances.MARGIN


@pytest.mark.parametrize("name", ["pdb1ubi.pdb", "2n0n_M1.pdb"])
def test_real_designs_together_are_those_alone(name: str, native: Decoder, structures: Path) -> None:
    backbone = _read(structures / name)
    designs = _designs(backbone, 3)
    together = native.decode_together(backbone, native.encode(backbone), designs)
    assert [_bits(decoded) for decoded in together] == _one_by_one(native, backbone, designs)


@pytest.mark.parametrize("name", ["pdb1ubi.pdb", "3JQH.cif"])
def test_both_widths_give_the_same_bits_on_real_structures(
    name: str, graphs: Mapping[str, bytes], libraries: dict[str, bytes], structures: Path
) -> None:
    backbone = _read(structures / name)
    decoders = [Decoder(NativeRunner(graphs, libraries, variant)) for variant in kernels.runnable()]
    found = []
    for one in decoders:
        decoded = one.decode_together(backbone, one.encode(backbone), _designs(backbone, 2))
        found.append([_bits(design) for design in decoded])
    assert all(other == found[0] for other in found)


def test_onnx_runtime_fails_the_check_of_batches(decoder: Decoder, native: Decoder, structures: Path) -> None:
    """A batch of its steps has other bits than each alone; ours has not. So its strict lane has a batch of one."""
    backbone = _read(structures / "pdb1ubi.pdb")
    encoded = decoder.encode(backbone)
    rows = np.arange(64)
    inputs = {f"messages_{layer}": part[rows] for layer, part in enumerate(encoded.shared_lkc)}
    inputs["nodes"] = encoded.nodes_lc[rows]

    def differing(runner: Runner) -> int:
        together = runner.run("decoder_step", inputs)["log_probabilities"]
        alone = [
            runner.run("decoder_step", {name: array[[row]] for name, array in inputs.items()})["log_probabilities"][0]
            for row in rows
        ]
        return sum(one.tobytes() != many.tobytes() for one, many in zip(alone, together, strict=True))

    assert differing(native._runner) == 0
    assert differing(decoder._runner) > 0


def test_the_gates_items_are_the_same_alone_and_together(
    graphs: dict[str, bytes], libraries: dict[str, bytes], contract: Contract, data_folder: Path
) -> None:
    pytest.importorskip("torch", reason="needs torch; run: make test-torch")
    from proteinmpnn_model.evaluate import differing_items  # noqa: PLC0415  # loads torch

    model, again = (ProteinMPNN(Decoder(NativeRunner(graphs, libraries)), contract) for _ in range(2))
    assert differing_items(model, again, data_folder) == 0
