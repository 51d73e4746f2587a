from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.chain import Artifact
from helixserve.errors import ContractError, HelixServeError, NotReadyError
from helixserve.integrity import manifest as image_files, readiness
from helixserve.settings import Settings
from tests.damage import flip_bit
from tests.helixserve import support
from tests.helixserve.support import Place

NOW = datetime.now(UTC)


def settings(place: Place) -> Settings:
    return Settings.read(place.environment())


def test_an_honest_place_is_ready(place: Place) -> None:
    verified = readiness.load(settings(place), NOW)
    assert verified.contract.name == "tiny"
    assert verified.image == support.IMAGE
    assert verified.artifacts == {"tiny.onnx": support.tiny_graph()}
    assert verified.bundle == place.release.read_bytes()


def resign(place: Place, **changes: object) -> None:
    place.release.write_bytes(support.sign(support.records(place, "tiny", **changes), place.key))


def flip_in_payload(place: Place) -> None:
    bundle = json.loads(place.release.read_bytes())
    payload = bundle["dsseEnvelope"]["payload"]
    bundle["dsseEnvelope"]["payload"] = ("A" if payload[0] != "A" else "B") + payload[1:]
    place.release.write_text(json.dumps(bundle))


def other_trust(place: Place, role: str = "releaser") -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if role == "releaser" else place.key
    place.trust.write_text(json.dumps(support.trust(key, role=role)))


def plant(place: Place, name: str) -> None:
    (place.home / name).parent.mkdir(parents=True, exist_ok=True)
    (place.home / name).write_text("import os")


def rename_model(place: Place) -> None:
    path = place.home / "model" / "model.toml"
    path.write_text(path.read_text().replace('name = "tiny"', 'name = "other"'))
    support.publish(place, "tiny")


def break_contract(place: Place) -> None:
    path = place.home / "model" / "model.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 9"))
    support.publish(place, "tiny")


def other_engine(place: Place) -> None:
    resign(place, outputs=[Artifact("tiny.onnx", digest_bytes(b"another graph"), 13)])


