"""What is changed between two runs of one model: the settings by their names, and what a run is with one of them."""

from typing import NamedTuple

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable

NAMES = ("tokens", "batch", "kv", "flash", "repack", "threads", "prefix")
_MOST = {"batch": 1 << 16, "threads": 512, "prefix": 1 << 16}


class CannotVaryError(WorkbenchError):
    """A setting that this runner does not have, or these tokens do not show: one sentence."""


class Change(NamedTuple):
    """A setting, and the value that it is changed to where the user gave one."""

    name: str
    value: str | None = None

    @property
    def number(self) -> int | None:
        """The value of a setting that is a number."""
        return None if self.value is None else int(self.value)

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


def changes(words: str) -> tuple[Change, ...]:
    """Read "tokens,kv=q8_0,batch=4"; WorkbenchError, one sentence, for anything else."""
    found = []
    for word in words.split(","):
        name, equals, value = word.strip().partition("=")
        if name not in NAMES:
            meant = did_you_mean(name, NAMES, f"it takes some of {', '.join(NAMES)}")
            raise WorkbenchError(f"{printable(name, 60)!r} is no setting that can be varied; {meant}")
        if equals and name not in (*_MOST, "kv"):
            raise WorkbenchError(f"{name} takes no value; give {name} alone")
        plain = value.isascii() and value.isdecimal() and len(value) < 6
        if equals and name in _MOST and not (plain and 1 <= int(value) <= _MOST[name]):
            raise WorkbenchError(f"{name}={printable(value, 40)} is no number from 1 to {_MOST[name]}; give {name}=N")
        if equals and not value:
            raise WorkbenchError("kv= names no type; give kv=f16 or another type of the cache")
        found.append(Change(name, value if equals else None))
    return tuple(dict.fromkeys(found))


def calls_of(change: Change, tokens: int) -> tuple[int, ...]:
    """How many tokens are computed at a time where `tokens`, `batch` or `prefix` is changed.

    By default a batch is a third of all tokens and a prefix one half. CannotVaryError where that is no change.
    """
    if tokens < 2:
        raise CannotVaryError("a single token can be computed in one way only; give a longer prompt")
    if change.name == "prefix":
        first = change.number or -(-tokens // 2)
        if first >= tokens:
            raise CannotVaryError(f"a prefix of {first} leaves nothing of {tokens} tokens; give prefix=N below that")
        return first, tokens - first
    size = 1 if change.name == "tokens" else change.number or max(2, -(-tokens // 3))
    if size >= tokens:
        raise CannotVaryError(f"a batch of {size} holds all {tokens} tokens; give batch=N below that")
    return tuple(min(size, tokens - start) for start in range(0, tokens, size))


def calls_words(calls: tuple[int, ...]) -> str:
    """Calls as a reader takes them in."""
    if len(calls) == 1:
        return "all at once"
    if set(calls) == {1}:
        return "one by one"
    if len(calls) == 2:
        return f"{calls[0]} first, then {calls[1]}"
    return f"{calls[0]} at a time"
