"""Spans: what lies between the recorded stages of a trace, run through as one.

A trace that holds only some stages says nothing of the others by itself. But the stages between two recorded points
follow from the first of them, so they are run, and what comes out at the end is set beside the record: a span whose
end is right has nothing wrong inside that its floor would not hide.

The floor is found by running the span again. Every stage is shaken by as much as float rounding may do to it, up or
down at random, and what that makes of the end is what two right engines may be apart. The shaking goes through the
span's own arithmetic: a value that sits near a boundary of the 8-bit codes falls to the other side, as in an engine
that rounds otherwise. It is as strong as the limit that a stage is judged by, for only then is every code turned that
an engine within the limit could turn; and every pattern is used with both signs, so that of two ways to turn one
is taken. The patterns come from a fixed seed: the same pair has the same floor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.forward import evaluate
from kernels.graph import Array, At, Inputs, Model, Stage
from kernels.models import Graph, all_stages
from kernels.paths import F32Path
from kernels.stages import FIRST_STAGES, Site
from workbench.cells.limit import LIMIT

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
_PATTERNS = 2  # each with both signs
_FEWEST = 8  # draws of a channel, over its tokens and the patterns
_UNLIKE = 0.5, 1.4  # of sizes, about 1 in the mean square: two stages of one size must not cancel in every draw
_ROOM = 2.0  # times what a turned code makes of the whole it may make of a part: weights are not all of one size
_TINY = 1e-37


class Step(NamedTuple):
    """A stage as it is run, its inputs by role. layer : what its layer holds so far of the same tokens, by stage."""

    at: At
    inputs: Inputs
    layer: Mapping[str, Array]
    y: Array
    rows: Rows

    @property
    def site(self) -> Site:
        """Where it is."""
        return self.at.stage.site


Change = Callable[[Step], Array]  # what a stage gives on instead of its right output


class Arithmetic(Protocol):
    """What a span needs to be run."""

    @property
    def model(self) -> Model:
        """The model that the trace should be of."""

    @property
    def path(self) -> F32Path:
        """How it computes."""

    @property
    def graph(self) -> Graph:
        """The stages that the model has."""

    def at(self, site: Site) -> At:
        """Where a stage of the model is evaluated."""

    def noise(self, at: At, inputs: Inputs, right: Array) -> Values:
        """What float rounding may do to every element of a stage."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Values of a stage with the tokens of their rows, ascending."""

    values: Array
    rows: Rows

    def of(self, rows: Rows) -> Array:
        """Rows of chosen tokens, all of which it has."""
        return self.values if len(self.rows) == len(rows) else self.values[np.searchsorted(self.rows, rows)]


