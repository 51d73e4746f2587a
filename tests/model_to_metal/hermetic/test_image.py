"""Images: made again from an empty store, compared, and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helix_lineage.formats.canonical import file_digest
from helix_lineage.paths import State
from model_to_metal.errors import ImageDiffers, ImageError
from model_to_metal.hermetic import fetch, image, nix
from model_to_metal.hermetic.nix import NixStore

ROOT = Path(__file__).resolve().parents[3]
MODEL = "proteinmpnn"

FLAKE = """\
{
  outputs = _:
    let
      system = "x86_64-linux";
      seed = derivation {
        name = "busybox"; inherit system; builder = "/absent";
        outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputHash = "@seed@";
      };
      run = name: script: derivation {
        inherit name system; PATH = "${seed}/bin"; builder = "${seed}/bin/busybox";
        args = [ "sh" "-c" "b=${seed}/bin/busybox; $b mkdir $out; ${script}" ];
      };
      dependency = run "dependency" "echo same >$out/first; @dependency@";
      aside = run "aside" "@aside@";
    in
    { packages.${system}.image = run "image" "$b cp ${dependency}/* $out; test -d ${aside}; @image@"; };
}
"""

Tiny = Callable[..., str]


@pytest.fixture
def stores(tmp_path: Path, checkout_state: State) -> Iterator[tuple[NixStore, NixStore]]:
    """A store with the seed, and a place for the second one."""
    first, second = NixStore(tmp_path / "first"), NixStore(tmp_path / "second")
    fetch.add_seed(ROOT, checkout_state, first)
    yield first, second
    first.remove()
    second.remove()


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """Writes a flake of three steps; a keyword gives what a step does besides."""
    seed = (ROOT / "platform/nix/seed.lock").read_text().split()[-1].removeprefix("sha256:")

    def written(**scripts: str) -> str:
        text = FLAKE.replace("@seed@", seed)
        for step in ("dependency", "aside", "image"):
            text = text.replace(f"@{step}@", scripts.get(step, "true"))
        folder = tmp_path / "flake"
        folder.mkdir()
        (folder / "flake.nix").write_text(text)
        return f"path:{folder}#image"

    return written


def test_what_is_the_same_again_passes_and_every_step_ran_again(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    first, second = stores
    lines: list[str] = []
    again = image.make_again(tiny(), first, second, report=lines.append)
    assert again.steps == 3
    assert sum(line.startswith("building ") for line in lines) == 6
    assert again.unstable == ()
    assert again.cores[0] != again.cores[1]
    assert not second.root.exists()


def test_a_time_stamp_in_a_dependency_is_found_and_named(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    first, second = stores
    flake = tiny(dependency="$b cat /proc/uptime >$out/stamp")
    with pytest.raises(ImageError, match=r"image is not the same: the first difference is stamp of dependency"):
        image.make_again(flake, first, second)
    assert second.root.is_dir()  # left, to look at


@pytest.mark.skipif(shutil.which("diffoscope") is None, reason="needs diffoscope; run: make setup-tests test-fast")
def test_what_differs_is_told_by_diffoscope(tiny: Tiny, stores: tuple[NixStore, NixStore], tmp_path: Path) -> None:
    flake = tiny(dependency="$b cat /proc/uptime >$out/stamp")
    with pytest.raises(ImageDiffers, match=r"(?s)stamp of dependency.*stamp.*the whole report: "):
        image.make_again(flake, *stores, reports=tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.txt", "report.json", "report.html"}


def test_rebuilding_the_last_step_alone_misses_that_time_stamp(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    first, _ = stores
    flake = tiny(dependency="$b cat /proc/uptime >$out/stamp")
    assert first.build(flake) == first.build(flake, rebuild=True)


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one core cannot be made fewer; run on two or more: make test-fast"
)
def test_the_number_of_cores_in_a_dependency_is_found_and_named(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    with pytest.raises(ImageError, match="cores of dependency"):
        image.make_again(tiny(dependency="$b nproc >$out/cores"), *stores)


def test_the_place_of_the_store_in_a_dependency_is_found_and_named(
    tiny: Tiny, stores: tuple[NixStore, NixStore]
) -> None:
    # The only way to see it from inside: what is mounted where.
    planted = "$b grep -oE 'first/nix|second/nix' /proc/self/mountinfo | $b sort -u >$out/place"
    with pytest.raises(ImageError, match="place of dependency"):
        image.make_again(tiny(dependency=planted), *stores)


def test_a_difference_that_does_not_reach_the_result_is_told(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    again = image.make_again(tiny(aside="$b cat /proc/uptime >$out/stamp"), *stores)
    assert again.unstable == ("aside",)


def test_a_difference_of_the_last_step_is_named(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    with pytest.raises(ImageError, match="stamp of image"):
        image.make_again(tiny(image="$b cat /proc/uptime >$out/stamp"), *stores)


def test_a_second_store_is_one_process_s_at_a_time(tiny: Tiny, stores: tuple[NixStore, NixStore]) -> None:
    flake, lines = tiny(), [list[str](), list[str]()]

    def again(told: list[str]) -> image.SecondBuild:
        return image.make_again(flake, *stores, report=told.append)

    with ThreadPoolExecutor(2) as pool:
        assert [made.steps for made in pool.map(again, lines)] == [3, 3]
    assert sum("waiting for another" in line for told in lines for line in told) == 1


# ---- the first difference ------------------------------------------------------------------------

trees = st.dictionaries(st.from_regex(r"[a-c](/[d-f])?", fullmatch=True), st.binary(max_size=3), max_size=4)


def write(folder: Path, tree: dict[str, bytes]) -> dict[str, bytes]:
    """Write what of the tree can be (a file cannot be a folder too); gives that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kept = {name: data for name, data in tree.items() if not any(other.startswith(f"{name}/") for other in tree)}
    for name, data in kept.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return kept


