"""Every leaf of every part of the extended chain, changed alone, is refused by name; so is whatever chance makes of it.

An *outsider* changes bytes and signs nothing. An *insider* holds the key of the part's own role, and
signs what was changed: then other parts must contradict it. What is accepted all the same is listed
in `NOT_BELIEVED`, with why, and a test holds the list to be exact.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest

from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import dumps
from tests.helix_lineage.support import Signer
from tests.helix_lineage.test_links import _mutate
from tests.model_to_metal.whole_chain import (
    ATTESTED,
    BLOBS,
    Leaf,
    Parts,
    Verifier,
    Whole,
    changed,
    leaves,
    make,
    others,
    refusal,
    statement_of,
)

SIGNED = ("bundle", "promotion", *ATTESTED)
"""Parts that are signed bundles; `bundle` is the release's."""
ENTRY = ("id", "header", "entry", "proof", "note", "input_salt", "input", "output_salt", "output")

NAMED = {
    "id": "not a prediction id|the header makes the id|not the one under the signed checkpoint",
    "header": "the header makes the id",
    "entry": "not the one under the signed checkpoint",
    "proof": "not the one under the signed checkpoint",
    "note": "checkpoint|base64|signature line",
    "input_salt": "the input does not meet its commitment",
    "input": "the input does not meet its commitment",
    "output_salt": "the output does not meet its commitment",
    "output": "the output does not meet its commitment",
    "trust": "trust root|trusted key|role|key_id|public key|builder|that holds at|not a time|no zone|different model",
    "bundle": "releaser|bundle|envelope|release|statement|record|subject",
    "promotion": "promoter|bundle|envelope|promotion|statement|subject|generation",
    "signature": "^signature: ",
    "provenance": "^provenance: |^dependencies: |; dependencies: ",
    "test-result": "^test result: |^verdicts: |; verdicts: ",
    "index": "layout has no index|the registry gave",
    "manifest": "a blob of the image hashes to",
    "config": "a blob of the image hashes to",
    "layer": "a blob of the image hashes to",
}
"""Part → what its refusal says."""
FILES = "^dependencies: what the records name cannot be derived again: the evidence lacks"

