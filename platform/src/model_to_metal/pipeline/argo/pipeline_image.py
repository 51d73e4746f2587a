"""The image that every stage's pod runs: environments from locks, the platform's code, cosign.

Takes a checkout whose environments Nix has built; gives an OCI layout. Each part is a layer with
the name of what it was made from, written once and kept under `.helix/pipeline`: a commit that
changes code alone makes one small layer, and a node keeps the others. Nix makes the environments;
the platform's own packages are copied from the locked virtual environment that this runs in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.paths import State
from helix_lineage.process import USER
from model_to_metal.hermetic import fetch, nix
from model_to_metal.host import tools
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure
from model_to_metal.pipeline.argo import archive
from model_to_metal.pipeline.argo.archive import Entries, Packed, members
from model_to_metal.registry.client import INDEX, MANIFEST

NEEDED = (
    "cbor2", "cryptography", "dvc", "httpx", "jinja2", "numpy", "packaging", "pyyaml", "rfc8785", "rich", "typer",
    "zstandard",
)  # fmt: skip
"""What the platform's code in a pod imports, besides its own packages."""
FORMAT = 1
"""Part of every layer's name: another way of packing makes other layers."""

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CREATED = "1970-01-01T00:00:01Z"
_FOLDERS = {"tmp": 0o1777, "build": 0o1777}
_SYSTEM = ("usr", "lib", "lib64", "bin", "sbin", "etc")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PipelineImage:
    """An image that was composed."""

    layout: Path
    """The OCI layout that holds it, among others."""
    digest: str
    environments: Mapping[str, str]
    """`build` or `serve` → the environment's path inside."""
    present: tuple[str, ...]
    """The store paths inside."""


def compose(checkout: Checkout, state: State, model: str, table: nix.Table, report: Tell) -> PipelineImage:
    """The image for `model`, with what it lacks built now. `table` describes the model's image (`Store.described`)."""
    store, folder = nix.NixStore.of(state), state.root / "pipeline"
    built = environment_steps(table, model)
    for path in sorted(set(built) - store.valid(built)):
        store.build(built[path], report=report)
    (base,) = (path for path in built if path.endswith("-base"))
    layers = [_layer(folder, "system", base, lambda: _system(store.real(base)), report)]
    for path in sorted(built):
        layers.append(_layer(folder, Path(path).name, path, lambda path=path: _stored(store, path), report))  # type: ignore[misc]
    host = digest_bytes(dumps(sorted(f"{d.name}=={d.version}" for d in distributions(NEEDED))))
    layers.append(_layer(folder, "host", host, _host, report))
    cosign = tools.ensure("cosign", state, report)
    shell = fetch.add_seed(checkout.root, state, store)
    made_from = f"{tools.declared('cosign').key} {shell}"
    layers.append(_layer(folder, "tools", made_from, lambda: _tools(checkout, cosign, store.real(shell)), report))
    code = closure.code(checkout, ("lineage/src", "platform/src"))
    entries = {f"opt/helix/{name}": checkout.root / name for name in code.files}
    layers.append(_layer(folder, "code", code.digest, lambda: entries, report))
    environments = {group: _one(built, f"-{model}-{group}-env") for group in ("build", "serve")}
    return PipelineImage(folder, _image(folder, layers), environments, tuple(sorted(built)))


def environment_steps(table: nix.Table, model: str) -> dict[str, str]:
    """Store path → `.drv` of the steps that depend on locks alone: what the image holds of the store. Pure."""
    own = rf"base|base-layers|zig|[a-z]+-wheels|{re.escape(model)}-(build-env|serve-env|serve-env-layers)"
    return {
        str(fields["outputs"]["out"]["path"]): drv
        for drv, fields in table.items()
        if "hash" not in fields["outputs"]["out"] and re.fullmatch(own, str(fields["env"].get("name")))
    }


