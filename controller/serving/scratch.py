"""The folder for a server's downloads, which goes when its last process goes.

Every process of a server holds one lock on its folder, through a descriptor that workers inherit. A folder whose lock
is free belongs to nobody any more (its processes were killed), and the next server removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "understudy-serve-"
_LOCK = ".lock"
_SWEPT = 64  # at most so many folders at a start


class Scratch:
    """A folder of our own in the system's folder for temporary files. OSError where none can be made."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        sweep(root)
        # It gets its name when it is locked: whoever sweeps meanwhile sees no folder without an owner.
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
        self.lock_fd = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
        self.path = str(made.rename(root / made.name.removeprefix(".")))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock_fd)


def sweep(root: Path) -> None:
    """Remove the folders in ``root`` whose server is gone; what cannot be looked at or removed stays."""
    for _, folder in zip(range(_SWEPT), sorted(root.glob(f"{PREFIX}*")), strict=False):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
