"""Makes a Python environment from wheels: unpacks them and compiles to byte code.

    install.py OUT BASE WHEEL… [--link ENVIRONMENT]…

Gives, under OUT: `site-packages/`, `wheels.json` (distribution → its files below
`site-packages`), `bin/python`, and `base`, a link to the root filesystem that the environment
runs on. What lies in the site-packages of a linked ENVIRONMENT is linked, folder by folder. Runs
inside the Nix build, standard library only.
"""

import compileall
import json
import py_compile
import sys
import zipfile
from pathlib import Path, PurePosixPath

HOME = "/opt/helix/site-packages"
"""Where images hold the environment; tracebacks name it."""


def main(out: Path, base: str, *arguments: str) -> None:
    """Install the wheels, then link to what other environments hold."""
    words = list(arguments)
    wheels = words[: words.index("--link")] if "--link" in words else words
    linked = [Path(word) for word in words[len(wheels) :] if word != "--link"]
    owners: dict[str, list[str]] = {}
    for wheel in wheels:
        # Store names are <hash>-<file name>.
        distribution = Path(wheel).name.split("-", 1)[1].split("-", 1)[0]
        owners[distribution] = unpack(Path(wheel), out)
    site = out / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    # Byte code that names its source by hash holds no time stamp; a read-only image never checks it.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        site, quiet=2, stripdir=str(site), prependdir=HOME, invalidation_mode=mode, maxlevels=100, workers=1
    )
    for environment in linked:
        owners |= link(environment, out)
    (out / "wheels.json").write_text(json.dumps(owners, sort_keys=True))
    (out / "base").symlink_to(base)
    (out / "bin").mkdir()
    (out / "bin/python").symlink_to("/usr/bin/python3.11")


def link(environment: Path, out: Path) -> dict[str, list[str]]:
    """Link to what lies in the site-packages of another environment; gives its `wheels.json`."""
    for source in sorted((environment / "site-packages").iterdir()):
        target = out / "site-packages" / source.name
        if source.name == "__pycache__":
            target.mkdir(exist_ok=True)
            pairs = [(one, target / one.name) for one in sorted(source.iterdir())]
        else:
            pairs = [(source, target)]
        for one, place_of_it in pairs:
            if place_of_it.exists():
                sys.exit(f"{environment.name}: a wheel brought {one.name}, too, and folders are not merged")
            place_of_it.symlink_to(one)
    owners: dict[str, list[str]] = json.loads((environment / "wheels.json").read_text())
    return owners


def unpack(wheel: Path, out: Path) -> list[str]:
    """Unpack one wheel (PEP 427); gives the files that it brought, relative to `site-packages`, sorted."""
    brought = []
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            target = out / place(entry.filename)
            data = archive.read(entry)
            if target.exists() and target.read_bytes() != data:
                sys.exit(f"{wheel.name}: another wheel brought a different {entry.filename}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o755 if entry.external_attr >> 16 & 0o111 else 0o644)
            if target.is_relative_to(out / "site-packages"):
                brought.append(target.relative_to(out / "site-packages").as_posix())
    return sorted(brought)


def place(name: str) -> str:
    """Where a file of a wheel goes, relative to the environment."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        sys.exit(f"a wheel names a file outside itself: {name}")
    if not parts[0].endswith(".data") or len(parts) < 3:
        return f"site-packages/{name}"
    rest = "/".join(parts[2:])
    return f"site-packages/{rest}" if parts[1] in ("purelib", "platlib") else f"{parts[1]}/{rest}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
