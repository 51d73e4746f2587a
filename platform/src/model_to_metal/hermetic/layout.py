"""An OCI image layout on disk: its one manifest and its blobs, re-hashed.

Only the standard library and `helix_lineage` may be imported here: the build stage does, too.
"""

from __future__ import annotations

import json
from pathlib import Path

from helix_lineage.errors import CanonicalError, reason
from helix_lineage.formats.canonical import check_digest, file_digest
from model_to_metal.errors import ImageError


def manifest_digest(layout: Path) -> str:
    """The digest of the one manifest in an OCI layout. Raises ImageError."""
    try:
        manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
        (only,) = manifests
        return check_digest(only["digest"])
    except (OSError, ValueError, KeyError, TypeError, CanonicalError) as error:
        raise ImageError(f"no OCI layout with exactly one image: {reason(error)}", where=str(layout)) from error


def read_blob(layout: Path, digest: str) -> bytes:
    """A blob's bytes, re-hashed. Raises ImageError."""
    check_blob(layout, digest)
    return blob_path(layout, digest).read_bytes()


def blob_path(layout: Path, digest: str) -> Path:
    """Where a blob lies."""
    return layout / "blobs" / "sha256" / check_digest(digest).removeprefix("sha256:")


def check_blob(layout: Path, digest: str) -> None:
    """Re-hash a blob. Raises ImageError when it is absent or has other bytes."""
    path = blob_path(layout, digest)
    if not path.is_file() or file_digest(path) != digest:
        raise ImageError("a blob of the layout is absent or has other bytes", where=str(path))