NOT_BELIEVED = {
    ("bundle", "subject.0.name"): "where the image lay when it was signed; its digest names it",
    ("promotion", "subject.0.name"): "the same",
    ("signature", "subject.0.name"): "the same",
    ("provenance", "subject.0.name"): "the same",
    ("test-result", "subject.0.name"): "the same",
}
"""Leaves that even an honest verifier has no use for, where their signer changed them (FORMAT.md 13)."""
UNUSED_FILES = 1
"""The list of files of a source tree: the tree is one dependency, by its digest, and the list is for people."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return make(tmp_path_factory.mktemp("whole"), "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return make(tmp_path_factory.mktemp("other"), "two")


@pytest.fixture
def verifier(ram: Path) -> Verifier:
    return Verifier(ram)


def _files(whole: Whole) -> list[str]:
    return list(whole.parts.files)


def _parts(whole: Whole) -> list[str]:
    return [*ENTRY, "trust", *SIGNED, *BLOBS, *_files(whole)]


def _name(path: Leaf) -> str:
    return ".".join(map(str, path))


def _envelope(bundle: bytes, payload: bytes) -> bytes:
    """The bundle with another payload, and the signature that it had."""
    value = json.loads(bundle)
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value).encode()


def test_the_whole_chain_is_believed(whole: Whole, other: Whole, verifier: Verifier) -> None:
    assert verifier.believe(whole.parts)
    assert verifier.believe(other.parts)


@pytest.mark.parametrize("part", SIGNED)
def test_every_leaf_of_a_statement_that_an_outsider_changes(whole: Whole, verifier: Verifier, part: str) -> None:
    bundle = whole.parts.get(part)
    statement = statement_of(bundle)
    told = []
    for path in leaves(statement):
        for value in (others(_at(statement, path)))[:2]:
            planted = dumps(changed(statement, path, lambda _, value=value: value))
            told.append((path, refusal(verifier.believe, whole.parts.put(part, _envelope(bundle, planted)))))
    # A statement that no longer claims the type is one that is missing.
    wanted = re.compile(rf"signed by a key|no signature is by a key of role|{NAMED[part]}")
    assert [item for item in told if item[1] is None or not wanted.search(item[1])] == []
    assert len(told) >= 2 * len(list(leaves(statement))) - 2


@pytest.mark.parametrize("part", SIGNED)
def test_every_leaf_of_a_statement_that_its_signer_changes(whole: Whole, verifier: Verifier, part: str) -> None:
    statement = statement_of(whole.parts.get(part))
    believed, unnamed = set(), []
    for path in leaves(statement):
        for value in others(_at(statement, path)):
            planted = changed(statement, path, lambda _, value=value: value)
            told = refusal(verifier.believe, whole.parts.put(part, whole.sign(part, planted)))
            if told is None:
                believed.add((part, _name(path)))
            elif not re.search(NAMED[part], told):
                unnamed.append((path, told))
    assert believed == {key for key in NOT_BELIEVED if key[0] == part}
    assert unnamed == []


def _at(value: Any, path: Leaf) -> Any:
    for key in path:
        value = value[key]
    return value


def test_every_field_of_the_provenance_is_named_when_it_lies(whole: Whole, verifier: Verifier) -> None:
    """By the releaser's own hand: the refusal names the field, or the dependency, and the invocation its release."""
    statement = statement_of(whole.parts.get("provenance"))
    predicate = statement["predicate"]
    for path in leaves(predicate):
        planted = changed(statement, ("predicate", *path), lambda leaf: "lie" if leaf != "lie" else "x")
        told = refusal(verifier.believe, whole.parts.put("provenance", whole.sign("provenance", planted)))
        assert told
        if path[:2] == ("buildDefinition", "resolvedDependencies"):
            assert "dependencies differ: " in told
        elif path == ("runDetails", "metadata", "invocationId"):
            assert "no provenance speaks of the release" in told
        else:
            named = re.sub(r"\.(\d+)", r"[\1]", _name(path))
            assert f"{named} is 'lie', but the records say " in told, path


@pytest.mark.parametrize("part", ["header", "entry"])
def test_every_field_of_an_entry(whole: Whole, verifier: Verifier, part: str) -> None:
    fields = cbor2.loads(whole.parts.get(part))
    paths = list(leaves(fields))
    assert len(paths) >= 10
    for path in paths:
        for value in others(_at(fields, path)):
            data = cbor2.dumps(changed(fields, path, lambda _, value=value: value), canonical=True)
            told = refusal(verifier.believe, whole.parts.put(part, data))
            assert told, (path, value)
            assert re.search(NAMED[part], told), (path, told)


def test_every_line_of_a_checkpoint_and_every_node_of_a_proof(whole: Whole, verifier: Verifier) -> None:
    lines = whole.parts.get("note").split(b"\n")
    for at, line in enumerate(lines):
        for planted in (line + b"x", _flip(line, len(line) - 1), b"") if line else (b"x",):
            data = b"\n".join([*lines[:at], planted, *lines[at + 1 :]])
            told = refusal(verifier.believe, whole.parts.put("note", data))
            assert told, (at, planted)
            assert re.search(NAMED["note"], told), told
    proof = whole.parts.get("proof")
    assert len(proof) >= 64
    for at in range(len(proof)):
        told = refusal(verifier.believe, whole.parts.put("proof", _flip(proof, at)))
        assert told
        assert re.search(NAMED["proof"], told)


def test_every_field_of_the_trust_root(whole: Whole, verifier: Verifier) -> None:
    """Builders of other roles than the releaser's are people's names; spans that still hold say the same."""
    trust = json.loads(whole.parts.get("trust"))
    believed = set()
    for path in leaves(trust):
        for value in others(_at(trust, path)):
            data = json.dumps(changed(trust, path, lambda _, value=value: value)).encode()
            told = refusal(verifier.believe, whole.parts.put("trust", data))
            if told is None:
                believed.add(_name(path))
            else:
                assert re.search(NAMED["trust"], told), (path, told)
    # PEM without its last line break is the same key; its digest is compared.
    assert believed == {"keys.1.builder", "keys.0.public_key", "keys.1.public_key"}


