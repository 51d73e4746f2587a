"""Nix: store paths, builds without inputs, and what a change of a source makes again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helix_lineage.paths import State
from model_to_metal.errors import NixError, ToolError
from model_to_metal.hermetic import fetch, nix
from model_to_metal.hermetic.nix import NixStore
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure as python_sources

ROOT = Path(__file__).resolve().parents[3]
MODEL = "proteinmpnn"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NixStore]:
    """An empty store."""
    made = NixStore(tmp_path / "store")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NixStore]:
    """A store for evaluations, which need nothing built."""
    made = NixStore(tmp_path_factory.mktemp("evaluations") / "store")
    yield made
    made.remove()


@settings(max_examples=10, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+._?=-]{0,30}", fullmatch=True),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
)
@pytest.mark.parametrize("recursive", [False, True])
def test_store_paths_are_those_of_nix(name: str, digest: str, recursive: bool) -> None:
    flags = ["--recursive"] if recursive else []
    said = subprocess.run(
        ["nix-store", "--print-fixed-path", *flags, "sha256", digest, name], check=True, capture_output=True, text=True
    )
    assert nix.fixed_output_path(name, f"sha256:{digest}", recursive=recursive) == said.stdout.strip()


def test_an_added_file_is_where_its_hash_says(store: NixStore, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("text")
    (path,) = store.add_fixed([file])
    digest = "sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
    assert path == nix.fixed_output_path("a.txt", digest)
    absent = nix.fixed_output_path("b.txt", digest)
    assert store.valid([path, absent]) == {path}


def test_a_locked_file_that_is_absent_names_the_command_that_fetches_it(
    store: NixStore, checkout_state: State, tmp_path: Path
) -> None:
    fetch.add_seed(ROOT, checkout_state, store)
    with nix.sources(ROOT, tmp_path / "scratch") as flake, pytest.raises(NixError) as caught:
        store.build(f"{flake}#base")
    assert "is not in the store" in caught.value.what
    assert caught.value.fix == "helix fetch"


def test_an_absent_seed_names_the_command_that_fetches_it(store: NixStore, tmp_path: Path) -> None:
    with nix.sources(ROOT, tmp_path / "scratch") as flake, pytest.raises(NixError) as caught:
        store.build(f"{flake}#base")
    assert caught.value.fix == "helix fetch"


def test_an_unknown_attribute_is_named(store: NixStore, tmp_path: Path) -> None:
    with nix.sources(ROOT, tmp_path / "scratch") as flake, pytest.raises(NixError, match="no-such-thing"):
        store.build(f"{flake}#no-such-thing")


def test_sources_are_what_git_tracks_or_would_track(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    subprocess.run(["git", "init", "-q", root], check=True)
    for name in ("kept", "ignored", "deleted", ".gitignore"):
        (root / name).write_text("ignored\n")
    subprocess.run(["git", "-C", root, "add", "deleted", ".gitignore"], check=True)
    (root / "deleted").unlink()
    with nix.sources(root, tmp_path / "scratch") as flake:
        folder = Path(flake.removeprefix("path:"))
        assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "kept"]
    assert not folder.exists()


def test_sources_need_a_git_checkout(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not a git repository"), nix.sources(tmp_path, tmp_path / "scratch"):
        pass


# ---- what a change makes again -------------------------------------------------------------------

Paths = dict[str, str]
Changed = Callable[[str, str], set[str]]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's sources, to be changed."""
    folder = tmp_path_factory.mktemp("copied")
    with nix.sources(ROOT, folder / "scratch") as flake:
        shutil.copytree(flake.removeprefix("path:"), folder / "copy", symlinks=True)
    return folder / "copy"


def steps(store: NixStore, root: Path) -> Paths:
    """Name → derivation of every step of the model's image."""
    return {step.name: step.path for step in store.derivations(f"path:{root}#{MODEL}-image").values()}


@pytest.fixture(scope="module")
def before(shared_store: NixStore, copied: Path) -> Paths:
    return steps(shared_store, copied)


@pytest.fixture
def changed(shared_store: NixStore, copied: Path, before: Paths) -> Changed:
    """Appends text to a file (or makes one), and gives the names of the steps that this makes again."""

    def by(name: str, text: str) -> set[str]:
        path = copied / name
        old = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((old or b"") + text.encode())
        try:
            after = steps(shared_store, copied)
        finally:
            if old is None:
                path.unlink()
            else:
                path.write_bytes(old)
        return {step for step in after if after[step] != before.get(step)}

    return by


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        f"models/{MODEL}/README.md",
        f"models/{MODEL}/src/proteinmpnn_model/notes.md",
        f"models/{MODEL}/golden/another.json",
        "platform/src/helixserve/README.md",
        "platform/src/model_to_metal/cli/another.py",
        "tests/test_another.py",
        "lineage/FORMAT.md",
        f"models/{MODEL}/src/proteinmpnn_model/__pycache__/network.cpython-311.pyc",
    ],
)
def test_what_no_build_runs_makes_nothing_again(changed: Changed, name: str) -> None:
    assert changed(name, "\nmore\n") == set()


def test_serving_code_makes_one_layer_again_and_no_export(changed: Changed) -> None:
    assert changed("platform/src/helixserve/another_endpoint.py", "x = 1\n") == {
        "platform", f"{MODEL}-platform-layers", f"{MODEL}-files", f"{MODEL}-code-layers", f"{MODEL}-image",
    }  # fmt: skip