FAULTS: dict[str, tuple[Callable[[Place], object], str]] = {
    "no release": (lambda place: place.release.unlink(), "HELIX_RELEASE"),
    "no trust root": (lambda place: place.trust.unlink(), "trust.json"),
    "no list of files": (lambda place: (place.home / "files.json").unlink(), "files.json"),
    "another releaser": (other_trust, "releaser"),
    "a key of another role": (lambda place: other_trust(place, "promoter"), "releaser"),
    "an edited release": (flip_in_payload, "release"),
    "a record missing": (lambda place: resign(place, without=["data"]), "data"),
    "a guard that refused": (lambda place: resign(place, guard_passed=False), "guard"),
    "an edited list of files": (lambda place: flip_bit(place.home / "files.json"), "files.json"),
    "a flipped weight": (
        lambda place: flip_bit(place.home / "artifacts" / "tiny.onnx"),
        "opt/helix/artifacts/tiny.onnx",
    ),
    "weights missing": (
        lambda place: (place.home / "artifacts" / "tiny.onnx").unlink(),
        "opt/helix/artifacts/tiny.onnx",
    ),
    "an edited contract": (lambda place: flip_bit(place.home / "model" / "model.toml"), "opt/helix/model/model.toml"),
    "edited code": (lambda place: flip_bit(place.home / "model/src/tiny_model/model.py"), "tiny_model/model.py"),
    "code removed": (lambda place: (place.home / "model/src/tiny_model/model.py").unlink(), "tiny_model/model.py"),
    "code added": (lambda place: plant(place, "platform/sitecustomize.py"), "opt/helix/platform/sitecustomize.py"),
    "another model's release": (rename_model, "model"),
    "a contract of another format": (break_contract, "format"),
    "weights that are not the engine's": (other_engine, "tiny.onnx"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_spoilt_place_is_not_ready_and_the_field_is_named(place: Place, fault: str) -> None:
    spoil, named = FAULTS[fault]
    spoil(place)
    with pytest.raises((NotReadyError, ContractError)) as caught:
        readiness.load(settings(place), NOW)
    assert named in str(caught.value)


@pytest.mark.parametrize("claimed", ["", digest_bytes(b"another image")])
def test_an_image_that_the_release_does_not_name_is_not_ready(place: Place, claimed: str) -> None:
    with pytest.raises(NotReadyError, match="image"):
        readiness.load(Settings.read(place.environment(HELIX_IMAGE_DIGEST=claimed)), NOW)


@pytest.mark.parametrize("days", [-2, 2])
def test_outside_the_keys_validity_the_release_does_not_hold(place: Place, days: int) -> None:
    with pytest.raises(NotReadyError, match="release"):
        readiness.load(settings(place), NOW + timedelta(days=days))


def test_files_that_this_process_loads_are_compared_where_they_lie_under_the_root(place: Place) -> None:
    module = place.home / "model" / "src" / "tiny_model" / "model.py"
    readiness.check_loaded(settings(place), [module, Path(__file__)])
    flip_bit(module)
    with pytest.raises(NotReadyError, match=r"tiny_model/model\.py"):
        readiness.check_loaded(settings(place), [module])


def test_a_loaded_file_that_is_not_listed_is_refused(place: Place) -> None:
    planted = place.root / "usr" / "lib" / "libextra.so"
    planted.parent.mkdir(parents=True)
    planted.touch()
    with pytest.raises(NotReadyError, match=r"libextra\.so"):
        readiness.check_loaded(settings(place), [planted])


def test_loaded_files_name_modules_and_mapped_libraries() -> None:
    loaded = {Path(name) for name in readiness.loaded_files(readiness.RealPaths())}
    assert Path(readiness.__file__).resolve() in loaded
    assert any("libc.so" in path.name for path in loaded)
    assert any(path.name.startswith("_multiarray_umath") for path in loaded)


def test_a_mapped_library_that_was_deleted_is_refused(place: Place) -> None:
    """Whether it was the release's, nobody can say any more."""
    gone = place.home / "gone.so"
    gone.write_bytes(bytes(mmap.PAGESIZE))
    settings = Settings.read(place.environment())
    with gone.open("r+b") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        gone.unlink()
        with pytest.raises(NotReadyError, match="was deleted") as caught:
            readiness.check_loaded(settings, map(Path, readiness.loaded_files(readiness.RealPaths())))
        assert str(gone).startswith((caught.value.where or "")[:60])


def test_real_paths_follow_links_of_folders_and_of_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "folder" / "link").symlink_to("file")
    (tmp_path / "other").symlink_to("folder")
    real = readiness.RealPaths()
    for name in ("folder/file", "folder/link", "other/file", "other/link", "other/../folder/file"):
        assert real(f"{tmp_path}/{name}") == str((tmp_path / "folder" / "file").resolve())


@pytest.mark.parametrize("settled", [True, False])
def test_what_was_checked_is_read_again_only_when_it_may_have_changed(
    place: Place, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    monkeypatch.setattr(image_files, "_SETTLED_NS", -1 if settled else 10**18)
    given, files, hashed = settings(place), readiness.load(settings(place), NOW).files, []
    monkeypatch.setattr(image_files, "digest_bytes", lambda data: hashed.append(data) or digest_bytes(data))
    module = place.home / "model" / "src" / "tiny_model" / "model.py"
    readiness.check_loaded(given, [module], files)
    assert len(hashed) == (0 if settled else 1)
    flip_bit(module)
    with pytest.raises(NotReadyError, match=r"tiny_model/model\.py"):
        readiness.check_loaded(given, [module], files)


def test_links_are_compared_by_target(place: Place) -> None:
    link = place.home / "model" / "link"
    link.symlink_to("model.toml")
    listed = {"version": 1, "files": [{"path": "opt/helix/model/link", "link": "model.toml"}]}
    files = image_files.ImageFiles(json.dumps(listed, separators=(",", ":"), sort_keys=True).encode(), place.root)
    files.check(link)
    link.unlink()
    link.symlink_to("bentofile.yaml")
    with pytest.raises(NotReadyError, match="link"):
        files.check(link)


@pytest.mark.parametrize("manifest", [b"", b"{}", b'{"files":[],"version":2}', b'{"files":[{}],"version":1}', b"[]"])
def test_a_malformed_list_of_files_is_refused(manifest: bytes) -> None:
    with pytest.raises(HelixServeError) as caught:
        image_files.ImageFiles(manifest, Path("/"))
    assert caught.value.where == "files.json"
