"""SHA-256 of the files of a side, remembered between runs, as hashing gigabytes takes seconds."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from store.stored_model import StoredModel
from store.traces.run import DISTRIBUTION
from store.traces.trace import Trace
from store.whole_files import remove_leftovers, write_atomically

_KEPT = 500  # artifacts
_SETTLED = 2.0  # seconds after which a change of a file is sure to change its time stamp


def sha256_of(source: StoredModel | Trace, progress: Callable[[int, int], None] | None = None) -> str:
    """Return the SHA-256 of a model or a trace, as either defines its own.

    It comes from the cache if path, size, both times and inode of all its files are as they were then: the time of the
    last change of an inode tells of new bytes under an old time stamp.
    progress : called with bytes done and bytes in all while files are read.
    """
    cache = platformdirs.user_cache_path(DISTRIBUTION) / "sha256.json"
    name, state = str(source.path.resolve()), _state(source)
    known = _read(cache).get(name)
    if isinstance(known, dict) and known.get("files") == state and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    show = progress or (lambda *_: None)
    found = source.hashed(show) if isinstance(source, Trace) else source.sha256(show)
    newest = max((file[2] for file in state), default=0)
    if state == _state(source) and time.time_ns() - newest > _SETTLED * 1e9:
        entries = _read(cache)
        entries.pop(name, None)
        kept = dict(list(entries.items())[1 - _KEPT :]) | {name: {"files": state, "sha256": found}}
        with suppress(OSError):  # it is only a cache
            cache.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(cache.parent)
            write_atomically(cache, json.dumps(kept))
    return found


def _state(source: StoredModel | Trace) -> list[list[Any]]:
    paths = [file.path for file in source.files] if isinstance(source, Trace) else source.files
    found = ((path, path.stat()) for path in paths)
    return [
        [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for path, stat in found
    ]


def _read(cache: Path) -> dict[str, Any]:
    try:
        entries = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
