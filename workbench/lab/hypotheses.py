"""The folder of hypotheses: one markdown file each, `NN-slug.md`, written by this program and edited by hand.

A file that a hand has broken is reported with its line and never written to.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from store.text import printable
from store.whole_files import lock, read_bounded, write_atomically
from workbench.lab.front_matter import compose_text, parse, revise
from workbench.lab.hypothesis import Hypothesis, HypothesisError

_NAME = re.compile(r"(\d{2,})-(.+)\.md")
_MARKER = re.compile(r"\.number-(\d+)")
_MAX_BYTES = 1 << 20


class Shelf(NamedTuple):
    """What a folder of hypotheses holds: the readable ones by number, and a sentence for every file that is not."""

    hypotheses: list[Hypothesis]
    problems: list[str]


def load(folder: Path) -> Shelf:
    """Read all hypotheses of a folder; a folder that does not exist is empty."""
    shelf = Shelf([], [])
    taken: dict[int, str] = {}
    files = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    for path in sorted(file for file in files if file.suffix == ".md" and not file.name.startswith(".")):
        try:
            hypothesis = read(path)
            if hypothesis.number in taken:
                other = taken[hypothesis.number]
                raise HypothesisError(f"{_shown(path)} has the number of {other}; rename one of them.")
            taken[hypothesis.number] = printable(path.name)
            shelf.hypotheses.append(hypothesis)
        except HypothesisError as error:
            shelf.problems.append(str(error))
    shelf.hypotheses.sort(key=lambda hypothesis: hypothesis.number)
    return shelf


def read(path: Path) -> Hypothesis:
    """Read one file; HypothesisError names the file, the line and what to do."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise HypothesisError(f"{_shown(path)} is not named NN-slug.md; rename it to be listed.")
    return replace(parse(_shown(path), _text(path)), number=int(name[1]), slug=name[2])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and keep other processes of this program from changing it, where the system can."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":  # a folder cannot be opened there
        yield
        return
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


def write(folder: Path, hypothesis: Hypothesis) -> Hypothesis:
    """Write a new hypothesis (number 0) under the next free number, or the changes of one that was read before.

    To be called within `locked`. What a hand has added to the file stays. HypothesisError if the file has changed since
    it was read, or cannot be written. Returns the hypothesis as it now lies in the folder.
    """
    try:
        if hypothesis.number == 0:
            hypothesis = replace(hypothesis, number=_next_number(folder), slug=_slug(hypothesis.title))
            _put(folder / hypothesis.filename, compose_text(hypothesis))
            return read(folder / hypothesis.filename)
        return amend(folder, hypothesis.filename, lambda there: _of_the_same_text(there, hypothesis))
    except OSError as error:
        where = _shown(folder / hypothesis.filename)
        raise HypothesisError(f"{where} cannot be written ({error.strerror}); the note is not saved.") from error


def amend(folder: Path, filename: str, change: Callable[[Hypothesis], Hypothesis]) -> Hypothesis:
    """Read a file, change it and write it; to be called within `locked`.

    change : makes the new hypothesis of the one that is there. Everything else in the file stays as it is. OSError, or
    HypothesisError. Returns the hypothesis as it now lies in the folder.
    """
    path = folder / filename
    there = read(path)
    changed = change(there)
    text = revise(_shown(path), there.source, changed)
    if _text(path) != there.source:  # an editor knows nothing of the lock
        raise HypothesisError(f"{_shown(path)} was changed on disk at this instant; try again.")
    _put(path, text)
    return read(path)


def _of_the_same_text(there: Hypothesis, hypothesis: Hypothesis) -> Hypothesis:
    if there.source != hypothesis.source:
        what = "was changed on disk since it was read; reload it, then change it again."
        raise HypothesisError(f"hypotheses/{printable(there.filename)} {what}")
    return hypothesis


def _put(path: Path, text: str) -> None:
    content = text.encode("utf-8", "backslashreplace")
    if len(content) > _MAX_BYTES:  # it could not be read again
        what = "take its history out of the file and keep it elsewhere."
        raise HypothesisError(f"{_shown(path)} would have more than {_MAX_BYTES} bytes; {what}")
    write_atomically(path, content)


def _text(path: Path) -> str:
    try:
        content = read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise HypothesisError(f"{_shown(path)} cannot be read ({error.strerror}).") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise HypothesisError(f"{_shown(path)}, line {line}: it is not UTF-8 text; save it as UTF-8.") from error


def _next_number(folder: Path) -> int:
    """Reserve and return a number that no hypothesis of this folder has or ever had."""
    while True:
        names = [path.name for path in folder.iterdir()]
        found = [match for name in names if (match := _NAME.fullmatch(name) or _MARKER.fullmatch(name))]
        number = max((int(match[1]) for match in found), default=0) + 1
        try:
            (folder / f".number-{number:02d}").touch(exist_ok=False)
        except FileExistsError:
            continue  # another process took it this instant
        return number


def _slug(title: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:48].strip("-")
    return words or "hypothesis"


def _shown(path: Path) -> str:
    return f"hypotheses/{printable(path.name)}"
