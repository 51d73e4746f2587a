"""What may lie under `gitops/argocd`, by path and by byte, whatever a rendering would show. Pure.

Argo CD takes more than kustomizations: a folder of plain YAML, `kustomization.yml`, an
`.argocd-source.yaml` that overrides parameters. So what is not listed here is refused:

- `known-files`: an environment holds its policy, `_common` and one folder a model; a model's folder holds
  exactly the three files that `helix promote` writes;
- `written-by-promote`: these three, byte for byte, and about the very model and environment;
- `one-kustomization`: no second spelling of `kustomization.yaml`, no Helm chart, and no
  `.argocd-*` or `.git*` file anywhere;
- `one-meaning`: names of plain characters, no file beyond a mebibyte or two, YAML without aliases and repeated keys,
  JSON without repeated keys: nothing that two readers may take for two things, or that grows when it is read;
- `nothing-remote`: a kustomization has known fields only, and takes files of this folder only.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from helix_lineage.formats.untrusted import parse_json
from model_to_metal.errors import GitopsError
from model_to_metal.gitops import layout, overlay
from model_to_metal.gitops.manifests import ManifestFault, get, items, load
from model_to_metal.gitops.policy import Policy
from model_to_metal.registry import artifacts

SAMPLE = "sample"
"""A model that is never promoted: with it base and environments are checked before the first promotion."""

_COMMON = "_common"
_FILES = frozenset({layout.KUSTOMIZATION, layout.RELEASE, layout.PROMOTION})
_SPELLINGS = frozenset({"kustomization.yml", "kustomization"})
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")
MAX_FILE_BYTES = 2 * 2**20
"""Of any file; the largest, a release with all of its records, has some 100 KB."""
_LOCAL = re.compile(r"(\.{1,2}/)*[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
"""A path that no tool takes for a URL. kustomize asks the network first for what looks like one."""
_FIELDS = frozenset(
    {
        "apiVersion", "kind", "namePrefix", "namespace", "labels", "images", "patches", "resources", "components",
        "configMapGenerator",
    }
)  # fmt: skip
_BY_PROMOTE = "only helix promote and helix rollback write here; take the change back"

Files = Mapping[str, bytes]


def check(files: Files) -> list[ManifestFault]:
    """Every fault of what lies under `gitops/argocd` (path → bytes), sorted."""
    found = [fault for path, data in files.items() for fault in (*_name(path), *_meaning(path, data))]
    for path in files:
        if path.rpartition("/")[2] == layout.KUSTOMIZATION:
            found += _kustomization(files, path)
    for environment in sorted({path.split("/")[3] for path in files if path.startswith(f"{layout.ENVIRONMENTS}/")}):
        found += _environment(files, environment)
    return sorted(set(found))


def check_model(files: Files, environment: str, model: str) -> list[ManifestFault]:
    """Faults of one model's folder: other files than `helix promote` writes, or other bytes."""
    place = layout.folder(environment, model)
    present = {path.removeprefix(f"{place}/"): data for path, data in files.items() if path.startswith(f"{place}/")}
    if set(present) != _FILES:
        odd = ", ".join(sorted(set(present) ^ _FILES))
        return [ManifestFault(place, "known-files", f"other files than a promotion's: {odd}", _BY_PROMOTE)]
    try:
        wanted = _promoted(files, environment, model, present)
    except GitopsError as error:
        return [ManifestFault(place, "written-by-promote", error.what, _BY_PROMOTE)]
    return [
        ManifestFault(path, "written-by-promote", "other bytes than a promotion's", _BY_PROMOTE)
        for path, data in wanted.items()
        if files[path] != data
    ]


def _promoted(files: Files, environment: str, model: str, present: Files) -> dict[str, bytes]:
    """What `helix promote` writes for the release and promotion that are there. No signature is checked here."""
    release = overlay.claimed_release(present[layout.RELEASE])
    promotion = overlay.claimed_promotion(present[layout.PROMOTION])
    named = (promotion.parameters.get("model"), promotion.parameters.get("environment"))
    if named != (model, environment) or release.parameters.get("model") != model:
        raise GitopsError("the release or the promotion is of another model or environment")
    if promotion.parents.get("release") != release.digest:
        raise GitopsError("the promotion is of another release")
    return overlay.files(
        environment,
        model,
        registry=_policy(files, environment).registry,
        repository=artifacts.repository(model),
        image=str(release.parameters["image"]),
        release=present[layout.RELEASE],
        promotion=present[layout.PROMOTION],
    )


