"""Every link of the chain from a prediction to its release: changed, swapped or mutated, it is refused by name."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, RecordError, ShardError, TrustError
from helix_lineage.records.chain import Record
from helix_lineage.shard import entries
from helix_lineage.shard.entries import PredictionEntry, commitment
from helix_lineage.shard.header import ShardHeader, parse_prediction_id, shard_id
from helix_lineage.tlog import checkpoint, merkle
from tests.helix_lineage.support import NOW, Chain, Signer, World, digest, make_chain, request


@dataclass(frozen=True)
class Evidence:
    """All that a verifier without a network is given about one prediction."""

    id: str
    trust: bytes
    bundle: bytes
    header: bytes
    entry: bytes
    proof: bytes
    note: bytes
    input_salt: bytes
    input: bytes
    output_salt: bytes
    output: bytes


def believe(given: Evidence) -> tuple[object, ...]:
    """What the evidence proves, by the package's own rules. Raises LineageError, naming the link."""
    shard, sequence = parse_prediction_id(given.id)
    if shard_id(given.header) != shard:
        raise ShardError(f"the header makes the id {shard_id(given.header)}")
    header = ShardHeader.from_bytes(given.header)
    signed = checkpoint.verify(given.note, checkpoint.SHARD_ORIGIN + shard, header.public_key)
    proof = [given.proof[at : at + 32] for at in range(0, len(given.proof), 32)]
    if not merkle.verify_inclusion(sequence, signed.size, merkle.leaf_hash(given.entry), proof, signed.root):
        raise ShardError("the entry is not the one under the signed checkpoint")
    entry = entries.decode(given.entry)
    if not isinstance(entry, PredictionEntry):
        raise ShardError("that entry is not a prediction")
    for name in ("input", "output"):
        if commitment(getattr(given, f"{name}_salt"), getattr(given, name)) != getattr(entry, f"{name}_commitment"):
            raise ShardError(f"the {name} does not meet its commitment")
    at = datetime.fromtimestamp(header.started_ns / 1e9, UTC)
    release = verify_release(given.bundle, Trust.parse(given.trust), image=header.image, at=at)
    if release.release.digest != header.release:
        raise RecordError("the release is not the one that the header names")
    return header, entry, release.release, dict(release.records), release.key_id, release.builder


