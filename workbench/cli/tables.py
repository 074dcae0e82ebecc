"""Plain text tables and sizes for the terminal."""

from collections.abc import Iterable, Sequence

import click

from store.text import printable


def aligned(rows: Iterable[Sequence[object]], right: frozenset[int] = frozenset(), indent: str = "") -> list[str]:
    """Lines of a table whose columns are as wide as their widest text; columns in `right` end flush."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = (
        "  ".join(
            text.rjust(width) if n in right else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )
    return [indent + line.rstrip() for line in lines]


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
