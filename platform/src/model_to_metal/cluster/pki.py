"""The certificates and credentials of one cluster: made when it starts, gone when it stops.

One authority signs the API server's and the kubelet's certificates and those that components
show; every component has a name of its own, which the API server's rules (RBAC) speak of.
A second authority exists for aggregated API servers: there are none, and without it the API
server's log fills with errors. Keys are ECDSA P-256.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 365
_SKEW = datetime.timedelta(minutes=5)
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The key, unencrypted."""
        return _pem(self.key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """A certificate authority that lives in memory, until its files are written."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name, None)
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        self.pair = Pair(key, builder.sign(key, hashes.SHA256()))

    def serving(self, name: str, hosts: Iterable[str], *, group: str | None = None) -> Pair:
        """A server's certificate for host names and addresses."""
        return self._issue(_name(name, group), _SERVER, [_host(host) for host in hosts])

    def client(self, name: str, group: str | None = None) -> Pair:
        """A client's certificate; the API server takes the name as user and the group as group."""
        return self._issue(_name(name, group), _CLIENT, [])

    def _issue(self, subject: x509.Name, use: x509.ObjectIdentifier, hosts: list[x509.GeneralName]) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self.pair.certificate.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return Pair(key, builder.sign(self.pair.key, hashes.SHA256()))


def kubeconfig(server: str, authority: Authority, user: str, pair: Pair, *, namespace: str = "default") -> bytes:
    """A kubeconfig (JSON, which is YAML) that holds everything a client needs."""
    cluster = {"server": server, "certificate-authority-data": _base64(authority.pair.certificate_pem)}
    credentials = {"client-certificate-data": _base64(pair.certificate_pem), "client-key-data": _base64(pair.key_pem)}
    context = {"cluster": "helix", "user": user, "namespace": namespace}
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "helix", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "helix", "context": context}],
        "current-context": "helix",
    }
    return json.dumps(value, indent=1).encode()


def token_keys() -> tuple[bytes, bytes]:
    """The private and public key of service account tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _pem(key), public


def write(path: Path, data: bytes, account: int, *, mode: int = 0o400) -> None:
    """Write a file that only `account` reads, and that is never there with a wider mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        os.fchown(handle, account, account)
        file.write(data)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    # A machine's clock may be set back a little after the start.
    return builder.not_valid_before(now - _SKEW).not_valid_after(now + datetime.timedelta(days=VALID_DAYS))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(name: str, group: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
