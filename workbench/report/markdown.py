"""Text of unknown origin as Markdown that shows it and does nothing else."""

import re
import shlex
from collections.abc import Iterable, Sequence

from store.text import printable

_ACTIVE = re.compile(r"[\\`*\[\]<>|~&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def escaped(text: object, limit: int = 2000) -> str:
    """Return text on one line in which no character is markup, HTML or control."""
    return _ACTIVE.sub(lambda found: "&amp;" if found[0] == "&" else "\\" + found[0], printable(str(text), limit))


def quoted(text: str) -> str:
    """Return text of several lines as a block quote."""
    return "\n".join(f"> {escaped(line)}".rstrip() for line in text.strip().splitlines())


def table(rows: Iterable[Sequence[object]]) -> str:
    """Return a table, the first row its heading, padded so that it reads as plain text too."""
    texts = [[escaped(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def command(*words: str) -> str:
    """Return a command line for a shell, quoted; control characters in $'...' form."""
    return " ".join(_shell_word(word) for word in words)


def code_block(lines: Sequence[str], language: str = "sh") -> str:
    """Return lines as a block of code, fenced by more backticks than any of them holds in a row."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    inside = "".join(
        c
        if c.isprintable() and c not in "\\'"
        else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "surrogateescape"))
        for c in word
    )
    return f"$'{inside}'"
