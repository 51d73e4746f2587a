"""How long does it take to make the image again after one line of the model has changed, and what differs?"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, promise_row, slower_row
from benchmarks.setting import ROOT, Setting
from helix_lineage.paths import State
from model_to_metal.hermetic import image, nix
from model_to_metal.hermetic.nix import NixStore
from model_to_metal.host import process

MODEL = "proteinmpnn"
PROMISED_S, PROMISED_MB = 10.0, 1.0
_NAME = "image after a one-line change"
QUESTIONS = (
    _NAME,
    f"{_NAME}, layers that differ",
    f"{_NAME}, what differs",
    f"{_NAME}, against a full rebuild",
)


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """Seconds against a full rebuild, seconds against the promise, and megabytes that differ."""
    state = State.find()
    checkout = setting.folder / "checkout"
    process.run(["git", "clone", "--quiet", ROOT, checkout])
    before = image.build(MODEL, checkout, state)
    taken, sizes, layers = [], list[float](), list[int]()
    for turn in range(1 if quick else 3):
        _change_one_line(checkout, turn)
        started = time.perf_counter()
        after = image.build(MODEL, checkout, state)
        taken.append(time.perf_counter() - started)
        other = _layers(after.layout) - _layers(before.layout)
        sizes.append(sum(size for _, size in other) / 1e6)
        layers.append(len(other))
        before = after
    mine = statistics.median(taken)
    method = (
        f"one line of models/{MODEL}/src changed; medians; {max(layers)} of {len(_layers(before.layout))} layers differ"
    )
    yield promise_row(_NAME, mine, PROMISED_S, "s", method=method, repeats=len(taken))
    yield promise_row(QUESTIONS[1], max(layers), 1.0, "layers", method=method, repeats=len(taken))
    yield promise_row(QUESTIONS[2], max(sizes), PROMISED_MB, "MB", method=method, repeats=len(taken))
    if not quick:
        full = _full(checkout, state)
        yield slower_row(
            QUESTIONS[3], (mine, full), "s", "every step, from an empty store",
            at_least=None, method=method, repeats=1,
        )  # fmt: skip


def _change_one_line(checkout: Path, turn: int) -> None:
    """Change a line of the model's code: another one each time, so that nothing is found ready."""
    path = checkout / "models" / MODEL / "src/proteinmpnn_model/model.py"
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith('FORMATS = ("pdb", "mmcif")'))
    path.write_text(text.replace(line, f'FORMATS = ("pdb", "mmcif")  # {time.time_ns()} {turn}'))


def _layers(layout: Path) -> set[tuple[str, int]]:
    """Digest and size of each layer of an image."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text())
    return {(layer["digest"], layer["size"]) for layer in manifest["layers"]}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _full(checkout: Path, state: State) -> float:
    """Seconds of building every step again, from an empty store with the locked inputs."""
    with nix.sources(checkout, state.root / "scratch") as flake:
        return image.make_again(f"{flake}#{MODEL}-image", NixStore.of(state), NixStore(state.nix_second)).seconds
