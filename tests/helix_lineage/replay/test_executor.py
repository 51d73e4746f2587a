from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.errors import ReplayError
from helix_lineage.formats.typed import decode
from helix_lineage.replay import ReplayExecutor, ReplayPlan, ReplayPlanner, Verdict, executor, plan
from helix_lineage.replay.executor import run_in_image
from helix_lineage.replay.images import UnpackedImage
from helix_lineage.replay.verdict import NOT_REPLAYED
from helix_lineage.shard import Prediction
from helix_lineage.shard.payload_reader import erase
from tests.damage import flip_bit
from tests.helix_lineage.replay import support
from tests.helix_lineage.support import NOW_NS, World, typed_input

WEIGHTS = "opt/helix/artifacts/weights.safetensors"


def serve(world: World, unpacked: UnpackedImage, seeds: range, count: int = 2, task: str = "design") -> list[str]:
    """Predictions as the image's model makes them."""
    names = []
    with world.open() as writer:
        for seed in seeds:
            given = typed_input(seed, task)
            _, outputs = run_in_image(unpacked, given, list(range(count)))
            items = [
                Prediction(seed.to_bytes(16, "big"), at, count, given, output, seed, "strict", NOW_NS, NOW_NS)
                for at, output in enumerate(outputs)
            ]
            names += writer.append(items)
    return names


def replay(world: World, images: Path, *plans: ReplayPlan) -> list[Verdict]:
    planner = ReplayPlanner(world.log, world.sources)
    return ReplayExecutor(images, "127.0.0.1:1").replay(
        plans or [planner.plan(name) for name in planner.all(support.refuse)]
    )


def test_predictions_replay_to_the_same_bytes_without_their_stored_outputs(
    served: World, unpacked: UnpackedImage, images: Path
) -> None:
    names = serve(served, unpacked, range(4))
    for name in names:
        shard, sequence = served.log.find(name)
        erase(shard.folder, sequence)
    verdicts = replay(served, images)
    assert [verdict.id for verdict in verdicts] == names
    assert all(verdict.same and verdict.differences == () for verdict in verdicts)


def test_the_image_comes_from_the_registry(
    served: World, unpacked: UnpackedImage, registry: str, tmp_path: Path
) -> None:
    (name,) = serve(served, unpacked, range(1), count=1)
    (verdict,) = ReplayExecutor(tmp_path / "fresh", registry).replay([plan(served.log, name, served.sources)])
    assert verdict.same


def test_a_flipped_weight_bit_is_named(served: World, unpacked: UnpackedImage, images: Path) -> None:
    serve(served, unpacked, range(1), count=1)
    flip_bit(unpacked.rootfs / WEIGHTS)
    (verdict,) = replay(served, images)
    assert not verdict.same
    weights, output = verdict.differences
    assert weights.factor == "weights"
    assert WEIGHTS in weights.detail
    assert output.factor == "output"
    assert output.detail.startswith("tensor 'score', element 0: recorded ")


def test_another_file_is_named_even_when_the_bytes_are_the_same(
    served: World, unpacked: UnpackedImage, images: Path
) -> None:
    serve(served, unpacked, range(1), count=1)
    (unpacked.rootfs / "usr/lib/planted").write_text("x")
    (verdict,) = replay(served, images)
    assert not verdict.same
    assert [(item.factor, item.detail) for item in verdict.differences] == [
        ("file", "usr/lib/planted is not in the image")
    ]


def test_another_seed_is_named(served: World, unpacked: UnpackedImage, images: Path) -> None:
    (name,) = serve(served, unpacked, range(7, 8), count=1)
    (verdict,) = replay(served, images, plan(served.log, name, served.sources).with_seed(8))
    assert [item.factor for item in verdict.differences] == ["seed", "output"]
    assert verdict.differences[0].detail == "served with seed 7, replayed with seed 8"


def test_another_input_is_named(served: World, unpacked: UnpackedImage, images: Path) -> None:
    (name,) = serve(served, unpacked, range(7, 8), count=1)
    ready = plan(served.log, name, served.sources)
    (verdict,) = replay(served, images, ready.with_input(typed_input(7, structure=b"HETATM")))
    assert [item.factor for item in verdict.differences] == ["input", "output"]
    (verdict,) = replay(served, images, ready.with_input(typed_input(8, structure=b"HETATM")))
    assert [item.factor for item in verdict.differences] == ["seed", "input", "output"]


def test_a_model_that_draws_its_own_numbers_is_caught(served: World, unpacked: UnpackedImage, images: Path) -> None:
    serve(served, unpacked, range(1), count=1, task="random")
    (verdict,) = replay(served, images)
    assert [item.factor for item in verdict.differences] == ["output"]
    assert "the model is not deterministic or the log lies" in verdict.differences[0].detail


