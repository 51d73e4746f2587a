"""The released image, running on this machine: runc over the unpacked layers.

Takes a signed release; gives a server on 127.0.0.1 that has verified it and is ready. Inside:
read-only root, a private /tmp, a numbered user without capabilities, the release and trust
root read-only at /etc/helix, shards at /var/lib/helix/log. The host's network, because the
server listens on the loopback only.

    with serving(state, "toy") as server:
        httpx.post(f"{server.http}/design", json=…)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.evidence.releases import read_bundle
from helix_lineage.formats.canonical import Json
from helix_lineage.paths import State
from helix_lineage.process import USER
from helix_lineage.replay.images import UnpackedImage, obtain
from model_to_metal.errors import RuntimeStartError, ToolMissing
from model_to_metal.gitops import layout
from model_to_metal.host import process
from model_to_metal.local import directory
from model_to_metal.registry import artifacts
from model_to_metal.supply_chain import attest, keys
from model_to_metal.supply_chain.provenance import RELEASE

HTTP_PORT, GRPC_PORT = 3000, 3001
_TOKEN = "directory.token"  # noqa: S105  a file's name
START_S = 90.0
"""How long a server may take until it is ready."""
DRAIN_S = 30.0
"""How long it may take to finish what it accepted."""


@dataclass(frozen=True, slots=True)
class ServedImage:
    """A server that is ready."""

    model: str
    image: str
    """Digest of the image's manifest."""
    release: str
    """Digest of the release."""
    http: str
    """Base URL of BentoML JSON and the Open Inference Protocol."""
    grpc: str
    """`HOST:PORT` of the Open Inference Protocol over gRPC."""
    log: Path
    """Where its shard lies."""
    directory: str
    """Base URL of the directory that knows the shard."""
    child: subprocess.Popen[bytes]
    """The container's runtime."""
    errors: Path
    """What the server writes to its standard streams."""

    def wait(self) -> None:
        """Return never: raises RuntimeStartError when the server ends by itself."""
        status = self.child.wait()
        said = self.errors.read_text(errors="replace").strip()[-2000:]
        raise RuntimeStartError(f"the server ended by itself, with status {status}: {said or 'it said nothing'}")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a server runs, and what was promoted there."""

    name: str
    folder: Path
    """The model's folder in the gitops tree: signed release and promotion."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens, on 127.0.0.1."""

    http: int = HTTP_PORT
    grpc: int = GRPC_PORT


@contextmanager
def serving(
    state: State,
    model: str,
    *,
    ports: Ports = Ports(),
    log: Path | None = None,
    environment: Environment | None = None,
) -> Iterator[ServedImage]:
    """Run the released image of `model` until the context ends, then drain it.

    It is the latest release of this machine, or the one that was promoted into `environment`. A log that is not
    the checkout's has a directory of its own beside it. Raises
    LineageError when the release does not verify, RuntimeStartError when the server does not become
    ready (with the reason that it gives), ToolMissing without runc.
    """
    bundle = _bundle(state, model, environment)
    verified = verify_release(read_bundle(bundle), Trust.load(state.trust), image=None, at=datetime.now(UTC))
    image = str(verified.release.parameters["image"])
    files = unpacked(state, model, image)
    shards = log or state.log
    beside = None if log is None else log.with_name("directory")
    with tempfile.TemporaryDirectory(prefix="helix-serve-") as name, directory.running(state, beside) as registered:
        folder = Path(name)
        folder.chmod(0o755)
        _mount_identity(folder / "helix", bundle, state, environment)
        env = _environment(image, ports, environment, registered)
        _prepare(folder, files, log=shards, env=env)
        with _running(folder, f"helix-{model}-{secrets.token_hex(4)}") as (child, errors):
            _await_ready(child, errors, ports.http)
            yield ServedImage(
                model=model,
                image=image,
                release=verified.release.digest,
                http=f"http://127.0.0.1:{ports.http}",
                grpc=f"127.0.0.1:{ports.grpc}",
                log=shards,
                directory=registered,
                child=child,
                errors=errors,
            )


def free_ports() -> Ports:
    """The usual ports where they are free, others where not."""
    return Ports(_free(HTTP_PORT), _free(GRPC_PORT))


