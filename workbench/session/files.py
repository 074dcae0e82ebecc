"""The files of a session folder: their names, and reading and appending to them whatever stands under these names.

A session may come from somebody else. Nothing in its folder is followed out of it, waited for, or read without bound.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from store.traces.run import now
from store.whole_files import lock, read_bounded, status_of, write_atomically
from workbench.session.plain import plain

SPEC_FILE, LOG_FILE, DRAFTS = "session.json", "log.jsonl", "drafts.json"
FINDINGS, FINDINGS_PICTURE, FINDINGS_MAPS = "findings.md", "findings.svg", "findings-maps.svg"
COPIED = "copied.txt"
HYPOTHESES = "hypotheses"
STORES = {"a": "a.h5", "b": "b.h5"}
KEPT_CELLS = "cells.jsonl"  # in place of these, where no tensors are kept
# What is written without asking.
OWN_FILES = (
    *STORES.values(),
    *(f"{name}.partial" for name in STORES.values()),
    KEPT_CELLS,
    LOG_FILE,
    FINDINGS,
    FINDINGS_PICTURE,
    FINDINGS_MAPS,
    DRAFTS,
    COPIED,
)
# Bytes; a session of 100,000 tokens has less than a tenth of it in session.json.
_LIMITS = {SPEC_FILE: 1 << 24, LOG_FILE: 1 << 28, DRAFTS: 1 << 24, KEPT_CELLS: 1 << 30}


class SessionError(WorkbenchError, ValueError):
    """A session folder that cannot be made, opened or written."""


def require_free(folder: Path) -> None:
    """Raise SessionError if a folder that is no session holds anything that a session in it would replace."""
    there = [name for name in OWN_FILES if os.path.lexists(folder / name)]
    notes = folder / HYPOTHESES
    if os.path.lexists(notes) and (notes.is_symlink() or not notes.is_dir() or any(notes.iterdir())):
        there.append(HYPOTHESES)
    if there:
        raise SessionError(
            f"{shown(folder)} is not a session and holds {there[0]}, which a session there would replace; "
            "choose another folder."
        )


def require_plain(folder: Path) -> None:
    """Raise SessionError if what a session reads and writes is a link, a pipe, a device or the like, or is huge."""
    for name in (SPEC_FILE, *OWN_FILES):
        try:
            status = status_of(folder / name)
            if status is not None and status.st_size > _LIMITS.get(name, status.st_size):
                raise OSError(errno.EFBIG, f"it has more than {_LIMITS[name]} bytes")
        except OSError as error:
            raise refused(folder / name, error) from None
    notes = folder / HYPOTHESES
    if os.path.lexists(notes) and not stat.S_ISDIR(notes.lstat().st_mode):
        raise SessionError(f"{shown(notes)} is not a folder of its own; put a folder there, or remove it.")


def require_not_own(folder: Path, sides: Iterable[tuple[str, str]]) -> None:
    """Raise SessionError if a side of a pair, (name, path), is a file that its session would replace.

    The store of a side may be that side.
    """
    for name in (SPEC_FILE, *OWN_FILES):
        for side, path in sides:
            if name != STORES[side] and _same_file(folder / name, Path(path)):
                raise SessionError(
                    f"{shown(path)} is side {side.upper()} and would be replaced as {name} of the session; "
                    "choose another folder, or copy the file out of this one."
                )


def read_spec(folder: Path) -> bytes:
    """Return the content of session.json."""
    try:
        return read_bounded(folder / SPEC_FILE, _LIMITS[SPEC_FILE])
    except FileNotFoundError:
        if not os.path.lexists(folder):
            raise SessionError(
                f"{shown(folder)} does not exist; workbench sessions lists those that there are."
            ) from None
        raise SessionError(f"{shown(folder)} is not a session: it holds no {SPEC_FILE}.") from None
    except OSError as error:
        raise refused(folder / SPEC_FILE, error) from None


def read_drafts(folder: Path) -> bytes:
    """Return the content of drafts.json, empty if there is none."""
    try:
        return read_bounded(folder / DRAFTS, _LIMITS[DRAFTS])
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise refused(folder / DRAFTS, error) from None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a log, oldest first; a line that a crash has torn is left out."""
    return list(read_numbered_log(folder).values())


def read_numbered_log(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the entries of a log by the number of their line, from 1, oldest first."""
    try:
        lines = read_bounded(folder / LOG_FILE, _LIMITS[LOG_FILE]).splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise refused(folder / LOG_FILE, error) from None
    entries = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries[number] = entry
    return entries


def append_log(folder: Path, kind: str, /, **facts: Any) -> None:  # noqa: ANN401
    """Append one line to a session's log and bring it to the disk; other processes may do so at the same time.

    SessionError if it cannot be written as a whole; the log is then as it was.
    """
    line = json.dumps(plain({"time": now(), "kind": kind, **facts})).encode() + b"\n"
    path = folder / LOG_FILE
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        status = status_of(path)
        if status is not None and status.st_nlink > 1:  # a log of its own, which is no file elsewhere too
            write_atomically(path, read_bounded(path, _LIMITS[LOG_FILE]))
        with open(os.open(path, flags, 0o666), "rb+", buffering=0) as file:
            lock(file)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # a crash has torn the last one
            try:
                while line:  # a disk that is nearly full takes a part
                    taken = file.write(line)
                    if not taken:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    line = line[taken:]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise SessionError(f"{shown(path)} cannot be written ({error.strerror}).") from error


def shown(path: Path | str) -> str:
    """Return a path as messages name it."""
    return printable(str(path), 1000)


def refused(path: Path, error: OSError) -> SessionError:
    """Return what to say of a file of a session that cannot be read."""
    if isinstance(error, NotADirectoryError):
        return SessionError(f"{shown(path.parent)} is a file and not the folder of a session; give that folder.")
    return SessionError(f"{shown(path)} cannot be read ({error.strerror}).")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
