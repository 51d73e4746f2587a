"""Make a prediction again, to the same bytes, or say what differs (FORMAT.md 10).

`plan` reads what is needed; `ReplayExecutor` runs the image's own files; `Verdict` is the result.
"""

from helix_lineage.replay.executor import ReplayExecutor
from helix_lineage.replay.plan import ReplayPlan, ReplayPlanner, plan
from helix_lineage.replay.verdict import OutputDifference, Verdict

__all__ = ["OutputDifference", "ReplayExecutor", "ReplayPlan", "ReplayPlanner", "Verdict", "plan"]
