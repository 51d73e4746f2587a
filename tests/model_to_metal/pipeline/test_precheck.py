from __future__ import annotations

from pathlib import Path

from helix_lineage.records.store import RecordStore
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure, precheck
from tests.model_to_metal.project import make_project


def test_reads_what_git_would_see_and_nothing_else(tmp_path: Path) -> None:
    checkout = make_project(tmp_path / "checkout")
    weights = checkout.root / "models/toy/data/weights/upstream.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"a pickle that DVC keeps and Git ignores")
    assert precheck.read(checkout, "toy").parameters["passed"] is True
    (checkout.root / "models/toy/golden/weights.pt").write_bytes(b"a pickle that would be committed")
    (finding,) = precheck.read(checkout, "toy").parameters["findings"]
    assert finding["file"] == "golden/weights.pt"


def test_only_a_refusal_is_recorded_here(tmp_path: Path) -> None:
    checkout, store = make_project(tmp_path / "checkout"), RecordStore(tmp_path / "store")
    assert precheck.refusal(checkout, store, "toy") is None
    assert not (tmp_path / "store").exists()
    (checkout.root / "models/toy/bentofile.yaml").unlink()
    verdict = precheck.refusal(Checkout(checkout.root), store, "toy")
    assert verdict is not None
    assert store.get_record(verdict.digest) == verdict
    assert store.read_bytes(verdict.parameters["source"]) == closure.tree(checkout, "toy").to_bytes()
