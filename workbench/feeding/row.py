"""One thing that decides what a model is fed, on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["alike", "explained", "different", "unknown"]


@dataclass(frozen=True)
class Row:
    """What both sides say of one thing.

    shown
        What A and what B say, in short.
    status
        "alike"; "explained": they differ for a reason that feeds no other tokens, or that is the engines' own;
        "different"; "unknown": it could not be compared. words : why, in a sentence; "" where they are alike.

    Example:
        A text that the two sides make other token ids of, as JSON values.
    """

    what: str
    shown: tuple[str, str]
    status: Status
    words: str = ""
    example: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        a, b = self.shown
        return {"what": self.what, "a": a, "b": b} | {
            name: getattr(self, name) for name in ("status", "words", "example")
        }


def plain_row(what: str, a: object, b: object, words: str) -> Row:
    """Return a row of two values that are alike or different as they stand. words : what it means that they differ."""
    shown = ("none" if a is None else str(a), "none" if b is None else str(b))
    return Row(what, shown, "alike") if a == b else Row(what, shown, "different", words)
