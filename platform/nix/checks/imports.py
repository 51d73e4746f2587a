"""Checks that an environment imports, and does not hold what it must not.

    imports.py SITE_PACKAGES MODULE,… UNWANTED…

The modules (the model's service, its own runner), and so all that they stand on, are imported in
this process, without a network. Exit status 1 when something cannot be, or when one of UNWANTED is there.
"""

import importlib
import sys
from pathlib import Path

WANTED = ("bentoml", "cbor2", "cryptography", "grpc", "numpy", "onnxruntime", "rfc8785", "zstandard")
"""What helixserve stands on, also where a service loads it late."""


def main(site: str, modules: str, *unwanted: str) -> int:
    """Import and look; gives the exit status."""
    sys.path.insert(0, site)
    wrong = [f"{name} must not be in the image" for name in unwanted if Path(site, name).exists()]
    for name in (*WANTED, *modules.split(",")):
        try:
            importlib.import_module(name)
        except ImportError as error:
            wrong.append(f"{name} cannot be imported: {error}")
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
