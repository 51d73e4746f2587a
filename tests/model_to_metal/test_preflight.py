from __future__ import annotations

from pathlib import Path

from helix_lineage.store import Store
from model_to_metal import preflight, sources
from model_to_metal.checkout import Checkout
from tests.model_to_metal.project import make_project


def test_reads_what_git_would_see_and_nothing_else(tmp_path: Path) -> None:
    checkout = make_project(tmp_path / "checkout")
    weights = checkout.root / "models/toy/data/weights/upstream.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"a pickle that DVC keeps and Git ignores")
    assert preflight.read(checkout, "toy").parameters["passed"] is True
    (checkout.root / "models/toy/golden/weights.pt").write_bytes(b"a pickle that would be committed")
    (finding,) = preflight.read(checkout, "toy").parameters["findings"]
    assert finding["file"] == "golden/weights.pt"


def test_only_a_refusal_is_recorded_here(tmp_path: Path) -> None:
    checkout, store = make_project(tmp_path / "checkout"), Store(tmp_path / "store")
    assert preflight.refusal(checkout, store, "toy") is None
    assert not (tmp_path / "store").exists()
    (checkout.root / "models/toy/bentofile.yaml").unlink()
    verdict = preflight.refusal(Checkout(checkout.root), store, "toy")
    assert verdict is not None
    assert store.get_record(verdict.digest) == verdict
    assert store.read_bytes(verdict.parameters["source"]) == sources.tree(checkout, "toy").to_bytes()
