"""Lists every file of an image's root filesystem.

    files.py OUT LAYERS…

LAYERS are folders with `layers.json`, bottom first. Gives `OUT/opt/helix/files.json`, canonical
JSON `{"files": […], "version": 1}` sorted by path. Its digest names the root filesystem, and a
server checks the files that it loads against it. Runs inside the Nix build.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(out: Path, *layers: str) -> None:
    """Merge the lists of all layers; the same path in two of them ends the build."""
    found: dict[str, dict[str, Any]] = {}
    for folder in layers:
        for layer in json.loads(Path(folder, "layers.json").read_text()):
            for file in layer["files"]:
                if file["path"] in found:
                    sys.exit(f"two layers hold {file['path']}")
                found[file["path"]] = file
    if not all(path.isascii() and path.isprintable() for path in found):
        sys.exit("a path is not plain ASCII, which the canonical form here does not cover")
    # RFC 8785 for ASCII strings and small integers: sorted keys and no white space.
    value = {"version": 1, "files": [found[path] for path in sorted(found)]}
    folder = out / "opt/helix"
    folder.mkdir(parents=True)
    (folder / "files.json").write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