def _environment(files: Files, environment: str) -> Iterator[ManifestFault]:
    place = f"{layout.ENVIRONMENTS}/{environment}"
    inside = {path.removeprefix(f"{place}/") for path in files if path.startswith(f"{place}/")}
    try:
        layout.name(environment)
        _policy(files, environment)
    except GitopsError as error:
        yield ManifestFault(
            place, "known-files", f"no environment: {error.what}", "remove it, or give it a policy.json"
        )
        return
    for folder in sorted({path.partition("/")[0] for path in inside if "/" in path} - {_COMMON}):
        try:
            layout.name(folder)
        except GitopsError as error:
            yield ManifestFault(f"{place}/{folder}", "known-files", error.what, "remove it")
            continue
        if folder == SAMPLE:
            yield ManifestFault(
                f"{place}/{folder}", "known-files", "the name is kept for the sample that checks use", "rename"
            )
        yield from check_model(files, environment, folder)
    own = {path for path in inside if "/" not in path or path.startswith(f"{_COMMON}/")}
    for path in sorted(own - {"policy.json", f"{_COMMON}/{layout.KUSTOMIZATION}"}):
        yield ManifestFault(f"{place}/{path}", "known-files", "an environment has no such file", "remove it")


def _policy(files: Files, environment: str) -> Policy:
    path = layout.policy(environment)
    if path not in files:
        raise GitopsError("the environment has no policy", where=path)
    return Policy.parse(files[path], where=path)


def _name(path: str) -> Iterator[ManifestFault]:
    name = path.rpartition("/")[2]
    if name.lower() in _SPELLINGS or (name.lower() == layout.KUSTOMIZATION) != (name == layout.KUSTOMIZATION):
        yield ManifestFault(
            path, "one-kustomization", "kustomize takes this file, too", f"call it {layout.KUSTOMIZATION}"
        )
    if name.startswith(".argocd-"):
        yield ManifestFault(path, "one-kustomization", "Argo CD overrides parameters from this file", "remove it")
    if name.lower() == "chart.yaml":
        yield ManifestFault(path, "one-kustomization", "Argo CD takes this folder for a Helm chart", "remove it")
    if name.startswith(".git"):
        yield ManifestFault(
            path, "one-kustomization", "Git changes or hides files on their way to Argo CD by this", "remove it"
        )
    if not all(_NAME.fullmatch(part) for part in path.split("/")):
        yield ManifestFault(path, "one-meaning", "a name of other characters than A-Z a-z 0-9 . _ -", "rename it")


def _meaning(path: str, data: bytes) -> Iterator[ManifestFault]:
    """Faults of what a file holds, whoever reads it."""
    if len(data) > MAX_FILE_BYTES:
        yield ManifestFault(path, "one-meaning", f"it has {len(data)} bytes, more than {MAX_FILE_BYTES}", "remove it")
        return
    try:
        if path.endswith((".yaml", ".yml")):
            load(data)
        elif path.endswith(".json"):
            parse_json(data)
    except ValueError as error:
        yield ManifestFault(
            path, "one-meaning", f"not plain {path.rpartition('.')[2].upper()}: {error}", "write it anew"
        )


def _kustomization(files: Files, path: str) -> Iterator[ManifestFault]:
    """Faults of what a kustomization takes: what is fetched or run at sync time is not what was reviewed."""
    try:
        (value,) = load(files[path])
    except ValueError as error:
        yield ManifestFault(path, "nothing-remote", f"not one YAML document: {error}", "write it anew")
        return
    if not isinstance(value, dict):
        yield ManifestFault(path, "nothing-remote", "not a kustomization", "write it anew")
        return
    if unknown := sorted(map(str, set(value) - _FIELDS)):
        yield ManifestFault(
            path, "nothing-remote", f"fields that may fetch or run something: {', '.join(unknown)}", "remove"
        )
    for item in _taken(value):
        if not _is_here(files, path, item):
            yield ManifestFault(path, "nothing-remote", f"it takes {item!r} from elsewhere", "commit what is needed")


def _taken(value: Mapping[str, Any]) -> Iterator[Any]:
    """Every file or folder that a kustomization names."""
    for key in ("resources", "components"):
        yield from items(value, key)
    for patch in items(value, "patches"):
        if get(patch, "path") is not None:
            yield get(patch, "path")
    for generator in items(value, "configMapGenerator"):
        for item in (*items(generator, "files"), *items(generator, "envs"), get(generator, "env")):
            if item is not None:
                yield str(item).rpartition("=")[2]


def _looks_like_a_host(item: str) -> bool:
    """As `github.com/somebody/base` does: kustomize clones that, whatever folder of the name lies here."""
    first, slash, _ = item.partition("/")
    return bool(slash) and "." in first.strip(".")


def _is_here(files: Files, path: str, item: Any) -> bool:
    """Is it a file, or a folder with a kustomization, of this very tree?"""
    if not isinstance(item, str) or not _LOCAL.fullmatch(item) or _looks_like_a_host(item):
        return False
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), item))
    return place.startswith(f"{layout.ROOT}/") and (place in files or f"{place}/{layout.KUSTOMIZATION}" in files)
