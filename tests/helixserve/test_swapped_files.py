"""Weights and code that change under a starting server: it has the released bytes, or it refuses.

A canary in each test shows that the wrong bytes would have been seen: other weights hash otherwise, other
code says so when it runs.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from helix_lineage.formats.canonical import digest_bytes
from helixserve.errors import NotReadyError
from helixserve.integrity import imports, manifest, read, readiness
from helixserve.settings import Settings
from tests.helixserve import support
from tests.helixserve.support import Place, serving
from tests.waiting import until

TRIES = 1000
NOW = datetime.now(UTC)

RACER = '''
"""Swap a file for another, over and over, in every way there is; first argument: the file. It ends with its parent."""
import os, pathlib, sys
path, bad = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
good = path.read_bytes()
aside, temporary = path.with_name(path.name + ".aside"), pathlib.Path(sys.argv[2] + ".next")

def renamed():
    for data in (bad.read_bytes(), good):
        temporary.write_bytes(data)
        os.replace(temporary, path)

def rewritten():
    for data in (bad.read_bytes(), good):
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()

def linked():
    temporary.unlink(missing_ok=True)
    os.symlink(bad, temporary)
    os.replace(temporary, path)
    temporary.write_bytes(good)
    os.replace(temporary, path)

def piped():
    temporary.unlink(missing_ok=True)
    os.mkfifo(temporary)
    os.replace(temporary, path)
    temporary.write_bytes(good)
    os.replace(temporary, path)

print("racing", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    for way in (renamed, rewritten, linked, piped):
        way()
'''


@contextlib.contextmanager
def racing(path: Path, bad: Path) -> Iterator[None]:
    """A process that swaps `path` for `bad` and back as fast as it can."""
    kept = path.read_bytes()
    with subprocess.Popen([sys.executable, "-c", RACER, str(path), str(bad)], stdout=subprocess.PIPE) as racer:
        try:
            assert racer.stdout is not None
            assert racer.stdout.readline() == b"racing\n"
            yield
        finally:
            racer.kill()
            racer.wait()
            path.unlink(missing_ok=True)
            path.write_bytes(kept)


@pytest.fixture
def weights(place: Place) -> tuple[Path, Path]:
    """The released weights, and others that a model would load as well."""
    path = place.home / "artifacts" / "tiny.onnx"
    bad = place.folder / "bad.onnx"
    bad.write_bytes(path.read_bytes()[:-8] + b"\0\0\0\0\0\0\0\0")
    return path, bad


def outcomes(place: Place, tries: int) -> Counter[str]:
    """What `readiness.load` gives while somebody swaps: the digest of the weights, or a refusal."""
    settings = Settings.read(place.environment())
    found: Counter[str] = Counter()
    for _ in range(tries):
        try:
            found[digest_bytes(readiness.load(settings, NOW).artifacts["tiny.onnx"])] += 1
        except NotReadyError:
            found["refused"] += 1
    return found


def test_swapped_weights_are_the_released_ones_or_none(place: Place, weights: tuple[Path, Path]) -> None:
    released = digest_bytes(weights[0].read_bytes())
    with racing(*weights):
        found = outcomes(place, TRIES)
    assert set(found) <= {released, "refused"}, found
    assert found["refused"] > TRIES // 20, f"the race was on: {found}"
    assert outcomes(place, 1) == {released: 1}


def test_a_server_that_hashes_and_then_reads_again_is_fooled(
    place: Place, weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault, and the canary: wrong weights are served, and the test above would see it."""

    def twice(self: manifest.ImageFiles, path: Path) -> bytes:
        checked = read.read(path, where="x", what="x", limit=1 << 20)
        self.compare(path, digest_bytes(checked))
        time.sleep(0.001)  # long enough for a swap
        with contextlib.suppress(NotReadyError):
            return read.read(path, where="x", what="x", limit=1 << 20, follow=True)
        return checked

    monkeypatch.setattr(manifest.ImageFiles, "read", twice)
    monkeypatch.setattr(readiness, "check_artifact", lambda *_: None)
    wrong = digest_bytes(weights[1].read_bytes())
    with racing(*weights):
        until(lambda: outcomes(place, 20)[wrong], "wrong weights that are served: the race shows nothing")


CODE = "def answer() -> str:\n    return {!r}\n"


@pytest.fixture
def watched() -> Iterator[None]:
    imports.watch()
    yield
    imports.unwatch()


