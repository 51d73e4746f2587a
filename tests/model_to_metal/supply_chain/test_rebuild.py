"""A released image made again offline: equal, and with planted differences."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.errors import CheckoutError, ImageError, NixError
from model_to_metal.hermetic import diff, fetch
from model_to_metal.hermetic.layout import manifest_digest
from model_to_metal.hermetic.nix import NixStore
from model_to_metal.host.checkout import Checkout
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import rebuild
from model_to_metal.supply_chain.rebuild import ReleasedImage
from tests.model_to_metal.conftest import Chain
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
    in
    {
      packages.${system}.toy-image = derivation {
        name = "toy-image"; inherit system seed; builder = "${seed}/bin/busybox"; args = [ "sh" ./image.sh ];
      };
    };
}
"""
SCRIPT = """\
b=$seed/bin/busybox
blob() { h=$($b sha256sum $1); h=${h%% *}; $b mv $1 $out/blobs/sha256/$h; }
$b mkdir -p $out/blobs/sha256 tree/opt
echo "toy @version@" >tree/opt/version
@planted@
$b chmod -R u=rwX,go=rX tree
$b find tree -exec $b touch -d @1 {} +
(cd tree && $b tar -c -f ../layer opt)
blob layer; layer=$h; size=$($b stat -c %s $out/blobs/sha256/$h)
echo -n '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:'$layer'"]}}' >config
blob config; config=$h; csize=$($b stat -c %s $out/blobs/sha256/$h)
t=application/vnd.oci.image
first='{"mediaType":"'$t'.config.v1+json","digest":"sha256:'$config'","size":'$csize'}'
second='{"mediaType":"'$t'.layer.v1.tar","digest":"sha256:'$layer'","size":'$size'}'
echo -n '{"schemaVersion":2,"mediaType":"'$t'.manifest.v1+json","config":'$first',"layers":['$second']}' >manifest
msize=$($b stat -c %s manifest); blob manifest
echo -n '{"imageLayoutVersion":"1.0.0"}' >$out/oci-layout
entry='{"mediaType":"'$t'.manifest.v1+json","digest":"sha256:'$h'","size":'$msize'}'
echo -n '{"schemaVersion":2,"manifests":['$entry']}' >$out/index.json
"""

Project = Callable[..., Checkout]


