"""The command of one step: `python3.11 -m model_to_metal.pipeline.argo STAGE …`.

A pod runs it; the local engine reads the same words and makes the stage in its own way.
"""

from __future__ import annotations

import argparse

COMMAND = ("python3.11", "-m", "model_to_metal.pipeline.argo")


def parser() -> argparse.ArgumentParser:
    """The step's options."""
    made = argparse.ArgumentParser(prog=" ".join(COMMAND[1:]), description="Make one stage of a release in a pod.")
    made.add_argument("name", metavar="STAGE")
    made.add_argument("--parent", action="append", default=[], metavar="ROLE=DIGEST", help="a parent's record")
    made.add_argument("--plan", required=True, metavar="DIGEST", help="what is settled about every stage")
    made.add_argument("--registry", required=True, metavar="HOST:PORT", help="where everything comes from and goes")
    return made
