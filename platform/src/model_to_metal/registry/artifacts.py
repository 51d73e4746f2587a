"""The registry: where images lie, and the records that tell how they came to be.

`serving` runs olareg over `.helix/registry` (plain OCI layouts) on this machine, for as long
as somebody uses it. `push_layout` stores an image by digest; `push_record` stores a record
as an OCI artifact in the repository `helix/records`, tagged by its digest; `attach_records`
attaches the whole set to the image as one OCI 1.1 referrer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from helix_lineage.errors import RecordError
from helix_lineage.formats.canonical import Json, digest_bytes, dumps
from helix_lineage.formats.untrusted import MAX_BUNDLE_BYTES, parse_json, read
from helix_lineage.paths import State
from helix_lineage.records.chain import Record, parse
from model_to_metal.errors import RegistryError
from model_to_metal.host import tools
from model_to_metal.registry.client import EMPTY, MANIFEST, Client, Image

HOST = "127.0.0.1"
PORT = 5070
RECORDS = "helix/records"
"""The repository that holds each record as an artifact."""
RECORD_TYPE = "application/vnd.helix.record.v1+json"
RECORD_SET_TYPE = "application/vnd.helix.record-set.v1"
EVIDENCE_TYPE = "application/vnd.helix.evidence.v1"
"""Files that records name by digest and that a verifier needs: locks, lists of sources."""

_TITLE = "org.opencontainers.image.title"
_START_S = 10.0


def repository(model: str) -> str:
    """The repository that a model's images lie in."""
    return f"helix/{model}"


@contextmanager
def serving(state: State, *, port: int = PORT) -> Iterator[str]:
    """A registry that answers; gives its `HOST:PORT`.

    The one that `HELIX_REGISTRY` names, if it is set. Otherwise olareg over this checkout's
    `.helix/registry`: started by the first that needs it, stopped by the last that leaves.
    `port` is taken if it is free, another one otherwise; 0 means any. Raises RegistryError.
    """
    if named := os.environ.get("HELIX_REGISTRY"):
        with Client(named) as client:
            if not client.alive():
                raise RegistryError("HELIX_REGISTRY names a registry that does not answer", where=named)
        yield named
        return
    server = tools.ensure("olareg", state)
    state.registry.mkdir(parents=True, exist_ok=True)
    with (state.registry / ".users").open("w") as users:
        with _entrance(state):
            address = _running(state) or _start(server, state, port)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield address
        finally:
            with _entrance(state):
                _leave(state, users)


def push_layout(client: Client, name: str, layout: Path, digest: str) -> Image:
    """Store the image `digest` of an OCI layout in the repository `name`. Idempotent.

    Raises RegistryError when the layout does not hold that image whole.
    """
    blobs = layout / "blobs" / "sha256"
    try:
        data = read(blobs / digest.removeprefix("sha256:"), limit=MAX_BUNDLE_BYTES)
        manifest = parse_json(data)
        for part in (manifest["config"], *manifest["layers"]):
            # What the registry has is not read again: layers may be gigabytes.
            if client.has_blob(name, part["digest"]):
                continue
            path = blobs / part["digest"].removeprefix("sha256:")
            if client.put_blob(name, path) != part["digest"]:
                raise RegistryError("a blob of the layout does not match its digest", where=str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"the layout holds no whole image of that digest: {error!r}", where=digest) from error
    if client.put_manifest(name, data) != digest:
        raise RegistryError("the manifest in the layout does not match its digest", where=digest)
    return Image(client.address, name, digest)


def push_record(client: Client, record: Record) -> str:
    """Store a record as an artifact tagged `sha256-<hex>`; gives the record's digest. Idempotent."""
    data = record.to_bytes()
    client.put_blob(RECORDS, b"{}")
    client.put_blob(RECORDS, data)
    layer = {"mediaType": RECORD_TYPE, "digest": record.digest, "size": len(data)}
    client.put_manifest(RECORDS, artifact(RECORD_TYPE, [layer]), tag=record.digest.replace(":", "-"))
    return record.digest


def fetch_record(client: Client, digest: str) -> Record:
    """The record of that digest. Raises RegistryError when the registry has none."""
    if client.manifest(RECORDS, digest.replace(":", "-")) is None:
        raise RegistryError("the registry holds no record of that digest", where=digest)
    return parse(client.blob(RECORDS, digest))


def attach_records(client: Client, image: Image, records: Iterable[Record], evidence: Mapping[str, bytes]) -> str:
    """Attach records and the files that they name to the image, as one referrer; gives its digest.

    The same content gives the same manifest, so attaching twice changes nothing.
    """
    name = image.repository
    subject = client.manifest(name, image.digest)
    if subject is None:
        raise RegistryError("the image is not in the registry", where=str(image))
    client.put_blob(name, b"{}")
    contents = [(RECORD_TYPE, record.to_bytes()) for record in records]
    contents += [(EVIDENCE_TYPE, data) for data in evidence.values()]
    layers = [{"mediaType": kind, "digest": client.put_blob(name, data), "size": len(data)} for kind, data in contents]
    layers.sort(key=lambda layer: (layer["mediaType"], layer["digest"]))
    about = {"mediaType": MANIFEST, "digest": image.digest, "size": len(subject)}
    return client.put_manifest(name, artifact(RECORD_SET_TYPE, layers, subject=about))


