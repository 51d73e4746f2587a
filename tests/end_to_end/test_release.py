"""A commit, released: verified offline, found again by key, and untouched by a README."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_lineage.records.store import RecordStore
from tests.end_to_end.conftest import HELIX, MODEL, Released, Serving, clone, command, git
from tests.end_to_end.test_endpoints import UBIQUITIN


def stages(text: str) -> dict[str, dict[str, str]]:
    return {row["stage"]: row for row in json.loads(text)["stages"]}


def test_the_image_verifies_offline(released: Released) -> None:
    done = released.helix("verify", f"helix/{MODEL}@{released.image}", "--trust", str(released.state.trust), "--json")
    report = json.loads(done.stdout)
    assert report["passed"]
    assert all(check["passed"] for check in report["checks"])


def test_a_second_run_finds_every_stage_by_its_key(released: Released) -> None:
    again = stages(released.helix("run", "release", MODEL, "--json").stdout)
    assert {row["status"] for row in again.values()} == {"recorded"}


def test_without_the_cache_all_up_to_the_gate_is_made_again_to_the_same_record(released: Released) -> None:
    """`make test-long` makes the image again, too; so does `test_image.py`, twice."""
    again = stages(released.helix("regress", MODEL, "--no-cache", "--json").stdout)
    assert {row["status"] for row in again.values()} == {"rebuilt"}
    assert {"data", "import", "export", "compile", "regress"} <= set(again)
    before = stages(json.dumps(released.answer))
    assert {name: row["record"] for name, row in again.items()} == {name: before[name]["record"] for name in again}


@pytest.mark.long
def test_without_the_cache_every_stage_is_made_again_to_the_same_record(released: Released) -> None:
    again = stages(released.helix("run", "release", MODEL, "--no-cache", "--json").stdout)
    assert {row["status"] for row in again.values()} == {"rebuilt"}
    before = stages(json.dumps(released.answer))
    assert {name: row["record"] for name, row in again.items()} == {name: row["record"] for name, row in before.items()}


def test_the_release_names_the_commit_and_every_step(released: Released) -> None:
    record = released.answer["record"]
    assert record["parameters"]["commit"] == git(released.checkout, "rev-parse", "HEAD")
    store = RecordStore(released.state.store)
    kinds = {role: store.get_record(digest).TYPE for role, digest in record["parents"].items()}
    assert kinds == {
        "image": "helix.image-build",
        "guard": "helix.guard-verdict",
        "data": "helix.data-commit",
        "weights": "helix.trained-weights",
        "exported": "helix.exported-model",
        "engine": "helix.compiled-engine",
        "regression": "helix.regression-verdict",
    }


@pytest.fixture
def another_commit(released: Released, tmp_path: Path) -> Iterator[Path]:
    """A clone whose releases are, in the end, not the machine's latest: other tests serve that one."""
    yield clone(tmp_path / "again")
    released.helix("run", "release", MODEL)


def test_a_readme_only_commit_changes_no_digest_up_to_the_image(released: Released, another_commit: Path) -> None:
    folder = another_commit
    for name in ("README.md", f"models/{MODEL}/README.md", "lineage/FORMAT.md"):
        path = folder / name
        path.write_text(path.read_text() + "\nOne more line.\n")
    git(folder, "commit", "--quiet", "--all", "--message", "documents only")
    before = stages(json.dumps(released.answer))
    done = command([HELIX, "run", "release", MODEL, "--json"], folder, released.state)
    after = stages(done.stdout)
    upto = [name for name in before if name != "attest"]
    assert {name: after[name]["record"] for name in upto} == {name: before[name]["record"] for name in upto}
    assert after["attest"]["record"] != before["attest"]["record"], "the release names the commit"


def test_a_dirty_tree_is_refused_by_attest_only(released: Released, tmp_path: Path) -> None:
    folder = clone(tmp_path / "dirty")
    (folder / "README.md").write_text("changed, not committed\n")
    refused = command([HELIX, "run", "release", MODEL], folder, released.state, check=False)
    assert refused.returncode == 1
    assert "clean tree" in refused.stderr
    assert "Traceback" not in refused.stderr
    command([HELIX, "regress", MODEL], folder, released.state)


def test_a_prediction_is_traced_to_all_that_made_it(released: Released, serving: Serving) -> None:
    body = json.dumps({"structure": UBIQUITIN, "seed": 5})
    answer = subprocess.run(
        ["curl", "-sf", f"{serving.server.http}/design", "-H", "content-type: application/json", "-d", "@-"],
        input=body, check=True, capture_output=True, text=True,
    )  # fmt: skip
    prediction = json.loads(answer.stdout)["predictions"][0]["prediction_id"]
    text = serving.lineage("trace", prediction).stdout
    record = released.answer["record"]
    for wanted in (record["parameters"]["commit"], released.image, *record["parents"].values(), "seed          5"):
        assert wanted in text
    assert "signed by" in text
    audited = json.loads(
        serving.lineage("audit", "--directory", str(serving.log.with_name("directory")), "--json").stdout
    )
    assert audited["passed"]