@pytest.mark.parametrize("part", BLOBS)
def test_every_byte_of_the_image_counts(whole: Whole, verifier: Verifier, part: str) -> None:
    """Each byte of index, manifest, config and layer; of the index, what is said beside the digest is not believed."""
    data = whole.parts.get(part)
    for at in range(len(data)):
        told = refusal(verifier.believe, whole.parts.put(part, _flip(data, at)))
        if part == "index" and told is None:
            assert json.loads(_flip(data, at))["manifests"][0]["digest"] == json.loads(data)["manifests"][0]["digest"]
            continue
        assert told, at
        assert re.search(NAMED[part], told), told


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_every_file_that_records_name(whole: Whole, verifier: Verifier) -> None:
    """Locks and lists of sources: every fifth byte changed, and the records name something that is not there."""
    unused = []
    for part in _files(whole):
        data = whole.parts.get(part)
        places = range(0, len(data), 5)
        told = [refusal(verifier.believe, whole.parts.put(part, _flip(data, at))) for at in places]
        if set(told) == {None}:
            unused.append(part)
            continue
        assert all(item and re.search(FILES, item) for item in told)
    assert len(unused) == UNUSED_FILES


def test_parts_of_another_valid_chain_do_not_stand_in(whole: Whole, other: Whole, verifier: Verifier) -> None:
    """Two releases, two shards, two promotions of one model: any part of one in the place of the other's."""
    theirs = dict(zip(_parts(whole), _parts(other), strict=True))
    both = json.loads(whole.parts.get("trust"))
    both["keys"] += json.loads(other.parts.get("trust"))["keys"]
    one, two = (item.put("trust", json.dumps(both).encode()) for item in (whole.parts, other.parts))
    assert verifier.believe(one)
    assert verifier.believe(two)
    same = [part for part in _parts(whole) if one.get(part) == two.get(theirs[part])]
    assert same == ["trust", *_files(whole)]  # both trust everybody's keys, and were made with the same locks
    for part in set(_parts(whole)) - set(same):
        told = refusal(verifier.believe, one.put(part, two.get(theirs[part])))
        assert told, part
        # The next part on the way finds it when a part is whole in itself.
        assert re.search(NAMED[part], told) or part in ("header", "manifest"), (part, told)
    # Whole halves do not fit together either.
    for change in (
        {"entry": two.entry},
        {"promotion": two.promotion},
        {"attested": two.attested},
        {"blobs": two.blobs},
    ):
        assert refusal(verifier.believe, replace(one, **change))


def _random(whole: Whole, rng: random.Random) -> tuple[str, Parts]:
    """One part, mutated: its bytes, or inside its signed payload and signature, or a leaf that its signer signs."""
    part = rng.choice(_parts(whole))
    data = whole.parts.get(part)
    if part not in SIGNED:
        return part, whole.parts.put(part, _mutate(data, rng))
    how = rng.choice(("bytes", "payload", "signature", "leaf"))
    if how == "leaf":
        statement = statement_of(data)
        path = rng.choice(list(leaves(statement)))
        value = rng.choice(others(_at(statement, path)))
        planted = changed(statement, path, lambda _: value)
        return f"{part} {_name(path)}", whole.parts.put(part, whole.sign(part, planted))
    if how == "bytes":
        return f"{part} bytes", whole.parts.put(part, _mutate(data, rng))
    value = json.loads(data)
    holder, key = (value["dsseEnvelope"], "payload")
    if how == "signature":
        holder, key = (value["dsseEnvelope"]["signatures"][0], "sig")
    holder[key] = base64.b64encode(_mutate(base64.b64decode(holder[key]), rng)).decode()
    return f"{part} {how}", whole.parts.put(part, json.dumps(value).encode())


