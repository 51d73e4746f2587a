"""The errors of `helixserve`, and what each is called at every endpoint.

HelixServeError              500  INTERNAL             a fault of ours
├── ContractError            500  INTERNAL             `model.toml` is malformed, or a model breaks its contract
├── InvalidInputError        400  INVALID_ARGUMENT     the request cannot be understood or is out of range
│   └── FramingError         400  INVALID_ARGUMENT     where the body ends can be read in two ways
├── NotFoundError            404  NOT_FOUND            no such model, version or task here
├── TooLargeError            413  INVALID_ARGUMENT     the request exceeds a limit of `model.toml`
├── MediaTypeError           415  INVALID_ARGUMENT     the body's media type is not served
├── UnauthenticatedError     401  UNAUTHENTICATED      no token that this server knows
├── ForbiddenError           403  PERMISSION_DENIED    this server gives that to nobody
├── GoneError                499  CANCELLED            the caller is gone, so the rest is not computed
├── BusyError                429  RESOURCE_EXHAUSTED   too many requests are waiting
├── OverloadedError          503  RESOURCE_EXHAUSTED   there is no memory for the request now
└── NotReadyError            503  UNAVAILABLE          the release is not verified, or the server is stopping
    └── UnrecordedError      503  UNAVAILABLE          the answer could not be written to the log, so it is withheld

This module imports nothing but the root, so that every endpoint can map errors without loading the others.

>>> TooLargeError("812 residues, at most 500 are served", where="structure").http_status
413
"""

from __future__ import annotations

from typing import ClassVar

from helix_lineage.errors import HelixError


class HelixServeError(HelixError):
    """Root of the package's errors. What may repeat an untrusted client's text is cut short."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status code."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(_said(what, 500), where=where and _said(where, 100), fix=fix and _said(fix, 300))


class ContractError(HelixServeError):
    """`model.toml` is malformed, or a model's answer breaks its contract."""


class InvalidInputError(HelixServeError):
    """The request cannot be understood, or a value is out of range."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class FramingError(InvalidInputError):
    """Where the body ends can be read in two ways."""


class NotFoundError(HelixServeError):
    """No such model, version or task here."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class TooLargeError(HelixServeError):
    """The request exceeds a limit of `model.toml`."""

    http_status = 413
    grpc_status = "INVALID_ARGUMENT"


class MediaTypeError(HelixServeError):
    """The body's media type is not served; pickle never is."""

    http_status = 415
    grpc_status = "INVALID_ARGUMENT"


class UnauthenticatedError(HelixServeError):
    """No token that this server knows."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class ForbiddenError(HelixServeError):
    """This server gives that to nobody."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class GoneError(HelixServeError):
    """The caller is gone, or took nothing for too long, so the rest is not computed."""

    http_status = 499  # nobody is there to read it; it stands in the log
    grpc_status = "CANCELLED"


class BusyError(HelixServeError):
    """Too many requests are waiting."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class OverloadedError(HelixServeError):
    """There is no memory for the request now."""

    http_status = 503
    grpc_status = "RESOURCE_EXHAUSTED"


class NotReadyError(HelixServeError):
    """The release is not verified, or the server is stopping."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class UnrecordedError(NotReadyError):
    """The answer could not be written to the log, so it is withheld."""


def _said(text: str, most: int) -> str:
    """Text that may repeat an untrusted client's: cut short, and without lone surrogates, which no answer can carry."""
    text = text[: most + 1].encode("utf-8", "replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
