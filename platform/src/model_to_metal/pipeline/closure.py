"""Which sources a stage depends on, as digests.

Two views: the *tree* of a model's folder (what guard judges), and the *import closure* of a
stage (its code digest: the modules it can reach, and nothing else). Documentation (`*.md`)
is in neither, so a commit that touches only the README leaves every digest as it was.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.formats.canonical import digest_bytes, dumps
from model_to_metal.errors import CheckoutError, ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.stages import interface

PACKAGES = ("lineage/src", "platform/src")
"""Where the platform's packages lie; a model adds `models/<name>/src`."""

IMAGE = ("helix_lineage", "helixserve")
"""The platform's packages that the image carries."""


@dataclass(frozen=True, slots=True)
class Sources:
    """A set of files by digest."""

    files: Mapping[str, str]
    """Path relative to the checkout → `sha256:<64 hex>`."""
    entries: tuple[str, ...] = ()
    """Where an import closure starts."""

    @property
    def digest(self) -> str:
        """What a record names the sources by."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The canonical JSON that the digest covers."""
        return dumps({"entries": list(self.entries), "files": dict(self.files)})

    def __or__(self, other: Sources) -> Sources:
        """Both sets of files, as one tree."""
        return Sources({**self.files, **other.files})

    def copy(self, root: Path, folder: Path) -> None:
        """Put the files into `folder`, as they were when they were hashed. Raises CheckoutError.

        What a stage is shown is then exactly what its key covers.
        """
        for name, digest in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target, follow_symlinks=False)
            if _digest(target) != digest:
                raise CheckoutError("the file changed during the run", where=name, fix="run the command again")

    def only(self, *prefixes: str) -> Sources:
        """Those files that are, or lie under, one of `prefixes`."""
        return Sources({name: digest for name, digest in self.files.items() if name.startswith(prefixes)})


def tree(checkout: Checkout, model: str) -> Sources:
    """The model's folder without documentation, caches and data that DVC keeps."""
    names = checkout.files(f"models/{model}")
    return _hash(checkout.root, (name for name in names if not name.endswith(".md")))


def closure(checkout: Checkout, model: str, stage: str, hooks: Sequence[str] = ()) -> Sources:
    """The import closure of a stage and of the model's hooks (`module:function`).

    Imports inside functions count. Modules outside the checkout do not: the environment's
    lock covers them. `model.toml` is not hashed here, but the hooks' names are. Raises
    ContractError when a hook's module does not exist.
    """
    roots = [checkout.root / folder for folder in (*PACKAGES, f"models/{model}/src")]
    modules = ["model_to_metal.stages.__main__", f"model_to_metal.stages.{interface.stages()[stage]}"]
    for hook in hooks:
        module = hook.partition(":")[0]
        if _locate(roots, module) is None:
            raise ContractError(f"the module {module!r} does not exist", where=f"models/{model}/model.toml")
        modules.append(module)
    files = _reach(roots, modules)
    names = sorted(path.relative_to(checkout.root).as_posix() for path in files)
    return Sources(_hash(checkout.root, names).files, entries=(stage, *sorted(hooks)))


def packages(checkout: Checkout) -> Sources:
    """The platform's packages that the image carries."""
    names = [name for package in IMAGE for name in checkout.files(_package(checkout, package))]
    return _hash(checkout.root, (name for name in names if not name.endswith((".md", ".pyc"))))


def image(checkout: Checkout, model: str) -> Sources:
    """What the build puts into the image from the checkout, and how: code, contract, Nix expressions."""
    folder = f"models/{model}"
    names = [*packages(checkout).files, *checkout.files(f"{folder}/src")]
    names += [name for name in (f"{folder}/model.toml", f"{folder}/bentofile.yaml") if (checkout.root / name).exists()]
    names += [*checkout.files("platform/nix"), "flake.nix"]
    return _hash(checkout.root, (name for name in names if not name.endswith((".md", ".pyc"))))


def code(checkout: Checkout, folders: Iterable[str]) -> Sources:
    """Every file of some folders, without documentation."""
    names = [name for folder in folders for name in checkout.files(folder)]
    return _hash(checkout.root, (name for name in names if not name.endswith((".md", ".pyc"))))


def locks(checkout: Checkout, model: str) -> Sources:
    """Every lock that the model's builds read (dvc.lock pins data, which `DataCommit` names)."""
    names = [
        name for name in checkout.files(f"models/{model}") if name.endswith(".lock") and not name.endswith("/dvc.lock")
    ]
    names += [name for name in checkout.files("platform/nix") if name.endswith(".lock")]
    return _hash(checkout.root, names)


def environment(checkout: Checkout, model: str, group: str) -> Sources:
    """What an environment is made from: the group's wheels, Debian's packages and the Nix expressions."""
    names = [f"models/{model}/environment/{group}.lock", *checkout.files("platform/nix")]
    if not (checkout.root / names[0]).is_file():
        raise ContractError(f"the environment {group!r} is not locked", where=names[0], fix=f"helix lock {model}")
    return _hash(checkout.root, (name for name in names if not name.endswith(".md")))


def host_environment(checkout: Checkout) -> Sources:
    """What the host environment (DVC, Hera, the `helix` command) is made from."""
    return _hash(checkout.root, ["requirements/host.lock"])


def _hash(root: Path, names: Iterable[str]) -> Sources:
    return Sources({name: _digest(root / name) for name in sorted(set(names))})


def _digest(path: Path) -> str:
    # A link is its target's name: what it points to is hashed where it lies.
    return digest_bytes(b"link:" + str(path.readlink()).encode() if path.is_symlink() else path.read_bytes())


def _package(checkout: Checkout, package: str) -> str:
    for folder in PACKAGES:
        if (checkout.root / folder / package).is_dir():
            return f"{folder}/{package}"
    raise ContractError(f"the package {package!r} is missing from the checkout", where=str(checkout.root))


def _reach(roots: Sequence[Path], modules: Iterable[str]) -> set[Path]:
    """Files reachable by imports from `modules`, packages' `__init__.py` included."""
    waiting = list(modules)
    seen: set[str] = set()
    files: set[Path] = set()
    while waiting:
        module = waiting.pop()
        if not module or module in seen:
            continue
        seen.add(module)
        waiting.append(module.rpartition(".")[0])
        path = _locate(roots, module)
        if path is not None:
            files.add(path)
            waiting.extend(imported(path.read_bytes(), module, is_package=path.name == "__init__.py"))
    return files


def _locate(roots: Sequence[Path], module: str) -> Path | None:
    relative = Path(*module.split("."))
    for root in roots:
        for candidate in (root / relative.with_suffix(".py"), root / relative / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def imported(source: bytes, module: str, *, is_package: bool = False) -> set[str]:
    """Modules that a module's source may import, also inside functions; unknown names do no harm."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node, is_package=is_package)
            # `from a import b` may name the module a.b or a value in a: both are tried.
            found.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
    return found


def _base(module: str, node: ast.ImportFrom, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])
