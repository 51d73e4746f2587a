"""Git without a working tree: what a commit holds is files, and nothing that leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.errors import GitopsError
from model_to_metal.gitops.repository import Repository
from tests.model_to_metal.project import git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"x")
    (tmp_path / "folder/tool").write_bytes(b"y")
    (tmp_path / "folder/tool").chmod(0o755)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "files")
    return tmp_path


def test_files_are_given_by_path(root: Path) -> None:
    assert Repository(root).files("HEAD", "folder") == {"folder/file": b"x", "folder/tool": b"y"}


@pytest.mark.parametrize("mode", ["120000", "160000"])
def test_a_link_or_a_submodule_is_refused_in_words(root: Path, mode: str) -> None:
    head = git(root, "rev-parse", "HEAD")
    blob = git(root, "rev-parse", "HEAD:folder/file") if mode == "120000" else head
    git(root, "update-index", "--add", "--cacheinfo", f"{mode},{blob},folder/odd")
    git(root, "commit", "--quiet", "-m", "odd")
    with pytest.raises(GitopsError, match="holds something else than a file there") as told:
        Repository(root).files("HEAD", "folder")
    assert told.value.where == "folder/odd"


def test_a_name_that_is_no_text_is_read_back(root: Path) -> None:
    commit = Repository(root).commit_of("HEAD")
    repository = Repository(root)
    made = repository.commit(commit, {"folder/caf\udce9": b"z"}, "odd", repository.time(commit))
    assert repository.files(made, "folder")["folder/caf\udce9"] == b"z"
    assert repository.changed(made) == ["folder/caf\udce9"]
