"""What a machine needs for a cluster of its own: asked before anything is built or started.

Each answer is one sentence that says what is missing, and one command that mends it. Whoever
cannot or will not mend it has another way: `--kubeconfig FILE`, a cluster that exists.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from helix_lineage.paths import State
from model_to_metal.cluster import build, cgroups
from model_to_metal.cluster.errors import Prerequisite
from model_to_metal.errors import PipelineError
from model_to_metal.host import tools

PROGRAMS = ("ip", "nft", "unshare", "setpriv", "mount", "git", "git:http-backend")
"""Programs of the machine that a node uses; `git:` names a part of Git."""
OTHERWISE = "or use a cluster that exists: helix cluster up --kubeconfig FILE"


def check(state: State) -> None:
    """Raises Prerequisite for the first thing that is missing."""
    for error in _missing(state):
        raise error


def _missing(state: State) -> Iterator[Prerequisite]:
    if platform.system() != "Linux":
        yield Prerequisite(f"a cluster needs Linux, and this is {platform.system()}; {OTHERWISE}")
    if platform.machine() != "x86_64":
        yield Prerequisite(f"a cluster needs an x86-64 processor, and this is {platform.machine()}; {OTHERWISE}")
    if os.geteuid() != 0:
        yield Prerequisite(
            f"a cluster needs root: it makes namespaces, a network link and control groups; {OTHERWISE}",
            where=f"user {os.geteuid()}",
            fix="run the same command with sudo",
        )
    if controllers := cgroups.lacking():
        yield Prerequisite(
            f"this machine lets nobody make control groups of {', '.join(controllers)}; {OTHERWISE}",
            where=str(cgroups.MOUNT),
        )
    if absent := [name for name in PROGRAMS if not _is_there(name)]:
        yield Prerequisite(f"the machine lacks {', '.join(absent)}", fix="make setup-cluster")
    if modules := build.missing(state):
        try:
            tools.toolchain(max((module.go for module in modules), key=tools.go_version), state)
        except PipelineError as error:
            yield Prerequisite(
                f"{len(modules)} modules are not built, and there is no Go to build them with: {error.what}; "
                f"{OTHERWISE}",
                fix="make setup-cluster",
            )


def _is_there(name: str) -> bool:
    program, _, part = name.partition(":")
    if part:
        return Path("/usr/lib/git-core", f"{program}-{part}").exists() or shutil.which(f"{program}-{part}") is not None
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None