def _campaign(whole: Whole, verifier: Verifier, turns: int, seed: int) -> tuple[list[str], Counter[str]]:
    """What was believed although it says something else, and how many mutations of each part were refused."""
    rng = random.Random(seed)
    truth = verifier.believe(whole.parts)
    believed, refused = [], Counter[str]()
    for _ in range(turns):
        what, planted = _random(whole, rng)
        part = what.partition(" ")[0]
        try:
            answer = verifier.believe(planted)
        except LineageError:
            refused[part] += 1
            continue
        # What nobody believes may change (NOT_BELIEVED, unsigned hints, white space), if the answer stays the same.
        if answer != truth:
            believed.append(what)
    return believed, refused


def _hold(whole: Whole, verifier: Verifier, turns: int, seed: int) -> None:
    believed, refused = _campaign(whole, verifier, turns, seed)
    print(
        f"\n{turns} mutations of {len(_parts(whole))} parts: {sum(refused.values())} refused, {len(believed)} believed"
    )
    assert believed == []
    assert sum(refused.values()) > turns * 0.9
    assert set(refused) >= {*ENTRY, "trust", *SIGNED, *BLOBS}


def test_five_thousand_random_mutations_and_none_is_believed(whole: Whole, verifier: Verifier) -> None:
    _hold(whole, verifier, 5_000, seed=11)


@pytest.mark.long
def test_fifty_thousand_random_mutations_and_none_is_believed(whole: Whole, verifier: Verifier) -> None:
    _hold(whole, verifier, 50_000, seed=12)


@pytest.mark.parametrize(
    ("where", "instead", "part"),
    [
        ("helix_lineage.tlog.merkle.verify_inclusion", lambda *_: True, "proof"),
        ("helix_lineage.attestations.trust.TrustedKey.verifies", lambda *_: True, "provenance"),
        ("helix_lineage.formats.untrusted.file_digest", lambda path: "sha256:" + path.name, "layer"),
        ("model_to_metal.supply_chain.verify._dependencies", lambda *_: [], "provenance"),
        ("model_to_metal.supply_chain.verify._verdicts", lambda *_: [], "test-result"),
    ],
)
def test_a_verifier_that_skips_a_check_is_caught(  # noqa: PLR0917  a row of the table is three
    whole: Whole, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, where: str, instead: Any, part: str
) -> None:
    """The planted faults: the same changes, on verifiers that look away."""
    monkeypatch.setattr(where, instead)
    data = whole.parts.get(part)
    if part in SIGNED:
        statement = statement_of(data)
        rows = [path for path in leaves(statement) if path[0] == "predicate"]
        planted = [whole.sign(part, changed(statement, path, lambda _: "lie")) for path in rows]
    else:
        planted = [_flip(data, at) for at in range(0, len(data), 5)]
    if where.endswith("verifies"):
        planted = [Signer().bundle(statement_of(data))]
    believed = [refusal(verifier.believe, whole.parts.put(part, item)) for item in planted]
    assert None in believed


KEY_FAULTS = {
    "expired": ({"not_after": "2026-05-31T23:59:59Z"}, "is by no key of role 'releaser' that holds at 2026-06-01"),
    "not yet valid": (
        {"not_before": "2026-06-01T00:00:01Z"},
        "is by no key of role 'releaser' that holds at 2026-06-01",
    ),
    "of another role": ({"role": "witness"}, "no key of role 'releaser' in the trust root made the signature"),
    "a builder's that the release does not name": ({"builder": "github"}, "the key's builder is github"),
}


@pytest.mark.parametrize("fault", KEY_FAULTS)
def test_a_key_that_may_not_speak_is_named_in_each_statement_about_the_image(
    whole: Whole, verifier: Verifier, fault: str
) -> None:
    """What `helix verify` says of the bundles that cosign is asked about as well."""
    changes, message = KEY_FAULTS[fault]
    key = Signer(key=whole.releaser.key, **changes)
    report = verifier.report(whole.parts, key.trust())
    failed = {item.name: item.detail for item in report.checks if not item.passed}
    names = {"chain"} if fault.startswith("a builder") else {"signature", "provenance", "test result", "release"}
    assert set(failed) == names
    assert all(message in detail for detail in failed.values())
