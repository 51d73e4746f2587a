"""Hands a prepared release to Argo Workflows, and follows it to its end.

Takes what `prepare` gave; gives one row a stage: record, made or recorded, pod, seconds. Raises
GateRefused with the recorded verdict where a gate said no, WorkflowFailed for any other end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from helix_lineage.attestations.dsse import BUNDLE_TYPE
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from helix_lineage.records.chain import Record, Release
from helix_lineage.records.store import RecordStore
from model_to_metal import refusal
from model_to_metal.errors import AttestError, GateRefused, PipelineError
from model_to_metal.pipeline.argo.exchange import Exchange
from model_to_metal.pipeline.argo.kubernetes import NAMESPACE, Kubernetes
from model_to_metal.pipeline.argo.prepare import Prepared
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Image
from model_to_metal.stages import interface as stages
from model_to_metal.supply_chain.attest import FILES
from model_to_metal.supply_chain.provenance import RELEASE
from model_to_metal.workflows import release

_POLL_S = 1.0
_ENDED = ("Succeeded", "Failed", "Error")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class WorkflowFailed(PipelineError):
    """The workflow ended without a release, and no gate refused it."""


@dataclass(frozen=True, slots=True)
class Node:
    """One stage on Argo, now."""

    stage: str
    phase: str
    """Argo's: Pending, Running, Succeeded, Failed, Error or Omitted."""
    message: str
    pod: str
    record: str | None
    made: bool
    """Whether its pod ran the stage, or found it recorded."""
    tries: int
    seconds: float

    def line(self) -> str:
        """For instance `export    rebuilt       12.0 s  sha256:0123456789ab`."""
        word = self.phase.lower() if not self.record else ("rebuilt" if self.made else "recorded")
        again = f"  try {self.tries}" if self.tries > 1 else ""
        said = f"  {self.message.splitlines()[0]}" if self.message and self.phase in ("Failed", "Error") else ""
        digest = f"  {self.record[:19]}" if self.record else ""
        return f"{self.stage:9} {word:10} {self.seconds:7.1f} s{digest}{again}{said}"

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "stage": self.stage,
            "record": self.record,
            "status": "rebuilt" if self.made else "recorded",
            "pod": self.pod,
            "tries": self.tries,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """A workflow that ended."""

    model: str
    workflow: str
    phase: str
    """Succeeded, Failed or Error."""
    nodes: Mapping[str, Node]
    """Stage → how it ended."""


def install(cluster: Kubernetes) -> str:
    """Put the workflow's template into the cluster; gives its name."""
    name, text = release.rendered()
    value = yaml.safe_load(text)
    value["metadata"]["namespace"] = NAMESPACE
    cluster.apply(value)
    return name


def submit(cluster: Kubernetes, template: str, prepared: Prepared, registry: str, image: str) -> str:
    """Start the workflow; gives its name."""
    values = {"model": prepared.model, "plan": prepared.order, "image": image, "registry": registry}
    parameters = [{"name": name, "value": value} for name, value in values.items()]
    return cluster.create(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {
                "generateName": f"{release.NAME}-{prepared.model}-",
                "namespace": NAMESPACE,
                "labels": {"helix.example/model": prepared.model},
            },
            "spec": {"workflowTemplateRef": {"name": template}, "arguments": {"parameters": parameters}},
        }
    )


def follow(cluster: Kubernetes, model: str, workflow: str, report: Callable[[Node], None]) -> Ended:
    """Wait for the workflow's end, giving `report` each stage as it changes."""
    told: dict[str, tuple[str, int]] = {}
    while True:
        status = cluster.get("workflow", workflow).get("status") or {}
        found = nodes(status)
        for node in found.values():
            if node.phase != "Omitted" and told.get(node.stage) != (node.phase, node.tries):
                told[node.stage] = (node.phase, node.tries)
                report(node)
        if status.get("phase") in _ENDED:
            return Ended(model, workflow, str(status["phase"]), found)
        time.sleep(_POLL_S)


