"""One inference in the serve environment: `python -m model_to_metal.guardrails.infer MODEL ARTIFACTS`.

Exit status 0 when the answer keeps the contract; otherwise the last line of stderr says why not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from helixserve.runners.machine import pin_numpy


def main(arguments: Sequence[str]) -> int:
    """Serve one request; prints what is wrong to stderr."""
    model, artifacts = map(Path, arguments)
    try:
        pin_numpy()
        from model_to_metal.guardrails.inference import infer  # noqa: PLC0415  # loads numpy, so after the pin

        problem = infer(model, artifacts)
    # Whatever a model raises is the finding.
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        sys.stderr.write(" ".join(problem.split()) + "\n")
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
