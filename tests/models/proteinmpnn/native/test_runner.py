"""The native runner: the same bits however it is asked, and nothing malformed reaches C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixserve.errors import ContractError
from proteinmpnn_model.native.runner import PREFIX, SUFFIX, NativeRunner
from tests.models.proteinmpnn import kernels
from tests.models.proteinmpnn.kernels import random_backbone, random_designs, random_graphs
from tests.models.proteinmpnn.native import fuzz

Runners = dict[str, NativeRunner]
FUZZED = 120
"""Seeds of malformed inputs; the sanitizers run 300 for each variant."""

Arrays = dict[str, np.ndarray]

few = settings(max_examples=6, deadline=None)


def _bits(outputs: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in sorted(outputs.items())}


def _inputs(runner: NativeRunner, length: int, designs: Arrays, seed: int = 0) -> Arrays:
    backbone = random_backbone(length, seed)
    return {"mask": backbone["mask"], **runner.run("encoder", backbone), **designs}


def _rows(designs: Arrays, rows: list[int]) -> Arrays:
    return {name: array[rows] for name, array in designs.items()}


@few
@given(length=st.sampled_from([1, 2, 3, 20, 47, 48, 49, 60]), seed=st.integers(0, 1000))
def test_every_variant_gives_the_same_bits(runners: Runners, length: int, seed: int) -> None:
    designs = random_designs(length, 2, seed)
    found = []
    for runner in runners.values():
        encoded = runner.run("encoder", random_backbone(length, seed))
        found.append({**_bits(encoded), **_bits(runner.run("decode", _inputs(runner, length, designs, seed)))})
    assert all(other == found[0] for other in found[1:])
    assert len(found) >= 2


@few
@given(count=st.integers(2, 70), seed=st.integers(0, 1000), data=st.data())
def test_a_design_does_not_depend_on_the_others(runners: Runners, count: int, seed: int, data: st.DataObject) -> None:
    runner = next(iter(runners.values()))
    designs = random_designs(30, count, seed)
    inputs = _inputs(runner, 30, designs)
    together = runner.run("decode", inputs)
    rows = data.draw(st.permutations(range(count)))
    turned = runner.run("decode", {**inputs, **_rows(designs, rows)})
    one = data.draw(st.integers(0, count - 1))
    alone = runner.run("decode", {**inputs, **_rows(designs, [one])})
    for name, array in together.items():
        assert turned[name].tobytes() == array[rows].tobytes()
        assert alone[name].tobytes() == array[[one]].tobytes()


def test_any_number_of_threads_gives_the_same_bits(runners: Runners) -> None:
    for runner in list(runners.values())[:2]:
        inputs = _inputs(runner, 40, random_designs(40, 5))
        wanted = _bits(runner.run("decode", inputs))
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda _, runner=runner, inputs=inputs: _bits(runner.run("decode", inputs)), range(24))
            )
        assert all(one == wanted for one in found)


def test_a_batch_of_steps_gives_the_bits_of_each_alone(runners: Runners) -> None:
    """The check that ONNX Runtime fails: tests/models/proteinmpnn/test_native.py."""
    for runner in list(runners.values())[:2]:
        assert kernels_step_differences(runner, rows=70, neighbours=48) == 0


def kernels_step_differences(runner: NativeRunner, rows: int, neighbours: int) -> int:
    draw = np.random.default_rng(0)
    inputs = {f"messages_{layer}": draw.normal(size=(rows, neighbours, 128)).astype(np.float32) for layer in range(3)}
    inputs["nodes"] = draw.normal(size=(rows, 128)).astype(np.float32)
    together = runner.run("decoder_step", inputs)
    alone = [runner.run("decoder_step", _rows(inputs, [row])) for row in range(rows)]
    return sum(one[name][0].tobytes() != together[name][row].tobytes() for row, one in enumerate(alone) for name in one)


def test_a_sum_in_another_order_would_be_noticed(runners: Runners, tmp_path: Path) -> None:
    """The comparison of variants bites: one of them adds the lanes of a layer norm up differently."""
    old, new = "(four[0] + four[2]) + (four[1] + four[3])", "((four[0] + four[1]) + four[2]) + four[3]"
    faulty = kernels.compiled_with_fault(tmp_path, "x86-64-v3", "vector.h", old, new)
    runner = NativeRunner(random_graphs(), faulty, "x86-64-v3")
    backbone = random_backbone(30)
    assert _bits(runner.run("encoder", backbone)) != _bits(runners["x86-64-v3"].run("encoder", backbone))


def test_other_weights_give_another_answer(runners: Runners, libraries: dict[str, bytes]) -> None:
    backbone = random_backbone(12)
    other = NativeRunner(random_graphs(1), libraries, "x86-64-v3").run("encoder", backbone)
    assert _bits(other) != _bits(runners["x86-64-v3"].run("encoder", backbone))


Spoil = Callable[[Arrays], object]

SPOILED_ENCODER: dict[str, Spoil] = {
    "absent": lambda a: a.pop("chain"),
    "no residues": lambda a: a.update({name: array[:0] for name, array in a.items()}),
    "short chain": lambda a: a.update(chain=a["chain"][:-1]),
    "three atoms": lambda a: a.update(coordinates=a["coordinates"][:, :3]),
    "float64": lambda a: a.update(coordinates=a["coordinates"].astype(np.float64)),
    "int32": lambda a: a.update(chain=a["chain"].astype(np.int32)),
    "no number": lambda a: a["coordinates"].__setitem__((1, 1, 1), np.nan),
    "infinite": lambda a: a["coordinates"].__setitem__((0, 1, 1), np.inf),
    "half a mask": lambda a: a["mask"].__setitem__(2, 0.5),
    "far index": lambda a: a["residue_index"].__setitem__(2, 2**62),
}
SPOILED_DECODE: dict[str, Spoil] = {
    "order repeats": lambda a: a["order"].__setitem__((0, 0), a["order"][0, 1]),
    "order too large": lambda a: a["order"].__setitem__((0, 0), 99),
    "residue 21": lambda a: a["residues"].__setitem__((1, 0), 21),
    "residue -1": lambda a: a["residues"].__setitem__((1, 0), -1),
    "neighbour beyond": lambda a: a["neighbours"].__setitem__((0, 0), 20),
    "neighbour before": lambda a: a["neighbours"].__setitem__((0, 0), -1),
    "nothing allowed": lambda a: a["allowed"].__setitem__(0, False),
    "fewer uniforms": lambda a: a.update(uniforms=a["uniforms"][:, :-1]),
    "one temperature": lambda a: a.update(temperature=a["temperature"][:1]),
    "short shared": lambda a: a.update(shared_1=a["shared_1"][:, :-1]),
    "absent unseen": lambda a: a.pop("unseen_2"),
    "flat residues": lambda a: a.update(residues=a["residues"].ravel()),
    "no designs": lambda a: a.update(residues=a["residues"][:0]),
}


@pytest.mark.parametrize("how", SPOILED_ENCODER)
def test_a_malformed_backbone_does_not_reach_c(runners: Runners, how: str) -> None:
    backbone = random_backbone(20)
    SPOILED_ENCODER[how](backbone)
    with pytest.raises(ContractError):
        runners["x86-64-v3"].run("encoder", backbone)


@pytest.mark.parametrize("how", SPOILED_DECODE)
def test_a_malformed_design_does_not_reach_c(runners: Runners, how: str) -> None:
    inputs = _inputs(runners["x86-64-v3"], 20, random_designs(20, 2))
    assert runners["x86-64-v3"].run("decode", inputs)["residues"].shape == (2, 20)
    SPOILED_DECODE[how](inputs)
    with pytest.raises(ContractError):
        runners["x86-64-v3"].run("decode", inputs)


@pytest.mark.parametrize("shape", [(2, 0, 128), (2, 49, 128), (2, 48, 127), (0, 48, 128), (3, 48, 128), (2, 128)])
def test_malformed_messages_do_not_reach_c(runners: Runners, shape: tuple[int, ...]) -> None:
    inputs = {f"messages_{layer}": np.zeros(shape, np.float32) for layer in range(3)}
    with pytest.raises(ContractError):
        runners["x86-64-v3"].run(
            "decoder_step", {**inputs, "nodes": np.zeros((shape[0] if shape[0] != 3 else 2, 128), np.float32)}
        )


def test_residues_outside_the_alphabet_are_refused(runners: Runners) -> None:
    tables = runners["x86-64-v3"].run("residue_tables", {"residues": np.array([20, 0])})
    assert [table.shape for table in tables.values()] == [(2, 128)] * 3
    for residue in (-1, 21):
        with pytest.raises(ContractError):
            runners["x86-64-v3"].run("residue_tables", {"residues": np.array([residue])})


def test_probabilities_that_are_no_numbers_choose_nothing(runners: Runners) -> None:
    inputs = _inputs(runners["x86-64-v3"], 20, random_designs(20, 1))
    inputs["nodes"] = np.full_like(inputs["nodes"], np.nan)
    with pytest.raises(ValueError, match="no positive weight"):
        runners["x86-64-v3"].run("decode", inputs)


def test_a_release_without_kernels_or_constants_is_refused(libraries: dict[str, bytes]) -> None:
    graphs = random_graphs()
    with pytest.raises(ContractError, match="holds no kernels"):
        NativeRunner(graphs, {})
    with pytest.raises(ContractError, match="holds no graph"):
        NativeRunner({name: graphs[name] for name in ("encoder", "decoder_step")}, libraries)
    with pytest.raises(ContractError, match=r"W_s\.weight is absent"):
        NativeRunner({**graphs, "residue_tables": graphs["encoder"]}, libraries)
    with pytest.raises(ContractError, match="holds no graph 'other'"):
        NativeRunner(graphs, libraries).run("other", {})


def test_the_widest_variant_that_the_processor_has_runs(libraries: dict[str, bytes]) -> None:
    runner = NativeRunner(random_graphs(), libraries)
    assert runner.variant == kernels.runnable()[0]
    narrow = {name: data for name, data in libraries.items() if "v3" in name}
    assert NativeRunner(random_graphs(), narrow).variant == "x86-64-v3"
    assert f"{PREFIX}x86-64-v3{SUFFIX}" in narrow


def test_whatever_is_given_is_answered_or_refused(runners: Runners) -> None:
    """One input spoilt at a time, in its numbers, shape, type or layout; a crash would end this process."""
    answered = [fuzz.survives(runners["x86-64-v3"], seed) for seed in range(FUZZED)]
    assert 0.05 < np.mean(answered) < 0.8, "both happen, or the inputs are not what they are meant to be"


def test_a_check_that_is_left_out_is_noticed(runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzz bites: without the checks of ranges, what was refused would reach C (which is not called here)."""
    runner = runners["x86-64-v3"]
    backbone = random_backbone(20)
    monkeypatch.setattr("proteinmpnn_model.native.runner._within", lambda *_: True)
    for name in ("encode", "decode"):
        monkeypatch.setattr(runner._library, name, lambda *_: None)
    reached = 0
    for seed in range(40):
        spoiled = fuzz.SPOILS[0](backbone["residue_index"], np.random.default_rng(seed))
        reached += "nodes" in runner.run("encoder", {**backbone, "residue_index": spoiled})
    assert reached == 40


