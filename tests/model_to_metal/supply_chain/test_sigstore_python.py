"""The `sigstore` Python package reads our bundles as far as it goes for signatures by keys, and refuses what we refuse.

What it covers: its model of a bundle, its DSSE envelope and encoding, the ECDSA signature under our
public key (the very function that its verifier calls), its check of in-toto statements, the match of
the image's digest. What it does not: its public `Verifier` takes bundles with a Fulcio certificate
and an entry in a transparency log only, and ours have neither by design (the trust root says who may
sign, and when; `FORMAT.md` 6). The last test holds that limit, so that we notice when it goes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sigstore import dsse
from sigstore.errors import Error, VerificationError
from sigstore.hashes import Hashed
from sigstore.models import Bundle, InvalidBundle
from sigstore_models.bundle.v1 import Bundle as Model
from sigstore_models.common.v1 import HashAlgorithm

from helix_lineage.attestations.dsse import BUNDLE_TYPE
from helix_lineage.attestations.promotion import PREDICATE_TYPE, verify_promotion
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from tests.helix_lineage.attestations.test_promotion import PROMOTER, promotion, released, statement
from tests.helix_lineage.support import NOW, Signer, digest, make_chain
from tests.model_to_metal.supply_chain.test_cosign_bundle import (
    Case,
    _by_cosign,
    _by_hand,
    _edited,
    _flipped,
    _other_image,
    _other_key,
    _ours,
)


def _theirs(case: Case) -> Any:
    """The statement, as `sigstore` verifies it under the first key of the trust root. Raises Error or ValueError."""
    model = Model.from_json(_spelled_out(case[0]))
    if model.media_type != BUNDLE_TYPE or model.dsse_envelope is None:
        raise VerificationError("not a bundle v0.3 with an envelope")
    if model.dsse_envelope.payload_type != dsse.Envelope._TYPE:
        raise VerificationError("`_verify` leaves the payload's type to its caller")
    key = load_pem_public_key(json.loads(case[1])["keys"][0]["public_key"].encode())
    payload = dsse._verify(key, dsse.Envelope(model.dsse_envelope))  # type: ignore[arg-type]
    said = dsse.Statement(payload)
    asked = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(case[2].removeprefix("sha256:")))
    if not said._matches_digest(asked):
        raise VerificationError("about another image")
    return json.loads(payload)


def _spelled_out(bundle: bytes) -> bytes:
    """cosign leaves empty lists out, as protocol buffers' JSON may; the package's model wants this one named."""
    value = json.loads(bundle)
    value["verificationMaterial"].setdefault("tlogEntries", [])
    return json.dumps(value).encode()


def _accepts(case: Case) -> bool:
    try:
        _theirs(case)
    except (Error, ValueError):
        return False
    return True


def _other_type(case: Case) -> Case:
    return case[0].replace(b"vnd.in-toto+json", b"vnd.other+json"), *case[1:]


def _no_signature(case: Case) -> Case:
    value = json.loads(case[0])
    value["dsseEnvelope"]["signatures"] = []
    return json.dumps(value).encode(), *case[1:]


def _not_base64(case: Case) -> Case:
    value = json.loads(case[0])
    value["dsseEnvelope"]["payload"] = "!" + value["dsseEnvelope"]["payload"]
    return json.dumps(value).encode(), *case[1:]


def test_we_take_one_spelling_of_base64_where_it_takes_several() -> None:
    """Harmless, for the signature covers what was decoded; but one bundle then has one spelling."""
    case = _not_base64(_by_hand())
    assert (_ours(case), _accepts(case)) == (False, True)


def _no_subject(case: Case) -> Case:
    """Signed by the right key, all the same."""
    signer = Signer()
    return signer.bundle(make_chain().statement(subject=[])), signer.trust_json(), case[2]


FAULTS = [_flipped, _edited, _other_key, _other_image, _other_type, _no_signature, _no_subject]


@pytest.mark.parametrize("made", [_by_cosign, _by_hand])
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_sigstore_and_we_agree_on_releases(made: Callable[[], Case], fault: Callable[[Case], Case] | None) -> None:
    case = made() if fault is None else fault(made())
    assert (_ours(case), _accepts(case)) == (fault is None, fault is None)


@pytest.mark.parametrize("made", [_by_cosign, _by_hand])
def test_it_reads_the_same_release(made: Callable[[], Case]) -> None:
    case = made()
    said = _theirs(case)
    ours = verify_release(case[0], Trust.parse(case[1]), image=case[2], at=NOW)
    assert said["predicate"]["release"] == ours.release.to_json()
    assert set(said["predicate"]["records"]) == set(ours.records)


def test_it_reads_promotions() -> None:
    bundle = PROMOTER.bundle(statement(promotion()))
    said = _theirs((bundle, PROMOTER.trust_json(), digest("image")))
    ours = verify_promotion(bundle, PROMOTER.trust(), released(), environment=None, at=NOW)
    assert said["predicateType"] == PREDICATE_TYPE
    assert said["predicate"]["promotion"] == ours.promotion.to_json()


def test_we_read_what_it_signs() -> None:
    """The other way round: an envelope by `sigstore` with a key of ours."""
    signer = Signer()
    envelope = dsse._sign(signer.key, dsse.Statement(json.dumps(make_chain().statement()).encode()))
    value = json.loads(signer.bundle({}))
    value["dsseEnvelope"] = json.loads(envelope.to_json())
    bundle = json.dumps(value).encode()
    assert verify_release(bundle, signer.trust(), image=digest("image"), at=NOW)
    value["dsseEnvelope"]["payload"] = base64.b64encode(b"{}").decode()
    assert not _ours((json.dumps(value).encode(), signer.trust_json(), digest("image")))


@pytest.mark.parametrize("made", [_by_cosign, _by_hand])
def test_its_public_verifier_still_wants_a_certificate(made: Callable[[], Case]) -> None:
    """Where it ends, and that nothing else of the bundle is in the way."""
    with pytest.raises(InvalidBundle, match="expected certificate in bundle"):
        Bundle.from_json(_spelled_out(made()[0]))


def test_an_agreement_that_does_not_ask_for_the_signature_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault."""
    monkeypatch.setattr(dsse, "_verify", lambda _key, envelope: envelope._inner.payload)
    assert _accepts(_flipped(_by_hand()))
