"""Results as they lie in `results/`, and the README's table of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plot
from benchmarks.measure import Row

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
NAMES = (
    "design_one", "design_many", "request", "lineage_cost", "shard_append", "trace_point", "audit_million",
    "image_rebuild", "cold_start",
)  # fmt: skip


def save(folder: Path, result: Mapping[str, Any]) -> None:
    """Write NAME.json and NAME.svg. Raises OSError."""
    name, rows = str(result["name"]), [Row(**row) for row in result["rows"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.svg").write_text(plot.draw(f"{name}: times better than the peer", rows), encoding="utf-8")


def load(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The results that are there, in the order of `NAMES`."""
    paths = [folder / f"{name}.json" for name in NAMES]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def questions(name: str) -> list[str]:
    """The questions that a benchmark answers."""
    return list(importlib.import_module(f"benchmarks.{name}").QUESTIONS)


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """The README's table; each row names the processor it is of."""
    results = list(results)
    lines = [
        "Above 1 is better than the peer, or than what is promised; a quantile has its 95 % interval."
        " `make bench` measures again.",
        "",
        "| question | ours | peer | times | at least | measured on |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(Row(**row), _machine(result["machine"])) for result in results for row in result["rows"]]
    if missing := [name for name in NAMES if name not in {result["name"] for result in results}]:
        lines += ["", f"No result is committed yet of: {', '.join(missing)}."]
    return "\n".join(lines)


def _machine(machine: Mapping[str, Any]) -> str:
    """A machine in words."""
    name = str(machine["processor"]).replace("(R)", "").replace(" Processor", "")
    return f"{machine['cores']} cores of {name}, {machine['class']}"


def _line(row: Row, machine: str) -> str:
    wanted = "" if row.at_least is None else f"{row.at_least:g}"
    ratio = "**not decided**" if row.ratio is None else f"{row.ratio:g} (**short**)" if row.short else f"{row.ratio:g}"
    peer = f"{row.peer:g} {row.unit}, {row.peer_name}"
    ours = f"{row.ours:g}" if row.interval is None else "{:g} ({:g} to {:g})".format(row.ours, *row.interval)
    return f"| {row.question} | {ours} {row.unit} | {peer} | {ratio} | {wanted} | {machine} |"


def with_table(readme: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The README with the table between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def write_readme() -> None:
    """Make the README's table again from the results that lie there."""
    README.write_text(with_table(README.read_text(encoding="utf-8"), load()), encoding="utf-8")
