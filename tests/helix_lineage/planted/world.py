"""A small log, store, folder of releases, directory and image: files of every kind, and all who read them."""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rich.console import Console

from helix_lineage.attestations.trust import Trust
from helix_lineage.audit import AuditReport, audit
from helix_lineage.cli.trace import tree
from helix_lineage.directory import evidence
from helix_lineage.directory.service import Directory
from helix_lineage.directory.source import FolderSource
from helix_lineage.directory.view import View, load
from helix_lineage.errors import LineageError
from helix_lineage.evidence import receipt
from helix_lineage.evidence.promotions import newest_seen
from helix_lineage.evidence.releases import ReleaseSources, find_release
from helix_lineage.evidence.trace import trace
from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.page import gather, page
from helix_lineage.records.store import RecordStore
from helix_lineage.replay.images import FILES, check_files, obtain
from helix_lineage.replay.plan import plan
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.shard.recovery import recover_others
from tests.helix_lineage.directory.support import Office, submit
from tests.helix_lineage.support import NOW, NOW_NS, Chain, die, header, make_chain, request

OWN = "0" * 32
"""The shard of a server that starts."""


@dataclass(frozen=True)
class Found:
    """What everybody said who read the folders."""

    report: AuditReport | None
    answers: dict[str, str] = field(default_factory=dict)
    """By reader: `ok`, or the one line of an error of ours."""


@dataclass
class World:
    """Folders below `root`, and who signed what lies in them."""

    root: Path
    office: Office
    chain: Chain
    ids: tuple[str, ...]
    """A prediction of each shard."""
    image: str
    filesystem: str
    release: bytes
    """The bundle."""

    @property
    def log(self) -> Log:
        return Log(self.root / "log")

    @property
    def directory(self) -> Path:
        return self.root / "directory"

    @cached_property
    def whole_view(self) -> View:
        """Of the directory before anything was planted."""
        return self.view()

    def view(self) -> View:
        return load(FolderSource(self.directory), self.trust, NOW, audited=True)

    @cached_property
    def trust(self) -> Trust:
        return self.office.trust()

    @cached_property
    def sources(self) -> ReleaseSources:
        return ReleaseSources(tuple(sorted((self.root / "releases").glob("*/*.sigstore.json"))), None, self.trust)

    def audit(self, *, directory: bool = True) -> AuditReport:
        """By a directory that is read again, or by what it was."""
        if directory:
            return audit(self.log, self.sources, directory=self.view, directory_folder=self.directory)
        return audit(self.log, self.sources, directory=lambda: self.whole_view)

    def read(self, part: str, choose: random.Random | None = None) -> Found:
        """Let those read who read that part: `log`, `store`, `releases`, `directory` or `images`.

        Raises what is no error of ours.

        Args:
            choose: the audit and one other; else all.
        """
        report, answers, asked = None, dict[str, str](), list(self._readers(part))
        if choose is not None and part in ("log", "directory"):
            asked = [asked[0], choose.choice(asked[1:])]
        for name, ask in asked:
            try:
                said = ask()
            except LineageError as error:
                answers[name] = str(error)
                str(error).encode()
            else:
                answers[name] = "ok"
                report = said if isinstance(said, AuditReport) else report
        return Found(report, answers)

    def _readers(self, part: str) -> Iterator[tuple[str, Callable[[], object]]]:
        if part in ("log", "directory"):
            yield "audit", lambda: self._print_audit(directory=part == "directory")
        if part == "log":
            for name in self.ids:
                yield f"trace {name}", lambda name=name: self._print_trace(name)  # type: ignore[misc]
                yield f"plan {name}", lambda name=name: plan(self.log, name, self.sources)  # type: ignore[misc]
            yield "receipt", lambda: receipt.make(self.log, self.ids[0]).to_bytes()
            yield "page", lambda: page(gather(self.log, self.ids[0], self.sources))
            yield "newest", lambda: newest_seen(self.log, "m", "staging")
            yield "restart", lambda: list(recover_others(self.log.root, OWN, lambda: NOW_NS, lambda _: f"{OWN}.1"))
        if part == "directory":
            yield "trace", lambda: trace(self.log, self.ids[0], self.sources, self.view())
            yield "restart", self._restart_directory
        if part == "store":
            store = RecordStore(self.root / "store")
            yield "fsck", store.fsck
            for record in (self.chain.release, *self.chain.records.values()):
                yield f"get {record.TYPE}", lambda record=record: store.get_record(record.digest)  # type: ignore[misc]
            yield "observations", lambda: store.observations(self.chain.release.digest)
            yield "observe", lambda: store.observe(self.chain.release.digest, {"commit": "c" * 40})
            yield "chain", lambda: find_release(self._shard(), ReleaseSources(store=RecordStore(self.root / "store")))
        if part == "releases":
            bare = Log(self.root / "bare")
            yield "trace", lambda: trace(bare, self.ids[0], self.sources).to_json()
            yield "plan", lambda: plan(bare, self.ids[0], self.sources)
            yield "audit", lambda: audit(bare, self.sources)
        if part == "images":
            yield "image", self._open_image

    def _print_audit(self, *, directory: bool) -> AuditReport:
        report = self.audit(directory=directory)
        json.dumps(report.to_json(), ensure_ascii=False).encode()
        return report

    def _print_trace(self, name: str) -> None:
        found = trace(self.log, name, self.sources)
        json.dumps(found.to_json(), ensure_ascii=False).encode()
        if name == self.ids[0]:
            screen = io.StringIO()
            Console(file=screen).print(tree(found))
            screen.getvalue().encode()

    def _restart_directory(self) -> None:
        Directory(self.directory, self.office.origin, self.office.key, self.trust).close()

    def _shard(self) -> Shard:
        return self.log.shard(self.ids[0].partition(".")[0])

    def _open_image(self) -> None:
        check_files(obtain(self.image, "helix/m", "127.0.0.1:1", self.root / "images"), self.filesystem)


