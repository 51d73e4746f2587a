"""cosign reads the release bundles that our verifier reads, and refuses what ours refuses.

How far the `sigstore` Python package goes is in `test_sigstore_python.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helix_lineage.attestations.release import PREDICATE_TYPE, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.errors import PipelineError
from model_to_metal.host import tools
from model_to_metal.host.process import run
from tests.helix_lineage.support import Signer, digest, make_chain

FIXTURES = Path(__file__).parents[2] / "helix_lineage" / "fixtures"
AT = datetime(2026, 6, 1, tzinfo=UTC)
Case = tuple[bytes, bytes, str]
"""Bundle, trust root, image."""


def _by_cosign() -> Case:
    """What cosign v3.1.3 signed (`fixtures/make_cosign.sh`)."""
    bundle, trust = (FIXTURES / f"cosign.{name}.json" for name in ("sigstore", "trust"))
    return bundle.read_bytes(), trust.read_bytes(), digest("image")


def _by_hand() -> Case:
    """A bundle that cosign had no part in."""
    signer = Signer()
    return signer.bundle(make_chain().statement()), signer.trust_json(), digest("image")


def _flipped(case: Case) -> Case:
    value = json.loads(case[0])
    signature = bytearray(base64.b64decode(value["dsseEnvelope"]["signatures"][0]["sig"]))
    signature[-1] ^= 1
    value["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(value).encode(), *case[1:]


def _edited(case: Case) -> Case:
    value = json.loads(case[0])
    payload = base64.b64decode(value["dsseEnvelope"]["payload"]).replace(b"c" * 40, b"d" * 40)
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value).encode(), *case[1:]


def _other_key(case: Case) -> Case:
    return case[0], Signer().trust_json(), case[2]


def _other_image(case: Case) -> Case:
    return *case[:2], digest("another image")


def _ours(case: Case) -> bool:
    try:
        verify_release(case[0], Trust.parse(case[1]), image=case[2], at=AT)
    except LineageError:
        return False
    return True


def _cosigns(cosign: Path, case: Case, folder: Path) -> bool:
    (folder / "bundle").write_bytes(case[0])
    (folder / "key.pub").write_text(json.loads(case[1])["keys"][0]["public_key"])
    what = ["--digest", case[2].removeprefix("sha256:"), "--digestAlg", "sha256", "--type", PREDICATE_TYPE]
    by = ["--key", str(folder / "key.pub"), "--bundle", str(folder / "bundle"), "--insecure-ignore-tlog"]
    try:
        run([cosign, "verify-blob-attestation", *by, *what], timeout_s=60)
    except PipelineError:
        return False
    return True


@pytest.mark.parametrize("made", [_by_cosign, _by_hand])
@pytest.mark.parametrize("fault", [None, _flipped, _edited, _other_key, _other_image])
def test_cosign_and_we_agree(
    checkout_state: State,
    tmp_path: Path,
    made: Callable[[], Case],
    fault: Callable[[Case], Case] | None,
) -> None:
    case = made() if fault is None else fault(made())
    cosign = tools.ensure("cosign", checkout_state)
    assert (_ours(case), _cosigns(cosign, case, tmp_path)) == (fault is None, fault is None)
