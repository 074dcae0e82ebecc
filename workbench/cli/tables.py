"""Plain text tables and sizes for the terminal."""

import shutil
from collections.abc import Callable, Iterable, Sequence

import click

from store.text import printable


def aligned(
    rows: Iterable[Sequence[object]], right: frozenset[int] = frozenset(), indent: str = "", gap: str = "  "
) -> list[str]:
    """Lines of a table whose columns are as wide as their widest text; columns in `right` end flush."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = (
        gap.join(
            text.rjust(width) if n in right else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )
    return [indent + line.rstrip() for line in lines]


def in_blocks(layers: Sequence[int], grid: Callable[[Sequence[int]], list[list[str]]]) -> list[str]:
    """Lines of a map of stages by layers, in as many tables one below the other as the terminal is too narrow for.

    grid : the rows of a table of some layers, a heading first.
    """
    columns, lines = shutil.get_terminal_size((120, 24)).columns, list[str]()
    per_block = max((columns - 30) // 11, 1)
    for first in range(0, max(len(layers), 1), per_block):
        rows = grid(layers[first : first + per_block])
        lines += ["", *aligned(rows, right=frozenset(range(1, len(rows[0]))))]
    return lines


def echo(text: str) -> None:
    """Print text on stdout; whatever a terminal might act on comes out escaped, wherever it came from."""
    click.echo("\n".join(printable(line, len(line)) for line in text.split("\n")))


def bytes_text(size: int) -> str:
    """Return a size as people write it: 812 B, 3.3 MiB."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{size} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def shape_text(shape: Sequence[int] | None) -> str:
    """Return a shape as 768×256."""
    return "×".join(map(str, shape)) if shape else "-"