def make_world(root: Path) -> World:
    """Three shards that the directory knows: one closed, one whose process died, and the one that recovered it."""
    filesystem, image = _image(root / "images")
    chain = make_chain(image=image, filesystem=filesystem)
    office = Office(root, chain, clock=itertools.count(NOW_NS, 10**9))
    release, (promotion, digest) = office.released(), office.promoted()
    claims = {"promotion": digest, "generation": 1, "mode": "promoted"}
    ids: list[str] = []
    with closing(office.open()) as directory:
        for bundle in (release, promotion, office.revoked("image", "sha256:" + "7" * 64)):
            submit(directory, bundle)
        for fate in ("closed", "died", "closed"):
            writer = ShardWriter.create(
                root / "log", header(chain, **claims), now=lambda: NOW_NS, release=release, promotion=promotion
            )
            directory.take(evidence.registration(Shard(writer.folder)))
            ids.append(writer.append(request(count=2))[0])
            writer.append(request(seed=9))
            if fate == "died":
                die(writer)
                continue
            writer.close()
            shard = Shard(writer.folder)
            directory.take(evidence.ending(shard, directory.state(shard.id).size))
    _store(root / "store", chain)
    bare = root / "bare" / ids[0].partition(".")[0]
    shutil.copytree(root / "log" / bare.name, bare)
    (bare / "release.sigstore.json").unlink()  # so that the folder of releases is asked for it
    (root / "releases/m").mkdir(parents=True)
    (root / "releases/m/release.sigstore.json").write_bytes(release)
    return World(root, office, chain, tuple(ids), image, filesystem, release)


def _store(root: Path, chain: Chain) -> None:
    store = RecordStore(root)
    for record in (chain.release, *chain.records.values()):
        store.observe(store.put_record(record), {"commit": "c" * 40})


def _image(folder: Path) -> tuple[str, str]:
    """An unpacked image of one file; its list of files and its own digest."""
    data, config = b"weights", dumps({"config": {"Env": ["A=1"], "WorkingDir": "/"}})
    listed = dumps({"files": [{"path": "w", "digest": digest_bytes(data), "size": len(data), "mode": 0o644}]})
    manifest = dumps({"config": {"digest": digest_bytes(config)}, "layers": []})
    place = folder / digest_bytes(manifest).removeprefix("sha256:")
    (place / "rootfs" / FILES).parent.mkdir(parents=True)
    files = {"manifest.json": manifest, "config.json": config, f"rootfs/{FILES}": listed, "rootfs/w": data}
    for name, content in files.items():
        (place / name).write_bytes(content)
        (place / name).chmod(0o644)
    return digest_bytes(listed), digest_bytes(manifest)
