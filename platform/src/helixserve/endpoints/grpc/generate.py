"""Generate `open_inference_pb2.py` and its type stub: `python -m helixserve.endpoints.grpc.generate [FOLDER]`.

Needs grpcio-tools, which images do not carry.
"""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path

PROTO = "helixserve/endpoints/grpc/open_inference.proto"


def generate(output: Path) -> list[Path]:
    """Write the generated files below `output`, which stands for the source root; gives their paths."""
    from grpc_tools import protoc  # noqa: PLC0415  # a tool of the developer's, not of the image

    source = Path(__file__).parents[3]
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{source}", f"-I{well_known}", f"--python_out={output}", f"--pyi_out={output}", PROTO]
    if protoc.main(arguments) != 0:
        raise SystemExit(1)
    stem = output / PROTO
    return [stem.with_name("open_inference_pb2.py"), stem.with_name("open_inference_pb2.pyi")]


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[3])
