"""cosign with a key of ours, offline: no transparency log, no timestamping service.

Takes a signer and the bytes of an in-toto statement; gives the Sigstore bundle.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.attestations.dsse import parse_bundle
from model_to_metal.errors import AttestError, ToolError
from model_to_metal.host.process import reason, run
from model_to_metal.supply_chain.keys import SigningKey


@dataclass(frozen=True, slots=True)
class CosignSigner:
    """What signs."""

    cosign: Path
    signer: SigningKey

    def statement(self, payload: bytes) -> bytes:
        """The bundle of a statement, signed to the letter.

        `cosign attest` would write Statement v0.1 and its own spelling of the predicate, so cosign
        is given the statement's very bytes. Raises AttestError when it signs others.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "statement.json").write_bytes(payload)
            options = ["--statement", str(folder / "statement.json"), "--bundle", str(folder / "bundle")]
            self._run("attest-blob", *self._options(folder), *options)
            bundle = (folder / "bundle").read_bytes()
        if parse_bundle(bundle).payload != payload:
            raise AttestError("cosign signed other bytes than it was given")
        return bundle

    def image(self, reference: str) -> None:
        """Sign an image in its registry; the signature is attached to it there."""
        with tempfile.TemporaryDirectory() as folder:
            # Private registries need no flag: cosign speaks plain HTTP to them by itself.
            self._run("sign", *self._options(Path(folder)), reference)

    def _options(self, folder: Path) -> list[str]:
        """No Rekor, no Fulcio, no timestamps; an empty trusted root keeps cosign from looking for one."""
        config, root = folder / "signing-config.json", folder / "trusted-root.json"
        self._run("signing-config", "create", "--out", str(config))
        self._run("trusted-root", "create", "--out", str(root))
        return ["--key", self.signer.reference, "--signing-config", str(config), "--trusted-root", str(root)]

    def _run(self, *arguments: str) -> None:
        try:
            run([self.cosign, *arguments], env=self.signer.environment(), timeout_s=300)
        except ToolError as error:
            what = f"cosign could not sign with the key {self.signer.reference}: {reason(error)}"
            raise AttestError(what, where=f"cosign {arguments[0]}", fix="helix doctor", raw=error.raw) from error
