"""The errors of `model_to_metal`.

PipelineError
├── CheckoutError     the working folder is not a Helix checkout, or its state forbids the step
│   └── DirtyTree     a release was asked for, and the tree differs from the commit
├── ContractError     `model.toml` or a lock is malformed or absent
├── StageError        a stage could not be run to its end
│   └── GateRefused   a gate's verdict is no; the verdict is recorded
├── WorkflowError     a workflow uses what the local engine does not know
├── NotReproducible   made again, a stage gave other bytes
├── SandboxError      a sandbox could not be set up
├── BuildError        Nix, a lock or an image's files do not hold
├── LockError         a requirement cannot be locked, or a lock file is malformed
├── FetchError        a locked file cannot be downloaded, or is not the one that was locked
├── NixError          Nix is absent, or a derivation fails
├── ImageError        an image is malformed, or cannot be built again
│   └── ImageDiffers      it was built again, and is not the same
├── KeysError         a signing key is absent, or making one would overwrite another
├── RegistryError     the registry does not answer, refuses, or holds other bytes than asked for
│   └── RegistryAway      it does not answer, or not now: the same request may succeed later
├── AttestError       a release cannot be signed
├── GitopsError       what the cluster runs (gitops/argocd) cannot be read, rendered or written
│   └── PromotionRefused  a release may not run in an environment, and the reasons why
├── RuntimeStartError the image did not start, or did not become ready
├── ToolError         a tool cannot be built, started, or fails
└── ToolMissing       a tool of the machine is absent

Every error says what happened, and where and how to mend it when that is known.
A failed gate is a fact that gets recorded; `GateRefused` only ends the workflow after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helix_lineage.errors import HelixError
from model_to_metal import refusal


class PipelineError(HelixError):
    """Root of the package's errors.

    Args:
        what: one sentence that says what happened.
        where: the file, digest or stage concerned.
        fix: the one command that mends it.
        raw: what a tool wrote, word for word; shown with --verbose only.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None, raw: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.raw = raw


class CheckoutError(PipelineError):
    """The working folder is not a Helix checkout, or its state forbids the step."""


class DirtyTree(CheckoutError):
    """A release was asked for, and the working tree differs from the commit."""


class ContractError(PipelineError):
    """`model.toml` or a lock is malformed or absent."""


class StageError(PipelineError):
    """A stage could not be run to its end."""


class GateRefused(StageError):
    """A gate's verdict is no; the verdict is recorded under `digest`.

    Args:
        digest: of the recorded verdict.
        failed: its findings and failed cases, which the fix speaks of.
        verdict: the record, as JSON.
    """

    def __init__(
        self,
        what: str,
        *,
        digest: str,
        failed: Sequence[refusal.Row] = (),
        verdict: Mapping[str, Any] | None = None,
        where: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.digest = digest
        self.failed = tuple(failed)
        self.verdict = verdict

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *map(refusal.line, self.failed)])


class WorkflowError(PipelineError):
    """A workflow uses what the local engine does not know."""


class NotReproducible(PipelineError):
    """Made again, a stage gave other bytes."""


class SandboxError(PipelineError):
    """A sandbox could not be set up."""


class BuildError(PipelineError):
    """Nix, a lock or an image's files do not hold."""


class AttestError(PipelineError):
    """A release cannot be signed."""


class GitopsError(PipelineError):
    """What the cluster runs (`gitops/argocd`) cannot be read, rendered or written."""


class PromotionRefused(GitopsError):
    """A release may not run in an environment."""


class RuntimeStartError(PipelineError):
    """The image did not start, or did not become ready."""


class ToolMissing(PipelineError):
    """A tool of the machine is absent."""


class ToolError(PipelineError):
    """A tool cannot be built, started, or fails."""


class RegistryError(PipelineError):
    """The registry does not answer, refuses, or holds other bytes than asked for."""


class RegistryAway(RegistryError):
    """The registry does not answer, or not now: the same request may succeed later."""


class KeysError(PipelineError):
    """A signing key is absent, or making one would overwrite another."""


class LockError(PipelineError):
    """A requirement cannot be locked, or a lock file is malformed."""


class FetchError(PipelineError):
    """A locked file cannot be downloaded, or is not the one that was locked."""


class NixError(PipelineError):
    """Nix is absent, or a derivation fails."""


class ImageError(PipelineError):
    """An image is malformed, or cannot be built again."""


class ImageDiffers(ImageError):
    """An image was built again, and is not the same."""
