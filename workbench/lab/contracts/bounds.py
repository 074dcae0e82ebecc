"""What a measured value must be within, in a rule's own words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kernels.config import same_value
from store.text import printable

Scalar = bool | int | float | str


class Bound(Protocol):
    """What a rule demands of a value."""

    @property
    def text(self) -> str:
        """The bound in words."""
        ...

    def excess(self, value: object) -> float:
        """How far a value is beyond the bound: 0 or less if it meets it; the largest is the worst place."""
        ...


class BothSides(NamedTuple):
    """The values that a setting has in A and in B."""

    a: object
    b: object


@dataclass(frozen=True, slots=True)
class Within:
    """A number from low to high, both allowed; one of the two may be infinite."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def text(self) -> str:
        """The bound in words."""
        if self.low == self.high:
            return f"equals {number_text(self.low)}"
        if math.isinf(self.high):
            return f"at least {number_text(self.low)}"
        if math.isinf(self.low):
            return f"at most {number_text(self.high)}"
        return f"{number_text(self.low)} to {number_text(self.high)}"

    def excess(self, value: object) -> float:
        """Distance to the nearer bound, positive beyond it; a value that is infinite meets nothing.

        Of a band of positive numbers in factors: 0.9 is nearer to the middle of 0.5 to 2 than 1.245 is.
        """
        if not isinstance(value, int | float) or math.isinf(value):
            return math.inf
        beyond = max(self.low - value, value - self.high)
        if not 0 < self.low < self.high < math.inf or value <= 0:
            return beyond
        factors = max(math.log(self.low / value), math.log(value / self.high))
        return max(factors, math.ulp(0.0)) if beyond > 0 else min(factors, 0.0)


@dataclass(frozen=True, slots=True)
class Alike:
    """A setting with the same value on both sides, as far as formats keep its digits."""

    text: str = "both alike"

    def excess(self, value: object) -> float:
        """0 if both are the same, else 1."""
        assert isinstance(value, BothSides)
        return 0.0 if same_value(value.a, value.b) else 1.0


@dataclass(frozen=True, slots=True)
class OnBothSides:
    """A setting that meets a bound on either side."""

    bound: Bound

    @property
    def text(self) -> str:
        """The bound in words."""
        return self.bound.text

    def excess(self, value: object) -> float:
        """Of the side that is further off."""
        assert isinstance(value, BothSides)
        return max(self.bound.excess(side) for side in value)


@dataclass(frozen=True, slots=True)
class Equal:
    """A setting of this very value, a number as far as formats keep its digits."""

    value: Scalar

    @property
    def text(self) -> str:
        """The bound in words."""
        return f"equals {scalar_text(self.value)}"

    def excess(self, value: object) -> float:
        """0 if it is that value, else 1."""
        alike = isinstance(value, bool) == isinstance(self.value, bool) and same_value(value, self.value)
        return 0.0 if alike else 1.0


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some verdicts."""

    verdicts: Sequence[str]

    @property
    def text(self) -> str:
        """The bound in words."""
        *first, last = self.verdicts
        return f"{', '.join(first)} or {last}" if first else last

    def excess(self, value: object) -> float:
        """0 if it is one of them, else 1."""
        return 0.0 if value in self.verdicts else 1.0


def number_text(value: float) -> str:
    """A number of a contract with all its digits: 0.99995, 1e-06."""
    return f"{value:.12g}"


def scalar_text(value: object) -> str:
    """A setting in words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number_text(value)
    return "none" if value is None else printable(str(value), 40)
