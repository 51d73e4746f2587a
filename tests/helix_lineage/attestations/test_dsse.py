from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from helix_lineage.attestations import dsse
from helix_lineage.attestations.release import PREDICATE_TYPE
from helix_lineage.errors import TrustError
from tests.helix_lineage.support import NOW, Chain, Signer


def _open(bundle: bytes, signer: Signer, **changes: Any) -> dsse.InTotoStatement:
    asked: dict[str, Any] = {"role": "releaser", "predicate_type": PREDICATE_TYPE, "at": NOW} | changes
    return dsse.open_statement(bundle, signer.trust(), **asked)


def test_a_signed_statement_opens(signer: Signer, chain: Chain) -> None:
    statement = _open(signer.bundle(chain.statement()), signer)
    assert statement.subjects[0].digest == chain.release.parameters["image"]
    assert statement.signer.builder == "laptop"
    assert set(statement.predicate) == {"release", "records"}


def test_the_example_of_the_dsse_protocol() -> None:
    encoded = dsse.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_every_byte_of_payload_and_type_is_signed(signer: Signer, chain: Chain) -> None:
    bundle = json.loads(signer.bundle(chain.statement()))
    payload = bytearray(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    for at in range(0, len(payload), 97):
        payload[at] ^= 1
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        with pytest.raises(TrustError, match="no signature is by"):
            _open(json.dumps(bundle).encode(), signer)
        payload[at] ^= 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("mediaType",), "application/vnd.dev.sigstore.bundle.v0.2+json", "mediaType"),
        (("dsseEnvelope",), None, "no dsseEnvelope"),
        (("dsseEnvelope", "signatures"), [], "no signatures"),
        (("dsseEnvelope", "signatures"), [{}], "sig is missing"),
        (("dsseEnvelope", "payload"), "%%%", "payload is not base64"),
        (("dsseEnvelope", "payload"), None, "payload is missing"),
        (("dsseEnvelope", "payloadType"), None, "no payloadType"),
        (("dsseEnvelope", "payloadType"), "text/plain", "payloadType is 'text/plain'"),
    ],
)
def test_a_malformed_bundle_names_the_field(
    signer: Signer, chain: Chain, path: tuple[str, ...], value: Any, message: str
) -> None:
    bundle = json.loads(signer.bundle(chain.statement()))
    place = bundle
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(TrustError, match=message):
        _open(json.dumps(bundle).encode(), signer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "predicateType is"),
        ({"predicate": []}, "predicate is not an object"),
        ({"subject": []}, "no subject"),
        ({"subject": [{"name": "x", "digest": {"sha512": "0"}}]}, "no digest.sha256"),
        ({"subject": [{"name": "x", "digest": {"sha256": "A" * 64}}]}, "no digest.sha256"),
    ],
)
def test_a_malformed_statement_names_the_field(
    signer: Signer, chain: Chain, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrustError, match=message):
        _open(signer.bundle(chain.statement(**changes)), signer)


@pytest.mark.parametrize("bundle", [b"", b"[]", b"null", b"\xff", b"{}"])
def test_bytes_that_are_no_bundle_are_refused(bundle: bytes) -> None:
    with pytest.raises(TrustError):
        dsse.parse_bundle(bundle)
