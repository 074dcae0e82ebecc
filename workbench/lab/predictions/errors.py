"""What is wrong with a prediction, and at which character."""

import unicodedata

from kernels.errors import WorkbenchError
from store.text import printable

_BEFORE, _AFTER = 60, 40  # characters shown around the place


class PredictionError(WorkbenchError, ValueError):
    """A prediction that cannot be read.

    what : the sentence without the place. at : index of the character. pointed : the line of the prediction, and under
    it a caret below that character.
    """

    def __init__(self, what: str, source: str, at: int) -> None:
        at = min(max(at, 0), len(source))
        line = source.count("\n", 0, at) + 1
        begin = source.rfind("\n", 0, at) + 1
        place = f"character {at - begin + 1}" if "\n" not in source else f"line {line}, character {at - begin + 1}"
        super().__init__(f"{what} (at {place})")
        self.what, self.source, self.at = what, source, at
        self.pointed = _pointed(source, begin, at)

    def of(self, field: str) -> "PredictionError":
        """Return the error with the name of the field that holds the prediction."""
        return PredictionError(f"{field}: {self.what}", self.source, self.at)


def _pointed(source: str, begin: int, at: int) -> tuple[str, str]:
    end = source.find("\n", at)
    end = len(source) if end < 0 else end
    first, last = max(begin, at - _BEFORE), min(end, at + _AFTER)
    before = "…" * (first > begin) + printable(source[first:at])
    after = printable(source[at:last]) + "…" * (last < end)
    return before + after, " " * _columns(before) + "^"


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
