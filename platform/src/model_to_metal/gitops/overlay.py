"""A model's files in an environment: what `promote` writes, byte for byte the same each time. Pure."""

from __future__ import annotations

from helix_lineage.attestations import promotion as promotions, release as releases
from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import check_digest
from helix_lineage.records.chain import Promotion, Release
from model_to_metal.errors import GitopsError
from model_to_metal.gitops.layout import KUSTOMIZATION, PROMOTION, RELEASE, folder, name

_TEXT = """\
# Written by `helix promote` or `helix rollback`; a test compares the bytes. Do not edit.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namePrefix: {model}-
resources:
- ../../../base
components:
- ../_common
labels:
- includeSelectors: true
  pairs:
    app.kubernetes.io/name: {model}
images:
- name: model-server
  newName: {registry}/{repository}
  digest: {digest}
# Immutable, with a hash in its name: another release is another ConfigMap, and so another roll-out.
configMapGenerator:
- name: release
  files:
  - release.sigstore.json
  - promotion.sigstore.json
  literals:
  - image={digest}
  options:
    immutable: true
"""


def files(
    environment: str, model: str, *, registry: str, repository: str, image: str, release: bytes, promotion: bytes
) -> dict[str, bytes]:
    """Path → bytes of everything in the model's folder of the environment."""
    place = folder(environment, model)
    text = _TEXT.format(model=name(model), registry=registry, repository=repository, digest=check_digest(image))
    return {
        f"{place}/{KUSTOMIZATION}": text.encode(),
        f"{place}/{RELEASE}": release,
        f"{place}/{PROMOTION}": promotion,
    }


def claimed_release(bundle: bytes) -> Release:
    """The release that a bundle speaks of. Nobody's signature is checked. Raises GitopsError."""
    try:
        return releases.claimed_release(bundle)
    except LineageError as error:
        raise GitopsError(f"this is not a release bundle: {error}", where=RELEASE) from error


def claimed_promotion(bundle: bytes) -> Promotion:
    """The promotion that a bundle speaks of. Nobody's signature is checked. Raises GitopsError."""
    try:
        return promotions.claimed_promotion(bundle)
    except LineageError as error:
        raise GitopsError(f"this is not a promotion bundle: {error}", where=PROMOTION) from error
