"""The errors of `cluster`.

PipelineError
└── ClusterError      the cluster cannot be started, stopped or asked
    ├── Prerequisite  the machine lacks what a cluster needs
    ├── NotRunning    there is no such cluster
    └── NotReady      a component did not become ready, or is not ready now
"""

from __future__ import annotations

from model_to_metal.errors import PipelineError


class ClusterError(PipelineError):
    """The cluster cannot be started, stopped or asked."""


class Prerequisite(ClusterError):
    """The machine lacks what a cluster needs."""


class NotRunning(ClusterError):
    """There is no such cluster."""


class NotReady(ClusterError):
    """A component did not become ready."""
