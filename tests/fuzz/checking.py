"""What must hold of whoever reads a file that lies."""

import io
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from kernels.errors import WorkbenchError
from store.open import open_model
from store.traces.open import open_trace
from workbench.__main__ import run
from workbench.cells.view import View
from workbench.lab.shelf import shelf_of
from workbench.session.session import Session

PATIENCE = 2.0  # seconds of the processor for one file
ASLEEP = 30.0  # seconds for one file, however busy the machine is
MEMORY = 256 << 20  # bytes beyond what the process has when it begins; the files are below 1 MiB


class BrokenError(AssertionError):
    """A promise that was not kept."""


def limit_memory() -> None:
    """Let whatever asks for much more memory than a small file is worth fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


_TIMERS = ((signal.ITIMER_PROF, signal.SIGPROF, PATIENCE), (signal.ITIMER_REAL, signal.SIGALRM, ASLEEP))


def _too_long(*_: object) -> None:
    raise BrokenError(f"it takes more than {PATIENCE} seconds of the processor, or {ASLEEP} in all")


class _Terminal(io.StringIO):
    """Keeps what is written; what is no terminal would get no escape sequences, because click takes them out."""

    def isatty(self) -> bool:
        return True


_OUT, _ERR = _Terminal(), _Terminal()  # two for all files, because click never lets go of a stream


def command(arguments: list[str], path: Path) -> int:
    """Run a command in this process; its exit code. What it writes must be fit for a terminal and name the file."""
    for stream in (_OUT, _ERR):
        stream.seek(0)
        stream.truncate()
    with redirect_stdout(_OUT), redirect_stderr(_ERR):
        code = run(arguments)
    written, said = _OUT.getvalue(), _ERR.getvalue()
    if code not in (0, 1, 2):
        raise BrokenError(f"exit code {code}: {said}")
    for line in (written + said).splitlines():
        if not line.replace("\t", "").isprintable():
            raise BrokenError(f"unprintable: {line!r}")
    if "internal error" in said or "Traceback" in said or "out of memory" in said:
        raise BrokenError(said)
    if code == 2 and (said.count("\n") != 1 or not any(name in said for name in (path.name, *_names(path)))):
        raise BrokenError(f"not one sentence that names {path.name}: {said!r}")
    return code


def _names(path: Path) -> list[str]:
    return [file.name for file in path.iterdir()] if path.is_dir() else [path.parent.name]


def check_model(path: Path, json: bool) -> None:
    """Inspect it; if it is accepted, every value of every tensor can be touched."""
    if command(["inspect", str(path), *(["--json"] if json else [])], path) == 2:
        return
    model = open_model(path)
    for name, info in model.tensors.items():
        if info.unread is None:
            model.weight(name).rows[:].sum()
    vocabulary = model.vocabulary
    for values in () if vocabulary is None else (vocabulary.tokens, vocabulary.merges, vocabulary.scores):
        if values is not None and len(values.decode()) != len(values):
            raise BrokenError("a vocabulary of another length than it says")


def check_trace(path: Path, json: bool) -> None:
    """Inspect it; if it is accepted, every stage can be read or is refused in a sentence."""
    if command(["inspect", str(path), *(["--json"] if json else [])], path) == 2:
        return
    try:
        trace = open_trace(path)
        for site in trace.sites():
            if trace.shape(site) is not None:
                trace.read(site)
    except WorkbenchError as error:
        _printable(str(error))


def check_session(path: Path, json: bool) -> None:
    """Open it, and read everything that is in it."""
    try:
        session = Session.open(path)
        View.from_json(session.spec.view)
        session.entries()
        shelf = shelf_of(session)
        for problem in shelf.problems:
            _printable(problem)
    except WorkbenchError as error:
        _printable(str(error))


def _printable(sentence: str) -> None:
    if not sentence.isprintable():
        raise BrokenError(f"unprintable: {sentence!r}")


def check(check_one: Callable[[Path, bool], None], path: Path, json: bool) -> str:
    """Check one file; what is wrong, empty if nothing is."""
    for timer, number, seconds in _TIMERS:
        signal.signal(number, _too_long)
        signal.setitimer(timer, seconds)
    start = time.process_time()
    try:
        check_one(path, json)
    except BrokenError as broken:
        return str(broken)
    except Exception as error:
        place, trace = "", error.__traceback__
        while trace is not None:
            place, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
        return f"{type(error).__name__}: {error} at {place}"
    finally:
        for timer, _, _ in _TIMERS:
            signal.setitimer(timer, 0)
        sys.stdout.flush()
    taken = time.process_time() - start
    return f"it takes {taken:.1f} seconds" if taken > PATIENCE else ""