def imported(path: Path) -> str:
    """What the module's code says, imported as the interpreter imports it."""
    loader = importlib.machinery.SourceFileLoader("swapped", str(path))
    spec = importlib.util.spec_from_loader("swapped", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return str(module.answer())


@pytest.fixture
def code(place: Place) -> tuple[Path, Path]:
    """A released module, and another that says so."""
    path, bad = place.home / "model/src/tiny_model/extra.py", place.folder / "bad.py"
    path.write_text(CODE.format("released"))
    bad.write_text(CODE.format("canary!!"))  # as long as the other: its size tells nothing
    support.publish(place, "tiny")
    return path, bad


@pytest.mark.usefixtures("watched")
def test_swapped_code_is_the_released_one_or_the_server_refuses(place: Place, code: tuple[Path, Path]) -> None:
    settings = Settings.read(place.environment())
    readiness.check_loaded(settings, [])
    found: Counter[str] = Counter()
    with racing(*code):
        for _ in range(TRIES):
            imports.unwatch()
            imports.watch()
            try:
                said = imported(code[0])
                readiness.check_loaded(settings, [])
            except (NotReadyError, OSError, SyntaxError, AttributeError):
                found["refused"] += 1
            else:
                found[said] += 1
    assert set(found) <= {"released", "refused"}, found
    assert found["released"], found


def test_code_swapped_for_the_moment_of_its_import_is_refused(place: Place, code: tuple[Path, Path]) -> None:
    """The race without luck; and the planted fault: a server that hashes code where it lies sees nothing."""
    settings = Settings.read(place.environment())
    path, kept = code[0], code[0].read_bytes()
    for watching in (True, False):
        path.write_bytes(code[1].read_bytes())
        imports.unwatch()
        if watching:
            imports.watch()
        assert imported(path) == "canary!!"
        path.write_bytes(kept)
        if watching:
            with pytest.raises(NotReadyError, match=r"tiny_model/extra\.py"):
                readiness.check_loaded(settings, [path])
        else:
            readiness.check_loaded(settings, [path])
        imports.unwatch()


@pytest.mark.usefixtures("watched")
def test_a_pipe_in_a_modules_place_is_refused_and_not_waited_for(code: tuple[Path, Path]) -> None:
    fifo(code[0])
    with pytest.raises(NotReadyError, match="not a regular file"):
        imported(code[0])


@pytest.mark.usefixtures("watched")
def test_code_behind_a_link_out_of_the_image_is_refused(place: Place, code: tuple[Path, Path]) -> None:
    path, bad = code
    path.unlink()
    path.symlink_to(bad)
    imported(path)
    with pytest.raises(NotReadyError, match=r"bad\.py"):
        readiness.check_loaded(Settings.read(place.environment()), [])


def test_whole_servers_start_with_the_released_files_or_not_at_all(place: Place, weights: tuple[Path, Path]) -> None:
    expected = None
    answers: Counter[str] = Counter()
    with serving(place) as server:
        expected = httpx.post(f"{server.url}/project", json={"values": [1], "seed": 1}).json()["predictions"][0]
    for _ in range(2):
        with racing(*weights), serving(place) as server:
            response = httpx.post(f"{server.url}/project", json={"values": [1], "seed": 1})
            if response.status_code == 200:
                assert response.json()["predictions"][0]["projected"] == expected["projected"]
            answers[str(response.status_code)] += 1
    assert set(answers) <= {"200", "503"}, answers


def sparse(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 43)  # 8 TiB that take no room


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    outside = next((folder.parent for folder in path.parents if folder.name == "root"), path.parent)
    path.rename(outside / "aside")
    path.symlink_to(outside / "aside")


def link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def device(path: Path) -> None:
    path.unlink()
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # what /dev/zero is
    except PermissionError:
        pytest.skip("making a device needs root; run as root: make test-fast")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1 << 20))


TRICKS = (sparse, fifo, link, link_to_device, device, folder, huge)
PLACES = ("artifacts/tiny.onnx", "model/model.toml", "model/src/tiny_model/model.py", "files.json")


def refusal(place: Place, within: float = 5.0) -> str:
    """Why `readiness.load` refuses. Fails when it does not, or is still at it after a while."""
    found: list[str] = []

    def load() -> None:
        try:
            readiness.load(Settings.read(place.environment()), NOW)
        except NotReadyError as error:
            found.append(str(error))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(within)
    assert not thread.is_alive(), "it hangs"
    assert found, "it is ready"
    return found[0]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_is_refused_by_name_and_not_waited_for(
    place: Place, name: str, trick: Callable[[Path], None]
) -> None:
    trick(place.home / name)
    assert Path(name).name in refusal(place)


@pytest.mark.parametrize("trick", [sparse, fifo, link_to_device, device, folder])
@pytest.mark.parametrize("name", ["release", "trust", "promotion"])
def test_what_is_mounted_is_read_only_if_it_is_a_file(place: Place, name: str, trick: Callable[[Path], None]) -> None:
    path = getattr(place, name)
    path.touch()
    trick(path)
    assert "HELIX_" in refusal(place)


def test_a_mounted_configmap_is_a_link_and_is_read(place: Place) -> None:
    link(place.release)
    assert readiness.load(Settings.read(place.environment()), NOW)


def test_a_reader_that_waits_for_a_pipe_is_caught(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: plain reading hangs, and the check says so."""
    monkeypatch.setattr(read, "read", lambda path, **_: Path(path).read_bytes())
    fifo(place.home / "artifacts" / "tiny.onnx")
    with pytest.raises(AssertionError, match="hangs"):
        refusal(place, within=1.0)
    os.close(os.open(place.home / "artifacts" / "tiny.onnx", os.O_RDWR | os.O_NONBLOCK))  # lets the thread end


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "model/../model/model.toml", "", ".", "a//b"])
def test_a_list_of_files_that_climbs_out_is_refused(place: Place, name: str) -> None:
    line = {"path": name, "digest": digest_bytes(b""), "size": 0, "mode": 420}
    with pytest.raises(NotReadyError, match="not a path inside the image"):
        manifest.ImageFiles(support.dumps({"version": 1, "files": [line]}), place.root)


@pytest.mark.parametrize("size", [-1, "1", None, True])
def test_a_list_of_files_with_a_size_that_is_none_is_refused(place: Place, size: object) -> None:
    line = {"path": "a", "digest": digest_bytes(b""), "size": size, "mode": 420}
    with pytest.raises(NotReadyError, match="the size"):
        manifest.ImageFiles(support.dumps({"version": 1, "files": [line]}), place.root)  # type: ignore[dict-item]


@pytest.mark.parametrize("artifact", ["../../../secret", "/etc/hostname", "../model/model.toml"])
def test_an_artifact_outside_its_folder_is_refused(place: Place, artifact: str) -> None:
    path = place.home / "model" / "model.toml"
    path.write_text(path.read_text().replace('artifacts = ["tiny.onnx"]', f"artifacts = [{artifact!r}]"))
    support.publish(place, "tiny")
    assert "out of the image" in refusal(place) or "export" in refusal(place)
