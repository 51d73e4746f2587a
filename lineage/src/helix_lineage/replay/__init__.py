"""Make a prediction again, to the same bytes, or say what differs (FORMAT.md 10).

`plan` reads what is needed; `Executor` runs the image's own files; `Verdict` is what came of it.
"""

from helix_lineage.replay.executor import Executor
from helix_lineage.replay.plan import Plan, Planner, plan
from helix_lineage.replay.verdict import Difference, Verdict

__all__ = ["Difference", "Executor", "Plan", "Planner", "Verdict", "plan"]
