"""The name that somebody meant who wrote another one."""

from collections.abc import Iterable
from itertools import islice

from store.text import printable

_CUTOFF = 0.6  # of the similarity that difflib measures
_LONGEST, _MOST = 120, 5000  # characters, and names, that are compared: they may come from a hostile file


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean X?" for the known name nearest to `name`, in any case of letters; else `otherwise`."""
    from difflib import get_close_matches

    by_lower = {each[:_LONGEST].lower(): each for each in islice(known, _MOST)}
    near = get_close_matches(name[:_LONGEST].lower(), by_lower, 1, _CUTOFF)
    return f"did you mean {printable(by_lower[near[0]])}?" if near else otherwise
