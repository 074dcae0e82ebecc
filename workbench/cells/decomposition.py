"""What of a cell's difference the stage adds itself, what came in with its inputs, and what rounding must add."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kernels.stages import Site
from store.typed_fields import typed_fields
from workbench.cells.flips import Flips
from workbench.cells.limit import LIMIT
from workbench.cells.sites import read_site

_ALWAYS = ("floor", "a_off", "b_off")
_COMPARED = ("local", "inherited", "local_share", "inherited_share", "floor", "noise", "a_off", "b_off")


def finite(value: float | None) -> float | None:
    """Return a figure as JSON can hold it."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Decomposition:
    """One checked cell; every figure is relative to B's norm at the cell (None where B is zero).

    observed : ‖y_B - y_A‖. local : what the stage adds on A's input,
    relative to A where B is zero. inherited : what came in, ‖f_B(x_B) - f_B(x_A)‖.
    floor : what the two paths, and the formats of weights that are right, must add here by themselves.
    a_off, b_off : distance of each side from float64 on its own weights, in multiples of what its path must add.
    noise : measured, both paths on A's weights and A's input; None where a side cannot be run.
    local_share, inherited_share : parts of the observed difference along itself, which add up to 1; None without one.
    flipped : 8-bit codes that differ between the sides' inputs to the next matmul.
    """

    site: Site
    observed: float | None
    local: float | None
    inherited: float | None
    floor: float
    a_off: float
    b_off: float
    flipped: Flips | None = None
    noise: float | None = None
    local_share: float | None = None
    inherited_share: float | None = None

    @property
    def beyond_floor(self) -> bool:
        """Whether the stage adds more than rounding and right formats may; a difference from zero always is more."""
        return self.local is None or not (self.local == 0 or self.local <= LIMIT * self.floor)

    def to_json(self) -> dict[str, Any]:
        """Return the figures without the place, under the names that JSON has for them; None for one not finite."""
        figures = {name: finite(value) for name, value in asdict(self).items() if name not in ("site", "flipped")}
        return figures | {"flipped_codes": None if self.flipped is None else self.flipped.to_json()}

    @classmethod
    def from_json(cls, record: object) -> "Decomposition":
        """Rebuild a cell from its figures and its place, {"layer": .., "stage": ..}; StoreError if nobody wrote it."""
        parts: dict[str, Any] = dict(record) if isinstance(record, Mapping) else {}
        flipped = parts.get("flipped_codes")
        parts |= {name: math.nan for name in _ALWAYS if parts.get(name, math.nan) is None}  # they were not finite
        parts |= {"site": read_site(record), "flipped": None if flipped is None else Flips.from_json(flipped)}
        return cls(**typed_fields(cls, parts, "cell"))


@dataclass(frozen=True, slots=True)
class Checked:
    """A cell that was run again, over all tokens.

    amplification : inherited difference of the output over the difference of the input, both relative; None where the
    input does not differ or is not known. beyond_floor : the local difference is more than rounding explains.
    forecast : of the difference's growth, in words; empty for stages without one. unforeseen : the difference is more
    than the inputs explain.
    """

    cell: Decomposition
    amplification: float | None
    beyond_floor: bool
    forecast: str = ""
    unforeseen: bool = False

    @property
    def floors(self) -> float | None:
        """The local difference in multiples of the floor."""
        if self.cell.local == 0:
            return 0.0
        return None if self.cell.local is None or not self.cell.floor else self.cell.local / self.cell.floor

    def to_json(self) -> dict[str, Any]:
        """Return the figures as `compare --json` prints them; all are over all tokens."""
        figures = self.cell.to_json()
        return {name: figures[name] for name in _COMPARED} | {
            "amplification": finite(self.amplification),
            "beyond_floor": self.beyond_floor,
            "unforeseen": self.unforeseen,
        }

    def record(self) -> dict[str, Any]:
        """Return all of it but the place as JSON values, as a log keeps it; `from_record` is the inverse."""
        own = {name: getattr(self, name) for name in ("beyond_floor", "forecast", "unforeseen")}
        return self.cell.to_json() | {"amplification": finite(self.amplification)} | own

    @classmethod
    def from_record(cls, record: object) -> "Checked":
        """Rebuild it from `record` and its place, {"layer": .., "stage": ..}; StoreError if nobody wrote it."""
        cell = Decomposition.from_json(record)
        assert isinstance(record, Mapping)
        return cls(**typed_fields(cls, dict(record) | {"cell": cell}, "cell"))
