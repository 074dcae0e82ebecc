"""Kinds of values in a prediction: truth values, texts, and numbers with their units."""

from dataclasses import dataclass
from typing import Literal

Unit = tuple[tuple[str, int], ...]  # names with their exponents, sorted; empty for a ratio
RATIO: Unit = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value is.

    type : "any" for what is known only when it is measured. unit : of a number; None for one that goes with every unit,
    as those that are written down do.
    """

    type: Literal["number", "string", "truth", "any"]
    unit: Unit | None = None

    @property
    def words(self) -> str:
        """The kind in words, with an article."""
        if self.type != "number":
            return {"string": "a string", "truth": "a truth value", "any": "a value"}[self.type]
        return (
            "a number"
            if self.unit is None
            else "a ratio"
            if self.unit == RATIO
            else f"a number in {unit_words(self.unit)}"
        )


ANY, STRING, TRUTH, PLAIN = Kind("any"), Kind("string"), Kind("truth"), Kind("number")


def number(unit: str = "") -> Kind:
    """A number in a unit; without one it is a ratio."""
    return Kind("number", ((unit, 1),) if unit else RATIO)


def same_unit(one: Unit | None, other: Unit | None) -> bool:
    """Whether two numbers can be added and compared."""
    return one is None or other is None or one == other


def product(one: Unit | None, other: Unit | None, sign: int) -> Unit | None:
    """The unit of a product (sign 1) or of a quotient (sign -1)."""
    if one is None and other is None:
        return None
    exponents = dict(one or RATIO)
    for name, exponent in other or RATIO:
        exponents[name] = exponents.get(name, 0) + sign * exponent
    return tuple(sorted((name, exponent) for name, exponent in exponents.items() if exponent))


def unit_words(unit: Unit) -> str:
    """A unit in words."""
    return " * ".join(name if exponent == 1 else f"({name})^{exponent}" for name, exponent in unit) or "no unit"
