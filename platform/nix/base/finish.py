"""Finishes the base root filesystem: accounts, mount points, byte code.

    finish.py ROOT

ROOT is the folder that the Debian packages were unpacked into; runs inside the Nix build, with
the Python of that folder.
"""

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp", "etc/helix", "var/lib/helix/log", "opt/helix")
"""What a runtime mounts over; the root is read-only, so they must be there."""

UNWANTED = (
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/lib/python3.11/lib-dynload/nis.cpython-311-x86_64-linux-gnu.so",  # would pull in Kerberos
    "etc/motd",
    # What opens a prompt on a live server, or a web page of its modules; nothing that serves imports them.
    "usr/bin/pdb3.11",
    "usr/bin/pydoc3.11",
    "usr/lib/python3.11/pdb.py",
    "usr/lib/python3.11/pydoc.py",
    "usr/lib/python3.11/pydoc_data",
)

ETC = {
    "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nhelix:x:65532:65532:helix:/tmp:/usr/sbin/nologin\n",
    "group": "root:x:0:\nhelix:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main(root: Path) -> None:
    """Finish the folder."""
    for name in UNWANTED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    for path in (root / "usr/share/doc").rglob("*"):
        if (path.is_file() or path.is_symlink()) and path.name != "copyright" and not path.is_dir():
            path.unlink()
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    library = root / "usr/lib/python3.11"
    # Byte code that names its source by hash holds no time stamp.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(library, quiet=2, stripdir=str(root), prependdir="/", invalidation_mode=mode, workers=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
