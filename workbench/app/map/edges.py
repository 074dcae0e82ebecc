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


def foot_words(rows: Beyond, columns: Beyond, row: str, column: str) -> str:
    """Say what is beyond every edge. row, column : what a row and a column are, a layer or a stage."""
    said = (
        ("↑", rows.before, row),
        ("↓", rows.after, row),
        ("←", columns.before, column),
        ("→", columns.after, column),
    )
    return "   ".join(f"{arrow} {count} more {what}{'s' * (count > 1)}" for arrow, count, what in said if count)