def distributions(names: Iterable[str]) -> list[metadata.Distribution]:
    """Those distributions of this environment, and all that they need here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        needs = [Requirement(line) for line in found[name].requires or ()]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def _one(paths: Iterable[str], ending: str) -> str:
    (path,) = (path for path in paths if path.endswith(ending))
    return path


def _system(base: Path) -> Entries:
    """The base's root file system; a pod's own files are mounted over some of it."""
    found: dict[str, Path | bytes | str] = {}
    for name in _SYSTEM:
        path = base / name
        if path.is_symlink() or path.is_dir():
            found[name] = path
            found |= {} if path.is_symlink() else dict(members(path, name))
    return found


def _stored(store: nix.NixStore, path: str) -> Entries:
    return dict(members(store.real(path), path.lstrip("/")))


def _host() -> Entries:
    """The files of wheels, without byte code and without what the installer wrote."""
    found: dict[str, Path | bytes | str] = {}
    for distribution in distributions(NEEDED):
        for file in distribution.files or ():
            inside = ".." not in file.parts and file.suffix != ".pyc"
            if inside and file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                found[f"opt/helix/host/site-packages/{file}"] = Path(str(distribution.locate_file(file)))
    return found


def _tools(checkout: Checkout, cosign: Path, shell: Path) -> Entries:
    """cosign; and the shell and the name of Python that DVC's commands are written for."""
    found: dict[str, Path | bytes | str] = {
        "bin/busybox": shell / "bin/busybox",
        "bin/sh": "busybox",
        "opt/helix/host/bin/python": "/usr/bin/python3.11",
        "opt/helix/tools/cosign": cosign,
        "opt/helix/tools/cosign.json": cosign.with_suffix(".json"),
    }
    for name in ("go.mod", "go.sum"):
        found[f"opt/helix/platform/tools/cosign/{name}"] = checkout.root / "platform/tools/cosign" / name
    return found


def _layer(folder: Path, name: str, made_from: str, entries: Callable[[], Entries], report: Tell) -> Packed:
    """One layer, written now unless it is there."""
    key = digest_bytes(dumps({"format": FORMAT, "name": name, "from": made_from})).removeprefix("sha256:")
    note, blobs = folder / "layers" / f"{key}.json", folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    note.parent.mkdir(parents=True, exist_ok=True)
    if note.is_file():
        known = Packed(**json.loads(note.read_bytes()))
        if (blobs / known.digest.removeprefix("sha256:")).is_file():
            return known
    report(f"packing {name}")
    half = blobs / f".{key}.part"
    try:
        packed = archive.write(entries(), half, folders=_FOLDERS if name == "system" else None)
        half.replace(blobs / packed.digest.removeprefix("sha256:"))
    finally:
        half.unlink(missing_ok=True)
    note.write_bytes(dumps(asdict(packed)))
    return packed


def _image(folder: Path, layers: list[Packed]) -> str:
    """Write configuration, manifest and index; gives the manifest's digest."""
    paths = ("/opt/helix/lineage/src", "/opt/helix/platform/src", "/opt/helix/host/site-packages")
    environment = [
        "PATH=/usr/bin", f"PYTHONPATH={':'.join(paths)}", "PYTHONDONTWRITEBYTECODE=1", "HOME=/build", "TMPDIR=/build",
        "HELIX_STATE=/build/state", "LC_ALL=C.UTF-8",
    ]  # fmt: skip
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": {"User": f"{USER}:{USER}", "WorkingDir": "/build", "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    rows = [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers]
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _put(folder, dumps(config)), "layers": rows}
    manifest = _put(folder, dumps(value)) | {"mediaType": MANIFEST}
    (folder / "index.json").write_bytes(dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}))
    (folder / "oci-layout").write_bytes(dumps({"imageLayoutVersion": "1.0.0"}))
    return str(manifest["digest"])


def _put(folder: Path, data: bytes) -> dict[str, str | int]:
    digest = digest_bytes(data)
    (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": _CONFIG, "digest": digest, "size": len(data)}
