"""What a verdict says of a cell, as one sign and in words."""

from typing import Literal

# culprit : accused. wrong : adds more than rounding can cause, and nobody has named why. fine : run again, and right.
# inherited : run again behind the culprit; it differs by what came in. unchecked : not run again.
Mark = Literal["culprit", "wrong", "fine", "inherited", "unchecked"]
SIGNS: dict[Mark, str] = {"culprit": "✗", "wrong": "!", "fine": "✓", "inherited": "░", "unchecked": "?"}
MEANINGS: dict[Mark, str] = {
    "culprit": "broken",
    "wrong": "more than rounding",
    "fine": "fine",
    "inherited": "inherited",
    "unchecked": "not checked",
}
SENTENCES: dict[Mark, str] = {
    "culprit": "✗ BROKEN: the verdict accuses this cell",
    "wrong": "! adds more than rounding can cause",
    "fine": "✓ fine: adds no more than rounding can cause",
    "inherited": "░ inherited: itself it adds no more than rounding",
    "unchecked": "? not checked: not run again on one input",
}
