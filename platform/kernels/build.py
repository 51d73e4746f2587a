"""Compiles kernels: one shared library for each variant. Standard library only.

    python platform/kernels/build.py OUTPUT [--with models/NAME/kernels] [--compiler CC] [--variant NAME] [--sanitize]

The sources are this folder's and those of each `--with`, side by side: a model's own include the
general ones by name.

Gives OUTPUT/helix-kernels-<variant>.so. The compiler is the hash-pinned `zig cc` of the `ziglang`
wheel where it is installed, else the machine's `cc`. Flags stand here alone, so that a test, a
developer and the hermetic build compile the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parent

VARIANTS = {
    "x86-64-v4": ("-DHELIX_V4", "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"),
    "x86-64-v3": ("-DHELIX_V3",),
    "scalar": ("-DHELIX_SCALAR", "-fno-tree-vectorize"),
}
"""Name → what it adds to FLAGS."""

_V3 = ("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe")

FLAGS = (
    "-std=c17", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
    # A fused multiply-add only where the source says so, and no reordering: bits are the product here.
    "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno",
    # No build machine's path, no build id.
    "-g0", "-Wl,--build-id=none",
)  # fmt: skip

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def library(variant: str) -> str:
    """The file name of a variant."""
    return f"helix-kernels-{variant}.so"


def find_compiler() -> list[str]:
    """The command of a C compiler. Raises FileNotFoundError when there is none."""
    found = importlib.util.find_spec("ziglang")
    if found is not None and found.submodule_search_locations:
        return [str(Path(found.submodule_search_locations[0]) / "zig"), "cc", "-target", "x86_64-linux-gnu.2.36"]
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise FileNotFoundError("there is no C compiler; run: make setup, which installs the ziglang wheel")


def build(
    output: Path,
    variants: Sequence[str] = tuple(VARIANTS),
    compiler: Sequence[str] = (),
    *,
    own: Sequence[Path] = (),
    sanitize: bool = False,
) -> list[Path]:
    """Compile into the folder `output`; gives the libraries.

    Args:
        output: made where it is missing.
        variants: names of VARIANTS.
        compiler: its command; default: `find_compiler`.
        own: folders whose sources are compiled with the general ones.
        sanitize: with address and undefined-behaviour checks.

    Raises CalledProcessError with the compiler's words, FileExistsError where two sources have one name.
    """
    output.mkdir(parents=True, exist_ok=True)
    made = [(output / library(variant)).resolve() for variant in variants]
    with tempfile.TemporaryDirectory(prefix="kernels-") as scratch:
        sources = _side_by_side([SOURCES, *own], Path(scratch))
        for variant, path in zip(variants, made, strict=True):
            flags = [*FLAGS, *_V3, *VARIANTS[variant], *(SANITIZE if sanitize else ())]
            subprocess.run(
                [*(compiler or find_compiler()), *flags, *sources, "-o", str(path)],
                cwd=scratch, check=True, env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": _cache(), "SOURCE_DATE_EPOCH": "1"},
            )  # fmt: skip
    return made


def _side_by_side(folders: Sequence[Path], scratch: Path) -> list[str]:
    """Copy C sources into one folder, where no path of theirs can reach a library; gives the names to compile."""
    for path in sorted(path for folder in folders for path in folder.glob("*.[ch]")):
        if (scratch / path.name).exists():
            raise FileExistsError(f"two sources are called {path.name}")
        shutil.copyfile(path, scratch / path.name)
    return sorted(path.name for path in scratch.glob("*.c"))


def _cache() -> str:
    """zig keeps what it compiled of libc; inside a build that is the build's own folder."""
    return os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(Path(os.environ.get("HOME", "/tmp")) / ".cache" / "zig")  # noqa: S108


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and compile. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="build.py", description="Compile the native kernels.")
    parser.add_argument("output", type=Path, help="folder for the libraries")
    parser.add_argument("--with", type=Path, action="append", default=[], dest="own", metavar="FOLDER",
                        help="sources to compile with the general ones")  # fmt: skip
    parser.add_argument("--compiler", nargs="+", default=[], help="the C compiler's command; default: zig cc, or cc")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="default: all")
    parser.add_argument("--sanitize", action="store_true", help="with address and undefined-behaviour checks")
    options = parser.parse_args(arguments)
    try:
        made = build(
            options.output,
            options.variant or tuple(VARIANTS),
            options.compiler,
            own=options.own,
            sanitize=options.sanitize,
        )
    except (FileNotFoundError, FileExistsError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    print("\n".join(str(path) for path in made))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
