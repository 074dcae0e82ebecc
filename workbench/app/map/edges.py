"""What the map does not show: how many rows and columns are beyond its edges."""

from typing import NamedTuple


class Beyond(NamedTuple):
    """How many lie before the first and after the last that are shown."""

    before: int
    after: int

    @classmethod
    def of(cls, first: int, shown: int, count: int) -> "Beyond":
        """Count from the first one shown, how many are shown, and how many there are."""
        return cls(first, max(count - first - shown, 0))


def range_words(axis: list[int], of: int, first: int, beyond: Beyond, room: int) -> str:
    """Say in `room` columns which layers are shown of how many, and how many there are to the left and right."""
    last = axis[len(axis) - 1 - beyond.after]
    words = f"{axis[first]}-{last} of {of}"
    left, right = (f"{count}" if count else "" for count in beyond)
    arrows = f"{left}← {words} →{right}" if left and right else f"{left}← {words}" if left else f"{words} →{right}"
    for text in (f"layer {arrows}", arrows, arrows.replace("← ", "←").replace(" →", "→")):
        if len(text) <= room:
            return text
    return words


def foot_words(rows: Beyond, columns: Beyond, row: str, column: str) -> str:
    """Say what is beyond every edge. row, column : what a row and a column are, a layer or a stage."""
    said = (
        ("↑", rows.before, row),
        ("↓", rows.after, row),
        ("←", columns.before, column),
        ("→", columns.after, column),
    )
    return "   ".join(f"{arrow} {count} more {what}{'s' * (count > 1)}" for arrow, count, what in said if count)