def attached_records(client: Client, image: Image) -> tuple[dict[str, Record], dict[str, bytes]]:
    """Records, and the files that they name, that are attached to the image; each by digest.

    Both are empty when nothing is attached. Content is what its digest says; who vouches for
    it is another question (`verify`), so what somebody else attached and makes no sense is
    passed over.
    """
    records: dict[str, Record] = {}
    evidence: dict[str, bytes] = {}
    for kind, data in attached(client, image, RECORD_SET_TYPE):
        if kind == EVIDENCE_TYPE:
            evidence[digest_bytes(data)] = data
        elif kind == RECORD_TYPE:
            with contextlib.suppress(RecordError):
                records[digest_bytes(data)] = parse(data)
    return records, evidence


def attached(client: Client, image: Image, artifact_type: str) -> Iterator[tuple[str, bytes]]:
    """Media type and bytes of every blob of the image's referrers of one artifact type.

    What is not what its digest says, or no artifact at all, is passed over.
    """
    for entry in client.referrers(image.repository, image.digest, artifact_type):
        try:
            manifest = parse_json(client.manifest(image.repository, entry["digest"]) or b"{}")
            layers = [(str(layer["mediaType"]), str(layer["digest"])) for layer in manifest["layers"]]
            found = [(kind, client.blob(image.repository, digest)) for kind, digest in layers]
        except (RegistryError, ValueError, KeyError, TypeError):
            continue
        yield from found


def attach_blob(client: Client, image: Image, kind: str, data: bytes, annotations: Mapping[str, str]) -> str:
    """Attach one blob of the artifact type `kind` to the image; gives the referrer's digest."""
    subject = client.manifest(image.repository, image.digest)
    if subject is None:
        raise RegistryError("the image is not in the registry", where=str(image))
    client.put_blob(image.repository, b"{}")
    layer = {"mediaType": kind, "digest": client.put_blob(image.repository, data), "size": len(data)}
    about = {"mediaType": MANIFEST, "digest": image.digest, "size": len(subject)}
    return client.put_manifest(image.repository, artifact(kind, [layer], subject=about, annotations=annotations))


def layer(manifest: bytes, kind: str) -> str:
    """The digest of an artifact's one blob of a media type. Raises RegistryError when it is no such artifact."""
    try:
        (found,) = [row["digest"] for row in json.loads(manifest)["layers"] if row["mediaType"] == kind]
        return str(found)
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"the manifest is no artifact with one {kind}: {error!r}") from error


def artifact(
    kind: str,
    layers: list[dict[str, Any]],
    *,
    subject: Mapping[str, Json] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """The manifest of an OCI artifact. Pure: the same content gives the same bytes."""
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": EMPTY, "layers": layers}
    if subject:
        manifest["subject"] = subject
    if annotations:
        manifest["annotations"] = annotations
    return dumps(manifest)


@contextmanager
def _entrance(state: State) -> Iterator[None]:
    """Only one process at a time comes or goes."""
    with (state.registry / ".entrance").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _running(state: State) -> str | None:
    """The address of the server over this folder, if one runs."""
    try:
        known = json.loads((state.registry / ".server.json").read_bytes())
        command = Path(f"/proc/{known['pid']}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    # A process number may have been given to another process since.
    if str(state.registry).encode() not in command.split(b"\0"):
        return None
    with Client(known["address"]) as client:
        return str(known["address"]) if client.alive() else None


def _start(server: Path, state: State, port: int) -> str:
    """Start olareg in a session of its own, so that it outlives whoever started it while others use it."""
    address = f"{HOST}:{_free_port(port)}"
    command = [str(server), "serve", "--addr", HOST, "--port", address.rpartition(":")[2]]
    # Records are only ever added: without tags, garbage collection would take them for rubbish.
    command += ["--dir", str(state.registry), "--gc-frequency", "-1ns"]
    with (state.registry / ".server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    (state.registry / ".server.json").write_text(json.dumps({"pid": process.pid, "address": address}))
    until = time.monotonic() + _START_S
    with Client(address) as client:
        while not client.alive():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                complaint = (state.registry / ".server.log").read_text(errors="replace").strip()
                raise RegistryError(f"the registry did not start: {complaint}", where=address, fix="helix doctor")
            time.sleep(0.02)
    return address


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _leave(state: State, users: IO[str]) -> None:
    """Stop the server, unless somebody else still uses it."""
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if _running(state):
        pid = json.loads((state.registry / ".server.json").read_bytes())["pid"]
        os.kill(pid, signal.SIGTERM)
        _await_end(pid)
    (state.registry / ".server.json").unlink(missing_ok=True)


def _await_end(pid: int) -> None:
    """Wait until the process is gone, so that its port and folder are free for the next."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        # Our own child becomes a zombie unless it is waited for; another's is not ours to wait for.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
