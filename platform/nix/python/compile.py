"""Copies source folders side by side and compiles them to byte code.

Takes `$trees` (JSON: path below `$out` → source folder) and `$home` (where an image holds the
result); gives the folders under `$out`. Runs inside the Nix build, standard library only.
"""

import compileall
import json
import os
import py_compile
import shutil
import sys
from pathlib import Path


def main() -> None:
    """Copy and compile; a file that does not compile fails the build."""
    out = Path(os.environ["out"])
    out.mkdir()
    for name, source in sorted(json.loads(os.environ["trees"]).items()):
        shutil.copytree(source, out / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        for folder in [out / name, *(path for path in (out / name).rglob("*") if path.is_dir())]:
            folder.chmod(0o755)  # copied from the store, where everything is read-only
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        out, quiet=1, stripdir=str(out), prependdir=os.environ["home"], invalidation_mode=mode, workers=1
    ):
        sys.exit("a source file does not compile")


if __name__ == "__main__":
    main()
