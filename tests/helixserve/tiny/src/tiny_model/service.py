"""The BentoML service of the small model."""

from __future__ import annotations

from pathlib import Path

import bentoml

from helixserve.endpoints.http.bento import HttpEndpoints, options, route, stream_route
from helixserve.model.contract import Contract
from helixserve.server import Server

CONTRACT = Contract.load(Path(__file__).parents[2] / "model.toml")


@bentoml.service(**options(CONTRACT))
class Tiny(HttpEndpoints):
    """Projects and measures."""

    server = Server(CONTRACT)
    project = route(server, "project")
    project_stream = stream_route(server, "project")
    measure = route(server, "measure")
    measure_stream = stream_route(server, "measure")