SANITIZED = """
import sys
from pathlib import Path
import numpy as np
from proteinmpnn_model.native.runner import NativeRunner
from tests.models.proteinmpnn.native.fuzz import survives
from tests.models.proteinmpnn.kernels import random_backbone, random_designs, random_graphs
libraries = {path.name: path.read_bytes() for path in Path(sys.argv[1]).glob("*.so")}
for variant in sys.argv[2:]:
    runner = NativeRunner(random_graphs(), libraries, variant)
    for length in (1, 2, 20, 48, 49, 53):
        backbone = random_backbone(length, length)
        encoded = runner.run("encoder", backbone)
        runner.run("decode", {"mask": backbone["mask"], **encoded, **random_designs(length, 3)})
    messages = {f"messages_{layer}": np.ones((65, 7, 128), np.float32) for layer in range(3)}
    runner.run("decoder_step", {**messages, "nodes": np.ones((65, 128), np.float32)})
    for seed in range(300):
        survives(runner, seed)
    if "fault" in sys.argv[1]:
        runner.run("encoder", random_backbone(20))
print("clean")
"""


def _sanitized(folder: Path, variants: list[str], gcc: str) -> subprocess.CompletedProcess[str]:
    runtime = subprocess.run([gcc, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
    return subprocess.run(
        [sys.executable, "-c", SANITIZED, str(folder), *variants], check=False, capture_output=True, text=True,
        env={
            **os.environ, "LD_PRELOAD": runtime.strip(), "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": os.pathsep.join(path for path in [str(Path.cwd()), *sys.path] if path),
        },
    )  # fmt: skip


@pytest.mark.long
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Every variant, compiled with address and undefined-behaviour checks, on lengths around its tiles."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc, whose address checks can be loaded into Python; run: apt-get install gcc")
    kernels.compiled(tmp_path / "clean", compiler=[gcc], sanitize=True)
    answer = _sanitized(tmp_path / "clean", kernels.runnable(), gcc)
    assert answer.stdout.strip() == "clean", answer.stderr[-3000:]


@pytest.mark.long
def test_sanitizers_would_find_a_write_beyond_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check bites: one allocation is 64 bytes short."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc; run: apt-get install gcc")
    copy = tmp_path / "sources"
    shutil.copytree(kernels.SOURCES, copy)
    text = (copy / "encoder.c").read_text()
    (copy / "encoder.c").write_text(text.replace("PART(offset, k);", "PART(offset, 0);"))
    assert (copy / "encoder.c").read_text() != text
    monkeypatch.setattr(kernels.build, "SOURCES", copy)
    kernels.compiled(tmp_path / "fault", ["x86-64-v3"], compiler=[gcc], sanitize=True)
    answer = _sanitized(tmp_path / "fault", ["x86-64-v3"], gcc)
    assert "heap-buffer-overflow" in answer.stderr
