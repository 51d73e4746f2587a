"""The extended chain of one prediction as its parts, and a verifier that is only the product's own checks in a row.

prediction → shard → promotion → release → image (index, manifest, config, layer) → provenance, test
result and the files that records name → exported → weights → data → verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations import dsse
from helix_lineage.attestations.promotion import PREDICATE_TYPE, verify_promotion
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, RecordError, TrustError
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.chain import Promotion
from helix_lineage.replay.images import check_layout
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.header import ShardHeader
from helix_lineage.shard.reader import Log
from model_to_metal.registry.client import Image
from model_to_metal.supply_chain import provenance
from model_to_metal.supply_chain.verify import Case, Check, VerificationReport, claimed, judge
from tests.helix_lineage.support import NOW_NS, Signer, header, request
from tests.helix_lineage.test_links import Evidence, believe as believe_entry
from tests.model_to_metal.conftest import make_chain, write_layout

ATTESTED = {
    "signature": provenance.SIGNATURE,
    "provenance": provenance.PROVENANCE,
    "test-result": provenance.TEST_RESULT,
}
"""Part → predicate type; the release is a part of its own."""
BLOBS = ("index", "manifest", "config", "layer")


@dataclass(frozen=True)
class Parts:
    """Everything that a verifier is given."""

    entry: Evidence
    """Id, trust root, release bundle, header, entry, proof, checkpoint, salts, payloads."""
    promotion: bytes
    attested: Mapping[str, bytes]
    """Bundles of `ATTESTED`."""
    files: Mapping[str, bytes]
    """What records name by digest; name → bytes."""
    blobs: Mapping[str, bytes]
    """The image; `BLOBS` → bytes."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Where the blobs lie in a layout."""

    def get(self, part: str) -> bytes:
        for group in (self.attested, self.files, self.blobs):
            if part in group:
                return group[part]
        value = self.promotion if part == "promotion" else getattr(self.entry, part)
        return value.encode() if isinstance(value, str) else bytes(value)

    def put(self, part: str, data: bytes) -> Parts:
        for name in ("attested", "files", "blobs"):
            group = getattr(self, name)
            if part in group:
                return replace(self, **{name: {**group, part: data}})
        if part == "promotion":
            return replace(self, promotion=data)
        value = data.decode("latin-1") if part == "id" else data
        return replace(self, entry=replace(self.entry, **{part: value}))


@dataclass(frozen=True)
class Whole:
    """A valid chain, and who signed it."""

    parts: Parts
    releaser: Signer
    promoter: Signer

    def sign(self, part: str, statement: Any) -> bytes:
        """The bundle of a statement by the one who may sign that part."""
        return (self.promoter if part == "promotion" else self.releaser).bundle(statement)


def statement_of(bundle: bytes) -> Any:
    return json.loads(dsse.parse_bundle(bundle).payload)


def make(folder: Path, content: str) -> Whole:
    """A chain of its own for each content: image, commit, keys, shard."""
    layout = folder / "layout"
    image = write_layout(layout, {"opt/helix/model/model.toml": content.encode()})
    chain = make_chain(image)
    chain = replace(
        chain,
        release=replace(chain.release, parameters={**chain.release.parameters, "commit": digest_hex(content)[:40]}),
    )
    releaser, promoter = Signer(), Signer(role="promoter")

    def said(kind: str, predicate: Any) -> Any:
        return provenance.statement(kind, predicate, name="helix/tiny", image=image)

    predicates = provenance.predicates(chain.release, chain.records, chain.evidence)
    release = releaser.bundle(said(provenance.RELEASE, predicates[provenance.RELEASE]))
    predicates[provenance.SIGNATURE] = {}
    promotion = Promotion(
        parents={"release": chain.release.digest, "previous": digest_bytes(content.encode())},
        parameters={"model": "tiny", "environment": "staging", "generation": 2},
    )
    promoted = promoter.bundle(said(PREDICATE_TYPE, {"promotion": promotion.to_json()}))
    trust = json.dumps({"version": 1, "keys": [releaser.entry(), promoter.entry()]}).encode()
    claims: dict[str, Any] = {"release": chain.release.digest, "image": image, "model": "tiny", "mode": "promoted"}
    claims |= {"promotion": promotion.digest, "generation": 2}
    with ShardWriter.create(folder / "log", header(**claims), now=lambda: NOW_NS, release=release) as writer:
        first = int(digest_hex(content)[:8], 16)
        names = [name for at in range(3) for name in writer.append(request(seed=first + at, output=f"{content}{at}"))]
    entry = _entry(Log(folder / "log"), names[1], trust, release)
    names_of = _names(layout)
    return Whole(
        Parts(
            entry,
            promoted,
            {part: releaser.bundle(said(kind, predicates[kind])) for part, kind in ATTESTED.items()},
            {f"file {digest[7:19]}": data for digest, data in sorted(chain.evidence.items())},
            {blob: (layout / path).read_bytes() for blob, path in names_of.items()},
            names_of,
        ),
        releaser,
        promoter,
    )


