"""The command line: `python -m benchmarks NAME [--quick] [--json]`. Exits 1 when a row falls short."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plot
from benchmarks.measure import Row
from proteinmpnn_model.errors import DataError

NAMES = (
    "design_one", "design_many", "request", "lineage_cost", "shard_append", "trace_point", "audit_million",
    "image_rebuild", "cold_start",
)  # fmt: skip
RESULTS = Path(__file__).resolve().parent / "results"

EXAMPLES = """examples:
  python -m benchmarks design_one
  helix env proteinmpnn build -- python -m benchmarks design_many --quick --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print. Gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure us and the peer in one run.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="few repeats; the result is not saved")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where NAME.json and NAME.svg are written")
    options = parser.parse_args(arguments)
    try:
        result, rows = _measure(options.name, options.quick)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except ImportError as error:
        fix = f"run: helix env proteinmpnn build -- python -m benchmarks {options.name}"
        print(f"{error}; {fix}", file=sys.stderr)
        return 2
    if not options.quick:
        _save(options.results, options.name, result, rows)
    print(json.dumps(result, indent=1) if options.json else _table(rows))
    return int(any(row.short for row in rows))


def _measure(name: str, quick: bool) -> tuple[dict[str, object], list[Row]]:
    from benchmarks import setting  # noqa: PLC0415  # loads the model

    with setting.scratch() as folder:
        before = setting.describe_machine()
        rows = list(importlib.import_module(f"benchmarks.{name}").rows(setting.Setting(Path(folder)), quick))
    after = setting.describe_machine()["load_average"]
    machine = {**before, "load_average_after": after}
    return {"name": name, "machine": machine, "rows": [row.json() for row in rows]}, rows


def _save(folder: Path, name: str, result: dict[str, object], rows: list[Row]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (folder / f"{name}.svg").write_text(plot.draw(f"{name}: times better than the peer", rows), encoding="utf-8")
    except OSError as error:
        print(f"the result is not saved: {error}; name a folder with --results", file=sys.stderr)


def _table(rows: Sequence[Row]) -> str:
    lines = [f"{'question':<36} {'ours':>9} {'peer':>9} {'unit':<10} {'ratio':>7} {'at least':>9}"]
    for row in rows:
        wanted = "-" if row.at_least is None else f"{row.at_least:g}"
        mark = "  SHORT" if row.short else ""
        lines.append(f"{row.question:<36} {row.ours:>9} {row.peer:>9} {row.unit:<10} {row.ratio:>6}x {wanted:>9}{mark}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
