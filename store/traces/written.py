"""Which stores were written on this machine and have not been touched since.

For every store that is finished, an empty file in the user's folder for state is named by its device, inode, size
and the times of its last write and change. No program can set the time of change, so a file of which all five agree
is the one that was written; a copy, one from an archive, and one that anything was done to are none.
"""

import os
from contextlib import suppress
from pathlib import Path

import platformdirs

_KEPT = 1000  # marks; of twice as many the oldest are removed


def mark_ours(path: Path) -> None:
    """Remember a store that was just written, after it got its name; without a place to remember it nothing happens."""
    with suppress(OSError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _name(path.stat())).touch(mode=0o600)
        if len(os.listdir(folder)) > 2 * _KEPT:
            for mark in sorted(folder.iterdir(), key=lambda mark: mark.stat().st_mtime_ns)[:-_KEPT]:
                mark.unlink()


def is_ours(handle: int) -> bool:
    """Tell whether an open file is a store that was written here and is untouched."""
    with suppress(OSError):
        folder = _folder()
        status = folder.stat()
        owned = not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
        return owned and (folder / _name(os.fstat(handle))).exists()
    return False


def _folder() -> Path:
    return platformdirs.user_state_path("layer-workbench") / "written"


def _name(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(f"{number:x}" for number in numbers)
