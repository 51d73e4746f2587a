"""Does a component answer? One question over HTTP(S), TCP or a socket's file, with a short limit."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

LIMIT_S = 1.0


def answers(target: str, authority: str | None = None) -> bool:
    """Does `target` answer: an http(s) URL with a status below 400, `tcp://HOST:PORT` or `unix://PATH`?

    `authority` is the file of the certificate authority that an https server must be signed by.
    """
    parts = urlsplit(target)
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(LIMIT_S)
                connection.connect(parts.path)
            return True
        if parts.scheme == "tcp":
            socket.create_connection((str(parts.hostname), int(parts.port or 0)), LIMIT_S).close()
            return True
        return _status(target, authority) < http.client.BAD_REQUEST
    except (OSError, http.client.HTTPException):
        return False


def _status(target: str, authority: str | None) -> int:
    parts = urlsplit(target)
    host = str(parts.hostname)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=authority)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=LIMIT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=LIMIT_S)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    finally:
        connection.close()
