"""Puts files side by side under their own names.

Takes `$files` (JSON: name → path); gives links to them under `$out`. Runs inside the Nix build.
"""

import json
import os
from pathlib import Path


def main() -> None:
    """Link every file."""
    out = Path(os.environ["out"])
    out.mkdir()
    for name, path in json.loads(os.environ["files"]).items():
        (out / name).symlink_to(path)


if __name__ == "__main__":
    main()