def digest_hex(text: str) -> str:
    return digest_bytes(text.encode()).removeprefix("sha256:")


def _entry(log: Log, prediction: str, trust: bytes, release: bytes) -> Evidence:
    shard, sequence = log.find(prediction)
    inclusion, kept = shard.inclusion(sequence), shard.payload(sequence)
    assert kept.input_salt and kept.input and kept.output_salt and kept.output
    return Evidence(
        prediction, trust, release, shard.entry(0), shard.entry(sequence), b"".join(inclusion.proof), inclusion.note,
        kept.input_salt, kept.input, kept.output_salt, kept.output,
    )  # fmt: skip


def _names(layout: Path) -> dict[str, str]:
    def blob(digest: str) -> str:
        return f"blobs/sha256/{digest.removeprefix('sha256:')}"

    manifest = blob(json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    value = json.loads((layout / manifest).read_bytes())
    config, layer = blob(value["config"]["digest"]), blob(value["layers"][0]["digest"])
    return {"index": "index.json", "manifest": manifest, "config": config, "layer": layer}


class Verifier:
    """`believe`, with a folder to lay the image out in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._laid: dict[str, bytes] = {}

    def believe(self, given: Parts) -> tuple[object, ...]:
        """What the parts prove. Raises LineageError, naming the part."""
        told = believe_entry(given.entry)
        shard = ShardHeader.from_bytes(given.entry.header)
        at = datetime.fromtimestamp(shard.started_ns / 1e9, UTC)
        trust = Trust.parse(given.entry.trust)
        release = verify_release(given.entry.bundle, trust, image=shard.image, at=at)
        promotion = verify_promotion(given.promotion, trust, release, environment=None, at=at, newest=shard.generation)
        if promotion.promotion.digest != shard.promotion:
            raise RecordError("the promotion is not the one that the header names")
        check_layout(self._lay(given), str(shard.image))
        report = self.report(given, trust, release=release.release.digest)
        if not report.passed:
            raise TrustError("; ".join(f"{item.name}: {item.detail}" for item in report.checks if not item.passed))
        return (*told, promotion.promotion, promotion.key_id, report.checks)

    def report(self, given: Parts, trust: Trust, *, release: str | None = None) -> VerificationReport:
        """What `helix verify` would say, once the image is known to be whole."""
        shard = ShardHeader.from_bytes(given.entry.header)
        at = datetime.fromtimestamp(shard.started_ns / 1e9, UTC)
        bundles = claimed([given.entry.bundle, *given.attested.values()])
        evidence = {digest_bytes(data): data for data in given.files.values()}
        image = Image("127.0.0.1:1", "helix/tiny", str(shard.image))
        # cosign agrees with everything here: what is refused, our own rules refuse.
        case = Case(image, trust, at, bundles, evidence, lambda _kind, _key: None)
        return judge(case, Check("image", True, "its layout was checked"), release=release)

    def _lay(self, given: Parts) -> Path:
        for part, path in given.names.items():
            if self._laid.get(path) is not given.blobs[part]:
                place = self.folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(given.blobs[part])
                self._laid[path] = given.blobs[part]
        return self.folder


def refusal(believe: Callable[[Parts], object], given: Parts) -> str | None:
    """Why it is not believed, or None."""
    try:
        believe(given)
    except LineageError as error:
        return str(error)
    return None


Leaf = tuple[str | int, ...]
"""Keys and places that lead to a leaf."""


def leaves(value: Any, path: Leaf = ()) -> Iterator[Leaf]:
    """Where there is no object or list, or an empty one."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def changed(value: Any, path: Leaf, leaf: Callable[[Any], Any]) -> Any:
    """A copy with one leaf changed."""
    if not path:
        return leaf(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], leaf)
    return copy


def others(leaf: Any) -> list[Any]:
    """Values of the same kind and of another, none of them the leaf."""
    same: list[Any] = []
    if isinstance(leaf, bool):
        same = [not leaf]
    elif isinstance(leaf, int):
        same = [leaf + 1, leaf - 1]
    elif isinstance(leaf, str | bytes) and leaf:
        flipped = leaf[:-1] + (("0" if leaf[-1:] != "0" else "1") if isinstance(leaf, str) else bytes([leaf[-1] ^ 1]))
        same = [flipped, leaf[:-1]]
    return [value for value in [*same, None, "x", []] if value != leaf or type(value) is not type(leaf)]
