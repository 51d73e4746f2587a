"""Receipts: what the owner of a prediction checks it with, for those only who show a token.

The file that HELIX_RECEIPT_TOKENS names holds the SHA-256 of each token, 64 hex digits a line; what
follows `#` is a note. It is read at each request, so that a mounted file can be changed while the
server runs. It holds no secret: a token is random, and its digest opens nothing.

    token=$(openssl rand -hex 32)
    printf %s "$token" | sha256sum | cut -d' ' -f1 >> tokens.txt

A token opens every receipt of this server: it is for the service that hands predictions on to their
owners. Without the file nobody gets one, because a receipt's salts let a reader confirm a guessed input.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from pathlib import Path

from helix_lineage.errors import LineageError, PredictionNotFound, ShardError, reason
from helix_lineage.evidence.receipt import make
from helix_lineage.shard.header import parse_prediction_id
from helix_lineage.shard.reader import Log
from helixserve.errors import ForbiddenError, InvalidInputError, NotFoundError, NotReadyError, UnauthenticatedError

VARIABLE = "HELIX_RECEIPT_TOKENS"
_PUBLISH_S = 1.0
"""How long to wait for the tiles that cover a fresh entry; they follow within a quarter of a second."""
_TOKENS_BYTES = 1_000_000


def authorise(tokens: Path | None, headers: list[str]) -> None:
    """May who sent these Authorization headers read receipts? Raises ForbiddenError or UnauthenticatedError."""
    if tokens is None:
        raise ForbiddenError("this server gives no receipts: it has no list of tokens", where=VARIABLE)
    known = _read(tokens)
    scheme, _, token = (headers[0] if len(headers) == 1 else "").partition(" ")
    shown = hashlib.sha256(token.strip().encode()).hexdigest() if scheme.lower() == "bearer" else ""
    # Every line is compared, and in constant time: how long it takes tells nothing.
    matches = [hmac.compare_digest(shown, digest) for digest in known]
    if not any(matches):
        raise UnauthenticatedError(
            "no token that this server knows", where="authorization", fix="send authorization: Bearer TOKEN"
        )


def receipt(log: Path, prediction: str) -> bytes:
    """The receipt of a prediction whose shard lies in `log`. Raises InvalidInputError or NotFoundError; reads files."""
    try:
        shard, sequence = parse_prediction_id(prediction)
    except ShardError as error:
        raise InvalidInputError(error.what[:200], where="prediction_id") from None
    try:
        _await_published(Log(log), shard, sequence)
        return make(Log(log), prediction).to_bytes()
    except PredictionNotFound as error:
        raise NotFoundError(
            "no such prediction here", where="prediction_id", fix="ask the server that holds its shard"
        ) from error
    except (LineageError, OSError) as error:  # whatever is wrong with the log's files: a key of a release, too
        raise NotReadyError(f"the shard cannot be read: {reason(error)}", where="log", fix="audit this log") from error


def _await_published(log: Log, shard: str, sequence: int) -> None:
    """Until tiles cover the entry: a proof from tiles costs nothing, one from the journal reads all of it."""
    until = time.monotonic() + _PUBLISH_S
    while time.monotonic() < until:
        opened = log.shard(shard)
        if not opened.live or sequence < opened.published[1].size:
            return
        time.sleep(0.05)


def _read(tokens: Path) -> list[str]:
    try:
        with tokens.open("rb") as file:
            text = file.read(_TOKENS_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise ForbiddenError(
            "this server gives no receipts: its list of tokens cannot be read", where=VARIABLE
        ) from None
    lines = [line.partition("#")[0].strip().lower() for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if line and not re.fullmatch("[0-9a-f]{64}", line):
            raise ForbiddenError(
                f"this server gives no receipts: line {number} of its list of tokens is not a SHA-256", where=VARIABLE
            )
    return [line for line in lines if line]
