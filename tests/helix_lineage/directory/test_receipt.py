"""Nothing that a directory shows is believed unproven: every byte changed, two directories mixed, history changed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory.entries import Entry
from helix_lineage.directory.receipt import DirectoryReceipt, ShardState, check_growth, check_receipt, open_note
from helix_lineage.directory.rules import statement_of
from helix_lineage.directory.service import Directory
from helix_lineage.errors import DirectoryError, LineageError, TrustError
from helix_lineage.tlog import checkpoint
from helix_lineage.tlog.checkpoint import Checkpoint, sign
from tests.helix_lineage.directory.support import Office, directory_key, key_entry, submit
from tests.helix_lineage.support import NOW


@dataclass(frozen=True)
class Answered:
    """A question, and all that a client has to judge the answer by."""

    body: Entry
    answer: bytes
    seen: Checkpoint
    trust: Trust

    def believe(self, at: datetime = NOW) -> tuple[object, ...]:
        receipt = DirectoryReceipt.from_bytes(self.answer)
        signed = check_receipt(receipt, self.body, self.seen, self.trust, at)
        return receipt.index, receipt.entry, signed


def answered(office: Office, *, first: int = 60) -> tuple[Directory, list[Answered]]:
    directory = office.open()
    submit(directory, office.released())
    found = []
    for at in range(6):
        shard = office.shard(first + at)
        seen = checkpoint.parse(directory.note)
        body = shard.registration()
        receipt = directory.take(body, seen=seen.size)
        found.append(Answered(body, receipt.to_bytes(), seen, office.trust()))
    return directory, found


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> list[Answered]:
    directory, found = answered(Office(tmp_path_factory.mktemp("honest")))
    directory.close()
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> list[Answered]:
    """Another directory, with another key and name, that the same trust root could name."""
    office = Office(tmp_path_factory.mktemp("other"), key=directory_key(2), name="other")
    directory, found = answered(office, first=80)
    directory.close()
    return found


def test_an_honest_answer_is_believed(honest: list[Answered], other: list[Answered]) -> None:
    assert [item.believe()[0] for item in honest] == [1, 2, 3, 4, 5, 6]
    assert [item.believe()[0] for item in other] == [1, 2, 3, 4, 5, 6]


def _changed(item: Answered, change: Callable[[DirectoryReceipt], DirectoryReceipt]) -> Answered:
    return replace(item, answer=change(DirectoryReceipt.from_bytes(item.answer)).to_bytes())


LIES: dict[str, tuple[Callable[[DirectoryReceipt], DirectoryReceipt], str]] = {
    "index": (lambda r: replace(r, index=r.index - 1), "not under its checkpoint"),
    "entry": (lambda r: replace(r, entry=r.entry[:40] + b"\0" + r.entry[41:]), "with another entry"),
    "proof": (lambda r: replace(r, inclusion=r.inclusion[:-1]), "not under its checkpoint"),
    "checkpoint": (lambda r: replace(r, note=r.note.replace(b"\n7\n", b"\n8\n")), "signature does not hold"),
    "consistency": (lambda r: replace(r, consistency=(bytes(32), *r.consistency[1:])), "was forked"),
    "no consistency": (lambda r: replace(r, consistency=()), "was forked"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named(honest: list[Answered], lie: str) -> None:
    change, words = LIES[lie]
    with pytest.raises(TrustError, match=words):
        _changed(honest[-1], change).believe()


def test_answers_of_another_directory_or_about_another_shard_are_refused(
    honest: list[Answered], other: list[Answered]
) -> None:
    both = Trust((*honest[0].trust.keys, *other[0].trust.keys))
    swapped = replace(honest[3], answer=other[3].answer, body=other[3].body)
    with pytest.raises(TrustError, match="no directory of the trust root is called"):
        swapped.believe()
    with pytest.raises(TrustError, match="another directory answers"):
        replace(swapped, trust=both).believe()
    with pytest.raises(TrustError, match="with another entry than it was asked to take"):
        replace(honest[3], answer=honest[2].answer).believe()
    parts = DirectoryReceipt.from_bytes(other[3].answer)
    for name in ("inclusion", "consistency", "note"):
        mixed = _changed(honest[3], lambda r, n=name: replace(r, **{n: getattr(parts, n)}))  # type: ignore[misc]
        with pytest.raises(TrustError):
            replace(mixed, trust=both).believe()


def test_what_was_sent_again_is_answered_by_what_was_taken_first(tmp_path: Path) -> None:
    """The entry may hold another proof; never another checkpoint, and never another close."""
    office = Office(tmp_path)
    directory = office.open()
    submit(directory, office.released())
    shard = office.shard()
    directory.take(shard.registration())
    advance = shard.grow(3).advance(1)
    for body in (advance, replace(advance, consistency=())):
        receipt = directory.take(body)
        assert check_receipt(receipt, body, None, office.trust(), NOW).size == 3
    older = receipt
    ending = shard.end(4)
    for end in (ending, replace(ending, consistency=())):
        receipt = directory.take(end)
        assert check_receipt(receipt, end, None, office.trust(), NOW).size == 4
    directory.close()
    spoilt = ((older, ending), (receipt, replace(ending, close=b"")), (receipt, shard.registration()))
    for held, asked in (*spoilt, (older, statement_of(office.released()))):
        with pytest.raises(TrustError, match="with another entry than it was asked to take"):
            check_receipt(held, asked, None, office.trust(), NOW)


def test_a_rolled_back_directory_is_named(honest: list[Answered]) -> None:
    late = checkpoint.parse(DirectoryReceipt.from_bytes(honest[-1].answer).note)
    with pytest.raises(TrustError, match="rolled back: it has 2 entries, but showed 7"):
        replace(honest[0], seen=late).believe()


def test_a_forked_directory_is_named(tmp_path: Path, honest: list[Answered]) -> None:
    """The same key signs another history of the same length."""
    office = Office(tmp_path)
    directory, fork = answered(office, first=100)
    directory.close()
    with pytest.raises(TrustError, match="was forked: its 7 entries do not extend the 6 that it showed"):
        replace(fork[-1], seen=honest[-1].seen).believe()


def test_the_directorys_key_must_hold(honest: list[Answered]) -> None:
    with pytest.raises(TrustError, match="no key of role 'directory' that holds at 2040"):
        honest[0].believe(datetime.fromisoformat("2040-01-01T00:00:00Z"))
    with pytest.raises(TrustError, match="no key of role 'directory' in the trust root"):
        replace(honest[0], trust=Trust(())).believe()
    entry = Office(Path("x")).revoker.entry() | {"role": "directory"}
    ecdsa = Trust.parse(json.dumps({"version": 1, "keys": [entry]}).encode())
    with pytest.raises(TrustError, match="the directory's key is not ed25519"):
        open_note(DirectoryReceipt.from_bytes(honest[0].answer).note, ecdsa, NOW)
    imposter = Trust.parse(json.dumps({"version": 1, "keys": [key_entry(directory_key(9))]}).encode())
    with pytest.raises(TrustError, match="not signed by the log's key"):
        replace(honest[0], trust=imposter).believe()


def test_growth_from_nothing_needs_no_proof() -> None:
    signed = Checkpoint("x", 3, bytes(32))
    check_growth(None, signed, [])
    check_growth(Checkpoint("x", 0, bytes(32)), signed, [])


def test_answers_that_are_none() -> None:
    for data in (b"", b"\x80", b"\x81\xf5", ShardState(1, bytes(32), 0, False).to_bytes()):
        with pytest.raises(DirectoryError):
            DirectoryReceipt.from_bytes(data)
    good = DirectoryReceipt(1, b"e", (), b"n", ())
    for spoilt in (replace(good, index=-1), replace(good, entry="e"), replace(good, inclusion=(b"short",) * 1)):
        with pytest.raises(DirectoryError):
            DirectoryReceipt.from_bytes(spoilt.to_bytes())
    with pytest.raises(DirectoryError, match="at most 64"):
        DirectoryReceipt.from_bytes(replace(good, inclusion=(bytes(32),) * 65).to_bytes())
    state = ShardState(1, bytes(32), 0, True)
    assert ShardState.from_bytes(state.to_bytes()) == state
    with pytest.raises(DirectoryError):
        ShardState.from_bytes(replace(state, root=b"").to_bytes())


def test_every_byte_of_an_answer_counts(honest: list[Answered]) -> None:
    """Each byte, each of its bits turned: never believed as anything but what the honest answer says."""
    item = honest[-1]
    truth, tried = item.believe(), 0
    for at in range(len(item.answer)):
        for bit in range(8):
            data = bytearray(item.answer)
            data[at] ^= 1 << bit
            tried += 1
            try:
                found = replace(item, answer=bytes(data)).believe()
            except LineageError:
                continue
            assert found == truth, at
    assert tried > 5000


def test_five_thousand_random_mutations_are_refused(honest: list[Answered], other: list[Answered]) -> None:
    """Cut, doubled, exchanged between answers and directories: accepted only where nothing was changed."""
    rng = random.Random(4)
    both = Trust((*honest[0].trust.keys, *other[0].trust.keys))
    for _ in range(5000):
        item = replace(rng.choice(honest), trust=both)
        truth = item.believe()
        receipt = DirectoryReceipt.from_bytes(item.answer)
        donor = DirectoryReceipt.from_bytes(rng.choice(honest + other).answer)
        name = rng.choice(["index", "entry", "inclusion", "note", "consistency"])
        value = getattr(donor, name)
        if rng.random() < 0.5 and isinstance(value, bytes):
            cut = rng.randrange(len(value))
            value = value[:cut] + rng.randbytes(1) + value[cut + rng.randrange(2) :]
        changed = replace(receipt, **{name: value})
        try:
            found = replace(item, answer=changed.to_bytes()).believe()
        except LineageError:
            continue
        assert found == truth
        assert changed.entry == receipt.entry


def test_a_verifier_that_skips_the_proof_is_caught(honest: list[Answered], monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: with it, the sweep above finds a lie that is believed."""
    monkeypatch.setattr("helix_lineage.directory.receipt.merkle.verify_inclusion", lambda *_: True)
    change, _ = LIES["index"]
    assert _changed(honest[-1], change).believe() != honest[-1].believe()


def test_a_note_with_other_signers_still_counts(honest: list[Answered]) -> None:
    """Witnesses may have signed the same checkpoint."""
    note = DirectoryReceipt.from_bytes(honest[0].answer).note
    signed = checkpoint.parse(note)
    witness = sign(signed, directory_key(7)).split(b"\n\n")[1]
    assert open_note(note + witness, honest[0].trust, NOW) == signed
