"""Text of unknown origin as Markdown that shows it and does nothing else."""

import re
import shlex
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from store.text import printable

_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
# What would make a block of the line that it begins: a heading, a rule, an item of a list; or end a heading.
_BLOCK = re.compile(r"^[0-9]*(?:[-+.)#=:](?=$|[-#=:\s]))|(?<= )#(?=#*$)")
_MAX_INDENT = 40


def escaped(text: object, limit: int = 2000) -> str:
    """Return text on one line in which no character is markup, HTML or control, even where it begins the line."""
    return _BLOCK.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", _inline(text, limit).strip(" "))


def quoted(text: str) -> str:
    """Return text of several lines as a block quote; the indentation of a line stays visible."""
    lines = [line.expandtabs(4).rstrip() for line in text.strip().splitlines()]
    indents = ("&nbsp;" * min(len(line) - len(line.lstrip(" ")), _MAX_INDENT) for line in lines)
    return "\n".join(f"> {indent}{escaped(line)}".rstrip() for indent, line in zip(indents, lines, strict=True))


def table(rows: Iterable[Sequence[object]]) -> str:
    """Return a table, the first row its heading, padded so that it reads as plain text too."""
    texts = [[_inline(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def link(name: str) -> str:
    """Return the name of a file as the target of a link; bytes that are not UTF-8 stay what they are."""
    return quote(name.encode("utf-8", "surrogateescape"), safe="")


def command(*words: str) -> str:
    """Return a command line for a shell, quoted; control characters in $'...' form."""
    return " ".join(_shell_word(word) for word in words)


def code_block(lines: Sequence[str], language: str = "sh") -> str:
    """Return lines as a block of code, fenced by more backticks than any of them holds in a row."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _inline(text: object, limit: int = 2000) -> str:
    return _ACTIVE.sub(lambda found: "&amp;" if found[0] == "&" else "\\" + found[0], printable(str(text), limit))


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
