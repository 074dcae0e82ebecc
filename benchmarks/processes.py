"""Running the product as its user does: as a process, in a terminal, its memory watched from outside."""

import os
import pty
import re
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from types import TracebackType
from typing import NamedTuple, Self

WORKBENCH = (sys.executable, "-m", "workbench")

# Python keeps its bytecode for its users; a process of ours would compile every module anew without.
# Preferences of whoever runs this, such as a theme, take time of their own.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT["XDG_CONFIG_HOME"] = "/nonexistent"

_ESCAPES = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|[\]P][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\^_])")
_SAMPLE = 0.01  # seconds between two looks at the memory


def own_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold beyond mapped file pages."""
    total = 0
    for process in _family(pid):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue  # it has ended
        total += sum(int(kb) << 10 for kb in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.MULTILINE))
    return total


def _family(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        try:
            tasks = list(Path(f"/proc/{process}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


class Watched(NamedTuple):
    """Seconds of a command that has ended, those of the processor of all its processes, its largest own memory."""

    seconds: float
    processor: float
    memory: float


def run_watched(command: list[str], environment: dict[str, str]) -> Watched:
    """Run a command to its end. RuntimeError if it fails."""
    start, before, largest = time.perf_counter(), _of_children(), 0
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.DEVNULL, stderr=complaints, env=ENVIRONMENT | environment
        )
        while child.poll() is None:
            largest = max(largest, own_memory(child.pid))
            time.sleep(_SAMPLE)
        seconds = time.perf_counter() - start
        complaints.seek(0)
        if child.returncode not in (0, 1):  # alike, different
            raise RuntimeError(f"{' '.join(command)}: {complaints.read().decode(errors='replace')[-500:]}")
    return Watched(seconds, _of_children() - before, float(largest))


def _of_children() -> float:
    """Seconds of the processor of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Answer:
    """What a key has brought about: pieces of the output, each with the seconds from the key until it came."""

    pieces: tuple[tuple[float, bytes], ...]

    @property
    def shown(self) -> bytes:
        """All of it."""
        return b"".join(piece for _, piece in self.pieces)

    @property
    def last(self) -> float:
        """Seconds until the last byte; 0 if none came."""
        return self.pieces[-1][0] if self.pieces else 0.0

    def came(self, words: bytes) -> float:
        """Seconds until some words stood there; RuntimeError if they never did."""
        shown = b""
        for seconds, piece in self.pieces:
            shown += piece
            if words in _ESCAPES.sub(b" ", shown):
                return seconds
        raise RuntimeError(f"the screen never showed {words.decode()!r}")


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, command: list[str], columns: int, lines: int, environment: dict[str, str]) -> None:
        self.started = time.perf_counter()
        self.shown = b""
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            ioctl(0, TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execve(command[0], command, ENVIRONMENT | terminal | environment)  # noqa: S606

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.kill(self.pid, 15)
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):  # it may still paint, and wait until somebody reads that
            with suppress(OSError):
                self._read(_SAMPLE)
        os.close(self.screen)

    def press(self, key: bytes) -> None:
        """Type."""
        os.write(self.screen, key)

    def wait_for(self, seen: Callable[[bytes], bool], seconds: float) -> float:
        """Read the screen until what it has shown as text passes `seen`; returns when that came (perf_counter)."""
        end = time.perf_counter() + seconds
        while self._read(end - time.perf_counter()):
            came = time.perf_counter()
            if seen(_ESCAPES.sub(b" ", self.shown)):
                return came
        raise RuntimeError(f"the screen did not come: {_ESCAPES.sub(b' ', self.shown)[-300:]!r}")

    def settle(self, quiet: float) -> None:
        """Read until nothing has come for `quiet` seconds."""
        while self._read(quiet):
            pass
        self.shown = b""

    def answer(self, key: bytes, quiet: float, words: bytes = b"", seconds: float = 30) -> Answer:
        """Type, and read until something has come, `words` among it, and then nothing more for `quiet` seconds."""
        pieces: list[tuple[float, bytes]] = []
        self.shown, start = b"", time.perf_counter()
        self.press(key)
        while True:
            complete = bool(pieces) and words in _ESCAPES.sub(b" ", self.shown)
            before = len(self.shown)
            if not self._read(quiet if complete else start + seconds - time.perf_counter()):
                break
            pieces.append((time.perf_counter() - start, self.shown[before:]))
        self.shown = b""
        return Answer(tuple(pieces))

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.screen], [], [], max(seconds, 0))
        if not ready:
            return False
        self.shown += os.read(self.screen, 1 << 16)
        return True
