"""Git without a working tree: read a commit's files, make a commit, move a branch that nobody has checked out.

Commits are made of plumbing and an index of their own, so neither the user's working tree, nor
their index, nor the branch that they are on is ever touched; and of given bytes, author and
time only, so that the same content gives the same commit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from model_to_metal.errors import GitopsError, ToolError
from model_to_metal.host import process

AUTHOR, ADDRESS = "Helix", "helix@helix.example"
_ABSENT = "0" * 40
# A caller's hook may have set these for another repository; configuration may not change bytes.
_ENVIRONMENT: Mapping[str, str | None] = {
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"))
}
_SETTINGS = ("-c", "i18n.commitEncoding=UTF-8", "-c", "commit.gpgSign=false", "-c", "core.quotePath=false")


@dataclass(frozen=True, slots=True)
class Repository:
    """A Git repository."""

    root: Path

    def commit_of(self, name: str) -> str:
        """The commit that a branch, tag or id names. Raises GitopsError."""
        done = self._attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if done is None:
            raise GitopsError(f"this clone has no commit {name!r}", where=str(self.root), fix="git fetch --all")
        return done.decode().strip()

    def branch_tip(self, branch: str) -> str | None:
        """The commit at a branch's tip, if there is such a branch."""
        done = self._attempt("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}")
        return None if done is None else done.decode().strip()

    def read(self, commit: str, path: str) -> bytes | None:
        """The file's bytes in that commit, or None where it has no such file."""
        return self._attempt("cat-file", "blob", f"{commit}:{path}")

    def files(self, commit: str, folder: str) -> dict[str, bytes]:
        """Path → bytes of every file below a folder in that commit. Raises GitopsError for a link or a submodule."""
        found = {}
        for row in os.fsdecode(self._git("ls-tree", "-r", "-z", commit, "--", f"{folder}/")).split("\0"):
            kind, _, name = row.partition("\t")
            if name and not kind.startswith("100"):  # a link, or another repository
                raise GitopsError(f"commit {commit[:12]} holds something else than a file there", where=name)
            if name:
                found[name] = self._git("cat-file", "blob", kind.split()[2])
        return found

    def folders(self, commit: str, folder: str) -> list[str]:
        """Names of the folders right below a folder in that commit."""
        listed = self._git("ls-tree", "-d", "-z", "--name-only", commit, "--", f"{folder}/")
        return sorted(name.rpartition("/")[2] for name in os.fsdecode(listed).split("\0") if name)

    def history(self, commit: str, path: str) -> list[str]:
        """Commits up to `commit` that changed the path, newest first."""
        return self._git("log", "--topo-order", "--format=%H", commit, "--", path).decode().split()

    def time(self, commit: str) -> datetime:
        """When the commit was made, as it says."""
        return datetime.fromtimestamp(int(self._git("show", "-s", "--format=%ct", commit)), UTC)

    def parents(self, commit: str) -> list[str]:
        """The commit's parents."""
        return self._git("rev-list", "--parents", "-n1", commit).decode().split()[1:]

    def contains(self, commit: str, earlier: str) -> bool:
        """Is `earlier` the commit, or one that it stands on?"""
        return self._attempt("merge-base", "--is-ancestor", earlier, commit) is not None

    def changed(self, commit: str) -> list[str]:
        """Paths that differ between the commit and its first parent."""
        listed = self._git("diff-tree", "-r", "-z", "--no-renames", "--name-only", f"{commit}^", commit)
        return sorted(name for name in os.fsdecode(listed).split("\0") if name)

    def commit(self, parent: str, changes: Mapping[str, bytes | None], message: str, when: datetime) -> str:
        """Make a commit on `parent` with these files (None: removed); gives its id. No branch moves."""
        stamp = f"{int(when.timestamp())} +0000"
        identity: dict[str, str | None] = {}
        for who in ("AUTHOR", "COMMITTER"):
            identity |= {f"GIT_{who}_NAME": AUTHOR, f"GIT_{who}_EMAIL": ADDRESS, f"GIT_{who}_DATE": stamp}
        with tempfile.TemporaryDirectory() as folder:
            index: dict[str, str | None] = {"GIT_INDEX_FILE": f"{folder}/index"}
            self._git("read-tree", parent, env=index)
            for path, data in sorted(changes.items()):
                if data is None:
                    self._git("update-index", "--force-remove", "--", path, env=index)
                    continue
                blob = self._git("hash-object", "-w", "--stdin", stdin=data).decode().strip()
                self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
            tree = self._git("write-tree", env=index).decode().strip()
        made = self._git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode(), env=identity)
        return made.decode().strip()

    def move(self, branch: str, commit: str, old: str | None, *, why: str) -> None:
        """Let the branch (new, or at `old`) point to the commit. Raises GitopsError when somebody works on it."""
        listed = self._git("worktree", "list", "--porcelain").decode().splitlines()
        if f"branch refs/heads/{branch}" in listed:
            raise GitopsError(
                "the branch is checked out, and is left alone", where=branch, fix="git switch main, then run it again"
            )
        try:
            self._git("update-ref", "--create-reflog", "-m", why, f"refs/heads/{branch}", commit, old or _ABSENT)
        except ToolError as error:
            # Somebody moved it meanwhile, or a branch `promote` takes the place of the folder `promote/`.
            raise GitopsError(f"the branch cannot be moved: {error.what}", where=branch) from error

    def _git(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str | None] | None = None) -> bytes:
        return process.run(
            ["git", *_SETTINGS, *arguments], cwd=self.root, stdin=stdin, env={**_ENVIRONMENT, **(env or {})}
        )

    def _attempt(self, *arguments: str) -> bytes | None:
        done = process.attempt(["git", *_SETTINGS, *arguments], cwd=self.root, env=_ENVIRONMENT)
        return None if done.returncode else done.stdout
