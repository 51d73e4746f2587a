"""The command line: `python -m benchmarks NAME [--quick] [--json]`. Exits 1 when a row falls short."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import every, results
from benchmarks.measure import Row
from helix_lineage.errors import LineageError

EXAMPLES = """examples:
  python -m benchmarks shard_append
  helix env proteinmpnn build -- python -m benchmarks design_many --quick --json
  python -m benchmarks all        every benchmark where it can run, then the README's table (make bench)
  python -m benchmarks readme     the README's table again, from the results that lie there
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print. Gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure us and the peer in one run.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", choices=(*results.NAMES, "all", "readme"))
    parser.add_argument("--quick", action="store_true", help="few repeats; the result is not saved")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="where NAME.json and NAME.svg are written")
    options = parser.parse_args(arguments)
    if options.name == "all":
        return every.run(quick=options.quick, folder=options.results)
    if options.name == "readme":
        results.write_readme()
        return 0
    return _one(options)


def _one(options: argparse.Namespace) -> int:
    # Only what is measured needs these packages.
    from model_to_metal.errors import PipelineError  # noqa: PLC0415
    from proteinmpnn_model.errors import DataError  # noqa: PLC0415

    try:
        result, rows = _measure(options.name, options.quick)
    except (DataError, LineageError, PipelineError) as error:
        print(error, file=sys.stderr)
        return 2
    except ImportError as error:
        fix = f"run: helix env proteinmpnn build -- python -m benchmarks {options.name}"
        print(f"{error}; {fix}", file=sys.stderr)
        return 2
    if not options.quick and not options.no_save:
        try:
            results.save(options.results, result)
        except OSError as error:
            print(f"the result is not saved: {error}; name a folder with --results", file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else "\n".join(every.lines(rows)))
    return int(not all(row.kept for row in rows))


def _measure(name: str, quick: bool) -> tuple[dict[str, object], list[Row]]:
    from benchmarks import setting  # noqa: PLC0415  # loads the model

    with setting.scratch() as folder:
        before = setting.describe_machine()
        module, here = importlib.import_module(f"benchmarks.{name}"), setting.Setting(Path(folder))
        rows = list(module.rows(here, quick))
        # Where a figure is not reached, the profile that shows why goes with the result.
        short = not quick and not all(row.kept for row in rows) and hasattr(module, "profile")
        profile = {"profile": module.profile(here)} if short else {}
    after = setting.describe_machine()
    (slow, fast), (slower, faster) = before["python_steps_per_us"], after["python_steps_per_us"]
    steps = [min(slow, slower), max(fast, faster)]
    machine = {**before, "load_average_after": after["load_average"], "python_steps_per_us": steps}
    return {"name": name, "machine": machine, "rows": [row.json() for row in rows], **profile}, rows


if __name__ == "__main__":
    sys.exit(main())