def test_training_code_that_export_imports_makes_the_export_again(changed: Changed) -> None:
    again = changed(f"models/{MODEL}/src/proteinmpnn_model/export.py", "\nMORE = 1\n")
    assert {f"{MODEL}-export", f"{MODEL}-artifacts-layers", f"{MODEL}-image"} <= again
    assert not again & {f"{MODEL}-build-env", f"{MODEL}-serve-env-layers", "base-layers", f"{MODEL}-data"}


def test_a_module_that_export_begins_to_import_counts(changed: Changed) -> None:
    module = "platform/src/helixserve/model/sampling.py"
    again = changed(
        f"models/{MODEL}/src/proteinmpnn_model/export.py", "\nfrom helixserve.model import (\n    sampling,\n)\n"
    )
    assert f"{MODEL}-export" in again
    assert (ROOT / module).is_file()


@pytest.mark.parametrize("stage", ["import", "export"])
def test_a_stage_is_shown_its_import_closure_and_no_more(
    shared_store: NixStore, copied: Path, before: Paths, stage: str
) -> None:
    """Nix and Python find import closures each in their own way; they must agree."""
    checkout = Checkout(ROOT)
    hook = checkout.contract(MODEL)["stages"][stage]
    expected = set(python_sources.closure(checkout, MODEL, stage, [hook]).files)
    shown = set()
    for path in shared_store.source_inputs(before[f"{MODEL}-{stage}"]):
        place = {f"{MODEL}-{stage}-platform": "platform/src", f"{MODEL}-{stage}-lineage": "lineage/src"}
        folder = shared_store.real(path)
        prefix = place.get(path.split("-", 1)[1], f"models/{MODEL}")
        shown |= {f"{prefix}/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*") if file.is_file()}
    assert shown == expected | {f"models/{MODEL}/model.toml"}


# ---- environments --------------------------------------------------------------------------------


@pytest.mark.slow
def test_torch_imports_in_the_build_environment_without_a_network(
    checkout_state: State, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = nix.build(f"{MODEL}-build-env", ROOT, checkout_state)
    script = (
        "import torch, onnx, onnxruntime, socket, os\n"
        "print(torch.ones(2).sum().item(), os.listdir('/'))\n"
        "try: socket.create_connection(('1.1.1.1', 53), 1)\n"
        "except OSError as error: print('no network')\n"
        "try: open('/usr/planted', 'w')\n"
        "except OSError as error: print('read-only')\n"
    )
    store = NixStore.of(checkout_state)
    status = nix.run_in_env(
        nix.environment_command(store, f"{nix.PREFIX}/{environment.name}", ["python", "-c", script])
    )
    said = capfd.readouterr().out
    assert status == 0
    assert said.startswith("2.0 ")
    assert "no network" in said
    assert "read-only" in said
    assert "'work'" not in said and "'home'" not in said


@pytest.mark.slow
@pytest.mark.parametrize("check", ["libraries", "imports"])
def test_the_serve_environment_passes_its_checks(checkout_state: State, check: str) -> None:
    made = nix.build(f"checks.x86_64-linux.{MODEL}-{check}", ROOT, checkout_state)
    assert made.read_text() == "passed\n"


@pytest.mark.slow
def test_the_readmes_nix_command_builds_the_same_image_from_a_git_checkout(
    copied: Path, checkout_state: State, tmp_path: Path
) -> None:
    expected = nix.build(f"{MODEL}-image", ROOT, checkout_state)
    clone = tmp_path / "clone"
    shutil.copytree(copied, clone, symlinks=True)
    subprocess.run(["git", "init", "-q", clone], check=True)
    subprocess.run(["git", "-C", clone, "add", "--all"], check=True)
    (command,) = re.findall(r"```sh\n(nix build .*?)```", (ROOT / "platform/nix/README.md").read_text(), re.DOTALL)
    assert "$PWD/.helix/nix" in command
    command = command.replace("$PWD/.helix/nix", str(checkout_state.nix))  # the clone has no store of its own
    said = subprocess.run(
        ["bash", "-c", command],
        cwd=clone,
        env={**os.environ, "MODEL": MODEL},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert expected.name in said.stdout


def test_a_second_model_shares_the_large_wheels_of_the_first(
    shared_store: NixStore, copied: Path, tmp_path: Path
) -> None:
    root = tmp_path / "two"
    shutil.copytree(copied, root, symlinks=True)
    shutil.copytree(root / "models" / MODEL, root / "models" / "second", symlinks=True)
    lock = root / "models/second/environment/build.lock"
    lock.write_text("".join(line for line in lock.read_text().splitlines(keepends=True) if "sympy" not in line))

    def built(model: str) -> Paths:
        found = shared_store.derivations(f"path:{root}#{model}-build-env")
        return {step.name: step.path for step in found.values()}

    first, second = built(MODEL), built("second")
    assert first["torch-wheels"] == second["torch-wheels"]
    assert first[f"{MODEL}-build-env"] != second["second-build-env"]
    large = {name for name in first if name.startswith(("torch-2", "nvidia_", "triton-"))}
    assert len(large) > 10
    assert not large & {name for name, path in second.items() if first.get(name) != path}
