"""Copies source folders side by side and compiles them to byte code.

    compile.py OUT HOME TREES

TREES is JSON: path below OUT → source folder. HOME is where an image holds the result; tracebacks
name it. Runs inside the Nix build, standard library only.
"""

import compileall
import json
import py_compile
import shutil
import sys
from pathlib import Path


def main(out: Path, home: str, trees: str) -> None:
    """Copy and compile; a file that does not compile fails the build."""
    out.mkdir()
    for name, source in sorted(json.loads(trees).items()):
        shutil.copytree(source, out / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        for folder in [out / name, *(path for path in (out / name).rglob("*") if path.is_dir())]:
            folder.chmod(0o755)  # copied from the store, where everything is read-only
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(out, quiet=1, stripdir=str(out), prependdir=home, invalidation_mode=mode, workers=1):
        sys.exit("a source file does not compile")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
