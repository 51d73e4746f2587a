"""All benchmarks one after another, each where it can run, and the README's table of them (`make bench`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.measure import Row

NEED_TORCH = ("design_one", "design_many")
"""These run beside torch and the upstream package, where the checkout cannot be written."""
FIX = "run: helix env proteinmpnn build -- true"


def run(*, quick: bool, folder: Path = results.FOLDER) -> int:
    """Measure everything; a quick run saves nothing.

    Gives the exit status: 1 when a row falls short or is not decided, 2 where a benchmark gave no result.
    """
    status = 0
    for name in results.NAMES:
        print(f"== {name}", flush=True)
        done = subprocess.run(command(name, quick=quick), stdout=subprocess.PIPE, text=True, check=False)
        try:
            result: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            print(f"{name}: no result (exit status {done.returncode})", file=sys.stderr)
            status = 2
            continue
        rows = [Row(**row) for row in result["rows"]]
        print("\n".join(lines(rows)), flush=True)
        status = max(status, int(not all(row.kept for row in rows)))
        if not quick:
            results.save(folder, result)
    if not quick:
        results.write_readme()
    return status


def command(name: str, *, quick: bool) -> list[str]:
    """The command line that measures one, and prints the result as JSON without saving it."""
    measure = ["python", "-m", "benchmarks", name, "--json", "--no-save", *(["--quick"] if quick else [])]
    if name in NEED_TORCH:
        return [str(Path(sys.executable).with_name("helix")), "env", "proteinmpnn", "build", "--", *measure]
    return [sys.executable, *measure[1:]]


def lines(rows: list[Row]) -> Iterator[str]:
    """A result for people."""
    yield f"{'question':<48} {'ours':>9} {'peer':>9} {'unit':<10} {'ratio':>7} {'at least':>9}"
    for row in rows:
        wanted = "-" if row.at_least is None else f"{row.at_least:g}"
        mark = "  SHORT" if row.short else "  UNDECIDED" if row.undecided else ""
        ratio = "-" if row.ratio is None else f"{row.ratio}x"
        yield f"{row.question:<48} {row.ours:>9} {row.peer:>9} {row.unit:<10} {ratio:>7} {wanted:>9}{mark}"