@dataclass(frozen=True, eq=False)
class Span:
    """The way from recorded stages to the next one. start : what is recorded and read. inside : what is not recorded.

    end is the stage that is compared.
    """

    end: Site
    start: Mapping[Site, Part]
    inside: frozenset[Site] = field(default_factory=frozenset)

    @cached_property
    def stages(self) -> tuple[Site, ...]:
        """The stages to be run in execution order, the end last."""
        return tuple(sorted({*self.inside, self.end}, key=order))

    def run(self, by: Arithmetic, change: Change = lambda step: step.y) -> Part:
        """The end as the model makes it of what was recorded. change : called for every stage, its answer goes on."""
        parts: dict[int | None, dict[str, Part]] = {}
        for site, part in self.start.items():
            parts.setdefault(site.layer, {})[site.stage] = part
        for site in self.stages:
            at, own = by.at(site), parts.setdefault(site.layer, {})
            origins = by.graph.reads(at.stage)
            read = {role: parts[origin.layer][origin.stage] for role, origin in origins.items()}
            given = {} if site.layer is None else by.graph.given(site.layer)
            own.update({name: read[role] for role, name in at.stage.inputs.items() if name in given})
            rows = _common(len(at.tokens), read)
            inputs = {role: part.of(rows) for role, part in read.items()}
            same = {name: part.of(rows) for name, part in own.items() if np.isin(rows, part.rows).all()}
            y = evaluated(at, inputs)
            own[site.stage] = Part(change(Step(at, inputs, same, y, rows)), rows)
            if site.layer is not None and site == by.graph.layer(site.layer)[-1].site:
                needed = by.graph.needed(site.layer + 1)
                parts[site.layer] = {name: part for name, part in own.items() if Site(site.layer, name) in needed}
        return parts[self.end.layer][self.end.stage]

    def steps(self, by: Arithmetic) -> dict[Site, Step]:
        """All stages inside as they should be, and the end."""
        found: dict[Site, Step] = {}

        def listen(step: Step) -> Array:
            found[step.site] = step
            return step.y

        self.run(by, listen)
        return found

    def rest(self, first: Site, before: Mapping[Site, Part]) -> "Span":
        """The way from a stage inside on. before : what the stages before it give, those that the model has."""
        inside = frozenset(site for site in self.inside if order(site) >= order(first) or site not in before)
        done = {site: part for site, part in before.items() if site in self.inside and site not in inside}
        return Span(self.end, {**self.start, **done}, inside)

    def floor(self, by: Arithmetic, rows: Rows) -> Values:
        """What rounding may do to every element of the end at some tokens, in the units that LIMIT counts."""
        right, noises = self._listen(by, rows, lambda step: by.noise(step.at, step.inputs, step.y))
        smooth, turned = np.zeros_like(right), np.zeros_like(right)
        patterns = max(_PATTERNS, -(-_FEWEST // len(rows)))
        for pattern in range(patterns):
            up, down = (self._moved(by, rows, right, _shake(noises, pattern, way)) for way in (LIMIT, -LIMIT))
            smooth += np.minimum(np.square(up), np.square(down)) / patterns
            turned += np.square(up + down) * (
                _PATTERNS / patterns
            )  # nothing, were it not for codes that are turned by one of the two
        return np.asarray(np.sqrt(_even(smooth) + _ROOM**2 * _anywhere(turned)) / LIMIT)

    def storage(self, by: Arithmetic, rows: Rows, cost: Callable[[Step], Values | None]) -> Values:
        """Root mean square of what the rounding of the weights may do to the end, element by element.

        cost : what it may do to a stage, None where there are no weights.
        """
        right, costs = self._listen(by, rows, cost)
        energy = np.zeros_like(right)
        for pattern in range(_PATTERNS):
            energy += np.square(self._moved(by, rows, right, _shake(costs, pattern, 1.0))) / _PATTERNS
        return np.asarray(np.sqrt(_even(energy)))

    def _moved(self, by: Arithmetic, rows: Rows, right: Values, change: Change) -> Values:
        """How far a change moves the end; nothing where that is not a number."""
        with np.errstate(invalid="ignore", over="ignore"):
            moved = self.run(by, change).of(rows) - right
        return np.where(np.isfinite(moved), moved, 0.0)

    def _listen(
        self, by: Arithmetic, rows: Rows, size: Callable[[Step], Values | None]
    ) -> tuple[Values, dict[Site, Values]]:
        """The right end at some tokens, and a measure of every stage on the way."""
        sizes: dict[Site, Values] = {}

        def change(step: Step) -> Array:
            found = size(step)
            if found is not None:
                sizes[step.site] = found
            return step.y

        return self.run(by, change).of(rows).astype(np.float64), sizes


def _shake(sizes: Mapping[Site, Values], pattern: int, times: float) -> Change:
    """Move every element of every stage by so many times its size, up or down as the pattern says."""
    rng = np.random.default_rng(pattern)

    def change(step: Step) -> Array:
        way = times * rng.choice((-1.0, 1.0), step.y.shape) * rng.uniform(*_UNLIKE, step.y.shape)
        return np.asarray(step.y + way * sizes.get(step.site, 0.0), dtype=step.y.dtype)

    return change


def _even(squares: Values) -> Values:
    """The same energy spread as the tokens and the channels have it: single elements of few draws may be anything."""
    mean = max(float(squares.mean()), _TINY**2)
    return np.asarray(squares.mean(axis=1)[:, None] * squares.mean(axis=0)[None, :] / mean + _TINY**2)


def _anywhere(squares: Values) -> Values:
    """The energy of turned codes, of which any token and any channel may have as many as they have on average."""
    mean = max(float(squares.mean()), _TINY**2)
    tokens, channels = (np.maximum(squares.mean(axis=axis) / mean, 1.0) for axis in (1, 0))
    return np.asarray(mean * tokens[:, None] * channels[None, :])


def evaluated(at: At, inputs: Inputs) -> Array:
    """A stage of the model on given inputs by role."""
    return evaluate(at, {role: np.ascontiguousarray(x, dtype=at.path.dtype) for role, x in inputs.items()})


def needs_all(stage: Stage) -> bool:
    """Whether a stage can be evaluated on all tokens only."""
    return stage.kind.over_tokens or stage.kind.by_position


def order(site: Site) -> tuple[int, int]:
    """Sorts sites into the order of execution."""
    layer = site.layer if site.layer is not None else -1 if site.stage in FIRST_STAGES else 1 << 30
    return layer, all_stages().index(site.stage)


def _common(count: int, read: Mapping[str, Part]) -> Rows:
    rows = np.arange(count)
    for part in read.values():
        if len(part.rows) < count:
            rows = np.intersect1d(rows, part.rows)
    return rows
