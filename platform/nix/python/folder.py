"""Puts files side by side under their own names.

    folder.py OUT FILES

FILES is JSON: name → path; OUT gets links to them. Runs inside the Nix build.
"""

import json
import sys
from pathlib import Path


def main(out: Path, files: str) -> None:
    """Link every file."""
    out.mkdir()
    for name, path in json.loads(files).items():
        (out / name).symlink_to(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
