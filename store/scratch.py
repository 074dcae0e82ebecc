"""Folders for what is needed only while a command runs, in the system's folder for temporary files."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked there, and so nothing is taken for left behind
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"layer-workbench-[0-9a-f]{32}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that nobody else can read; it is removed at the end, and locked until then."""
    while True:
        path = Path(tempfile.gettempdir()) / f"layer-workbench-{uuid4().hex}"
        path.mkdir(mode=0o700)
        handle = _locked(path, wait=True)
        if path.is_dir():  # and no other process tidied up before it was locked
            break
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_left_behind() -> None:
    """Remove the folders of this user whose processes were killed: no other name, no link, nothing that is locked."""
    place = tempfile.gettempdir()
    with suppress(OSError):
        for name in filter(_NAME.fullmatch, os.listdir(place)):
            path = Path(place, name)
            if _is_own_folder(path) and (handle := _locked(path, wait=False)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(handle)


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _locked(folder: Path, wait: bool) -> int | None:
    """Lock a folder, and return what keeps it locked; None if it is in use, or gone, or the system cannot."""
    if fcntl is None:
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle
    return None
