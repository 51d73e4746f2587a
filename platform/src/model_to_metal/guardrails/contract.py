"""The contract: `model.toml` is valid, and everything that it names is there.

- `model.toml` is a contract that a server can load, and its name is the folder's.
- Each hook of `[stages]`, the model, and a runner of the model's own are `module:attribute`, defined in `src/`.
- `[target] name` is one that we compile for, and the runner is the target's.
- The files that every model has are there (FILES).
"""

from __future__ import annotations

import ast
from pathlib import Path

from helixserve.errors import HelixServeError
from helixserve.model.contract import Contract
from model_to_metal.guardrails.finding import GuardFinding
from model_to_metal.targets import TARGETS

RULE = "contract"

HOOKS = ("data", "import", "export", "evaluate")
FILES = ("bentofile.yaml", "dvc.yaml", "dvc.lock", "pyproject.toml", "environment/serve.lock", "environment/build.lock")


def check(model: Path) -> list[GuardFinding]:
    """Findings about `model.toml`, the functions that it names and the files that every model has."""
    try:
        contract = Contract.load(model / "model.toml")
    except HelixServeError as error:
        return [_finding("model.toml", str(error), "mend model.toml")]
    found = []
    if contract.name != model.name:
        found.append(
            _finding("model.toml", f"name is {contract.name!r}, the folder is {model.name!r}", f'name = "{model.name}"')
        )
    stages = contract.document.get("stages")
    hooks = stages if isinstance(stages, dict) else {}
    named = {f"[stages] {name}": hooks.get(name) for name in HOOKS} | {"[serve] model": contract.model}
    if ":" in contract.runner:
        named["[serve] runner"] = contract.runner
    found += [problem for key, spec in named.items() if (problem := _names(model, key, spec))]
    found += _target(contract)
    found += [_finding(name, "the file is missing", f"add {name}") for name in FILES if not (model / name).is_file()]
    return found


def _target(contract: Contract) -> list[GuardFinding]:
    """The target is one that we compile for, and the runner is the target's: what it promises, the runner keeps."""
    table = contract.document.get("target")
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or name not in TARGETS:
        said = "is missing" if name is None else f"is {name!r}"
        return [_finding("model.toml", f"[target] name {said}", f"use one of {', '.join(TARGETS)}")]
    runner, own = TARGETS[name].runner, ":" in contract.runner
    if (contract.runner != runner) if runner else not own:
        fix = f'runner = "{runner or "package.module:Class"}"'
        return [_finding("model.toml", f"the target {name} is served by another runner", fix)]
    return []


def _names(model: Path, key: str, spec: object) -> GuardFinding | None:
    """What is wrong with `module:attribute`; reads the source, imports nothing."""
    if not isinstance(spec, str) or ":" not in spec:
        return _finding("model.toml", f"{key} = 'module:function' is missing", f"name the function in {key}")
    module, _, attribute = spec.partition(":")
    path = model / "src" / Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return _finding(
            "model.toml", f"{key} names {module}, which is not in src/", f"write src/{module.replace('.', '/')}.py"
        )
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        return GuardFinding(
            path.relative_to(model).as_posix(), error.lineno or 0, RULE, f"not Python: {error.msg}", "mend the syntax"
        )
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if attribute not in defined:
        where = path.relative_to(model).as_posix()
        return _finding(where, f"{key} names {attribute}, which {where} does not define", f"define {attribute}")
    return None


def _finding(file: str, message: str, fix: str) -> GuardFinding:
    return GuardFinding(file, 0, RULE, message, fix)
