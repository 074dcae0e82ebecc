"""Files and folders that appear whole or not at all, never through a link, and are read only if they are regular."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked there, and so nothing is taken for left behind
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.workbench-[0-9a-f]{32}\.tmp")
_TIDIED_UP = "another process tidied up at this instant; try again"
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def status_of(path: Path) -> os.stat_result | None:
    """Look at `path` itself, not at what a link leads to: None if nothing is there, OSError unless a regular file is.

    The error's `strerror` says in words what stands there instead.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    return status


@contextmanager
def bounded(path: Path, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file of at most `limit` bytes; OSError for a link, a pipe, a device, or more.

    Neither a pipe that nobody writes to nor a sparse file of any size can hold the reader up.
    """
    status_of(path)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        yield file


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a file as `bounded` opens it."""
    with bounded(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # what is added meanwhile is for the next reader


def write_atomically(path: Path, content: str | bytes, replace: bool = True) -> None:
    """Give `path` this content (text as UTF-8) so that a crash leaves either the old content or the new one.

    replace : FileExistsError if false and anything is there, even if it came this instant. OSError, which names
    `path`, if it cannot be written, or is a link or anything else but a regular file; nothing is left behind then.
    """
    with temporary_beside(path) as (temporary, file):
        file.write(content.encode() if isinstance(content, str) else content)
        give_name(file, temporary, path, replace)


@contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Make a new hidden file in the folder of `path`, open for writing; what still has its name at the end is removed.

    It is locked as long as it is open, so that no other process takes it for left behind. An OSError within names
    `path`, which the user knows, and not this file.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            try:
                _lock(file)
                yield temporary, file
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def temporary_name(path: Path) -> Path:
    """Return a new name in the folder of `path`, by which `remove_leftovers` knows what was left behind."""
    return path.with_name(f".workbench-{uuid4().hex}.tmp")


def give_name(file: IO[bytes], temporary: Path, path: Path, replace: bool = True) -> None:
    """Bring a finished file to the disk and give it its name; see `write_atomically` for `replace` and the errors."""
    file.flush()
    os.fsync(file.fileno())
    status_of(path)
    rename(temporary, path, replace)
    sync_directory(path.parent)


@contextmanager
def temporary_folder_beside(path: Path) -> Iterator[Path]:
    """Make a new hidden folder beside `path`; what still has its name at the end is removed with all it holds.

    It is locked until then, as the files of `temporary_beside` are. An OSError within names `path`.
    """
    temporary = temporary_name(path)
    try:
        temporary.mkdir()
        handle = None if fcntl is None else os.open(temporary, os.O_RDONLY)
        try:
            if handle is not None:
                lock(handle)
            if not temporary.is_dir():
                raise OSError(errno.EAGAIN, _TIDIED_UP, str(path))
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if handle is not None:
                os.close(handle)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def give_folder_name(temporary: Path, path: Path) -> None:
    """Bring a finished folder to the disk and give it its name; a folder that is there is removed with all it holds.

    The old one goes only when the new one stands. OSError if anything but a folder is there.
    """
    for place, _, names in os.walk(temporary, topdown=False):
        for name in names:
            with Path(place, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(place))
    replaced = None
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        replaced = temporary_name(path)
        os.rename(path, replaced)
    try:
        os.rename(temporary, path)
    except OSError:
        if replaced is not None:
            os.rename(replaced, path)
        raise
    sync_directory(path.parent)
    if replaced is not None:
        shutil.rmtree(replaced)


def rename(temporary: Path, path: Path, replace: bool) -> None:
    """Rename a file; unless `replace`, FileExistsError if there is anything at `path`."""
    if replace:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
        temporary.unlink()
    except FileExistsError:
        raise
    except OSError:  # a file system that has no hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in a folder: what is ours and nobody has locked."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in filter(_TEMPORARY.fullmatch, names):
        with suppress(OSError):
            _remove_unless_locked(folder / name)


def _remove_unless_locked(path: Path) -> None:
    if fcntl is None:
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind == stat.S_IFREG:
            path.unlink()
        elif kind == stat.S_IFDIR:
            shutil.rmtree(path)
    finally:
        os.close(handle)


def sync_directory(folder: Path) -> None:
    """Make a rename within `folder` survive a power cut, where the system allows it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(file: IO[bytes] | int) -> None:
    """Wait until no other process has this open file locked, and lock it until it is closed, where the system can."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def alone_in(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Work in a folder while no other process does so under this lock, where the system can lock folders.

    waiting : called once if another process is at work there, before it is waited for; its death ends its work too.
    """
    handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                lock(handle)
            except OSError:  # a file system that locks no folders
                pass
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(file: IO[bytes]) -> None:
    lock(file)
    if os.fstat(file.fileno()).st_nlink == 0:
        raise OSError(errno.EAGAIN, _TIDIED_UP, file.name)