def nodes(status: Mapping[str, Any]) -> dict[str, Node]:
    """Stage → how it is, in the order of the workflow, from a workflow's status. Pure."""
    every = status.get("nodes") or {}
    stages_of = {
        row.get("displayName"): row for row in every.values() if row.get("type") in ("Retry", "Pod", "Skipped")
    }
    found = {}
    for step in release.STEPS:
        row = stages_of.get(step.stage)
        if row is None:
            continue
        pods = [every[child] for child in row.get("children") or () if every.get(child, {}).get("type") == "Pod"]
        pods = [pod for pod in pods if str(pod.get("displayName", "")).startswith(f"{step.stage}(")]
        last = max(pods, key=lambda pod: str(pod.get("startedAt")), default=row)
        outputs = (last.get("outputs") or row.get("outputs") or {}).get("parameters") or []
        values = {entry["name"]: entry.get("value") for entry in outputs}
        found[step.stage] = Node(
            stage=step.stage,
            phase=_phase(row, last if pods else None),
            message=str(last.get("message") or row.get("message") or ""),
            pod=str(last.get("id", "")),
            record=values.get("record"),
            made=values.get("status") == "rebuilt",
            tries=max(1, len(pods)),
            seconds=_seconds(row),
        )
    return found


def _phase(row: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str:
    """A step's phase. Until it has ended it is its newest pod's: Argo calls a step running that has no pod yet."""
    phase = str(row.get("phase"))
    if row.get("type") != "Retry" or phase in (*_ENDED, "Omitted"):
        return phase
    return str(pod.get("phase")) if pod else "Pending"


def finish(exchange: Exchange, state: State, ended: Ended) -> dict[str, Record]:
    """The records of a workflow that ended; they, and the signed release, are kept here too.

    Raises GateRefused or WorkflowFailed where it did not end well.
    """
    store = RecordStore(state.store)
    records = {name: exchange.record(node.record) for name, node in ended.nodes.items() if node.record}
    for record in records.values():
        store.put_record(record)
    if ended.phase == "Succeeded":
        for record in records.values():
            if isinstance(record, Release):
                _keep_bundle(exchange, state, record)
        return records
    for name, node in ended.nodes.items():
        gate = stages.spec(name).gate
        digest = node.record or next(iter(_DIGEST.findall(node.message)), None)
        if node.phase in ("Failed", "Error") and gate and digest and "refused" in node.message:
            verdict = exchange.record(digest)
            store.put_record(verdict)
            failed = refusal.failures(verdict.parameters)
            raise GateRefused(
                f"the {gate.name} refused {ended.model}; {gate.failed}: {len(failed)}, listed here and in the verdict",
                digest=digest, failed=failed, verdict=verdict.to_json(), where=digest,
                fix=f"mend what is listed, then: {gate.command} {ended.model}",
            )  # fmt: skip
    failed_nodes = [node for node in ended.nodes.values() if node.phase in ("Failed", "Error")]
    said = "; ".join(f"{node.stage}: {node.message}" for node in failed_nodes) or "no stage says why"
    raise WorkflowFailed(f"the workflow ended as {ended.phase}: {said}", where=ended.workflow)


def _keep_bundle(exchange: Exchange, state: State, record: Release) -> None:
    """Fetch the signed release from the registry, to where a release that was made here lies."""
    model, digest = str(record.parameters["model"]), str(record.parameters["image"])
    image = Image(exchange.client.address, artifacts.repository(model), digest)
    root, now = Trust.load(state.trust), datetime.now(UTC)
    for _, bundle in artifacts.attached(exchange.client, image, BUNDLE_TYPE):
        try:
            if verify_release(bundle, root, image=digest, at=now).release != record:
                continue
        except LineageError:
            continue
        folder, name = state.releases / model, FILES[RELEASE]
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name, folder / f"{record.parameters['commit']}.{name}"):
            half = path.with_suffix(".partial")
            half.write_bytes(bundle)
            half.replace(path)
        return
    raise AttestError("the registry holds no signature of the release that verifies", where=str(image))


def _seconds(row: Mapping[str, Any]) -> float:
    started, ended = row.get("startedAt"), row.get("finishedAt")
    if not started or not ended:
        return 0.0
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