def evidence(world: World, first: int) -> list[Evidence]:
    """The evidence of every prediction of a served shard."""
    names = world.shard([request(seed=first + at, count=2, output=f"M{at}") for at in range(4)])
    shard, _ = world.log.find(names[0])
    found = []
    for name in names:
        sequence = int(name.partition(".")[2])
        inclusion, kept = shard.inclusion(sequence), shard.payload(sequence)
        parts = (kept.input_salt, kept.input, kept.output_salt, kept.output)
        proof = b"".join(inclusion.proof)
        roots = (world.signer.trust_json(), world.bundle, shard.entry(0))
        found.append(
            Evidence(name, *roots, shard.entry(sequence), proof, inclusion.note, *[part or b"" for part in parts])
        )
    return found


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> list[Evidence]:
    return evidence(World(tmp_path_factory.mktemp("honest"), make_chain(), Signer()), 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> list[Evidence]:
    """Another valid chain: another key, commit, image and shard of the same model."""
    return evidence(World(tmp_path_factory.mktemp("other"), make_chain(image=digest("another image")), Signer()), 9)


def _flip(data: bytes, at: int = -1) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[len(data) + at + 1 if at < 0 else at + 1 :]


def _in_bundle(bundle: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(bundle)
    change(value["dsseEnvelope"])
    return json.dumps(value).encode()


def _signature(envelope: dict[str, Any]) -> None:
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    envelope["signatures"][0]["sig"] = base64.b64encode(_flip(signature)).decode()


def _payload(envelope: dict[str, Any]) -> None:
    payload = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(payload.replace(b"c" * 40, b"d" * 40)).decode()


NO_KEY = "no signature is by a key of role 'releaser'"
LINKS: dict[str, tuple[Callable[[Evidence], dict[str, Any]], str]] = {
    "id": (lambda e: {"id": e.id.replace(".1", ".2")}, "not the one under the signed checkpoint"),
    "header": (lambda e: {"header": _flip(e.header)}, "the header makes the id"),
    "entry": (lambda e: {"entry": _flip(e.entry)}, "not the one under the signed checkpoint"),
    "proof": (lambda e: {"proof": _flip(e.proof, 0)}, "not the one under the signed checkpoint"),
    "short proof": (lambda e: {"proof": e.proof[:-32]}, "not the one under the signed checkpoint"),
    "checkpoint": (lambda e: {"note": e.note.replace(b"\n10\n", b"\n11\n")}, "the checkpoint's signature does not"),
    "input salt": (lambda e: {"input_salt": _flip(e.input_salt)}, "the input does not meet its commitment"),
    "output salt": (lambda e: {"output_salt": _flip(e.output_salt)}, "the output does not meet its commitment"),
    "input": (lambda e: {"input": _flip(e.input)}, "the input does not meet its commitment"),
    "output": (lambda e: {"output": _flip(e.output)}, "the output does not meet its commitment"),
    "signature": (
        lambda e: {"bundle": _in_bundle(e.bundle, _signature)},
        NO_KEY,
    ),
    "payload": (lambda e: {"bundle": _in_bundle(e.bundle, _payload)}, NO_KEY),
    "payload type": (
        lambda e: {"bundle": e.bundle.replace(b"vnd.in-toto", b"vnd.other")},
        "the envelope's payloadType is",
    ),
    "media type": (lambda e: {"bundle": e.bundle.replace(b"bundle.v0.3", b"bundle.v0.2")}, "mediaType is not"),
    "trust root": (lambda _: {"trust": Signer().trust_json()}, NO_KEY),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_changed_link_is_refused_by_name(honest: list[Evidence], link: str) -> None:
    change, message = LINKS[link]
    changed = change(honest[0])
    assert all(getattr(honest[0], name) != value for name, value in changed.items())
    with pytest.raises(LineageError, match=message):
        believe(replace(honest[0], **changed))


ROLES = ("image", "guard", "data", "weights", "exported", "engine", "regression")


def _changed(record: Record) -> Record:
    return replace(record, target="something else")


@pytest.mark.parametrize("role", ROLES)
def test_a_record_that_its_signer_changed_is_named(chain: Chain, signer: Signer, role: str) -> None:
    """By the releaser's own key: data manifest, weights, graph, verdicts, image."""
    old = chain.parts[role]
    statement = chain.statement()
    statement["predicate"]["records"][old.digest] = _changed(old).to_json()
    with pytest.raises(RecordError, match=rf"predicate.records\[{old.digest}\] hashes to"):
        verify_release(signer.bundle(statement), signer.trust(), image=None, at=NOW)
    chain.parts[role] = _changed(old)
    with pytest.raises(RecordError, match=rf"the chain is incomplete: .*{old.digest}"):
        verify_release(signer.bundle(chain.statement()), signer.trust(), image=None, at=NOW)


def _looked_at(chain: Chain) -> Chain:
    """The chain, with a guard that also ran the model, and its own data."""
    parts = chain.parts
    parts["guard"] = replace(
        parts["guard"], parents={"exported": parts["exported"].digest, "engine": parts["engine"].digest}
    )
    parents = {role: parts[role].digest for role in ROLES}
    return Chain({**parts, "release": replace(chain.release, parents=parents)})


@pytest.mark.parametrize("role", ROLES)
def test_a_record_of_another_valid_chain_does_not_stand_in(signer: Signer, role: str) -> None:
    """Each part swapped between two releases of one model that are both whole, by the releaser's own hand."""
    first = _looked_at(make_chain(image=digest("image")))
    second = _looked_at(make_chain(image=digest("another image"), environment=digest("another environment")))
    for chain in (first, second):
        verify_release(signer.bundle(chain.statement()), signer.trust(), image=None, at=NOW)
    other = second.parts[role] if role != "data" else replace(second.parts[role], target="other data")
    release = replace(first.release, parents={**first.release.parents, role: other.digest})
    swapped = Chain({**first.parts, role: other, "release": release}).statement()
    # Nothing is missing: both chains are there.
    both = first.records | second.records
    swapped["predicate"]["records"] |= {name: record.to_json() for name, record in both.items()}
    with pytest.raises(
        RecordError, match=r"(image|engine|exported|weights|regression|guard)\.\w+ is sha256:\w+, but \w+ is"
    ):
        verify_release(signer.bundle(swapped), signer.trust(), image=None, at=NOW)


def _names() -> list[str]:
    return [field.name for field in fields(Evidence)]


def test_parts_swapped_between_two_valid_chains_are_refused(honest: list[Evidence], other: list[Evidence]) -> None:
    believe(honest[0])
    believe(other[0])
    parts = [name for name in _names() if getattr(honest[0], name) != getattr(other[1], name)]
    assert parts == _names()
    for name in parts:
        with pytest.raises(LineageError):
            believe(replace(honest[0], **{name: getattr(other[1], name)}))


def test_parts_swapped_between_two_predictions_of_a_shard_are_refused(honest: list[Evidence]) -> None:
    shared = {"trust", "bundle", "header", "note"}
    for name in set(_names()) - shared:
        with pytest.raises(LineageError):
            believe(replace(honest[0], **{name: getattr(honest[5], name)}))


def _mutate(data: bytes, rng: random.Random) -> bytes:
    """Something else, near by."""
    while True:
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        found = rng.choice(
            [
                _flip(data, rng.randrange(len(data))),
                data[:a] + bytes([rng.randrange(256)]) + data[a + 1 :],
                data[:a] + rng.randbytes(rng.randrange(1, 9)) + data[a:],
                data[:a] + data[b:],
                data[:b] + data[a:],
                data[:a] + data[a:b][::-1] + data[b:],
                data[:a],
                data[:a] + rng.choice((b"0", b"9", b'"', b"{", b"\0", b"=", b"\n")) + data[a + 1 :],
            ]
        )
        if found != data:
            return found


STRICT = ("id", "header", "entry", "proof", "note", "input_salt", "input", "output_salt", "output")
"""Parts of which every byte counts. Of a bundle, unsigned hints don't; of a trust root, white space and dates don't."""


def _inside(bundle: bytes, rng: random.Random) -> bytes:
    """A mutation of the signed payload or of the signature, which is where it could hurt."""

    def change(envelope: dict[str, Any]) -> None:
        holder, key = rng.choice(((envelope, "payload"), (envelope["signatures"][0], "sig")))
        holder[key] = base64.b64encode(_mutate(base64.b64decode(holder[key]), rng)).decode()

    return _in_bundle(bundle, change)


def _records(statement: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One leaf of the release or its records changed; the releaser signs it all the same."""
    while True:
        changed = json.loads(json.dumps(statement))
        at: Any = changed["predicate"]
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = rng.choice(keys)
            if not isinstance(at[key], dict | list):
                at[key] = rng.choice([None, "x", 1, True, digest("x"), "sha256:" + "0" * 64, [], {}])
                break
            at = at[key]
        if changed != statement:
            return dict(changed)


def _believed(honest: list[Evidence], turns: int) -> tuple[list[str], Counter[str]]:
    """Mutations that were taken for the truth, and how many of each part were refused."""
    rng = random.Random(4)
    refused: Counter[str] = Counter()
    believed: list[str] = []
    for _ in range(turns):
        given = rng.choice(honest)
        name = rng.choice((*STRICT, "bundle", "inside", "inside", "trust"))
        if name == "inside":
            changed = replace(given, bundle=_inside(given.bundle, rng))
        elif name == "id":
            changed = replace(given, id=_mutate(given.id.encode(), rng).decode("latin-1"))
        else:
            changed = replace(given, **{name: _mutate(getattr(given, name), rng)})
        try:
            answer = believe(changed)
        except LineageError:
            refused[name] += 1
            continue
        if name in (*STRICT, "inside") or answer != believe(given):
            believed.append(f"{name}: {changed}")
    return believed, refused


def test_thousands_of_random_mutations_and_none_is_believed(honest: list[Evidence]) -> None:
    """20,000 mutations of ids, entries, proofs, notes, salts, payloads, bundles and trust.json.

    Each is refused with an error of ours; or, of bundles and trust roots, what is believed is what was true.
    """
    believed, refused = _believed(honest, 20_000)
    assert not believed, (len(believed), believed[:3])
    assert set(refused) == {*STRICT, "bundle", "inside", "trust"}
    assert sum(refused.values()) > 15_000


def test_mutated_records_are_refused_even_when_they_are_signed(chain: Chain, signer: Signer) -> None:
    """800 changes of one leaf each; only the release itself may say something else, and then it is another release."""
    rng = random.Random(5)
    statement = chain.statement()
    for _ in range(800):
        try:
            found = verify_release(signer.bundle(_records(statement, rng)), signer.trust(), image=None, at=NOW)
        except (TrustError, RecordError):
            continue
        assert found.records == chain.records
        assert found.release.digest != chain.release.digest


def test_a_verifier_that_skips_a_check_is_caught(honest: list[Evidence], monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the same mutations on a verifier that takes any inclusion proof."""
    monkeypatch.setattr(merkle, "verify_inclusion", lambda *_: True)
    believed, _ = _believed(honest, 500)
    assert any(item.startswith("proof") for item in believed)


SPANS = {
    "not yet valid": ({"not_before": "2026-07-01T00:00:00Z"}, "that holds at 2026-06-01"),
    "expired": ({"not_after": "2026-06-01T00:00:00Z"}, "that holds at 2026-06-01"),
    "wrong role": (
        {"role": "promoter"},
        "no key of role 'releaser' in the trust root made the signature: one of role 'promoter' did",
    ),
    "wrong builder": ({"builder": "ci"}, "parameters.builder is laptop, but the key's builder is ci"),
}


@pytest.mark.parametrize("fault", SPANS)
def test_a_key_that_does_not_hold_is_named(chain: Chain, signer: Signer, fault: str) -> None:
    changes, message = SPANS[fault]
    wrong = Signer(key=signer.key, **changes)
    with pytest.raises(TrustError, match=message):
        verify_release(signer.bundle(chain.statement()), wrong.trust(), image=None, at=NOW)


def test_a_rotated_key_keeps_what_it_signed_and_signs_no_more(chain: Chain) -> None:
    """The old key's time ends where the new one's begins: each verifies in its own time only."""
    turn = "2026-06-15T00:00:00Z"
    old, new = Signer(not_after=turn), Signer(not_before=turn)
    trust = Trust.parse(json.dumps({"version": 1, "keys": [old.entry(), new.entry()]}).encode())
    before, after = datetime(2026, 6, 14, tzinfo=UTC), datetime(2026, 6, 15, tzinfo=UTC)
    assert verify_release(old.bundle(chain.statement()), trust, image=None, at=before).key_id == old.entry()["key_id"]
    assert verify_release(new.bundle(chain.statement()), trust, image=None, at=after).key_id == new.entry()["key_id"]
    for signer, at in ((old, after), (new, before)):
        with pytest.raises(TrustError, match="the signature is by no key of role 'releaser' that holds at"):
            verify_release(signer.bundle(chain.statement()), trust, image=None, at=at)


def test_parts_of_two_shards_swapped_on_disk_are_found_by_the_audit(tmp_path: Path, signer: Signer) -> None:
    """Two honest shards of one log: any file of one in the place of the other's is named."""
    from helix_lineage.audit import audit  # noqa: PLC0415  (the rest of this file needs no disk)

    world = World(tmp_path, make_chain(), signer)
    first = world.shard([request(count=3)])[0].partition(".")[0]
    second = world.shard([request(count=3)])[0].partition(".")[0]
    # Not a narrower tile that a wider one replaced: which of those stay depends on how the entries were grouped.
    names = [
        {path.relative_to(world.log_dir / shard) for path in (world.log_dir / shard).rglob("*") if path.is_file()}
        for shard in (first, second)
    ]
    assert len(names[0] & names[1]) > 6
    for name in sorted(names[0] & names[1]):
        mine, theirs = (world.log_dir / shard / name for shard in (first, second))
        kept = mine.read_bytes()
        if kept == theirs.read_bytes():
            continue  # the lock, and the release that both served
        mine.write_bytes(theirs.read_bytes())
        found = audit(world.log, world.sources).findings
        assert {finding.shard for finding in found} == {first}, name
        mine.write_bytes(kept)
    assert audit(world.log, world.sources).findings == []
