from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.formats.canonical import dumps
from model_to_metal.errors import AttestError
from model_to_metal.supply_chain import provenance

IMAGE = "sha256:" + "a" * 64


def test_every_wheel_deb_source_lock_and_data_file_is_a_dependency(chain_of: Callable[..., Any]) -> None:
    chain = chain_of(IMAGE)
    found = provenance.materials(chain.records, chain.evidence)
    by_name = {item["name"]: item for item in found}
    assert by_name["numpy-2.0.0-py3-none-any.whl"] == {
        "name": "numpy-2.0.0-py3-none-any.whl",
        "uri": "pkg:pypi/numpy@2.0.0",
        "digest": {"sha256": "1" * 64},
    }
    assert by_name["zlib1g_1.2.13+dfsg-1_amd64.deb"]["uri"] == "pkg:deb/debian/zlib1g@1.2.13%2Bdfsg-1?arch=amd64"
    assert set(by_name["data/weights.pt"]["digest"]) == {"sha256", "md5"}
    assert {"models/tiny/environment/serve.lock", "platform/nix/debs.lock", "models/tiny/dvc.lock"} <= set(by_name)
    assert {name for name in by_name if name.startswith("source of")} >= {"source of helix.image-build"}
    assert len({json.dumps(item) for item in found}) == len(found)


@given(st.randoms())
def test_the_order_of_records_and_evidence_changes_nothing(random: Any) -> None:
    chain = _chain()
    records, evidence = list(chain.records), list(chain.evidence.items())
    random.shuffle(records)
    random.shuffle(evidence)
    expected = dumps(provenance.predicates(chain.release, chain.records, chain.evidence))
    assert dumps(provenance.predicates(chain.release, records, dict(evidence))) == expected


def test_a_lock_that_is_not_at_hand_cannot_be_attested(chain_of: Callable[..., Any]) -> None:
    chain = chain_of(IMAGE)
    for digest in chain.evidence:
        lacking = {key: value for key, value in chain.evidence.items() if key != digest}
        if chain.evidence[digest] == _source(chain):
            continue  # a source tree is named by digest alone
        with pytest.raises(AttestError, match="lacks") as caught:
            provenance.materials(chain.records, lacking)
        assert caught.value.where == digest


def test_slsa_provenance_names_builder_commit_and_records(chain_of: Callable[..., Any]) -> None:
    chain = chain_of(IMAGE)
    predicate = provenance.provenance(chain.release, chain.records, chain.evidence)
    assert predicate["buildDefinition"]["externalParameters"]["commit"] == "c" * 40
    assert {"name": "commit", "digest": {"gitCommit": "c" * 40}} in predicate["buildDefinition"]["resolvedDependencies"]
    assert predicate["runDetails"]["builder"]["id"] == "https://helix.example/builder/laptop"
    assert len(predicate["runDetails"]["byproducts"]) == len(chain.records)


def test_a_test_result_passes_only_when_both_gates_did(chain_of: Callable[..., Any]) -> None:
    good = provenance.test_result(chain_of(IMAGE).records)
    assert (good["result"], good["failedTests"]) == ("PASSED", [])
    assert good["passedTests"] == [
        "guard",
        "guard/contract",
        "guard/pickle",
        "regression",
        "regression/1ubi/max deviation",
    ]
    bad = provenance.test_result(chain_of(IMAGE, guard_passes=False).records)
    assert (bad["result"], bad["failedTests"]) == ("FAILED", ["guard", "guard/pickle"])
    worse = provenance.test_result(chain_of(IMAGE, regression_passes=False).records)
    assert (worse["result"], worse["failedTests"]) == ("FAILED", ["regression", "regression/1ubi/max deviation"])


def test_no_verdict_is_no_pass(chain_of: Callable[..., Any]) -> None:
    records = chain_of(IMAGE).records
    assert provenance.test_result([])["result"] == "FAILED"
    for kind in ("helix.guard-verdict", "helix.regression-verdict"):
        assert provenance.test_result([record for record in records if kind != record.TYPE])["result"] == "FAILED"


def test_a_verdict_that_is_merely_truthy_is_no_pass(chain_of: Callable[..., Any]) -> None:
    records = list(chain_of(IMAGE).records)
    guard = records[0]
    records[0] = dataclasses.replace(guard, parameters={**guard.parameters, "passed": "yes"})
    assert provenance.test_result(records)["result"] == "FAILED"


def test_a_statement_names_the_image_by_digest() -> None:
    said = provenance.statement(provenance.RELEASE, {}, name="helix/tiny", image=IMAGE)
    assert said["subject"] == [{"name": "helix/tiny", "digest": {"sha256": "a" * 64}}]
    assert said["_type"] == "https://in-toto.io/Statement/v1"


def test_evidence_that_is_no_list_of_sources_is_refused() -> None:
    for planted in (b"not json", b"[]", b'{"files": 1}'):
        with pytest.raises(AttestError, match="not a list of sources"):
            provenance.listed(planted, where="x")


_MADE: list[Callable[..., Any]] = []


@pytest.fixture(autouse=True)
def _keep(chain_of: Callable[..., Any]) -> None:
    # hypothesis refuses function-scoped fixtures, and the factory is stateless.
    _MADE[:] = [chain_of]


def _chain() -> Any:
    return _MADE[0](IMAGE)


def _source(chain: Any) -> bytes:
    return bytes(chain.evidence[chain.records[0].parameters["source"]])