@pytest.fixture
def home(tmp_path: Path, checkout_state: State) -> Iterator[State]:
    """A state with a store of its own, which holds the seed."""
    found = State(tmp_path / "home")
    fetch.add_seed(ROOT, checkout_state, NixStore.of(found))
    yield found
    NixStore.of(found).remove()
    NixStore(found.nix_second).remove()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Writes a checkout whose flake makes a small image of the model `toy`; a keyword plants something."""

    def written(planted: str = "true", flake: str = FLAKE) -> Checkout:
        folder = tmp_path / "project"
        (folder / "models/toy").mkdir(parents=True)
        (folder / "models/toy/model.toml").write_text('name = "toy"\n')
        seed = (ROOT / "platform/nix/seed.lock").read_text().split()[-1].removeprefix("sha256:")
        (folder / "flake.nix").write_text(flake.replace("@seed@", seed))
        (folder / "image.sh").write_text(SCRIPT.replace("@planted@", planted).replace("@version@", "1"))
        git(folder, "init", "--quiet", "--initial-branch", "main")
        commit(folder, "toy")
        return Checkout(folder)

    return written


def built(checkout: Checkout, home: State, target: Path) -> Path:
    """The image as it was released: built, and kept elsewhere."""
    store = NixStore.of(home)
    layout = store.real(store.build(f"path:{checkout.root}#toy-image"))
    return Path(shutil.copytree(layout, target))


def again(checkout: Checkout, home: State, layout: Path) -> rebuild.RebuildResult:
    asked = ReleasedImage("toy", checkout.commit(), manifest_digest(layout))
    with rebuild.clone(checkout, asked.commit, home) as source:
        return rebuild.rebuild(source, asked, home, lambda _folder: layout)


def test_the_same_commit_gives_the_same_image_whatever_the_working_tree_holds(
    project: Project, home: State, tmp_path: Path
) -> None:
    checkout = project()
    layout = built(checkout, home, tmp_path / "released")
    (checkout.root / "image.sh").write_text("exit 1")
    (checkout.root / "more").write_text("not in the commit")
    made = again(checkout, home, layout)
    assert made.equal
    assert made.steps == 1
    assert [layer.equal for layer in made.layers] == [True]
    assert made.to_json()["equal"] is True
    assert not home.nix_second.exists()
    assert not list((home.root / "scratch").iterdir())


@pytest.mark.skipif(shutil.which(diff.TOOL) is None, reason="needs diffoscope; run: make setup-tests test-fast")
def test_a_build_that_notes_the_time_is_another_image_and_the_file_is_named(
    project: Project, home: State, tmp_path: Path
) -> None:
    checkout = project(planted="$b cat /proc/uptime >tree/opt/built")
    made = again(checkout, home, built(checkout, home, tmp_path / "released"))
    assert not made.equal
    assert [layer.equal for layer in made.layers] == [False]
    assert made.report
    assert "opt/built" in made.report.head
    assert made.report.folder == home.reports / f"rebuild-toy-{checkout.commit()[:12]}"
    assert (made.report.folder / "report.html").is_file()
    assert made.to_json()["report"]["files"]


def test_another_image_than_the_one_released_is_found_out(project: Project, home: State, tmp_path: Path) -> None:
    checkout = project()
    layout = built(checkout, home, tmp_path / "released")
    manifest = layout / "blobs/sha256" / manifest_digest(layout).removeprefix("sha256:")
    assert again(checkout, home, layout).equal
    (checkout.root / "image.sh").write_text((checkout.root / "image.sh").read_text().replace("toy 1", "toy 2"))
    commit(checkout.root, "another version")
    made = again(checkout, home, layout)
    assert (made.equal, manifest.is_file()) == (False, True)


def test_nix_itself_has_no_network(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f'builtins.fetchurl {{ name = "page"; url = "http://127.0.0.1:{server.server_port}/"; }}'
        command = ["nix", "eval", "--impure", "--expr", page]
        assert "-page" in NixStore(tmp_path / "online")._run(command)
        with pytest.raises(NixError, match="unable to download"):
            NixStore(tmp_path / "offline", offline=True)._run(command)
        server.shutdown()
    for name in ("online", "offline"):
        NixStore(tmp_path / name).remove()


def test_an_absent_locked_input_is_named(project: Project, home: State, tmp_path: Path) -> None:
    checkout = project()
    layout = built(checkout, home, tmp_path / "released")
    NixStore.of(home).remove()
    with pytest.raises(ImageError, match=r"1 locked inputs are not in the store: busybox") as caught:
        again(checkout, home, layout)
    assert str(caught.value.fix).startswith("helix fetch")


# ---- which release -------------------------------------------------------------------------------


def test_the_release_of_a_commit_is_found_and_its_signature_must_hold(
    signing: State, signed: Chain, tmp_path: Path
) -> None:
    trust, now = Trust.load(signing.trust), datetime.now(UTC)
    known = rebuild.bundles(Checkout(tmp_path), signing)
    found = rebuild.find("c" * 40, known, trust, now)
    assert (found.model, found.image) == ("tiny", signed.release.parameters["image"])
    # A later release takes the place of the latest, and leaves this commit's where it is.
    (signing.releases / "tiny" / "release.sigstore.json").unlink()
    known = rebuild.bundles(Checkout(tmp_path), signing)
    assert rebuild.find("c" * 40, known, trust, now) == found
    with pytest.raises(CheckoutError, match="no release of commit dddddddddddd is here") as caught:
        rebuild.find("d" * 40, known, trust, now)
    assert "--release" in str(caught.value.fix)
    with pytest.raises(LineageError):
        rebuild.find("c" * 40, known, Trust(()), now)


def test_the_released_image_comes_from_the_registry_and_is_hashed(
    signing: State, signed: Chain, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_REGISTRY", client.address)
    digest = str(signed.release.parameters["image"])
    asked = ReleasedImage("tiny", "c" * 40, digest)
    layout = rebuild.from_registry(asked, signing)(tmp_path)
    assert manifest_digest(layout) == digest
    blobs = signing.registry / artifacts.repository("tiny") / "blobs/sha256"
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_bytes())
    layer = blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")
    layer.write_bytes(layer.read_bytes()[::-1])
    with pytest.raises(ImageError, match="the released image cannot be copied from the registry: ") as caught:
        rebuild.from_registry(asked, signing)(tmp_path / "spoilt")
    assert "level=fatal" not in str(caught.value)  # which is how skopeo says it
    assert str(caught.value).endswith(f"run: helix verify {artifacts.repository('tiny')}@{digest}")
