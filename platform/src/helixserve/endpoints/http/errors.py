"""JSON for the errors that frameworks find before any endpoint: unknown paths, other methods, unready services.

Starlette and BentoML would answer with a line of plain text.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helixserve.endpoints.http.middleware import error_body
from helixserve.errors import HelixServeError


def speak_json(app: Starlette) -> None:
    """Give an application's own errors the form that all others have."""
    app.add_exception_handler(HTTPException, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these alone
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        said = HelixServeError("nothing is served here", where=request.url.path, fix="/docs lists what is")
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        said = HelixServeError(
            f"{request.method[:20]} is not served here", where=request.url.path, fix="/docs lists what is"
        )
    else:
        said = HelixServeError(error.detail)
    return JSONResponse(error_body(said), status_code=error.status_code, headers=headers)