def _free(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise RuntimeStartError("this machine has no free port")


def unpacked(state: State, model: str, image: str) -> UnpackedImage:
    """The image's files on this machine, pulled by digest from the registry when they are not there yet."""
    repository = artifacts.repository(model)
    if (state.images / image.removeprefix("sha256:")).is_dir():
        return obtain(image, repository, "", state.images)
    with artifacts.serving(state) as address:
        return obtain(image, repository, address, state.images)


def specification(config: Mapping[str, Any], rootfs: Path, folder: Path, log: Path, env: Mapping[str, str]) -> Json:
    """The OCI runtime configuration that runs an image's configuration shut off as above. Pure."""
    user = USER if os.geteuid() == 0 else os.getuid()
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": user, "gid": user, "umask": 0o077},
            "args": [*config["Entrypoint"], *config["Cmd"]],
            "env": [*config["Env"], *(f"{name}={value}" for name, value in sorted(env.items()))],
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
            _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "noexec", "mode=1777", "size=256m"),  # noqa: S108  its own
            _mount("/etc/helix", "bind", str(folder / "helix"), "bind", "ro", "nosuid", "nodev", "noexec"),
            _mount("/var/lib/helix/log", "bind", str(log), "bind", "rw", "nosuid", "nodev", "noexec"),
        ],
        "linux": {
            # The host's network: the server listens on the loopback only.
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": [f"/proc/{name}" for name in ("acpi", "kcore", "keys", "timer_list", "sched_debug", "scsi")],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }  # fmt: skip


def _bundle(state: State, model: str, environment: Environment | None) -> Path:
    """The signed release to serve. Raises RuntimeStartError when there is none."""
    if environment is not None:
        bundle = environment.folder / layout.RELEASE
        what, fix = f"{model} was not promoted to {environment.name}", f"helix promote {model} --to {environment.name}"
    else:
        bundle = state.releases / model / attest.FILES[RELEASE]
        what, fix = f"{model} has no release on this machine", f"helix run release {model}"
    needed = [bundle] if environment is None else [bundle, environment.folder / layout.PROMOTION]
    for path in needed:
        if not path.is_file():
            raise RuntimeStartError(what, where=str(path), fix=fix)
    return bundle


def _mount_identity(folder: Path, bundle: Path, state: State, environment: Environment | None) -> None:
    """Fill what is mounted at /etc/helix, with copies: the server must see what was verified here."""
    folder.mkdir()
    shutil.copyfile(bundle, folder / layout.RELEASE)
    shutil.copyfile(state.trust, folder / "trust.json")
    token = folder / _TOKEN
    token.touch(0o600)
    token.write_bytes(keys.registrant(state)[0].read_bytes())
    if os.geteuid() == 0:
        os.chown(token, USER, USER)
    if environment is not None:
        shutil.copyfile(environment.folder / layout.PROMOTION, folder / layout.PROMOTION)


def _environment(image: str, ports: Ports, environment: Environment | None, registered: str) -> dict[str, str]:
    where = {} if environment is None else {"HELIX_ENVIRONMENT": environment.name}
    return {
        "HELIX_DIRECTORY": registered,
        "HELIX_DIRECTORY_TOKEN_FILE": f"/etc/helix/{_TOKEN}",
        "HELIX_IMAGE_DIGEST": image,
        "HELIX_HOST": "127.0.0.1",
        "HELIX_HTTP_PORT": str(ports.http),
        "HELIX_GRPC_PORT": str(ports.grpc),
        **where,
    }


def _prepare(folder: Path, files: UnpackedImage, *, log: Path, env: Mapping[str, str]) -> None:
    """Write the runtime configuration."""
    log.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(log, USER, USER)
    wanted = specification(files.settings, files.rootfs.resolve(), folder, log.resolve(), env)
    (folder / "config.json").write_text(json.dumps(wanted))


@contextmanager
def _running(folder: Path, name: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """runc in the foreground; on leaving TERM, then KILL, and the container deleted."""
    runc = [*_sudo(), _runc(), "--root", str(folder / "runc")]
    # If this process is killed, runc is told to stop, and with it the server: nothing is left behind.
    leash = ["setpriv", "--pdeathsig", "TERM"]
    errors = folder / "stderr"
    with errors.open("wb") as log:
        child = subprocess.Popen(
            [*leash, *runc, "run", "--bundle", str(folder), name], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            # Ctrl-C at the terminal is ours to pass on, once.
            start_new_session=True,
        )  # fmt: skip
    try:
        yield child, errors
    finally:
        if child.poll() is None:
            process.attempt([*runc, "kill", name, "TERM"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(DRAIN_S)
        process.attempt([*runc, "delete", "--force", name])
        child.wait()


def _await_ready(child: subprocess.Popen[bytes], errors: Path, port: int) -> None:
    """Return when the server says that it is ready; raises RuntimeStartError with its reason otherwise."""
    until = time.monotonic() + START_S
    reason = "it does not listen"
    while time.monotonic() < until:
        if child.poll() is not None:
            said = errors.read_text(errors="replace").strip()[-2000:]
            raise RuntimeStartError(f"the server ended with status {child.returncode}: {said or 'it said nothing'}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except urllib.error.HTTPError as error:
            reason = _reason(error.read(), error.code)
        except OSError:
            pass
        time.sleep(0.02)
    said = errors.read_text(errors="replace").strip()[-1000:]
    raise RuntimeStartError(f"the server is not ready after {START_S:.0f} s: {reason}", where=said or None)


def _reason(body: bytes, status: int) -> str:
    """Why a server says that it is not ready. Raises RuntimeStartError when that will not change."""
    try:
        said = json.loads(body)
        what, where, fix = said["error"], said["where"], said["fix"]
    except (ValueError, KeyError, TypeError):
        return f"it answers {status}"
    # While it starts, it names itself, or the directory that it waits for; anything else is what it found wrong.
    if where not in ("server", "HELIX_DIRECTORY"):
        raise RuntimeStartError(f"the server refuses to serve: {what}", where=where, fix=fix)
    return str(what)


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Json]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _runc() -> str:
    # sbin is not on every user's PATH, and Debian's runc lies there.
    found = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/sbin")
    if found is None:
        raise ToolMissing("runc is not installed", fix="helix doctor")
    return found


def _sudo() -> list[str]:
    return ["sudo", "--non-interactive"] if os.geteuid() else []


def stop_on_terminate() -> None:
    """Let SIGTERM end the program as Ctrl-C does, so that contexts are left and servers drained."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
