"""The release workflow on Argo: the same records and the same image as on this machine, in pods without rights."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.paths import State
from model_to_metal.cluster.layout import BuildFolder
from model_to_metal.pipeline.argo.kubernetes import NAMESPACE
from model_to_metal.workflows.release import SIGNER, SIGNING_SECRET, STEPS
from tests.cluster import support
from tests.cluster.support import Running
from tests.end_to_end.conftest import HELIX, MODEL, clone, command, git

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]
STAGES = [step.stage for step in STEPS]
SHARED = ("cluster", "downloads", "pipeline", "tools")
"""What of the machine's state depends on locks alone; records, caches and registries are a state's own."""
WITH_STORE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
"""Runs a command with the machine's Nix store in place of an empty folder: a store may not be a link."""


@dataclass(frozen=True)
class Place:
    """A checkout with a state of its own."""

    checkout: Path
    state: State

    def argv(self, *arguments: str) -> list[str]:
        stores = [str(State.find(support.ROOT).nix), str(self.state.nix)]
        return ["unshare", "--mount", "sh", "-c", WITH_STORE, "sh", *stores, HELIX, *arguments]

    def helix(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return command(self.argv(*arguments), self.checkout, self.state, check=check)

    def commit(self, message: str) -> None:
        git(self.checkout, "add", "--all")
        git(self.checkout, "commit", "--quiet", "--message", message)


@dataclass(frozen=True)
class Both:
    """One commit, released by both engines from empty caches."""

    cluster: Running
    place: Place
    here: dict[str, Any]
    there: dict[str, Any]
    """What `helix run release --json` printed, without and with `--on cluster`."""

    @property
    def options(self) -> list[str]:
        return ["run", "release", MODEL, "--json", "--on", "cluster", "--cluster", self.cluster.name]

    def again(self) -> dict[str, Any]:
        return dict(json.loads(self.place.helix(*self.options).stdout))


def place(checkout: Path, folder: Path, keys: Path | None) -> Place:
    """A state without records; keys are those of `keys`, or made now."""
    own, real = State(folder), State.find(support.ROOT)
    own.nix.mkdir(parents=True)
    for shared in SHARED:
        (real.root / shared).mkdir(exist_ok=True)
        (own.root / shared).symlink_to(real.root / shared)
    made = Place(checkout, own)
    if keys is not None:
        own.keys.symlink_to(keys)
    else:
        made.helix("keys", "init")
    return made


@pytest.fixture(scope="module")
def both(cluster: Running, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("release")
    checkout = clone(folder / "checkout")
    one = place(checkout, folder / "here", None)
    there = place(checkout, folder / "there", one.state.keys)
    # `--no-cache` has Nix run each stage's step once more, where an earlier run left its output in the Nix store.
    here = json.loads(one.helix("run", "release", MODEL, "--json", "--no-cache").stdout)
    options = ["run", "release", MODEL, "--json", "--on", "cluster", "--cluster", cluster.name]
    return Both(cluster, there, here, json.loads(there.helix(*options).stdout))


def digests(answer: dict[str, Any]) -> dict[str, str]:
    return {row["stage"]: row["record"] for row in answer["stages"]}


def test_both_engines_give_the_same_records_and_the_same_image(both: Both) -> None:
    assert list(digests(both.here)) == list(digests(both.there)) == STAGES
    assert digests(both.here) == digests(both.there)
    assert both.here["record"] == both.there["record"]


def test_both_began_with_nothing_and_made_every_stage(both: Both) -> None:
    for answer in (both.here, both.there):
        assert [row["status"] for row in answer["stages"]] == ["rebuilt"] * len(STAGES)
    assert all(row["tries"] == 1 for row in both.there["stages"])


def test_the_same_commit_again_makes_nothing(both: Both) -> None:
    again = both.again()
    assert {row["status"] for row in again["stages"]} == {"recorded"}
    assert digests(again) == digests(both.there)


def test_every_pod_is_restricted_and_the_key_is_in_one(both: Both) -> None:
    said = both.cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pods", "-o", "json", "-l",
                                f"workflows.argoproj.io/workflow={both.there['workflow']}").stdout  # fmt: skip
    pods = json.loads(said)["items"]
    assert len(pods) == len(STAGES)
    holders = []
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "secret"}
        for container in spec["containers"] + spec["initContainers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "@sha256:" in container["image"]
            if container["name"] == "main":
                mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
                assert not any("serviceaccount" in path for path in mounts)
        if SIGNING_SECRET in json.dumps(spec["volumes"]):
            holders.append(spec["serviceAccountName"])
    assert holders == [SIGNER]


def test_the_image_is_signed_in_the_clusters_registry(both: Both) -> None:
    image = f"{both.cluster.said['registry']}/helix/{MODEL}@{both.there['record']['parameters']['image']}"
    done = both.place.helix("verify", image, "--json")
    assert json.loads(done.stdout)["passed"] is True, done.stdout


def promoted(both: Both, environment: str) -> subprocess.CompletedProcess[str]:
    """Propose the newest release and, where that worked, merge it."""
    done = both.place.helix("promote", MODEL, "--to", environment, "--json", check=False)
    if done.returncode == 0:
        git(both.place.checkout, "merge", "--quiet", "--ff-only", json.loads(done.stdout)["branch"])
    return done


def test_production_takes_what_the_cluster_built_with_keys_of_its_own_and_no_laptops(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_REGISTRY", str(both.cluster.said["registry"]))
    assert promoted(both, "staging").returncode == 0
    refused = promoted(both, "production")
    assert refused.returncode == 1
    assert "does not take releases of the builder 'laptop'" in refused.stdout + refused.stderr
    both.place.helix("cluster", "keys", "--name", both.cluster.name)
    own = both.again()
    assert own["record"]["parameters"]["builder"] == "cluster"
    changed = {name for name, digest in digests(own).items() if digest != digests(both.there)[name]}
    assert changed == {"attest"}
    # What a laptop's key vouched for is not part of a release of the cluster's.
    assert {row["status"] for row in own["stages"]} == {"rebuilt"}
    for environment in ("staging", "production"):
        done = promoted(both, environment)
        assert done.returncode == 0, done.stderr


def gates_again(both: Both, line: str, fault: Callable[[], object]) -> dict[str, dict[str, Any]]:
    """Release a commit in which a file is new that the gates alone read; at a line of progress, do `fault`."""
    note = both.place.checkout / "models" / MODEL / "golden" / "note.txt"
    note.write_text(f"{note.read_text() if note.exists() else ''}another line\n")
    both.place.commit("another line in a golden folder")
    environment = {**os.environ, "HELIX_STATE": str(both.place.state.root)}
    with subprocess.Popen(
        both.place.argv(*both.options), cwd=both.place.checkout, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stdout is not None
        for said in running.stderr:
            if re.match(line, said):
                fault()
                break
        rest = running.stderr.read()
        answer = running.stdout.read()
    assert running.returncode == 0, rest
    return {row["stage"]: row for row in json.loads(answer)["stages"]}


KEPT = set(STAGES) - {"guard", "regress", "attest"}
"""What such a commit leaves as it was."""


def recorded(rows: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, row in rows.items() if row["status"] == "recorded"}


def pods_of(both: Both, stage: str) -> dict[str, str]:
    """Name → identity of a stage's pods that have not ended."""
    said = both.cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pods", "-o", "json").stdout
    rows = [row for row in json.loads(said)["items"] if row["status"]["phase"] in ("Pending", "Running")]
    return {row["metadata"]["name"]: row["metadata"]["uid"] for row in rows if f"-{stage}-" in row["metadata"]["name"]}


def test_a_pod_that_is_killed_is_made_again_and_what_was_made_is_kept(both: Both) -> None:
    killed: dict[str, str] = {}

    def kill() -> None:
        """The line comes when the pod's container runs."""
        killed.update(pods_of(both, "regress"))
        both.cluster.kubectl(f"--namespace={NAMESPACE}", "delete", "pod", *killed, "--now")

    both.again()
    rows = gates_again(both, r"regress +running", kill)
    assert len(killed) == 1
    (name,) = killed
    # Argo makes the pod again under the same name, or counts a second try.
    now = both.cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
    assert killed[name] not in now.stdout.split()
    assert recorded(rows) == KEPT


def test_a_registry_that_is_away_and_a_controller_that_restarts_change_nothing(both: Both) -> None:
    def faults() -> None:
        with both.cluster.stopped("registry"):
            both.cluster.kill("workflow-controller")

    assert recorded(gates_again(both, r"regress +running", faults)) == KEPT


def test_argos_own_linter_has_nothing_to_say() -> None:
    argo = BuildFolder.of(State.find(support.ROOT)).programs / "bin" / "argo"
    rendered = support.ROOT / "gitops/argocd/workflows/release.yaml"
    command([str(argo), "lint", "--offline", "--kinds=workflowtemplates", str(rendered)], support.ROOT, State.find())


def test_a_refused_gate_is_readable_here_and_in_the_node(both: Both) -> None:
    """The contract's tolerance is set to nothing: no float32 is that near to float64."""
    contract = both.place.checkout / "models" / MODEL / "model.toml"
    contract.write_text(contract.read_text().replace("log_probability = 1e-4", "log_probability = 1e-12"))
    both.place.commit("an impossible tolerance")
    done = both.place.helix(*both.options, check=False)
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answer"] == "no"
    assert answer["failed"]
    assert answer["record"]["parameters"]["passed"] is False
    said = both.cluster.kubectl(f"--namespace={NAMESPACE}", "get", "workflows", "-o", "json").stdout
    messages = json.dumps([row["status"].get("nodes") for row in json.loads(said)["items"]])
    assert f"the regression gate refused {MODEL} ({answer['digest']})" in messages
