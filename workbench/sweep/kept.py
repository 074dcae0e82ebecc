"""Runs of A that stay on disk under what they are of, so that none is computed twice on a machine, by no later sweep.

The folder is this user's cache: what cannot be read there is computed, and what cannot be written is not kept.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from store.files.model_file import ModelFile
from store.traces.npz_arrays import read_npz
from store.traces.run import DISTRIBUTION
from store.whole_files import give_name, remove_leftovers, temporary_beside

MOST = 4 << 30  # bytes of all of them; those that were not used for longest go first
_SHARE = 10  # of the free room of the disk, one part at the most is taken by one run
Arrays = Mapping[str, NDArray[Any]]


def folder() -> Path:
    """Where they are kept."""
    return platformdirs.user_cache_path(DISTRIBUTION) / "runs"


def kept(of: str) -> Arrays | None:
    """The arrays that were kept under a name; None if there are none, or none that are whole."""
    path = _path(of)
    try:
        located = read_npz(ModelFile.at(path))
        found = {name: np.array(array.load()) for name, array in located.items()}  # each has a checksum
        os.utime(path)
    except (OSError, WorkbenchError):
        return None
    return found


def keep(of: str, arrays: Arrays) -> None:
    """Keep arrays, as long as there is room."""
    size = sum(array.nbytes for array in arrays.values())
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder())
        if size > min(MOST, shutil.disk_usage(folder()).free // _SHARE):
            return
        _make_room(size)
        with temporary_beside(_path(of)) as (temporary, file):
            np.savez(file, **arrays)  # type: ignore[arg-type]
            give_name(file, temporary, _path(of))


def _path(of: str) -> Path:
    return folder() / f"{hashlib.sha256(of.encode()).hexdigest()}.npz"


def _make_room(size: int) -> None:
    """Remove what was not used for longest until there is room for so many bytes."""
    known = sorted(_known(), key=lambda file: file[1].st_mtime_ns)
    held = sum(status.st_size for _, status in known)
    for path, status in known:
        if held + size <= MOST:
            return
        with suppress(OSError):
            path.unlink()
        held -= status.st_size


def _known() -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder().glob("*.npz"):
        with suppress(OSError):
            yield path, path.stat()
