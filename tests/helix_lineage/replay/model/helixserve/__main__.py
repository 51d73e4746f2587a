"""`python3.11 -m helixserve replay`: answers are hashes of weights, input and item, or what the sandbox lets it see."""

import hashlib
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cbor2

from helix_lineage.formats.typed import Tensor, decode, encode

WEIGHTS = Path("/opt/helix/artifacts/weights.safetensors")


def answer(typed: bytes, item: int) -> bytes:
    """One typed output."""
    given = {tensor.name: tensor for tensor in decode(typed)}
    task = given["task"].data[0]
    if task == b"probe":
        return encode([Tensor("seen", "BYTES", (1,), (json.dumps(probe(), sort_keys=True).encode(),))])
    if task == b"fail":
        sys.exit("the model says no")
    raw = given["seed"].data
    assert isinstance(raw, bytes)
    seed = int.from_bytes(raw, "little")
    text = hashlib.sha256(WEIGHTS.read_bytes() + typed + seed.to_bytes(8, "little") + bytes([item])).hexdigest()
    if task == b"random":
        text = os.urandom(8).hex()
    if task == b"noise":  # what another processor's rounding does
        return encode(
            [Tensor("score", "FP32", (1,), struct.pack("<f", 1 + os.urandom(1)[0] / 2**24 + time.time() % 1e-5))]
        )
    return encode(
        [
            Tensor("sequence", "BYTES", (1,), (text.encode(),)),
            Tensor("score", "FP32", (1,), bytes.fromhex(text[:6]) + b"?"),
        ]
    )


def probe() -> dict[str, object]:
    """What a program in here can do."""
    return {
        "uid": os.getuid(),
        "cwd": str(Path.cwd()),
        "env": sorted(os.environ),
        "root": tries(lambda: Path("/planted").write_text("x")),
        "artifacts": tries(lambda: WEIGHTS.write_bytes(b"x")),
        "tmp": tries(lambda: Path("/tmp/free").write_text("x")),
        "left": Path("/tmp/left").exists() or bool(Path("/tmp/left").write_text("x") and False),
        "network": tries(lambda: socket.create_connection(("127.0.0.1", int(os.environ.get("PORT", "9"))), 1)),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "processes": sum(path.name.isdigit() for path in Path("/proc").iterdir()),
        "host": socket.gethostname(),
    }


def tries(action: Callable[[], object]) -> str:
    """`yes`, or the error's name."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "yes"


def main() -> None:
    """Answer one request."""
    version, typed, items = cbor2.loads(sys.stdin.buffer.read())
    assert (sys.argv[1:], version) == (["replay"], 1)
    outputs = [answer(typed, item) for item in items]
    sys.stdout.buffer.write(cbor2.dumps([1, os.environ["TEST_MACHINE_CLASS"], outputs]))


main()
