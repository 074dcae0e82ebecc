"""Whether what someone names as an output may be written: the one place that decides it."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kernels.errors import WorkbenchError
from store.text import printable
from store.whole_files import remove_leftovers, status_of


class OutputError(WorkbenchError, ValueError):
    """An output that would replace something that nobody asked to have replaced."""


def require_writable(path: Path, inputs: Iterable[Path], force: bool, again: str = "give -o another name") -> None:
    """Raise OutputError, one sentence, unless a file may be written at `path`.

    Only a regular file may stand there, and only if `force`; never a link, a folder, a device or a pipe, and never one
    of the `inputs`, by whatever name: a folder among them stands for every file in it.
    again : what to do about it.
    """
    name = printable(str(path), 1000)
    try:
        status = status_of(path)
    except OSError as error:
        raise OutputError(f"{name} cannot be written ({error.strerror}); {again}.") from None
    if status is None:
        if not path.parent.is_dir():
            where = printable(str(path.parent), 1000)
            raise OutputError(f"{name} cannot be written, there is no folder {where}; make it, or {again}.")
    elif (status.st_dev, status.st_ino) in map(_identity, _files(inputs)):
        raise OutputError(f"{name} is one of the files that this command reads; {again}.")
    elif not force:
        raise OutputError(f"{name} exists; {again}, or --force to replace it.")
    remove_leftovers(path.parent)


def require_writable_folder(path: Path, ours: Callable[[Path], bool], force: bool) -> None:
    """Raise OutputError, one sentence, unless a folder may be written at `path`.

    Only a folder may stand there, never a link to one: an empty one, or if `force` one whose every file is `ours`, one
    that an earlier run wrote.
    """
    name, again = printable(str(path), 1000), "give -o another name"
    if path.name in ("", ".."):
        raise OutputError(f"{name} is no name of a new folder; {again}.")
    try:
        is_folder = stat.S_ISDIR(path.lstat().st_mode)
        held = _held(path) if is_folder else []
    except FileNotFoundError:
        if not path.parent.is_dir():
            where = printable(str(path.parent), 1000)
            raise OutputError(f"{name} cannot be written, there is no folder {where}; make it, or {again}.") from None
        is_folder, held = True, []
    except OSError as error:
        raise OutputError(f"{name} cannot be written ({error.strerror}); {again}.") from None
    if not is_folder:
        raise OutputError(f"{name} is no folder, which is what this format writes; {again}.")
    if not all(map(ours, held)):
        raise OutputError(f"{name} is a folder that holds something else, which is never replaced; {again}.")
    if held and not force:
        raise OutputError(f"{name} exists; {again}, or --force to replace it.")
    remove_leftovers(path.absolute().parent)


def _held(folder: Path) -> list[Path]:
    """What lies in a folder and in those below it, but for folders that hold something."""
    found = []
    for entry in sorted(folder.iterdir()):
        inner = _held(entry) if entry.is_dir() and not entry.is_symlink() else []
        found += inner or [entry]
    return found


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield place
        for folder, _, names in os.walk(place):
            yield from (Path(folder, name) for name in names)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from every other, whatever it is called: links and letter case make no difference."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