def test_another_machine_class_is_named(
    served: World, image: support.BuiltImage, unpacked: UnpackedImage, images: Path
) -> None:
    (name,) = serve(served, unpacked, range(1), count=1)
    ready = replace(plan(served.log, name, served.sources), machine_class="x86-64-v3")
    (verdict,) = replay(served, images, ready)
    assert verdict.same  # the bytes are the same all the same
    assert verdict.differences[0].detail == "served on x86-64-v3, replayed on x86-64-v4"
    flip_bit(unpacked.rootfs / WEIGHTS)
    (verdict,) = replay(served, images, ready)
    assert [item.factor for item in verdict.differences] == ["weights", "machine-class", "output"]


def test_a_model_that_fails_is_a_verdict_with_its_words(served: World, unpacked: UnpackedImage, images: Path) -> None:
    (name,) = serve(served, unpacked, range(1), count=1)
    (verdict,) = replay(served, images, plan(served.log, name, served.sources).with_input(typed_input(0, "fail")))
    assert not verdict.same
    assert verdict.differences[-1].factor == "error"
    assert "the model says no" in verdict.differences[-1].detail


def test_an_image_that_cannot_be_used_keeps_no_other_from_being_replayed(
    served: World, unpacked: UnpackedImage, images: Path
) -> None:
    """Planted: an image that no registry has, between two predictions of one that is there; then one without files."""
    names = serve(served, unpacked, range(3), count=1)
    plans = [plan(served.log, name, served.sources) for name in names]
    plans[1] = replace(plans[1], image="sha256:" + "0" * 64)
    first, lost, last = replay(served, images, *plans)
    assert first.same
    assert last.same
    assert (lost.id, lost.outcome) == (names[1], NOT_REPLAYED)
    (why,) = lost.differences
    assert why.detail.startswith("the image cannot be used: cannot pull the image: ")
    shutil.rmtree(unpacked.rootfs)
    gone, *_ = replay(served, images, plans[0])
    assert gone.differences[-1].factor == "error"
    assert f"cannot be read: No such file or directory ({unpacked.folder}); run: rm -r" in gone.differences[-1].detail


def test_the_sandbox_has_no_network_a_fixed_user_and_a_read_only_root(unpacked: UnpackedImage) -> None:
    for _ in range(2):  # a second process finds /tmp empty again
        machine, (output,) = run_in_image(unpacked, typed_input(0, "probe"), [0])
        (seen,) = decode(output)
        assert isinstance(seen.data, tuple)
        found = json.loads(seen.data[0])
        assert machine == support.MACHINE
        assert found["uid"] == 65532
        assert found["cwd"] == "/opt/helix/model"
        assert found["root"] == "OSError"
        assert found["artifacts"] == "OSError"
        assert found["tmp"] == "yes"
        assert found["left"] is False
        assert found["network"] == "ConnectionRefusedError"
        assert found["interfaces"] == ["lo"]
        assert found["processes"] <= 2
        assert found["host"] == "replay"
        assert set(found["env"]) <= {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE",
                                     "TEST_MACHINE_CLASS", "PWD", "LC_CTYPE"}  # fmt: skip


def test_an_answer_that_is_no_answer_is_refused(unpacked: UnpackedImage) -> None:
    main = unpacked.rootfs / "opt/helix/platform/helixserve/__main__.py"
    main.chmod(0o644)
    for code, message in (
        ("print('hello')", "not CBOR"),
        ("import cbor2, sys; sys.stdout.buffer.write(cbor2.dumps([1, 'm', []]))", "1 outputs"),
        ("import cbor2, sys; sys.stdout.buffer.write(cbor2.dumps([1, 'm', ['text']]))", "byte strings"),
        ("import cbor2, sys; sys.stdout.buffer.write(cbor2.dumps([2, 'm', [b'']]))", "version 1"),
    ):
        main.write_text(code)
        with pytest.raises(ReplayError, match=message):
            run_in_image(unpacked, typed_input(0), [0])
    main.write_text("import time; time.sleep(60)")
    with pytest.raises(ReplayError, match="took longer than 1 s"):
        run_in_image(unpacked, typed_input(0), [0], timeout_s=1)


def test_items_of_one_request_share_a_process_and_no_two_requests_do(
    served: World, unpacked: UnpackedImage, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(served, unpacked, range(3), count=4)
    runs: list[list[int]] = []

    def counting(
        image: UnpackedImage, typed: bytes, items: list[int], timeout_s: float | None, cpu: str | None
    ) -> tuple[str, list[bytes]]:
        runs.append(items)
        return run_in_image(image, typed, items, timeout_s, cpu)

    monkeypatch.setattr(executor, "run_in_image", counting)
    told: list[str] = []
    planner = ReplayPlanner(served.log, served.sources)
    plans = [planner.plan(name) for name in reversed(planner.all(support.refuse))]
    verdicts = ReplayExecutor(images, "127.0.0.1:1").replay(plans, lambda verdict: told.append(verdict.id))
    assert runs == [[0, 1, 2, 3]] * 3
    assert [verdict.id for verdict in verdicts] == [item.id for item in plans]
    assert sorted(told) == sorted(item.id for item in plans)


def test_a_machine_without_the_tools_says_what_to_install(
    unpacked: UnpackedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ReplayError, match=r"bwrap is not installed .* apt-get install bubblewrap"):
        run_in_image(unpacked, typed_input(0), [0])
