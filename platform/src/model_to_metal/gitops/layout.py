"""Where things lie under `gitops/argocd`: the one module that knows these paths."""

from __future__ import annotations

import re

from helix_lineage.paths import PROMOTION_FILE, RELEASE_FILE
from model_to_metal.errors import GitopsError

ROOT = "gitops/argocd"
APPS = f"{ROOT}/apps"
POLICIES = f"{ROOT}/policies"
ENVIRONMENTS = f"{ROOT}/environments"
DENIED = f"{POLICIES}/denied.json"

KUSTOMIZATION = "kustomization.yaml"
RELEASE, PROMOTION = RELEASE_FILE, PROMOTION_FILE

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def policy(environment: str) -> str:
    """The environment's policy file."""
    return f"{ENVIRONMENTS}/{name(environment)}/policy.json"


def folder(environment: str, model: str) -> str:
    """The folder that says what a model runs in an environment; only `promote` and `rollback` write it."""
    return f"{ENVIRONMENTS}/{name(environment)}/{name(model)}"


def branch(verb: str, environment: str, model: str, digest: str) -> str:
    """The branch that a promotion or rollback is proposed on."""
    return f"{verb}/{name(environment)}/{name(model)}/{digest.removeprefix('sha256:')[:12]}"


def name(text: str) -> str:
    """The text, if it can name a model or environment in a path and in a cluster. Raises GitopsError."""
    if not _NAME.fullmatch(text):
        raise GitopsError(f"not a name of at most 40 lower-case letters, digits and dashes: {text!r}")
    return text
