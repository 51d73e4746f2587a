"""Logs that pages are made of: promoted, hostile, erased, tampered with."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.canonical import Json
from helix_lineage.page import Evidence, gather, page
from helix_lineage.records import Promotion
from helix_lineage.releases import Sources
from helix_lineage.shard import ShardWriter
from helix_lineage.trust import Trust
from tests.helix_lineage.support import NOW_NS, Chain, Signer, World, header, make_chain, request
from tests.helix_lineage.test_promotion import statement

HOSTILE = "</style></title><script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\u202e{{7*7}}"
"""What a record may call itself."""


@dataclass(frozen=True)
class Promoted:
    """A prediction that a promoted server gave, and all that vouches for it."""

    world: World
    id: str
    trust: Trust
    bundle: Path
    """The promotion's."""
    promotion: Promotion

    def evidence(self, *, promotions: bool = True, trust: bool = True) -> Evidence:
        sources = Sources(trust=self.trust if trust else None)
        return gather(self.world.log, self.id, sources, (self.bundle,) if promotions else ())

    def page(self) -> bytes:
        return page(self.evidence())

    @property
    def folder(self) -> Path:
        return self.world.log_dir / self.id.partition(".")[0]


def promoted(root: Path, *, model: str = "m", chain: Chain | None = None) -> Promoted:
    """A closed shard of three predictions; the second one's is the id."""
    chain = chain or make_chain(model=model)
    releaser, promoter = Signer(), Signer(role="promoter")
    record = Promotion(
        parents={"release": chain.release.digest},
        parameters={"model": model, "environment": "staging", "generation": 1},
    )
    world = World(root, chain, releaser)
    root.mkdir(parents=True, exist_ok=True)
    bundle = root / "promotion.sigstore.json"
    bundle.write_bytes(promoter.bundle(statement(record)))
    claims = {"promotion": record.digest, "generation": 1, "mode": "promoted", "model": model}
    clock = itertools.count(NOW_NS)
    with ShardWriter.create(
        world.log_dir, header(chain, **claims), now=lambda: next(clock), release=world._bundle_once()
    ) as writer:
        names = writer.append(request(count=3))
    trust = Trust.parse(json.dumps({"version": 1, "keys": [releaser.entry(), promoter.entry()]}).encode())
    return Promoted(world, names[1], trust, bundle, record)


def hostile(root: Path) -> Promoted:
    """Everything that may be any text is markup."""
    chain = make_chain(model=HOSTILE)
    parts = chain.parts
    case: Json = {
        "case": HOSTILE,
        "metric": HOSTILE,
        "value": 1,
        "allowed": 2,
        HOSTILE: [HOSTILE, {HOSTILE: [HOSTILE]}],
    }
    regression = parts["regression"]
    regression = dataclasses.replace(regression, parameters={**regression.parameters, "cases": [case]}, target=HOSTILE)
    parameters = {**chain.release.parameters, "commit": HOSTILE}
    parents = {**chain.release.parents, "regression": regression.digest}
    release = dataclasses.replace(chain.release, parameters=parameters, parents=parents)
    return promoted(root, model=HOSTILE, chain=Chain({**parts, "regression": regression, "release": release}))


def edit_entry(given: Promoted) -> None:
    """Change the prediction's entry in the published bundle, as somebody with the disk would."""
    # Partial ones of earlier sizes lie there too; the largest is the one that is read.
    found = (path for path in (given.folder / "tile" / "entries").rglob("*") if path.is_file())
    bundle = max(found, key=lambda path: path.stat().st_size)
    data = bytearray(bundle.read_bytes())
    at = 0
    for _ in range(int(given.id.partition(".")[2])):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    data[at + 2 + int.from_bytes(data[at : at + 2], "big") - 1] ^= 1  # the last byte of its end time
    bundle.write_bytes(data)
