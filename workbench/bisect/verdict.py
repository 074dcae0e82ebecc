"""What a bisection answers, and that answer written as JSON and read back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kernels.stages import Site
from store.errors import StoreError
from store.typed_fields import typed_fields
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cells.limit import LIMIT
from workbench.cells.sites import read_site, site_json

Verdict = Literal["alike", "numerics_only", "quantization_only", "divergent", "undecided", "uncomparable"]
EXIT_CODES: dict[Verdict, int] = {  # 0 nothing is broken, 1 something is, 2 not answered
    "alike": 0,
    "numerics_only": 0,
    "quantization_only": 0,
    "divergent": 1,
    "undecided": 2,
    "uncomparable": 2,
}
Factor = Literal["weights", "numerics", "config", "graph"]
Setting = tuple[float | str, ...]
_SAME_NUMBER = 0.05  # of a number, that one setting may be found as in two layers


def same_setting(one: Setting, other: Setting) -> bool:
    """Whether two findings are of one setting; an empty one leaves open what is wrong about it."""
    if not one or not other:
        return True
    return len(one) == len(other) and all(
        x == y if isinstance(x, str) or isinstance(y, str) else math.isclose(x, y, rel_tol=_SAME_NUMBER)
        for x, y in zip(one, other, strict=True)
    )


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The next best cause.

    residual : what it leaves of the norm; reproduces : whether that is no more than noise. Of a setting neither is
    known, but `effect`, by how much of its norm it moves the stage.
    """

    cause: str
    residual: float | None = None
    reproduces: bool | None = None
    effect: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known of it."""
        known = ("cause", "residual", "reproduces") if self.effect is None else ("cause", "effect")
        return {name: getattr(self, name) for name in known}


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first cell that is really wrong.

    shown_at : the recorded stage that shows it, where it was not recorded itself.
    setting : what is wrong about a setting of the run, which shows in every layer; empty where it is left open. It
    tells culprits apart while they are sought, and is not written.
    """

    site: Site
    factor: Factor
    cause: str
    explanation: str
    tensor: str | None = None
    residual: float | None = None
    shares: dict[str, float | None] = field(default_factory=dict)
    runner_up: RunnerUp | None = None
    shown_at: Site | None = None
    setting: Setting = ()

    @property
    def measured_at(self) -> Site:
        """The checked cell that accuses it."""
        return self.shown_at or self.site

    def to_json(self) -> dict[str, Any]:
        """Return the culprit as `bisect --json` prints it."""
        return {
            **site_json(self.site),
            "factor": self.factor,
            "cause": self.cause,
            "tensor": self.tensor,
            "explanation": self.explanation,
            "residual": self.residual,
            "shares": self.shares,
            "runner_up": None if self.runner_up is None else self.runner_up.to_json(),
            "shown_at": None if self.shown_at is None else site_json(self.shown_at),
        }

    @classmethod
    def from_json(cls, record: object) -> "Culprit":
        """Rebuild a culprit; StoreError if nobody can have written it."""
        parts = _parts(record)
        runner, shown = parts.get("runner_up"), parts.get("shown_at")
        if runner is not None:
            parts["runner_up"] = RunnerUp(**typed_fields(RunnerUp, runner, "runner-up"))
        parts |= {"site": read_site(record), "shown_at": None if shown is None else read_site(shown)}
        return cls(**typed_fields(cls, parts, "culprit"))


