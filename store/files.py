"""Files that are replaced as a whole or not at all."""

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: Path, content: str | bytes) -> None:
    """Give `path` this content (text as UTF-8) so that a crash leaves either the old content or the new one.

    A symbolic link is followed, not replaced. OSError if it cannot be written; nothing is left behind then.
    """
    path = path.resolve()
    temporary = write_beside(path, content)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_atomically(path: Path, content: str | bytes) -> None:
    """Like `write_atomically`, but FileExistsError if there is anything at `path`, even if it came this instant."""
    temporary = write_beside(path, content)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_beside(path: Path, content: str | bytes) -> Path:
    """Write the content to a new hidden file in the same folder, through to the disk, and return its path."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_directory(folder: Path) -> None:
    """Make a rename within `folder` survive a power cut, where the system allows it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