@settings(max_examples=50, deadline=None)
@given(one=trees, other=trees)
def test_folders_differ_when_their_files_do(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "trees"
    folder.mkdir(exist_ok=True)
    left, right = write(folder / "one", one), write(folder / "other", other)
    found = image.first_difference(folder / "one", folder / "other")
    assert (found is None) == (left == right)
    if found is not None:
        assert left.get(found) != right.get(found) or found in {name.split("/")[0] for name in left | right}


def test_links_and_the_executable_bit_count(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
        (tmp_path / name / "link").symlink_to("file")
    assert image.first_difference(tmp_path / "one", tmp_path / "other") is None
    (tmp_path / "other/link").unlink()
    (tmp_path / "other/link").symlink_to("elsewhere")
    assert image.first_difference(tmp_path / "one", tmp_path / "other") == "link"
    (tmp_path / "other/file").chmod(0o755)
    assert image.first_difference(tmp_path / "one", tmp_path / "other") == "file"


# ---- the real image ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(checkout_state: State) -> image.BuiltImage:
    return image.build(MODEL, ROOT, checkout_state)


@pytest.fixture(scope="module")
def root(built: image.BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's root filesystem, unpacked by umoci."""
    bundle = tmp_path_factory.mktemp("image") / "bundle"
    unpack = ["umoci", "unpack", "--image", f"{built.layout}:latest", bundle]
    subprocess.run(unpack + (["--rootless"] if os.getuid() else []), check=True, capture_output=True)
    yield bundle / "rootfs"
    shutil.rmtree(bundle)


@pytest.mark.slow
def test_files_json_lists_the_root_filesystem_exactly(root: Path) -> None:
    listed = json.loads((root / "opt/helix/files.json").read_bytes())
    assert listed["version"] == 1
    expected = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            expected[name] = {"path": name, "link": str(path.readlink())}
        elif path.is_file():
            found = path.stat()
            expected[name] = {
                "path": name,
                "digest": file_digest(path),
                "size": found.st_size,
                "mode": found.st_mode & 0o7777,
            }
    del expected["opt/helix/files.json"]
    assert listed["files"] == [expected[name] for name in sorted(expected)]


@pytest.mark.slow
def test_the_image_holds_no_shell_no_setuid_no_torch_and_no_documentation_of_ours(root: Path) -> None:
    names = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    assert not {name for name in names if name.rsplit("/", 1)[-1] in {"sh", "bash", "dash", "busybox", "dpkg", "apt"}}
    # Nor what opens a prompt on a live server: Python's debugger, and its documentation with a web server.
    prompts = {"pdb.py", "pdb3.11", "pydoc.py", "pydoc3.11"}
    assert not [name for name in names if name.startswith("usr/") and name.rsplit("/", 1)[-1] in prompts]
    assert not [
        path for path in root.rglob("*") if not path.is_symlink() and path.is_file() and path.stat().st_mode & 0o6000
    ]
    assert not [name for name in names if name.startswith("opt/helix/site-packages/torch/")]
    ours = [name for name in names if name.startswith(("opt/helix/platform/", "opt/helix/model/"))]
    assert ours
    assert not [
        name for name in ours if name.endswith((".md", ".lock", ".pt")) or "/golden/" in name or "/tests/" in name
    ]


@pytest.mark.slow
def test_the_image_starts_as_a_numbered_user_without_a_shell(built: image.BuiltImage) -> None:
    manifest = json.loads((built.layout / "blobs/sha256" / built.manifest.removeprefix("sha256:")).read_bytes())
    digest = manifest["config"]["digest"].removeprefix("sha256:")
    config = json.loads((built.layout / "blobs/sha256" / digest).read_bytes())["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/python3.11", "-m", "helixserve"]
    assert "PYTHONDONTWRITEBYTECODE=1" in config["Env"]


SCRIPT = """\
import ctypes, os
import bentoml, gemmi, grpc, numpy, onnxruntime
import helix_lineage.records.chain, helixserve, proteinmpnn_model
for name in sorted(os.listdir('/opt/helix/artifacts')):
    load = onnxruntime.InferenceSession if name.endswith('.onnx') else ctypes.CDLL
    load(f'/opt/helix/artifacts/{name}')
try:
    open('/opt/helix/planted', 'w')
except OSError as error:
    print(error.strerror)
print(os.getuid(), os.getgid(), onnxruntime.__version__)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="runc here needs root; run: sudo make test-slow")
def test_the_image_runs_under_runc_with_a_read_only_root(root: Path) -> None:
    bundle = root.parent
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["readonly"] = True
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/usr/bin/python3.11", "-c", SCRIPT]
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]})
    config["linux"].pop("resources", None)
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"helix-test-{os.getpid()}"
    done = subprocess.run(["runc", "run", name], cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Read-only file system", "65532 65532 1.32.0"]


@pytest.mark.slow
def test_the_image_runs_under_bubblewrap_without_root(root: Path) -> None:
    command = [
        "bwrap", "--unshare-all", "--uid", "65532", "--gid", "65532", "--ro-bind", root, "/", "--proc", "/proc",
        "--dev", "/dev", "--tmpfs", "/tmp", "--clearenv", "--setenv", "HOME", "/tmp",
        "--setenv", "PYTHONPATH", "/opt/helix/platform:/opt/helix/model/src:/opt/helix/site-packages",
        "/usr/bin/python3.11", "-c", SCRIPT,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Read-only file system", "65532 65532 1.32.0"]


@pytest.mark.slow
def test_the_image_is_the_same_when_it_is_built_again_from_an_empty_store(checkout_state: State) -> None:
    store, second = NixStore.of(checkout_state), NixStore(checkout_state.nix_second)
    with nix.sources(ROOT, checkout_state.root / "scratch") as flake:
        again = image.make_again(f"{flake}#{MODEL}-image", store, second)
        made = [step.name for step in store.derivations(f"{flake}#{MODEL}-image").values() if not step.fixed]
    assert again.steps == len(made)
    assert {"base", f"{MODEL}-build-env", f"{MODEL}-export", f"{MODEL}-image"} <= set(made)
    assert again.unstable == ()
    assert not second.root.exists()