@dataclass(frozen=True, slots=True)
class Bits:
    """How many checked stages of a trace have every bit of ours, and where the first value is that has not.

    site, token, channel : of that value; None where all stages are identical.
    """

    identical: int
    checked: int
    site: Site | None = None
    token: int | None = None
    channel: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the count as `bisect --json` prints it."""
        first = None
        if self.site is not None:
            first = site_json(self.site) | {"token": self.token, "channel": self.channel}
        return {"identical": self.identical, "checked": self.checked, "first": first}

    @classmethod
    def from_json(cls, record: object) -> "Bits":
        """Rebuild a count; StoreError if nobody can have written it."""
        parts = _parts(record)
        first = parts.get("first")
        if first is not None:
            parts |= {"site": read_site(first), **{name: _parts(first).get(name) for name in ("token", "channel")}}
        return cls(**typed_fields(cls, parts, "bits"))

    def words(self, engine: str) -> str:
        """Return it as a sentence."""
        if self.site is None:
            return f"Identical to {engine} in every bit: all {self.checked} stages that were checked."
        return (
            f"Identical to {engine} in every bit in {self.identical} of {self.checked} stages; the first other value "
            f"is at {self.site}, token {self.token}, channel {self.channel}."
        )


@dataclass(frozen=True, slots=True)
class Bisection:
    """The answer: verdict, culprit, further culprits, and what it rests on.

    notes : what the answer does not cover, in sentences (a fault that this prompt does not show, ambiguity).
    cells : how many cells the pair has; those in `checked` were run again. cells_in_spans : those of a trace that were
    not recorded, but lie between recorded ones that were checked. bits : of a trace, on its own inputs; else None.
    """

    verdict: Verdict
    first_divergent: Site | None
    culprit: Culprit | None
    others: tuple[Culprit, ...]
    floor: float | None
    checked: tuple[Decomposition, ...]
    notes: tuple[str, ...] = ()
    cells: int | None = None
    cells_in_spans: int = 0
    bits: Bits | None = None

    @property
    def covered(self) -> int:
        """Cells that were checked, by themselves or inside a span."""
        return len(self.checked) + self.cells_in_spans

    @property
    def differs(self) -> bool:
        """Whether something is wrong (exit code 1)."""
        return self.verdict == "divergent"

    def judged(self, of_models: bool) -> Iterator[Checked]:
        """Yield the cells that were run again, each with whether it adds more than rounding explains.

        of_models : both sides are models. What a trace inherited is not known, only what it did with that: a cell of
        one is marked where a stage of its kind is accused and one side is off by more than rounding allows.
        """
        if of_models:
            yield from (Checked(cell, None, cell.beyond_floor) for cell in self.checked)
            return
        blamed = {culprit.measured_at.stage for culprit in (self.culprit, *self.others) if culprit is not None}
        for cell in self.checked:
            off = cell.a_off + cell.b_off  # that of the trace; its model has none
            yield Checked(cell, None, cell.site.stage in blamed and not off <= LIMIT)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as `bisect --json` prints it; contract: schemas/bisect.schema.json."""
        first = self.first_divergent
        return {
            "verdict": self.verdict,
            "first_divergent": None if first is None else site_json(first),
            "culprit": None if self.culprit is None else self.culprit.to_json(),
            "others": [other.to_json() for other in self.others],
            "floor": self.floor,
            "cells_checked": len(self.checked),
            "cells_in_spans": self.cells_in_spans,
            "cells_expected": self.cells,
            "bits": None if self.bits is None else self.bits.to_json(),
            "notes": list(self.notes),
            "cells": [site_json(cell.site) | cell.to_json() for cell in self.checked],
        }

    @classmethod
    def from_json(cls, record: object) -> "Bisection":
        """Rebuild an answer; StoreError if nobody can have written it."""
        parts = _parts(record)
        first, culprit, others, cells = (parts.get(name) for name in ("first_divergent", "culprit", "others", "cells"))
        if not isinstance(others, list) or not isinstance(cells, list):
            raise StoreError("The bisection record has no lists of further culprits and of cells.")
        parts |= {
            "first_divergent": None if first is None else read_site(first),
            "culprit": None if culprit is None else Culprit.from_json(culprit),
            "others": tuple(map(Culprit.from_json, others)),
            "checked": tuple(map(Decomposition.from_json, cells)),
            "cells": parts.get("cells_expected"),
            "bits": None if parts.get("bits") is None else Bits.from_json(parts["bits"]),
        }
        return cls(**typed_fields(cls, parts, "bisection"))


def _parts(record: object) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise StoreError("The record is not an object of named parts.")
    return dict(record)
