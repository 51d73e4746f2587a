"""Assembles layers into an OCI image layout.

    image.py OUT CONFIG LAYERS…

CONFIG is the image's run configuration as JSON, LAYERS are folders with `layers.json` and blobs,
bottom first; OUT becomes the layout. Runs inside the Nix build.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
CREATED = "1970-01-01T00:00:01Z"
"""The time of every file; when an image was made is not part of it."""


def main(out: Path, settings: str, *folders: str) -> None:
    """Copy the blobs, write configuration, manifest and index."""
    (out / "blobs/sha256").mkdir(parents=True)
    layers = []
    for folder in folders:
        for layer in json.loads(Path(folder, "layers.json").read_text()):
            name = layer["digest"].removeprefix("sha256:")
            shutil.copyfile(Path(folder, "blobs/sha256", name), out / "blobs/sha256" / name)
            layers.append(layer)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": json.loads(settings),
        "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
        "history": [{"created": CREATED, "created_by": "helix"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": put(out, config, f"{OCI}.config.v1+json"),
        "layers": [
            {"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": layer["digest"], "size": layer["size"]}
            for layer in layers
        ],
    }
    entry = put(out, manifest, f"{OCI}.manifest.v1+json")
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (out / "index.json").write_bytes(encode(index))
    (out / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))


def put(out: Path, value: dict[str, Any], media_type: str) -> dict[str, Any]:
    """Write a blob; gives its descriptor."""
    data = encode(value)
    name = hashlib.sha256(data).hexdigest()
    (out / "blobs/sha256" / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


def encode(value: dict[str, Any]) -> bytes:
    """JSON with sorted keys and no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
