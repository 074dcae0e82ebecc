"""The prompts of a sweep, one a line of a file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from kernels.errors import WorkbenchError
from kernels.forward import check_tokens
from store.text import printable
from store.whole_files import read_bounded
from workbench.pair.tokens import shared_tokens
from workbench.sweep.question import Opened, Prompt

_MOST_BYTES = 1 << 26
_IDS = re.compile(r"\s*[0-9]{1,10}(?:(?:\s*,\s*|\s+)[0-9]{1,10})*\s*", re.ASCII)


def texts_of_lines(path: Path, pair: Opened) -> list[Prompt]:
    """Tokenize the lines of a file, those that are empty left out; a line that is a JSON string is the text in it.

    WorkbenchError, with its number, for a line that the two sides tokenize differently, or cannot run.
    """
    found = []
    for where, line in _lines(path):
        text = _said(line)
        try:
            ids = shared_tokens(list(pair), None, text).ids
        except WorkbenchError as error:
            raise WorkbenchError(f"{where}: {error}") from None
        found.append(_checked(Prompt(ids, text), pair, where))
    return _some(found, path)


def ids_of_lines(path: Path, pair: Opened) -> list[Prompt]:
    """The token ids in the lines of a file, separated by commas or white space; WorkbenchError for any other line."""
    found = []
    for where, line in _lines(path):
        if not _IDS.fullmatch(line):
            raise WorkbenchError(f"{where} is no list of token ids, such as 482,803,10")
        found.append(_checked(Prompt(tuple(map(int, re.findall("[0-9]+", line)))), pair, where))
    return _some(found, path)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    name = printable(str(path), 1000)
    try:
        content = read_bounded(path, _MOST_BYTES)
    except OSError as error:
        raise WorkbenchError(f"{name} cannot be read ({error.strerror})") from None
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise WorkbenchError(f"{name} is not text in UTF-8; write one prompt a line") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{name}, line {number}", line.removesuffix("\r")


def _said(line: str) -> str:
    """The text of a line; a JSON string can have line breaks in it."""
    if line.startswith('"'):
        try:
            text = json.loads(line)
        except ValueError:
            return line
        return text if isinstance(text, str) else line
    return line


def _checked(prompt: Prompt, pair: Opened, where: str) -> Prompt:
    for model in pair.of_length(len(prompt.tokens)):
        try:
            check_tokens(prompt.tokens, model.config)
        except WorkbenchError as error:
            raise WorkbenchError(f"{where}: {error}") from None
    return prompt


def _some(prompts: list[Prompt], path: Path) -> list[Prompt]:
    if not prompts:
        raise WorkbenchError(f"{printable(str(path), 1000)} has no prompts; write one a line")
    return prompts
