"""A finding: what a rule holds against the source, where, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass

from helix_lineage.formats.canonical import Json


@dataclass(frozen=True, slots=True, order=True)
class GuardFinding:
    """One thing that keeps a model from production."""

    file: str
    """Path relative to the model's folder."""
    line: int
    """1 for the first line; 0 for the file as a whole."""
    rule: str
    message: str
    fix: str

    def to_json(self) -> dict[str, Json]:
        """As the verdict records it."""
        return {"rule": self.rule, "file": self.file, "line": self.line, "message": self.message, "fix": self.fix}
