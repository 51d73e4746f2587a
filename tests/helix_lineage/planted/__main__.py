"""One process of the campaign: plants, lets everybody read, puts it back, and tells on a line of its own.

    python -m tests.helix_lineage.planted FOLDER FIRST COUNT [SABOTAGE]

A line of standard output is `{"case", "what", "fault"}`; a fault is null, or what was wrong. Whoever reads the lines
ends the process when the next one does not come.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.helix_lineage.planted import sabotage
from tests.helix_lineage.planted.faults import plant
from tests.helix_lineage.planted.world import Found, World, make_world

PARTS = ("log",) * 6 + ("directory",) * 2 + ("store", "releases", "images")
_MEMORY = 4 * 2**30
"""Of address space; the modules take a tenth. Where somebody asks for more, it is an error, and a fault here."""


def main(folder: Path, first: int, count: int, broken: str = "") -> None:
    """Run cases `[first, first + count)`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    world = make_world(folder / "world")
    pristine = Path(shutil.copytree(world.root, folder / "pristine", symlinks=True))
    assert world.whole_view.problems == []
    sabotage.apply(broken)
    parts = (sabotage.WHERE[broken],) if broken else PARTS
    for number in range(first, first + count):
        what, fault = _case(world, pristine, parts, random.Random(number))
        print(json.dumps({"case": number, "what": what, "fault": fault}), flush=True)


def _case(world: World, pristine: Path, parts: Sequence[str], rng: random.Random) -> tuple[str, str | None]:
    part = rng.choice(parts)
    # Keys are new in each process, and so are names that are digests: a case that fails shall fail again.
    order = {name.partition(".")[0]: str(at) for at, name in enumerate(world.ids)}
    found = [path.relative_to(pristine) for path in (pristine / part).rglob("*")]
    found.sort(key=lambda path: [order.get(name, "" if len(name) > 60 else name) for name in path.parts])
    name = rng.choice(found)
    what = f"{name}: "
    try:
        what += plant(world.root / name, rng)
        return what, _judge(name, what, world.read(part, rng))
    except Exception:  # any traceback at all is what the campaign looks for
        return what, traceback.format_exc()
    finally:
        _restore(world.root / part, pristine / part)


def _judge(name: Path, what: str, found: Found) -> str | None:
    """What is wrong with what was said."""
    report = found.report
    if report is None:
        return None if found.answers.get("audit", "ok") == "ok" else f"no audit: {found.answers['audit']}"
    if any(finding.rule == "unreadable" for finding in report.findings):
        return f"the audit gave up: {report.findings}"
    if name.parts[0] == "log" and len(name.parts) > 1:
        # Who recovered a shard tells of it, so the two are one's concern.
        others = [finding for finding in report.findings if finding.shard not in (name.parts[1], "f" * 32)]
        if any(finding.rule not in ("shard-missing", "recovery", "truncated", "forked") for finding in others):
            return f"another shard is blamed: {others}"
    return "nothing was found" if ": type: " in what and report.passed and not _may_be(name, what) else None


def _may_be(name: Path, what: str) -> bool:
    """Is that no damage? A narrower tile than the last may go; so may the mark of a recovery, which is made again."""
    gone = what.endswith(("absent", "folder"))
    return name.name in ("lock", "journal.torn") or (gone and ("tile" in name.parts or name.name == "recovered"))


def _restore(place: Path, pristine: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(pristine, place, symlinks=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=arguments[0]) as scratch:
        main(Path(scratch), int(arguments[1]), int(arguments[2]), *arguments[3:])
