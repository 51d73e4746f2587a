"""Logs that pages are made of: promoted, hostile, erased, tampered with."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import evidence
from helix_lineage.directory.source import FolderSource
from helix_lineage.directory.view import View, load
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.formats.canonical import Json
from helix_lineage.page import Evidence, gather, page
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from tests.helix_lineage.directory.support import Office, now, submit
from tests.helix_lineage.support import NOW_NS, Chain, header, make_chain, request

HOSTILE = "</style></title><script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\u202e{{7*7}}"
"""What a record may call itself."""


@dataclass(frozen=True)
class Promoted:
    """A prediction that a promoted and registered server gave, and all that vouches for it."""

    root: Path
    id: str
    office: Office
    """Signs, and keeps the directory."""
    promotion: str
    """Digest of the promotion."""
    trust: Trust

    @property
    def log(self) -> Log:
        return Log(self.root / "log")

    @property
    def folder(self) -> Path:
        return self.log.root / self.id.partition(".")[0]

    def view(self) -> View:
        return load(FolderSource(self.office.folder), self.office.trust(), now(), audited=True)

    def evidence(self, *, trust: bool = True, directory: bool = True) -> Evidence:
        sources = ReleaseSources(trust=self.trust if trust else None)
        return gather(self.log, self.id, sources, self.view() if directory else None)

    def page(self) -> bytes:
        return page(self.evidence())


def promoted(root: Path, *, chain: Chain | None = None, register: bool = True) -> Promoted:
    """A closed shard of three predictions; the second one's is the id."""
    chain = chain or make_chain()
    model = str(chain.release.parameters["model"])
    root.mkdir(parents=True, exist_ok=True)
    office = Office(root / "far", chain, clock=itertools.count(NOW_NS, 10**9))
    office.root.mkdir()
    release, (promotion, digest) = office.released(), office.promoted(model=model)
    with closing(office.open()) as directory:
        for bundle in (release, promotion):
            submit(directory, bundle)
        claims = {"promotion": digest, "generation": 1, "mode": "promoted", "model": model}
        writer = ShardWriter.create(
            root / "log", header(chain, **claims), now=lambda: NOW_NS, release=release, promotion=promotion
        )
        if register:
            directory.take(evidence.registration(Shard(writer.folder)))
        names = writer.append(request(count=3))
        writer.close()
        if register:
            shard = Shard(writer.folder)
            directory.take(evidence.ending(shard, directory.state(shard.id).size))
    return Promoted(root, names[1], office, digest, office.trust())


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
    return promoted(root, chain=Chain({**parts, "regression": regression, "release": release}))


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
