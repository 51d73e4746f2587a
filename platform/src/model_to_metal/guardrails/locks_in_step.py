"""Locks in step: each dependency group of `pyproject.toml` is satisfied by its lock.

The lock's form already demands a SHA-256 and one file for every distribution.

- The dependency groups can be read, and each has its lock.
- Every requirement is one, is locked, and at a version that it allows.
"""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from model_to_metal.errors import PipelineError
from model_to_metal.guardrails.finding import GuardFinding
from model_to_metal.hermetic import locks

RULE = "locks-in-step"


def check(model: Path) -> list[GuardFinding]:
    """Findings about every lock that the model's dependency groups ask for."""
    try:
        groups = locks.groups(model)
    except PipelineError as error:
        return [GuardFinding("pyproject.toml", 0, RULE, error.what, "mend [dependency-groups]")]
    found: list[GuardFinding] = []
    for name, group in groups.items():
        try:
            pins = {pin.name: pin.version for pin in locks.read(model / name)}
        except PipelineError as error:
            found.append(_finding(name, error.what, model))
            continue
        for text in (*group.requirements, *group.alone, *group.sources):
            if (message := _unmet(text, pins)) is not None:
                found.append(_finding(name, message, model))
    return found


def _unmet(text: str, pins: dict[str, str]) -> str | None:
    """Why the lock does not satisfy a requirement, or None."""
    try:
        wanted = Requirement(text)
    except InvalidRequirement as error:
        return f"{text!r} is not a requirement: {error}"
    version = pins.get(canonicalize_name(wanted.name))
    if version is None:
        return f"{wanted.name} is wanted and not locked"
    # A locked pre-release was chosen on purpose.
    if not wanted.specifier.contains(version, prereleases=True):
        return f"{wanted.name} is locked at {version}, wanted is {wanted.specifier}"
    return None


def _finding(file: str, message: str, model: Path) -> GuardFinding:
    return GuardFinding(file, 0, RULE, message, f"helix lock {model.name}")
