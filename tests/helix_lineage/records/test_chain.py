from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import RecordError
from helix_lineage.formats.canonical import dumps, loads
from helix_lineage.records.chain import (
    RECORD_TYPES,
    Artifact,
    DataCommit,
    ExportedModel,
    GuardVerdict,
    Record,
    from_json,
    parse,
)
from tests.helix_lineage.formats.test_canonical import json_values
from tests.helix_lineage.support import digest, make_chain

_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
_digests = st.binary(min_size=1, max_size=3).map(lambda data: digest(data.hex()))
_artifacts = st.lists(
    st.builds(Artifact, _names, _digests, st.integers(0, 2**40)), max_size=3, unique_by=lambda artifact: artifact.name
).map(tuple)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(sorted(RECORD_TYPES.values(), key=lambda kind: kind.TYPE)))
    return kind(
        parents={role: draw(_digests) for role, required in kind.PARENTS.items() if required or draw(st.booleans())},
        parameters={name: draw(json_values) for name in kind.REQUIRED},
        outputs=draw(_artifacts),
        seed=draw(st.none() | st.integers(0, 2**64 - 1)),
        target=draw(st.none() | st.just("onnxruntime-cpu")),
        machine_class=draw(st.none() | st.just("x86-64-v4")),
    )


@given(records())
def test_a_record_reads_back_as_itself(record: Record) -> None:
    again = parse(record.to_bytes())
    assert type(again) is type(record)
    assert again == record
    assert again.digest == record.digest


@given(records())
def test_the_digest_covers_every_field(record: Record) -> None:
    others = [
        replace(record, seed=1 if record.seed != 1 else 2),
        replace(record, target="other"),
        replace(record, machine_class="other"),
        replace(record, outputs=(*record.outputs, Artifact("one/more", digest("x"), 1))),
        replace(record, parameters={**record.parameters, "one more": 1}),
    ]
    assert record.digest not in {other.digest for other in others}


def test_zero_is_a_seed() -> None:
    record = GuardVerdict(parameters=make_chain().parts["guard"].parameters, seed=0)
    assert parse(record.to_bytes()).seed == 0
    assert record.digest != replace(record, seed=None).digest


def test_outputs_are_sorted_and_found_by_name() -> None:
    first, second = Artifact("a", digest("a"), 1), Artifact("b", digest("b"), 1)
    record = DataCommit(parameters={"model": "m", "dvc_lock": 1, "files": []}, outputs=(second, first))
    assert record.outputs == (first, second)
    assert record.output("b") is second
    with pytest.raises(RecordError, match="no output 'c'"):
        record.output("c")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\0", 3])
def test_an_output_cannot_leave_its_folder(name: Any) -> None:
    with pytest.raises(RecordError, match="relative path"):
        Artifact(name, digest("x"), 1)


@pytest.mark.parametrize("size", [-1, 2**53, True, 1.0, None])
def test_sizes_are_counts_of_bytes(size: Any) -> None:
    with pytest.raises(RecordError, match="size"):
        Artifact("a", digest("x"), size)


@pytest.mark.parametrize("seed", [-1, 2**64, True, 1.0])
def test_seeds_are_unsigned_64_bit(seed: Any) -> None:
    with pytest.raises(RecordError, match="seed"):
        GuardVerdict(parameters=make_chain().parts["guard"].parameters, seed=seed)


def test_parents_and_parameters_are_checked() -> None:
    with pytest.raises(RecordError, match=r"parents missing \['weights'\]"):
        ExportedModel(parameters={"model": "m", "source": "s", "environment": "e"})
    with pytest.raises(RecordError, match=r"unknown \['x'\]"):
        ExportedModel(parents={"weights": digest("w"), "x": digest("x")})
    with pytest.raises(RecordError, match=r"parameters missing \['source'"):
        ExportedModel(parents={"weights": digest("w")}, parameters={"model": "m"})
    with pytest.raises(RecordError, match="not a digest"):
        ExportedModel(parents={"weights": "latest"}, parameters={"model": "m", "source": "s", "environment": "e"})
    with pytest.raises(RecordError, match="subclasses"):
        Record()
    twice = (Artifact("a", digest("a"), 1), Artifact("a", digest("b"), 1))
    with pytest.raises(RecordError, match="two outputs"):
        DataCommit(parameters={"model": "m", "dvc_lock": 1, "files": []}, outputs=twice)


def _json() -> dict[str, Any]:
    value = loads(make_chain().parts["data"].to_bytes())
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "helix.nothing"},
        {"type": []},
        {"version": 2},
        {"version": []},
        {"version": True},
        {"version": 1.0},
        {"parents": []},
        {"parents": {"x": 1}},
        {"parameters": 1},
        {"outputs": {}},
        {"outputs": [1]},
        {"outputs": [{"name": "a", "digest": 1, "size": 1}]},
        {"outputs": [{"name": "../a", "digest": digest("a"), "size": 1}]},
        {"seed": 7},
        {"seed": "07"},
        {"seed": "9" * 5000},
        {"seed": "-1"},
        {"seed": str(2**64)},
        {"target": 1},
        {"machine_class": []},
        {"more": 1},
    ],
)
def test_malformed_records_are_refused_with_our_error(changes: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        from_json(_json() | changes)


def test_a_second_spelling_is_refused() -> None:
    value = _json()
    value["outputs"] = [
        {"name": "b", "digest": digest("b"), "size": 1}, {"name": "a", "digest": digest("a"), "size": 1},
    ]  # fmt: skip
    with pytest.raises(RecordError, match="canonical form"):
        from_json(value)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b"{", b'{"type": 1}'])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        parse(data)


def test_parameters_without_canonical_form_are_refused_with_our_error() -> None:
    with pytest.raises(RecordError):
        from_json(_json() | {"parameters": {"model": "m", "dvc_lock": 2**60, "files": []}})
    assert dumps(_json())
