"""platform/nix/oci: layers, the list of files and the image have the same bytes whenever they are made."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from helix_lineage.formats.canonical import digest_bytes, loads
from model_to_metal.hermetic.layout import manifest_digest

Script = Callable[[str], ModuleType]

names = st.from_regex(r"[a-d](/[e-h]){0,2}", fullmatch=True)
trees = st.dictionaries(names.map(lambda name: f"{name}/file"), st.binary(max_size=20), min_size=1, max_size=5)


def write(folder: Path, files: Mapping[str, bytes], *, second: int = 0) -> Path:
    """Write the files, in another order and with other times for another `second`."""
    for name in sorted(files, reverse=bool(second % 2)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        os.utime(path, (second, second))
    return folder


def packed(script: Script, source: Path, out: Path, prefix: str = "opt/x", wheels: str = "") -> list[dict[str, Any]]:
    out.parent.mkdir(parents=True, exist_ok=True)
    script("oci/layers.py").main(out, source, prefix, wheels)
    layers: list[dict[str, Any]] = json.loads((out / "layers.json").read_text())
    return layers


def members(out: Path, layer: Mapping[str, Any]) -> list[tarfile.TarInfo]:
    blob = (out / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
    assert digest_bytes(blob) == layer["digest"]
    raw = gzip.decompress(blob)
    assert digest_bytes(raw) == layer["diff_id"]
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return archive.getmembers()


@settings(max_examples=20, deadline=None)
@given(tree=trees)
def test_a_layer_does_not_depend_on_times_or_order(
    script: Script, tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("layers")
    one = packed(script, write(folder / "one", tree, second=1), folder / "out-one")
    two = packed(script, write(folder / "two", tree, second=2_000_000_000), folder / "out-two")
    assert one == two
    found = {file["path"]: file["digest"] for file in one[0]["files"]}
    assert found == {f"opt/x/{name}": digest_bytes(data) for name, data in tree.items()}


def test_a_layer_that_kept_its_files_times_would_be_noticed(script: Script, tmp_path: Path) -> None:
    layers = script("oci/layers.py")
    plain = layers.entry

    def stamped(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info: tarfile.TarInfo = plain(name, kind, mode)
        info.mtime = (tmp_path / "one/file").stat().st_mtime if (tmp_path / "now").exists() else 1
        return info

    layers.entry = stamped
    write(tmp_path / "one", {"file": b"x"}, second=7)
    layers.main(tmp_path / "a", tmp_path / "one", "", "")
    (tmp_path / "now").touch()
    layers.main(tmp_path / "b", tmp_path / "one", "", "")
    assert (tmp_path / "a/layers.json").read_text() != (tmp_path / "b/layers.json").read_text()


def test_a_layer_belongs_to_root_and_folders_come_before_what_is_in_them(script: Script, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"tool": b"#!", "tmp/empty": b"", "a/b/c": b"1"})
    (source / "tool").chmod(0o750)
    (source / "link").symlink_to("tool")
    (layer,) = packed(script, source, tmp_path / "out", prefix="")
    found = members(tmp_path / "out", layer)
    assert [(item.name, oct(item.mode)) for item in found] == [
        ("a", "0o755"), ("a/b", "0o755"), ("a/b/c", "0o644"), ("link", "0o777"), ("tmp", "0o1777"),
        ("tmp/empty", "0o644"), ("tool", "0o755"),
    ]  # fmt: skip
    assert {(item.uid, item.gid, item.uname, item.mtime) for item in found} == {(0, 0, "root", 1)}


def test_what_lies_above_the_prefix_is_in_the_layer(script: Script, tmp_path: Path) -> None:
    (layer,) = packed(script, write(tmp_path / "source", {"file": b""}), tmp_path / "out", prefix="opt/helix/x")
    found = [item.name for item in members(tmp_path / "out", layer)]
    assert found == ["opt", "opt/helix", "opt/helix/x", "opt/helix/x/file"]


def test_further_folders_go_into_the_last_layer(script: Script, tmp_path: Path) -> None:
    source, more = write(tmp_path / "source", {"file": b"1"}), write(tmp_path / "more", {"opt/list": b"2"})
    script("oci/layers.py").main(tmp_path / "out", source, "opt/x", "", str(more), "")
    (layer,) = json.loads((tmp_path / "out/layers.json").read_text())
    found = [item.name for item in members(tmp_path / "out", layer)]
    assert found == ["opt", "opt/list", "opt/x", "opt/x/file"]
    assert [file["path"] for file in layer["files"]] == ["opt/list", "opt/x/file"]


def test_further_folders_with_the_same_file_are_refused(script: Script, tmp_path: Path) -> None:
    source, more = write(tmp_path / "source", {"file": b"1"}), write(tmp_path / "more", {"opt/x/file": b"2"})
    with pytest.raises(SystemExit, match="two folders hold opt/x/file"):
        script("oci/layers.py").main(tmp_path / "out", source, "opt/x", "", str(more), "")


@pytest.mark.parametrize("place", ["file", "link"])
def test_a_path_of_the_nix_store_is_refused(script: Script, tmp_path: Path, place: str) -> None:
    source = write(tmp_path / "source", {"other": b""})
    stored = f"/nix/store/{'0' * 32}-base/usr"
    if place == "file":
        (source / "file").write_text(f"see {stored}")
    else:
        (source / "link").symlink_to(stored)
    with pytest.raises(SystemExit, match=f"opt/x/{place} names a path of the Nix store"):
        packed(script, source, tmp_path / "out")


def test_a_large_wheel_has_a_layer_of_its_own(script: Script, tmp_path: Path) -> None:
    layers = script("oci/layers.py")
    layers.LARGE_BYTES = 100
    source = write(
        tmp_path / "source", {"big/a.py": b"1" * 90, "big/__pycache__/a.cpython-311.pyc": b"2" * 20, "small/b.py": b""}
    )
    wheels = tmp_path / "wheels.json"
    wheels.write_text(json.dumps({"big": ["big/a.py"], "small": ["small/b.py"]}))
    layers.main(tmp_path / "out", source, "", str(wheels))
    rows = json.loads((tmp_path / "out/layers.json").read_text())
    assert [[file["path"] for file in row["files"]] for row in rows] == [
        ["big/__pycache__/a.cpython-311.pyc", "big/a.py"],
        ["small/b.py"],
    ]


@settings(max_examples=10, deadline=None)
@given(tree=trees)
def test_the_list_of_files_is_canonical_and_whole(
    script: Script, tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    parts = [folder / "first", folder / "second"]
    packed(script, write(folder / "source", tree), parts[0], prefix="opt/a")
    packed(script, write(folder / "source", tree), parts[1], prefix="opt/b")
    script("oci/files.py").main(folder / "out", *map(str, parts))
    value = loads((folder / "out/opt/helix/files.json").read_bytes())
    assert value["version"] == 1
    assert [file["path"] for file in value["files"]] == sorted(f"opt/{part}/{name}" for part in "ab" for name in tree)


def test_a_file_in_two_layers_is_refused(script: Script, tmp_path: Path) -> None:
    for part in ("first", "second"):
        packed(script, write(tmp_path / "source", {"file": b""}), tmp_path / part)
    with pytest.raises(SystemExit, match="two layers hold opt/x/file"):
        script("oci/files.py").main(tmp_path / "out", str(tmp_path / "first"), str(tmp_path / "second"))


def test_an_image_layout_holds_what_its_manifest_names(script: Script, tmp_path: Path) -> None:
    packed(script, write(tmp_path / "source", {"file": b"x"}), tmp_path / "layers")
    script("oci/image.py").main(tmp_path / "out", '{"User":"65532:65532"}', str(tmp_path / "layers"))
    digest = manifest_digest(tmp_path / "out")
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (tmp_path / "out/blobs/sha256").iterdir()}
    assert all(digest_bytes(data) == name for name, data in blobs.items())
    manifest = json.loads(blobs[digest])
    config = json.loads(blobs[manifest["config"]["digest"]])
    assert config["config"] == {"User": "65532:65532"}
    assert [layer["size"] for layer in manifest["layers"]] == [
        len(blobs[layer["digest"]]) for layer in manifest["layers"]
    ]
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 1


def test_what_is_to_stay_out_stays_out_with_its_byte_code(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for name in ("lib/pdb.py", "lib/__pycache__/pdb.cpython-311.pyc", "lib/pdbx.py", "lib/data/a.py", "lib/x.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    monkeypatch.setenv("WITHOUT", json.dumps(["lib/pdb.py", "lib/data"]))
    script("oci/layers.py").main(tmp_path / "out", source, "", "")
    (layer,) = json.loads((tmp_path / "out/layers.json").read_text())
    assert [file["path"] for file in layer["files"]] == ["lib/pdbx.py", "lib/x.py"]
    monkeypatch.setenv("WITHOUT", json.dumps(["lib/gone.py"]))
    with pytest.raises(SystemExit, match=r"lib/gone.py is to stay out, and is not there"):
        script("oci/layers.py").main(tmp_path / "other", source, "", "")
