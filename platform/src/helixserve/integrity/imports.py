"""What the interpreter really compiled: the digest of every module's bytes, taken from those very bytes.

A module's file that is hashed where it lies may have been another one when it was imported. Under
`watch` the loaders remember what they read, so that `readiness.check_loaded` judges that.
Modules that were imported before, and shared libraries, which the kernel maps, are hashed where they lie:
against who may change those in a running image only its read-only root helps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from typing import Any

from helixserve.errors import NotReadyError
from helixserve.integrity import read

_MODULE_BYTES = 64 * 1024 * 1024
_digests: dict[str, set[str]] = {}
_LOADERS: tuple[Any, ...] = (SourceFileLoader, SourcelessFileLoader)


def watch() -> None:
    """From now on, remember what is read to be imported. Safe to call twice."""
    for loader in _LOADERS:
        if "get_data" not in vars(loader):
            loader.get_data = _remembering


def unwatch() -> None:
    """Forget, and remember no more."""
    _digests.clear()
    for loader in _LOADERS:
        if "get_data" in vars(loader):
            del loader.get_data


def read_so_far() -> Mapping[str, frozenset[str]]:
    """Path, as the loader was given it → digests of what was read there: more than one when it changed."""
    return {path: frozenset(digests) for path, digests in _digests.items()}


def _remembering(self: Any, path: str) -> bytes:  # noqa: ARG001  # takes a method's place
    """What `importlib.abc.ResourceLoader.get_data` does, but a pipe in a module's place is not waited for."""
    try:
        data = read.read(path, where=path, what="a module", limit=_MODULE_BYTES, follow=True)
    except NotReadyError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None  # importlib looks for cached modules that may be absent
        raise
    _digests.setdefault(path, set()).add("sha256:" + hashlib.sha256(data).hexdigest())
    return data
