"""Compiled kernels on disk: one file each, with a checksum, so that a file that was cut or spoiled is made anew.

Numba's own cache trusts its files: it raises EOFError on an empty one, runs whatever machine code a damaged one holds,
and refuses to work at all where it cannot write. Here nothing but time is lost: what cannot be loaded is compiled, and
what cannot be saved is compiled again by the next process.

The folder is named after everything that machine code depends on but the processor, which is part of each file's name:
Numba itself looks only at the file of the outermost function, and would not notice an edit to a helper elsewhere.
"""

import hashlib
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

from kernels.machine.sources import source_digest

_CHECKSUM = 32  # bytes of SHA-256
_UNFINISHED, _WRITTEN_BY_THEN = "unfinished-", 600  # seconds


def folder() -> Path:
    """Where the kernels of this source, this Python and this Numba are kept."""
    made_by = (
        source_digest(),
        sys.version_info[:3],
        sys.implementation.cache_tag,
        numba.__version__,
        llvmlite.__version__,
    )
    base = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("layer-workbench")
    return Path(base) / "kernels" / hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]


_problems: list[OSError] = []  # the first one to write a file


def problem() -> str:
    """Why kernels that were compiled in this process are not kept, in a sentence; empty if nothing is wrong."""
    if not _problems:
        return ""
    why = (_problems[0].strerror or str(_problems[0])).lower()
    return (
        f"compiled kernels cannot be kept in {folder()} ({why}), so every command compiles them again, which takes "
        "about a minute; let NUMBA_CACHE_DIR name a folder that can be written"
    )


def writable() -> bool:
    """Whether a file can be written into the folder now; the folder is made."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder()) as file:
            file.write(bytes(4096))
    except OSError as error:
        _problems.append(error)
    return not _problems


def whole(path: Path) -> bool:
    """Whether a file of the cache is as it was written."""
    return _content(path) is not None


def _content(path: Path) -> bytes | None:
    """What was stored in a file of the cache; None if it cannot be read or is damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    checksum, content = stored[:_CHECKSUM], stored[_CHECKSUM:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _remove_unfinished(place: Path) -> None:
    """Remove what processes left that were killed while they wrote a file."""
    for path in place.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _WRITTEN_BY_THEN:
                path.unlink()


class KernelCache(_Cache):
    """The cache of one kernel, as Numba's dispatcher wants it: a file per signature and processor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"

    @property
    def cache_path(self) -> str:
        return str(folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401
        """The compiled kernel, or None if there is none that is whole."""
        target_context.refresh()
        path = self._file(sig, target_context.codegen())
        content = _content(path)
        if content is not None:
            with suppress(Exception):  # whole, and no use all the same: whatever the reason, compiling mends it
                parts = pickle.loads(content)  # noqa: S301 - what we wrote ourselves
                return CompileResult._rebuild(target_context, *parts)  # type: ignore[no-untyped-call]
        with suppress(OSError):
            path.unlink()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Write a compiled kernel; on an error this process goes on without the cache."""
        if _problems:
            return
        path, content = self._file(sig, data.codegen), dumps(data._reduce())  # type: ignore[no-untyped-call]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(path.parent)
            with tempfile.NamedTemporaryFile(prefix=_UNFINISHED, dir=path.parent, delete=False) as file:
                unfinished = Path(file.name)
                try:
                    file.write(hashlib.sha256(content).digest() + content)
                    file.flush()
                    unfinished.replace(path)
                except BaseException:
                    unfinished.unlink()
                    raise
        except OSError as error:
            _problems.append(error)

    def _file(self, sig: Any, codegen: Any) -> Path:  # noqa: ANN401
        arguments, _ = normalize_signature(sig)  # type: ignore[no-untyped-call]  # text or types: whoever compiles it ahead, a call finds it
        variant = hashlib.sha256(repr((arguments, codegen.magic_tuple())).encode()).hexdigest()[:16]
        return folder() / f"{self._name}-{variant}.kernel"

    def enable(self) -> None:
        """Numba's interface: this cache is always on."""

    def disable(self) -> None:
        """Numba's interface: this cache is always on."""

    def flush(self) -> None:
        """Numba's interface: a source that changes gets another folder."""
