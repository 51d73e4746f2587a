"""Sigstore bundles with a DSSE envelope over an in-toto statement: read, and check who signed. Pure.

- A bundle is JSON of our media type, with an envelope that has a payload type and signatures, all base64.
- The payload is an in-toto statement, and a key of the role signed it: nothing of it is read before that holds.
- The statement is of the predicate type asked for; its predicate is an object.
- It has a subject, and each subject the SHA-256 of something.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from helix_lineage.attestations.trust import Trust, TrustedKey
from helix_lineage.errors import TrustError
from helix_lineage.formats.canonical import Json
from helix_lineage.formats.untrusted import parse_json

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a bundle carries, unchecked."""

    payload: bytes
    payload_type: str
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about."""

    name: str
    digest: str
    """`sha256:<64 hex>`."""


@dataclass(frozen=True, slots=True)
class InTotoStatement:
    """A signed in-toto statement."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Json]
    signer: TrustedKey


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature covers.

    >>> pre_authentication_encoding("t", b"body")
    b'DSSEv1 1 t 4 body'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse_bundle(bundle: bytes) -> Envelope:
    """Read a Sigstore bundle v0.3. Raises TrustError."""
    value = _json(bundle, "the bundle")
    if not isinstance(value, dict) or value.get("mediaType") != BUNDLE_TYPE:
        raise TrustError(f"the bundle's mediaType is not {BUNDLE_TYPE}")
    envelope = value.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise TrustError("the bundle has no dsseEnvelope")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise TrustError("the bundle's dsseEnvelope has no signatures")
    encoded = [item.get("sig") if isinstance(item, dict) else None for item in signatures]
    payload_type = envelope.get("payloadType")
    if not isinstance(payload_type, str):
        raise TrustError("the bundle's dsseEnvelope has no payloadType")
    return Envelope(
        _base64(envelope.get("payload"), "payload"),
        payload_type,
        tuple(_base64(item, "signatures[].sig") for item in encoded),
    )


def claimed_statement(bundle: bytes) -> dict[str, Any]:
    """The bundle's payload; no signature is checked. Raises TrustError when it is no JSON object."""
    value = _json(parse_bundle(bundle).payload, "the bundle's payload")
    if not isinstance(value, dict):
        raise TrustError("the bundle's payload is not an object, so no statement")
    return value


def claimed_predicate(bundle: bytes) -> dict[str, Json]:
    """The predicate of the bundle's statement; no signature is checked. Raises TrustError."""
    predicate = claimed_statement(bundle).get("predicate")
    if not isinstance(predicate, dict):
        raise TrustError("the statement's predicate is not an object")
    return predicate


def open_statement(bundle: bytes, trust: Trust, *, role: str, predicate_type: str, at: datetime) -> InTotoStatement:
    """The statement in a bundle that a key of `role` signed. Raises TrustError, naming what does not hold."""
    envelope = parse_bundle(bundle)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TrustError(f"the envelope's payloadType is {envelope.payload_type!r}, not {PAYLOAD_TYPE!r}")
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    signer = trust.signer(role, at, message, envelope.signatures)
    # Nothing of the payload is looked at before its signature holds.
    value = _json(envelope.payload, "the statement")
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise TrustError(f"the statement's _type is not {STATEMENT_TYPE}")
    if value.get("predicateType") != predicate_type:
        raise TrustError(f"the statement's predicateType is {value.get('predicateType')!r}, not {predicate_type!r}")
    predicate = value.get("predicate")
    if not isinstance(predicate, dict):
        raise TrustError("the statement's predicate is not an object")
    return InTotoStatement(_subjects(value.get("subject")), predicate_type, MappingProxyType(predicate), signer)


def _subjects(value: Json) -> tuple[Subject, ...]:
    if not isinstance(value, list) or not value:
        raise TrustError("the statement has no subject")
    found = []
    for item in value:
        digests = item.get("digest") if isinstance(item, dict) else None
        digest = digests.get("sha256") if isinstance(digests, dict) else None
        name = item.get("name", "") if isinstance(item, dict) else ""
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise TrustError("a subject of the statement has no digest.sha256 of 64 hex digits")
        found.append(Subject(str(name), "sha256:" + digest))
    return tuple(found)


def _json(data: bytes, what: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise TrustError(f"{what} is not JSON: {error}") from error


def _base64(text: object, field: str) -> bytes:
    try:
        if not isinstance(text, str):
            raise TrustError(f"the envelope's {field} is missing")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise TrustError(f"the envelope's {field} is not base64") from error
