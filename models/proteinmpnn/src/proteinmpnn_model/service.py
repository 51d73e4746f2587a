"""The BentoML service: `/design` and `/score`, whole or streamed, with the Open Inference Protocol beside them.

Nothing is decided here: routes, checks and recording are the platform's.
"""

from __future__ import annotations

from pathlib import Path

import bentoml

from helixserve.endpoints.http.bento import HttpEndpoints, options, route, stream_route
from helixserve.model.contract import Contract
from helixserve.server import Server

CONTRACT = Contract.load(Path(__file__).parents[2] / "model.toml")


@bentoml.service(**options(CONTRACT))
class ProteinMPNN(HttpEndpoints):
    """Designs and scores sequences for protein backbones."""

    server = Server(CONTRACT)
    design = route(server, "design")
    design_stream = stream_route(server, "design")
    score = route(server, "score")
    score_stream = stream_route(server, "score")
