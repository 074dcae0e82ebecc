"""What is an address and not a path."""

import re
from pathlib import Path

_ADDRESS = re.compile(r"(https?|hf):/+(?=[^/])")  # a path keeps one of two slashes


def address_of(source: Path | str) -> str | None:
    """Return what was given as an address, None if it is a path."""
    found = _ADDRESS.match(str(source))
    return None if found is None else f"{found[1]}://{str(source)[found.end() :]}"
