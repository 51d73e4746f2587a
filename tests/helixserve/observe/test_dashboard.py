"""The Grafana dashboard asks for metrics that a real server exposes, and for no others."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.helixserve.observe.conftest import Asked
from tests.helixserve.support import ROOT

DASHBOARD = ROOT / "gitops" / "argocd" / "observability" / "dashboard.json"
_FUNCTIONS = {
    "sum",
    "rate",
    "max",
    "min",
    "avg",
    "count",
    "by",
    "le",
    "histogram_quantile",
    "increase",
    "changes",
    "on",
}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def names(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels of an expression."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]', "", expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", bare))
    for group in re.findall(r"\bby\s*\(([^)]*)\)", bare):
        labels |= {name.strip() for name in group.split(",")}
    words = set(re.findall(r"[a-zA-Z_]\w*", bare))
    return words - labels - _FUNCTIONS, labels


def exposed(asked: Asked) -> tuple[set[str], set[str]]:
    """Sample names and labels of a scrape."""
    text = httpx.get(f"{asked.server.url}/metrics").text
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    labels = {name for line in samples for name in re.findall(r'(\w+)="', line)}
    return {re.split(r"[{ ]", line)[0] for line in samples}, labels


# What Prometheus adds to what it scrapes, as the pods' annotations are usually relabelled.
ADDED = {"namespace", "pod"}


def unknown(dashboard: dict[str, Any], asked: Asked) -> set[str]:
    metrics, labels = exposed(asked)
    used = [names(expression) for expression in expressions(dashboard)]
    return {name for found, _ in used for name in found - metrics} | {
        name for _, found in used for name in found - labels - ADDED
    }


def test_every_metric_and_label_of_the_dashboard_is_exposed(dashboard: dict[str, Any], asked: Asked) -> None:
    assert len(expressions(dashboard)) >= 10
    assert unknown(dashboard, asked) == set()


def test_a_metric_that_no_server_exposes_would_be_found(dashboard: dict[str, Any], asked: Asked) -> None:
    text = json.dumps(dashboard)
    for old, new in (("helix_queue_depth", "helix_queue_length"), ("by (phase", "by (stage")):
        assert old in text
        assert unknown(json.loads(text.replace(old, new)), asked) == {re.split(r"[ (]", new)[-1]}


def test_every_metric_of_the_server_is_on_the_dashboard(dashboard: dict[str, Any], asked: Asked) -> None:
    shown = " ".join(expressions(dashboard))
    families = {re.sub(r"_(total|bucket|sum|count|info|created)$", "", name) for name in exposed(asked)[0]}
    assert {name for name in families if name not in shown} == set()


def test_panels_have_titles_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
