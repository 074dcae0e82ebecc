"""Two runs beside each other, bit by bit: where the first difference is, and what becomes of the logits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.graph import Array
from kernels.stages import Site
from workbench.bisect.traces.bits import unlike_bits
from workbench.cells.decomposition import finite
from workbench.cells.sites import site_json
from workbench.sweep.figures import Figures, Reference


@dataclass(frozen=True, slots=True)
class First:
    """The first value in execution order that is another one: its place, and what it is in both runs."""

    site: Site
    token: int
    channel: int
    before: float
    after: float

    def to_json(self, floors: float | None) -> dict[str, Any]:
        """Return it as JSON values. floors : how far the stage is off, in what rounding can cause there."""
        place = site_json(self.site) | {"token": self.token, "channel": self.channel}
        return place | {"before": finite(self.before), "after": finite(self.after), "floors": finite(floors)}


@dataclass(frozen=True, slots=True)
class Flip:
    """The first token that has another most likely successor. apart : of both in the first run, as logits."""

    token: int
    before: int
    after: int
    apart: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"token": self.token, "before": self.before, "after": self.after, "apart": finite(self.apart)}


@dataclass(frozen=True, slots=True)
class Logits:
    """What a change makes of the output. kl : mean over the tokens, nats; None where the logits are no numbers."""

    kl: float | None
    flips: int
    tokens: int
    flip: Flip | None

    @classmethod
    def of(cls, before: Array, after: Array) -> "Logits":
        """Compare the logits of two runs, (tokens, vocabulary)."""
        reference = Reference.of(before)
        found, best = Figures.of(after, reference), after.argmax(axis=1)
        kl = float(found.kl.mean()) if np.isfinite(found.kl).all() else None
        flip, others = None, np.flatnonzero(best != reference.best)
        if others.size:
            token = int(others[0])
            old, new = int(reference.best[token]), int(best[token])
            flip = Flip(token, old, new, float(before[token, old] - before[token, new]))
        return cls(kl, found.flips, len(after), flip)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        flip = None if self.flip is None else self.flip.to_json()
        return {"kl": self.kl, "flips": self.flips, "tokens": self.tokens, "flip": flip}


@dataclass(frozen=True, slots=True)
class Beside:
    """Two runs stage by stage. unlike : stages that only one of both has, or over other tokens."""

    stages: int
    identical: int
    first: First | None
    logits: Logits | None
    unlike: int = 0

    @property
    def same(self) -> bool:
        """Whether every stage of both runs is there and has the same bits."""
        return self.identical == self.stages > 0 and not self.unlike

    @classmethod
    def of(cls, both: Iterable[tuple[Site, Array | None, Array | None]]) -> "Beside":
        """Look at every stage of two runs, in execution order; the last one is the logits."""
        stages = identical = unlike = 0
        first, logits = None, None
        for site, before, after in both:
            if before is None or after is None or (before.shape, before.dtype) != (after.shape, after.dtype):
                unlike, logits = unlike + 1, None
                continue
            differ = unlike_bits(before, after)
            stages, identical = stages + 1, identical + (not differ.any())
            if first is None and differ.any():
                token, channel = (int(place) for place in np.argwhere(differ)[0])
                first = First(site, token, channel, float(before[token, channel]), float(after[token, channel]))
            last = site.layer is None
            logits = (before, after) if last else None
        return cls(stages, identical, first, None if logits is None else Logits.of(*logits), unlike)
