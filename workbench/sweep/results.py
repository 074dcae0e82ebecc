"""The file of a sweep: one JSON line a finished unit, appended; nothing that was written is ever changed.

A line carries the identity of what it was measured on, so that what belongs to other files, prompts or kernels is never
taken for a result. What a killed process left of a line is cut off before the next one is written.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kernels.errors import WorkbenchError
from store.errors import StoreError
from store.text import printable
from store.whole_files import status_of
from workbench.sweep.figures import TAIL, ZERO

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing keeps two sweeps from one file there
    fcntl = None  # type: ignore[assignment]

_BEGINNING = b'{"unit"'  # of every line
_LONGEST = 1 << 24  # bytes of a line: a prompt of more than a million tokens
Line = dict[str, Any]


def read_lines(path: Path) -> Iterator[Line]:
    """The finished units of a file, one after another; StoreError, with its number, for a line that is none.

    What follows the last line break is the beginning of a line whose writer was killed, and left out.
    """
    name = printable(str(path), 1000)
    try:
        status_of(path)
        with path.open("rb") as file:
            number = 0
            while (raw := file.readline(_LONGEST)).endswith(b"\n"):
                number += 1
                yield _line(raw, f"{name}, line {number},")
            if len(raw) == _LONGEST:
                raise StoreError(f"{name}, line {number + 1}, is longer than any result; it is no file of a sweep")
    except FileNotFoundError:
        raise StoreError(f"{name} does not exist; `workbench sweep A B -o {name}` makes it") from None
    except OSError as error:
        raise StoreError(f"{name} cannot be read ({error.strerror})") from None


_BIN = re.compile(r"-?[0-9]{1,5}", re.ASCII)
_LOWEST, _HIGHEST = -17_300, 16_383  # bins of what float64 holds
_MOST = 1 << 53  # of a whole number: bytes, weights, tokens
_COUNT, _FIGURE = frozenset((int,)), frozenset((int, float, type(None)))
_KINDS = {"tokens": _COUNT, "flips": _COUNT, "pair": frozenset((str,)), "bins": frozenset((dict,))} | dict.fromkeys(
    ("kl", "kl_floor", "max", *TAIL), _FIGURE
)
# Of the line of a prompt, which has no part: what the sweep is.
_HEAD = {"a": dict, "b": dict, "ids": list, "by": str, "floor_path": str, "units": int, "prompts": int}
_SIDE = {"path": str, "format": str, "sha256": str, "numeric_path": str, "size": int}


def _line(raw: bytes, where: str) -> Line:
    try:
        found = json.loads(raw, parse_constant=_no_number, parse_int=_whole_number, parse_float=_finite)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _is_result(found):
        raise StoreError(f"{where} is no result of a sweep; give the file that `workbench sweep -o` wrote")
    return found


def _no_number(word: str) -> float:
    raise ValueError(word)  # NaN and infinities are none of JSON's


def _whole_number(word: str) -> int:
    found = int(word)
    if abs(found) > _MOST:
        raise ValueError(word[:40])
    return found


def _finite(word: str) -> float:
    found = float(word)
    if not math.isfinite(found):  # 1e999
        raise ValueError(word[:40])
    return found


def _is_bin(name: str) -> bool:
    return name == ZERO or (_BIN.fullmatch(name) is not None and _LOWEST <= int(name) <= _HIGHEST)


def _is_result(line: Line) -> bool:
    """Whether a line has all that is read of one, each of its kind."""
    unit, stored = line.get("unit"), line.get("stored")
    if not isinstance(unit, dict) or type(unit.get("prompt")) is not int or unit["prompt"] < 0:
        return False
    if any(type(value) not in (str, int, type(None)) for value in unit.values()):
        return False
    if any(key not in line or type(line[key]) not in kinds for key, kinds in _KINDS.items()) or line["tokens"] < 1:
        return False
    if not all(_is_bin(bin) and type(count) is int and count >= 0 for bin, count in line["bins"].items()):
        return False
    if line["kl"] is not None and (line["max"] is None or sum(line["bins"].values()) != line["tokens"]):
        return False
    head = len(unit) > 1 or (_has(line, _HEAD) and _has(line["a"], _SIDE) and _has(line["b"], _SIDE))
    return head and (stored is None or (isinstance(stored, dict) and _is_stored(stored)))


def _is_stored(stored: Line) -> bool:
    sides = [stored.get("a"), stored.get("b")]
    there = all(side is None or (isinstance(side, dict) and _has(side, {"type": str, "bytes": int})) for side in sides)
    return there and _has(stored, {"name": str, "elements": int}) and stored["elements"] > 0


def _has(record: Line, kinds: dict[str, type]) -> bool:
    return all(type(record.get(key)) is kind for key, kind in kinds.items())


class Results:
    """A file that lines are appended to; made by `appending`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def append(self, line: Line) -> None:
        """Write a finished unit, whole or not at all; OSError, which names the file, if there is no room for it."""
        start = self._file.seek(0, os.SEEK_END)
        raw = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(raw):
                written += os.write(self._file.fileno(), raw[written:])
        except OSError as error:
            self._file.truncate(start)
            error.filename = str(self._path)
            raise


@contextmanager
def appending(path: Path, afresh: bool) -> Iterator[Results]:
    """Open a file of results to append to, alone; what a killed writer left of its last line is cut off.

    afresh : what is there is thrown away. WorkbenchError if another sweep is writing to it, StoreError, and nothing is
    changed, if what would be cut off is not the beginning of a result behind others.
    """
    status_of(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = printable(str(path), 1000)
                raise WorkbenchError(
                    f"another sweep is writing to {name}; wait for it, or give -o another name"
                ) from None
            except OSError:  # a file system that locks nothing
                pass
        file.truncate(0 if afresh else _kept(path, file))
        try:
            yield Results(path, file)
        finally:
            os.fsync(file.fileno())


def _kept(path: Path, file: BinaryIO) -> int:
    """Bytes to keep: all but what a killed writer left of a line; StoreError if the end is anything else than that."""
    size, end = file.seek(0, os.SEEK_END), _whole(file)
    if end == size:
        return size
    file.seek(end)
    left, name = file.read(len(_BEGINNING)), printable(str(path), 1000)
    if not end or not _BEGINNING.startswith(left):
        raise StoreError(
            f"{name} does not end as a file of results does, and was left as it is; give -o another name, or --force "
            "to begin it afresh"
        )
    with path.open("rb") as again:
        _line(again.readline(_LONGEST), f"{name}, line 1,")
    return end


def _whole(file: BinaryIO) -> int:
    """Bytes up to the last line break."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - (1 << 16))
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
