"""What the pipeline writes outside of Nix's sandbox, as files: `python outside.py TESTS DOWNLOADS OUTPUT`.

Run by test_variations.py in many surroundings; the working folder is a checkout with the model `toy`. TESTS is the
folder that holds the package `tests`. Every line of output is an input to a digest or a signature somewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.paths import State
from helix_lineage.records.chain import Promotion, Release
from helix_lineage.records.store import RecordStore
from model_to_metal.gitops import overlay, promote
from model_to_metal.gitops.repository import Repository
from model_to_metal.hermetic import fetch, nix
from model_to_metal.host.checkout import Checkout
from model_to_metal.host.process import run
from model_to_metal.pipeline import closure, plan as plans
from model_to_metal.pipeline.engine import Engine
from model_to_metal.stages import __main__ as command, interface as stages
from model_to_metal.supply_chain import attest, provenance
from model_to_metal.workflows.release import rendered

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def fetching(checkout: Checkout, downloads: Path, scratch: Path, output: Path) -> None:
    """What the locks name, and what of the seed and of the sources goes into a store."""
    state = State(scratch / "state")
    state.root.mkdir()
    state.downloads.symlink_to(downloads)
    store = nix.NixStore(scratch / "store")
    lines = [f"{file.folder} {file.store_path}" for file in fetch.locked_files(checkout.root)]
    lines.append(fetch.add_seed(checkout.root, state, store))
    with nix.sources(checkout.root, scratch / "flakes") as flake:
        folder = Path(flake.removeprefix("path:"))
        lines.append(f"sources {nix.archive_digest(folder)}")
        lines += store.add_fixed([folder / "flake.nix", folder / "platform/nix/debs.lock"])
    (output / "fetched").write_text("\n".join(lines) + "\n")
    store.remove()


def planning(checkout: Checkout, output: Path) -> None:
    """Plans, with the lists of sources that they name."""
    plan = plans.release_plan(checkout, "toy", stages.stages(), checkout.commit())
    (output / "plan.json").write_bytes(plan.to_bytes())
    keys = [plan.stages[name].key({}).digest for name in stages.stages()]
    (output / "keys").write_text("\n".join(keys) + "\n")
    for number, blob in enumerate(plan.blobs):
        (output / f"named-{number:02}").write_bytes(blob)
    (output / "tree.json").write_bytes(closure.tree(checkout, "toy").to_bytes())


def recording(checkout: Checkout, scratch: Path, output: Path) -> None:
    """Stages by their own command: DVC's data, import and export, to records and files."""
    folder = checkout.root / "models" / "toy"
    sys.path.insert(0, str(folder / "src"))
    plan = plans.release_plan(checkout, "toy", ("data", "import", "export"), None)
    (scratch / "downloads").mkdir()
    (scratch / "bin").mkdir()
    # The toy's own DVC stage asks for `python`.
    (scratch / "bin" / "python").symlink_to(sys.executable)
    os.environ["PATH"] = f"{scratch / 'bin'}:{os.environ['PATH']}"
    os.environ["PYTHONPATH"] += f":{folder / 'src'}"
    above = {"data": {"downloads": scratch / "downloads"}}
    for name, role in (("data", "data"), ("import", "weights"), ("export", "exported")):
        (scratch / f"{name}.json").write_bytes(dumps(plan.stages[name].plan.to_json()))
        words = [name, f"--model={folder}", f"--plan={scratch}/{name}.json"]
        words += [f"--output={output}/{role}", f"--record={output}/{role}.json"]
        for parent, given in above.get(name, {}).items():
            words += [f"--input={parent}={given}"]
            words += [f"--parent={parent}={given}.json"] if name != "data" else []
        assert command.main(words) == 0, name
        following = {"data": "import", "import": "export"}.get(name)
        if following:
            above[following] = {role: output / role}


def releasing(checkout: Checkout, scratch: Path, output: Path) -> Release:
    """A whole chain of records, and what would be signed about it."""
    from tests.model_to_metal.project import Bench  # noqa: PLC0415  found on the path that main() adds

    store = RecordStore(scratch / "records")
    outcomes = Engine(checkout, State(scratch / "engine"), Bench(), clock=lambda: datetime.now(UTC)).run("toy")
    records = [outcome.record for name, outcome in outcomes.items() if name != "attest"]
    release = cast(Release, outcomes["attest"].record)
    for path in Path(scratch / "engine" / "store" / "blobs").rglob("*"):
        if path.is_file():
            store.put_bytes(path.read_bytes())
    evidence = attest.gather(records, store, checkout.root)
    for number, (kind, predicate) in enumerate(provenance.predicates(release, records, evidence).items()):
        said = provenance.statement(kind, predicate, name="helix/toy", image=release.parameters["image"])
        (output / f"statement-{number}.json").write_bytes(dumps(said))
    for record in (*records, release):
        (output / f"{record.TYPE}.json").write_bytes(record.to_bytes())
    return release


def promoting(checkout: Checkout, release: Release, scratch: Path, output: Path) -> None:
    """What the promoter would sign, the files of the environment, and the commit's id."""
    record = Promotion(
        parents={"release": release.digest}, parameters={"model": "toy", "environment": "staging", "generation": 1}
    )
    subject = SimpleNamespace(name="helix/toy", digest=release.parameters["image"])
    change = cast(Any, SimpleNamespace(release=SimpleNamespace(statement_subject=subject)))
    (output / "promotion.json").write_bytes(promote._statement(record, change))
    files = overlay.files(
        "staging", "toy", registry="registry.example", repository="helix/toy", image=subject.digest,
        release=b"release", promotion=b"promotion",
    )  # fmt: skip
    for name, data in files.items():
        (output / digest_bytes(name.encode()).removeprefix("sha256:")[:12]).write_bytes(name.encode() + b"\n" + data)
    run(["git", "clone", "--quiet", checkout.root, scratch / "clone"])
    made = Repository(scratch / "clone").commit(checkout.commit(), files, "promote ü\n", WHEN)
    (output / "commit").write_text(made + "\n")


def main(tests: str, downloads: str, output: str) -> None:
    """Write everything."""
    sys.path.append(tests)
    checkout, target = Checkout(Path.cwd()), Path(output)
    parts = {name: target / name for name in ("fetch", "plan", "records", "attest", "workflow", "promotion")}
    for folder in parts.values():
        folder.mkdir()
    scratch = Path(tempfile.mkdtemp())
    fetching(checkout, Path(downloads), scratch, parts["fetch"])
    planning(checkout, parts["plan"])
    recording(checkout, scratch, parts["records"])
    release = releasing(checkout, scratch, parts["attest"])
    (parts["workflow"] / "release.yaml").write_text("\n".join(rendered()))
    promoting(checkout, release, scratch, parts["promotion"])
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(*sys.argv[1:])
