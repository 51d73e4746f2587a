"""Fetching: real pip, apt and Nix, on a checkout with a handful of small locked files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_lineage.paths import State
from model_to_metal.errors import FetchError
from model_to_metal.hermetic import fetch, locks, nix
from model_to_metal.hermetic.fetch import Fetched
from model_to_metal.hermetic.nix import NixStore

ROOT = Path(__file__).resolve().parents[3]
WHEEL = "rfc8785"


VERSIONS = [
    locks.Pin(
        "protobuf", "6.33.6",
        "sha256:e9db7e292e0ab79dd108d7f1a94fe31601ce1ee3f7b79e0692043423020b0593",
        "protobuf-6.33.6-cp39-abi3-manylinux2014_x86_64.whl",
    ),
    locks.Pin(
        "protobuf", "7.36.2",
        "sha256:89f23aa53c24553a2416fd4fd1ec06f74fa42b14b546d8883128813f775bbfd2",
        "protobuf-7.36.2-cp310-abi3-manylinux2014_x86_64.whl",
    ),
]  # fmt: skip
"""One distribution in two versions: what a serve and a build lock may hold."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkout whose locks name one wheel, one .deb and the seed."""
    root = tmp_path / "checkout"
    lock = root / "models/tiny/environment/serve.lock"
    lock.parent.mkdir(parents=True)
    pins = locks.read(ROOT / "models/proteinmpnn/environment/serve.lock")
    lock.write_text(locks.render((pin for pin in pins if pin.name == WHEEL), title="Tiny."))
    folder = root / "platform/nix"
    folder.mkdir(parents=True)
    debs = locks.read_debs(ROOT / "platform/nix/debs.lock")
    few = [pin for pin in debs if pin.package in (fetch.SEED, "libuuid1")]
    (folder / "debs.lock").write_text(locks.render(few, title="Tiny."))
    shutil.copy(ROOT / "platform/nix/seed.lock", folder / "seed.lock")
    return root


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    yield state
    NixStore.of(state).remove()


def test_every_locked_file_comes_into_the_store_once(tiny: Path, empty: State) -> None:
    told: list[str] = []
    first = fetch.fetch(tiny, empty, progress=lambda what, *_: told.append(what))
    assert first == Fetched(locked=3, downloaded=3, added=3)
    assert any(WHEEL in line for line in told)
    store = NixStore.of(empty)
    for file in fetch.locked_files(tiny):
        assert fetch.is_intact(store.real(file.store_path), file.digest)
    assert (store.real(fetch.add_seed(tiny, empty, store)) / "bin/busybox").is_file()
    assert fetch.fetch(tiny, empty) == Fetched(locked=3, downloaded=0, added=0)


def test_two_locks_may_hold_two_versions_of_a_distribution(tiny: Path, empty: State) -> None:
    for pin, kind in zip(VERSIONS, ("serve", "build"), strict=True):
        (tiny / f"models/tiny/environment/{kind}.lock").write_text(locks.render([pin], title="Tiny."))
    assert fetch.fetch(tiny, empty).downloaded == 4


def test_a_round_holds_each_distribution_once() -> None:
    other = locks.Pin("numpy", "2.4.6", "sha256:" + "0" * 64, "numpy-2.4.6-py3-none-any.whl")
    assert fetch.rounds([*VERSIONS, other]) == [[other, VERSIONS[0]], [VERSIONS[1]]]


def test_another_store_is_filled_without_downloading_again(tiny: Path, empty: State, tmp_path: Path) -> None:
    fetch.fetch(tiny, empty)
    second = NixStore(tmp_path / "second")
    assert fetch.fetch(tiny, empty, store=second) == Fetched(locked=3, downloaded=0, added=3)
    second.remove()
    assert not second.root.exists()


def test_a_spoilt_download_is_replaced(tiny: Path, empty: State) -> None:
    file = next(file for file in fetch.locked_files(tiny) if WHEEL in file.filename)
    path = empty.downloads / file.folder / file.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a file")
    assert fetch.fetch(tiny, empty).downloaded == 3
    assert fetch.is_intact(path, file.digest)


def test_another_file_than_the_locked_one_is_refused(tiny: Path, empty: State) -> None:
    lock = tiny / "models/tiny/environment/serve.lock"
    (pin,) = locks.read(lock)
    lock.write_text(lock.read_text().replace(pin.digest, "sha256:" + "0" * 64))
    with pytest.raises(FetchError, match=r"(?s)pip.*HASHES"):
        fetch.fetch(tiny, empty)


def test_another_deb_than_the_locked_one_is_refused(tiny: Path, empty: State) -> None:
    lock = tiny / "platform/nix/debs.lock"
    digest = next(pin.digest for pin in locks.read_debs(lock) if pin.package == "libuuid1")
    lock.write_text(lock.read_text().replace(digest, "sha256:" + "0" * 64))
    with pytest.raises(FetchError, match="Hash Sum mismatch"):
        fetch.fetch(tiny, empty)


def test_another_seed_than_the_locked_one_is_refused(tiny: Path, empty: State) -> None:
    (tiny / "platform/nix/seed.lock").write_text(f"busybox sha256:{'0' * 64}\n")
    with pytest.raises(FetchError, match="the seed is not the one"):
        fetch.fetch(tiny, empty)


def test_the_mirror_can_be_named(monkeypatch: pytest.MonkeyPatch, tiny: Path, empty: State) -> None:
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, "http://127.0.0.1:9/debian/")
    assert fetch.debian_mirror() == "http://127.0.0.1:9/debian"
    with pytest.raises(FetchError) as caught:
        fetch.fetch(tiny, empty)
    assert caught.value.where is not None
    assert caught.value.where.startswith("http://127.0.0.1:9/debian/pool/main/")


def test_store_names_hold_what_nix_allows() -> None:
    assert nix.store_name("a_1%3a2~rc1+b.deb") == "a_1_3a2_rc1+b.deb"
