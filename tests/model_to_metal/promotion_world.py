"""A small world to promote in: a registry with signed releases of `tiny`, and a repository with gitops/argocd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.gitops import layout, tree_rules
from model_to_metal.gitops.promote import PromotionContext, PromotionResult
from model_to_metal.gitops.repository import Repository
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import keys
from model_to_metal.supply_chain.attest import attest_image
from model_to_metal.supply_chain.cosign import CosignSigner
from tests.model_to_metal.conftest import make_chain, write_layout
from tests.model_to_metal.project import commit, copy_repository, git

MODEL = "tiny"


@dataclass(frozen=True)
class World:
    """What a promotion meets."""

    state: State
    client: Client
    root: Path
    """The repository; `main` is checked out."""
    bundles: Mapping[str, bytes]
    """`a`, `b`: releases of two images; `b2`: another release of b's image; all signed by the builder `laptop`."""
    signed: dict[bytes, bytes] = field(default_factory=dict)
    """Statement → bundle: what the promoter signed once need not be signed again for another test."""

    def context(self, **changes: Any) -> PromotionContext:
        """A desk at main, which signs with this world's promoter and renders nothing."""
        repository = Repository(self.root)
        cosign_signer = CosignSigner(self.state.tools / "cosign", keys.signer(self.state, role=keys.PROMOTER))
        context = PromotionContext(
            repository=repository,
            base=repository.commit_of("main"),
            client=self.client,
            trust=Trust.load(self.state.trust),
            cosign=self.state.tools / "cosign",
            sign=lambda payload: (
                self.signed.get(payload) or self.signed.setdefault(payload, cosign_signer.statement(payload))
            ),
            check=tree_rules.check_model,
            at=datetime.now(UTC),
        )
        return replace(context, **changes)

    def merge(self, done: PromotionResult) -> None:
        """Let main have what was proposed."""
        git(self.root, "merge", "--quiet", "--ff-only", str(done.branch))

    def write(self, path: str, text: str) -> str:
        """Commit one file to main; gives the commit."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        return commit(self.root, f"change {path}")

    def allow(self, environment: str, *builders: str) -> None:
        """Let the environment's policy name these builders."""
        path = layout.policy(environment)
        value = json.loads((self.root / path).read_text())
        self.write(path, json.dumps(value | {"builders": list(builders)}))

    def tree(self) -> dict[str, object]:
        """Everything that a promotion must leave alone."""
        files = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        return {
            "status": git(self.root, "status", "--porcelain=v2", "--branch"),
            "files": {str(path): data for path, data in files.items() if ".git" not in path.parts},
            "index": git(self.root, "ls-files", "-s"),
        }


@contextmanager
def made(folder: Path, tools: Path) -> Iterator[World]:
    """A world in `folder`; its registry runs as long as the context."""
    (folder / "state").mkdir(parents=True)
    state = State(folder / "state")
    state.tools.symlink_to(tools)
    keys.make(state)
    root = folder / "repository"
    copy_repository(root, "gitops", ".gitignore")
    with artifacts.serving(state, port=0) as address, Client(address) as client:
        yield World(state, client, root, _releases(state, client, root, folder))


def copy(world: World, folder: Path) -> World:
    """The same world with a repository of its own."""
    shutil.copytree(world.root, folder / "repository")
    return replace(world, root=folder / "repository")


def _releases(state: State, client: Client, root: Path, folder: Path) -> dict[str, bytes]:
    found = {}
    for name in ("a", "b", "b2"):
        content = name[0]
        layout_folder = folder / f"layout-{content}"
        if name == content:
            write_layout(layout_folder, {"model.toml": content.encode()})
        digest = json.loads((layout_folder / "index.json").read_text())["manifests"][0]["digest"]
        image = artifacts.push_layout(client, f"helix/{MODEL}", layout_folder, digest)
        chain = make_chain(image.digest)
        parameters = {**chain.release.parameters, "commit": commit(root, f"source of {name}")}
        release = replace(chain.release, parameters=parameters)
        done = attest_image(state, client, image, release, records=chain.records, evidence=chain.evidence)
        found[name] = (done.folder / "release.sigstore.json").read_bytes()
    return found
