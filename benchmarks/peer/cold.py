"""Starts `bentoml serve` on `service.py` and prints how many seconds passed until its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PORT = 3000
GIVE_UP_S = 300.0


def main() -> int:
    """Start, ask until there is an answer, stop."""
    body = json.dumps({"structure": Path("/model/golden/1ubi.pdb").read_text(encoding="ascii")}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/design", body, {"Content-Type": "application/json"})
    started = time.perf_counter()
    command = [sys.executable, "-m", "bentoml", "serve", "service:Peer", "--port", str(PORT)]
    with subprocess.Popen(command, stdout=sys.stderr) as server:
        try:
            answer = _ask(request, started, server)
            print(json.dumps({"seconds": time.perf_counter() - started, "answer": answer.decode()}))
        finally:
            server.terminate()
    return 0


def _ask(request: urllib.request.Request, started: float, server: subprocess.Popen[bytes]) -> bytes:
    while time.perf_counter() - started < GIVE_UP_S and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=GIVE_UP_S) as response:  # noqa: S310
                return bytes(response.read())
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the peer gave no answer")


if __name__ == "__main__":
    raise SystemExit(main())
