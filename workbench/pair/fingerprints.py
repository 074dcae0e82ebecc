"""SHA-256 of model files, remembered between runs, because hashing gigabytes takes seconds."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from store.stored_model import StoredModel
from store.traces.run import DISTRIBUTION
from store.whole_files import remove_leftovers, write_atomically

_KEPT = 500  # artifacts
_SETTLED = 2.0  # seconds after which a change of a file is sure to change its time stamp


def sha256_of(artifact: StoredModel, progress: Callable[[int, int], None] | None = None) -> str:
    """Return artifact.sha256(), from the cache if path, size, time and inode of all its files are as they were then.

    progress : called with bytes done and bytes in all while the files are read.
    """
    cache = platformdirs.user_cache_path(DISTRIBUTION) / "sha256.json"
    name, state = str(artifact.path.resolve()), _state(artifact)
    known = _read(cache).get(name)
    if isinstance(known, dict) and known.get("files") == state and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    found = artifact.sha256(progress)
    newest = max(file[2] for file in state)
    if state == _state(artifact) and time.time_ns() - newest > _SETTLED * 1e9:
        entries = _read(cache)
        entries.pop(name, None)
        kept = dict(list(entries.items())[1 - _KEPT :]) | {name: {"files": state, "sha256": found}}
        with suppress(OSError):  # it is only a cache
            cache.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(cache.parent)
            write_atomically(cache, json.dumps(kept))
    return found


def _state(artifact: StoredModel) -> list[list[Any]]:
    found = ((path, path.stat()) for path in artifact.files)
    return [[str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino] for path, stat in found]


def _read(cache: Path) -> dict[str, Any]:
    try:
        entries = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
