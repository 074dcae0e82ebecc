"""Weight formats, one file each, called as the type is; a file is loaded when something is asked of its format."""

from functools import cache
from importlib import import_module

from kernels.formats.format import Format
from kernels.formats.numbers import NUMBERS


@cache
def format_of(name: str) -> Format:
    """What there is to know about a format, by its name."""
    found: Format = import_module(f"{__name__}.{name.lower()}").FORMAT
    return found


def all_formats() -> tuple[Format, ...]:
    """All of them, in the order of their numbers."""
    return tuple(map(format_of, NUMBERS))
