"""No pickle: nothing that runs code when it is read, in the source or in the folder.

Reads the syntax tree, so names imported under another name are seen. It finds mistakes, not
malice: what hides is stopped by the sandbox instead.

- Every Python file parses.
- None imports a module that unpickles (MODULES), by statement or by `import_module`.
- `torch.load` has `weights_only=True`; nothing is called with `allow_pickle`; nothing of CALLS is called.
- No file is a pickle, by its suffix (SUFFIXES) or its bytes: a pickle, an array of objects, an archive that holds one.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from pathlib import Path

from model_to_metal.guardrails.finding import GuardFinding

RULE = "no-pickle"

MODULES = frozenset(
    {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "shelve", "marshal"}
)
CALLS = frozenset({"pandas.read_pickle", "torch.save"})
SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt"})

USE_SAFETENSORS = "keep weights as safetensors and other data as JSON, CSV or .npy"


def check(model: Path) -> list[GuardFinding]:
    """Findings in every Python file and in the bytes of every file under `model`."""
    found: list[GuardFinding] = []
    for path in sorted(path for path in model.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(model).as_posix()
        if path.suffix == ".py":
            found += check_source(path.read_bytes(), name)
        elif (kind := pickled(path)) is not None:
            found.append(GuardFinding(name, 0, RULE, f"the file is {kind}: reading it can run code", USE_SAFETENSORS))
    return found


def check_source(source: bytes, name: str) -> list[GuardFinding]:
    """Findings in one Python file."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 0) or 0
        return [GuardFinding(name, line, RULE, f"the file is not Python: {error}", "mend the syntax")]
    aliases = dict(_aliases(tree))
    return sorted(
        GuardFinding(name, line, RULE, message, fix)
        for node in ast.walk(tree)
        for line, message, fix in _judge(node, aliases)
    )


def pickled(path: Path) -> str | None:
    """What kind of pickle a file is by its name or bytes, or None."""
    if path.suffix.lower() in SUFFIXES:
        return f"a {path.suffix} file"
    with path.open("rb") as file:
        head = file.read(256)
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            file.seek(-1, 2)
            return "a pickle" if file.read(1) == b"." else None
    if head.startswith(b"\x93NUMPY") and b"'|O'" in head:
        return "an array of pickled objects"
    if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.endswith(("/data.pkl", ".pkl")) for member in archive.namelist()):
                return "an archive that holds a pickle"
    return None


def _aliases(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name → dotted name, for everything that the file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name if alias.asname else alias.name.partition(".")[0],
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _judge(node: ast.AST, aliases: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
    elif isinstance(node, ast.Call):
        yield from _judge_call(node, aliases)
        return
    else:
        return
    for name in names:
        if name.partition(".")[0] in MODULES:
            yield node.lineno, f"imports {name}", USE_SAFETENSORS


def _judge_call(node: ast.Call, aliases: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    called = _dotted(node.func, aliases)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if called == "torch.load" and not _is(keywords.get("weights_only"), True):
        yield node.lineno, "torch.load without weights_only=True", "torch.load(path, weights_only=True), or safetensors"
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield node.lineno, f"{called or 'a call'} with allow_pickle", "leave allow_pickle out"
    # numpy.load(file, mmap_mode, allow_pickle, …)
    if called == "numpy.load" and len(node.args) > 2 and not _is(node.args[2], False):
        yield node.lineno, "numpy.load with allow_pickle", "leave allow_pickle out"
    if called in CALLS:
        yield node.lineno, f"calls {called}", USE_SAFETENSORS
    if called in ("importlib.import_module", "__import__") and node.args:
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        if isinstance(name, str) and name.partition(".")[0] in MODULES:
            yield node.lineno, f"imports {name}", USE_SAFETENSORS


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([aliases.get(node.id, node.id), *reversed(parts)])


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
