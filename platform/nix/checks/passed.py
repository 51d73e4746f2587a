"""Runs a check, and makes the file that Nix wants to see when it has passed.

    passed.py OUT SCRIPT ARGUMENT…

The check's exit status is this one's. Runs inside the Nix build, standard library only.
"""

import runpy
import sys
from pathlib import Path


def main(out: Path, script: str) -> None:
    """Run the script as a program; a status other than 0 ends this one."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    out.write_text("passed\n")


if __name__ == "__main__":
    target, name = Path(sys.argv[1]), sys.argv[2]
    sys.argv[:3] = [name]
    main(target, name)
