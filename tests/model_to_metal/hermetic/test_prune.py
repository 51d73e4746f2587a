"""What a store may lose, in a small store of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helix_lineage.paths import State
from model_to_metal.errors import NixError
from model_to_metal.hermetic import fetch, prune
from model_to_metal.hermetic.nix import NixStore
from tests.model_to_metal.project import ROOT, commit, git

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
        inherit name system seed; builder = "${seed}/bin/busybox"; args = [ "sh" "-c" "$seed/bin/busybox ${script}" ];
      };
      dependency = run "dependency" "cp ${./text} $out";
    in
    { packages.${system} = { @attributes@ }; };
}
"""
BOTH = 'image = run "image" "cp ${dependency} $out"; other = run "other" "touch $out";'

Write = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path, checkout_state: State) -> Iterator[NixStore]:
    made = NixStore(tmp_path / "store")
    fetch.add_seed(ROOT, checkout_state, made)
    yield made
    made.remove()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    return folder


@pytest.fixture
def write(checkout: Path) -> Write:
    """Writes the checkout with that text; gives a flake reference."""
    seed = (ROOT / "platform/nix/seed.lock").read_text().split()[-1].removeprefix("sha256:")

    def written(text: str, attributes: str = BOTH) -> str:
        (checkout / "flake.nix").write_text(FLAKE.replace("@seed@", seed).replace("@attributes@", attributes))
        (checkout / "text").write_text(text)
        commit(checkout, text)
        return f"path:{checkout}"

    return written


def names(paths: tuple[str, ...]) -> list[str]:
    return sorted(path.partition("-")[2] for path in paths)


def test_what_an_older_commit_made_goes_and_what_this_one_needs_stays(
    write: Write, checkout: Path, store: NixStore, tmp_path: Path
) -> None:
    old = store.build(f"{write('one')}#image")
    flake = write("two")
    new, other = store.build(f"{flake}#image"), store.build(f"{flake}#other")
    before = {path.name for path in (store.root / "nix/store").iterdir()}
    looked = prune.prune(checkout, store, tmp_path / "scratch", dry=True)
    assert {path.name for path in (store.root / "nix/store").iterdir()} >= before
    done = prune.prune(checkout, store, tmp_path / "scratch")
    assert (looked.dry, done.dry) == (True, False)
    assert set(looked.removed) <= set(done.removed)
    assert old in done.removed
    assert {"dependency", "dependency.drv", "image", "image.drv"} <= set(names(done.removed))
    assert {new, other} & set(done.removed) == set()
    assert done.size > 0
    assert not store.real(old).exists()
    ran: list[str] = []
    assert store.build(f"{flake}#image", report=ran.append) == new
    assert store.build(f"{flake}#other", report=ran.append) == other
    assert [line for line in ran if line.startswith("building")] == []
    assert not list((store.root / "nix/var/nix/gcroots").glob("helix-*"))


def test_a_second_time_nothing_goes_and_what_went_can_be_made_again(
    write: Write, checkout: Path, store: NixStore, tmp_path: Path
) -> None:
    old = store.build(f"{write('one')}#image")
    store.build(f"{write('two')}#image")
    prune.prune(checkout, store, tmp_path / "scratch")
    # What is read to prune (the flake's own copy) is the only thing that an empty pruning finds.
    assert set(names(prune.prune(checkout, store, tmp_path / "scratch").removed)) <= {"source"}
    assert store.build(f"{write('one')}#image") == old


def test_what_is_locked_stays_though_no_attribute_takes_it(
    write: Write, checkout: Path, store: NixStore, tmp_path: Path
) -> None:
    write("one")
    for name in ("locked", "loose"):
        (tmp_path / name).write_text(name)
    locked, loose = store.add_fixed([tmp_path / "locked", tmp_path / "loose"])
    store.build(f"path:{checkout}#other")
    done = prune.prune(checkout, store, tmp_path / "scratch", keep=[locked])
    assert loose in done.removed
    assert store.valid([locked, loose]) == {locked}


def test_a_checkout_that_reaches_nothing_removes_nothing(
    write: Write, checkout: Path, store: NixStore, tmp_path: Path
) -> None:
    old = store.build(f"{write('one')}#image")
    write("two", attributes="")
    with pytest.raises(NixError, match="everything would go"):
        prune.prune(checkout, store, tmp_path / "scratch")
    (checkout / "flake.nix").write_text("{ broken")
    with pytest.raises(NixError):
        prune.prune(checkout, store, tmp_path / "scratch")
    assert store.real(old).exists()
